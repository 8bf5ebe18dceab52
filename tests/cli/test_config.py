"""train --config: a key for each option, checked as the option is; run.toml repeats a run."""

import tomllib

import numpy as np
import pytest

pytest.importorskip("typer")

import typer

import gpumlp
from gpumlp.cli import config
from gpumlp.cli.app import app
from tests.support.cli_cases import run

TRAIN = typer.main.get_command(app).commands["train"]
WITHOUT_KEY = {"config_file"}
SAMPLES = {int: 3, float: 0.25, str: "word", list: ["word", "words"]}
OTHERS = {int: 5, float: 0.75, str: "other", list: "other"}
FLOWERS = {"target": "species", "hidden": "8", "epochs": 3, "batch-size": 32, "backend": "numpy"}


def write(path, **values):
    """The keys as a TOML file."""
    lines = [f"{key} = {config._literal(value)}" for key, value in values.items()]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def parsed(*arguments):
    """What the command would be called with."""
    with TRAIN.make_context("train", [str(a) for a in arguments]) as context:
        return {k: v for k, v in context.params.items() if k not in WITHOUT_KEY}, context


def keys():
    return config._keys(parsed()[1])


def tensors(folder):
    return gpumlp.MLP.load(folder / "model.safetensors", "numpy").tensors()


@pytest.mark.parametrize("key", keys())
def test_every_option_is_a_key_and_the_command_line_goes_first(key, tmp_path):
    defaults, context = parsed()
    parameter, kind = keys()[key], config._kinds(context)[keys()[key].name]
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


def test_no_standardize_on_the_command_line_undoes_the_file(tmp_path):
    file = write(tmp_path / "run.toml", standardize=True)
    assert parsed("--config", file)[0]["standardize"] is True
    assert parsed("--no-standardize", "--config", file)[0]["standardize"] is False


def test_lists_and_numbers_stand_for_text(tmp_path):
    file = tmp_path / "run.toml"
    for value, text in (([256, 128], "256,128"), (64, "64"), (["8", 4], "8,4")):
        assert parsed("--config", write(file, hidden=value))[0]["hidden"] == text
    assert parsed("--config", write(file, lr=1))[0]["lr"] == 1.0


def test_a_file_trains_as_its_options_do(flowers, tmp_path):
    file = write(tmp_path / "run.toml", data=flowers, out=tmp_path / "a", quiet=True, **FLOWERS)
    run("train", "--config", file)
    options = [word for key, value in FLOWERS.items() for word in (f"--{key}", value)]
    run("train", flowers, "--out", tmp_path / "b", "--quiet", *options)
    for name, tensor in tensors(tmp_path / "a").items():
        np.testing.assert_array_equal(tensor, tensors(tmp_path / "b")[name])


def test_run_toml_repeats_the_run_and_says_all_of_it(flowers, tmp_path):
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


def test_run_toml_goes_on_with_an_interrupted_run(flowers, tmp_path):
    file = write(tmp_path / "run.toml", data=flowers, out=tmp_path / "a", **FLOWERS)
    run("train", "--config", file, "-q")
    before = tensors(tmp_path / "a")
    told = run("train", "--config", tmp_path / "a" / "run.toml", "--resume", "-q").stdout
    assert "finished after 3 epochs" in told
    for name, tensor in before.items():
        np.testing.assert_array_equal(tensor, tensors(tmp_path / "a")[name])


def test_any_text_comes_back_from_run_toml(tmp_path):
    text = "a \"quoted\" \\ path\t\n\x7f\x01 with 'signs' äß花🌸 #="
    asked, context = parsed(text, "--l1", "1e-30", "--lr", "1e22")
    config.write(tmp_path / "run.toml", context)
    assert parsed("--config", tmp_path / "run.toml")[0] == asked


BAD = [
    ("epoch = 3", "unknown key 'epoch'; did you mean 'epochs'? known: data, target, task, hidden"),
    ("config = 'x'", "unknown key 'config'; known: data"),
    ("epochs = 'x'", 'epochs takes a whole number, got "x"'),
    ("epochs = 2.5", "epochs takes a whole number, got 2.5"),
    ("epochs = true", "epochs takes a whole number, got true"),
    ("epochs = 0", "--epochs"),
    ("seed = -1", "--seed"),
    ("lr = '0.1'", 'lr takes a number, got "0.1"'),
    ("lr = 2020-01-01", 'lr takes a number, got "2020-01-01"'),
    ("standardize = 'no'", 'standardize takes true or false, got "no"'),
    ("group = ['biases:lr=2', 3]", 'group takes text, or a list of texts, got ["biases:lr=2", 3]'),
    ("metric = 0.5", "metric takes text"),
    ("resume = 1", "resume takes true or false, got 1"),
    ("hidden = [8, true]", "hidden takes text, a number, or a list of these, got [8, true]"),
    ("hidden = 2.5", "hidden takes text, a number, or a list of these, got 2.5"),
    ("[train]\nepochs = 3", "[train] is a table; write its keys at the top, without it"),
    ("batch-size = 8\nbatch_size = 8", "batch-size is there twice, with - and with _"),
    ("epochs = ", "is no TOML file: Invalid value"),
    ("epochs = 3\nepochs = 4", "is no TOML file: Cannot overwrite a value"),
    (b"\xff", "is no TOML file: 'utf-8' codec"),
]


@pytest.mark.parametrize(("text", "message"), BAD, ids=lambda p: str(p)[:20])
def test_what_is_wrong_is_told_in_one_line_with_file_and_key(text, message, tmp_path):
    file = tmp_path / "run.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    result = run("train", "--config", file, "--out", tmp_path / "o", code=2)
    assert result.stderr.startswith(f"gpumlp: error: {file}")
    assert message in result.stderr
    assert (result.stderr.count("\n"), result.stdout) == (1, "")
    assert not (tmp_path / "o").exists()


def test_no_file(tmp_path):
    for path in (tmp_path / "no.toml", tmp_path):
        error = run("train", "--config", path, code=2).stderr
        assert error == f"gpumlp: error: --config: there is no file {path}\n"
