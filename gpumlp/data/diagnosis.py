"""Errors for columns that cannot be used, each with a line of pandas that corrects the file."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Collection, Mapping, Sequence

from gpumlp.data.columns import MOST_WORDS, Column
from gpumlp.data.csv_files import for_pandas
from gpumlp.data.dataset import listed
from gpumlp.data.date_texts import are_dotted, regular
from gpumlp.data.dates import ISO, WHOLE, DateFormat
from gpumlp.data.labels import CHECKED, MAX_CLASSES, unclear
from gpumlp.data.measures import Format, Problem, are_codes
from gpumlp.data.names import MOST_NAMED, as_argument, quoted
from gpumlp.data.numbers import BEHIND, NO_CENTS, PLAIN, NumberFormat, format_of, singular
from gpumlp.data.sources import Files
from gpumlp.data.spelling import NUMBER
from gpumlp.data.target_column import TargetColumn

EXAMPLE = 16  # entries of a vector that an error suggests
LISTED = 8  # the most texts that a line of pandas lists; it finds more by a pattern
DROP = "leave them out, --drop {option}"
CATEGORICAL = "categories, --categorical {option}"
PROBLEMS = {  # for each kind of `Problem`, and for one more: what columns have, its correction
    "dates": ("hold dates or times where the model takes numbers", "correct them"),
    "numbers": ("hold numbers where the model takes dates", "write them as 2024-12-31"),
    "zones": (
        "hold times with and without a time zone",
        "write all of them with one, as 2024-12-31 15:30:00+01:00, or all without",
    ),
    "ambiguous": (
        "hold dates such as {texts}, whose first number may be the day or the month",
        "say --date-order dmy or --date-order mdy",
    ),
    "gaps": (
        "hold {what}{format} except for some texts ({texts})",
        "correct these texts, or leave them empty to have them filled{cleared}",
    ),
    "words": ("hold words where the model takes {what}{format} ({texts})", "correct them"),
    "unread": (
        "hold dates or times in a form that cannot be read ({texts})",
        "write them as 2024-12-31 15:30:00, or treat the columns as " + CATEGORICAL,
    ),
    "units": (
        "hold numbers beside units or other texts ({texts})",
        "write the numbers alone, in one unit, or treat the columns as " + CATEGORICAL,
    ),
    "several": (
        "hold several numbers in each text ({texts})",
        "write each number in a column of its own, or treat the columns as " + CATEGORICAL,
    ),
    "many": (
        "hold too many different words for categories",
        DROP + ", use the most frequent words as " + CATEGORICAL + ", or learn a vector for each "
        "of them, --embed {embedded}",
    ),
    "other": ("hold neither numbers nor words but {types}", DROP),
    "infinite": (
        "have infinite values",
        "correct them, or leave them empty to have them filled{finite}",
    ),
    "huge": (
        "have whole numbers beyond 2**53, which would lose digits",
        "leave out identifiers, --drop {option}, or subtract an offset",
    ),
}  # fmt: skip
FIXED = {"other": "convert them", "huge": "subtract an offset"}  # corrections for a model's columns
FINITE = 'c.mask(pandas.to_numeric(c, errors="coerce").abs() == float("inf"))'


def check_columns(files: Files, columns: Sequence[Column], learn: bool) -> None:
    """Raise if a feature column holds neither numbers nor categories.

    learn: whether the columns can still be chosen, since no model has learned from them.
    """
    groups: dict[str, list[Column]] = {}
    found: dict[str, list[Problem]] = {}
    for column in columns:
        if (problem := column.problem) is not None:
            groups.setdefault(problem.kind, []).append(column)
            found.setdefault(problem.kind, []).append(problem)
    groups["infinite"] = [column for column in columns if column.infinite]
    groups["huge"] = [column for column in columns if column.huge]
    share = f"of {len(columns)} feature columns"
    lines = [
        f"{len(group)} {share} {_explained(files, kind, group, found.get(kind, []), learn)}"
        for kind, group in groups.items()
        if group
    ]
    if lines:
        raise ValueError("; ".join([f"{files} is not a table of numbers and categories", *lines]))


def check_target(
    files: Files, target: TargetColumn, task: str | None, drop_missing: bool, learn: bool
) -> None:
    """Raise if a target is missing, or if its words cannot be classes.

    task: the task that the user asks for; None if the target decides.
    drop_missing: whether rows without a target are left out.
    learn: whether the task can still be chosen, since no model has learned from the target.
    """
    about = f"{files}: the target {target.name!r}"
    if target.strange:
        raise ValueError(
            f"{about} holds numbers{_as_written(target.format or PLAIN)} except for some texts "
            f"({listed(map(repr, sorted(target.strange)))}); correct these texts"
        )
    if target.missing and not drop_missing:
        raise ValueError(
            f"{about} has {target.missing} missing values; leave out those rows, "
            "--drop-missing-target"
        )
    if len(target.words) >= MOST_WORDS:
        raise ValueError(
            f"{about} holds {MOST_WORDS:,} different words or more, too many for classes"
        )
    words = dict.fromkeys(target.words, 1)
    written = format_of(words)
    if task == "classification" or (written is None and not learn):
        return
    if task is None and written is not None and written[0].after and are_codes(written[0], words):
        return
    if written is None or are_dotted(words):
        words = dict.fromkeys([*words][:CHECKED], 1)
        if task is None and (kind := unclear(words)):
            what = PROBLEMS[kind][0].replace(" in a form that cannot be read", "")
            what = what.format(texts=listed(map(repr, sorted(words))))
            other = "regression" if are_dotted(words) else "classification"
            raise ValueError(
                f"{about} {what.replace('hold', 'holds', 1)}; write one number in each row, or say "
                f"--task {other}"
            )
        return
    form, others = written
    if form.decimal == "/" and not others:  # few different ones, as the others are numbers now
        return
    numbers = _as_numbers(files, target.name, form, others, words)
    as_classes = "; or say --task classification" if learn and target.repeats else ""
    if others:
        raise ValueError(
            f"{about} holds numbers{_as_written(form)} except for some texts "
            f"({listed(map(repr, others))}); leave these empty, "
            f"{numbers}, and leave out those rows, --drop-missing-target{as_classes}"
        )
    if form != PLAIN:
        raise ValueError(
            f"{about} has numbers written as {form}; write 1234.5, {numbers}{as_classes}"
        )


def warn_of_codes(files: Files, columns: Sequence[Column], padded: Mapping[str, str]) -> None:
    """Warn of columns of numbers that may be codes, since some are written as 00501.

    padded: such a text of each column that has one.
    """
    found = {c.name: padded[c.name] for c in columns if c.name in padded and c.kinds == {"numbers"}}
    if found:
        warnings.warn(
            f"{files}: numbers that begin with 0 ({listed(found.values())}) may be codes: "
            f"{listed(map(quoted, found))}; to treat them as categories, say --categorical "
            f"{as_argument([*found])}",
            stacklevel=2,
        )


def warn_of_other_kinds(files: Files, columns: Sequence[Column], zones: Mapping[str, bool]) -> None:
    """Warn of numbers and times that may mean others than in the data of a model.

    zones: for each of its columns of times whether they had a time zone.
    """
    odd = {
        "numbers without the % of the model's data, 10.5 is read as 10.5 %":
            [c.name for c in columns if c.bare],
        "times without a time zone, which the model's data has; they are read as UTC":
            [c.name for c in columns if zones.get(c.name) is True and False in c.zones],
        "times with a time zone, which the model's data does not have; they are converted to UTC":
            [c.name for c in columns if zones.get(c.name) is False and True in c.zones],
    }  # fmt: skip
    for what, names in odd.items():
        if names:
            warnings.warn(f"{files} has {what}: {listed(map(quoted, names))}", stacklevel=2)


def _explained(
    files: Files, kind: str, columns: list[Column], found: list[Problem], learn: bool
) -> str:
    names = [column.name for column in columns]
    labels = [quoted(name) for name in names]
    examples = sorted({text for problem in found for text in problem.examples})
    words = [word for column in columns for word in column.words] if kind == "gaps" else []
    forms = dict.fromkeys(problem.format for problem in found)
    form = found[0].format if len(forms) == 1 else PLAIN
    if kind == "many":
        labels = [f"{quoted(c.name)} ({len(c.words):,} different)" for c in columns]
    elif kind == "infinite":
        labels = [f"{quoted(c.name)} ({c.infinite})" for c in columns]
    fields = {
        "finite": _filled(files, names, FINITE) if kind == "infinite" else "",
        "cleared": _filled(files, names, _without(form, examples, words)) if kind == "gaps" else "",
        "option": as_argument(names),
        "embedded": as_argument([f"{name}={EXAMPLE}" for name in names]),
        "format": _as_written(*forms),
        "what": "dates" if isinstance(form, DateFormat) else "numbers",
        "texts": listed(map(repr, examples)),
        "types": listed(examples),
    }
    what, correction = PROBLEMS[kind]
    if not learn:
        correction = FIXED.get(kind, correction)
    elif kind == "gaps":
        correction += ", or treat the columns as " + CATEGORICAL
    return f"{what.format(**fields)}: {listed(labels)}: {correction.format(**fields)}"


def _as_written(form: Format = PLAIN, *others: Format) -> str:
    """Say how numbers or dates are written, with an example."""
    if others:
        return f" (written as {listed((form, *others))})"
    if form == PLAIN:
        return ""
    if isinstance(form, DateFormat):
        return f" (written as {form})"
    comma = "decimal commas, " if form.decimal == "," else ""
    return f" ({comma}written as {form})"


def _filled(files: Files, names: list[str], column: str) -> str:
    """A line of pandas that empties some texts of the columns, as `_changed`, if it can be read."""
    readable = column and len(names) <= MOST_NAMED
    return f", {_changed(files, names, column)}" if readable else ""


def _without(form: Format, others: list[str], words: Collection[str]) -> str:
    """An expression of pandas: the column c, empty where it has the other texts of its words.

    It is "" where pandas reads fewer dates than gpumlp does.
    """
    pattern = re.compile(form.pattern, re.ASCII) if isinstance(form, NumberFormat) else None
    listed_all = pattern and not all(map(pattern.fullmatch, {*words}.difference(others)))
    if (len(others) <= LISTED or listed_all) and not any(map(NUMBER.fullmatch, others)):
        return f"c.mask(c.str.strip().isin({others}))"
    if isinstance(form, DateFormat):
        if any(regular(word) != word for word in {*words}.difference(others)):
            return ""
        written, text = "ISO8601" if form == ISO else form.pattern, "c.str.strip()"
        if form in WHOLE:
            text = f'c.astype(str).str.strip().str.removesuffix(".0").str.zfill({form.digits})'
        dates = f'pandas.to_datetime({text}, format={written!r}, errors="coerce")'
        return f"c.where({dates}.notna())"
    return f"c.where(c.str.strip().str.fullmatch({form.pattern!r}, na=False))"


def _as_numbers(
    files: Files, name: str, form: NumberFormat, others: list[str], words: Collection[str]
) -> str:
    """A line of pandas that makes plain numbers of the column, without the other texts."""
    column = _without(form, others, words) if others else "c"
    fitting = {*words}.difference(others)
    as_it_is = (
        len(words) > MAX_CLASSES or form.decimal == "/" or all(map(NUMBER.fullmatch, fitting))
    )
    if others and as_it_is:
        return _changed(files, [name], column)
    if any(map(NO_CENTS.search, words)):
        column += rf".str.replace({NO_CENTS.pattern!r}, '\\1', regex=True)"
    if any(map(BEHIND.search, words)):
        column += r".str.replace(r'^\s*(.*?)\s*-\s*$', r'-\1', regex=True)"
    if form.before:
        column += f'.str.replace({form.before!r}, "")'
    if form.after:  # "1 year" and "2 years" have one format
        unit = re.escape(singular(form.after)).replace("\\ ", " ").replace(r"\.", "[.·]")
        plural = unit + r"s?\s*$"
        column += f".str.replace({plural!r}, '', regex=True)"
    column += f".str.translate(str.maketrans{form.translation(fitting)!r})"
    return _changed(files, [name], f'pandas.to_numeric({column}, errors="coerce")')


def _changed(files: Files, columns: list[str], column: str) -> str:
    """A line of pandas that changes the columns and keeps the texts of all others."""
    kind, given = files.kind, ""
    name = "str(c.name)"
    if kind == "csv":  # its names are read without surrounding spaces
        name = "c.name.strip()"
        given = ", dtype=str, keep_default_na=False" + for_pandas(files.paths[0])
    names = [json.dumps(str(each), ensure_ascii=False) for each in files.paths]
    read = f"pandas.read_{kind}({names[0]}{given})"
    if kind == "parquet" and files.keys(files.paths[0]):
        read = f"pandas.read_parquet({json.dumps(str(files.folder), ensure_ascii=False)})"
    elif len(names) > 1:
        each = f"pandas.read_{kind}(path{given}) for path in [{', '.join(names)}]"
        read = f"pandas.concat([{each}], ignore_index=True)"
    line = f"apply(lambda c: {column} if {name} in {columns} else c)"
    return f'{read}.{line}.to_{kind}("new.{kind}", index=False)'
