"""That a competitor moves the parameters as float64 arithmetic does: before it is timed.

All start from the same θ and take one step on the same minibatch.  Of each tensor's change a sample
of entries, the same for all, is compared, and its norm over all entries.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping

import numpy as np

from gpumlp.bench.cases import Case
from gpumlp.bench.peers import Problem, Step
from gpumlp.io.types import HostArray

SAMPLE = 4096  # entries of a tensor
# ‖change − exact change‖ / ‖exact change‖ that one SGD step of one layer may have; it grows as √L.
# Twice what torch and this library had at 4 to 16 layers; rectifiers that turn make most of it.
DIRECTION = {"float64": 1e-6, "float32": 2e-3, "tf32": 0.025, "bfloat16": 0.08, "float16": 0.025}
# the same of the norms alone, which rounding hardly moves: a wrong learning rate, decay or mean
LENGTH = {"float64": 1e-6, "float32": 2e-3, "tf32": 0.01, "bfloat16": 0.03, "float16": 0.01}
ROUNDING = {"float64": 2.0**-53, "float32": 2.0**-24, "bfloat16": 2.0**-9}  # of a θ kept so

Change = tuple[HostArray, float, float]
"""A tensor's change: sampled entries, its norm over all entries, and what rounding θ may add."""


class Different(Exception):  # noqa: N818  (a finding)
    """The competitor computes something else."""


class Unseen(Exception):  # noqa: N818
    """Its θ is so coarse that the step cannot be seen in it."""


def changes(problem: Problem, step: Step) -> dict[str, Change]:
    """Each tensor's change since `Problem.theta`, by name."""
    after = dict(step.tensors())
    found = {}
    for name, tensor in problem.theta():
        start = bfloat16(tensor) if step.theta_type == "bfloat16" else tensor
        change = after.pop(name).astype(np.float64).ravel() - start.ravel()
        rounding = ROUNDING[step.theta_type] * float(np.linalg.norm(tensor))
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        sample = change[rng.integers(0, change.size, min(change.size, SAMPLE))]
        found[name] = (sample, float(np.linalg.norm(change)), rounding)
    if after:
        raise Different(f"it has tensors that the case has not: {', '.join(after)}")
    return found


def check(got: Mapping[str, Change], want: Mapping[str, Change], case: Case) -> float:
    """The largest error of a tensor's change, relative to its length.

    Raises:
        Different: a change differs by more than the precision explains.
        Unseen: rounding θ may hide more than half of a change.
    """
    worst = 0.0
    for name, (sample, norm, _) in want.items():
        change, length, rounding = got[name]
        hidden = rounding / norm
        if hidden > 0.5:
            raise Unseen(f"{name}: θ is kept so coarsely that it rounds a step's change away")
        error = float(np.linalg.norm(change - sample) / np.linalg.norm(sample))
        allowed = _direction(case, len(sample)) + 2 * hidden
        if not error <= allowed:
            raise Different(
                f"{name}: its change differs from the exact one by {error:.2g} of it; "
                f"{case.precision} explains {allowed:.2g}"
            )
        if not abs(length / norm - 1) <= LENGTH[case.precision] + hidden:
            raise Different(f"{name}: its change is {length / norm:.4g} times as long as exact")
        worst = max(worst, error)
    return worst


def bfloat16(a: HostArray) -> HostArray:
    """The float32 array rounded to bfloat16's 8 bits, to nearest, halves to even; as float32."""
    bits = a.view(np.uint32)
    bits = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    rounded: HostArray = (bits & np.uint32(0xFFFF0000)).view(np.float32)
    return rounded


def _direction(case: Case, entries: int) -> float:
    """What the relative error may be.

    AdamW's first step is the gradient's sign: an error e of the gradient turns about e/π of the
    signs, each of which counts 2² in the squared error.  One entry in a small tensor may turn.
    """
    error = DIRECTION[case.precision] * math.sqrt(len(case.widths) - 1)
    if case.optimizer != "adamw":
        return error
    one = 2 / math.sqrt(entries) if case.precision != "float64" else 0.0
    return 2 * math.sqrt(error / math.pi) + one
