"""train --config: a key for each option, checked like the option; run.toml repeats a run."""

import os
import tomllib

import numpy as np
import pytest

pytest.importorskip("typer")

import typer

import gpumlp
from gpumlp.cli import config
from gpumlp.cli.app import app
from gpumlp.cli.options import kinds
from gpumlp.cli.train import TrainOptions
from tests.support.cli_cases import SMALL, refused, run, theta

TRAIN = typer.main.get_command(app).commands["train"]
SAMPLES = {int: 3, float: 0.25, str: "word", list: ["word", "words"]}
OTHERS = {int: 5, float: 0.75, str: "other", list: "other"}
FLOWERS = {"target": "species", "hidden": "8", "epochs": 3, "batch-size": 32, "backend": "numpy"}


def write(path, **values):
    """The keys as a TOML file."""
    lines = [f"{key} = {config.literal(value)}" for key, value in values.items()]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def parsed(*arguments):
    """What the command would be called with."""
    with TRAIN.make_context("train", [str(a) for a in arguments]) as context:
        return {k: v for k, v in context.params.items() if k != "config"}, context


KEYS = config.keys(TrainOptions)


def tensors(folder):
    return gpumlp.MLP.load(folder / "model.safetensors", "numpy").tensors()


@pytest.mark.parametrize("key", KEYS)
def test_every_option_is_a_key_and_the_command_line_overrides_it(key, tmp_path):
    defaults, context = parsed()
    [parameter] = [each for each in context.command.params if each.name == KEYS[key]]
    kind = kinds(TrainOptions)[KEYS[key]]
    value, file = SAMPLES.get(kind, not parameter.default), tmp_path / "run.toml"
    if kind is bool:
        flag = [f"--{key}" if value else f"--no-{key}"]
    else:
        texts = value if kind is list else [value]
        name = [] if parameter.param_type_name == "argument" else [f"--{key}"]
        flag = [word for text in texts for word in (*name, text)]
    by_flag, _ = parsed(*flag)
    for written in (key, key.replace("-", "_")):
        by_file, _ = parsed("--config", write(file, **{written: value}))
        assert by_file == by_flag
        assert by_file != defaults
    if kind is not bool:
        other = write(file, **{key: OTHERS[kind]})
        assert parsed("--config", other, *flag)[0] == by_flag


def test_no_standardize_overrides_the_file(tmp_path):
    file = write(tmp_path / "run.toml", standardize=True)
    assert parsed("--config", file)[0]["standardize"] is True
    assert parsed("--no-standardize", "--config", file)[0]["standardize"] is False


def test_lists_and_numbers_become_text(tmp_path):
    file = tmp_path / "run.toml"
    for value, text in (([256, 128], "256,128"), (64, "64"), (["8", 4], "8,4")):
        assert parsed("--config", write(file, hidden=value))[0]["hidden"] == text
    assert parsed("--config", write(file, lr=1))[0]["lr"] == 1.0


def test_a_file_trains_like_its_options(flowers, tmp_path):
    file = write(tmp_path / "run.toml", data=flowers, out=tmp_path / "a", quiet=True, **FLOWERS)
    run("train", "--config", file)
    options = [word for key, value in FLOWERS.items() for word in (f"--{key}", value)]
    run("train", flowers, "--out", tmp_path / "b", "--quiet", *options)
    for name, tensor in tensors(tmp_path / "a").items():
        np.testing.assert_array_equal(tensor, tensors(tmp_path / "b")[name])


def test_run_toml_is_complete_and_repeats_the_run(flowers, tmp_path):
    file = write(tmp_path / "run.toml", data=flowers, seed=5, **FLOWERS)
    run("train", "--config", file, "--lr", 0.007, "--out", tmp_path / "a", "--no-standardize", "-q")
    written = tmp_path / "a" / "run.toml"
    content = tomllib.loads(written.read_text())
    assert content["lr"] == 0.007
    assert content["seed"] == 5
    assert content["standardize"] is False
    assert content["schedule"] == "warmup_cosine"  # a default, too
    assert not {"quiet", "resume", "loss", "config"} & set(content)
    run("train", "--config", written, "--out", tmp_path / "b", "-q")
    for name, tensor in tensors(tmp_path / "a").items():
        np.testing.assert_array_equal(tensor, tensors(tmp_path / "b")[name])
    again = tomllib.loads((tmp_path / "b" / "run.toml").read_text())
    assert again == {**content, "out": str(tmp_path / "b")}


def test_resume_with_run_toml(flowers, tmp_path):
    file = write(tmp_path / "run.toml", data=flowers, out=tmp_path / "a", **FLOWERS)
    run("train", "--config", file, "-q")
    before = tensors(tmp_path / "a")
    printed = run("train", "--config", tmp_path / "a" / "run.toml", "--resume", "-q").stdout
    assert "finished after 3 epochs" in printed
    for name, tensor in before.items():
        np.testing.assert_array_equal(tensor, tensors(tmp_path / "a")[name])


def test_run_toml_keeps_any_text(tmp_path):
    text = "a \"quoted\" \\ path\t\n\x7f\x01 with 'signs' äß花🌸 #="
    asked, context = parsed(text, "--l1", "1e-30", "--lr", "1e22")
    config.write(tmp_path / "run.toml", "train", TrainOptions(**context.params))
    assert parsed("--config", tmp_path / "run.toml")[0] == asked


BAD = [
    (
        "epoch = 3",
        "unknown key 'epoch'; did you mean 'epochs'? known: data, target, task, categorical",
    ),
    ("config = 'x'", "unknown key 'config'; known: data"),
    ("epochs = 'x'", 'epochs must be a whole number, got "x"'),
    ("epochs = 2.5", "epochs must be a whole number, got 2.5"),
    ("epochs = true", "epochs must be a whole number, got true"),
    ("epochs = 0", "--epochs"),
    ("seed = -1", "--seed"),
    ("lr = '0.1'", 'lr must be a number, got "0.1"'),
    ("lr = 2020-01-01", 'lr must be a number, got "2020-01-01"'),
    ("standardize = 'no'", 'standardize must be true or false, got "no"'),
    (
        "group = ['biases:lr=2', 3]",
        'group must be text, or a list of texts, got ["biases:lr=2", 3]',
    ),
    ("metric = 0.5", "metric must be text"),
    ("resume = 1", "resume must be true or false, got 1"),
    ("hidden = [8, true]", "hidden must be text, a number, or a list of these, got [8, true]"),
    ("hidden = 2.5", "hidden must be text, a number, or a list of these, got 2.5"),
    ("[train]\nepochs = 3", "[train] is a table; write its keys without a table"),
    ("batch-size = 8\nbatch_size = 8", "batch-size is given twice, with - and with _"),
    ("epochs = ", "is not a TOML file: Invalid value"),
    ("epochs = 3\nepochs = 4", "is not a TOML file: Cannot overwrite a value"),
    (b"\xff", "is not a TOML file: 'utf-8' codec"),
]


@pytest.mark.parametrize(("text", "message"), BAD, ids=lambda p: str(p)[:20])
def test_errors_are_one_line_with_file_and_key(text, message, tmp_path):
    file = tmp_path / "run.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    error = refused("train", "--config", file, "--out", tmp_path / "o")
    assert error.startswith(f"gpumlp: error: {file}")
    assert message in error
    assert not (tmp_path / "o").exists()


def test_missing_file(tmp_path):
    for path in (tmp_path / "no.toml", tmp_path):
        error = run("train", "--config", path, code=2).stderr
        assert error == f"gpumlp: error: --config: there is no file {path}\n"


def test_a_pipe_is_a_config_file(flowers, tmp_path):
    """As bash makes one of <(command); it can be read once."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as file:
        file.write('target = "species"\nepochs = 1\nhidden = "3"\n')
    pipe = f"/dev/fd/{reading}"
    try:
        run("train", flowers, "--config", pipe, "--backend", "numpy", "--out", tmp_path / "o")
    finally:
        os.close(reading)
    assert tomllib.loads((tmp_path / "o" / "run.toml").read_text())["hidden"] == "3"


RUN_OF_0_1_0 = """\
# gpumlp 0.1.0; to repeat: gpumlp train --config run.toml
data = "digits"
hidden = "4"
activation = "relu"
optimizer = "adamw"
schedule = "warmup_cosine"
batch-size = 64
accumulate = 1
epochs = 1
shuffle = true
l1 = 0.0
l2 = 1e-05
group = ["biases:lr=2"]
precision = "float32"
memory = "normal"
backend = "numpy"
seed = 0
validation = 0.2
standardize = false
max-categories = 100
min-frequency = 5
impute = "mean"
metric = "f1_macro"
patience = 2
out = "o"
tensorboard = false
"""


def test_reads_the_run_toml_of_version_0_1_0(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text(RUN_OF_0_1_0)
    options = [
        "digits", "--hidden", 4, "--epochs", 1, "--l2", 1e-5, "--group", "biases:lr=2",
        "--backend", "numpy", "--no-standardize", "--metric", "f1_macro", "--patience", 2,
        "--out", "o",
    ]  # fmt: skip
    assert parsed("--config", file)[0] == parsed(*options)[0]


def test_run_of_several_files_repeats(flowers, tmp_path):
    head, *lines = flowers.read_text().splitlines(keepends=True)
    parts = [tmp_path / "a.csv", tmp_path / "b.csv"]
    parts[0].write_text("".join([head, *lines[::2]]))
    parts[1].write_text("".join([head, *lines[1::2]]))
    run("train", *parts, "--target", "species", *SMALL, "--out", tmp_path / "o")
    run("train", "--config", tmp_path / "o/run.toml", "--out", tmp_path / "again")
    np.testing.assert_array_equal(theta(tmp_path / "again"), theta(tmp_path / "o"))
    model = tmp_path / "o/model.safetensors"
    assert run("predict", model, *parts).stdout.count("\n") == len(lines) + 1
    error = run("predict", model, *parts, "--out", parts[1], code=2).stderr
    assert "is the data that is read" in error
    parts[1].write_text(parts[1].read_text().replace(lines[1], lines[3], 1))
    error = run(
        "train", "--config", tmp_path / "o/run.toml", "--resume", "--epochs", 6, code=2
    ).stderr
    assert "other data" in error
