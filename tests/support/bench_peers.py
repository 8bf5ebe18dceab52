"""Competitors for the tests of the benchmark. Most of them fail, each in a different way."""

import os
import sys
from dataclasses import replace
from pathlib import Path

from gpumlp.bench.peers import Problem, Unsupported
from gpumlp.bench.peers.gpumlp_peer import GpumlpStep


def identical(problem):
    return GpumlpStep(problem)


def noisy(problem):
    print("a library that prints", file=sys.stdout)
    os.write(1, b"and one that writes\n")
    return GpumlpStep(problem)


def missing(problem):
    import no_such_library

    return no_such_library


def unsupported(problem):
    raise Unsupported("it is Tuesday")


def failing(problem):
    raise RuntimeError("out of everything\nand more")


def dying(problem):
    print("the last words", file=sys.stderr)
    os._exit(7)


def sleeping(problem):
    import time

    time.sleep(600)


class Recorded(GpumlpStep):
    """Writes a file at its second step, which only timing asks for."""

    def __init__(self, problem):
        super().__init__(problem)
        self.steps = 0

    def run(self):
        super().run()
        self.steps += 1
        if self.steps > 1:
            Path(os.environ["BENCH_TIMED"]).touch()


def wrong_rate(problem):
    """A step that is 1 % too long."""
    step = Recorded(problem)
    step.start(problem.case.lr * 1.01)
    return step


def wrong_activation(problem):
    """A step with another activation."""
    case = replace(problem.case, activation="gelu")
    return Recorded(Problem(case, problem.backend))


def wrong_seed(problem):
    """A step on the examples in another order."""
    problem.x = problem.x[::-1].copy()
    return Recorded(problem)
