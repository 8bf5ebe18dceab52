"""Columns of a table that are no features, since they only name the rows or are empty."""

from __future__ import annotations

import re

import numpy as np

from gpumlp.data.columns import Column
from gpumlp.data.scratch import Matrix
from gpumlp.io.chunks import chunks

FEWEST_ROWS = 20  # in fewer rows the numbers 1, 2, 3, … may say something
# names that pandas gives to an index without a name
INDEX = re.compile(r"Unnamed: 0(\.\d+)*|level_\d+|__index_level_\d+__")
# names of columns that writers and people add: row numbers and identifiers
ROW_NAMES = (
    r"(unnamed: \d+(\.\d+)*)?|(level|index)_\d+|__index_level_\d+__|index|idx|\.\.\.\d+|#|"
    r"(row|line)([ _.]?(names?|id|nr|no|index|num(ber)?))?|"
    r"(s(r|l|erial)?[ _.]*)?(nr|no)\.?|serial|seq|record|obs|rn"
)
NUMBERED = (
    "account|case|customer|employee|invoice|licen[cs]e|member|obs(ervation)?|order|participant|"
    "patient|person|record|row|sample|seq(uence)?|serial|student|subject|ticket|user"
)
IDENTIFIER = re.compile(
    rf"(?i:{ROW_NAMES}|(({NUMBERED})|(.*[\W_])?([cegopstu]?id|uuid|guid|key))"
    r"([\W_]?(no|nr|num(ber)?))?)|.*[a-z]I[Dd]"
)
FIRST = re.compile(r"X1?|V1")  # R's names for the first column, if its header has none


def reason_to_leave_out(column: Column, x: Matrix, j: int, index: bool) -> str:
    """Why column j of x is no feature: it has no values, or names the rows; "" if it is one."""
    if column.empty:
        return "no values"
    if index:
        return "pandas' index"
    if column.identifies:
        return "a different word in each row"
    counting = column.counting and column.total >= FEWEST_ROWS
    named = IDENTIFIER.fullmatch(column.name) or (j == 0 and FIRST.fullmatch(column.name))
    if counting or (column.whole and named):
        values = np.concatenate([x[rows][:, j] for rows in chunks(x)])
        if len(np.unique(values)) == len(values):
            return "row numbers" if counting else "a different number in each row"
    if column.whole and INDEX.fullmatch(column.name):
        return "pandas' index"
    return ""
