"""`make gpu` runs all stages, also after a failure, and reports the outcome of each."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks import bars, gpu_report, output
from benchmarks.stages import Stage, kept, kernel_table, run_all, run_one, summary
from tests.support.cli_cases import run

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def python(code, name="stage", seconds=60.0, **environment):
    return Stage(name, [sys.executable, "-c", code], seconds, environment)


LIMIT = 2.0  # seconds


def over_when_printed(monkeypatch, log):
    """Let the time of a stage of `LIMIT` be over as soon as it has written into its log."""
    wait = subprocess.Popen.wait

    def waited(process, timeout=None):
        while timeout == LIMIT and not log.read_text():
            time.sleep(0.01)
        return wait(process, 0 if timeout == LIMIT else timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", waited)


def test_stages_run_after_failures(tmp_path, monkeypatch):
    out, lines = tmp_path / "report", []
    over_when_printed(monkeypatch, out / "fourth.log")
    chosen = [
        python("print('fine')", "first"),
        python("import sys; print('why'); sys.exit(3)", "second"),
        Stage("third", ["", "--tool", "memcheck"], 60, {}, "compute-sanitizer: not here"),
        python("import time; print('slow', flush=True); time.sleep(600)", "fourth", LIMIT),
        python("import os; print(os.environ['BACKEND'])", "fifth", BACKEND="cupy"),
    ]
    outcomes = run_all(chosen, out, lines.append)
    assert [(o.name, o.status, o.detail) for o in outcomes] == [
        ("first", "passed", ""),
        ("second", "FAILED", "exit status 3: why"),
        ("third", "missing", "compute-sanitizer: not here"),
        ("fourth", "FAILED", "ended after 2 s"),
        ("fifth", "passed", ""),
    ]
    logs = {path.stem: path.read_text() for path in out.glob("*.log")}
    assert logs == {
        "first": "fine\n", "second": "why\n", "fourth": "slow\n", "fifth": "cupy\n",
    }  # fmt: skip
    outcomes = [json.loads(path.read_text()) for path in sorted(out.glob("*.outcome.json"))]
    assert [o["status"] for o in outcomes] == ["passed", "passed", "FAILED", "FAILED", "missing"]
    page = (out / "summary.md").read_text()
    assert page.startswith("# The bars on a GPU\n\n| bar | must be | figure | |")
    assert "| second | FAILED | 0 | exit status 3: why |" in page
    assert "## fourth\n\n```\nslow\n```" in page
    assert "## first" not in page


def test_stages_that_ran_alone_are_on_the_page_too(tmp_path):
    for code, name in (("print('fine')", "one"), ("raise SystemExit(1)", "two"), ("", "two")):
        run_all([python(code, name)], tmp_path, lambda line: None)
    assert [(o.name, o.status) for o in kept(tmp_path)] == [("one", "passed"), ("two", "passed")]
    page = (tmp_path / "summary.md").read_text()
    assert "| one | passed |" in page
    assert "| two | passed |" in page
    assert "FAILED" not in page
    stages = json.loads((tmp_path / "gpu.json").read_text())["stages"]
    assert [each["name"] for each in stages] == ["one", "two"]


def test_printed_json_is_apart_from_the_log(tmp_path):
    code = "import sys; print('{\"a\": 1}'); print('a warning', file=sys.stderr)"
    stage = replace(python(code, "json"), prints_json=True)
    assert run_one(stage, tmp_path).status == "passed"
    assert json.loads((tmp_path / "json.json").read_text()) == {"a": 1}
    assert (tmp_path / "json.log").read_text() == "a warning\n"


def test_stopped_stage_stops_its_children(tmp_path, monkeypatch):
    over_when_printed(monkeypatch, tmp_path / "parent.log")
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(child.pid, flush=True); time.sleep(600)"
    )
    run_all([python(code, "parent", LIMIT)], tmp_path, lambda line: None)
    child = int((tmp_path / "parent.log").read_text())
    while _alive(child):
        time.sleep(0.05)


def _alive(pid):
    """Whether the process runs. A zombie, which no parent waits for, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_ctrl_c_reports_the_remaining_stages_as_interrupted(tmp_path, monkeypatch):
    def interrupted(stage, out):
        raise KeyboardInterrupt

    monkeypatch.setattr("benchmarks.stages.run_one", interrupted)
    outcomes = run_all([python("", "a"), python("", "b")], tmp_path, lambda line: None)
    assert [(o.name, o.status, o.detail) for o in outcomes] == [
        ("a", "FAILED", "interrupted"), ("b", "FAILED", "interrupted"),
    ]  # fmt: skip
    assert len(kept(tmp_path)) == 2


def test_summary_has_the_table_of_kernels(tmp_path):
    path = tmp_path / "kernels.json"
    path.write_text(
        json.dumps(
            {
                "benchmarks": [
                    {"name": "k", "extra_info": {"share_of_copy": 0.934}, "stats": {"median": 0.2}},
                    {"name": "p", "extra_info": {"tflops": 1.25}, "stats": {"median": 0.001}},
                ]
            }
        )
    )
    assert kernel_table(path)[-2:] == ["| k | 200.000 | 0.93 |  |", "| p | 1.000 |  | 1.2 |"]
    assert kernel_table(tmp_path / "none.json") == []
    assert "| k | 200.000 | 0.93 |" in summary([], tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script replaces the program")
def test_sanitizer_is_found_in_the_folder_of_cuda(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_PATH", str(tmp_path / "cuda"))
    monkeypatch.delenv("CUDA_HOME", raising=False)
    if not Path("/usr/local/cuda").exists():
        assert gpu_report.find_sanitizer() == ""
        assert gpu_report.sanitizer("racecheck", "loss", ["loss"], "float32").command[0] == ""
    program = tmp_path / "cuda" / "bin" / "compute-sanitizer"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert gpu_report.find_sanitizer() == str(program)
    command = gpu_report.sanitizer("racecheck", "loss", ["loss"], "float32").command
    assert list(command[:3]) == [str(program), "--tool", "racecheck"]


def test_stages_are_short_and_the_decisive_ones_come_first(tmp_path):
    stages = gpu_report.stages(tmp_path)
    names = [stage.name for stage in stages]
    assert len(set(names)) == len(names)
    assert all(stage.seconds <= 8 * 60 for stage in stages)
    decisive = ["info", "smoke", "tests-step", "tune-gelu-4096", "kernels", "bench-4096"]
    decisive += ["bench-launch", "memcheck-update", "bench-1024"]
    assert sorted(decisive, key=names.index) == decisive
    assert {*bars.TESTS, *bars.SANITIZED} <= set(names)


def test_results_name_the_gpu_and_its_driver(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H200, 580.65.06, 143771 MiB, 1980 MHz, 700.00 W'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    output.write("any", {"a": 1}, tmp_path / "any.json")
    written = json.loads((tmp_path / "any.json").read_text())
    assert (written["gpu"]["name"], written["gpu"]["driver_version"]) == (
        "NVIDIA H200",
        "580.65.06",
    )
    assert (written["a"], "versions" in written["machine"]) == (1, True)


def test_stages_have_all_tests_of_the_gpu_and_of_kernels(tmp_path):
    words = [word for stage in gpu_report.stages(tmp_path) for word in stage.command]
    for path in (ROOT / "tests" / "gpu").glob("test_*.py"):
        assert any(word.startswith(f"tests/gpu/{path.name}") for word in words)
    launching = {
        path.stem.removeprefix("test_")
        for path in (ROOT / "tests" / "kernels").glob("test_*.py")
        if "harness.compiled import kernel" in path.read_text()
    }
    assert launching - {*bars.KERNELS} == {"large"}  # runs only some blocks, which a GPU cannot


def test_commands_of_the_stages_have_existing_files_and_options(tmp_path, monkeypatch):
    """The part of the commands that a machine without a GPU can check."""
    stages = {stage.name: stage for stage in gpu_report.stages(tmp_path)}
    for stage in stages.values():
        files = [word for word in stage.command if word.startswith(("tests/", "benchmarks/"))]
        assert all((ROOT / word.partition("::")[0]).exists() for word in files)
        modules = [word for word in stage.command if word.startswith("benchmarks.")]
        assert all(find_spec(word) for word in modules)
    words = list(stages["memcheck-update"].command)
    collect = [sys.executable, "-m", "pytest", "--collect-only", *words[words.index("-q") :]]
    done = subprocess.run(
        collect, cwd=ROOT, env={**os.environ, **stages["memcheck-update"].environment},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    for name in ("activation", "loss", "theta"):
        assert f"kernels/test_{name}.py::" in done.stdout
    monkeypatch.chdir(tmp_path)
    for name in ("bench-sgd", "bench-launch", "bench-4096-peers"):
        words = list(stages[name].command[3:])
        words[words.index("--minutes") + 1] = "0"  # only reads the options
        words[words.index("cupy")] = "numpy"
        assert "stopped before gpumlp" in run(*words).stderr
    for stage in stages.values():
        if "tune" in stage.command:
            assert "tune measures products on a GPU" in run(*stage.command[3:], code=2).stderr


@pytest.mark.skipif(not gpu_report.no_gpu(), reason="this machine has a GPU")
def test_without_a_gpu_the_error_is_one_line(tmp_path, capsys):
    out = tmp_path / "report"
    assert gpu_report.main([str(out)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("make gpu: nothing was run: ")
    assert error.count("\n") == 1
    assert not out.exists()


def test_unknown_stage_exits_with_2(tmp_path, capsys):
    assert gpu_report.main([]) == 2
    assert gpu_report.main([str(tmp_path), "memchek"]) == 2
    assert "no stage 'memchek'; there are: info, smoke, tests-step" in capsys.readouterr().err
