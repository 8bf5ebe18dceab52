"""What of a network leaves its backend: settings, named tensors, files, copies and pickles."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from gpumlp import storage
from gpumlp.arrays import as_backend_array
from gpumlp.backends import Backend, get_backend
from gpumlp.errors import CheckpointError
from gpumlp.functions import Activation, Initializer, Loss, Regularizer
from gpumlp.parameters import Layout, Parameters


class Portable:
    """The part of `MLP` that has nothing of the algorithms in it."""

    backend: Backend
    theta: Parameters
    widths: tuple[int, ...]
    f: list[Activation]
    loss: Loss
    regularizer: Regularizer
    initializer: Initializer | None
    seed: int

    def _adopt(self, theta: Parameters) -> None:
        """Make `theta` the network's parameters."""
        self.theta = theta

    def config(self) -> dict[str, Any]:
        """The settings as JSON can hold them: what `MLP` needs to build the same network."""
        return {
            "widths": list(self.widths),
            "activation": [f.spec() for f in self.f[1:-1]],
            "output_activation": self.f[-1].spec(),
            "loss": self.loss.spec(),
            "regularizer": self.regularizer.spec(),
            "initializer": self.initializer and self.initializer.spec(),
            "precision": self.backend.precision,
            "seed": self.seed,
        }

    def save(self, path: str | os.PathLike[str], extra: Mapping[str, Any] | None = None) -> None:
        """Write θ and the settings as safetensors, whole or not at all.

        Tensors have the names of ``torch.nn.Sequential(Linear, activation, …)``: "0.weight",
        "0.bias", "2.weight", …  The metadata holds the settings and the tensors' SHA-256,
        and `extra`, a mapping that JSON can hold; `gpumlp.storage.load_extra` reads it back.
        """
        storage.save_network(path, self.config(), self.tensors(), extra)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        backend: str | Backend = "auto",
        functions: Sequence[Activation | Loss | Regularizer] = (),
        **settings: Any,
    ) -> Self:
        """The network that `save` wrote.

        Args:
            path: the file.
            backend: the backend to load it into.
            functions: entries of your own that the network was built with.
            settings: arguments of `MLP` to use in place of the saved ones; for a file without
                gpumlp's settings (torch's, say) they are the only source, save the widths.

        Raises:
            CheckpointError: the file is damaged, foreign or does not fit.
        """
        known = inspect.signature(cls).parameters
        for name in settings:
            if name not in known:
                raise TypeError(f"MLP has no argument {name!r}; it has: {', '.join(known)}")
        chosen = get_backend(backend).name
        config, tensors = storage.load_network(path, functions)
        if config.get("precision") in ("tf32", "bfloat16", "float16") and chosen == "numpy":
            config["precision"] = "float32"  # θ's own; the others are a GPU's ways of computing
        try:
            net = cls(**{**config, "backend": backend, **settings})
            net.assign(tensors)
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: {error}") from error
        return net

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """θ on the host by torch's names: "0.weight" (n_1, n_0), "0.bias" (n_1,), "2.weight", …"""
        self.backend.synchronize()
        return {name: self.backend.to_host(view) for name, view in self.theta.named().items()}

    def assign(self, tensors: Mapping[str, npt.ArrayLike]) -> None:
        """θ ← tensors, named and shaped as `tensors()` gives them; all of them or none.

        They may be other libraries' arrays, as a torch module's `state_dict` has them, on any
        device.

        Raises:
            ValueError: a name is missing or too many, or a shape differs.
        """
        views = self.theta.named()
        if set(views) != set(tensors):
            odd = sorted(set(views) ^ set(tensors))
            raise ValueError(f"tensor names do not fit this network: {', '.join(odd[:4])}")
        tensors = {
            name: as_backend_array(tensors[name], self.backend, name, across=True) for name in views
        }
        for name, view in views.items():
            if np.shape(tensors[name]) != view.shape:
                raise ValueError(
                    f"{name} has shape {np.shape(tensors[name])}, this network's is {view.shape}"
                )
        self.backend.synchronize()
        for name, view in views.items():
            self.backend.asarray(tensors[name], out=view)
        self.backend.synchronize()  # the caller may free them now

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """The same network with a θ of its own; layers are views of it, not copies."""
        self.backend.synchronize()
        twin = memo[id(self)] = object.__new__(type(self))
        vars(twin).update(vars(self))
        twin._adopt(Parameters(self.theta.layout, self.backend.asarray(self.theta.flat)))
        self.backend.synchronize()
        return twin

    def on_other_backend(self, backend: Backend) -> Self:
        """A network like this one that asks another backend for its arrays; θ is not copied."""
        twin = object.__new__(type(self))
        vars(twin).update(vars(self), backend=backend)
        twin._adopt(Parameters.zeros(backend, self.theta.layout))
        return twin

    def __getstate__(self) -> dict[str, Any]:
        """What pickle keeps: the settings, the backend's name and θ on the host."""
        own = {
            k: v
            for k, v in vars(self).items()
            if k not in ("theta", "rounded", "layers", "_idle", "_J")
        }
        return {
            **own,
            "backend": (self.backend.name, self.backend.precision),
            "theta": self.tensors(),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """The same network in a backend of the same name."""
        vars(self).update(state, backend=get_backend(*state["backend"]))
        layout = Layout(self.widths, self.backend.storage.itemsize)
        self._adopt(Parameters.zeros(self.backend, layout))
        self.assign(state["theta"])
