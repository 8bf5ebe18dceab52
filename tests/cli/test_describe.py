"""`gpumlp describe`, and what `gpumlp train` says about the columns that it read."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gpumlp.cli.leaks import leaks
from gpumlp.data import Dataset, Preparation
from tests.support.cli_cases import SMALL, run
from tests.support.timing import slowdown

pandas = pytest.importorskip("pandas")
M = 200


@pytest.fixture
def frame():
    rng = np.random.default_rng(0)
    a = rng.normal(size=M)
    return pandas.DataFrame({
        "id": range(M), "a": rng.normal(size=M), "leak": np.where(a > 0, 7, 3),
        "price": [f"${v:,.2f}" for v in rng.uniform(1, 9999, M)],
        "sold": pandas.date_range("2023-01-01", periods=M).strftime("%d.%m.%Y"),
        "kind": np.where(np.arange(M) % 9 == 0, None, rng.choice(["x", "y"], M)),
        "c, d": 1, "name": [f"n {i}" for i in range(M)], "y": np.where(a > 0, "yes", "no"),
    })  # fmt: skip


@pytest.fixture
def path(frame, tmp_path):
    frame.to_csv(tmp_path / "t.csv", index=False)
    return tmp_path / "t.csv"


def rows(*arguments):
    found = json.loads(run("describe", *arguments, "--json").stdout)
    return found, {row["name"]: row for row in found["columns"]}


def test_numbers_that_may_stand_for_missing_ones(frame, path):
    low, high = (np.where(np.arange(M) % 50 == 1, v, frame.a) for v in (-999.0, 9999.0))
    near = np.arange(M) % 100  # 99 is one of them
    frame.assign(low=low, high=high, near=near).to_csv(path, index=False)
    _, by_name = rows(path, "--target", "y")
    marks = {name: row["mark"] for name, row in by_name.items() if row["mark"] is not None}
    assert marks == {"low": -999, "high": 9999}
    [line] = [
        line
        for line in run("describe", path, "--target", "y").stdout.splitlines()
        if "-999" in line
    ]
    assert line.split() == ["low", "number", "is", "-999", "a", "missing", "value?"]


@pytest.mark.parametrize("command", ["describe", "train", "search"])
def test_values_of_a_target_and_dates_that_may_stand_for_missing_ones(command, tmp_path):
    """All commands that learn say so, as such values decide about the scale of a column."""
    rng, rare = np.random.default_rng(0), np.arange(M) % 50 == 1
    days = pandas.date_range("2023-01-01", periods=M).strftime("%Y-%m-%d")
    path = tmp_path / "t.csv"
    pandas.DataFrame({
        "a": rng.normal(size=M), "until": np.where(rare, "9999-12-31", days),
        "y": np.where(np.roll(rare, 5), -999, rng.normal(size=M)),
    }).to_csv(path, index=False)  # fmt: skip
    if command == "describe":
        said = run(command, path, "--target", "y").stdout
        assert "is 9999-12-31 a missing value?" in said
        assert "the target: is -999 a missing value?" in said
        found, by_name = rows(path, "--target", "y")
        assert (found["mark"], by_name["until"]["mark"]) == (-999, "9999-12-31")
    else:
        more = ["--folds", "2", "--try", "lr=0.1,0.2"] if command == "search" else []
        said = run(command, path, "--target", "y", *SMALL, *more, "--out", tmp_path / "r").stderr
        assert "that may mean missing ones: until (9999-12-31), the target (-999)" in said


def test_columns(path):
    found, by_name = rows(path, "--target", "y")
    assert {name: row["becomes"] for name, row in by_name.items()} == {
        "a": "number", "leak": "number", "price": "number, written as $1,234.5",
        "sold": "date: day, month, weekday, written as 31.12.2024", "kind": "2 categories",
        "c, d": "nothing: it is always 1", "id": "left out: row numbers",
        "name": "left out: a different word in each row",
    }  # fmt: skip
    assert by_name["kind"]["missing"] == 23
    assert [name for name, row in by_name.items() if row["leak"]] == ["leak"]
    assert (found["examples"], found["inputs"], found["by_row_order"]) == (M, 14, False)
    assert found["majority"] == pandas.read_csv(path)["y"].value_counts(normalize=True).max()
    printed = run("describe", path, "--target", "y").stdout.splitlines()
    assert printed[0].endswith("2 classes, 14 inputs")
    assert printed[1].startswith("always predicting the most frequent class has an accuracy of 0.5")
    [line] = [line for line in printed if "leak " in line]
    assert line.split()[1:] == ["number", "predicts", "the", "target", "alone:", "a", "leak?"]
    assert any(line.startswith('"c, d" ') for line in printed)


def test_options_are_those_of_train(path):
    _, by_name = rows(path, "--target", "y", "--drop", "leak,price", "--keep", "id")
    assert by_name["id"]["becomes"] == "number"
    assert by_name["leak"]["becomes"] == "left out: --drop"


@pytest.mark.parametrize("target", ["y", "a"])
def test_order_of_the_rows_that_tells_the_target(frame, tmp_path, target):
    path = tmp_path / "t.csv"
    frame.sort_values(target, kind="stable").to_csv(path, index=False)
    assert rows(path, "--target", target)[0]["by_row_order"]
    assert (
        "the order of the rows tells the target" in run("describe", path, "--target", target).stdout
    )


def test_classes_that_only_a_part_of_the_rows_has(frame, tmp_path):
    y = ["other", *frame["y"][1:]]
    frame.assign(y=y, one="x").to_csv(tmp_path / "t.csv", index=False)
    done = run("describe", tmp_path / "t.csv", "--target", "y")
    assert done.stderr == ""
    assert " 1 category " in done.stdout


def test_columns_that_predict_values(tmp_path):
    rng = np.random.default_rng(0)
    y, m = rng.normal(size=1000), 1000
    codes = rng.integers(0, 9, m)
    pandas.DataFrame({
        "other": rng.normal(size=m), "line": 3 * y + 1, "curve": np.exp(y),
        "exact": y + rng.normal(size=m) / 100, "rough": y + rng.normal(size=m) / 10,
        "gaps": np.where(codes == 4, np.nan, y), "y": y,
    }).to_csv(tmp_path / "t.csv", index=False)  # fmt: skip
    _, by_name = rows(tmp_path / "t.csv", "--target", "y")
    assert [name for name, row in by_name.items() if row["leak"]] == ["line", "curve", "exact"]
    pandas.DataFrame(
        {"code": np.where(codes == 4, np.nan, codes), "rough": y + codes, "y": codes * 1.5}
    ).to_csv(tmp_path / "t.csv", index=False)
    _, by_name = rows(tmp_path / "t.csv", "--target", "y", "--task", "regression")
    assert [name for name, row in by_name.items() if row["leak"]] == ["code"]


def test_values_beyond_those_that_are_known_do_not_hide_a_leak():
    """Extreme numbers, and rare words, of which the other rows tell nothing."""
    for seed in range(5):
        y = np.random.default_rng(seed).normal(size=150)
        codes = np.random.default_rng(seed).permutation(12)[(3 * y).astype(int).clip(-6, 5) + 6]
        names = ("line", "word", "square")
        x = np.stack([3 * y + 1, codes, y**2], axis=1)
        assert leaks(Dataset("t", "regression", x, y, names))[0].tolist() == [True, False, False]
        y = (3 * y).astype(int).clip(-6, 5) * 1.5
        assert leaks(Dataset("t", "regression", x, y, names))[0][1]


def test_few_rows_of_a_class_tell_nothing_about_the_order():
    rng = np.random.default_rng(0)
    x, names = rng.normal(size=(400, 2)), tuple("ab")
    for places, ordered in (([10, 60, 200], False), (range(40), True)):
        y = np.isin(np.arange(400), places).astype(int)
        assert leaks(Dataset("t", "classification", x, y, names, names))[1] == ordered


def test_runs_of_a_class_and_drifting_values_tell_of_the_order():
    rng = np.random.default_rng(0)
    x, names = rng.normal(size=(2000, 2)), tuple("ab")
    for y, ordered in ((np.arange(2000) // 200 % 2, True), (np.arange(2000) // 2 % 2, False)):
        assert leaks(Dataset("t", "classification", x, y, names, names))[1] == ordered
    for y, ordered in ((x[:, 0].cumsum(), True), (x[:, 0] + x[:, 1].cumsum() / 20, False)):
        assert leaks(Dataset("t", "regression", x, y, names))[1] == ordered


def test_wide_table_shares_lines(tmp_path):
    rng = np.random.default_rng(0)
    wide = pandas.DataFrame(rng.normal(size=(60, 150))).add_prefix("g")
    more = {f"k{j}": j for j in range(20)} | {"w": rng.choice(["a", "b"], 60), "y": wide.g0 > 0}
    wide["g7"] = np.where(np.arange(60) == 3, np.nan, wide.g7)
    wide.assign(**more).to_csv(tmp_path / "t.csv", index=False)
    assert len(rows(tmp_path / "t.csv", "--target", "y")[1]) == 171
    printed = run("describe", tmp_path / "t.csv", "--target", "y").stdout.splitlines()
    first = next(i for i, line in enumerate(printed) if line.startswith("column "))
    assert [line.split("  ")[0] for line in printed[first + 1 :]] == [
        "g0, g1, g2, g3, g4, g5, g6, g8, … (149 in all)", "g7",
        "k0, k1, k2, k3, k4, k5, k6, k7, … (20 in all)", "w",
    ]  # fmt: skip


def test_leaks_of_wide_tables_are_searched_in_proportion():
    def prepared(n):
        x = np.random.default_rng(0).normal(size=(60, n))
        y = np.arange(60) % 2
        names = tuple(map(str, range(n)))
        return lambda: leaks(Dataset("t", "classification", x, y, names, ("n", "y")))

    assert slowdown(prepared, 500, 8000, most=2) < 2


def test_small_table_and_embedded_data(frame, tmp_path):
    frame[:20].to_csv(tmp_path / "t.csv", index=False)
    _, by_name = rows(tmp_path / "t.csv", "--target", "y")
    assert not any(row["leak"] for row in by_name.values())
    assert rows("breast_cancer")[0]["inputs"] == 30


def test_train_says_how_the_columns_were_read(path, tmp_path):
    arguments = ("--target", "y", "--drop", "leak", "--out", tmp_path / "m", *SMALL)
    said = run("train", path, *arguments).stderr
    for line in (
        "columns left out; --keep keeps them: id (row numbers), name (a different word in each "
        "row)",
        "columns whose values are written so: price ($1,234.5), sold (31.12.2024)",
        "columns of dates, and their inputs: sold (day, month, weekday)",
    ):
        assert f"{line}\n" in said
    known = Preparation.load(tmp_path / "m" / "model.safetensors")
    assert known.features == ("a", "price", "sold", "kind", "c, d")


def test_value_of_a_constant_column_that_changes(frame, path, tmp_path):
    run("train", path, "--target", "y", "--out", tmp_path / "m", *SMALL)
    found = []
    for value in (1, 1000):
        frame.assign(**{"c, d": value}).to_csv(path, index=False)
        done = run("predict", tmp_path / "m" / "model.safetensors", path)
        found.append(done.stdout)
        assert ('"c, d" (200)' in done.stderr) == (value == 1000)
    assert found[0] == found[1]
