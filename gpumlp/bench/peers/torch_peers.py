"""torch in its best modes: eager, and compiled with max-autotune and CUDA graphs; fused optimizers.

Precisions: tf32 by torch's switch; bfloat16 and float16 by autocast over float32 parameters (AMP),
float16 with GradScaler; and, as a competitor of its own, parameters in bfloat16 without autocast.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

from gpumlp.bench.cases import Case
from gpumlp.bench.peers import Plain, Problem, Unsupported, float_type
from gpumlp.io.threads import blas_threads
from gpumlp.io.types import HostArray

AMP = ("bfloat16", "float16")


class TorchStep(Plain):
    """Forward, backward and a fused optimizer on one minibatch.

    compiled: the forward and backward pass by torch.compile, mode max-autotune.
    bf16_parameters: θ, its gradient and the optimizer's state in bfloat16.
    """

    def __init__(
        self, problem: Problem, *, compiled: bool = False, bf16_parameters: bool = False
    ) -> None:
        super().__init__()
        self._torch = torch = _torch(problem)
        case = problem.case
        device = "cuda" if problem.on_gpu else "cpu"
        self.theta_type = "bfloat16" if bf16_parameters else float_type(case.precision)
        dtype = getattr(torch, self.theta_type)
        self.network = _network(torch, case, device, dtype)
        with torch.no_grad():
            views = dict(self.network.named_parameters())
            for name, value in problem.theta():
                views[name].copy_(torch.from_numpy(value))
        self._x = torch.from_numpy(problem.x).to(device, dtype)
        y = torch.from_numpy(problem.y).to(device)
        self._y = y.to(dtype) if y.is_floating_point() else y
        self._compiled, self._on_gpu = compiled, problem.on_gpu
        amp = case.precision if case.precision in AMP and not bf16_parameters else None
        forward = self._forward(case, device, amp)
        self._cost = torch.compile(forward, mode="max-autotune") if compiled else forward
        kind = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[case.optimizer]
        self._optimizer = kind(self.network.parameters(), lr=case.lr, fused=True)
        self._scaler = torch.amp.GradScaler(device) if amp == "float16" else None

    def _forward(self, case: Case, device: str, amp: str | None) -> Callable[[Any, Any], Any]:
        """The cost, under autocast where there is AMP."""
        torch = self._torch
        functional = torch.nn.functional
        loss = {
            "softmax_cross_entropy": functional.cross_entropy,
            "squared_error": functional.mse_loss,
        }[case.loss]

        def cost(x: Any, y: Any) -> Any:
            amp_type = getattr(torch, amp) if amp else None
            with torch.autocast(device, amp_type) if amp else contextlib.nullcontext():
                return loss(self.network(x), y)

        return cost

    def run(self) -> None:
        """One step; gradients are handed over, not zeroed."""
        self._optimizer.zero_grad(set_to_none=True)  # first: they live in the graph's memory
        if self._compiled and self._on_gpu:
            self._torch.compiler.cudagraph_mark_step_begin()
        cost = self._cost(self._x, self._y)
        if self._scaler is None:
            cost.backward()
            self._optimizer.step()
        else:
            self._scaler.scale(cost).backward()
            self._scaler.step(self._optimizer)
            self._scaler.update()

    def synchronize(self) -> None:
        """Wait for the device."""
        if self._on_gpu:
            self._torch.cuda.synchronize()

    def tensors(self) -> Iterator[tuple[str, HostArray]]:
        """θ, widened from bfloat16, which NumPy lacks."""
        for name, value in self.network.named_parameters():
            host = value.detach().cpu()
            yield name, (host.float() if host.element_size() == 2 else host).numpy()

    def peak_bytes(self) -> int | None:
        """The most that torch's allocator had handed out."""
        return int(self._torch.cuda.max_memory_allocated()) if self._on_gpu else None


class TorchProducts(Plain):
    """The step's bare products by torch.matmul, into buffers: for the GEMM plans to be held to."""

    trains = False

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self._torch = torch = _torch(problem)
        case, self._on_gpu = problem.case, problem.on_gpu
        dtype = getattr(torch, case.precision if case.precision != "tf32" else "float32")

        def normal(rows: int, cols: int) -> Any:
            return torch.randn(rows, cols, device="cuda" if self._on_gpu else "cpu", dtype=dtype)

        m, layers = case.batch_size, list(pairwise(case.widths))
        self._h = [normal(m, n) for n in case.widths]
        self._gz = [normal(m, n) for n in case.widths]
        self._W = [normal(n_out, n_in) for n_in, n_out in layers]
        self._dW = [normal(n_out, n_in) for n_in, n_out in layers]

    def run(self) -> None:
        """h Wᵀ, gzᵀ h and gz W of every layer, the last but for the first."""
        multiply, h, gz = self._torch.matmul, self._h, self._gz
        layers = range(len(self._W))
        for k in layers:
            multiply(h[k], self._W[k].T, out=h[k + 1])
        for k in reversed(layers):
            multiply(gz[k + 1].T, h[k], out=self._dW[k])
            if k > 0:
                multiply(gz[k + 1], self._W[k], out=gz[k])

    def synchronize(self) -> None:
        """Wait for the device."""
        if self._on_gpu:
            self._torch.cuda.synchronize()


def eager(problem: Problem) -> TorchStep:
    """torch as it comes, with a fused optimizer."""
    return TorchStep(problem)


def compiled(problem: Problem) -> TorchStep:
    """torch.compile over float32 (or float64) parameters; AMP for 16 bits."""
    return TorchStep(problem, compiled=True)


def compiled_bf16_parameters(problem: Problem) -> TorchStep:
    """torch.compile over bfloat16 parameters."""
    if problem.case.precision != "bfloat16":
        raise Unsupported(f"it is for precision bfloat16, not {problem.case.precision}")
    return TorchStep(problem, compiled=True, bf16_parameters=True)


def products(problem: Problem) -> TorchProducts:
    """The products alone."""
    return TorchProducts(problem)


def _torch(problem: Problem) -> Any:
    """torch, set to the case's precision and, on the CPU, to NumPy's number of threads."""
    import torch

    if problem.on_gpu and not torch.cuda.is_available():
        raise Unsupported("this torch has no CUDA, or finds no GPU")
    if problem.case.precision == "tf32" and not problem.on_gpu:
        raise Unsupported("tf32 needs a GPU")
    if not problem.on_gpu:
        torch.set_num_threads(blas_threads())
    torch.set_float32_matmul_precision("high" if problem.case.precision == "tf32" else "highest")
    return torch


def _network(torch: Any, case: Case, device: str, dtype: Any) -> Any:
    activations = {
        "relu": torch.nn.ReLU,
        "tanh": torch.nn.Tanh,
        "silu": torch.nn.SiLU,
        "gelu": lambda: torch.nn.GELU(approximate="tanh"),
    }
    if case.activation not in activations:
        listed = ", ".join(activations)
        raise Unsupported(f"the benchmark knows torch's {listed}, not {case.activation}")
    layers = []
    for n_in, n_out in pairwise(case.widths):
        linear = torch.nn.utils.skip_init(torch.nn.Linear, n_in, n_out, device=device, dtype=dtype)
        layers += [linear, activations[case.activation]()]
    return torch.nn.Sequential(*layers[:-1])
