"""Every kernel source that the library can request, made from its tables of functions.

Tests compile, measure and execute a new entry of a table without a change here.
"""

from __future__ import annotations

from gpumlp.backends.cuda.source import CASTS, KernelSource
from gpumlp.functions import ACTIVATIONS, LOSSES, OPTIMIZERS, REGULARIZERS
from gpumlp.functions.stages import GATES, NORMS, ColumnStage, Stage, gate
from tests.support.blocks import COLUMN_RMS, DYT, UNIT_NORM
from tests.support.embeddings import with_places

DTYPES = ("float64", "float32", "bfloat16", "float16")
RULES = dict(OPTIMIZERS) | {
    f"{rule.name} of {name}": rule
    for name, optimizer in OPTIMIZERS.items()
    for rule in optimizer.of_matrices()
}
STAGES: dict[str, Stage] = {
    f"{name} norm": stage for name, stage in NORMS.items() if not isinstance(stage, ColumnStage)
}
STAGES |= {stage.name: stage for stage in (DYT, UNIT_NORM)}  # of the users' own kind
STAGES |= {f"gate of {name}": gate(f) for name, f in GATES.items()}
COLUMNS = {f"{name} norm": stage for name, stage in NORMS.items() if isinstance(stage, ColumnStage)}
COLUMNS[COLUMN_RMS.name] = COLUMN_RMS
EMBEDDINGS = with_places(5, {0: (70_000, 2), 3: (300, 33), 4: (1, 8)})
# For tests of optimizers: a regulariser with a gradient at every θ, half as strong at biases.
PULL = REGULARIZERS["elastic_net"].set(l1=0.01, l2=0.1, biases=0.5)


def activation_source(name: str, dtype: str) -> KernelSource:
    """The source of an activation."""
    f = ACTIVATIONS[name]
    return KernelSource(f.cuda_file or "activation.cu", dtype, f.cuda())


def loss_source(name: str, dtype: str, labels: bool) -> KernelSource:
    """The source of a loss on rows of values, or on integer labels."""
    loss = LOSSES[name]
    return KernelSource(loss.cuda_file, dtype, loss.cuda(), labels)


def penalty_source(
    name: str, dtype: str, gradient: str = "", remainder: bool = False
) -> KernelSource:
    """The source of a regulariser's value, gradient and norm.  gradient: the type of dθ."""
    functor = REGULARIZERS[name].cuda()
    return KernelSource("penalty.cu", dtype, functor, gradient=gradient, remainder=remainder)


def update_source(
    name: str, dtype: str, slots: str = "", gradient: str = "", grouped: bool = False,
    remainder: bool = False,
) -> KernelSource:  # fmt: skip
    """The source of an optimizer's step with the gradient of `PULL`.  slots, gradient: types."""
    functor = RULES[name].cuda() + PULL.cuda()
    types = {"slots": slots, "gradient": gradient}
    return KernelSource("update.cu", dtype, functor, **types, grouped=grouped, remainder=remainder)


def stage_source(name: str, dtype: str) -> KernelSource:
    """The source of one of STAGES."""
    return KernelSource(STAGES[name].cuda_file, dtype, STAGES[name].cuda())


def cast_source(source: str, dtype: str) -> KernelSource:
    """The source of a cast from another type to the storage type."""
    return KernelSource("cast.cu", dtype, source=source)


def sources(dtype: str) -> dict[str, KernelSource]:
    """Name -> source, for all sources of one storage type."""
    named = {"gather": KernelSource("gather.cu", dtype)}
    if dtype == "int32":  # labels, which are only gathered
        return named
    named["reduce"] = KernelSource("reduce.cu", dtype)
    named["step"] = KernelSource("step.cu", dtype)
    named["step with labels"] = KernelSource("step.cu", dtype, labels=True)
    named |= {f"cast from {kind}": cast_source(kind, dtype) for kind in CASTS if kind != dtype}
    named |= {name: activation_source(name, dtype) for name in ACTIVATIONS}
    named |= {
        f"{name} of {kind}": loss_source(name, dtype, kind == "labels")
        for name in LOSSES
        for kind in ("values", "labels")
    }
    named |= {name: stage_source(name, dtype) for name in STAGES}
    named |= {n: KernelSource(s.cuda_file, dtype, s.cuda()) for n, s in COLUMNS.items()}
    named["whole batch norm"] = KernelSource("whole_columns.cu", dtype, NORMS["batch"].cuda())
    named["dropout"] = KernelSource("dropout.cu", dtype)
    named["embedding"] = KernelSource("embedding.cu", dtype, EMBEDDINGS.cuda())
    named["step with wide x"] = KernelSource("step.cu", dtype, wide=True)
    named["step with wide x and labels"] = KernelSource("step.cu", dtype, labels=True, wide=True)
    named["round"] = KernelSource("round.cu", dtype)
    named["orthogonal"] = KernelSource("orthogonal.cu", dtype)
    named["average"] = KernelSource("average.cu", dtype)
    named |= {f"update by {name}": update_source(name, dtype) for name in RULES}
    named |= {
        f"update by {name} with groups": update_source(name, dtype, grouped=True) for name in RULES
    }
    if dtype in ("bfloat16", "float16"):  # gradients that products add to are float32
        named |= {
            f"update by {name} with a gradient of float32": update_source(
                name, dtype, gradient="float32"
            )
            for name in RULES
        }
        named["update by adamw with all"] = update_source(
            "adamw", dtype, "bfloat16", "float32", grouped=True
        )
        named |= {
            f"penalty {name} with a gradient of float32": penalty_source(name, dtype, "float32")
            for name in REGULARIZERS
        }
    if dtype != "float64":
        named |= {
            f"update by {name} with slots of bfloat16": update_source(name, dtype, "bfloat16")
            for name, optimizer in OPTIMIZERS.items()
            if optimizer.slots
        }
    named |= {f"penalty {name}": penalty_source(name, dtype) for name in REGULARIZERS}
    if dtype == "bfloat16":
        split = {"dtype": dtype, "remainder": True}
        named |= {
            f"update by {name} with a remainder": update_source(name, **split) for name in RULES
        }
        named |= {
            "update by adamw with a remainder and slots of bfloat16": update_source(
                "adamw", slots="bfloat16", **split
            ),
            "update by adamw with a remainder and all": update_source(
                "adamw", slots="bfloat16", gradient="float32", grouped=True, **split
            ),
            "penalty elastic_net with a remainder": penalty_source("elastic_net", **split),
            "average with a remainder": KernelSource("average.cu", **split),
        }
    return named


CATALOGUE = {dtype: sources(dtype) for dtype in (*DTYPES, "int32")}
"""dtype -> name -> source."""
