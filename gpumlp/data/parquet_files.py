"""Read .parquet files, some rows at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from gpumlp.data.raw import unreadable

PIECE = 8 << 20  # bytes of a piece, at 8 for each number
BUFFER = 1 << 20  # bytes of the file that are read ahead for each column


class ParquetFile:
    """A .parquet file as Arrow tables.

    Attributes:
        names: the column names.
        kinds: the Arrow types of the columns, by name.

    Raises:
        ValueError: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet

        self._path = path
        try:
            # a row group may be the whole file, so its pages are read only when needed
            self._file = pyarrow.parquet.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False)
            schema = self._file.schema_arrow
        except (pa.ArrowException, OSError) as error:
            raise unreadable(path, error) from error
        self.names: list[str] = schema.names
        self.kinds = {field.name: field.type for field in schema}

    def pieces(self, columns: Collection[str], text: Collection[str]) -> Iterator[Any]:
        """Tables of these columns. `text` is not used, as the file stores its column types."""
        import pyarrow as pa

        columns = list(columns)
        rows = max(1, PIECE // (8 * max(1, len(columns))))
        try:
            for batch in self._file.iter_batches(rows, columns=columns):
                yield pa.Table.from_batches([batch]).select(columns)
        except (pa.ArrowException, OSError) as error:
            raise unreadable(self._path, error) from error

    def rows(self, first: int) -> int:
        """The number of rows."""
        return int(self._file.metadata.num_rows)
