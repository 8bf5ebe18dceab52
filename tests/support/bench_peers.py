"""Competitors for the benchmark's tests: some that go wrong, each in its own way."""

import os
import sys
from pathlib import Path

from gpumlp.bench.peers import Problem, Unsupported
from gpumlp.bench.peers.ours import OurStep


def twin(problem):
    return OurStep(problem)


def noisy(problem):
    print("a library that prints", file=sys.stdout)
    os.write(1, b"and one that writes\n")
    return OurStep(problem)


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


class Timed(OurStep):
    """Leaves a file where a second step is asked for, which only timing does."""

    def __init__(self, problem):
        super().__init__(problem)
        self.steps = 0

    def run(self):
        super().run()
        self.steps += 1
        if self.steps > 1:
            Path(os.environ["BENCH_TIMED"]).touch()


def wrong_rate(problem):
    """A step that is a hundredth too long."""
    step = Timed(problem)
    step.start(problem.case.lr * 1.01)
    return step


def wrong_activation(problem):
    """The derivative of another function."""
    case = dict(problem.case.to_json(), activation="gelu")
    return Timed(Problem(type(problem.case).from_json(case), problem.backend))


def wrong_seed(problem):
    """Other examples."""
    problem.x = problem.x[::-1].copy()
    return Timed(problem)
