"""Columns of a table that are no features, since they only name the rows or are empty."""

from __future__ import annotations

import re

import numpy as np

from gpumlp.data.columns import FEWEST_ROWS, Column
from gpumlp.data.scratch import Matrix
from gpumlp.io.chunks import chunks
from gpumlp.io.distinct import distinct

# names that pandas gives to an index without a name
INDEX = re.compile(r"Unnamed: 0(\.\d+)*|level_\d+|__index_level_\d+__")
# names of columns that writers and people add: row numbers and identifiers
ROW_NAMES = (
    r"(unnamed:? ?\d*(\.\d+)*)?|(level|index)_\d+|__index_level_\d+__|idx|\.\.\.\d+|#|n[°º]|№|_c0|"
    r"_*((df|data_?frame|old|orig(inal)?|pandas)[_ .]?)?index(_col)?_*|_*rowid_*|_n_|zeile|"
    r"序号|番号|编号|"
    r"_*(row|line)([ _.]?(names?|id|nr|no|index|num(ber)?|count(er)?))?|"
    r"((s(r|l|erial)?|lfd\.?)[ _.]*)?(nr|no)\.?|serial|seq|lfd|record|rec([ _]?no)?|_*obs_*\.?|rn"
)
NUMBERED = (
    "account|case|customer|employee|entry|invoice|item|kunden|licen[cs]e|member|obs(ervation)?|order|"
    "participant|patient|person|rec(ord)?|ref(erence)?|row|sample|seq(uence)?|serial|session|student|"
    "subj(ect)?|ticket|transaction|txn|user|visit"
)
IDENTIFIER = re.compile(
    rf"(?i:{ROW_NAMES}|id[\W_].+|(({NUMBERED})|(.*[\W_])?"
    r"([cefgopstu]?id|uuid|guid|[pr]k|(row)?key|object[_ ]?id|ident(ifier|ifiant|ifica\w+)?))"
    r"([\W_]?(id|no|nr|num(ber|mer)?)\.?|[._]([xy]|ref|\d+))?)|.*[a-z]I[Dd]"
)
NUMBERING = re.compile(f"(?i:{ROW_NAMES})")
FIRST = re.compile(  # of the first column; R calls it X or V1 if its header has no name
    r"X(\.?1)?|V1|(?i:(column|var)[_ ]?[01]|n|num|n(um(ber|mer)|[uú]m[eé]ro)|counter|ordinal)"
)


def reason_to_leave_out(column: Column, x: Matrix, j: int, index: bool) -> str:
    """Why column j of x is no feature: it has no values, or names the rows; "" if it is one."""
    if column.empty:
        return "no values"
    if index:
        return "pandas' index"
    different = len(column.words) > 1 and not column.declared and bool((column.counts <= 1).all())
    if different and column.problem is not None and column.problem.kind == "many":
        return "a different word in each row"
    # also with 1, 1.1, 1.2, as R calls copies of a row
    unnamed = INDEX.fullmatch(column.name) and column.kinds == {"numbers"} and not column.missing
    if unnamed and not column.whole:
        return "pandas' index"
    counting = column.counting and column.total >= FEWEST_ROWS
    named = IDENTIFIER.fullmatch(column.name) or (j == 0 and FIRST.fullmatch(column.name))
    if counting or (column.whole and named):
        values = np.concatenate([x[rows][:, j] for rows in chunks(x)])
        if len(distinct(values)) == len(values):
            return "row numbers" if counting else "a different number in each row"
        if unnamed:
            return "pandas' index"
        again = values[1:] == values[0]  # several tables, one below the other
        numbered = NUMBERING.fullmatch(column.name) or (j == 0 and FIRST.fullmatch(column.name))
        if numbered and ((values[1:] == values[:-1] + 1) | again).all() and again.mean() < 0.1:
            return "row numbers"
    return ""
