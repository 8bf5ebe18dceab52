"""Columns of Arrow tables: their types, and their values as texts."""

from __future__ import annotations

import contextlib
from functools import cache
from typing import Any

from gpumlp.io.types import HostArray


def as_text(column: Any) -> Any:
    """The Arrow column as strings. Whole numbers of any type are written without a point."""
    import pyarrow as pa
    import pyarrow.compute

    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
        column = column.cast(kind)
    if pa.types.is_floating(kind):
        with contextlib.suppress(pa.ArrowInvalid):  # it has fractions
            column = column.cast(pa.int64())
    text = column.cast(pa.string())
    if pa.types.is_timestamp(kind):
        text = pa.compute.replace_substring_regex(text, r"(?: 00:00:00)?(?:\.0+)?$", "")
    return text


@cache
def is_numeric(kind: Any) -> bool:
    """Whether values of an Arrow type can be cast to numbers."""
    import pyarrow.types as t

    return any(test(kind) for test in (t.is_integer, t.is_floating, t.is_boolean, t.is_decimal))


@cache
def is_text(kind: Any) -> bool:
    """Whether an Arrow type is a type of strings."""
    import pyarrow.types as t

    return any(test(kind) for test in (t.is_string, t.is_large_string, t.is_string_view))


def encoded(column: Any) -> tuple[list[str], HostArray]:
    """The different texts of an Arrow column, and for each row the position of its text, or −1."""
    coded = as_text(column).combine_chunks().dictionary_encode()
    index: HostArray = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return coded.dictionary.to_pylist(), index
