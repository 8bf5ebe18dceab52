"""Launches of one block on empty arrays: no rows, or n = 0.  Kernels may write only sums of 0.

Arrays have no bytes, so that AddressSanitizer sees every access, or spare bytes, which must not
change.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.support.harness.catalogue import CATALOGUE, DTYPES
from tests.support.harness.comparing import NUMPY_TYPE, real_of, strip
from tests.support.harness.compiled import kernel
from tests.support.harness.host_module import kernel_names
from tests.support.harness.memory import aligned, aligned_empty

i32, i64 = np.int32, np.int64
COLS = 16  # packed accesses are possible for every storage type

# (name in the catalogue, kernel) -> one letter for each array, and sizes.
#   arrays without elements: T in the storage type, R in the type of arithmetic, L labels, I an
#   index, U uint8, H int16
#   b: a bias of COLS numbers, B two rows of them, S the latter in the type of arithmetic
#   c: float64 numbers that the kernel reads
#   p: position 0 of an epoch;  f: two factors of 1;  z: a sum of 0;  a: counts of 0
#   written, all become 0: s one sum, m one sum and sums of COLS columns, O sums of COLS columns in
#   the storage type;  v sums of COLS columns, w those of two rows, W these in the storage type;
#   M those of three rows
MATRIX = (i64(0), i64(COLS))
APART = i64(0)
LAUNCHES: dict[tuple[str, str], tuple[str, tuple[Any, ...]]] = {
    ("silu", "bias_activation"): ("TbT", (*MATRIX, APART, "packed")),
    ("silu", "activation"): ("TT", (*MATRIX, "packed")),
    ("silu", "activation_gradient"): ("TTTTROa", (*MATRIX, APART, "packed")),
    ("softmax", "forward"): ("TbT", (*MATRIX, APART, "packed")),
    ("softmax", "vjp"): ("TTT", (*MATRIX, "packed")),
    ("huber of values", "loss"): ("TRRsaz", (*MATRIX, "packed", "real")),
    ("huber of values", "loss_gradient"): (
        "TRRcTsOazpz",
        (i64(0), *MATRIX, APART, "packed", "real"),
    ),
    ("huber of labels", "loss"): ("TLRsaz", (*MATRIX, "packed", "real")),
    ("huber of labels", "loss_gradient"): (
        "TLRcTsOazpz",
        (i64(0), *MATRIX, APART, "packed", "real"),
    ),
    ("softmax_cross_entropy of values", "loss"): ("TRRsaz", (*MATRIX, "packed", i32(1))),
    ("softmax_cross_entropy of values", "loss_gradient"): (
        "TRRcTmOazpz",
        (i64(0), *MATRIX, APART, "packed", i32(2)),
    ),
    ("softmax_cross_entropy of labels", "loss"): ("TLRsaz", (*MATRIX, "packed", i32(1))),
    ("softmax_cross_entropy of labels", "loss_gradient"): (
        "TLRcTmOazpz",
        (i64(0), *MATRIX, APART, "packed", i32(2)),
    ),
    ("layer norm", "stage"): ("TTT", (*MATRIX, APART, "packed", i32(2))),
    ("layer norm", "stage_gradient"): (
        "TTTTTwWa",
        (*MATRIX, APART, APART, i32(1), "packed", i32(2)),
    ),
    ("rms norm", "stage"): ("TTT", (*MATRIX, APART, "packed", i32(0))),  # as for wide rows
    ("rms norm", "stage_gradient"): (
        "TTTTTvOa",
        (*MATRIX, APART, APART, i32(0), "packed", i32(0)),
    ),
    ("batch norm", "column_mean"): ("TSvRa", (*MATRIX, i64(COLS), "real", i32(1), "packed")),
    ("batch norm", "column_moments"): ("TMRMa", (*MATRIX, i64(COLS), i32(0), "packed")),
    ("batch norm", "columns"): ("TBST", (*MATRIX, i64(COLS), "packed")),
    ("batch norm", "running_mean"): ("RR", (i64(0), i64(0), i64(4))),
    ("batch norm", "column_slopes"): (
        "TBTSwWRa",
        (*MATRIX, i64(COLS), "real", i32(1), "packed"),
    ),
    ("batch norm", "columns_gradient"): (
        "TBTSSTT",
        (*MATRIX, i64(COLS), i32(1), i32(1), "packed"),
    ),
    ("whole batch norm", "whole_columns"): ("TBMRT", (*MATRIX, i64(COLS), i32(0))),
    ("whole batch norm", "whole_columns_gradient"): (
        "TBTSWTT",
        (*MATRIX, i64(COLS), i32(1)),
    ),
    ("gate of silu", "stage"): ("TT", (*MATRIX, "packed")),
    ("gate of silu", "stage_gradient"): ("TTTRWa", (*MATRIX, APART, "packed")),
    ("dropout", "dropout"): (
        "TTpcT",
        (i64(0), i64(0), i64(1), i64(5), i32(9), "real", i32(1), "packed"),
    ),
    ("dropout", "join"): ("TTT", (i64(0), "packed")),
    ("embedding", "embed"): ("RTT", (i64(0), APART)),
    ("embedding", "embed_sort"): ("RIT", (i64(0), i64(0), APART, APART, i32(2), "packed")),
    ("embedding", "embed_merge"): ("II", (i64(0), APART, i64(2))),
    ("embedding", "embed_sum"): ("ITTRf", (i64(0), i64(43), APART, APART, i64(32), i32(1))),
    ("embedding", "embed_join"): ("ITRf", (i64(0), APART, APART, i64(32), i32(1))),
    ("reduce", "add"): ("TR", (i64(0), i32(0))),
    ("reduce", "tree_sum"): ("RR", (i64(5), i64(0))),
    ("reduce", "tree_moments"): ("RR", (i64(5), i64(0))),
    ("gather", "gather"): ("TIT", (*MATRIX, "packed")),
    ("gather", "mean_weights"): ("RIR", (i64(0),)),
    ("cast from uint8", "cast"): ("UT", (i64(0), "packed")),
    ("penalty elastic_net", "penalty"): ("RTsaz", (i64(0), i64(0), "real", i32(1))),
    ("penalty elastic_net", "clip"): (
        "RRTccsa",
        (i64(0), i64(0), "real", np.float64(2), i64(0), i64(5)),
    ),
    ("penalty elastic_net", "square_sum"): ("RRTczsa", (i64(0), i64(0), "real")),
    ("penalty elastic_net", "clip_by"): ("ccc", (i64(0), np.float64(2), i64(0))),
    ("update by adamw", "update"): ("RTTRccc", (i64(0), i64(0), "real", *[i64(0)] * 3)),
    ("round", "round_theta"): ("RT", (i64(0),)),
    ("round", "split_theta"): ("RTH", (i64(0),)),
    ("round", "restore_theta"): ("RTH", (i64(0),)),
    ("orthogonal", "squares"): ("Rs", (i64(0), i64(0))),
    ("orthogonal", "normalize"): ("RfT", (i64(0), i64(0), np.float64(1))),  # one partial sum
    ("orthogonal", "quintic"): ("TT", (i64(0), "real", "real", "real", "real")),
    ("average", "average"): ("RRRc", (i64(0), i64(4), np.float64(0.9))),
    ("step", "begin"): ("pIcIcfz", (i64(4), i64(0), i64(3), i64(1))),
    ("step", "begin_minibatch"): (
        "pIcIcfzTTRRRR",
        (
            i64(4),
            i64(0),
            i64(3),
            i64(1),
            i64(COLS),
            i64(COLS),
            "packed",
            "packed",
            i32(0),
            i32(32),
            i32(32),
            i32(2),
        ),
    ),
}
ROWS_OF_WARPS = ("gather", "softmax", "silu", "softmax_cross")  # blocks of (32, 8)
CASES = [
    (dtype, *key, packed)
    for dtype in (*DTYPES, "int32")
    for key, (_, sizes) in LAUNCHES.items()
    for packed in ((0, 1) if "packed" in sizes else (0,))
    if dtype != "int32" or key == ("gather", "gather")
]


def test_every_kernel_has_a_case() -> None:
    existing = {(s.file, k) for s in CATALOGUE["float32"].values() for k in kernel_names(s)}
    tested = {(CATALOGUE["float32"][name].file, k) for name, k in LAUNCHES}
    assert tested == existing - {("step.cu", "end")}  # it has no sizes


@pytest.mark.parametrize("spare", [0, 48])
@pytest.mark.parametrize(("dtype", "source", "name", "packed"), CASES)
def test_empty_arrays(dtype: str, source: str, name: str, packed: int, spare: int) -> None:
    storage, real = NUMPY_TYPE.get(dtype, np.dtype(dtype)), real_of(dtype)
    letters, sizes = LAUNCHES[source, name]
    make = {
        "T": lambda: aligned_empty((spare,), storage), "R": lambda: aligned_empty((spare,), real),
        "L": lambda: aligned_empty((spare,), i32), "I": lambda: aligned_empty((spare,), i64),
        "b": lambda: aligned(np.ones(COLS), storage),
        "B": lambda: aligned(np.ones(2 * COLS), storage),
        "S": lambda: aligned(np.ones(2 * COLS), real), "c": lambda: aligned(np.ones(5)),
        "s": lambda: aligned_empty((1,), real), "m": lambda: aligned_empty((1 + COLS,), real),
        "v": lambda: aligned_empty((COLS,), real), "w": lambda: aligned_empty((2 * COLS,), real),
        "W": lambda: aligned_empty((2 * COLS,), storage),
        "M": lambda: aligned_empty((3 * COLS,), real),
        "a": lambda: aligned([0, 0, 0], np.uint32),
        "O": lambda: aligned_empty((COLS,), storage), "p": lambda: aligned([0], i64),
        "f": lambda: aligned([1, 1], real), "z": lambda: aligned([0.0]),
        "U": lambda: aligned_empty((spare,), np.uint8),
        "H": lambda: aligned_empty((spare,), np.int16),
    }  # fmt: skip
    arrays = [make[letter]() for letter in letters]
    before = [a.tobytes() for a in arrays]
    scalars = {"packed": i32(packed), "real": real(0.5)}
    block = (32, 8) if source.startswith(ROWS_OF_WARPS) and name != "mean_weights" else (256, 1)
    grid = 1, 1
    if source == "whole batch norm":
        grid, block = (COLS * storage.itemsize // 32, 1), strip(dtype)
    kernel(name, CATALOGUE[dtype][source])(
        grid, block, (*arrays, *(scalars[s] if isinstance(s, str) else s for s in sizes))
    )
    for letter, a, old in zip(letters, arrays, before, strict=True):
        assert a.tobytes() == (bytes(a.nbytes) if letter in "smMOvwW" else old)
