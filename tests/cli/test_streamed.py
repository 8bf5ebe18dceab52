"""The commands on data that is read in chunks, and predictions that are written in chunks."""

import errno
import json
import tempfile
import tracemalloc

import numpy as np
import pytest

pytest.importorskip("typer")

import pyarrow.parquet as pq

import gpumlp
from gpumlp import storage
from gpumlp.cli import predictions
from gpumlp.data import load
from tests.support.cli_cases import LABELS, NAMES, SMALL, X, rows_of, run, write_flowers


def write_shop(path, m=400):
    """A table of words and numbers with missing values, which all influence the price."""
    rng = np.random.default_rng(2)
    town = rng.choice(["Ulm", "Bonn", "Trier"], m)
    area = rng.normal(100, 20, m).round(1)
    hole = rng.random(m) < 0.15
    y = (area / 20 + 5 * (town == "Ulm") - 5 * hole + rng.normal(0, 0.01, m)).round(4)
    lines = [f"{t},{'' if h else a},{v}" for t, a, h, v in zip(town, area, hole, y, strict=True)]
    path.write_text("\n".join(["town,area,price", *lines]) + "\n")
    return path


@pytest.fixture
def shop(tmp_path):
    return write_shop(tmp_path / "shop.csv")


@pytest.fixture
def _small_chunks(monkeypatch):
    monkeypatch.setattr("gpumlp.io.chunks.CHUNK_BYTES", 2000)
    monkeypatch.setattr("gpumlp.data.csv_files.BLOCK", 1500)


class TestTrain:
    def test_reports_categories_and_missing_values_and_learns_from_them(self, shop, tmp_path):
        options = ["--target", "price", "--out", tmp_path / "o", "--hidden", "none", "-q"]
        more = ["--epochs", 150, "--lr", 0.03, "--batch-size", 16]
        printed = run("train", shop, *options, *more).stderr.splitlines()
        assert printed == [
            "columns of categories, one input for each: town (3)",
            "columns with missing values, filled and marked: area",
        ]
        lines = run("evaluate", tmp_path / "o" / "model.safetensors", shop).stdout.splitlines()
        found = {name: float(value) for name, value in (line.rsplit(None, 1) for line in lines[2:])}
        assert lines[0] == "shop: 400 examples, 2 features, regression, real target"
        assert found["RMSE"] < 0.5  # in the price, a missing value counts 5, and so does a town

    @pytest.mark.usefixtures("_small_chunks")
    @pytest.mark.parametrize("kind", ["csv", "npz"])
    def test_streaming_gives_the_same_bits_and_resumes(self, shop, tmp_path, kind):
        path, target = shop, ["--target", "price"]
        if kind == "npz":
            path, target = tmp_path / "t.npz", []
            np.savez(path, x=X, y=NAMES)
        options = [*target, *SMALL, "--patience", "3"]
        for flag in ("--stream", "--no-stream"):
            run("train", path, *options, "--out", tmp_path / flag, flag)
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        more = ["--out", tmp_path / "cut", "--stream", "--scratch", scratch]
        cut = [*options[:-2], "--schedule", "constant"]
        printed = run("train", path, *cut, *more, "--epochs", "2").stderr.splitlines()[-1]
        assert printed == f"0.00 GB of temporary files in {scratch}"
        run("train", path, *cut, *more, "--resume")
        run("train", path, *cut, "--out", tmp_path / "whole")
        assert list(scratch.iterdir()) == []
        for one, other in (("--stream", "--no-stream"), ("cut", "whole")):
            files = [tmp_path / name / "model.safetensors" for name in (one, other)]
            thetas = [gpumlp.MLP.load(file, "numpy").theta.flat.tobytes() for file in files]
            assert thetas[0] == thetas[1]
            assert storage.load_extra(files[0]) == storage.load_extra(files[1])
            columns = [
                json.loads((tmp_path / name / "history.json").read_text())["columns"]
                for name in (one, other)
            ]
            assert columns[0]["val_cost"] == columns[1]["val_cost"]

    def test_bad_options(self, shop, tmp_path):
        options = ["--target", "price", "--out", tmp_path / "o", *SMALL]
        for arguments, message in [
            (["--categorical", "twon"], "no feature column 'twon'; did you mean 'town'? it has: t"),
            (["--impute", "zero"], "--impute must be one of mean, median, refuse, got 'zero'"),
            (["--impute", "refuse"], "1 of 2 feature columns have missing values: area ("),
            (["--max-categories", "0"], "Invalid value for '--max-categories'"),
            (["--scratch", tmp_path / "no", "--stream"], "there is no folder"),
        ]:
            result = run("train", shop, *options, *arguments, code=2)
            assert message in result.stderr
            assert not (tmp_path / "o").exists()

    def test_a_folder_for_temporary_files_that_is_read_only(self, shop, tmp_path, monkeypatch):
        def temporary(dir, make=tempfile.TemporaryFile):
            if dir == closed:
                raise PermissionError(errno.EACCES, "Permission denied", f"{dir}/tmp0")
            return make(dir=dir)

        closed, opened = tmp_path / "closed", tmp_path / "open"
        closed.mkdir()
        opened.mkdir()
        monkeypatch.setattr(tempfile, "TemporaryFile", temporary)
        command = ["train", shop, "--target", "price", "--out", tmp_path / "o", *SMALL, "--stream"]
        error = run(*command, "--scratch", closed, code=2).stderr
        assert f"cannot write temporary files to {closed} (Permission denied); name an" in error
        assert error.endswith("another folder, --scratch DIR\n")
        run(*command, "--scratch", opened)


@pytest.mark.usefixtures("_small_chunks")
class TestPredict:
    def test_all_formats_have_the_same_predictions(self, flowers, model, tmp_path):
        for name in ("p.csv", "p.parquet", "p.npy"):
            run("predict", model, flowers, "--out", tmp_path / name)
        table = pq.read_table(tmp_path / "p.parquet")
        p = np.load(tmp_path / "p.npy")
        rows = rows_of((tmp_path / "p.csv").read_text())
        assert len(rows) == len(p) == table.num_rows == len(X)
        assert table.column_names == list(rows[0])
        assert table.column("prediction").to_pylist() == [row["prediction"] for row in rows]
        for j, name in enumerate(table.column_names[1:]):
            np.testing.assert_array_equal(table.column(name), p[:, j])
            text = [float(row[name]) for row in rows]
            np.testing.assert_allclose(text, p[:, j], rtol=1e-8)
        net = gpumlp.MLP.load(model, "numpy")
        train = storage.load_extra(model)["data"]
        seen = (X - np.array(train["shift"])) / np.array(train["scale"])
        np.testing.assert_allclose(p, net.predict(seen), rtol=1e-5)

    def test_values(self, shop, tmp_path):
        run("train", shop, "--target", "price", "--out", tmp_path / "o", *SMALL)
        model = tmp_path / "o" / "model.safetensors"
        run("predict", model, shop, "--out", tmp_path / "p.parquet")
        run("predict", model, shop, "--out", tmp_path / "p.npy")
        table = pq.read_table(tmp_path / "p.parquet")
        assert table.column_names == ["prediction"]
        np.testing.assert_array_equal(table.column(0), np.load(tmp_path / "p.npy")[:, 0])

    @pytest.mark.parametrize("kind", ["csv", "parquet", "npy"])
    def test_an_error_in_the_last_chunk_leaves_the_old_file(self, flowers, model, tmp_path, kind):
        out = tmp_path / f"p.{kind}"
        run("predict", model, flowers, "--out", out)
        old = out.read_bytes()
        with flowers.open("a") as file:
            file.write("1,2,setosa,inf\n")
        error = run("predict", model, flowers, "--out", out, code=2).stderr
        assert "1 of 3 feature columns have infinite values: depth (1): correct" in error
        assert out.read_bytes() == old
        assert [p.name for p in tmp_path.glob("p.*")] == [out.name]

    def test_no_rows(self, flowers, model, tmp_path):
        flowers.write_text("length,width,species,depth\n")
        error = run("predict", model, flowers, "--out", tmp_path / "p.csv", code=2).stderr
        assert error == f"gpumlp: error: {flowers} has no rows\n"
        assert not (tmp_path / "p.csv").exists()

    def test_reports_values_that_the_training_data_did_not_have(self, shop, tmp_path):
        run("train", shop, "--target", "price", "--out", tmp_path / "o", *SMALL)
        new = tmp_path / "new.csv"
        new.write_text("area,town\n,Ulm\n90,Rom\n80,\n70,Bonn\n")
        model = tmp_path / "o" / "model.safetensors"
        result = run("predict", model, new)
        assert len(rows_of(result.stdout)) == 4
        printed = "columns with values of a kind that the training data did not have"
        assert result.stderr == f"{printed}: town (2)\n"

    def test_reports_columns_in_which_no_category_is_known(self, tmp_path):
        """As all would be others: towns in capitals, say. A rare category among others is not."""
        towns = [*(["Ulm", "Bonn"] * 30), "Köln"]
        lines = [f"{i % 7},{town},{i % 2}\n" for i, town in enumerate(towns)]
        path, new = tmp_path / "t.csv", tmp_path / "new.csv"
        path.write_text("a,town,y\n" + "".join(lines))
        run("train", path, "--target", "y", "--out", tmp_path / "o", *SMALL)
        for changed, said in ((str.title, False), (str.upper, True)):
            new.write_text("a,town\n" + "".join(f"1,{changed(town)}\n" for town in towns))
            error = run("predict", tmp_path / "o" / "model.safetensors", new).stderr
            printed = "columns in which no value is one of the model's categories: town\n"
            assert error == printed * said


@pytest.mark.usefixtures("_small_chunks")
class TestEvaluate:
    def measured(self, *arguments):
        lines = run("evaluate", *arguments).stdout.splitlines()[2:]
        return {name: float(value) for name, value in (line.rsplit(None, 1) for line in lines)}

    def test_classes(self, flowers, model):
        found = self.measured(model, flowers)
        rows = rows_of(run("predict", model, flowers).stdout)
        right = np.mean([row["prediction"] for row in rows] == NAMES)
        assert found["accuracy"] == pytest.approx(right, abs=1e-6)
        p = np.array([[float(row[f"probability_{n}"]) for n in sorted(set(NAMES))] for row in rows])
        labels = load(flowers, "species").y
        assert set(labels) == set(LABELS)
        smooth = 0.9 * np.eye(3)[labels] + 0.1 / 3
        assert found["cost"] == pytest.approx(-(smooth * np.log(p)).sum(1).mean(), rel=1e-5)

    def test_values(self, shop, tmp_path):
        run("train", shop, "--target", "price", "--out", tmp_path / "o", "--l2", "0.1", *SMALL)
        model = tmp_path / "o" / "model.safetensors"
        found = self.measured(model, shop)
        p = np.array(
            [float(row["prediction"]) for row in rows_of(run("predict", model, shop).stdout)]
        )
        y = load(shop, "price").y
        assert found["RMSE"] == pytest.approx(np.sqrt(np.mean((p - y) ** 2)), rel=1e-5)
        assert found["MAE"] == pytest.approx(np.mean(abs(p - y)), rel=1e-5)
        assert found["R²"] == pytest.approx(1 - np.mean((p - y) ** 2) / y.var(), rel=1e-5)
        net = gpumlp.MLP.load(model, "numpy")
        scale = storage.load_extra(model)["data"]["y_scale"][0]
        cost = np.mean(((p - y) / scale) ** 2) + net.penalty()
        assert found["cost (of the standardised target)"] == pytest.approx(cost, rel=1e-5)


@pytest.mark.parametrize("kind", ["csv", "parquet", "npy"])
def test_writing_needs_memory_for_one_chunk(tmp_path, kind):
    rng = np.random.default_rng(0)
    peaks = []
    for count in (1, 1, 30):  # the first imports
        tracemalloc.start()
        try:
            parts = (rng.random((4000, 2)) for _ in range(count))
            predictions.write(tmp_path / f"p.{kind}", parts, ["prediction", "a", "b"], ("a", "b"))
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[2] < 1.5 * peaks[1], peaks


def test_the_flowers_are_those_of_the_test_module(tmp_path):
    data = load(write_flowers(tmp_path / "f.csv"), "species")
    np.testing.assert_array_equal(data.x, X)
