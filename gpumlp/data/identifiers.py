"""Columns of a table that are no features, since they only name the rows or are empty."""

from __future__ import annotations

import re

import numpy as np

from gpumlp.data.columns import Column
from gpumlp.data.scratch import Matrix
from gpumlp.io.chunks import chunks

FEWEST_ROWS = 20  # in fewer rows the numbers 1, 2, 3, … may say something
# names of columns that writers add, pandas' and R's row numbers, and of identifiers
ROW_NAMES = (
    r"(unnamed: \d+(\.1)*)?|(level|index)_\d+|__index_level_\d+__|index|row(_?(names?|id))?|nr|no"
)
NUMBERED = (
    "account|case|customer|employee|invoice|licen[cs]e|member|obs(ervation)?|order|participant|"
    "patient|person|record|row|sample|seq(uence)?|serial|student|subject|ticket|user"
)
IDENTIFIER = re.compile(
    rf"(?i:{ROW_NAMES}|(({NUMBERED})|(.*[\W_])?([cegopstu]?id|uuid|guid|key))"
    r"([\W_]?(no|nr|num(ber)?))?)|.*[a-z]I[Dd]"
)


def reason_to_leave_out(column: Column, x: Matrix, j: int, index: bool) -> str:
    """Why column j of x is no feature: it has no values, or names the rows; "" if it is one."""
    if column.empty:
        return "no values"
    if index:
        return "pandas' index"
    if column.counting and column.total >= FEWEST_ROWS:
        return "row numbers"
    if column.identifies:
        return "a different word in each row"
    if column.whole and IDENTIFIER.fullmatch(column.name):
        values = np.concatenate([x[rows][:, j] for rows in chunks(x)])
        if len(np.unique(values)) == len(values):
            return "a different number in each row"
    return ""
