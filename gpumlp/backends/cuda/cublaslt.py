"""Products on cublasLt, through `nvmath.bindings`: own handle, stream and workspace.

CuPy's own cuBLAS calls raise while their stream is being captured into a graph; these do not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpumlp.backends.cuda.plans import Algorithm, Gemm, Operands, Plan
from gpumlp.backends.cuda.tuning import Choice, Tuner


class Blas:
    """All products of one device; a plan is made at a shape's first call, then kept.

    Attributes:
        lane: (workspace, stream) of the products that follow, addresses; WORKSPACE_BYTES long.
            Products that may run side by side need workspaces of their own.
    """

    def __init__(self, lt: Any, stream: int, workspace: int, tuner: Tuner) -> None:
        """Lt: nvmath.bindings.cublasLt; stream, workspace: the first lane."""
        self._lt, self.lane, self._tuner = lt, (workspace, stream), tuner
        self._handle = lt.create()
        self._plans: dict[Gemm, tuple[Plan, Choice]] = {}

    def __contains__(self, gemm: Gemm) -> bool:
        return gemm in self._plans

    def prepare(
        self, gemm: Gemm, at: Operands, otherwise: Callable[[], None] | None = None
    ) -> None:
        """Make the plan; arguments as for a call, whose arrays a measurement overwrites."""
        plan = Plan(self._lt, self._handle, gemm)

        def run(algorithm: Algorithm) -> None:
            plan.run(algorithm, at, *self.lane)

        try:
            plan.point(at.bias, at.aux)
            choice = self._tuner.choose(plan, run, otherwise)
        except BaseException:
            plan.close()
            raise
        self._plans[gemm] = plan, choice

    def __call__(
        self, gemm: Gemm, at: Operands, otherwise: Callable[[], None] | None = None
    ) -> bool:
        """Hand the product to the stream, or call `otherwise` where that was chosen: then False.

        otherwise: does the same without the epilogue, for a product that has one.
        """
        if gemm not in self._plans:
            self.prepare(gemm, at, otherwise)
        plan, choice = self._plans[gemm]
        if choice.algorithm is not None:
            try:
                plan.run(choice.algorithm, at, *self.lane)
                return True
            except self._lt.cuBLASLtError as error:
                if otherwise is None:
                    raise
                self._plans[gemm] = plan, self._tuner.give_up(gemm, error)
        assert otherwise is not None  # it was there when the choice was made
        otherwise()
        return False
