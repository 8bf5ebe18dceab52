"""The check before timing: a competitor must change the parameters as float64 arithmetic does.

The check compares the change of each tensor: a sample of its entries, and the norm over all.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping

import numpy as np

from gpumlp.bench.cases import Case
from gpumlp.bench.peers import NotTimed, Problem, Step, Unsupported
from gpumlp.io.types import HostArray

SAMPLE = 4096  # entries of a tensor
# ‖change − exact change‖ / ‖exact change‖: the largest value for one SGD step of one layer. It
# grows as √L. These are twice the errors of torch and this library with 4 to 16 layers. Most of the
# error comes from relu inputs so close to 0 that rounding changes their sign.
DIRECTION = {"float64": 1e-6, "float32": 2e-3, "tf32": 0.025, "bfloat16": 0.08, "float16": 0.025}
# The same for the norm of the change, which rounding hardly affects. A wrong learning rate, weight
# decay or mean shows here.
LENGTH = {"float64": 1e-6, "float32": 2e-3, "tf32": 0.01, "bfloat16": 0.03, "float16": 0.01}
ROUNDING = {"float64": 2.0**-53, "float32": 2.0**-24, "bfloat16": 2.0**-9}  # of θ in this type

Change = tuple[HostArray, float, float]
"""The change of a tensor: sampled entries, norm over all entries, and how much rounding θ adds."""


class WrongChange(NotTimed):
    """The competitor computes something else."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, "refused")


def changes(problem: Problem, step: Step) -> dict[str, Change]:
    """The change of each tensor since `Problem.theta`, by name."""
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
        raise WrongChange(f"it has tensors that the case does not have: {', '.join(after)}")
    return found


def check(got: Mapping[str, Change], want: Mapping[str, Change], case: Case) -> float:
    """The largest relative error of the tensors' changes.

    Raises:
        WrongChange: a change differs by more than the precision explains.
        Unsupported: rounding θ may hide more than half of a change.
    """
    worst = 0.0
    for name, (sample, norm, _) in want.items():
        change, length, rounding = got[name]
        hidden = rounding / norm
        if hidden > 0.5:
            raise Unsupported(f"{name}: rounding θ may hide more than half of its change")
        error = float(np.linalg.norm(change - sample) / np.linalg.norm(sample))
        allowed = _direction(case, len(sample)) + 2 * hidden
        if not error <= allowed:
            raise WrongChange(
                f"{name}: its change has a relative error of {error:.2g}; "
                f"{case.precision} explains at most {allowed:.2g}"
            )
        if not abs(length / norm - 1) <= LENGTH[case.precision] + hidden:
            raise WrongChange(f"{name}: its change is {length / norm:.4g} times the exact length")
        worst = max(worst, error)
    return worst


def bfloat16(a: HostArray) -> HostArray:
    """The float32 array rounded to the 8 bits of bfloat16, to nearest, halves to even; float32."""
    bits = a.view(np.uint32)
    bits = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (bits & np.uint32(0xFFFF0000)).view(np.float32)


def _direction(case: Case, entries: int) -> float:
    """The relative error that the precision explains."""
    error = DIRECTION[case.precision] * math.sqrt(len(case.widths) - 1)
    if case.optimizer != "adamw":
        return error
    # The first step of AdamW is the sign of the gradient. An error e of the gradient changes about
    # e/π of the signs, and each of them adds 2² to the squared error. One entry of a small tensor
    # may change its sign.
    one = 2 / math.sqrt(entries) if case.precision != "float64" else 0.0
    return 2 * math.sqrt(error / math.pi) + one
