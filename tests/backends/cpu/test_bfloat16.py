"""bfloat16 on the CPU backend, by the portable version of AVX512_BF16's one instruction.

The networks' tests are those of the CUDA backend.
"""

from __future__ import annotations

import platform
import subprocess
from functools import partial
from itertools import product
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import gpumlp
from gpumlp.backends import get_backend
from gpumlp.backends.cpu import backend as cpu_backend
from gpumlp.backends.cpu import source
from gpumlp.backends.cpu.flags import BFLOAT16, FLAGS, X86
from tests.support import precision_tests
from tests.support.compiled import LIBRARY, multiplied_on_cpu, needs_compiler, needs_library
from tests.support.cuda_networks import moved, relative
from tests.support.precision_tests import (  # noqa: F401  (collected here)
    test_every_activation,
    test_every_loss,
    test_outputs_and_gradients_are_close_to_float64,
    test_products_read_rounded_theta,
    test_targets_and_weights_are_not_rounded,
    test_training_follows_float32,
)
from tests.support.refusal import refusal
from tests.support.training_cases import Die, Hook, die_at

pytestmark = needs_library
KIND = np.dtype(ml_dtypes.bfloat16)
RNG = np.random.default_rng(5)
X, Y = RNG.normal(size=(130, 7)), RNG.integers(0, 3, 130)


@pytest.fixture(autouse=True)
def _on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the collected tests on the CPU backend, whatever the processor."""

    def on_cpu(net: gpumlp.MLP, order: int = 0, **changes: Any) -> gpumlp.MLP:
        other = gpumlp.MLP(**net.config() | changes, backend="cpu")
        other.assign(net.tensors())
        return other

    monkeypatch.setenv(cpu_backend.EMULATE, "1")
    monkeypatch.setattr(precision_tests, "on_cuda_backend", on_cpu)


@pytest.fixture
def precision() -> str:
    """Of the collected tests."""
    return "bfloat16"


# ---- products ------------------------------------------------------------------------------------


def operand(rows: int, columns: int, transposed: bool) -> Any:
    made = RNG.normal(size=(columns, rows) if transposed else (rows, columns)).astype(KIND)
    return made.T if transposed else made


multiplied = partial(multiplied_on_cpu, "bfloat16")


def in_pairs(a: Any, b: Any) -> Any:
    """a b as AVX512_BF16 adds it up: of each pair first the second product, then the first."""
    out = np.zeros((len(a), b.shape[1]), np.float32)
    for first in range(0, a.shape[1], 2):
        for i in (first + 1, first):
            if i < a.shape[1]:
                out += np.outer(a[:, i].astype("f4"), b[i].astype("f4"))
    return out


@pytest.mark.parametrize("layouts", list(product([False, True], repeat=2)), ids=str)
def test_product_of_any_layout(layouts: tuple[bool, bool]) -> None:
    """The bits of the instruction in float32, and rounded once in 16 bits; NaN is not read.

    AMX adds up in another order: see test_amx.py.
    """
    amx = getattr(LIBRARY, "instruction_set", "") == "amx"
    for m, n, k in [(3, 1, 1), (7, 1, 513), (6, 16, 256), (13, 37, 257), (40, 33, 70), (25, 50, 9)]:
        a, b = operand(m, k, layouts[0]), operand(k, n, layouts[1])
        want = in_pairs(a, b)
        found = multiplied(a, b, np.full((m, n), np.nan, "f4"))
        np.testing.assert_allclose(found, want, *(1e-5, 1e-5) if amx else (0, 0))
        rounded = multiplied(a, b, np.full((m, n), np.nan, KIND))
        np.testing.assert_array_equal(rounded.astype("f4"), found.astype(KIND).astype("f4"))
        out = RNG.normal(size=(m, n)).astype("f4")
        added = multiplied(a, b, out, np.array([-0.5, 2.0], "f4"))
        np.testing.assert_allclose(added, 2 * out - 0.5 * want, rtol=1e-6, atol=1e-5)


def test_long_sums_are_rounded_once_and_threads_do_not_change_them() -> None:
    """As if k products had been added up in float32; rows of 4,096 are whole pages apart."""
    for m, n, k, layouts in [
        (2, 70, 5001, (False, True)), (20, 70, 5001, (True, False)), (41, 9, 5001, (False, True)),
        (25, 140, 4096, (False, False)),
    ]:  # fmt: skip
        a, b = operand(m, k, layouts[0]), operand(k, n, layouts[1])
        want = a.astype("f8") @ b.astype("f8")
        found = [multiplied(a, b, np.empty((m, n), KIND), threads=t) for t in (1, 2, 3)]
        assert (abs(found[0].astype("f8") - want) <= 2.0**-8 * abs(want) + 1e-3).all()
        assert len({each.tobytes() for each in found}) == 1


def test_rounding_is_to_nearest_even_and_keeps_nan() -> None:
    values = RNG.integers(0, 2**32, 100_000, dtype=np.uint32)
    values[:70_000] = values[:70_000] & 0xFFFF0000 | 0x8000  # halfway between two
    theta, rounded = values.view(np.float32), np.empty(values.size, KIND)
    get_backend("cpu", "bfloat16").round(theta, rounded)
    with np.errstate(invalid="ignore", over="ignore"):
        np.testing.assert_array_equal(rounded.astype("f4"), theta.astype(KIND).astype("f4"))


def test_nan_stays_in_its_row() -> None:
    a, b = operand(20, 41, False), operand(41, 50, True)
    a[3, 40] = np.nan
    found = multiplied(a, b, np.empty((20, 50), KIND)).astype("f4")
    assert np.isnan(found[3]).all()
    assert np.isfinite(np.delete(found, 3, 0)).all()


@needs_compiler
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="needs x86-64")
def test_products_compile_for_the_instruction(tmp_path: Any) -> None:
    """The processor that runs this test need not have it."""
    path = tmp_path / "products.cpp"
    path.write_text(
        '#include "products.hpp"\n'
        "template void gpumlp::tile<gpumlp::bfloat16, 2, 2>(int64_t, const "
        "gpumlp::bfloat16*, int64_t, int64_t, const uint32_t*, int64_t, float, float, float*, "
        "int64_t, int64_t, uint32_t*);\n"
    )
    flags = [*FLAGS, *X86[BFLOAT16].flags, "-S", f"-I{source.headers()}"]
    command = ["c++", *flags, str(path), "-o", "-"]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr[-2000:]
    assert made.stdout.count("vdpbf16ps") == 4  # 2 rows by 2 vectors


# ---- training ------------------------------------------------------------------------------------


def trained(precision: str, optimizer: str = "adamw", f: Any = "tanh", **settings: Any) -> Any:
    omega = "none" if settings.get("fold") else "l2"
    norm = settings.pop("norm", None)
    net = gpumlp.MLP(
        [7, 40, 30, 3], f, precision=precision, regularizer=omega, backend="cpu", norm=norm,
        initializer="glorot",
    )  # fmt: skip
    fit = {"callbacks": settings.pop("callbacks", []), "data": settings.pop("data", "auto")}
    trainer = gpumlp.Trainer(net, optimizer, lr=0.01, batch_size=16, **settings)
    trainer.fit(X, Y, epochs=3, progress=False, **fit)
    return trainer


@pytest.mark.parametrize(
    "settings",
    [
        {"accumulate": 3, "ema": 0.9, "clip_norm": 0.1}, {"memory": "low", "f": "silu"},
        {"optimizer": "sgd", "fold": True}, {"optimizer": "momentum", "fold": True},
        {"optimizer": "muon"}, {"groups": {"biases": gpumlp.Group(2.0)}, "data": "stream"},
        {"norm": "batch", "accumulate": 2},
    ],
    ids=str,
)  # fmt: skip
def test_training_follows_float32_with(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its bits depend neither on the number of threads nor on steps being done at once."""

    class Watching(gpumlp.callbacks.Callback):
        def on_step_end(self, trainer: Any) -> None:
            pass

    want, got = trained("float32", **settings), trained("bfloat16", **settings)
    np.testing.assert_allclose(got.history["cost"], want.history["cost"], rtol=0.02)
    start = gpumlp.MLP(**want.net.config(), backend="cpu").tensors()
    assert 0 < relative(moved(got.net, start), moved(want.net, start)) < 0.1
    for threads in (1, 3):
        monkeypatch.setattr(cpu_backend, "CORES", threads)
        again = trained("bfloat16", callbacks=[Watching()] * (threads > 1), **settings)
        assert again.net.theta.flat.tobytes() == got.net.theta.flat.tobytes()


def test_checkpoint_continues_bit_for_bit(tmp_path: Any) -> None:
    path, settings = tmp_path / "run.safetensors", {"progress": False}

    def run(epochs: int, **fit: Any) -> gpumlp.MLP:
        net = gpumlp.MLP([7, 40, 3], precision="bfloat16", backend="cpu")
        gpumlp.Trainer(net, batch_size=16).fit(X, Y, epochs, **fit, **settings)
        return net

    run(2, checkpoint=path)
    resumed, whole = run(4, checkpoint=path, resume=True), run(4)
    assert resumed.theta.flat.tobytes() == whole.theta.flat.tobytes()
    whole.save(tmp_path / "model.safetensors")
    for backend, precision in (("cpu", "bfloat16"), ("numpy", "float32")):
        net = gpumlp.MLP.load(tmp_path / "model.safetensors", backend=backend)
        assert net.precision == precision
        np.testing.assert_allclose(net.predict(X), whole.predict(X), atol=0.02)


def test_a_step_reads_what_a_callback_assigned_after_the_last(tmp_path: Any) -> None:
    """A training that is resumed at that step does, too."""

    def halve(trainer: Any) -> None:
        if trainer.steps == 3:
            trainer.net.layers[0].W[...] /= 2

    def run(*others: Any, **fit: Any) -> bytes:
        net = gpumlp.MLP([7, 40, 3], precision="bfloat16", backend="cpu")
        hooks = {"callbacks": [Hook(halve), *others], "progress": False}
        gpumlp.Trainer(net, batch_size=16).fit(X, Y, 2, **hooks, **fit)
        return net.theta.flat.tobytes()

    saved = {"checkpoint": tmp_path / "run.safetensors", "checkpoint_every": 3}
    with pytest.raises(Die):
        run(die_at(step=4), **saved)
    assert run(resume=True, **saved) == run()


def test_own_entry_without_a_cuda_expression() -> None:
    """It runs by its NumPy expression in float32, between compiled operations."""
    texts = {"f": lambda z: np.tanh(z), "df": lambda z, h: 1 - h * h, "reads": "h"}
    got = trained("bfloat16", f=gpumlp.Activation("own", **texts))
    want = trained("bfloat16")
    np.testing.assert_allclose(got.history["cost"], want.history["cost"], rtol=2e-3)


def test_own_optimizer_without_a_cuda_rule() -> None:
    """Steps read the weights that it has moved, rounded."""

    def rule(theta: Any, g: Any, lr: float) -> None:
        theta -= lr * g

    thetas = []
    for optimizer in (gpumlp.Optimizer("own", rule=rule), "sgd"):
        net = gpumlp.MLP([7, 9, 3], backend="cpu", precision="bfloat16")
        trainer = gpumlp.Trainer(net, optimizer, lr=0.1, batch_size=16, fold=False)
        trainer.fit(X, Y, 2, progress=False)
        thetas.append(net.theta.flat)
    np.testing.assert_allclose(*thetas, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", ["cpu", "auto"])
def test_other_processors_raise(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_gpu() -> None:
        raise gpumlp.DeviceError("no GPU here")

    monkeypatch.setattr("gpumlp.backends.cuda.open_device", no_gpu)
    assert get_backend(backend, "bfloat16").precision == "bfloat16"
    monkeypatch.delenv(cpu_backend.EMULATE)
    library = cpu_backend.installed()
    monkeypatch.setattr(library, "instruction_set", "avx2")
    refusal(
        ValueError, lambda: get_backend(backend, "bfloat16"),
        'precision "bfloat16" needs a GPU or a processor with AVX512_BF16',
        'use precision="float32", or set GPUMLP_EMULATE_BFLOAT16=1',
    )  # fmt: skip
    monkeypatch.setattr(library, "instruction_set", BFLOAT16)
    assert get_backend(backend, "bfloat16").storage == KIND
