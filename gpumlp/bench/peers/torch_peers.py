"""torch in its best modes: eager, and compiled with CUDA graphs: max-autotune, reduce-overhead.

The optimizers are fused. tf32 is a setting of torch. bfloat16 and float16 use autocast with float32
parameters (AMP), and float16 a GradScaler. Competitors of their own have the whole step, optimizer
included, in one CUDA graph; their parameters in bfloat16 and no autocast; and the same with the
optimizer of FlashOptim.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

from gpumlp.bench.cases import Case
from gpumlp.bench.peers import BareProducts, Problem, Step, Unsupported, float_type, lookup
from gpumlp.io.threads import blas_threads
from gpumlp.io.types import HostArray

AMP = ("bfloat16", "float16")
LOSSES = {"softmax_cross_entropy": "cross_entropy", "squared_error": "mse_loss"}


class TorchStep(Step):
    """Forward pass, backward pass and a fused optimizer on one minibatch.

    Args:
        problem: what is trained.
        mode: torch.compile compiles the forward and backward pass in this mode; None for eager.
        products: the precision of float32 products; None for that of the case.
        bf16_parameters: θ, its gradient and the optimizer's state are in bfloat16.
        one_graph: the whole step is recorded as one CUDA graph.
    """

    def __init__(
        self, problem: Problem, *, mode: str | None = None, products: str | None = None,
        bf16_parameters: bool = False, one_graph: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self._torch = torch = _torch(problem, products)
        case = problem.case
        device = "cuda" if problem.on_gpu else "cpu"
        self.theta_type = "bfloat16" if bf16_parameters else float_type(case.precision)
        dtype = getattr(torch, self.theta_type)
        self.network = _network(torch, case, device, dtype)
        self._assign(problem)
        self._x = torch.from_numpy(problem.x).to(device, dtype)
        y = torch.from_numpy(problem.y).to(device)
        self._y = y.to(dtype) if y.is_floating_point() else y
        self._compiled, self._on_gpu = mode is not None, problem.on_gpu
        amp = case.precision if case.precision in AMP and not bf16_parameters else None
        forward = self._forward(case, device, amp)
        self._cost = torch.compile(forward, mode=mode) if mode else forward
        kind = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[case.optimizer]
        more = {"capturable": True} if one_graph and case.optimizer == "adamw" else {}
        self.optimizer = kind(self.network.parameters(), lr=case.lr, fused=True, **more)
        self._scaler = torch.amp.GradScaler(device) if amp == "float16" else None
        self._graph: Any = None
        if one_graph:
            self._graph = recorded(torch, self.run, self.optimizer)
            self._assign(problem)
            for state in self.optimizer.state.values():  # torch begins at 0 in all of it
                for value in state.values():
                    value.zero_()

    def _assign(self, problem: Problem) -> None:
        """θ of the problem."""
        torch, views = self._torch, dict(self.network.named_parameters())
        with torch.no_grad():
            for name, value in problem.theta():
                views[name].copy_(torch.from_numpy(value))

    def _forward(self, case: Case, device: str, amp: str | None) -> Callable[[Any, Any], Any]:
        """A function that returns the cost, under autocast if AMP is used."""
        torch = self._torch
        loss = getattr(torch.nn.functional, LOSSES[case.loss])

        def cost(x: Any, y: Any) -> Any:
            amp_type = getattr(torch, amp) if amp else None
            with torch.autocast(device, amp_type) if amp else contextlib.nullcontext():
                return loss(self.network(x), y)

        return cost

    def run(self) -> None:
        if self._graph is not None:
            self._graph.replay()
            return
        self.optimizer.zero_grad(set_to_none=True)  # first: they are in the memory of the graph
        if self._compiled and self._on_gpu:
            self._torch.compiler.cudagraph_mark_step_begin()
        cost = self._cost(self._x, self._y)
        if self._scaler is None:
            cost.backward()
            self.optimizer.step()
        else:
            self._scaler.scale(cost).backward()
            self._scaler.step(self.optimizer)
            self._scaler.update()

    def synchronize(self) -> None:
        if self._on_gpu:
            self._torch.cuda.synchronize()

    def tensors(self) -> Iterator[tuple[str, HostArray]]:
        for name, value in self.network.named_parameters():
            host = value.detach().cpu()  # NumPy has no bfloat16
            yield name, (host.float() if host.element_size() == 2 else host).numpy()

    def peak_bytes(self) -> int | None:
        return int(self._torch.cuda.max_memory_allocated()) if self._on_gpu else None


class TorchProducts(BareProducts):
    """The products of a step by torch.matmul: a comparison for the GEMM plans of this library.

    On a GPU they are one CUDA graph, as those of the floor are.
    """

    def __init__(self, problem: Problem) -> None:
        self._torch, self._on_gpu = _torch(problem), problem.on_gpu
        torch, precision = self._torch, problem.case.precision
        device = "cuda" if problem.on_gpu else "cpu"
        dtype = getattr(torch, "float32" if precision == "tf32" else precision)
        super().__init__(
            problem.case,
            normal=lambda rows, cols: torch.randn(rows, cols, device=device, dtype=dtype),
            forward=lambda h, W, out: torch.matmul(h, W.T, out=out),
            weight_gradient=lambda gz, h, out: torch.matmul(gz.T, h, out=out),
            hidden_gradient=lambda gz, W, out: torch.matmul(gz, W, out=out),
        )
        self._graph = recorded(torch, super().run) if problem.on_gpu else None

    def run(self) -> None:
        if self._graph is None:
            super().run()
        else:
            self._graph.replay()

    def synchronize(self) -> None:
        if self._on_gpu:
            self._torch.cuda.synchronize()


def medium(problem: Problem) -> TorchStep:
    """float32 with products that are allowed to round to bfloat16, if the processor can do that."""
    if problem.on_gpu or problem.case.precision != "float32":
        raise Unsupported("medium products are for float32 on the CPU; a GPU has tf32 and bfloat16")
    step = TorchStep(problem, products="medium")
    step.notes["products"] = "bfloat16"
    return step


def compiled(problem: Problem) -> TorchStep:
    """torch.compile with float32 or float64 parameters; AMP for 16-bit precisions."""
    return TorchStep(problem, mode="max-autotune")


def reduce_overhead(problem: Problem) -> TorchStep:
    """The same in the mode that torch recommends for small minibatches."""
    return TorchStep(problem, mode="reduce-overhead")


def one_graph(problem: Problem) -> TorchStep:
    """The compiled step and its optimizer as one CUDA graph: one launch by the host for a step."""
    if not problem.on_gpu:
        raise Unsupported("CUDA graphs need a GPU")
    if problem.case.precision == "float16":
        raise Unsupported("the loss scaling of torch is not recorded")
    return TorchStep(problem, mode="max-autotune-no-cudagraphs", one_graph=True)


def compiled_bf16_parameters(problem: Problem) -> TorchStep:
    """torch.compile with bfloat16 parameters."""
    if problem.case.precision != "bfloat16":
        raise Unsupported(f"bf16 parameters need precision bfloat16, got {problem.case.precision}")
    return TorchStep(problem, mode="max-autotune", bf16_parameters=True)


def flashoptim(problem: Problem) -> TorchStep:
    """torch.compile with bfloat16 parameters of 24 bits, and quantized states, by FlashOptim."""
    if problem.case.optimizer != "adamw" or not problem.on_gpu:
        raise Unsupported("FlashOptim is timed with adamw on a GPU")
    from flashoptim import FlashAdamW

    step = compiled_bf16_parameters(problem)
    theta = step.network.parameters()
    step.optimizer = FlashAdamW(theta, lr=problem.case.lr, weight_decay=0.01)
    return step


def recorded(torch: Any, step: Callable[[], None], optimizer: Any = None) -> Any:
    """The step as a CUDA graph, after steps that compile it and allocate the optimizer's state."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    if optimizer is not None:
        optimizer.zero_grad(set_to_none=True)  # the graph allocates gradients of its own
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph


def _torch(problem: Problem, products: str | None = None) -> Any:
    """The module torch, set to the precision of the case and the threads of NumPy's BLAS."""
    import torch

    if problem.on_gpu and not torch.cuda.is_available():
        raise Unsupported("torch was built without CUDA, or it finds no GPU")
    if problem.case.precision == "tf32" and not problem.on_gpu:
        raise Unsupported("tf32 needs a GPU")
    if not problem.on_gpu:
        torch.set_num_threads(blas_threads())
    of_case = "high" if problem.case.precision == "tf32" else "highest"
    torch.set_float32_matmul_precision(products or of_case)
    return torch


def _network(torch: Any, case: Case, device: str, dtype: Any) -> Any:
    activations = {
        "relu": torch.nn.ReLU,
        "tanh": torch.nn.Tanh,
        "silu": torch.nn.SiLU,
        "gelu": lambda: torch.nn.GELU(approximate="tanh"),
    }
    f = lookup("torch", "activation", case.activation, activations)
    layers = []
    for n_in, n_out in pairwise(case.widths):
        linear = torch.nn.utils.skip_init(torch.nn.Linear, n_in, n_out, device=device, dtype=dtype)
        layers += [linear, f()]
    return torch.nn.Sequential(*layers[:-1])
