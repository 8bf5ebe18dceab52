"""What the CPU backend adds: programs in one call, threads, entries of the user's own."""

from __future__ import annotations

import copy
import itertools
import os
import pickle
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp import ACTIVATIONS, LOSSES, OPTIMIZERS, REGULARIZERS
from gpumlp.backends import get_backend
from gpumlp.backends.cpu import backend as cpu_backend
from gpumlp.backends.cpu import calls, joining, loading, source, works
from gpumlp.backends.cpu.loading import Library
from gpumlp.backends.numpy.blas import numpy_blas
from tests.support.compiled import needs_compiler, needs_library
from tests.support.refusal import refusal

pytestmark = needs_library
RNG = np.random.default_rng(11)
X, Y = RNG.normal(size=(130, 6)), RNG.integers(0, 3, 130)
SWISH = {
    "f": lambda z: z / (1 + np.exp(-z)),
    "df": lambda z, h: (1 + np.exp(-z) * (1 + z)) / np.square(1 + np.exp(-z)),
    "cuda_f": "z / (real(1) + exp(-z))",
    "cuda_df": "(real(1) + exp(-z) * (real(1) + z)) / ((real(1) + exp(-z)) * (real(1) + exp(-z)))",
    "reads": "z",
}


def network(backend: str = "cpu", f: Any = "tanh", **settings: Any) -> gpumlp.MLP:
    return gpumlp.MLP([6, 9, 5, 3], f, backend=backend, precision="float64", **settings)


def trained(net: gpumlp.MLP, optimizer: Any = "adamw", callbacks: Any = (), **settings: Any) -> Any:
    trainer = gpumlp.Trainer(net, optimizer, lr=0.01, batch_size=16, **settings)
    trainer.fit(X, Y, epochs=3, callbacks=list(callbacks), progress=False)
    return trainer


class Watching(gpumlp.callbacks.Callback):
    def __init__(self) -> None:
        self.seen: list[tuple[int, float]] = []

    def on_step_end(self, trainer: Any) -> None:
        self.seen.append((trainer.steps, trainer.last_lr))


# ---- programs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {}, {"accumulate": 3}, {"ema": 0.9, "clip_norm": 0.1}, {"memory": "low"}, {"fold": True},
        {"groups": {"biases": gpumlp.Group(2.0)}}, {"schedule": "one_cycle"},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adamw", "muon"])
def test_steps_at_once_equal_single_steps(optimizer: str, settings: dict[str, Any]) -> None:
    """A callback that watches each step makes them single; θ equals NumPy's to the last digits."""
    if settings.get("fold") and optimizer not in ("sgd", "momentum"):
        pytest.skip("only these fold")
    watching = Watching()
    one = trained(network(), optimizer, [watching], **settings)
    many = trained(network(), optimizer, **settings)
    np.testing.assert_array_equal(many.net.theta.flat, one.net.theta.flat)
    assert [steps for steps, _ in watching.seen] == list(range(1, 28))
    assert many.steps == 27
    assert many.last_lr == one.last_lr
    plain = trained(network("numpy"), optimizer, **settings)
    np.testing.assert_allclose(many.net.theta.flat, plain.net.theta.flat, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(many.history["cost"], plain.history["cost"], rtol=1e-10)


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "momentum"])
def test_a_step_is_one_call(optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And while nobody watches, many steps are; without a compiler, too."""
    monkeypatch.setattr(loading, "_compiled", lambda *_: pytest.fail("compiled"))
    calls: list[int] = []
    run = cpu_backend.Program.__call__

    def counted(self: Any, steps: int = 1) -> None:
        if len(self._calls) > 3:
            calls.append(steps)
        run(self, steps)

    monkeypatch.setattr(cpu_backend.Program, "__call__", counted)
    trained(network(), optimizer, [Watching()])
    assert calls == [1] * 27
    calls.clear()
    trained(network(), optimizer)
    assert sum(calls) == 27
    assert max(calls) > 1


@pytest.mark.parametrize("every", [1, 4, 5])
def test_checkpoints_within_an_epoch(tmp_path: Any, every: int) -> None:
    """A fit that resumes from one ends with the same bits."""
    path = tmp_path / "run.safetensors"
    want = trained(network()).net.theta.flat

    class Stops(gpumlp.callbacks.Callback):
        def on_epoch_end(self, trainer: Any, row: Any) -> None:
            if trainer.epochs == 2:
                raise KeyError("stop")

    settings: dict[str, Any] = {"epochs": 3, "progress": False, "checkpoint": path}
    first = gpumlp.Trainer(network(), lr=0.01, batch_size=16)
    with pytest.raises(KeyError):
        first.fit(X, Y, callbacks=[Stops()], checkpoint_every=every, **settings)
    again = gpumlp.Trainer(network(seed=9), lr=0.01, batch_size=16)
    again.fit(X, Y, resume=True, **settings)
    np.testing.assert_array_equal(again.net.theta.flat, want)


# ---- bits and threads ----------------------------------------------------------------------------


def test_same_bits_on_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    blas = numpy_blas()
    assert blas is not None
    if not blas.set_threads:
        pytest.skip("NumPy's BLAS is not OpenBLAS")
    import ctypes

    get = ctypes.CFUNCTYPE(ctypes.c_int)(blas.get_threads)
    change = ctypes.CFUNCTYPE(None, ctypes.c_int)(blas.set_threads)
    x, y = RNG.normal(size=(700, 300)).astype("float32"), RNG.integers(0, 10, 700)
    before, bits = get(), set()
    try:
        for threads in (1, 2, 3):
            monkeypatch.setattr(cpu_backend, "CORES", threads)
            change(threads)
            net = gpumlp.MLP([300, 500, 600, 10], "gelu", regularizer="l2", backend="cpu")
            trainer = gpumlp.Trainer(net, batch_size=256, clip_norm=1.0, ema=0.9)
            trainer.fit(x, y, epochs=2, progress=False)
            bits.add((net.theta.flat.tobytes(), str(trainer.history["cost"])))
            assert get() == threads  # as it was before
    finally:
        change(before)
    assert len(bits) == 1


@pytest.mark.parametrize("optimizer", ["momentum", "adamw"])
def test_means_of_dead_inputs_become_0(optimizer: str) -> None:
    """They shrink until they are subnormal, where rounding would keep them, and steps slow."""
    x = RNG.normal(size=(64, 40)).astype("float32")
    net = gpumlp.MLP([40, 300, 3], "relu", backend="cpu")
    trainer = gpumlp.Trainer(net, optimizer, batch_size=64)
    x[:, 20:] = 0
    np.asarray(trainer.slots)[...] = 1e-3
    trainer.fit(x, RNG.integers(0, 3, 64), epochs=1000, progress=False)
    slots = np.abs(trainer.slots[0])
    assert (slots == 0).sum() >= 20 * 300
    assert not ((slots > 0) & (slots < np.finfo("f4").tiny)).any()
    # the caller's own arithmetic is as before
    assert np.float32(1e-40) * np.float32(0.5) > 0


def test_two_trainers_in_two_threads() -> None:
    want = trained(network()).net.theta.flat
    nets = [network() for _ in range(3)]
    running = [threading.Thread(target=trained, args=(net,)) for net in nets]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    for net in nets:
        np.testing.assert_array_equal(net.theta.flat, want)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_after_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    """The child has none of its parent's threads, and makes its own."""
    monkeypatch.setattr(cpu_backend, "CORES", 2)
    want = trained(network()).net.theta.flat.tobytes()
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads: by Python 3.12, and by JAX if it is there
        child = os.fork()
    if child == 0:
        try:
            os.write(writer, trained(network()).net.theta.flat.tobytes())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        assert pipe.read() == want
    os.waitpid(child, 0)


# ---- numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_reach_the_cost(value: float) -> None:
    x = X.copy()
    x[3, 2] = value
    for f in ("relu", "softplus", "gelu", "identity"):
        with np.errstate(all="ignore"):
            J, plain = (network(name, f).cost(x, Y) for name in ("cpu", "numpy"))
        assert np.isfinite(J) == np.isfinite(plain), f
    assert not np.isfinite(network("cpu", "identity").cost(x, Y))


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("widths", [(1, 1), (3, 7, 2), (513, 3, 513), (7, 513, 1)])
def test_unaligned_and_read_only_input(widths: tuple[int, ...], precision: str) -> None:
    m = 37
    raw = np.zeros(m * widths[0] * 8 + 1, np.uint8)
    x = raw[1 : 1 + m * widths[0] * np.dtype(precision).itemsize].view(precision)
    x = x.reshape(m, widths[0])
    x[...] = RNG.normal(size=x.shape)
    x.flags.writeable = False
    net = gpumlp.MLP(widths, "tanh", loss="huber", precision=precision, backend="cpu")
    plain = gpumlp.MLP(widths, "tanh", loss="huber", precision=precision, backend="numpy")
    np.testing.assert_allclose(net.forward(x), plain.forward(x), rtol=1e-5, atol=1e-6)
    y = RNG.normal(size=(m, widths[-1]))
    for each in (net, plain):
        gpumlp.Trainer(each, batch_size=8).fit(x, y, epochs=2, progress=False)
    np.testing.assert_allclose(net.theta.flat, plain.theta.flat, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("f", ACTIVATIONS)
def test_float32_is_as_near_to_float64_as_numpys(f: str, name: str) -> None:
    """The error of the cost and the gradients is at most twice NumPy's, or a few units."""
    rng = np.random.default_rng(12)  # its own: the same numbers whichever tests ran before
    output = "softmax" if name == "negative_log_likelihood" else "identity"
    y = np.abs(rng.normal(size=(64, 3))) if name == "poisson" else rng.random((64, 3))
    if LOSSES[name].target == "class":
        y = rng.integers(0, 3, 64)
    x, errors = 0.3 * X[:64], {}
    exact = network("numpy", f, output_activation=output, loss=name, initializer="glorot")
    with np.errstate(over="ignore"):
        want = exact.cost_and_gradients(x, y)[1]
    for backend in ("cpu", "numpy"):
        settings = exact.config() | {"precision": "float32"}
        net = gpumlp.MLP(**settings, backend=backend)
        net.assign(exact.tensors())
        with np.errstate(over="ignore"):
            found = net.cost_and_gradients(x, y)[1]
        errors[backend] = np.array(
            [np.abs(a - b).max() / (1e-30 + np.abs(b).max())
             for a, b in zip(found.W + found.b, want.W + want.b, strict=True)]
        )  # fmt: skip
    assert (errors["cpu"] <= 2 * errors["numpy"] + 1e-6).all(), errors


# ---- the user's own entries ----------------------------------------------------------------------


def test_every_entry_of_the_tables_is_compiled() -> None:
    found = loading.installed()
    assert isinstance(found, Library)
    for entry in itertools.chain(ACTIVATIONS.values(), LOSSES.values(), REGULARIZERS.values()):
        if source.has_source(entry):
            for real, name in itertools.product(source.REALS, source.operations(entry)):
                assert found.operation(real, name, entry, None), name
        else:
            assert entry.name in ("softmax", "softmax_cross_entropy")
    for rule, omega in itertools.product(OPTIMIZERS.values(), REGULARIZERS.values()):
        for name in source.operations(rule, omega):
            assert found.operation("float", name, rule, omega), name


@needs_compiler
def test_own_entry_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    swish = gpumlp.Activation("own swish!", **SWISH)
    loading._compiled.cache_clear()
    got = trained(network(f=swish), callbacks=[Watching()]).net.theta.flat
    np.testing.assert_allclose(
        got, trained(network("numpy", swish)).net.theta.flat, rtol=1e-9, atol=1e-12
    )
    monkeypatch.setattr(loading, "_compile", lambda *_: pytest.fail("compiled again"))
    loading._compiled.cache_clear()
    np.testing.assert_array_equal(trained(network(f=swish)).net.theta.flat, got)


def test_own_entry_is_written_in_utf_8_whatever_the_locale(tmp_path: Path) -> None:
    """A compiler that copies the source shows it."""
    compiler, copied = tmp_path / "c++", tmp_path / "copied"
    compiler.write_text('#!/bin/sh\nwhile [ $# -gt 3 ]; do shift; done\ncp "$1" "$3"\n')
    compiler.chmod(0o700)
    code = (
        "import sys, pathlib; from gpumlp.backends.cpu import loading; "
        "loading._compile(sys.argv[1], [], '\\u03b8', pathlib.Path(sys.argv[2]))"
    )
    environment = os.environ | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    subprocess.run([sys.executable, "-c", code, compiler, copied], check=True, env=environment)
    assert copied.read_text(encoding="utf-8") == "θ"


@pytest.mark.parametrize("how", ["no compiler", "no expression", "an expression that is wrong"])
def test_own_entry_runs_in_numpy(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it cannot be compiled; it trains as on the NumPy backend."""
    texts: dict[str, Any] = dict(SWISH)
    loading._compiled.cache_clear()
    if how == "no compiler":
        monkeypatch.delenv("CXX", raising=False)
        monkeypatch.setattr(loading.shutil, "which", lambda name: None)
    elif how == "no expression":
        texts |= {"cuda_f": "", "cuda_df": ""}
    else:
        texts |= {"cuda_f": "__no_such(z)"}
    swish = gpumlp.Activation(f"swish with {how}", **texts)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        got = trained(network(f=swish)).net.theta.flat
    assert bool(warned) == (
        how == "an expression that is wrong" and needs_compiler.args[0] is False
    )
    plain = trained(network("numpy", swish)).net.theta.flat
    np.testing.assert_allclose(got, plain, rtol=1e-9, atol=1e-12)


def test_own_entry_in_numpy_has_the_same_bits_on_any_number_of_threads() -> None:
    """The products of NumPy itself have not; so they are the library's own."""
    controller = pytest.importorskip("threadpoolctl").ThreadpoolController()
    swish = gpumlp.Activation("swish in NumPy", **SWISH | {"cuda_f": "", "cuda_df": ""})
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(500, 64)), rng.integers(0, 10, 500)
    found = []
    for threads in (1, 2):
        net = gpumlp.MLP([64, 300, 300, 10], swish, backend="cpu")
        with controller.limit(limits=threads, user_api="blas"):
            gpumlp.Trainer(net, batch_size=256).fit(x, y, 2, progress=False)
            J, gradients = net.cost_and_gradients(x, y)
        found.append((net.theta.flat, J, *gradients.W))
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)


@needs_compiler
def test_own_optimizer_loss_and_regularizer() -> None:
    def rule(theta: Any, g: Any, lr: float, v: Any, mu: float) -> None:
        v *= mu
        v += (1 - mu) * g
        theta -= lr * v

    own = gpumlp.Optimizer(
        "own", rule=rule, slots=("v",), params={"mu": 0.8},
        cuda_rule="v = mu * v + one_minus_mu * g; theta -= lr * v;",
    )  # fmt: skip
    loss = gpumlp.Loss(
        "quartic", value=lambda a, b: (a - b) ** 4, gradient=lambda a, b: 4 * (a - b) ** 3,
        cuda_value="(y_hat - y) * (y_hat - y) * (y_hat - y) * (y_hat - y)",
        cuda_gradient="real(4) * (y_hat - y) * (y_hat - y) * (y_hat - y)",
    )  # fmt: skip
    omega = gpumlp.Regularizer(
        "cubic", omega=lambda theta, k: k * np.abs(theta) ** 3,
        gradient=lambda theta, k: 3 * k * theta * np.abs(theta), params={"k": 0.01},
        cuda_omega="k * fabs(theta) * theta * theta",
        cuda_gradient="real(3) * k * theta * fabs(theta)",
    )  # fmt: skip
    thetas = []
    for backend in ("cpu", "numpy"):
        net = network(backend, loss=loss, regularizer=omega)
        trainer = gpumlp.Trainer(net, own, lr=0.01, batch_size=16)
        trainer.fit(X, np.eye(3)[Y], epochs=3, progress=False)
        thetas.append(net.theta.flat)
    np.testing.assert_allclose(thetas[0], thetas[1], rtol=1e-9, atol=1e-12)


# ---- choosing it ---------------------------------------------------------------------------------


def test_auto_is_the_compiled_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """And NumPy where the library is missing, as when gpumlp was installed without a compiler."""
    monkeypatch.setattr("gpumlp.backends.cuda.open_device", _no_gpu)
    assert get_backend("auto").name == "cpu"
    saved = pickle.dumps(network())
    assert pickle.loads(saved).backend.name == copy.deepcopy(network()).backend.name == "cpu"
    monkeypatch.setattr(cpu_backend, "installed", lambda: "its library is missing; install it")
    assert get_backend("auto").name == "numpy"
    np.testing.assert_array_equal(pickle.loads(saved).forward(X), network("numpy").forward(X))
    refusal(
        gpumlp.DeviceError, lambda: get_backend("cpu"),
        'backend "cpu" cannot be used: its library is missing', 'use backend="numpy"',
    )  # fmt: skip


def test_a_library_of_other_sources_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    found = loading.installed()
    assert isinstance(found, Library)
    monkeypatch.setattr(loading, "_expected", lambda: "0" * 64)
    why = loading.installed.__wrapped__()
    assert isinstance(why, str)
    assert "made from other sources" in why
    assert "install gpumlp again" in why


def test_a_library_in_a_checkout_that_is_not_installed_is_not_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loading, "_expected", loading._expected.__wrapped__)
    monkeypatch.setitem(sys.modules, "gpumlp.kernels", None)
    why = loading.installed.__wrapped__()
    assert isinstance(why, str)
    assert "gpumlp.kernels" in why
    assert "install gpumlp again" in why


def _no_gpu() -> None:
    raise gpumlp.DeviceError("no GPU here")


def test_operations_take_named_arguments() -> None:
    """Groups without a part, for example."""
    thetas, groups = [], np.array([[16.0, 2, 1], [64, 1, 1]])
    for name in ("cpu", "numpy"):
        backend = get_backend(name, "float64")
        theta, slots = np.ones(64), np.zeros((0, 64))
        backend.update(
            OPTIMIZERS["sgd"], REGULARIZERS["none"], theta, theta, np.full(64, 0.5), slots, 32,
            np.array([1.0, 1, 0, 0]), np.array([1.0, 0.1, 1]), groups=groups,
        )  # fmt: skip
        thetas.append(theta)
    np.testing.assert_allclose(thetas[0], thetas[1], rtol=1e-15)
    assert thetas[0][0] == pytest.approx(0.9)


def test_precision() -> None:
    refusal(ValueError, lambda: get_backend("cpu", "tf32"), 'backend "cpu" has precision')


# ---- memory --------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float64", "bfloat16"])
def test_planned_scratch_is_what_programs_allocate(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Byte for byte: of the steps' programs and of the evaluation's, and of the threads' blocks."""
    monkeypatch.setenv(cpu_backend.EMULATE, "1")
    allocated: list[int] = []
    prepare = cpu_backend.Program.__init__

    def noted(self: Any, *arguments: Any) -> None:
        prepare(self, *arguments)
        if self._scratch.nbytes:
            allocated.append(self._scratch.nbytes)

    net = gpumlp.MLP([6, 1500, 40, 3], "tanh", precision=precision, backend="cpu")
    trainer = gpumlp.Trainer(net, batch_size=100, clip_norm=1.0)
    planned = trainer.memory(X, Y, validation=(X[:9], Y[:9]))
    blocks = net.backend.own_memory(1500)
    assert planned.held >= blocks > 0
    monkeypatch.setattr(cpu_backend.Program, "__init__", noted)
    trainer.fit(X, Y, epochs=1, validation=(X[:9], Y[:9]), progress=False)
    evaluated = allocated.pop()
    assert len(allocated) == 2  # for 100 examples and for 30
    assert planned.scratch - blocks == sum(allocated)
    if precision == "bfloat16":  # ∇W of 6 · 1500 entries and sums of 1500 products in float32
        assert min(allocated) >= 4 * 30 * 40
        assert evaluated >= 4 * 9 * 40


def test_constants_are_those_of_the_headers() -> None:
    text = "".join(each.read_text() for each in sorted(source.headers().glob("*.hpp")))
    for of_a, of_b in (calls.BLOCKS, calls.AVX512_BLOCKS):
        assert f"BYTES_OF_A = {of_a} << 10, BYTES_OF_B = {of_b} << 10" in text
    assert f"BYTES_OF_BOTH = {calls.AMX_BLOCKS} << 10" in text
    rows = f"LEAST_ROWS = {works.LEAST_ROWS}, FEW = {works.FEW}"
    assert f"PIECE = {works.PIECE}, {rows}" in text
    assert f"MOST_PRODUCTS = {joining.MOST_PRODUCTS}" in text
    assert f"ENTRIES = 2, INNER = {calls.INNER}" in text


# ---- muon ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(7, 7), (9, 300), (300, 90), (513, 1)])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_orthogonal_matrices_are_numpys(
    shape: tuple[int, int], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within rounding, with the same bits on any number of threads; zeros stay, infinity is NaN."""
    V, r = RNG.normal(size=shape).astype(precision), min(shape)
    found = {}
    for name, threads in (("numpy", 1), ("cpu", 1), ("cpu", 2), ("cpu", 3)):
        monkeypatch.setattr(cpu_backend, "CORES", threads)
        backend = get_backend(name, precision)
        for factor in (1.0, 0.0, np.inf):
            made = (V * V.dtype.type(factor)).astype(precision)
            with np.errstate(invalid="ignore"):
                backend.orthogonalize(
                    made.reshape(1, -1), 1.5, np.empty_like(V)[None],
                    *(np.empty((1, r, r), precision) for _ in range(2)),
                )  # fmt: skip
            found[name, threads, factor] = made
    eps = 2000 * np.finfo(precision).eps
    np.testing.assert_allclose(found["cpu", 1, 1.0], found["numpy", 1, 1.0], rtol=0, atol=eps)
    assert not found["cpu", 1, 0.0].any()
    assert np.isnan(found["cpu", 1, np.inf]).all()
    for threads, factor in itertools.product((2, 3), (1.0, 0.0, np.inf)):
        assert found["cpu", threads, factor].tobytes() == found["cpu", 1, factor].tobytes()
