"""The target's column of a table, piece by piece: numbers as they are, words as positions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gpumlp.data.columns import MOST_WORDS, Column, is_numeric, texts
from gpumlp.data.diagnosis import look, read_call
from gpumlp.io.types import HostArray

SEEN = 1000  # words that are looked at for numbers in disguise


class TargetColumn(Column):
    """The column to predict.

    Attributes:
        worded: whether the last piece was words, so that its numbers are positions.
    """

    worded = False

    def values(self, column: Any) -> HostArray:
        """An Arrow column as numbers (m,) of their own type, or as the words' positions.

        Raises:
            TypeError: it holds neither.
        """
        import pyarrow as pa

        self.missing += column.null_count
        if pa.types.is_null(column.type):
            return np.zeros(len(column))
        self.worded = not is_numeric(column.type)
        if not self.worded:
            self.kinds.add("numbers")
            y: HostArray = np.asarray(column.to_numpy())
            return y.astype(np.float64) if y.dtype == object else y  # decimals
        try:
            y = self._positions(texts(column))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise TypeError(f"the target {self.name!r} holds {column.type}, no labels") from None
        blank = np.isnan(y)
        self.missing += int(blank.sum()) - column.null_count
        return np.where(blank, 0, y).astype(np.int64)

    def check(self, path: Path) -> None:
        """Raise where a target is missing, or words are numbers in disguise."""
        if self.missing:
            raise ValueError(
                f"{path}: the target {self.name!r} has {self.missing} missing values; drop such "
                f"rows, {read_call(path)}.dropna(subset=[{self.name!r}])"
            )
        if not self.words:
            return
        if len(self.words) >= MOST_WORDS:
            raise ValueError(
                f"{path}: the target {self.name!r} holds {MOST_WORDS:,} different words or more, "
                "too many for classes"
            )
        found = look(dict.fromkeys([*self.words][:SEEN], 1))
        if found.kind in ("decimal", "thousands"):
            remedy = "write 1.5 for 1,5" if found.kind == "decimal" else "write the digits alone"
            raise ValueError(
                f"{path}: the target {self.name!r} has numbers with separators, as {found.odd[0]}; "
                f"{remedy}"
            )
