"""Cases, their FLOPs and bytes counted by hand, the check of a step, and ratios of times."""

import itertools
import json
import sys
from dataclasses import asdict, replace
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest

from gpumlp.backends import get_backend
from gpumlp.backends.cpu import flags as cpu_flags
from gpumlp.bench import timing
from gpumlp.bench.cases import (
    PRESETS,
    RATES,
    Case,
    choose,
    network_name,
    parse_widths,
)
from gpumlp.bench.correct import ROUNDING, WrongChange, bfloat16, changes, check
from gpumlp.bench.peers import (
    COMPETITORS,
    Problem,
    Unsupported,
    builder,
    gpumlp_peer,
    known,
    torch_peers,
)
from gpumlp.bench.peers.gpumlp_peer import GpumlpStep, copy_bandwidth
from gpumlp.bench.timing import Timing
from gpumlp.functions import OPTIMIZERS
from gpumlp.parameters import Layout
from tests.support.refusal import refusal

CASE = Case("three", (5, 7, 3), 4)


class TestCounts:
    def test_flops_counted_by_hand(self):
        """The first layer has no product for ∂J/∂x."""
        forward = 2 * 4 * 5 * 7 + 2 * 4 * 7 * 3
        weights = 2 * 7 * 5 * 4 + 2 * 3 * 7 * 4
        below = 2 * 4 * 3 * 7
        assert CASE.flops() == forward + weights + below

    def test_step_has_three_products_per_layer_less_one(self):
        wide = PRESETS["wide"][-1]
        assert (wide.batch_size, len(wide.products())) == (8192, 23)
        assert wide.flops() == 23 * 2 * 8192**3

    @pytest.mark.parametrize(
        ("precision", "bytes_a_parameter"),
        [("float32", 28), ("float64", 56), ("bfloat16", 2 + 24 + 2)],
    )
    def test_bytes_outside_the_products(self, precision, bytes_a_parameter):
        """The floor's bytes are those of adamw's pass over θ, and those at the edges."""
        case = replace(CASE, precision=precision, optimizer="adamw")
        item = {"float64": 8, "float32": 4, "bfloat16": 2}[precision]
        size = Layout(case.widths, item).size
        edges = 2 * 4 * (5 + 3) * item  # gather x; read ŷ and write its gradient
        tables = 4 * (4 + 4 + 8 + 8) + 4 * 4  # labels and index, gathered; labels of the loss
        rest = case.rest_bytes() - size * bytes_a_parameter - edges
        assert 0 < rest < tables + 600

    def test_update_within_the_products_moves_no_bytes(self):
        folded = replace(CASE, widths=(512, 512, 512), optimizer="sgd")
        assert folded.rest_bytes() < 0.1 * replace(folded, optimizer="adamw").rest_bytes()

    def test_bytes_of_the_products(self):
        sizes = [4 * 5 + 5 * 7 + 4 * 7, 4 * 7 + 7 * 3 + 4 * 3]  # h Wᵀ; gzᵀ h has the same arrays
        assert CASE.product_bytes() == 4 * (2 * sum(sizes) + sizes[1])


class TestChoosing:
    def test_choose_gives_every_combination(self):
        found = choose(["small"], ["512x2", "64-10"], [64, 256], ["float32"], ["sgd", "adamw"])
        assert {(c.widths, c.batch_size, c.optimizer) for c in found} == {
            (w, m, o) for w in ((512,) * 3, (64, 10)) for m in (64, 256) for o in ("sgd", "adamw")
        }
        assert len({c.slug for c in found}) == len(found) == 8

    def test_grid_has_every_width_depth_and_batch_size(self):
        grid = choose(["grid"])
        assert {c.widths[0] for c in grid} == {512, 1024, 2048, 4096, 8192, 16384}
        assert {len(c.widths) - 1 for c in grid} == {2, 4, 8, 16}
        assert {c.batch_size for c in grid} == {64, 256, 1024, 4096, 16384}
        assert len({c.slug for c in grid}) == len(grid) == 6 * 4 * 5 * 2 * 2

    @pytest.mark.parametrize("text", ["512x4", "64-128-128-10", "3-1"])
    def test_network_names_parse_to_the_same_widths(self, text):
        assert network_name(parse_widths(text)) == text

    def test_unknown_names_raise(self):
        refusal(
            ValueError, lambda: choose(["smal"]), "'smal'", "small, tabular, wide, launch, busy"
        )
        refusal(ValueError, lambda: choose(["small"], ["512×4"]), "512x4", "'512×4'")
        refusal(ValueError, lambda: choose(["small"], ["512"]), "512x4 (width x layers)")
        refusal(ValueError, lambda: choose(["small"], optimizers=["lion"]), "'lion'", "sgd, adamw")
        refusal(ValueError, lambda: choose(["small"], precisions=["int8"]), "'int8'", "bfloat16")
        refusal(ValueError, lambda: choose(["small"], activations=["rely"]), "did you mean 'relu'")
        refusal(ValueError, lambda: choose(["small"], batch_sizes=[0]), "batch_size")
        refusal(ValueError, lambda: known(["torhc"]), "'torhc'", "torch eager", "module:function")

    def test_benchmark_optimizers_are_optimizers_of_the_library(self):
        assert set(RATES) <= set(OPTIMIZERS)

    def test_json_round_trip(self):
        assert Case.from_json(json.loads(json.dumps(asdict(CASE)))) == CASE


class TestCorrectness:
    """One float32 step against float64, and steps that are slightly wrong."""

    CASE = Case("c", (12, 24, 24, 5), 32)

    @staticmethod
    def stepped(case, spoil=lambda step: None):
        problem = Problem(case, "numpy")
        step = GpumlpStep(problem)
        spoil(step)
        step.run()
        return changes(problem, step)

    @pytest.mark.parametrize("loss", ["softmax_cross_entropy", "squared_error"])
    @pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
    def test_float32_step_passes_the_check(self, optimizer, loss):
        case = replace(self.CASE, optimizer=optimizer, loss=loss)
        exact = self.stepped(replace(case, precision="float64"))
        error = check(self.stepped(case), exact, case)
        assert 0 < error < 1e-3

    @pytest.mark.parametrize("factor", [0.99, 1.01, 0.0, -1.0, np.nan])
    def test_wrong_learning_rate_raises(self, factor):
        def spoil(step):
            step.start(self.CASE.lr * factor)

        exact = self.stepped(replace(self.CASE, precision="float64"))
        with pytest.raises(WrongChange, match="its change"):
            check(self.stepped(self.CASE, spoil), exact, self.CASE)

    def test_missing_bias_update_raises(self):
        exact = self.stepped(replace(self.CASE, precision="float64"))
        got = self.stepped(self.CASE)
        sample, norm, rounding = got["2.bias"]
        got["2.bias"] = (0 * sample, 0 * norm, rounding)
        with pytest.raises(WrongChange, match=r"2\.bias: its change has a relative error of 1"):
            check(got, exact, self.CASE)

    def test_change_smaller_than_bfloat16_rounding_raises(self):
        exact = self.stepped(replace(self.CASE, precision="float64"))
        got = {
            name: (sample, norm, rounding * ROUNDING["bfloat16"] / ROUNDING["float32"])
            for name, (sample, norm, rounding) in self.stepped(self.CASE).items()
        }
        with pytest.raises(Unsupported, match="rounding θ may hide more than half"):
            check(got, exact, replace(self.CASE, precision="bfloat16"))

    def test_bfloat16_rounds_as_ml_dtypes_does(self, rng):
        a = rng.standard_normal(10_000, np.float32)
        a[:4] = [1 + 2**-8, 1 + 3 * 2**-8, 0, -(1 + 2**-8)]  # halves go to even
        np.testing.assert_array_equal(bfloat16(a), a.astype(ml_dtypes.bfloat16).astype("float32"))


def test_ratio_is_the_median_over_the_rounds():
    slow, fast = Timing([2.0, 12.0, 9.0]), Timing([1.0, 3.0, 9.0])
    assert (
        slow.ratio(fast) == 2.0
    )  # the median of 2, 4, 1; the ratio of medians is 3, of means 23 / 13
    assert fast.ratio(slow) == 0.5
    assert Timing([1.0, 2.0, 3.0, 4.0, 5.0]).quartiles == (2.0, 4.0)
    assert Timing([4.0]).quartiles == (4.0, 4.0)


def test_every_competitor_has_a_builder():
    for name in COMPETITORS:
        assert callable(builder(name))


@pytest.mark.parametrize(
    ("peer", "mode"),
    [("torch.compile", "max-autotune"), ("torch.compile reduce-overhead", "reduce-overhead")],
)
def test_mode_of_torch_compile(peer, mode, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch, "compile", lambda f, mode: modes.append(mode) or f)
    modes = []
    builder(peer)(Problem(CASE, "numpy")).run()
    assert modes == [mode]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_step_in_one_graph_begins_anew_after_it_was_recorded(optimizer, monkeypatch):
    """The steps before the recording train; the graph, which needs a GPU, is the eager step."""
    pytest.importorskip("torch")
    monkeypatch.setattr(torch_peers, "recorded", lambda torch, step, _: [step() for _ in range(3)])
    case = replace(CASE, optimizer=optimizer)
    exact, problem = Problem(replace(case, precision="float64"), "numpy"), Problem(case, "numpy")
    want, step = GpumlpStep(exact), torch_peers.TorchStep(problem, one_graph=True)
    step._graph = None
    want.run()
    step.run()
    assert check(changes(problem, step), changes(exact, want), case) < 1e-2


def test_one_graph_elsewhere_raises():
    for precision, backend, reason in (
        ("float32", "numpy", "CUDA graphs need a GPU"), ("float16", "cupy", "loss scaling"),
    ):  # fmt: skip
        with pytest.raises(Unsupported, match=reason):
            builder("torch.compile one graph")(Problem(replace(CASE, precision=precision), backend))


def test_flashoptim_is_the_optimizer_of_parameters_in_bfloat16(monkeypatch):
    torch, made = pytest.importorskip("torch"), []

    class Step(torch_peers.TorchStep):
        def __init__(self, problem, **settings):
            made.append(settings)
            self.network = torch.nn.Linear(2, 2)

    monkeypatch.setattr(torch_peers, "TorchStep", Step)
    monkeypatch.setitem(sys.modules, "flashoptim", SimpleNamespace(FlashAdamW=torch.optim.AdamW))
    problem = Problem(replace(CASE, precision="bfloat16", optimizer="adamw"), "cupy")
    step = builder("torch.compile flashoptim")(problem)
    assert made == [{"mode": "max-autotune", "bf16_parameters": True}]
    assert step.optimizer.param_groups[0]["weight_decay"] == 0.01
    with pytest.raises(Unsupported, match="on a GPU"):
        builder("torch.compile flashoptim")(Problem(problem.case, "numpy"))
    monkeypatch.setitem(sys.modules, "flashoptim", None)
    with pytest.raises(ImportError, match="flashoptim"):
        builder("torch.compile flashoptim")(problem)


def test_scan_of_jax_does_as_many_steps_as_single_calls():
    pytest.importorskip("jax")
    pytest.importorskip("optax")
    theta = []
    for name in ("jax", "jax scan"):
        step = builder(name)(Problem(CASE, "numpy"))
        if name == "jax scan":
            step._many = step.many(3)
            step.STEPS = 3
        step.run_many(7)
        theta.append(dict(step.tensors()))
    for name, value in theta[0].items():
        np.testing.assert_allclose(theta[1][name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("backend", "precision"), [("cupy", "float32"), ("numpy", "float64")])
def test_medium_products_elsewhere_raise(backend, precision):
    pytest.importorskip("torch")
    with pytest.raises(Unsupported, match="medium products are for float32 on the CPU"):
        builder("torch eager medium")(Problem(replace(CASE, precision=precision), backend))


@pytest.mark.parametrize(
    ("model", "flags", "note"),
    [
        ("AMD EPYC", "fma avx2 avx512f", "this one has AVX-512"),
        ("AMD EPYC", "fma avx2", "this one has no AVX-512"),
        ("Intel Xeon", "fma avx2 avx512f", None),
    ],
)
def test_machine_notes_what_torch_leaves_unused(model, flags, note, monkeypatch):
    about = f"model name\t: {model}\nflags\t\t: {flags}\n\nmodel name\t: another\n"
    monkeypatch.setattr(cpu_flags.Path, "read_text", lambda path, **named: about)
    monkeypatch.setattr(timing, "cpuinfo", cpu_flags.cpuinfo.__wrapped__)
    monkeypatch.setattr(timing, "version", lambda name: "1.0")
    found = timing.machine()
    assert (found["processor"], found["avx512"]) == (model, "avx512f" in flags)
    assert found.get("note", "").endswith(note) if note else "note" not in found


def test_copy_bandwidth_counts_reads_and_writes(monkeypatch):
    """By a clock that says that each copy takes two seconds."""
    monkeypatch.setattr(gpumlp_peer.time, "perf_counter", itertools.count(0, 2).__next__)
    assert copy_bandwidth(get_backend("numpy"), 1 << 20) == 2 * (1 << 20) / 2
