"""Products with cublasLt, by `nvmath.bindings`, with our own handle, stream and workspace.

CuPy's own cuBLAS calls fail while their stream is being captured into a graph; these do not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpumlp.backends.cuda.plans import Algorithm, Gemm, Operands, Plan
from gpumlp.backends.cuda.tuning import Choice, Tuner


class Blas:
    """All products of one device.  The first product of a kind makes its plan, which is kept.

    Attributes:
        stream_and_workspace: the stream of the products that follow, and the address of their
            workspace of WORKSPACE_BYTES.  Products that may run in parallel need two workspaces.
    """

    def __init__(self, lt: Any, stream: int, workspace: int, tuner: Tuner) -> None:
        """Lt: the module `nvmath.bindings.cublasLt`; stream, workspace: see the attribute."""
        self._lt, self._tuner = lt, tuner
        self.stream_and_workspace = stream, workspace
        self._handle = lt.create()
        self._plans: dict[Gemm, tuple[Plan, Choice]] = {}

    def __contains__(self, gemm: Gemm) -> bool:
        return gemm in self._plans

    def prepare(self, gemm: Gemm, at: Operands, fallback: Callable[[], None] | None = None) -> None:
        """Make the plan.  The arguments are those of a call.  Measuring overwrites the arrays."""
        plan = Plan(self._lt, self._handle, gemm)

        def run(algorithm: Algorithm) -> None:
            plan.run(algorithm, at, *self.stream_and_workspace)

        try:
            plan.point(at.bias, at.aux)
            choice = self._tuner.choose(plan, run, fallback)
        except BaseException:
            plan.close()
            raise
        self._plans[gemm] = plan, choice

    def unfused(self, gemm: Gemm) -> bool:
        """Whether the plan is to compute the product without its epilogue."""
        return self._plans[gemm][1].algorithm is None

    def __call__(
        self, gemm: Gemm, at: Operands, fallback: Callable[[], None] | None = None
    ) -> bool:
        """Enqueue the product, or call `fallback` if that was chosen, and then return False.

        fallback: computes the same without the epilogue, for a product that has one.
        """
        if gemm not in self._plans:
            self.prepare(gemm, at, fallback)
        plan, choice = self._plans[gemm]
        if choice.algorithm is not None:
            try:
                plan.run(choice.algorithm, at, *self.stream_and_workspace)
                return True
            except self._lt.cuBLASLtError as error:
                if fallback is None:
                    raise
                self._plans[gemm] = plan, self._tuner.give_up(gemm, error)
        assert fallback is not None  # it was given when the choice was made
        fallback()
        return False
