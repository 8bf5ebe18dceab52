"""The choice of algorithms, measured with a fake clock, and its records in the tuning cache."""

import json

import numpy as np
import pytest

import gpumlp
from gpumlp.backends.cuda.cache import TuningCache
from gpumlp.backends.cuda.cublaslt import Blas
from gpumlp.backends.cuda.plans import EPILOGUE, Algorithm, Gemm
from gpumlp.backends.cuda.protocol import Epilogue
from gpumlp.backends.cuda.tuning import Choice, Tuner, asked, fuses
from gpumlp.functions.activations import gelu
from tests.support.fake_cublaslt import FakeCublasLt
from tests.support.harness.memory import aligned
from tests.support.products import Product

DEVICE = {"device": "Test GPU", "capability": "9.0", "cublasLt": 130100, "driver": 13000}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("GPUMLP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class FakeProcess:
    """The products of one process, with a fake cublasLt and its clock."""

    def __init__(self, times=(9, 3, 5), measuring=True, fuse=True, comparing=False):
        self.lt = FakeCublasLt(states=(0,) * len(times))
        self.lt.microseconds = {70 + i: float(t) for i, t in enumerate(times)}
        self.tuner = Tuner(self.time, TuningCache(DEVICE), self.lt.cuBLASLtError, lambda gemm: fuse)
        self.tuner.measuring, self.tuner.comparing = measuring, comparing
        self.blas = Blas(self.lt, 0, 0, self.tuner)
        self.timed = 0

    def time(self, work, quick):
        assert quick == (not self.tuner.measuring)
        work()
        start = self.lt.clock
        work()
        self.timed += 1
        return self.lt.clock - start

    def multiply(self, epilogue=False, unfused=None, n=8, keep=False):
        """The algorithm that computed the product, or "fallback", which takes `unfused` µs.

        keep: the epilogue keeps what a backward pass needs.
        """
        product = Product(3, n, 4)
        if epilogue:
            bias = aligned(np.zeros(n), "float32")
            aux = aligned(np.zeros((3, n)), "float32") if keep else None
            product.epilogue = Epilogue("gelu_aux_bias" if keep else "bias", bias, aux)

        def fallback():
            self.lt.clock += unfused

        before = len(self.lt.calls)
        enqueued = product.on(self.blas, fallback if epilogue else None)
        if enqueued:
            assert len(self.lt.calls) > before
            product.check(gelu.f(product.exact) if keep else product.exact)
        return self.lt.calls[-1]["algo"] if enqueued else "fallback"

    @property
    def choice(self):
        [choice] = self.tuner.choices.values()
        return choice


# ---- selection -----------------------------------------------------------------------------------


def test_fastest_algorithm_is_used():
    process = FakeProcess((9, 3, 5))
    assert process.multiply() == 71
    choice = process.choice
    assert (choice.candidates, choice.microseconds, choice.first) == (3, 3, 9)
    assert (choice.unfused, choice.algorithm.workspace) == (None, 2)
    assert process.timed == 3
    assert process.multiply() == 71
    assert process.timed == 3


@pytest.mark.parametrize(("times", "expected"), [((4, 4, 4), 70), ((5, 4, 4), 71)])
def test_tie_goes_to_first_candidate(times, expected):
    assert FakeProcess(times).multiply() == expected
    assert FakeProcess(times).multiply(epilogue=True, unfused=4) == expected


def test_failing_algorithm_warns_once():
    process = FakeProcess((9, 3, 5))
    process.lt.broken = {71}
    with pytest.warns(
        UserWarning, match="1 of 3 algorithms failed for NN 3 8 4.*INTERNAL"
    ) as warned:
        assert process.multiply() == 72
    assert len(warned) == 1
    assert (process.choice.microseconds, process.choice.first) == (5, 9)


def test_failing_first_algorithm_has_no_time():
    process = FakeProcess((9, 3, 5))
    process.lt.broken = {70}
    with pytest.warns(UserWarning, match="1 of 3"):
        assert process.multiply() == 71
    assert process.choice.first is None


def test_all_algorithms_failing_raises():
    process = FakeProcess()
    process.lt.broken = {70, 71, 72}
    before = dict(process.lt.objects)
    with pytest.raises(process.lt.cuBLASLtError, match="INTERNAL_ERROR"):
        process.multiply()
    assert process.lt.objects == before


@pytest.mark.parametrize(("unfused", "expected"), [(2, "fallback"), (3, 71), (4, 71)])
def test_fallback_is_used_if_faster(unfused, expected):
    process = FakeProcess((9, 3, 5))
    assert process.multiply(epilogue=True, unfused=unfused) == expected
    choice = process.choice
    assert (choice.microseconds, choice.unfused) == (min(3, unfused), unfused)
    assert (choice.algorithm is None) == (expected == "fallback")


def test_failing_epilogue_warns_once_and_uses_fallback():
    process = FakeProcess()
    process.lt.broken = {70, 71, 72}
    with pytest.warns(UserWarning, match="every algorithm failed .*without the epilogue") as warned:
        done = [process.multiply(epilogue=True, unfused=50, n=n) for n in (8, 16)]
    assert (done, len(warned)) == (["fallback", "fallback"], 1)


def test_missing_epilogue_warns_once_and_uses_fallback():
    process = FakeProcess(measuring=False)
    process.lt.lacks = {4}
    with pytest.warns(
        UserWarning, match="no algorithm for .* bias: gpumlp's own kernels"
    ) as warned:
        done = [process.multiply(epilogue=True, unfused=50, n=n) for n in (8, 16)]
    assert (done, len(warned)) == (["fallback", "fallback"], 1)


def test_unmeasured_epilogue_that_fails_later_uses_fallback():
    process = FakeProcess(measuring=False)
    process.multiply(epilogue=True, unfused=50)
    process.lt.broken = {70}
    with pytest.warns(UserWarning, match="algorithm failed .INTERNAL|INTERNAL_ERROR") as warned:
        done = [process.multiply(epilogue=True, unfused=50) for _ in range(2)]
    assert (done, len(warned)) == (["fallback", "fallback"], 1)
    assert len(process.lt.calls) == 2  # the successful call and the failed one
    with pytest.raises(process.lt.cuBLASLtError, match="INTERNAL_ERROR"):
        process.multiply()  # a product without an epilogue has no fallback


@pytest.mark.parametrize(("fuse", "expected"), [(True, 70), (False, "fallback")])
def test_nothing_is_measured_if_not_asked(fuse, expected):
    process = FakeProcess(measuring=False, fuse=fuse)
    assert process.multiply() == 70
    assert process.multiply(epilogue=True, unfused=1) == expected
    assert process.timed == 0
    assert {choice.microseconds for choice in process.tuner.choices.values()} == {None}


def test_environment_variable_gpumlp_tune(monkeypatch):
    assert asked() == (False, True)
    for value, expected in (("0", (False, False)), ("1", (True, True)), ("", (False, True))):
        monkeypatch.setenv("GPUMLP_TUNE", value)
        assert asked() == expected
    monkeypatch.setenv("GPUMLP_TUNE", "yes")
    with pytest.raises(ValueError, match="GPUMLP_TUNE must be 0 or 1, got 'yes'"):
        asked()


def test_derivative_of_relu_in_bfloat16_is_not_fused_unmeasured():
    """For sm_90, cuBLAS has it only as a kernel for sm_80, or as a second pass."""
    kinds = [(name, dtype) for name in EPILOGUE if name for dtype in ("bfloat16", "float16")]
    assert [
        kind
        for kind in kinds
        if not fuses(Gemm(8, 8, 8, False, False, kind[1], *kind[::-1], kind[0]))
    ] == [("drelu_bgrad", "bfloat16")]


# ---- the first training of a shape ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("unfused", "expected"), [(8.7, "fallback"), (8.8, 70), (50, 70)]
)  # fmt: skip
def test_epilogue_of_a_training_is_compared_once(unfused, expected):
    """With the heuristic's first algorithm, and not again in later processes."""
    process = FakeProcess((9, 3, 5), measuring=False, fuse=False, comparing=True)
    assert process.multiply(epilogue=True, unfused=unfused, keep=True) == expected
    assert process.timed == 2
    choice = process.choice
    assert (choice.quick, choice.first, choice.unfused) == (True, 9, pytest.approx(unfused))
    for comparing in (True, False):
        later = FakeProcess((9, 3, 5), measuring=False, comparing=comparing)
        assert later.multiply(epilogue=True, unfused=1, keep=True) == expected
        assert (later.timed, later.choice) == (0, choice)
    tuned = FakeProcess((9, 3, 5))  # gpumlp tune measures all of them
    assert tuned.multiply(epilogue=True, unfused=50, keep=True) == 71
    assert (tuned.timed, tuned.choice.quick, tuned.tuner.found) == (4, False, set())
    later = FakeProcess((9, 3, 5), measuring=False, comparing=True)
    assert later.multiply(epilogue=True, unfused=1, keep=True) == 71


def test_predictions_and_plain_products_are_not_compared(folder):
    """Predictions may have any number of rows."""
    process = FakeProcess(measuring=False, comparing=True)
    process.multiply()
    process.multiply(epilogue=True, unfused=1)
    assert process.timed == 0
    assert not folder.exists()
    process.tuner.training = True
    process.multiply(n=16)
    process.multiply(epilogue=True, unfused=1, n=16)  # the layer of the outputs keeps no z
    assert process.timed == 2


def test_epilogue_that_fails_at_first_use_is_not_used():
    process = FakeProcess(measuring=False, comparing=True)
    process.lt.broken = {70}
    with pytest.warns(UserWarning, match="every algorithm failed .*without the epilogue"):
        assert process.multiply(epilogue=True, unfused=50, keep=True) == "fallback"


# ---- the tuning cache ----------------------------------------------------------------------------


def test_cached_choice_is_used():
    first = FakeProcess((9, 3, 5))
    first.multiply()
    first.multiply(epilogue=True, unfused=2)
    for measuring in (False, True):
        later = FakeProcess((1, 3, 5), measuring)
        assert later.multiply() == 71
        assert later.multiply(epilogue=True, unfused=2) == "fallback"
        assert later.timed == 0
        assert later.tuner.choices == first.tuner.choices


def test_again_measures_cached_products():
    FakeProcess((9, 3, 5)).multiply()
    again = FakeProcess((1, 3, 5))
    again.tuner.again = True
    assert again.multiply() == 70
    assert FakeProcess((1, 3, 5), measuring=False).multiply() == 70


def test_unmeasured_choice_is_not_cached(folder):
    FakeProcess(measuring=False).multiply()
    assert not folder.exists()


def test_refused_cached_algorithm_is_ignored():
    FakeProcess((9, 3, 5)).multiply()
    later = FakeProcess((9, 3, 5), measuring=False)
    later.lt.refused = {71}
    with pytest.warns(UserWarning, match="NN 3 8 4 .* cannot be used here and is ignored"):
        assert later.multiply() == 70


@pytest.mark.parametrize(
    "change",
    [
        {"algorithm": "00"}, {"algorithm": "no hex"}, {"algorithm": 7}, {"algorithm": None},
        {"workspace": "x"}, {"candidates": None}, {"microseconds": "fast"},
    ],
)  # fmt: skip
def test_invalid_record_is_ignored(folder, change):
    FakeProcess((9, 3, 5)).multiply()
    [path] = folder.glob("*.json")
    content = json.loads(path.read_text())
    for record in content["plans"].values():
        record.update(change)
    path.write_text(json.dumps(content))
    later = FakeProcess((9, 3, 5), measuring=False)
    with pytest.warns(UserWarning, match="is ignored"):
        assert later.multiply() == 70


def test_choice_round_trips_through_json():
    for choice in (
        Choice(Algorithm(bytes(range(64)), 7), 3, 1.5, 2.5, None), Choice(None, 0, 1.0, None, 1.0),
    ):  # fmt: skip
        assert Choice.from_json(json.loads(json.dumps(choice.to_json()))) == choice


# ---- steps ---------------------------------------------------------------------------------------


def tuner_of(folder, times):
    """A tuner for which the variants take these times, and the list of variants it made."""
    made = []

    def variants():
        return {name: lambda name=name: made.append(name) or name for name in times}

    def time(work, quick):
        return times[work]

    tuner = Tuner(time, TuningCache(DEVICE, folder), RuntimeError, fuses)
    return tuner, variants, made


def test_variant_that_fails_is_left_out(folder):
    tuner, variants = tuner_of(folder, {"sequential": 2.0, "broken": 1.0, "branched": 1.5})[:2]
    tuner.steps = True

    def fail():
        raise gpumlp.DeviceError("launching adamw: invalid argument")

    with pytest.warns(UserWarning, match="a step: 'broken' is left out: launching adamw"):
        assert tuner.fastest("a step", variants() | {"broken": fail}) == "branched"
    assert set(tuner.measured["a step"]) == {"sequential", "branched"}
    with pytest.raises(gpumlp.DeviceError):
        tuner.fastest("another step", variants() | {"sequential": fail})


def test_fastest_variant_of_step_is_cached(folder):
    tuner, variants, made = tuner_of(folder, {"sequential": 5.0, "branched": 3.0})
    assert tuner.fastest("a step", variants()) == "sequential"  # not measured: the first one
    tuner.steps = True
    assert tuner.fastest("a step", variants()) == "branched"
    assert tuner.measured == {"a step": {"sequential": 5.0, "branched": 3.0}}
    made.clear()
    later, variants, made = tuner_of(folder, {"sequential": 1.0, "branched": 3.0})
    assert later.fastest("a step", variants()) == "branched"
    assert later.fastest("another step", variants()) == "sequential"
    assert made == ["branched", "sequential"]
    later.steps = later.again = True
    assert later.fastest("a step", variants()) == "sequential"


@pytest.mark.parametrize(
    "record", [{"way": "sideways"}, {}, {"way": None}, {"way": ["sequential"]}]
)
def test_unknown_variant_is_ignored(folder, record):
    tuner, variants, _ = tuner_of(folder, {"sequential": 5.0, "branched": 3.0})
    tuner.cache.put("a step", record)
    assert tuner.fastest("a step", variants()) == "sequential"


@pytest.mark.parametrize(
    ("old", "variant"),
    [("in turn", "sequential"), ("branched, updated at once", "branched, early update")],
)
def test_variants_in_older_cache_files_are_known(folder, old, variant):
    times = {"branched": 1.0, "sequential": 5.0, "branched, early update": 3.0}
    tuner, variants, made = tuner_of(folder, times)
    tuner.cache.put("a step", {"way": old, "microseconds": {old: 3.0}})
    assert tuner.fastest("a step", variants()) == variant
    tuner.steps = True
    assert tuner.fastest("a step", variants()) == variant
    assert made == [variant, variant]
