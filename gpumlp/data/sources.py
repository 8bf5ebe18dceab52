"""From files, folders and patterns to the .csv or .parquet files whose rows are one table."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from gpumlp.data.dataset import listed

TABLES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
ENDINGS = f"{', '.join(TABLES[:-1])} or {TABLES[-1]}"
NULL = "__HIVE_DEFAULT_PARTITION__"  # how Hive and Spark name the folder of missing values


class Files(NamedTuple):
    """Files of one kind that are read as one table, one after the other.

    Attributes:
        folder: what contains them all; its subfolders key=value are columns.
        text: the files in a message, which is `str(files)`.
    """

    paths: tuple[Path, ...]
    folder: Path
    text: str

    def __str__(self) -> str:
        return self.text

    @property
    def name(self) -> str:
        """A short name: that of the file, or of the folder of several files."""
        if len(self.paths) > 1:
            return self.folder.resolve().name
        return self.paths[0].name[: -len(suffix(self.paths[0]))]

    @property
    def kind(self) -> str:
        """The kind of the files by the ending of their names, "csv" or "parquet"."""
        return _kind(self.paths[0])

    def keys(self, path: Path, wanted: Collection[str] = ()) -> dict[str, str | None]:
        """The columns that the names of subfolders give for all rows of a file, and their value.

        wanted: columns that the folders above may give, too, as if a larger folder was given.
        """
        above = self.folder.absolute().parts
        folders = [folder for folder in above if unquote(folder.split("=")[0]) in wanted]
        folders += Path(os.path.relpath(path.parent, self.folder)).parts
        pairs = (map(unquote, folder.split("=", 1)) for folder in folders if "=" in folder)
        return {key: None if value == NULL else value for key, value in pairs}


def suffix(path: str | os.PathLike[str]) -> str:
    """The ending of a file's name in small letters, such as ".csv" or ".csv.gz"."""
    suffixes = Path(path).suffixes
    packed = len(suffixes) > 1 and suffixes[-1].lower() == ".gz"
    return "".join(suffixes[-2 if packed else -1 :]).lower()


def why_not(name: str) -> str:
    """Why a file with an ending of no known kind cannot be read, and what to do."""
    if name == "-" or (Path(name).exists() and not Path(name).is_file()):
        return f"{name} is a pipe or device; save the data to a file"
    return (
        f"{name} has not the ending of a file that can be read; call tables of text, with commas, "
        "semicolons, tabs or | between the columns, .csv, call Parquet files .parquet, and save "
        "others, such as Excel's, as one of these"
    )


def find(sources: Sequence[str]) -> Files:
    """The files that names of files, folders and patterns stand for.

    Names keep their order. The files of a folder or pattern are in the order of their paths, where
    numbers count by their value: part-2 comes before part-10. Raises ValueError if they cannot be
    one table, and FileNotFoundError.
    """
    paths: list[Path] = []
    for name in sources:
        path = Path(name)
        if path.is_dir():
            paths += _in_folder(path)
        elif re.search(r"[*?[]", name) and not path.exists():
            paths += _matching(name)
        elif len(sources) == 1 or not _is_hidden(path) or suffix(path) in TABLES:
            paths.append(path)  # a shell's data/* includes _SUCCESS
    _check(paths)
    if len(sources) == 1 and Path(sources[0]).is_dir():
        folder = Path(sources[0])
    else:
        folder = Path(os.path.commonpath([path.parent.absolute() for path in paths]))
    if len(sources) == 1 or len(paths) == 1:
        return Files(tuple(paths), folder, sources[0] if len(sources) == 1 else str(paths[0]))
    return Files(tuple(paths), folder, f"{paths[0]}, … ({len(paths)} files)")


def walk(folder: Path) -> Iterator[Path]:
    """The .csv and .parquet files in a folder and in its subfolders; hidden ones are left out."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _is_hidden(name))
        for name in sorted(names):
            if not _is_hidden(name) and suffix(name) in TABLES:
                yield Path(place, name)


def _in_folder(folder: Path) -> list[Path]:
    found = []
    for path in walk(folder):
        other = [part for part in path.relative_to(folder).parts[:-1] if "=" not in part]
        if other:
            raise ValueError(
                f"the folder {folder} has files in subfolders that are not called key=value, such "
                f"as {path}; name the folder to read, such as {path.parent}, or a pattern for all "
                f'of them: "{folder}/**/*{suffix(path)}"'
            )
        if path.is_file():
            found.append(path)
    if not found:
        raise ValueError(f"the folder {folder} has no {ENDINGS} file")
    return sorted(found, key=_by_number)


def _matching(pattern: str) -> list[Path]:
    found: list[Path] = []
    for path in sorted(map(Path, sorted(glob.glob(pattern, recursive=True))), key=_by_number):  # noqa: PTH207
        if path.is_dir() and "**" not in pattern:
            found += _in_folder(path)
        elif path.is_file() and suffix(path) in TABLES and not _is_hidden(path):
            found.append(path)
    if not found:
        raise FileNotFoundError(f"no {ENDINGS} file matches {pattern}")
    return found


def _check(paths: Sequence[Path]) -> None:
    """Raise unless all are different files of one kind."""
    for path in paths:
        if suffix(path) not in TABLES:
            raise ValueError(
                f"{path} is no {ENDINGS} file, and only these can be several; "
                "leave it out, or give it alone"
            )
        if not path.is_file():
            what = "is a pipe or device; save the data to a file" if path.exists() else ""
            raise FileNotFoundError(f"{path} {what}" if what else f"there is no file {path}")
    kinds = {_kind(path): path for path in paths}
    if len(kinds) > 1:
        raise ValueError(
            f"{' and '.join(map(str, kinds.values()))} are of different kinds; give only .csv "
            "files, or only .parquet files"
        )
    # rows that stand in a.csv and in a.csv.gz would be in the training and the validation part
    same = Counter(os.path.realpath(path).removesuffix(".gz") for path in paths)
    double = [str(path) for path in paths if same[os.path.realpath(path).removesuffix(".gz")] > 1]
    if double:
        raise ValueError(
            f"the same file is given twice: {listed(dict.fromkeys(double))}; give it once"
        )


def _kind(path: Path) -> str:
    return "parquet" if suffix(path) == ".parquet" else "csv"


def _is_hidden(path: str | Path) -> bool:
    """Whether the name is one of a writer's notes, such as _SUCCESS or .part.crc."""
    return Path(path).name.startswith((".", "_"))


def _by_number(path: Path) -> list[list[str | int]]:
    return [
        [int(text) if text.isdecimal() else text for text in re.split(r"(\d+)", part)]
        for part in path.parts
    ]
