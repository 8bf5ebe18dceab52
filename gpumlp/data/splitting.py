"""The split of a data set into a training and a validation part."""

from __future__ import annotations

import dataclasses

import numpy as np

from gpumlp.data.dataset import Dataset
from gpumlp.data.raw import listed
from gpumlp.data.scratch import taken


def split(
    dataset: Dataset, validation: float = 0.2, seed: int = 0
) -> tuple[Dataset, Dataset | None]:
    """Training and validation part, drawn at random, classification stratified.

    The parts of a file keep its order, so that both are read from front to end.

    Args:
        dataset: what to split.
        validation: below 1 the share of the examples to hold out, else their number; 0 for none.
        seed: of the draw.
    """
    count = _held_out(len(dataset), validation)
    if count == 0:
        return dataset, None
    if dataset.classes is not None:
        _check_stratum(dataset, count)
    from sklearn.model_selection import train_test_split

    rows = train_test_split(
        np.arange(len(dataset)),
        test_size=count,
        random_state=seed,
        stratify=None if dataset.classes is None else dataset.y,
    )
    if dataset.ordered:
        rows = [np.sort(part) for part in rows]
    train, held = (
        dataclasses.replace(dataset, x=taken(dataset.x, i), y=dataset.y[i]) for i in rows
    )
    return train, held


def _held_out(m: int, validation: float) -> int:
    """How many of m examples to hold out."""
    whole = validation >= 1 and float(validation).is_integer()
    if not (0 <= validation < 1 or (whole and validation < m)):
        raise ValueError(
            f"validation must be a share in [0, 1) or a number of examples below {m}, "
            f"got {validation}"
        )
    count = int(validation) if whole else round(validation * m)
    if validation and not 0 < count < m:
        raise ValueError(f"validation {validation} of {m} examples leaves one part empty")
    return count


def _check_stratum(dataset: Dataset, count: int) -> None:
    """Every class must have an example on both sides."""
    assert dataset.classes is not None
    sizes = np.bincount(dataset.y, minlength=len(dataset.classes))
    single = [c for c, size in zip(dataset.classes, sizes, strict=True) if size < 2]
    if single:
        raise ValueError(
            f"{dataset.name}: classes of a single example cannot be split: {listed(single)}; "
            "drop them, or say --validation 0, or --task regression if the target is a quantity"
        )
    if min(count, len(dataset) - count) < len(sizes):
        raise ValueError(
            f"{dataset.name}: {len(sizes)} classes do not fit into a part of "
            f"{min(count, len(dataset) - count)} examples; choose another --validation"
        )
