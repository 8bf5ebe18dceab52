"""Categories: which of a column's words have an input of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from gpumlp.data.raw import Categories
from gpumlp.io.types import HostArray

if TYPE_CHECKING:
    from gpumlp.data.preparation import Preparation

OTHER = "other"


def kept(
    categories: Categories, often: Mapping[str, HostArray], most: int, least: int
) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """The categories to keep, sorted, by column; and the columns that have rare ones beside them.

    Args:
        categories: all words of each column.
        often: how often each was met in training; those that were not are none of its categories.
        most: how many a column keeps, the most frequent ones, of equals the first by name.
        least: how often a kept one was met.
    """
    chosen, others = {}, []
    for name, words in categories.items():
        met = [(-int(count), word) for word, count in zip(words, often[name], strict=True) if count]
        frequent = [word for count, word in sorted(met)[:most] if -count >= least]
        chosen[name] = tuple(sorted(frequent))
        if len(frequent) < len(met):
            others.append(name)
    return chosen, tuple(others)


def unmet(preparation: Preparation, x: HostArray) -> HostArray:
    """How many values of each column of raw x (m, n) training had none such of: (n,) int64.

    They are missing, or of an unknown category; x as `load` and `pieces` give it for the model.
    """
    holes = np.array([name in preparation.holes for name in preparation.features])
    counts = np.where(holes, 0, np.isnan(x).sum(axis=0))
    for j, name in enumerate(preparation.features):
        if name in preparation.categories and name not in preparation.others:
            counts[j] += int((x[:, j] >= len(preparation.categories[name])).sum())
    return counts


def lookup(words: Sequence[str], known: Sequence[str], other: bool) -> HostArray:
    """Where each of a column's words goes among its inputs, and last where all others go.

    words: what the positions in the data stand for; known: the kept categories; other: whether an
    input for all others follows theirs.  −1 for no input.
    """
    at = {word: i for i, word in enumerate(known)}
    rest = len(known) if other else -1
    return np.array([*(at.get(word, rest) for word in words), rest])
