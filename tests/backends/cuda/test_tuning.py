"""Which algorithm a product gets, by a clock of the test's, and what is kept on disk."""

import json

import numpy as np
import pytest

from gpumlp.backends.cuda.cache import TuningCache
from gpumlp.backends.cuda.cublaslt import Blas
from gpumlp.backends.cuda.plans import Algorithm
from gpumlp.backends.cuda.protocol import Epilogue
from gpumlp.backends.cuda.tuning import Choice, Tuner, measuring_asked
from tests.support.fake_cublaslt import FakeCublasLt
from tests.support.harness.memory import aligned
from tests.support.products import Product

DEVICE = {"device": "Test GPU", "capability": "9.0", "cublasLt": 130100, "driver": 13000}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("GPUMLP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Bench:
    """A blas with cublasLt's stand-in and its clock, as one process would have it."""

    def __init__(self, times=(9, 3, 5), measuring=True, fuse=True):
        self.lt = FakeCublasLt(states=(0,) * len(times))
        self.lt.microseconds = {70 + i: float(t) for i, t in enumerate(times)}
        self.tuner = Tuner(self.time, TuningCache(DEVICE), self.lt.cuBLASLtError, fuse)
        self.tuner.measuring = measuring
        self.blas = Blas(self.lt, 0, 0, self.tuner)
        self.timed = 0

    def time(self, work):
        work()
        start = self.lt.clock
        work()
        self.timed += 1
        return self.lt.clock - start

    def multiply(self, epilogue=False, otherwise=None, n=8):
        """The algorithm that does it, or what `otherwise` cost."""
        product = Product(3, n, 4)
        if epilogue:
            product.epilogue = Epilogue("bias", aligned(np.zeros(n), "float32"))

        def unfused():
            self.lt.clock += otherwise

        before = len(self.lt.calls)
        made = product.on(self.blas, unfused if epilogue else None)
        if made:
            assert len(self.lt.calls) > before
            product.check(product.exact)
        return self.lt.calls[-1]["algo"] if made else "otherwise"

    @property
    def choice(self):
        [choice] = self.tuner.choices.values()
        return choice


# ---- selection -----------------------------------------------------------------------------------


def test_the_fastest_is_taken():
    bench = Bench((9, 3, 5))
    assert bench.multiply() == 71
    choice = bench.choice
    assert (choice.candidates, choice.microseconds, choice.first) == (3, 3, 9)
    assert (choice.otherwise, choice.algorithm.workspace) == (None, 2)
    assert bench.timed == 3
    assert bench.multiply() == 71
    assert bench.timed == 3


@pytest.mark.parametrize(("times", "expected"), [((4, 4, 4), 70), ((5, 4, 4), 71)])
def test_a_tie_goes_to_the_heuristics_first(times, expected):
    assert Bench(times).multiply() == expected
    assert Bench(times).multiply(epilogue=True, otherwise=4) == expected


def test_an_algorithm_that_fails_is_left_out_and_named_once():
    bench = Bench((9, 3, 5))
    bench.lt.broken = {71}
    with pytest.warns(UserWarning, match="1 of 3 algorithms failed for NN 3 8 4.*INTERNAL") as told:
        assert bench.multiply() == 72
    assert len(told) == 1
    assert (bench.choice.microseconds, bench.choice.first) == (5, 9)


def test_where_the_first_fails_there_is_no_time_of_it():
    bench = Bench((9, 3, 5))
    bench.lt.broken = {70}
    with pytest.warns(UserWarning, match="1 of 3"):
        assert bench.multiply() == 71
    assert bench.choice.first is None


def test_where_all_fail_the_error_is_cublaslts():
    bench = Bench()
    bench.lt.broken = {70, 71, 72}
    before = dict(bench.lt.objects)
    with pytest.raises(bench.lt.cuBLASLtError, match="INTERNAL_ERROR"):
        bench.multiply()
    assert bench.lt.objects == before


@pytest.mark.parametrize(("otherwise", "expected"), [(2, "otherwise"), (3, 71), (4, 71)])
def test_the_way_without_the_epilogue_competes(otherwise, expected):
    bench = Bench((9, 3, 5))
    assert bench.multiply(epilogue=True, otherwise=otherwise) == expected
    choice = bench.choice
    assert (choice.microseconds, choice.otherwise) == (min(3, otherwise), otherwise)
    assert (choice.algorithm is None) == (expected == "otherwise")


def test_an_epilogue_whose_algorithms_all_fail_is_done_without_and_told_once():
    bench = Bench()
    bench.lt.broken = {70, 71, 72}
    with pytest.warns(UserWarning, match="every algorithm failed .*without the epilogue") as told:
        done = [bench.multiply(epilogue=True, otherwise=50, n=n) for n in (8, 16)]
    assert (done, len(told)) == (["otherwise", "otherwise"], 1)


def test_an_epilogue_that_cublaslt_lacks_is_done_without_and_told_once():
    bench = Bench(measuring=False)
    bench.lt.lacks = {4}
    with pytest.warns(UserWarning, match="no algorithm for .* bias: kernels of gpumlp's") as told:
        done = [bench.multiply(epilogue=True, otherwise=50, n=n) for n in (8, 16)]
    assert (done, len(told)) == (["otherwise", "otherwise"], 1)


def test_an_unmeasured_epilogue_that_fails_at_work_is_done_without_from_then_on():
    bench = Bench(measuring=False)
    bench.multiply(epilogue=True, otherwise=50)
    bench.lt.broken = {70}
    with pytest.warns(UserWarning, match="algorithm failed .INTERNAL|INTERNAL_ERROR") as told:
        done = [bench.multiply(epilogue=True, otherwise=50) for _ in range(2)]
    assert (done, len(told)) == (["otherwise", "otherwise"], 1)
    assert len(bench.lt.calls) == 2  # the one that worked, and the one that did not
    with pytest.raises(bench.lt.cuBLASLtError, match="INTERNAL_ERROR"):
        bench.multiply()  # a plain product has no other way


@pytest.mark.parametrize(("fuse", "expected"), [(True, 70), (False, "otherwise")])
def test_nothing_is_measured_unless_asked_for(fuse, expected):
    bench = Bench(measuring=False, fuse=fuse)
    assert bench.multiply() == 70
    assert bench.multiply(epilogue=True, otherwise=1) == expected
    assert bench.timed == 0
    assert {choice.microseconds for choice in bench.tuner.choices.values()} == {None}


def test_the_environment_asks(monkeypatch):
    assert not measuring_asked()
    for value, expected in (("0", False), ("1", True)):
        monkeypatch.setenv("GPUMLP_TUNE", value)
        assert measuring_asked() == expected
    monkeypatch.setenv("GPUMLP_TUNE", "yes")
    with pytest.raises(ValueError, match="GPUMLP_TUNE must be 0 or 1, got 'yes'"):
        measuring_asked()


# ---- kept on disk --------------------------------------------------------------------------------


def test_a_winner_is_found_again():
    first = Bench((9, 3, 5))
    first.multiply()
    first.multiply(epilogue=True, otherwise=2)
    for measuring in (False, True):
        later = Bench((1, 3, 5), measuring)
        assert later.multiply() == 71
        assert later.multiply(epilogue=True, otherwise=2) == "otherwise"
        assert later.timed == 0
        assert later.tuner.choices == first.tuner.choices


def test_and_measured_again_where_that_is_asked_for():
    Bench((9, 3, 5)).multiply()
    again = Bench((1, 3, 5))
    again.tuner.again = True
    assert again.multiply() == 70
    assert Bench((1, 3, 5), measuring=False).multiply() == 70


def test_nothing_unmeasured_is_kept(folder):
    Bench(measuring=False).multiply()
    assert not folder.exists()


def test_a_winner_that_cublaslt_no_longer_takes_is_ignored():
    Bench((9, 3, 5)).multiply()
    later = Bench((9, 3, 5), measuring=False)
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
def test_a_record_that_makes_no_sense_is_ignored(folder, change):
    Bench((9, 3, 5)).multiply()
    [path] = folder.glob("*.json")
    content = json.loads(path.read_text())
    for record in content["plans"].values():
        record.update(change)
    path.write_text(json.dumps(content))
    later = Bench((9, 3, 5), measuring=False)
    with pytest.warns(UserWarning, match="is ignored"):
        assert later.multiply() == 70


def test_a_choice_as_json():
    for choice in (
        Choice(Algorithm(bytes(range(64)), 7), 3, 1.5, 2.5, None), Choice(None, 0, 1.0, None, 1.0),
    ):  # fmt: skip
        assert Choice.from_json(json.loads(json.dumps(choice.to_json()))) == choice


# ---- steps ---------------------------------------------------------------------------------------


def a_tuner(folder, times):
    """A tuner by whose clock the ways take these times, and what was made."""
    made = []

    def ways():
        return {way: lambda way=way: made.append(way) or way for way in times}

    tuner = Tuner(times.__getitem__, TuningCache(DEVICE, folder), RuntimeError, fuse=True)
    return tuner, ways, made


def test_the_fastest_way_of_a_step_is_kept(folder):
    tuner, ways, made = a_tuner(folder, {"in turn": 5.0, "branched": 3.0})
    assert tuner.fastest("a step", ways()) == "in turn"  # unmeasured, the first
    tuner.steps = True
    assert tuner.fastest("a step", ways()) == "branched"
    assert tuner.measured == {"a step": {"in turn": 5.0, "branched": 3.0}}
    made.clear()
    later, ways, made = a_tuner(folder, {"in turn": 1.0, "branched": 3.0})
    assert later.fastest("a step", ways()) == "branched"
    assert later.fastest("another step", ways()) == "in turn"
    assert made == ["branched", "in turn"]
    later.steps = later.again = True
    assert later.fastest("a step", ways()) == "in turn"


@pytest.mark.parametrize("record", [{"way": "sideways"}, {}, {"way": None}, {"way": ["in turn"]}])
def test_a_way_that_is_none_is_ignored(folder, record):
    tuner, ways, _ = a_tuner(folder, {"in turn": 5.0, "branched": 3.0})
    tuner.cache.put("a step", record)
    assert tuner.fastest("a step", ways()) == "in turn"
