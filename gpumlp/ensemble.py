"""Ensemble: networks of one shape, whose parameters lie in one array."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np

from gpumlp import checks, storage
from gpumlp.arrays import as_kind_of
from gpumlp.backends import Backend, get_backend, has_precision
from gpumlp.errors import CheckpointError
from gpumlp.functions import Activation, Initializer, Loss, Regularizer
from gpumlp.functions.entry import Entry
from gpumlp.io.chunks import chunks
from gpumlp.io.types import Array, HostArray
from gpumlp.network import CHUNK, MLP, check_members

Regularizers = str | Regularizer | None | Sequence[str | Regularizer | None]


class Ensemble:
    """K networks of one shape, which a `Trainer` trains together.

    Args:
        K: the number of networks, the members.
        widths, activation, output_activation, loss: as in `MLP`, of all members.
        regularizer: as in `MLP`; or a list with one for each member.
        initializer, precision, backend: as in `MLP`, of all members.
        seeds: those of the members' initial weights and, in a training, of their orders; None:
            0 … K − 1.
        more: `norm`, `dropout`, `residual`, `gated` and `embed` of `MLP`, of all members.

    Attributes:
        nets: the K members: each `MLP` has a row of `theta` as its parameters.
        theta: (K, p), the flat θ and running statistics of each member; an array of the backend.
        rounded: `theta`, or its copy in 16 bits that products read.
        diverged: the numbers of the members whose training diverged.  `predict` leaves them out,
            and a further fit does not train them.  Remove a number if you give this member other
            parameters.

    Raises:
        ValueError, TypeError: an argument is invalid; the message says what to pass.
        DeviceError: backend is "cupy" and no GPU can be used.
    """

    def __init__(
        self, K: int, widths: Sequence[int],
        activation: str | Activation | Sequence[str | Activation] = "relu",
        output_activation: str | Activation = "identity",
        loss: str | Loss = "softmax_cross_entropy", regularizer: Regularizers = None,
        initializer: str | Initializer | None = None, precision: str = "float32",
        backend: str | Backend = "auto", seeds: Iterable[int] | None = None, **more: Any,
    ) -> None:  # fmt: skip
        K = checks.positive_int(K, "K", most=checks.MOST_MODELS)
        given = range(K) if seeds is None else checks.one_each(seeds, K, "seeds")
        own = [checks.positive_int(seed, f"seeds[{i}]", least=0) for i, seed in enumerate(given)]
        several = isinstance(regularizer, (list, tuple))
        penalties = checks.one_each(regularizer if several else [regularizer] * K, K, "regularizer")
        shared = widths, activation, output_activation, loss
        rest = initializer, precision, get_backend(backend, precision)
        pairs = zip(penalties, own, strict=True)
        self._hold([MLP(*shared, penalty, *rest, seed, **more) for penalty, seed in pairs])

    @classmethod
    def of(cls, nets: Sequence[MLP]) -> Self:
        """An ensemble of networks of one shape; their parameters move into one array.

        ValueError: they differ in more than parameters, seed, λΩ(θ) and initialiser, or one is in
        them twice.  TypeError: they are no networks.
        """
        check_members(nets)
        found = object.__new__(cls)
        found._hold(nets)
        return found

    def _hold(self, nets: Sequence[MLP]) -> None:
        """Move the parameters of the members into one array."""
        self.nets, self.diverged = tuple(nets), set[int]()
        backend, layout = nets[0].backend, nets[0].theta.layout
        self.theta: Array = backend.full((len(nets), layout.whole), 0)
        alike = backend.storage == backend.dtype
        size = (len(nets), layout.size)
        self.rounded = self.theta if alike else backend.full(size, 0, backend.storage)
        for i, net in enumerate(nets):
            net.keep_in(self.theta[i], self.rounded[i])
        self.views = [net.theta for net in nets]  # of `theta`, unless a network moves again

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute, unless the members have what it was: AttributeError."""
        if name != "diverged" and vars(self).get(name, value) is not value:
            raise AttributeError(f"{name} of an ensemble cannot change; make a new Ensemble")
        super().__setattr__(name, value)

    @property
    def backend(self) -> Backend:
        """The backend of all members."""
        return self.nets[0].backend

    @property
    def widths(self) -> Sequence[int]:
        """n_0, …, n_L of each member."""
        return self.nets[0].widths

    @property
    def f(self) -> Sequence[Activation]:
        """The activations of each member, as `MLP.f`."""
        return self.nets[0].f

    @property
    def loss(self) -> Loss:
        """The loss of all members."""
        return self.nets[0].loss

    @property
    def precision(self) -> str:
        """The arithmetic of all members."""
        return self.backend.precision

    @property
    def whole(self) -> list[MLP]:
        """The members that have not diverged, of which predictions are the mean.

        ValueError: all members diverged.
        """
        found = [net for i, net in enumerate(self.nets) if i not in self.diverged]
        if not found:
            raise ValueError(
                "all members diverged, so there is no mean; train a new Ensemble with a lower lr, "
                "or call predict with members=True"
            )
        return found

    @property
    def seeds(self) -> list[int]:
        """The seeds of the members."""
        return [net.seed for net in self.nets]

    def __len__(self) -> int:
        return len(self.nets)

    def __getitem__(self, i: int) -> MLP:
        return self.nets[i]

    def __iter__(self) -> Iterator[MLP]:
        return iter(self.nets)

    def __repr__(self) -> str:
        lost = f", {len(self.diverged)} diverged" if self.diverged else ""
        return f"Ensemble({len(self)} × {self.nets[0]!r}{lost})"

    def predict(self, x: Array, members: bool = False, samples: int | None = None) -> Array:
        """The mean of the members' link(ŷ) of x: probabilities, rates or values, (m, n_L).

        Members that diverged are left out of it.

        Args:
            x: (m, n_0).
            members: True: the predictions of all members, (K, m, n_L).
            samples: how often each member predicts with dropout, as in `MLP.predict`: an axis of
                this length before m.

        Raises:
            ValueError: x is not as described, all members diverged, or samples are asked of members
                without dropout.
        """
        rows = checks.examples(self.backend, x, self.widths[0])
        if checks.boolean(members, "members"):
            each = [net.predict(rows, samples) for net in self.nets]
            stacked = self.backend if self.backend.owns(each[0]) else np
            found = _stacked(stacked, each)
            return found if samples else as_kind_of(found, x)
        first, *others = self.whole
        total = first.predict(rows, samples)
        for net in others:
            total += net.predict(rows, samples)
        total /= 1 + len(others)
        self.backend.synchronize()
        return total if samples else as_kind_of(total, x)

    def forward(self, x: Array) -> Array:
        """Return ŷ of x (m, n_0), (m, n_L) float64: link(ŷ) is the mean that `predict` returns.

        ValueError: x is not as described, all members diverged, or the loss has a link of its own.
        """
        return as_kind_of(self._mean_output(checks.examples(self.backend, x, self.widths[0])), x)

    def cost_and_prediction(self, x: Array, y: Array) -> tuple[float, Array]:
        """Return J of the mean prediction of x, and this prediction, float64; as `MLP` does.

        J = L + λΩ(θ), where L is that of `forward`, and λΩ(θ) the mean of the members'.
        """
        backend, n = self.backend, self.widths[-1]
        rows = checks.examples(backend, x, self.widths[0])
        y = checks.targets(backend, self.loss, y, len(rows), n)
        y = y if isinstance(y, np.ndarray) else backend.to_host(y)
        p, total = np.empty((len(rows), n)), 0.0
        for part in chunks(rows, rows=CHUNK):
            y_hat = self._mean_output(rows[part])
            p[part] = self.loss.link.f(y_hat, **self.loss.link.params)
            known = np.eye(n)[y[part]] if y.ndim == 1 else y[part].astype(np.float64)
            total += float(self.loss.examples(y_hat, known).sum())
        return total / len(rows) + self.penalty(), as_kind_of(p, x)

    def penalty(self) -> float:
        """The mean of the members' λΩ(θ)."""
        return float(np.mean([net.penalty() for net in self.whole]))

    def _mean_output(self, rows: Array) -> HostArray:
        """ŷ of checked rows, on the host: see `forward`."""
        each = [net.forward(rows) for net in self.whole]
        to_host = self.backend.to_host if self.backend.owns(each[0]) else np.asarray
        return self.loss.mean_output([to_host(y_hat) for y_hat in each])  # type: ignore[no-any-return]

    def config(self) -> dict[str, Any]:
        """Return the settings in JSON types: ``Ensemble(**config)`` builds the same members."""
        config = self.nets[0].config()
        del config["seed"]
        penalties = [net.regularizer.spec() for net in self.nets]
        return {"K": len(self), **config, "regularizer": penalties, "seeds": self.seeds}

    def save(self, path: storage.PathLike, extra: Mapping[str, Any] | None = None) -> None:
        """Write θ and the settings to a safetensors file.  A crash leaves the old file or the new.

        A tensor has the name of `MLP.tensors` behind its member's: "members.3.0.weight".  The
        metadata has the settings, `diverged`, the SHA-256 of all, and `extra`, as in `MLP.save`.
        """
        settings = {"config": self.config(), "diverged": sorted(self.diverged)}
        metadata = {"gpumlp": storage.FORMAT, "ensemble": json.dumps(settings)}
        storage.write(path, tensors(self.nets), metadata | storage.extra_of(extra))

    @classmethod
    def load(
        cls, path: storage.PathLike, backend: str | Backend = "auto",
        functions: Sequence[Entry] = (),
    ) -> Self:  # fmt: skip
        """Return the ensemble that `save` wrote.

        Args:
            path: the file.
            backend: the backend to load it into.
            functions: your own entries that the members were built with.

        Raises:
            CheckpointError: the file is damaged, foreign or does not fit.
        """
        tensors, metadata = storage.read(path)
        if "ensemble" not in metadata:
            instead = "; load it by gpumlp.MLP.load" if "network" in metadata else ""
            raise CheckpointError(f"{path} has no ensemble{instead}")
        settings = storage.json_of(path, metadata["ensemble"])
        try:
            config = storage.with_functions(settings["config"], functions)
            if not has_precision(backend, config.get("precision")):
                config["precision"] = "float32"  # θ's own type
            found = cls(**{**config, "backend": backend})
            found.assign(tensors)
            found.diverged = set(settings["diverged"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: {error}") from error
        return found

    def assign(self, tensors: Mapping[str, Array]) -> None:
        """θ ← tensors, by the names that `save` gives them.

        ValueError: a name is missing or unknown, or a shape differs.
        """
        parts: list[dict[str, Array]] = [{} for _ in self.nets]
        for name, a in tensors.items():
            first, _, rest = name.partition(".")
            number, _, own = rest.partition(".")
            if first != "members" or not number.isdecimal() or int(number) >= len(self):
                raise ValueError(f"tensor names do not fit {len(self)} members: {name}")
            parts[int(number)][own] = a
        for net, part in zip(self.nets, parts, strict=True):
            net.assign(part)

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies and pickles keep: the members, each with its own θ."""
        return {"nets": self.nets, "diverged": self.diverged}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._hold(state["nets"])
        self.diverged = set(state["diverged"])


def tensors(nets: Sequence[MLP]) -> dict[str, HostArray]:
    """θ of several networks, by the names of `MLP.tensors` behind "members.0.", "members.1.", …"""
    each = enumerate(net.tensors().items() for net in nets)
    return {f"members.{i}.{name}": a for i, own in each for name, a in own}


def _stacked(backend: Any, each: Sequence[Array]) -> Array:
    """The arrays as one, (K, …), of NumPy or of the backend."""
    out = backend.empty((len(each), *each[0].shape), each[0].dtype)
    for place, a in zip(out, each, strict=True):
        place[...] = a
    return out
