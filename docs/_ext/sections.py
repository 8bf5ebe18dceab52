"""Convert the sections of a docstring to the form that numpydoc reads.

    Args:                               Parameters
        x: (m, n_0), finite.            ----------
                                        x
                                            (m, n_0), finite.

gpumlp's docstrings have the left form, which is half as long.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

TITLES = {"Args": "Parameters", "Source": "References"}  # titles that differ in numpydoc
LISTS = ("Args", "Attributes", "Columns", "Raises", "Returns", "Warns")
HEAD = re.compile(rf"({'|'.join(LISTS)}|Source|Examples):(?: (.*))?")
ITEM = re.compile(r"([\w*.]+(?:, [\w*.]+)*): (.*)")


def numpydoc_sections(lines: list[str]) -> list[str]:
    """Return the lines of a docstring with its sections in the right form."""
    return list(_converted(lines))


def _converted(lines: list[str]) -> Iterator[str]:
    section = ""
    for line in lines:
        if found := HEAD.fullmatch(line):
            section, rest = found.groups()
            yield from _title(section)
            if rest:
                yield rest
        elif line and not line.startswith(" "):
            section = ""
            yield line
        elif section and (item := ITEM.fullmatch(line[4:])) and section in LISTS:
            yield from (item[1], f"    {item[2]}")
        else:
            yield line[4:] if section else line


def _title(section: str) -> Iterator[str]:
    title = TITLES.get(section, section)
    yield from (f"**{title}**", "") if section == "Columns" else (title, "-" * len(title))
