"""Columns of Arrow tables: their types, and their values as texts."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from functools import cache
from typing import Any

import numpy as np

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
    """Whether an Arrow type is a type of strings, or of bytes, as which some writers store them."""
    import pyarrow.types as t

    names = "string", "large_string", "string_view", "binary", "large_binary", "binary_view"
    return t.is_fixed_size_binary(kind) or any(getattr(t, f"is_{name}")(kind) for name in names)


def exceeds(column: Any, limit: int) -> bool:
    """Whether an Arrow column of whole or decimal numbers has one beyond ±limit."""
    import pyarrow.compute as compute
    import pyarrow.types as t

    if not (t.is_integer(column.type) or t.is_decimal(column.type)):
        return False
    low, high = compute.min_max(column).as_py().values()
    return low is not None and not -limit <= low <= high <= limit


def encoded(column: Any) -> tuple[list[str], HostArray]:
    """The different texts of an Arrow column, and for each row the position of its text, or −1."""
    import pyarrow as pa

    coded = as_text(column).combine_chunks().dictionary_encode()
    index: HostArray = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    try:
        return coded.dictionary.to_pylist(), index
    except UnicodeDecodeError:
        raise pa.ArrowInvalid("text that is not UTF-8") from None


def float_for(
    kinds: dict[str, Any] | None, names: Sequence[str], numbers: Collection[str]
) -> np.dtype[Any]:
    """float32 if it holds the values of all columns and the positions of words, else float64.

    numbers: the columns that hold numbers or dates also where they are texts.
    """
    import pyarrow as pa

    single = (pa.float32(), pa.float16())
    small = kinds is not None and all(
        kinds[name] in single or (is_text(kinds[name]) and name not in numbers) for name in names
    )
    return np.dtype(np.float32 if small else np.float64)
