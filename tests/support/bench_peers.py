"""Competitors for the tests of the benchmark. Most of them fail, each in a different way."""

import os
import sys
from dataclasses import replace
from pathlib import Path

from gpumlp.bench.peers import Problem, Unsupported
from gpumlp.bench.peers.gpumlp_peer import GpumlpStep


def identical(problem):
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
    """Writes its name into a file at its second step, which only timing asks for."""

    def __init__(self, problem, name):
        super().__init__(problem)
        self.steps, self.name = 0, name

    def run(self):
        super().run()
        self.steps += 1
        if self.steps == 2 and "BENCH_TIMED" in os.environ:
            with Path(os.environ["BENCH_TIMED"]).open("a") as file:
                file.write(f"{self.name}\n")


def noisy(problem):
    print("a library that prints", file=sys.stdout)
    os.write(1, b"and one that writes\n")
    return Recorded(problem, "noisy")


def wrong_rate(problem):
    """A step that is 1 % too long."""
    step = Recorded(problem, "wrong_rate")
    step.start(problem.case.lr * 1.01)
    return step


def wrong_activation(problem):
    """A step with another activation."""
    case = replace(problem.case, activation="gelu")
    return Recorded(Problem(case, problem.backend), "wrong_activation")


def wrong_seed(problem):
    """A step on the examples in another order."""
    problem.x = problem.x[::-1].copy()
    return Recorded(problem, "wrong_seed")
