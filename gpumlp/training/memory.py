"""Memory: the bytes that a fit needs, by purpose."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20
NAMES = {
    "theta": "θ",
    "rounded": "θ in 16 bits",
    "gradient": "gradient, loss scale",
    "slots": "the optimizer's state",
    "average": "average of θ",
    "best": "best θ, for early stopping",
    "data": "data",
    "tables": "order and tables",
    "h": "a step's x, y and h",
    "z": "a step's z",
    "bits": "a step's signs of relu",
    "gz": "a step's gz",
    "evaluation": "evaluation",
    "scratch": "workspace of products and sums",
}


@dataclass(frozen=True, repr=False)
class Memory:
    """The bytes that a fit needs in its backend, by purpose.  It prints as a table.

    Attributes:
        examples, batch_size, accumulate: the number of training examples, the examples of a step,
            and the micro-batches of a step.
        theta, …, scratch: the bytes of each purpose in `NAMES`.  `data` has no arrays that the
            backend uses in place; for streamed data, it is two minibatches.  `tables` is an
            epoch's order, weights and costs too; `gz` also holds an h that is recomputed;
            `scratch` includes the workspace of Muon.
        held: the bytes of all these that are allocated already.
    """

    examples: int
    batch_size: int
    theta: int
    rounded: int
    gradient: int
    slots: int
    average: int
    best: int
    data: int
    tables: int
    h: int
    z: int
    bits: int
    gz: int
    evaluation: int
    scratch: int
    held: int
    accumulate: int = 1

    @property
    def total(self) -> int:
        """The bytes of all purposes."""
        return sum(getattr(self, name) for name in NAMES)

    @property
    def missing(self) -> int:
        """The bytes that are still to be allocated."""
        return self.total - self.held

    def __str__(self) -> str:
        title = f"{self.examples:,} examples, batch_size {self.batch_size}"
        title += f", accumulate {self.accumulate}" * (self.accumulate > 1)
        sizes = {label: getattr(self, name) for name, label in NAMES.items()}
        sizes |= {"total": self.total, "allocated already": self.held}
        wide = max(map(len, [title, *sizes]))
        lines = [f"{label:<{wide}} {n / MIB:12,.2f}" for label, n in sizes.items() if n]
        return "\n".join([f"{title:<{wide}} {'MiB':>12}", *lines])

    __repr__ = __str__
