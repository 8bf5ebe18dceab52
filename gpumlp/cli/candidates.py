"""From the texts of --try to the candidates of a search: options of train with other values."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from gpumlp.cli.fit_options import FitOptions
from gpumlp.cli.options import dashed, kinds
from gpumlp.errors import did_you_mean
from gpumlp.functions import OPTIMIZERS
from gpumlp.functions.entry import lookup

# the options that can be tried: they change neither the rows and the columns nor where it runs
SEARCHED = (
    "hidden", "activation", "norm", "dropout", "residual", "gated", "loss", "label_smoothing", "l1",
    "l2", "optimizer", "lr", "schedule", "epochs", "batch_size", "weight_decay", "clip_norm", "ema",
    "shuffle", "seed", "standardize", "impute", "max_categories", "min_frequency",
    "embed",
)  # fmt: skip
NAMES = tuple(map(dashed, SEARCHED))
EXAMPLE = "such as --try lr=0.001,0.01 or --try hidden=64,128x128"
USUAL_WIDTHS, USUAL_FACTORS = ("64x64", "256x256"), (0.3, 1.0, 3.0)  # without --try
MOST = 10_000  # candidates

Grid = dict[str, Any]
"""The values of each option: a list, or a distribution of scipy.stats."""


def grid(options: FitOptions, texts: Iterable[str], drawn: bool) -> Grid:
    """The values that --try names, by the option's field; the usual ones if there are no texts.

    drawn: whether candidates are drawn at random, so that ranges are possible.
    """
    found: Grid = {}
    for text in texts:
        name, equals, values = (part.strip() for part in text.partition("="))
        field = name.removeprefix("--").replace("-", "_")
        if not equals or not values:
            raise ValueError(f"--try must be NAME=VALUE,VALUE, {EXAMPLE}, got {text!r}")
        if field not in SEARCHED:
            hint = did_you_mean(name, NAMES)
            raise ValueError(
                f"--try {name}: there is no such option to try; {hint}known: {', '.join(NAMES)}"
            )
        if field in found:
            raise ValueError(f"--try {name} is given twice; write all values after one {name}=")
        low, dots, high = values.partition("..")
        if dots:
            found[field] = _range(type(options), field, low, high, drawn)
        else:
            found[field] = _values(type(options), field, values)
    return found or _usual(options)


def combined(grid: Grid, number: int | None, seed: int) -> list[dict[str, Any]]:
    """The values of each candidate: all combinations, or fewer draws."""
    from sklearn.model_selection import ParameterGrid, ParameterSampler

    listed = all(isinstance(values, list) for values in grid.values())
    count = math.prod(map(len, grid.values())) if listed else math.inf
    if number is not None and number < count:
        found = ParameterSampler(grid, number, random_state=seed)
        return [{name: _drawn(name, values[name], grid[name]) for name in grid} for values in found]
    if count > MOST:
        raise ValueError(
            f"--try has {count:,} combinations; try fewer values, or some of them: --random 100"
        )
    return [{name: values[name] for name in grid} for values in ParameterGrid(grid)]


def shown(value: Any) -> str:
    """A value as --try takes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None or isinstance(value, tuple):  # of embed
        return "none" if value is None else ",".join(value)
    return f"{value:.10g}" if isinstance(value, float) else str(value).replace(",", "x")


def _usual(options: FitOptions) -> Grid:
    """Without --try: around the learning rate, two networks."""
    lr = options.lr or lookup(OPTIMIZERS, "optimizer", options.optimizer).lr
    rates = [float(f"{factor * lr:.3g}") for factor in USUAL_FACTORS]
    return {"lr": rates, "hidden": [widths.replace("x", ",") for widths in USUAL_WIDTHS]}


def _values(kind: type, field: str, text: str) -> list[Any]:
    parts = [part.strip() for part in text.split(",")]
    values = [_value(kind, field, part) for part in parts]
    seen: set[Any] = set()
    for value in values:
        if value in seen:
            raise ValueError(f"--try {dashed(field)} has {shown(value)} twice; give it once")
        seen.add(value)
    return values


def _value(kind: type, field: str, text: str) -> Any:
    """The value of an option, from a text of --try."""
    of = kinds(kind)[field]
    if field == "hidden":
        return text.replace("x", ",") if text != "none" else text
    if of is list:  # embed: one number or column, or none
        return None if text == "none" else (text,)
    if of is bool:
        known = {"true": True, "false": False}
        if text not in known:
            raise ValueError(f"--try {dashed(field)} must be true or false, got {text!r}")
        return known[text]
    if of is str:
        return text
    try:
        return of(text)
    except ValueError:
        what = "whole numbers" if of is int else "numbers"
        raise ValueError(f"--try {dashed(field)} must be {what}, got {text!r}") from None


def _range(kind: type, field: str, low: str, high: str, drawn: bool) -> Any:
    """A distribution whose logarithm is uniform, or that is uniform from 0 on."""
    from scipy import stats

    name, of = dashed(field), kinds(kind)[field]
    if of not in (int, float) or field == "seed":
        raise ValueError(f"--try {name} has no range; give values, {EXAMPLE}")
    if not drawn:
        raise ValueError(f"--try {name}={low}..{high} is a range, from which --random N draws")
    a, b = (_value(kind, field, end.strip()) for end in (low, high))
    if not (math.isfinite(b) and 0 <= a < b):
        raise ValueError(
            f"--try {name} must be a range LOW..HIGH of numbers from 0 on, got {low}..{high}"
        )
    if of is int:  # each number has what is nearest to it
        return stats.loguniform(max(a, 1) - 0.5, b + 0.5)
    return stats.loguniform(a, b) if a > 0 else stats.uniform(a, b)


def _drawn(field: str, value: Any, values: Any) -> Any:
    """A value as the option has it: of a distribution a whole number, or one with 4 digits."""
    if isinstance(values, list):
        return value
    return round(float(value)) if kinds(FitOptions)[field] is int else float(f"{value:.4g}")
