"""The parts of dates that become inputs: month, weekday, hour.

The functions use arithmetic alone, so that an ONNX graph can be made of them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from gpumlp.io.types import HostArray

DAY = 86_400.0  # seconds
PARTS = {"month": (12, 1), "weekday": (7, 0), "hour": (24, 0)}  # how many values, and the first


def part(name: str, day: HostArray) -> HostArray:
    """A part of dates, a key of `PARTS`; NaN where a date is missing.

    Args:
        name: "month" (1 to 12), "weekday" (0 is Monday) or "hour" (0 to 23).
        day: days since 1970, NaN where missing.
    """
    whole = np.floor(day)
    if name == "weekday":
        return _remainder(whole + 3, 7)  # 1970-01-01 was a Thursday
    if name == "hour":
        return _remainder(np.floor(np.rint((day - whole) * DAY) / 3600), 24)
    # the Gregorian calendar with years that begin in March, so that the leap day is their last
    in_era = _remainder(whole + 719_468, 146_097)  # since a first of March of a year 400 n
    leap_days = np.floor(in_era / 1_460) - np.floor(in_era / 36_524) + np.floor(in_era / 146_096)
    year = np.floor((in_era - leap_days) / 365)
    in_year = in_era - (365 * year + np.floor(year / 4) - np.floor(year / 100))
    return _remainder(np.floor((5 * in_year + 2) / 153) + 2, 12) + 1


def part_inputs(name: str, day: HostArray) -> list[HostArray]:
    """The three inputs of a part: it, standardised, and its place in the cycle; 0 where missing.

    If all values are equally frequent, the first has the mean 0 and the standard deviation 1.
    """
    count, first = PARTS[name]
    value = part(name, day) - first
    angle = value * (2 * math.pi / count)
    number = (value - (count - 1) / 2) / math.sqrt((count**2 - 1) / 12)
    return [np.where(day == day, v, 0.0) for v in (number, np.sin(angle), np.cos(angle))]


def on_one_day(
    features: Sequence[str], dates: Mapping[str, Collection[str]], scale: HostArray
) -> HostArray:
    """Which columns hold different times of one day: bool (n,).

    Args:
        features: the names of all n columns.
        dates: for each column of dates the parts that vary, as in `PARTS`.
        scale: the standard deviation of each column, 0 for a constant one.
    """
    # where no weekday varies, other days are weeks apart
    whole = np.array(["weekday" not in dates.get(name, PARTS) for name in features], bool)
    return whole & (scale > 0) & (scale <= 0.5)  # 0.5 is the largest within a day


def _remainder(x: HostArray, n: float) -> HostArray:
    return x - n * np.floor(x / n)


def part_names(name: str, part: str) -> list[str]:
    """The names of the inputs that `part_inputs` makes of the column `name`."""
    return [f"{name} {part}", f"{name} {part} sin", f"{name} {part} cos"]
