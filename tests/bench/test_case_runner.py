"""`gpumlp bench` on the CPU, end to end: results, resuming, and competitors that fail."""

import json
import math
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, replace

import pytest

from gpumlp.bench import case_runner
from gpumlp.bench.case_runner import CaseRunner, Clock, Settings
from gpumlp.bench.cases import PRESETS, Case
from gpumlp.bench.results import Result
from gpumlp.bench.timing import machine
from tests.support.cli_cases import run

pytestmark = pytest.mark.slow

PEERS = "tests.support.bench_peers"
TINY = ["--backend", "numpy", "--rounds", "2", "--no-profile"]


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    for seconds in (case_runner.WARM_SECONDS, case_runner.BURST_SECONDS, case_runner.REST_SECONDS):
        monkeypatch.setitem(seconds, "host", 0.01)


def bench(folder, *more, peers="", code=0, cold="--no-cold"):
    peers = peers or f"{PEERS}:identical"
    return run("bench", *TINY, cold, "--out", folder, "--peers", peers, *more, code=code)


def parts(folder):
    """The contents of the result files, by competitor."""
    found = [json.loads(path.read_text()) for path in folder.glob("*.result.json")]
    return {part["competitor"]: part for part in found}


def test_table_and_json_hold_the_measured_numbers(tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    monkeypatch.setenv("COLUMNS", "40")  # the table is wider, and neither wrapped nor cut
    out = tmp_path / "parts"
    json_file = out / "all.json"  # not a result file, though it is in the same folder
    out.mkdir()
    printed = bench(
        out, "--case", "small", "--save", json_file, "--profile", peers="floor, scikit-learn",
        cold="--cold",
    ).stdout  # fmt: skip
    results = {r["competitor"]: r for r in json.loads(json_file.read_text())["results"]}
    assert list(results) == ["gpumlp", "floor", "scikit-learn"]
    assert results == parts(out)
    again = ["--case", "small", "--resume", "--json"]  # nothing is timed again
    shown = bench(out, *again, peers="floor, scikit-learn", cold="--cold").stdout
    assert json.loads(shown) == json.loads(json_file.read_text())
    case = Case.from_json(results["gpumlp"]["case"])
    for name, result in results.items():
        summary, seconds = result["summary"], result["seconds"]
        assert len(seconds) == 2
        median_ms = 1e3 * sum(seconds) / 2
        assert summary["median_ms"] == pytest.approx(median_ms)
        assert summary["tflops"] == pytest.approx(case.flops() / median_ms / 1e9)
        ratios = [a / b for a, b in zip(result["ours"], seconds, strict=False)] or [1.0]
        assert summary["gpumlp_over_this"] == pytest.approx(sum(ratios) / len(ratios))
        assert result["peak_bytes"] > 10e6  # a Python process has at least that
        assert result["machine"]["versions"]["numpy"]
        assert result["machine"]["processor"] is not None
        (line,) = [line for line in printed.splitlines() if line.startswith(f"  {name} ")]
        assert f" {median_ms:.3f} " in line
    for name in ("gpumlp", "scikit-learn"):
        assert set(results[name]["first_step"]) == {"cold", "warm"}
        assert 0 < results[name]["error"] < 2e-3
    assert results["floor"]["notes"]["copy_bytes_per_second"] > 1e8
    profiled = results["gpumlp"]["notes"]["profile"]
    assert [each["operation"] for each in profiled["operations"]][-1] == "end"
    for each in profiled["operations"]:
        assert re.search(
            rf"^  {each['operation']} .* {1e6 * each['alone']:,.1f}$", printed, re.MULTILINE
        )
    assert f"model of the step: {1e6 * profiled['model']:,.1f} µs" in printed
    share = results["scikit-learn"]["summary"]["gpumlp_over_this"]
    share /= results["floor"]["summary"]["gpumlp_over_this"]
    (line,) = [line for line in printed.splitlines() if line.startswith("  scikit-learn ")]
    assert f" {share:.0%} " in line
    assert "small, minibatch 64, relu, sgd, float32, on the CPU" in printed


def test_failing_competitors_are_reported_and_the_others_are_timed(tmp_path, monkeypatch):
    timed = tmp_path / "timed"  # the check alone prevents the timing of the wrong ones
    monkeypatch.setenv("BENCH_TIMED", str(timed))
    wrong = ["wrong_rate", "wrong_activation", "wrong_seed"]
    names = ["missing", "unsupported", "failing", "dying", *wrong, "noisy"]
    printed = bench(tmp_path / "parts", peers=",".join(f"{PEERS}:{n}" for n in names)).stdout
    for line in (
        "missing: missing: no_such_library is not installed",
        "unsupported: left out: it is Tuesday",
        "failing: failed: RuntimeError: out of everything",
        "dying: failed: its process ended with status 7: the last words",
    ):
        assert f"  {PEERS}:{line}\n" in printed
    found = parts(tmp_path / "parts")
    for name in wrong:
        result = found[f"{PEERS}:{name}"]
        assert (result["status"], result["seconds"]) == ("refused", [])
        assert "its change" in result["reason"]
    assert timed.read_text() == "noisy\n"
    assert len(found[f"{PEERS}:noisy"]["seconds"]) == 2


def test_resume_keeps_earlier_results_of_this_machine(tmp_path):
    first = f"{PEERS}:identical"
    bench(tmp_path, peers=f"{first},{PEERS}:missing,{PEERS}:failing")
    before = {name: part["seconds"] for name, part in parts(tmp_path).items()}
    done = bench(tmp_path, "--resume", peers=f"{first},{PEERS}:missing,{PEERS}:failing,floor")
    assert done.stderr.splitlines() == [  # a missing library may have been installed
        f"small, minibatch 64, relu, sgd, float32: {PEERS}:missing …",
        "  missing: no_such_library is not installed",
        "small, minibatch 64, relu, sgd, float32: floor …",
    ]
    after = {name: part["seconds"] for name, part in parts(tmp_path).items()}
    assert len(after.pop("floor")) == 2
    assert after == before
    bench(tmp_path, peers="gpumlp")
    assert parts(tmp_path)["gpumlp"]["seconds"] != before["gpumlp"]
    path = next(p for p in tmp_path.glob("*gpumlp.result.json"))
    part = json.loads(path.read_text())
    part["machine"]["processor"] = "another"
    path.write_text(json.dumps(part))
    assert "another machine (processor another" in bench(tmp_path, "--resume", code=2).stderr
    path.write_text("{}")
    assert "is not a result of gpumlp bench" in bench(tmp_path, "--resume", code=2).stderr


def test_case_that_the_backend_does_not_support_is_left_out(tmp_path):
    done = bench(tmp_path, "--precision", "tf32,float32")
    assert 'gpumlp: left out: backend "numpy" has precision' in done.stdout
    assert "the peers are not timed" in done.stderr
    assert sorted(parts(tmp_path)) == ["gpumlp", f"{PEERS}:identical"]


def test_part_that_may_exceed_the_minutes_is_not_started(tmp_path):
    done = bench(tmp_path, "--minutes", "0")
    assert "stopped before gpumlp" in done.stderr
    assert "0 of 2 parts" in done.stderr
    clock = Clock(1.0)
    clock.record("slow", 100.0)
    clock.record("fast", 10.0)
    assert [clock.allows(name) for name in ("slow", "fast", "unknown")] == [False, True, False]


def test_part_that_takes_too_long_is_stopped_and_not_written(tmp_path, monkeypatch):
    def end(clock):  # soon after the start of the competitor that sleeps
        return time.monotonic() + 0.2 if "gpumlp" in clock._longest else math.inf

    monkeypatch.setattr(Clock, "end", property(end, lambda clock, limit: None), raising=False)
    monkeypatch.setattr(Clock, "allows", lambda clock, name: True)  # a slow machine needs longer
    done = bench(tmp_path, peers=f"{PEERS}:sleeping,{PEERS}:noisy")
    assert "the time was over before it was done" in done.stderr
    assert [*parts(tmp_path)] == ["gpumlp"]


def test_busy_case_is_timed_while_other_processes_compute(monkeypatch):
    """As many as there are cores, and only during the rounds."""

    class Counting:
        def burst(self):
            return len(multiprocessing.active_children()) - before, None

    before = len(multiprocessing.active_children())
    monkeypatch.setattr(case_runner, "cores", lambda: 1)
    [busy] = PRESETS["busy"]
    for case, count in ((busy, 1), (replace(busy, busy=False), 0)):
        with ExitStack() as stack:
            runner = CaseRunner(case, Settings("numpy", [], rounds=2), Clock(None), stack)
            found = runner._rounds(Result(case, "numpy", "gpumlp", "timed"), [Counting()])
        assert found.seconds == [count] * 2
    assert len(multiprocessing.active_children()) == before
    assert busy.slug == f"{replace(busy, busy=False).slug}-busy"
    assert Case.from_json(asdict(busy)) == busy


def test_failure_of_gpumlp_itself_exits_with_1(tmp_path, monkeypatch):
    def measure(self, competitor):
        return Result(self.case, "numpy", competitor, "failed", "alas")

    monkeypatch.setattr(case_runner.CaseRunner, "measure", measure)
    done = bench(tmp_path, code=1)
    assert "  gpumlp: failed: alas" in done.stdout
    assert list(parts(tmp_path)) == ["gpumlp"]


@pytest.fixture
def _interruptible():
    """Tests that run under nohup ignore SIGINT, and a process that they start inherits that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
def test_ctrl_c_keeps_the_results_so_far(tmp_path):
    command = [
        sys.executable, "-m", "gpumlp", "bench", *TINY, "--no-cold", "--out", tmp_path,
        "--peers", f"{PEERS}:sleeping",
    ]  # fmt: skip
    path = os.pathsep.join(sys.path)
    # as at a terminal, the signal reaches all processes of the group
    with subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": path},
    ) as process:  # fmt: skip
        until = time.monotonic() + 60
        while not list(tmp_path.glob("*gpumlp.result.json")):
            assert time.monotonic() < until
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        time.sleep(0.3)
        os.killpg(process.pid, signal.SIGINT)
        done, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "1 of 2 parts" in error
    assert "Traceback" not in error
    assert "  gpumlp " in done


def test_torch_passes_the_check(tmp_path):
    pytest.importorskip("torch")
    cases = (("small", "torch eager medium,products by torch"), ("tabular", "torch eager"))
    for case, peers in cases:
        more = ("--case", case, "--optimizer", "adamw", "--batch-size", "16")
        done = bench(tmp_path, *more, peers=peers).stdout
        assert not [line for line in done.splitlines() if "  torch" in line and ": " in line], done
        assert done.count("note: torch's MKL") == ("AMD" in machine()["processor"])
    timed = [json.loads(p.read_text()) for p in tmp_path.glob("*torch_eager*.result.json")]
    assert [len(part["seconds"]) for part in timed] == [2] * 2
    assert {part["notes"].get("products") for part in timed} == {None, "bfloat16"}


def test_jax_passes_the_check(tmp_path):
    pytest.importorskip("jax")
    pytest.importorskip("optax")
    for optimizer, activation in (("sgd", "relu"), ("adamw", "gelu")):
        bench(tmp_path, "--optimizer", optimizer, "--activation", activation, peers="jax")
    found = [json.loads(p.read_text()) for p in tmp_path.glob("*jax.result.json")]
    assert [part["status"] for part in found] == ["timed"] * 2


def test_output_files_that_cannot_be_written_raise_before_the_run(tmp_path):
    for option in ("--save", "--plot"):
        done = bench(tmp_path / "parts", option, tmp_path / "no" / "file", code=2)
        assert "no" in done.stderr
    assert not (tmp_path / "parts").exists()


def test_command_line_imports_no_peer():
    code = (
        "import sys; from gpumlp.cli.app import app; import gpumlp.bench.case_runner; "
        "print({'torch', 'jax', 'sklearn', 'cupy', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
