"""The other end of a worker: start it, ask it, end it; and the caches that it starts from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Self

from gpumlp.bench.cases import Case

CACHES = (  # where libraries keep what they compiled
    "CUPY_CACHE_DIR", "CUDA_CACHE_PATH", "XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR",
    "TRITON_CACHE_DIR", "JAX_COMPILATION_CACHE_DIR", "GPUMLP_CACHE",
)  # fmt: skip


class Ended(Exception):  # noqa: N818  (what became of it)
    """The worker has no more to say: `status` is missing, left out, failed or late."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Worker:
    """One competitor's process.

    Args:
        competitor, case, backend: what it builds.
        folder: for its log and its changes.
        caches: folder of what libraries compiled; the same one again is a warm start.
        until: `time.monotonic()` at which it is ended.
    """

    def __init__(
        self, competitor: str, case: Case, backend: str, folder: Path, caches: Path, until: float
    ) -> None:
        self.changes = folder / f"{len(list(folder.iterdir()))}.npz"
        self._log = self.changes.with_suffix(".log")
        specification = {
            "competitor": competitor, "case": case.to_json(), "backend": backend,
            "changes": str(self.changes),
        }  # fmt: skip
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gpumlp.bench.worker", json.dumps(specification)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                encoding="utf-8", env=_environment(caches),
                start_new_session=True,  # Ctrl-C is this process's to answer
            )  # fmt: skip
        self._until = until
        self._timer = threading.Timer(max(0.0, until - time.monotonic()), self._process.kill)
        self._timer.daemon = True
        self._timer.start()

    def started(self) -> dict[str, Any]:
        """What its start took: see `gpumlp.bench.worker.start`."""
        return self._answer()

    def warm(self, seconds: float) -> float:
        """Let it run for so long; the seconds of a step."""
        return float(self._ask(warm=seconds)["seconds"])

    def turn(self, burst: int, lead: bool) -> dict[str, Any]:
        """One timed turn: seconds a step, peak_bytes."""
        return self._ask(burst=burst, lead=lead)

    def close(self) -> None:
        """End it, whatever it is doing."""
        self._timer.cancel()
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _ask(self, **order: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the answer, or its end, says why
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        """The next answer.

        Raises:
            Ended: it is the last one, or there is none.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            answer: dict[str, Any] = json.loads(line)
            if "status" in answer:
                raise Ended(answer["status"], answer["reason"])
            return answer
        code = self._process.wait()
        if time.monotonic() >= self._until:
            raise Ended("late", "the time was over before it was done")
        said = self._log.read_text(errors="replace").strip().splitlines()
        last = f": {said[-1]}" if said else ""
        raise Ended("failed", f"its process ended with status {code}{last}")


def _environment(caches: Path) -> dict[str, str]:
    """The environment of this process, with caches of its own and what it can import."""
    folders = {name: str(caches / name.lower()) for name in CACHES}
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    return {**os.environ, **folders, "PYTHONPATH": path}


def scratch() -> tempfile.TemporaryDirectory[str]:
    """A folder for workers, gone afterwards; a cache that is still being written may stay."""
    return tempfile.TemporaryDirectory(prefix="gpumlp-bench-", ignore_cleanup_errors=True)
