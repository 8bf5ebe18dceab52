"""`gpumlp bench` on the CPU, end to end: results, resuming, and competitors that go wrong."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from gpumlp.bench import case_runner
from gpumlp.bench import run as bench_run
from gpumlp.bench.cases import Case
from gpumlp.bench.results import Result
from tests.support.cli_cases import run

HERE = "tests.support.bench_peers"
TINY = ["--backend", "numpy", "--rounds", "2"]


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    for seconds in (case_runner.WARM_SECONDS, case_runner.BURST_SECONDS, case_runner.REST_SECONDS):
        monkeypatch.setitem(seconds, "numpy", 0.01)


def bench(folder, *more, peers="", code=0, cold="--no-cold"):
    return run(
        "bench", *TINY, cold, "--out", folder, "--peers", peers or f"{HERE}:twin", *more, code=code
    )


def parts(folder):
    """competitor → its file's contents."""
    found = [json.loads(path.read_text()) for path in folder.glob("*.result.json")]
    return {part["competitor"]: part for part in found}


def test_one_table_and_one_file_of_everything(tmp_path):
    pytest.importorskip("sklearn")
    out = tmp_path / "parts"
    json_file = out / "all.json"  # which is no part, and in no one's way
    out.mkdir()
    told = bench(
        out, "--case", "small", "--save", json_file, peers="floor, scikit-learn", cold="--cold"
    ).stdout
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
        assert result["peak_bytes"] > 10e6  # an interpreter's, at the least
        assert result["machine"]["versions"]["numpy"]
        assert result["machine"]["processor"] is not None
        (line,) = [line for line in told.splitlines() if line.startswith(f"  {name} ")]
        assert f" {median_ms:.3f} " in line
    for name in ("gpumlp", "scikit-learn"):
        assert set(results[name]["first_step"]) == {"cold", "warm"}
        assert 0 < results[name]["error"] < 2e-3
    assert results["floor"]["notes"]["copy_bytes_per_second"] > 1e8
    share = results["scikit-learn"]["summary"]["gpumlp_over_this"]
    share /= results["floor"]["summary"]["gpumlp_over_this"]
    (line,) = [line for line in told.splitlines() if line.startswith("  scikit-learn ")]
    assert f" {share:.0%} " in line
    assert "small, minibatch 64, relu, sgd, float32, on the CPU" in told


def test_what_goes_wrong_is_told_by_name_and_the_others_go_on(tmp_path, monkeypatch):
    timed = tmp_path / "timed"
    monkeypatch.setenv("BENCH_TIMED", str(timed))
    wrong = ["wrong_rate", "wrong_activation", "wrong_seed"]
    names = ["missing", "unsupported", "failing", "dying", *wrong, "noisy"]
    told = bench(tmp_path / "parts", peers=",".join(f"{HERE}:{n}" for n in names)).stdout
    for line in (
        "missing: missing: no_such_library is not installed",
        "unsupported: left out: it is Tuesday",
        "failing: failed: RuntimeError: out of everything",
        "dying: failed: its process ended with status 7: the last words",
    ):
        assert f"  {HERE}:{line}\n" in told
    found = parts(tmp_path / "parts")
    for name in wrong:
        result = found[f"{HERE}:{name}"]
        assert (result["status"], result["seconds"]) == ("refused", [])
        assert "its change" in result["reason"]
    assert not timed.exists()
    assert len(found[f"{HERE}:noisy"]["seconds"]) == 2


def test_the_planted_peers_would_be_timed_but_for_their_numbers(tmp_path, monkeypatch):
    """So that the test above shows what it says."""
    monkeypatch.setenv("BENCH_TIMED", str(tmp_path / "timed"))
    monkeypatch.setattr(case_runner, "check", lambda got, want, case: 0.0)
    bench(tmp_path / "parts", peers=f"{HERE}:wrong_rate")
    assert (tmp_path / "timed").exists()


def test_resuming_keeps_what_is_there(tmp_path):
    first = f"{HERE}:twin"
    bench(tmp_path, peers=f"{first},{HERE}:missing,{HERE}:failing")
    before = {name: part["seconds"] for name, part in parts(tmp_path).items()}
    told = bench(tmp_path, "--resume", peers=f"{first},{HERE}:missing,{HERE}:failing,floor")
    assert told.stderr.splitlines() == [  # what is missing may have been installed
        f"small, minibatch 64, relu, sgd, float32: {HERE}:missing …",
        "  missing: no_such_library is not installed",
        "small, minibatch 64, relu, sgd, float32: floor …",
    ]
    after = {name: part["seconds"] for name, part in parts(tmp_path).items()}
    assert len(after.pop("floor")) == 2
    assert after == before
    bench(tmp_path, peers=first)
    assert parts(tmp_path)["gpumlp"]["seconds"] != before["gpumlp"]


def test_results_of_another_machine_or_of_something_else(tmp_path):
    bench(tmp_path)
    path = next(p for p in tmp_path.glob("*gpumlp.result.json"))
    part = json.loads(path.read_text())
    part["machine"]["processor"] = "another"
    path.write_text(json.dumps(part))
    assert "another machine (processor another" in bench(tmp_path, "--resume", code=2).stderr
    path.write_text("{}")
    assert "is no result of gpumlp bench" in bench(tmp_path, "--resume", code=2).stderr


def test_a_case_that_the_backend_refuses_is_left_out(tmp_path):
    told = bench(tmp_path, "--precision", "tf32,float32")
    assert 'gpumlp: left out: backend "numpy" has precision' in told.stdout
    assert "no other is timed" in told.stderr
    assert sorted(parts(tmp_path)) == [f"{HERE}:twin", "gpumlp"]


def test_no_part_is_started_that_may_not_end(tmp_path):
    told = bench(tmp_path, "--minutes", "0")
    assert "stopped before gpumlp" in told.stderr
    assert "0 of 2 parts" in told.stderr
    clock = bench_run.Clock(1.0, None)
    clock.took("slow", 100.0)
    clock.took("fast", 10.0)
    assert [clock.allows(name) for name in ("slow", "fast", "unknown")] == [False, True, False]


def test_a_part_that_takes_too_long_is_ended_and_not_written(tmp_path, monkeypatch):
    seconds = property(lambda clock: time.monotonic() + 8)  # for each worker, here
    monkeypatch.setattr(bench_run.Clock, "end", seconds)
    told = bench(tmp_path, peers=f"{HERE}:twin,{HERE}:sleeping,{HERE}:noisy")
    assert "the time was over before it was done" in told.stderr
    assert sorted(parts(tmp_path)) == [f"{HERE}:twin", "gpumlp"]


def test_a_failure_of_our_own_is_an_error(tmp_path, monkeypatch):
    def measure(self, competitor):
        return Result(self.case, "numpy", competitor, "failed", "alas")

    monkeypatch.setattr(case_runner.CaseRunner, "measure", measure)
    told = bench(tmp_path, code=1)
    assert "  gpumlp: failed: alas" in told.stdout
    assert list(parts(tmp_path)) == ["gpumlp"]


def test_ctrl_c_leaves_what_is_done(tmp_path):
    command = [
        sys.executable, "-m", "gpumlp", "bench", *TINY, "--no-cold", "--out", tmp_path,
        "--peers", f"{HERE}:sleeping",
    ]  # fmt: skip
    path = os.pathsep.join(sys.path)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": path},
    ) as process:  # fmt: skip
        until = time.monotonic() + 60
        while not list(tmp_path.glob("*gpumlp.result.json")):
            assert time.monotonic() < until
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        told, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "1 of 2 parts" in error
    assert "Traceback" not in error
    assert "  gpumlp " in told


def test_torch_moves_the_parameters_alike(tmp_path):
    pytest.importorskip("torch")
    more = ("--case", "small,tabular", "--optimizer", "adamw", "--batch-size", "16")
    told = bench(tmp_path, *more, peers="torch eager,products by torch").stdout
    assert not [line for line in told.splitlines() if "torch" in line and ": " in line], told
    timed = [json.loads(p.read_text()) for p in tmp_path.glob("*torch_eager.result.json")]
    assert [len(part["seconds"]) for part in timed] == [2] * 2


def test_jax_moves_the_parameters_alike(tmp_path):
    pytest.importorskip("jax")
    pytest.importorskip("optax")
    bench(tmp_path, "--optimizer", "sgd,adamw", "--activation", "relu,gelu", peers="jax")
    found = [json.loads(p.read_text()) for p in tmp_path.glob("*jax.result.json")]
    assert [part["status"] for part in found] == ["timed"] * 4


def test_files_that_cannot_be_written_are_told_at_once(tmp_path):
    for option in ("--save", "--plot"):
        told = bench(tmp_path / "parts", option, tmp_path / "no" / "file", code=2)
        assert "no" in told.stderr
    assert not (tmp_path / "parts").exists()


def test_the_command_line_brings_in_no_peer_until_it_is_asked_to():
    code = (
        "import sys; from gpumlp.cli.app import app; import gpumlp.bench.run; "
        "print({'torch', 'jax', 'sklearn', 'cupy', 'matplotlib'} & set(sys.modules))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "set()\n"
