"""gpumlp train --models: the ensemble of the Python API, which every command takes as one model."""

import contextlib
import json
import signal
import tomllib
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from sklearn import metrics

pytest.importorskip("typer")

import gpumlp
from gpumlp import Ensemble, storage
from gpumlp.cli import run_folder
from gpumlp.data import Preparation, load, split
from gpumlp.training import lockstep
from gpumlp.training.loop import Fit
from gpumlp.training.stepping import Stepping
from tests.support.cli_cases import (
    FLOWERS,
    LONGER,
    SMALL,
    M,
    X,
    columns,
    plotted,
    pressed,
    refused,
    rows_of,
    run,
)
from tests.support.compiled import needs_library

SEEDS = [0, *np.random.SeedSequence(0).generate_state(2).tolist()]
LOSS = gpumlp.LOSSES["softmax_cross_entropy"].set(smoothing=0.1)
HOUSES = ["--target", "price", *SMALL, "--epochs", "9", "--lr", "0.01"]


@pytest.fixture
def houses(tmp_path, rng):
    """A table of numbers, with one target in hundreds."""
    x = rng.normal(size=(120, 3))
    rows = np.column_stack([x, 100 * x @ [2.0, -1.0, 0.5] + 10 * rng.normal(size=120) + 1000])
    path = tmp_path / "houses.csv"
    np.savetxt(path, rows, delimiter=",", header="size,age,area,price", comments="")
    return path


@pytest.fixture
def three(houses, tmp_path):
    """The model of three networks for the houses."""
    run("train", houses, *HOUSES, "--models", 3, "--out", tmp_path / "three")
    return tmp_path / "three" / "model.safetensors"


def ensemble_of(folder):
    return Ensemble.load(folder / "model.safetensors", "numpy")


def histories(folder):
    """The columns of the members' histories."""
    return [
        each["columns"] for each in json.loads((folder / "history.json").read_text())["members"]
    ]


def in_python(flowers, K=3, backend="numpy", **fit):
    """What train --models K does for FLOWERS, in Python: the ensemble, histories, held out data."""
    train, held_out = split(load(flowers, "species"), 0.2, 0)
    mean, std = train.x.mean(0), train.x.std(0)
    e = Ensemble(K, [3, 16, 3], loss=LOSS, backend=backend, seeds=SEEDS[:K])
    trainer = gpumlp.Trainer(e, "adamw", batch_size=32, schedule="warmup_cosine", seed=0)
    validation = ((held_out.x - mean) / std, held_out.y)
    data = ((train.x - mean) / std, train.y)
    settings = {"validation": validation, "train_metric": True} | fit
    return e, trainer.fit(*data, 5, **settings), validation, (X - mean) / std


@contextlib.contextmanager
def diverging(monkeypatch, *seeds):
    """The θ of the members with these seeds becomes NaN in the second epoch."""
    step = Stepping.step

    def diverge(trainer, batches, count=1):
        if trainer.net.seed in seeds and trainer.epochs == 1:
            trainer.net.theta.flat[...] = np.nan
        step(trainer, batches, count)

    with monkeypatch.context() as patch:
        patch.setattr(lockstep, "possible", lambda trainers: False)
        patch.setattr(Stepping, "step", diverge)
        yield


# ---- training ------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["numpy", pytest.param("cpu", marks=needs_library)])
def test_the_model_is_the_ensemble_of_the_python_api(backend, flowers, tmp_path):
    out = tmp_path / "o"
    run("train", flowers, *FLOWERS, "--backend", backend, "--models", 3, "--out", out)
    e, expected, _, x = in_python(flowers, backend=backend)
    found = ensemble_of(out)
    np.testing.assert_array_equal(found.theta, e.theta)
    assert found.seeds == SEEDS
    for own, theirs in zip(histories(out), expected, strict=True):
        assert own["val_cost"] == theirs["val_cost"]
        assert own["metric"] == theirs["metric"]
    printed = rows_of(run("predict", out / "model.safetensors", flowers).stdout)
    p = [[float(row[f"probability_{name}"]) for name in found_classes(out)] for row in printed]
    np.testing.assert_allclose(p, e.predict(x), rtol=2e-6)
    labels = np.array(found_classes(out))[e.predict(x).argmax(axis=1)]
    assert [row["prediction"] for row in printed] == labels.tolist()


def found_classes(folder):
    return Preparation.load(folder / "model.safetensors").classes


def test_the_first_member_is_the_network_of_one_model(flowers, tmp_path):
    run("train", flowers, *FLOWERS, "--seed", 7, "--out", tmp_path / "one")
    run("train", flowers, *FLOWERS, "--seed", 7, "--models", 1, "--out", tmp_path / "same")
    run("train", flowers, *FLOWERS, "--seed", 7, "--models", 2, "--out", tmp_path / "two")
    one, same = (storage.read(tmp_path / name / "model.safetensors") for name in ("one", "same"))
    assert one[1] == same[1]
    two = ensemble_of(tmp_path / "two")
    for name, tensor in two[0].tensors().items():
        np.testing.assert_array_equal(one[0][name], tensor)
        np.testing.assert_array_equal(same[0][name], tensor)
    assert sorted(each.name for each in (tmp_path / "same").iterdir()) == sorted(run_folder.FILES)
    assert histories(tmp_path / "two")[0]["val_cost"] == columns(tmp_path / "one")["val_cost"]
    assert "models" not in tomllib.loads((tmp_path / "one" / "run.toml").read_text())
    assert abs(two.theta[1] - two.theta[0]).max() > 0.01


def test_the_report_has_the_score_of_the_mean_and_the_mean_of_the_scores(flowers, tmp_path):
    options = [*FLOWERS, "--models", 3, "--metric", "auto,f1_macro", "--out", tmp_path / "o"]
    printed = json.loads(run("train", flowers, *options, "--json").stdout)
    e, expected, (x, y), _ = in_python(flowers, metric=["auto", "f1_macro"])
    p = np.mean([net.predict(x) for net in e], axis=0)
    cost = -np.mean(np.sum((0.9 * np.eye(3)[y] + 0.1 / 3) * np.log(p), axis=1))
    np.testing.assert_allclose(printed["result"]["val_cost"], cost, rtol=1e-6)
    assert printed["result"]["val_metric"] == metrics.accuracy_score(y, p.argmax(axis=1))
    f1 = metrics.f1_score(y, p.argmax(axis=1), average="macro")
    np.testing.assert_allclose(printed["result"]["val_f1_macro"], f1, rtol=1e-12)
    assert [each["seed"] for each in printed["members"]] == SEEDS
    assert printed["network"]["members"] == 3
    assert printed["network"]["parameters"] == 3 * (3 * 16 + 16 + 16 * 3 + 3)
    each = [member["result"]["val_cost"] for member in printed["members"]]
    assert each == [history["val_cost"][-1] for history in expected]
    said = run("train", flowers, *options).stdout
    assert "3 members: 3 finished after 5 epochs\n" in said
    [line] = [line for line in said.splitlines() if "validation cost" in line]
    assert line.split()[2:] == [f"{cost:.4f}", f"{np.mean(each):.4f}", "±", f"{np.std(each):.4f}"]


def test_the_table_has_the_mean_and_the_members_that_are_left(houses, tmp_path):
    options = [*HOUSES[:-1], "0.1", "--epochs", 20, "--patience", 1, "--models", 3]
    options.remove("--quiet")
    printed = run("train", houses, *options, "--out", tmp_path / "o").stdout
    each = histories(tmp_path / "o")
    lengths = [len(history["cost"]) for history in each]
    assert len({*lengths}) > 1
    low, high = min(lengths), max(lengths)
    assert f"3 members: 3 stopped early after {low} to {high} epochs" in printed
    rows = [line.split() for line in printed.splitlines()]
    rows = [row for row in rows if row and row[0].isdigit() and len(row) == 8]
    assert int(rows[-1][0]) == high
    for row in rows:
        there = [history for history in each if len(history["cost"]) >= int(row[0])]
        assert int(row[-1]) == len(there)
        mean = np.mean([history["val_cost"][int(row[0]) - 1] for history in there])
        assert row[2] == f"{mean:.4g}"


def test_each_member_has_its_own_plateau_events_and_early_stopping(flowers, tmp_path):
    from tests.support.tracking_files import scalars

    options = [*FLOWERS, *LONGER, "--plateau", 1, "--patience", 3, "--tensorboard", "--ema", 0.5]
    options += ["--seed", 1]  # with it the members' plateaus are of different epochs
    run("train", flowers, *options, "--models", 2, "--out", tmp_path / "o")
    run("train", flowers, *options, "--out", tmp_path / "one")
    several = histories(tmp_path / "o")
    assert several[0]["lr"] == columns(tmp_path / "one")["lr"]
    assert several[1]["lr"] != several[0]["lr"]
    for i, history in enumerate(several):
        events = scalars(tmp_path / "o" / "tensorboard" / f"member-{i}")["cost/validation"]
        np.testing.assert_allclose(list(events.values()), history["val_cost"], rtol=1e-6)


def test_streamed_data_gives_the_same_bits(houses, three, tmp_path):
    options = ["--models", 3, "--stream", "--scratch", tmp_path]
    run("train", houses, *HOUSES, *options, "--out", tmp_path / "o")
    np.testing.assert_array_equal(
        ensemble_of(tmp_path / "o").theta, ensemble_of(three.parent).theta
    )


def test_run_toml_repeats_the_ensemble(houses, three, tmp_path):
    file = three.parent / "run.toml"
    assert tomllib.loads(file.read_text())["models"] == 3
    run("train", "--config", file, "--out", tmp_path / "again", "-q")
    again = ensemble_of(tmp_path / "again")
    np.testing.assert_array_equal(again.theta, ensemble_of(three.parent).theta)
    run("find-lr", "--config", file, "--steps", 20)  # of one network


def test_the_figure_has_a_line_for_each_member(houses, tmp_path, monkeypatch):
    drawn = plotted(monkeypatch)
    run("train", houses, *HOUSES, "--models", 3, "--out", tmp_path / "o")
    [((each, _), named)] = drawn
    assert [one["cost"] for one in each] == [one["cost"] for one in histories(tmp_path / "o")]
    assert named["title"] == "houses: 3 × 3-16-1, float32"


# ---- interrupted, resumed, diverged --------------------------------------------------------------


def test_resume_after_ctrl_c_ends_as_without_a_break(flowers, tmp_path, monkeypatch):
    options = [*FLOWERS, *LONGER, "--models", 3, "--patience", 9, "--plateau", 1]
    run("train", flowers, *options, "--out", tmp_path / "whole")
    out = ["--out", tmp_path / "cut"]
    monkeypatch.setattr(lockstep, "possible", lambda trainers: False)  # one after the other
    with pressed(monkeypatch, 14, SEEDS[1]):
        printed = run("train", flowers, *options, *out, code=130).stdout
    assert printed.startswith(
        "3 members: 1 finished after 12 epochs, 1 not begun, 1 interrupted after 3 epochs; "
        "--resume continues\nnot begun, and left out of model.safetensors: 2\n"
    )
    cut, whole = (ensemble_of(tmp_path / name) for name in ("cut", "whole"))
    assert cut.seeds == SEEDS[:2]
    np.testing.assert_array_equal(cut.theta[0], whole.theta[0])
    assert rows_of(run("predict", tmp_path / "cut" / "model.safetensors", flowers).stdout)
    run("train", flowers, *options, *out, "--resume")
    np.testing.assert_array_equal(ensemble_of(tmp_path / "cut").theta, whole.theta)
    for own, theirs in zip(*(histories(tmp_path / n) for n in ("cut", "whole")), strict=True):
        for name in set(theirs) - {"seconds"}:
            assert own[name] == theirs[name]


def test_resume_adds_members(houses, three, tmp_path):
    run("train", houses, *HOUSES, "--models", 2, "--out", tmp_path / "o")
    assert run("train", houses, *HOUSES, "--models", 3, "--resume", "--out", tmp_path / "o")
    np.testing.assert_array_equal(
        ensemble_of(tmp_path / "o").theta, ensemble_of(three.parent).theta
    )


def test_a_new_training_does_not_resume_an_earlier_one(houses, three, tmp_path, monkeypatch):
    """Whose last members had not begun when it was killed."""
    options, out = [*HOUSES, "--l2", 0.01, "--models", 3], ["--out", three.parent]
    run("train", houses, *options, "--out", tmp_path / "whole")
    step = Stepping.step

    def killed(trainer, batches, count=1):
        if trainer.epochs == 1:
            raise LookupError("as if it was killed")
        step(trainer, batches, count)

    with monkeypatch.context() as patch:
        patch.setattr(lockstep, "possible", lambda trainers: False)
        patch.setattr(Stepping, "step", killed)
        run("train", houses, *options, *out, code=1)
    left = [file.name for file in (three.parent / "checkpoints").iterdir()]
    assert left == ["member-0.safetensors"]
    run("train", houses, *options, *out, "--resume")
    whole = ensemble_of(tmp_path / "whole").theta
    np.testing.assert_array_equal(ensemble_of(three.parent).theta, whole)


def test_invalid_arguments_leave_the_checkpoints(houses, three):
    before = {file: file.read_bytes() for file in (three.parent / "checkpoints").iterdir()}
    options = [*HOUSES, "--models", 3, "--out", three.parent, "--metric", "roc_auc"]
    run("train", houses, *options, code=2)
    assert {file: file.read_bytes() for file in (three.parent / "checkpoints").iterdir()} == before


def test_ctrl_c_before_the_first_step_writes_a_model(houses, tmp_path, monkeypatch):
    start = Fit._start_epoch

    def pressing(fit):
        if fit.trainer.net.seed == SEEDS[0]:
            signal.raise_signal(signal.SIGINT)
        start(fit)

    monkeypatch.setattr(Fit, "_start_epoch", pressing)
    options = [*HOUSES, "--models", 2, "--out", tmp_path / "o"]
    printed = run("train", houses, *options, code=130).stdout
    assert "2 members: 2 interrupted after 0 epochs; --resume continues" in printed
    assert len(ensemble_of(tmp_path / "o")) == 2


def test_members_that_diverge_are_named_and_left_out(houses, three, tmp_path, monkeypatch):
    with diverging(monkeypatch, SEEDS[1]):
        printed = run("train", houses, *HOUSES, "--models", 3, "--out", tmp_path / "o").stdout
    assert "3 members: 2 finished after 9 epochs, 1 diverged\n" in printed
    assert (
        "member 1 diverged and is left out: the cost is nan in epoch 2 of 9; lower --lr" in printed
    )
    found, whole = ensemble_of(tmp_path / "o"), ensemble_of(three.parent)
    assert found.diverged == {1}
    model = tmp_path / "o" / "model.safetensors"
    rows = rows_of(run("predict", model, houses, "--backend", "numpy").stdout)
    whole.diverged = {1}
    known = Preparation.load(three)
    x = known.inputs(load(houses, "price").x)
    p = known.outputs(whole.predict(x))
    np.testing.assert_allclose([float(row["prediction"]) for row in rows], p[:, 0], rtol=1e-8)
    written = json.loads((tmp_path / "o" / "history.json").read_text())
    assert written["diverged"] == {"1": "the cost is nan in epoch 2 of 9"}
    assert [each["stopped"] for each in written["members"]] == ["finished", "diverged", "finished"]


def test_an_error_if_all_diverge_that_had_begun(houses, tmp_path, monkeypatch):
    start = Fit._start_epoch

    def pressing(fit):
        if fit.trainer.net.seed == SEEDS[1]:
            signal.raise_signal(signal.SIGINT)
        start(fit)

    with diverging(monkeypatch, SEEDS[0]), monkeypatch.context() as patch:
        patch.setattr(Fit, "_start_epoch", pressing)
        said = refused("train", houses, *HOUSES, "--models", 3, "--out", tmp_path / "o")
    assert "all members that had begun diverged before the interruption: the cost is nan" in said
    assert not (tmp_path / "o" / "model.safetensors").exists()


def test_an_error_if_all_diverge(houses, tmp_path, monkeypatch):
    with diverging(monkeypatch, *SEEDS):
        said = refused("train", houses, *HOUSES, "--models", 3, "--out", tmp_path / "o")
    assert "all 3 members: training diverged: the cost is nan in epoch 2 of 9" in said
    assert "lower --lr, pass --clip-norm 1.0" in said
    assert not (tmp_path / "o" / "model.safetensors").exists()


# ---- the other commands --------------------------------------------------------------------------


def test_evaluate_of_numbers_matches_the_written_predictions(houses, three, tmp_path):
    run("predict", three, houses, "--out", tmp_path / "p.npy")
    p, y = np.load(tmp_path / "p.npy")[:, 0], load(houses, "price").y
    result = json.loads(run("evaluate", three, houses, "--json").stdout)["result"]
    np.testing.assert_allclose(result["r2"], metrics.r2_score(y, p), rtol=1e-6)
    np.testing.assert_allclose(result["rmse"], metrics.root_mean_squared_error(y, p), rtol=1e-6)
    np.testing.assert_allclose(result["mae"], metrics.mean_absolute_error(y, p), rtol=1e-6)
    known = Preparation.load(three)
    cost = metrics.mean_squared_error(y, p) / known.y_scale[0] ** 2
    np.testing.assert_allclose(result["cost"], cost, rtol=1e-6)
    printed = run("evaluate", three, houses, "--plot", tmp_path / "p.png").stdout
    assert "Ensemble(3 × MLP(3-16-1" in printed
    assert (tmp_path / "p.png").exists()


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "negative_log_likelihood"])
def test_evaluate_of_classes_matches_the_written_predictions(loss, flowers, tmp_path):
    options = [*FLOWERS, "--loss", loss, "--l2", 0.1, "--models", 3, "--out", tmp_path / "o"]
    run("train", flowers, *options)
    model = tmp_path / "o" / "model.safetensors"
    run("predict", model, flowers, "--out", tmp_path / "p.npy")
    p, y = np.load(tmp_path / "p.npy"), load(flowers, "species").y
    result = json.loads(run("evaluate", model, flowers, "--json").stdout)["result"]
    assert result["accuracy"] == metrics.accuracy_score(y, p.argmax(axis=1))
    smoothing = 0.1 if loss == "softmax_cross_entropy" else 0.0
    targets = (1 - smoothing) * np.eye(3)[y] + smoothing / 3
    omega = np.mean([net.penalty() for net in ensemble_of(model.parent)])
    cost = -(targets * np.log(p)).sum() / M + omega
    np.testing.assert_allclose(result["cost"], cost, rtol=1e-5)


def test_two_classes_of_one_output(tmp_path, rng):
    x = rng.normal(size=(90, 2))
    lines = [f"{a},{b},{'yes' if a > b else 'no'}" for a, b in x.tolist()]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,won", *lines]) + "\n")
    options = ["--target", "won", "--loss", "binary_cross_entropy", *SMALL, "--models", 3]
    run("train", tmp_path / "t.csv", *options, "--out", tmp_path / "o")
    model = tmp_path / "o" / "model.safetensors"
    rows = rows_of(run("predict", model, tmp_path / "t.csv").stdout)
    e, known = ensemble_of(model.parent), Preparation.load(model)
    p = np.mean([net.predict(known.inputs(x)) for net in e], axis=0)[:, 0]
    np.testing.assert_allclose([float(r["probability_yes"]) for r in rows], p, rtol=1e-5)
    np.testing.assert_allclose([float(r["probability_no"]) for r in rows], 1 - p, rtol=1e-5)
    result = json.loads(run("evaluate", model, tmp_path / "t.csv", "--json").stdout)["result"]
    np.testing.assert_allclose(result["cost"], metrics.log_loss(x[:, 0] > x[:, 1], p), rtol=1e-5)


def test_counts(houses, tmp_path, rng):
    x = rng.normal(size=(100, 2))
    rows = np.column_stack([x, rng.poisson(np.exp(x[:, 0]))])
    np.savetxt(tmp_path / "t.csv", rows, delimiter=",", header="a,b,n", comments="")
    options = ["--target", "n", "--task", "regression", "--loss", "poisson", *SMALL, "--models", 2]
    run("train", tmp_path / "t.csv", *options, "--out", tmp_path / "o")
    model = tmp_path / "o" / "model.safetensors"
    rates = [
        float(r["prediction"]) for r in rows_of(run("predict", model, tmp_path / "t.csv").stdout)
    ]
    e, known = ensemble_of(model.parent), Preparation.load(model)
    each = [net.predict(known.inputs(x)) for net in e]
    np.testing.assert_allclose(rates, np.mean(each, axis=0)[:, 0], rtol=1e-6)
    result = json.loads(run("evaluate", model, tmp_path / "t.csv", "--json").stdout)["result"]
    expected = np.mean(rates - rows[:, 2] * np.log(rates))
    np.testing.assert_allclose(result["cost"], expected, rtol=1e-5)


def test_std_is_that_of_the_members(houses, three, tmp_path):
    e, known = ensemble_of(three.parent), Preparation.load(three)
    x = known.inputs(load(houses, "price").x)
    each = [known.outputs(net.predict(x))[:, 0] for net in e]
    numpy = ["--backend", "numpy"]
    rows = rows_of(run("predict", three, houses, "--std", *numpy).stdout)
    assert list(rows[0]) == ["prediction", "std"]
    np.testing.assert_allclose([float(row["std"]) for row in rows], np.std(each, axis=0), rtol=1e-6)
    plain = rows_of(run("predict", three, houses, *numpy).stdout)
    assert [row["prediction"] for row in rows] == [row["prediction"] for row in plain]
    lines = run("predict", three, houses, "--std", "--json", *numpy).stdout.splitlines()
    first = json.loads(lines[0])
    np.testing.assert_allclose(first["std"], float(rows[0]["std"]), rtol=1e-8)
    for name in ("p.npy", "p.parquet"):
        run("predict", three, houses, "--std", "--out", tmp_path / name, *numpy)
    numbers = np.load(tmp_path / "p.npy")
    np.testing.assert_allclose(numbers[:, 1], np.std(each, axis=0), rtol=1e-12)
    parquet = pytest.importorskip("pyarrow.parquet").read_table(tmp_path / "p.parquet")
    np.testing.assert_array_equal(parquet["std"], numbers[:, 1])


def test_std_of_several_targets(tmp_path, rng):
    x, W = rng.normal(size=(60, 3)), rng.normal(size=(3, 2))
    np.savez(tmp_path / "t.npz", x=x, y=x @ W)
    run("train", tmp_path / "t.npz", *SMALL, "--models", 2, "--out", tmp_path / "o")
    model = tmp_path / "o" / "model.safetensors"
    rows = rows_of(run("predict", model, tmp_path / "t.npz", "--std").stdout)
    assert list(rows[0]) == ["prediction_0", "prediction_1", "std_0", "std_1"]
    e, known = ensemble_of(model.parent), Preparation.load(model)
    each = [known.outputs(net.predict(known.inputs(x))) for net in e]
    for j in range(2):
        found = [float(row[f"std_{j}"]) for row in rows]
        np.testing.assert_allclose(found, np.std(each, axis=0)[:, j], rtol=1e-6)
    line = run("predict", model, tmp_path / "t.npz", "--std", "--json").stdout.splitlines()[0]
    assert len(json.loads(line)["std"]) == 2


def test_onnx_averages_the_members(houses, three, tmp_path):
    run("export", three, tmp_path / "m.onnx")
    run("export", three, tmp_path / "plain.onnx", "--no-raw")
    x = load(houses, "price").x
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    [values] = session.run(None, {"x": x})
    run("predict", three, houses, "--out", tmp_path / "p.npy")
    np.testing.assert_allclose(values, np.load(tmp_path / "p.npy"), rtol=1e-5)
    inputs = Preparation.load(three).inputs(x).astype(np.float32)
    [p] = onnxruntime.InferenceSession(tmp_path / "plain.onnx").run(None, {"x": inputs})
    expected = ensemble_of(three.parent).predict(inputs)
    np.testing.assert_allclose(p, expected, rtol=1e-5, atol=1e-6)


def test_onnx_of_classes_has_the_labels(flowers, tmp_path):
    run("train", flowers, *FLOWERS, "--models", 3, "--out", tmp_path / "o")
    model = tmp_path / "o" / "model.safetensors"
    run("export", model, tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    p, labels = session.run(["probabilities", "label"], {"x": load(flowers, "species").x})
    run("predict", model, flowers, "--out", tmp_path / "p.npy")
    np.testing.assert_allclose(p, np.load(tmp_path / "p.npy"), rtol=1e-5)
    rows = rows_of(run("predict", model, flowers).stdout)
    assert labels.tolist() == [row["prediction"] for row in rows]
    said = refused("export", model, tmp_path / "l.onnx", "--logits")
    assert "--logits is for a single network" in said


def test_weights_alone_are_those_of_a_module_list(three, tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    run("export", three, tmp_path / "m.safetensors")
    run("export", three, tmp_path / "m.npz")
    theirs = torch.nn.Module()
    theirs.members = torch.nn.ModuleList(
        torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))
        for _ in range(3)
    )
    theirs.load_state_dict(load_file(tmp_path / "m.safetensors"), strict=True)
    e, x = ensemble_of(three.parent), X.astype(np.float32) % 3
    mean = sum(member(torch.tensor(x)) for member in theirs.members) / 3
    np.testing.assert_allclose(mean.detach().numpy(), e.predict(x), rtol=1e-4, atol=1e-5)
    with np.load(tmp_path / "m.npz") as stored:
        np.testing.assert_array_equal(stored["members.2.0.weight"], e[2].layers[0].W)


def test_a_checkpoint_is_the_network_of_its_member(three, tmp_path):
    run("export", three.parent / "checkpoints" / "member-2.safetensors", tmp_path / "m.npz")
    with np.load(tmp_path / "m.npz") as stored:
        np.testing.assert_array_equal(stored["0.weight"], ensemble_of(three.parent)[2].layers[0].W)


# ---- refusals ------------------------------------------------------------------------------------


def test_std_is_refused_where_there_is_none(model, flowers, houses, tmp_path):
    said = refused("predict", model, flowers, "--std")
    assert "--std is for models that predict numbers" in said
    run("train", houses, *HOUSES, "--out", tmp_path / "one")
    said = refused("predict", tmp_path / "one" / "model.safetensors", houses, "--std")
    assert said.endswith("leave out --std, or train with --models 8\n")


def test_several_processes_are_refused(houses, tmp_path, monkeypatch):
    world = SimpleNamespace(size=2, rank=0)
    monkeypatch.setattr("gpumlp.cli.processes.join", lambda: world)
    said = refused("train", houses, *HOUSES, "--models", 2, "--out", tmp_path / "o")
    assert said.endswith("start it without mpiexec, or leave out --models\n")
    said = refused("search", houses, *HOUSES, "--out", tmp_path / "o")
    assert said.endswith("not in 2; start it without mpiexec\n")


def test_a_file_called_checkpoints_is_refused(houses, tmp_path):
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "checkpoints").write_text("mine")
    said = refused("train", houses, *HOUSES, "--models", 2, "--out", tmp_path / "o")
    assert f"{tmp_path / 'o' / 'checkpoints'} is a file; choose another --out" in said
    assert (tmp_path / "o" / "checkpoints").read_text() == "mine"


def test_says_which_files_of_an_earlier_run_stay(houses, three):
    options = [*HOUSES, "--out", three.parent]
    printed = f"replacing the files of an earlier run in {three.parent}"
    assert run("train", houses, *options).stderr == f"{printed}; checkpoints stay unchanged\n"
    said = run("train", houses, *options, "--models", 2, "--tensorboard").stderr
    assert said == f"{printed}; checkpoint.safetensors stays unchanged\n"
    said = run("train", houses, *options).stderr
    assert said == f"{printed}; checkpoints and tensorboard stay unchanged\n"


def test_a_refused_training_leaves_no_folder(houses, tmp_path):
    options = [*HOUSES, "--models", 2, "--metric", "roc_auc", "--out", tmp_path / "new" / "o"]
    run("train", houses, *options, code=2)
    assert not (tmp_path / "new").exists()
