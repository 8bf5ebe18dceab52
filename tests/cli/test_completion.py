"""What a shell offers after Tab, asked as the shells' own scripts ask."""

import pytest

pytest.importorskip("typer")

from typer.testing import CliRunner

import gpumlp
from gpumlp.cli.app import app
from gpumlp.data import EMBEDDED

ROC = ("ovo", "ovo_weighted", "ovr", "ovr_weighted")


def offered(words):
    """The completions of the last word."""
    environment = {
        "_GPUMLP_COMPLETE": "complete_bash",
        "COMP_WORDS": f"gpumlp {words}",
        "COMP_CWORD": str(len(words.split(" "))),
    }
    result = CliRunner().invoke(app, [], env=environment, prog_name="gpumlp")
    assert result.exit_code == 0, result.output
    return result.stdout.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            "",
            [
                "train",
                "find-lr",
                "search",
                "describe",
                "evaluate",
                "predict",
                "export",
                "bench",
                "tune",
                "info",
            ],
        ),
        ("ev", ["evaluate"]),
        ("train --activation ge", ["gelu", "gelu_erf"]),
        ("train --activation ", list(gpumlp.ACTIVATIONS)),
        ("train --loss s", ["squared_error", "softmax_cross_entropy"]),
        ("train --optimizer ", list(gpumlp.OPTIMIZERS)),
        ("train --schedule ", list(gpumlp.SCHEDULES)),
        ("train --precision b", ["bfloat16"]),
        ("train --task r", ["regression"]),
        ("train --batch-", ["--batch-size"]),
        ("train --confi", ["--config"]),
        ("train di", [name for name in EMBEDDED if name.startswith("di")]),
        ("evaluate model.safetensors mni", ["mnist5k"]),
        ("find-lr --loss hu", ["huber"]),
        ("train --group fi", ["first:"]),
        ("search --try hid", ["hidden="]),
        ("train --metric f1_macro,roc_auc_ov", [f"f1_macro,roc_auc_{k}" for k in ROC]),
        ("train --metric au", ["auto"]),
        ("tune --activation mi", ["mish"]),
        ("bench --case small,gr", ["small,grid"]),
        ("bench --peers jax,scik", ["jax,scikit-learn"]),
        ("export --ra", ["--raw"]),
    ],
)
def test_names_are_completed(words, expected):
    assert sorted(offered(words)) == sorted(expected)


def test_every_option_for_a_named_function_completes_it():
    """A new option without completion fails here."""
    tables = {
        "activation": gpumlp.ACTIVATIONS, "loss": gpumlp.LOSSES, "optimizer": gpumlp.OPTIMIZERS,
        "schedule": gpumlp.SCHEDULES,
    }  # fmt: skip
    for command in ("train", "find-lr", "tune", "bench"):
        for option, names in tables.items():
            if f"--{option}" in offered(f"{command} --{option}"):
                found = offered(f"{command} --{option} ")
                assert found, f"{command} --{option}"
                assert set(found) <= set(names)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_of_each_shell(shell, monkeypatch):
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    monkeypatch.setenv("_GPUMLP_COMPLETE", f"source_{shell}")
    printed = CliRunner().invoke(app, [], prog_name="gpumlp").stdout
    assert f"_GPUMLP_COMPLETE=complete_{shell}" in printed
