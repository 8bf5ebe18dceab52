"""gpumlp search: candidates are compared by cross-validation, and the best one is trained."""

import csv
import json
import re
import tomllib

import numpy as np
import pytest

pytest.importorskip("typer")

from sklearn.model_selection import KFold, StratifiedKFold
from typer.testing import CliRunner

import gpumlp
from gpumlp.cli import cross_validation, results, run_folder
from gpumlp.cli.app import app
from gpumlp.data import Preparation, load, split
from gpumlp.training import lockstep, members
from tests.support import ctrl_c
from tests.support.cli_cases import NAMES, refused, rows_of, run, theta
from tests.support.compiled import needs_library

BACKENDS = ["numpy", pytest.param("cpu", marks=needs_library)]
SHORT = ["--epochs", "5", "--batch-size", "32", "--folds", "3", "--quiet"]
SPECIES = ["--target", "species", "--hidden", "16", "--backend", "numpy", *SHORT]


@pytest.fixture(autouse=True)
def threads(monkeypatch):
    monkeypatch.setattr(members, "blas_threads", lambda: 3)


@pytest.fixture
def houses(tmp_path):
    """A table with words, of which some are rare, gaps, and a target that is far from 0."""
    rng, path = np.random.default_rng(0), tmp_path / "houses.csv"
    size, age = rng.normal(100, 30, 90), rng.uniform(0, 80, 90)
    colour = rng.choice(["red", "green", "blue", "grey"], 90, p=[0.4, 0.4, 0.12, 0.08])
    price = 5e4 + 900 * size - 300 * age + 2e4 * (colour == "red") + rng.normal(0, 3e3, 90)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["size", "age", "colour", "price"])
        ages = ["" if gone else f"{a:.1f}" for a, gone in zip(age, rng.random(90) < 0.1)]  # noqa: B905
        rows.writerows(zip(size.round(1), ages, colour, price.round(1), strict=True))
    return path


def by_hand(data, folds, score, loss, hidden=(16,), lr=None, share=0, epochs=5, **settings):
    """The scores that a search should find, fold by fold, in Python; nothing is shared.

    share: of the rows to train on, which early stopping watches with patience 2.
    """
    found = []
    for train, held_out in folds:
        part = data.__class__(**{**vars(data), "x": data.x[train], "y": data.y[train]})
        part, watched = split(part, share)
        known = Preparation.of(part, x=True, y=data.classes is None)
        widths = [len(known.columns), *hidden, len(data.classes or "y")]
        net = gpumlp.MLP(widths, loss=loss, backend=settings.get("backend", "numpy"))
        trainer = gpumlp.Trainer(net, "adamw", lr, 32, "warmup_cosine")
        own = [
            (known.inputs(each.x, data.categories).astype("f4"), known.targets(each.y))
            for each in (part, watched)
            if each
        ]
        stop = {"validation": own[1], "early_stopping": 2} if share else {}
        history = trainer.fit(*own[0], epochs, progress=False, **stop)
        assert history.stopped == ("early" if share else "finished")
        p = net.predict(known.inputs(data.x[held_out], data.categories).astype("f4"))
        found.append(score(data.y[held_out], known.outputs(p)))
    return found


def searched(folder):
    """What search.json has, by the texts of the options."""
    content = json.loads((folder / "search.json").read_text())
    return {tuple(each["options"].values()): each for each in content["candidates"]}, content


@pytest.mark.parametrize("backend", BACKENDS)
def test_scores_of_classes_are_those_of_single_trainings(backend, flowers, tmp_path):
    options = [*SPECIES, "--backend", backend, "--try", "lr=0.003,0.03", "--try", "hidden=8,16x4"]
    run("search", flowers, *options, "--out", tmp_path / "o")
    found, content = searched(tmp_path / "o")
    assert (content["metric"], content["folds"], len(found)) == ("accuracy", 3, 4)
    data = load(flowers, "species")
    folds = list(StratifiedKFold(3, shuffle=True, random_state=0).split(data.x, data.y))
    loss = gpumlp.LOSSES["softmax_cross_entropy"].set(smoothing=0.1)

    def accuracy(y, p):
        return (p.argmax(axis=1) == y).mean()

    for (lr, hidden), each in found.items():
        widths = [int(width) for width in hidden.split(",")]
        want = by_hand(data, folds, accuracy, loss, widths, lr, backend=backend)
        np.testing.assert_allclose(each["scores"]["accuracy"], want, rtol=1e-12)
        assert each["mean"]["accuracy"] == pytest.approx(np.mean(want))
        assert each["std"]["accuracy"] == pytest.approx(np.std(want))
        assert each["diverged"] == []
    means = [each["mean"]["accuracy"] for each in content["candidates"]]
    assert means == sorted(means, reverse=True)


def test_candidates_of_one_shape_are_trained_in_lockstep_without_threads(
    flowers, tmp_path, monkeypatch
):
    """With the bits of their own trainings; the compiled CPU backend has threads instead."""
    together = []
    original = lockstep.train

    def train(ensemble, *arguments):
        together.append([net.regularizer.spec() for net in ensemble])
        original(ensemble, *arguments)

    monkeypatch.setattr(lockstep, "train", train)
    tried = ["--try", "lr=0.003,0.03", "--try", "l2=0,0.01", "--try", "hidden=8,16"]
    run("search", flowers, *SPECIES, *tried, "--out", tmp_path / "o")
    assert [len(each) for each in together] == [4] * 6  # two networks, three folds
    run(
        "search",
        flowers,
        *SPECIES,
        "--try",
        "lr=0.003",
        "--try",
        "l2=0.01",
        "--out",
        tmp_path / "p",
    )
    assert len(together) == 6
    found, alone = searched(tmp_path / "o")[0], searched(tmp_path / "p")[0]
    assert found[0.003, 0.01, "16"]["scores"] == alone[0.003, 0.01]["scores"]
    many = [*SPECIES, "--optimizer", "adam", "--try", "lr=1e30,0.01", "--out", tmp_path / "q"]
    run("search", flowers, *many)
    assert len(together) == 9
    assert [each["diverged"] for each in searched(tmp_path / "q")[0].values()] == [[], [0, 1, 2]]


def test_each_fold_is_prepared_from_its_training_rows_and_scored_in_the_unit(houses, tmp_path):
    """The means, the fill and the rare categories of a fold are not those of all rows."""
    options = ["--target", "price", "--hidden", "16", "--backend", "numpy", *SHORT]
    metric = ["--metric", "neg_mean_absolute_error,auto", "--try", "lr=0.01,0.03"]
    run("search", houses, *options, *metric, "--out", tmp_path / "o")
    found, content = searched(tmp_path / "o")
    assert content["metric"] == "neg_mean_absolute_error"
    folds = gpumlp.k_folds(90, 3, 0)

    def error(y, p):
        return -np.abs(y - p[:, 0]).mean()

    def r2(y, p):
        return 1 - np.square(y - p[:, 0]).sum() / np.square(y - y.mean()).sum()

    for (lr,), each in found.items():
        for name, score in (("neg_mean_absolute_error", error), ("r2", r2)):
            want = by_hand(load(houses, "price"), folds, score, "squared_error", lr=lr)
            np.testing.assert_allclose(each["scores"][name], want, rtol=1e-5)
    assert all(each["mean"]["neg_mean_absolute_error"] < -1000 for each in found.values())
    data = load(houses, "price")
    of_fold = data.__class__(**{**vars(data), "x": data.x[folds[0][0]], "y": data.y[folds[0][0]]})
    whole, part = (Preparation.of(each, x=True, y=True) for each in (data, of_fold))
    assert (whole.shift, whole.y_shift) != (part.shift, part.y_shift)


def test_the_best_is_trained_as_train_does(flowers, tmp_path):
    """On all rows; the folder is that of a training, and run.toml repeats it."""
    out = tmp_path / "o"
    run("search", flowers, *SPECIES, "--try", "lr=0.0001,0.03", "--seed", "3", "--out", out)
    assert sorted(each.name for each in out.iterdir()) == sorted(
        (*run_folder.FILES, *results.FILES)
    )
    assert tomllib.loads((out / "run.toml").read_text())["lr"] == 0.03
    run("train", "--config", out / "run.toml", "--out", tmp_path / "again", "-q")
    np.testing.assert_array_equal(theta(out), theta(tmp_path / "again"))
    hand = ["--lr", "0.03", "--seed", "3", "--validation", "0", "--out", tmp_path / "hand"]
    run("train", flowers, *[each for each in SPECIES if each not in ("--folds", "3")], *hand)
    np.testing.assert_array_equal(theta(out), theta(tmp_path / "hand"))
    measured = json.loads(run("evaluate", out / "model.safetensors", flowers, "--json").stdout)
    predicted = rows_of(run("predict", out / "model.safetensors", flowers).stdout)
    right = [row["prediction"] for row in predicted] == NAMES
    assert measured["result"]["accuracy"] == np.mean(right) > 0.7


def test_validation_rows_are_in_no_fold(flowers, tmp_path):
    options = [*SPECIES, "--try", "lr=0.01,0.03", "--validation", "0.4", "--out", tmp_path / "o"]
    printed = json.loads(run("search", flowers, *options, "--json").stdout)
    assert printed["result"]["val_metric"] > 0.5
    run("train", "--config", tmp_path / "o" / "run.toml", "--out", tmp_path / "p", "-q")
    np.testing.assert_array_equal(theta(tmp_path / "o"), theta(tmp_path / "p"))
    parts = []
    original = cross_validation.folds_of
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "gpumlp.cli.search.folds_of", lambda d, *a: (parts.append(len(d)), original(d, *a))[1]
        )
        run("search", flowers, *options)
    assert parts == [90]


@pytest.mark.parametrize("backend", BACKENDS)
def test_patience_stops_each_fit_by_rows_that_no_score_has(backend, houses, tmp_path, monkeypatch):
    """Each fold is trained as the last training is, which is that of train --patience."""
    together = []
    original = lockstep.train
    monkeypatch.setattr(lockstep, "train", lambda *a: (together.append(a), original(*a)))
    options = [houses, "--target", "price", "--hidden", "16", "--backend", backend, *SHORT]
    options += ["--epochs", "60", "--patience", "2", "--validation", "0.2"]
    out = ["--out", tmp_path / "o"]
    run("search", *options, "--try", "lr=0.1,0.03", *out)
    assert len(together) == 3 * (backend == "numpy")
    train, _ = split(load(houses, "price"), 0.2)
    folds = gpumlp.k_folds(len(train), 3, 0)

    def r2(y, p):
        return 1 - np.square(y - p[:, 0]).sum() / np.square(y - y.mean()).sum()

    for (lr,), each in searched(tmp_path / "o")[0].items():
        settings = {"lr": lr, "share": 0.2, "epochs": 60, "backend": backend}
        want = by_hand(train, folds, r2, "squared_error", **settings)
        np.testing.assert_allclose(each["scores"]["r2"], want, rtol=1e-6)
    assert tomllib.loads((tmp_path / "o" / "run.toml").read_text())["patience"] == 2
    run("train", "--config", tmp_path / "o" / "run.toml", "--out", tmp_path / "again", "-q")
    np.testing.assert_array_equal(theta(tmp_path / "o"), theta(tmp_path / "again"))
    assert json.loads((tmp_path / "o" / "history.json").read_text())["stopped"] == "early"
    run("search", *[18 if each == "0.2" else each for each in options], "--try", "lr=0.1", *out)
    want = by_hand(train, folds, r2, "squared_error", **{**settings, "lr": 0.1})
    np.testing.assert_allclose(*[searched(tmp_path / "o")[0][0.1,]["scores"]["r2"], want], 1e-6)


def test_the_best_is_trained_as_an_ensemble(flowers, tmp_path):
    """With the scores of single networks; the folder is that of train --models."""
    out, tried = tmp_path / "o", ["--try", "lr=0.0001,0.03", "--patience", "2"]
    tried += ["--epochs", "30", "--validation", "0.2"]
    run("search", flowers, *SPECIES, *tried, "--models", "3", "--out", out)
    names = [each for each in (*run_folder.FILES, *results.FILES) if "checkpoint" not in each]
    assert sorted(each.name for each in out.iterdir()) == sorted([*names, "checkpoints"])
    ensemble = gpumlp.Ensemble.load(out / "model.safetensors", backend="numpy")
    run("train", "--config", out / "run.toml", "--out", tmp_path / "again", "-q")
    again = gpumlp.Ensemble.load(tmp_path / "again" / "model.safetensors", backend="numpy")
    assert len(ensemble) == 3
    np.testing.assert_array_equal(ensemble.theta, again.theta)
    run("search", flowers, *SPECIES, *tried, "--out", tmp_path / "single")
    assert {lr: each["scores"] for lr, each in searched(out)[0].items()} == {
        lr: each["scores"] for lr, each in searched(tmp_path / "single")[0].items()
    }
    printed = json.loads(
        run("search", flowers, *SPECIES, *tried, "--models", "2", "--json", "--out", out).stdout
    )
    assert [each["epochs"] < 30 for each in printed["members"]] == [True, True]
    assert printed["files"].keys() == {*names, "checkpoints"}
    shown = run("search", flowers, *SPECIES[:-1], *tried, "--models", "2", "--out", out).stdout
    assert "2 members: " in shown


def test_table_csv_json_and_figure_show_the_same(flowers, tmp_path):
    options = [each for each in SPECIES if each != "--quiet"]
    tried = ["--try", "lr=0.003,0.03,0.01", "--try", "activation=relu,gelu"]
    printed = run("search", flowers, *options, *tried, "--out", tmp_path / "o").stdout.splitlines()
    assert printed[1] == "6 candidates (3 lr × 2 activation) × 3 folds"
    table = [line.split() for line in printed[3:9]]
    rows = rows_of((tmp_path / "o" / "search.csv").read_text())
    content = json.loads((tmp_path / "o" / "search.json").read_text())
    for place, (line, row, each) in enumerate(zip(table, rows, content["candidates"], strict=True)):
        mean, std = each["mean"]["accuracy"], each["std"]["accuracy"]
        lr, activation = each["options"].values()
        shown = [str(place + 1), f"{lr:g}", activation, f"{mean:.4f}", "±", f"{std:.4f}"]
        assert line[:-1] == shown
        assert [row["rank"], row["lr"], row["activation"]] == shown[:3]
        assert float(row["mean accuracy"]) == mean
        assert float(row["accuracy of fold 2"]) == each["scores"]["accuracy"][1]
    assert (tmp_path / "o" / "search.png").read_bytes().startswith(b"\x89PNG")
    assert printed[9] == "training the best candidate on 150 examples"


def test_candidates_are_drawn_from_lists_and_ranges(flowers, tmp_path):
    tried = ["--try", "lr=0.001..0.1", "--try", "batch-size=8..64", "--try", "hidden=8,8x4"]
    options = [*SPECIES, "--epochs", "1", *tried, "--random", "12", "--out", tmp_path / "o"]
    run("search", flowers, *options)
    found, _ = searched(tmp_path / "o")
    assert len(found) == 12
    rates, sizes, hidden = zip(*found, strict=True)
    assert all(0.001 <= lr <= 0.1 for lr in rates)
    assert min(rates) < 0.01 < max(rates)
    assert all(isinstance(size, int) and 8 <= size <= 64 for size in sizes)
    assert set(hidden) == {"8", "8,4"}
    run("search", flowers, *options)
    assert searched(tmp_path / "o")[0].keys() == found.keys()
    lists = [*SPECIES, "--epochs", "1", "--out", tmp_path / "p", "--try"]
    run("search", flowers, *lists, "lr=0.1,0.2", "--random", "99")
    assert searched(tmp_path / "p")[0].keys() == {(0.1,), (0.2,)}  # all, as there are fewer
    lists.remove("--quiet")
    printed = run("search", flowers, *lists, "lr=0.0123456789,0.2,0.3", "--random", "2").stdout
    assert "\n2 candidates (lr) × 3 folds\n" in printed
    assert searched(tmp_path / "p")[0].keys() <= {(0.0123456789,), (0.2,), (0.3,)}


def test_without_try_learning_rates_and_widths_are_tried(flowers, tmp_path):
    file = tmp_path / "search.toml"
    file.write_text('target = "species"\nepochs = 1\nlr = 0.01\nfolds = 2\nbackend = "numpy"\n')
    run("search", flowers, "--config", file, "--out", tmp_path / "o", "-q")
    found, content = searched(tmp_path / "o")
    assert found.keys() == {(lr, h) for lr in (0.003, 0.01, 0.03) for h in ("64,64", "256,256")}
    assert content["folds"] == 2
    file.write_text(file.read_text() + 'try = ["l2=0,0.1", "standardize=true,false"]\n')
    run("search", flowers, "--config", file, "--out", tmp_path / "o", "-q")
    assert searched(tmp_path / "o")[0].keys() == {(l2, s) for l2 in (0, 0.1) for s in (True, False)}


# ---- what fails ----------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_candidate_that_diverges_is_the_last(backend, houses, tmp_path):
    options = ["--target", "price", "--optimizer", "sgd", "--backend", backend, *SHORT[:-1]]
    tried = ["--hidden", "8", "--try", "lr=1e9,0.01,0.02"]
    printed = run("search", houses, *options, *tried, "--out", tmp_path / "o").stdout
    found, content = searched(tmp_path / "o")
    last = content["candidates"][-1]
    assert (last["options"]["lr"], last["diverged"]) == (1e9, [0, 1, 2])
    assert last["mean"]["r2"] is None
    assert "diverged in 3 of 3" in printed
    run("search", houses, *options, *tried[:2], "--try", "lr=0.01,0.02", "--out", tmp_path / "p")
    alone, _ = searched(tmp_path / "p")
    for lr in (0.01, 0.02):
        assert alone[lr,]["scores"] == found[lr,]["scores"]
    np.testing.assert_array_equal(theta(tmp_path / "o"), theta(tmp_path / "p"))


def test_what_an_error_advises_is_accepted(houses, flowers, tmp_path):
    """With the words that the error says."""
    price = [houses, "--target", "price", "--hidden", "8", "--backend", "numpy", *SHORT]
    price += ["--out", tmp_path / "o"]
    sgd = [*price, "--optimizer", "sgd", "--try", "lr=1e9,1e8"]
    error = run("search", *sgd, code=2).stderr.splitlines()[-1]
    assert "every candidate diverged in a fold (the cost is nan in epoch" in error
    advice = re.search(r"such as --try (lr=\S+), or pass --clip-norm (\S+)", error)
    run("search", *sgd[:-1], advice[1])
    run("search", *[*sgd[:-1], "lr=1e3"], "--clip-norm", advice[2])
    wild = [*price, "--target", "size", "--try", "lr=300", "--epochs", "1", "--metric"]
    with pytest.warns(RuntimeWarning, match="metric 'neg_mean_squared_log_error' is NaN"):
        error = run("search", *wild, "neg_mean_squared_log_error", code=2).stderr
    assert "NaN in a fold of each candidate; use another metric, or fewer --folds" in error
    run("search", *wild, "neg_mean_squared_error")
    species = [flowers, *SPECIES, "--epochs", "1", "--out", tmp_path / "o"]
    error = refused("search", *species, "--try", "lr=0.1..1")
    run("search", *species, "--try", "lr=0.1..1", "--random", "2")
    assert "--random N draws" in error
    error = refused("search", *species, "--try", f"seed={','.join(map(str, range(10_001)))}")
    assert "some of them: --random 100" in error
    error = refused("search", *species, "--try", "lr=0.1", "--folds", "151")
    run("search", *species, "--try", "lr=0.1", "--folds", error.split()[-1])
    error = refused("search", *species, "--try", "lr=0.1", "--patience", "1")
    run("search", *species, "--try", "lr=0.1", "--patience", "1", *error.split()[-2:])
    error = refused("search", *species, "--try", "lr")
    for tried in re.findall(r"--try ([^, ]+=[^ ]+)", error.partition("such as")[2]):
        run("search", *species, "--try", tried.rstrip(","))


@pytest.mark.parametrize("backend", BACKENDS)
def test_ctrl_c_ends_all_fits_and_writes_nothing(backend, flowers, tmp_path, monkeypatch):
    begun = []
    original = cross_validation._fits

    def interrupted(*arguments):
        begun.append(None)
        if len(begun) == 2:
            ctrl_c.press()
        return original(*arguments)

    monkeypatch.setattr(cross_validation, "_fits", interrupted)
    options = [*SPECIES, "--backend", backend, "--epochs", "200", "--out", tmp_path / "o"]
    before = sorted(tmp_path.rglob("*"))
    arguments = [*map(str, options), "--try", "lr=0.01,0.02", "--try", "hidden=8,16"]
    result = CliRunner().invoke(app, ["search", str(flowers), *arguments])
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr == "gpumlp: stopped by Ctrl-C\n"
    assert sorted(tmp_path.rglob("*")) == before


WRONG = [
    (["--try", "lr"], "--try must be NAME=VALUE,VALUE, such as --try lr=0.001,0.01"),
    (["--try", "lr=x"], "--try lr must be numbers, got 'x'"),
    (["--try", "epochs=1.5"], "--try epochs must be whole numbers, got '1.5'"),
    (["--try", "shuffle=yes"], "--try shuffle must be true or false, got 'yes'"),
    (["--try", "hiden=3"], "did you mean 'hidden'?"),
    (["--try", "target=y"], "--try target: there is no such option to try"),
    (["--try", "lr=1,1.0"], "--try lr has 1 twice"),
    (["--try", "lr=1", "--try", "lr=2"], "--try lr is given twice"),
    (["--try", "lr=0.1..1"], "is a range, from which --random N draws"),
    (["--try", "lr=2..1", "--random", "3"], "--try lr must be a range LOW..HIGH"),
    (["--try", "lr=0..inf", "--random", "3"], "--try lr must be a range LOW..HIGH"),
    (["--try", "activation=a..b", "--random", "3"], "--try activation has no range"),
    (["--try", "lr=-1"], "--try lr=-1: lr must be"),
    (["--try", "hidden=a"], "--try hidden=a: --hidden must be widths"),
    (["--try", "optimizer=adamx"], "did you mean 'adam'?"),
    (["--try", "weight-decay=1", "--optimizer", "sgd"], "sgd has no weight decay"),
    (["--try", f"seed={','.join(map(str, range(10_001)))}"], "10,001 combinations"),
    (["--random", "0"], "--random"),
    (["--folds", "1"], "--folds"),
    (["--folds", "151"], "--folds 151 is more than the 150 examples; use --folds 150"),
    (["--metric", "f1_makro"], "unknown metric 'f1_makro'"),
    (["--metric", "roc_auc"], "metric 'roc_auc' does not go with softmax_cross_entropy"),
    (["--backend", "tpu"], "unknown backend 'tpu'"),
    (["--plateau", "3"], "No such option: --plateau"),
    (["--patience", "3"], "--patience watches examples that are left out of a training"),
    (["--patience", "0", "--validation", "0.2"], "--patience"),
    (["--models", "0"], "--models"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=lambda p: " ".join(p)[:40])
def test_wrong_uses_are_one_line(arguments, message, flowers, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    options = ["--target", "species", "--backend", "numpy", "-q", "--out", tmp_path / "o"]
    assert message in refused("search", flowers, *options, *arguments)
    assert sorted(tmp_path.rglob("*")) == before


def test_folds_without_classes_are_shuffled_rows(flowers):
    data = load(flowers, "length")
    folds = cross_validation.folds_of(data, 4, 1)
    assert sorted(np.concatenate([rows for _, rows in folds])) == list(range(150))
    assert [len(rows) for _, rows in folds] == [len(part) for _, part in KFold(4).split(data.x)]
    for train, held_out in folds:
        assert sorted([*train, *held_out]) == list(range(150))
