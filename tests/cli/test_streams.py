"""Stdout and stderr that are closed, on a full device, or whose reader has gone."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("typer")

from gpumlp import MLP, Trainer
from gpumlp.cli import streams
from gpumlp.training.callbacks import ProgressBar

if os.name == "nt":
    pytest.skip("its consoles are no files", allow_module_level=True)

# a command that prints, and prints on stderr, and writes a file
COMMAND = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("streams", sys.argv[1])
streams = importlib.util.module_from_spec(spec)
spec.loader.exec_module(streams)
streams.protect()
if "files" in sys.argv: streams.not_needed()
file = open("model", "w")
print("a result " * 2000)
print("a note", file=sys.stderr, flush=True)
assert file.fileno() > 2
file.write("θ")
file.close()
status, message = streams.end(0)
print(message, file=sys.stderr)
sys.exit(status)
"""
NEEDED, FILES = [], ["files"]
CASES = [  # redirections, whether stdout is needed, exit status, part of stderr
    (">/dev/null", NEEDED, 0, "a note"),
    (">&-", NEEDED, 2, "stdout cannot be written: it is closed"),
    (">&-", FILES, 0, "a note"),
    (">/dev/full", NEEDED, 2, "stdout cannot be written: No space left on device"),
    (">/dev/full", FILES, 2, "device; the files are written"),
    ("| true", NEEDED, 1, "a note"),
    ("| true", FILES, 0, "a note"),
    (">/dev/null 2>/dev/full", NEEDED, 0, ""),
    (">/dev/null 2>&-", NEEDED, 0, ""),
    (">&- 2>&- <&-", FILES, 0, ""),
]


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """The exit status, stderr and folder of each case; all run at once."""
    running = []
    for redirections, arguments, _, _ in CASES:
        folder = tmp_path_factory.mktemp("streams")
        words = ["-I", "-S", "-c", COMMAND, streams.__file__, *arguments]
        python = f"{shlex.join([sys.executable, *words])} {redirections}"
        script = f"cd '{folder}'; {python}; exit ${{PIPESTATUS[0]}}"
        process = subprocess.Popen(["bash", "-c", script], stderr=subprocess.PIPE, text=True)
        running.append((folder, process))
    return [(process.communicate()[1], process.returncode, folder) for folder, process in running]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
@pytest.mark.parametrize("i", range(len(CASES)), ids=lambda i: f"{CASES[i][0]} {CASES[i][1]}")
def test_the_command_ends_and_its_status_says_what_was_lost(i, ended):
    _, _, expected, shown = CASES[i]
    stderr, status, folder = ended[i]
    assert (status, "Traceback" in stderr) == (expected, False), stderr
    assert shown in stderr
    assert (folder / "model").read_text() == "θ"


def test_what_stdout_of_a_test_is_stays(capsys):
    before = sys.stdout, sys.stderr
    streams.protect()
    assert (sys.stdout, sys.stderr) == before


class Gone:
    """A stderr whose reader has gone."""

    def write(self, text):
        raise BrokenPipeError

    def flush(self):
        raise BrokenPipeError

    def isatty(self):
        return False


def fitted(**settings):
    net = MLP([2, 1], loss="squared_error", backend="numpy", seed=1)
    x = np.random.default_rng(0).normal(size=(40, 2))
    Trainer(net).fit(x, x[:, :1], 2, **settings)
    return net.theta.flat


def test_a_fit_goes_on_where_its_progress_cannot_be_shown(monkeypatch):
    expected = fitted(progress=False)
    monkeypatch.setattr(sys, "stderr", Gone())
    np.testing.assert_array_equal(fitted(progress=True), expected)


@pytest.mark.parametrize("failing", ["update", "set_postfix", "close", "show"])
def test_a_fit_goes_on_where_its_bar_cannot_be_drawn(failing):
    class Bar:
        def __getattr__(self, method):
            def draw(*arguments):
                if method == failing:
                    raise OSError("the terminal has gone")

            return draw

    def show():
        if failing == "show":
            raise BrokenPipeError
        return Bar()

    np.testing.assert_array_equal(
        fitted(progress=False, callbacks=[ProgressBar(show)]), fitted(progress=False)
    )
