"""The .parquet files, read some rows at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from gpumlp.data.raw import first_line

PIECE = 8 << 20  # bytes of numbers, at 8 each, in a piece
BUFFER = 1 << 20  # bytes of the file that are read ahead, a column


class ParquetFile:
    """A .parquet file as Arrow tables.

    Attributes:
        names: the columns' names.
        kinds: their Arrow types, by name.

    Raises:
        ValueError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet

        self._path = path
        try:
            # a row group may be the whole file: its pages are read as they are needed
            self._file = pyarrow.parquet.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False)
            schema = self._file.schema_arrow
        except (pa.ArrowException, OSError) as error:
            raise self._unreadable(error) from error
        self.names: list[str] = schema.names
        self.kinds = {field.name: field.type for field in schema}

    def pieces(self, columns: Collection[str], text: Collection[str]) -> Iterator[Any]:
        """Tables of these columns; `text` is of no account: the file knows its types."""
        import pyarrow as pa

        columns = list(columns)
        rows = max(1, PIECE // (8 * max(1, len(columns))))
        try:
            for batch in self._file.iter_batches(rows, columns=columns):
                yield pa.Table.from_batches([batch]).select(columns)
        except (pa.ArrowException, OSError) as error:
            raise self._unreadable(error) from error

    def rows(self, first: int) -> int:
        """How many there are."""
        return int(self._file.metadata.num_rows)

    def _unreadable(self, error: BaseException) -> ValueError:
        return ValueError(
            f"{self._path} cannot be read: it is no .parquet file or not whole "
            f"({first_line(error)})"
        )
