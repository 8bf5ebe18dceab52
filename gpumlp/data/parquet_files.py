"""Read .parquet files in pieces."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gpumlp.data.dataset import unreadable
from gpumlp.errors import first_line

PIECE = 8 << 20  # bytes of a piece of a .parquet file, at 8 for each number
PIECE_ROWS = 256  # the fewest rows of a piece, as each column of a piece is an array
BUFFER = 1 << 20  # bytes of a .parquet file that are read ahead for each column


class ParquetFile:
    """A .parquet file as Arrow tables of some rows; as `CsvFile`, with the types of its columns.

    index_columns: the columns that hold pandas' index.
    coded: those of whole numbers that pandas' type of categories had.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        self._path = path
        with self._opened() as file:
            schema, self._rows = file.schema_arrow, int(file.metadata.num_rows)
        self.names: list[str] = schema.names
        pandas = schema.pandas_metadata or {}
        index = pandas.get("index_columns", [])
        self.index_columns: Collection[str] = {name for name in index if isinstance(name, str)}
        # of categories that are no texts, the file stores the values alone
        kinds = {c["field_name"]: c["pandas_type"] for c in pandas.get("columns", ())}
        self.coded = {
            field.name
            for field in schema
            if kinds.get(field.name) == "categorical" and pa.types.is_integer(field.type)
        }
        self.kinds: dict[str, Any] | None = {field.name: field.type for field in schema}

    def pieces(self, columns: Collection[int], text: Collection[str]) -> Iterator[Any]:
        """Tables of these columns, by number.  `text` is not used: the file stores its types."""
        import pyarrow as pa

        names = [self.names[j] for j in columns]
        rows = max(PIECE_ROWS, PIECE // (8 * max(1, len(columns))))
        with self._opened() as file:
            for batch in file.iter_batches(rows, columns=names):
                place = {name: j for j, name in enumerate(batch.schema.names)}
                table = pa.Table.from_batches([batch]).select([place[name] for name in names])
                for j, name in enumerate(names):
                    if name in self.coded:
                        table = table.set_column(j, name, table[j].dictionary_encode())
                yield table

    def rows(self, first: int) -> int:
        """The number of rows."""
        return self._rows

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        import pyarrow as pa
        import pyarrow.parquet

        try:
            # a row group may be the whole file, so its pages are read only when needed
            with pyarrow.parquet.ParquetFile(
                self._path, buffer_size=BUFFER, pre_buffer=False
            ) as file:
                yield file
        except pa.ArrowNotImplementedError as error:
            raise ValueError(
                f"{self._path} has a column that pyarrow cannot read ({first_line(error)}); "
                "convert it, for example polars.Int128 to polars.Int64, or leave it out of the file"
            ) from error
        except (pa.ArrowException, OSError) as error:
            if "UTF8" in str(error):
                raise ValueError(
                    f"{self._path} has a column of text that is not UTF-8; write it as UTF-8"
                ) from None
            raise unreadable(self._path, error) from error
