"""Names of columns in options and messages: quoted as in CSV where they could be misread."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence

MOST_NAMED = 200  # columns in an error
# a part of a list with commas, and what follows it
PART = re.compile(r'\s*(?:"((?:[^"]|"")*)"(=\d+)?|(?!\s*")([^,]*?))\s*(,|\Z)', re.DOTALL)


def quoted(name: str) -> str:
    """The name as a list with commas has it: in quotation marks where these are needed."""
    unclear = "," in name or name.startswith(('"', "-")) or name != name.strip() or not name
    return '"{}"'.format(name.replace('"', '""')) if unclear else name


def as_argument(names: Sequence[str]) -> str:
    """The names as one argument of an option, to be pasted from a sentence into a shell.

    So many that nobody would read them are only called COLUMNS.
    """
    if len(names) > MOST_NAMED:
        return "COLUMNS"
    text = ",".join(map(quoted, names))
    argument = shlex.quote(text)
    # a full stop at its end would be taken for that of the sentence
    return argument if argument != text or text[-1].isalnum() else f"'{text}'"


def split_names(text: str) -> list[str]:
    """The names in a list with commas. Names in quotation marks keep their commas and spaces.

    A number may follow a name, as in city=8 and "weight, kg"=8.
    """
    names, at = list[str](), 0
    while found := PART.match(text, at):
        inside, number, bare, comma = found.groups()
        names += [bare] if inside is None and bare else []
        names += [] if inside is None else [inside.replace('""', '"') + (number or "")]
        at = found.end()
        if not comma:
            return names
    raise ValueError(
        f"{text!r} cannot be read as names: after a name in quotation marks there must be a comma; "
        'a quotation mark within such a name is written twice, "a ""b"""'
    )


def find_name(name: str, names: Sequence[str]) -> str | None:
    """The equal name, else the only one that differs in spaces and line breaks alone."""
    if name in names:
        return name
    words = name.split()
    close = [each for each in names if each.split() == words]
    return close[0] if len(close) == 1 else None


def chosen_names(texts: Iterable[str], names: Sequence[str]) -> list[str]:
    """The names that the texts select: a text is one of `names`, or a list of these with commas.

    Unknown names are returned as they are.
    """
    known, chosen = {*names}, list[str]()

    def found(text: str) -> str | None:  # with many names, the search in a list takes long
        return text if text in known else find_name(text, names)

    for text in [texts] if isinstance(texts, str) else texts:
        parts = split_names(text) if found(text) is None else [text]
        chosen += [found(part) or part for part in parts]
    return chosen
