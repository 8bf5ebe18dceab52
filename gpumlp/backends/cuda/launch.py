"""Grids and blocks of kernel launches: for matrices, for rows and for flat arrays."""

from __future__ import annotations

THREADS = 256  # in a block, as in kernels/common.cuh
WARP = 32
PACK_BYTES = 16  # of one memory access
BLOCKS = 8  # for each multiprocessor: 8 · 256 threads are the most that it can hold

Geometry = tuple[tuple[int, int], tuple[int, int]]
"""(grid, block), each (x, y)."""


def tile(rows: int, cols: int, pack: int, multiprocessors: int) -> Geometry:
    """For a kernel whose blocks each cover some columns and walk down a share of the rows.

    Each thread takes `pack` neighbouring columns.  A block is as wide as the matrix needs, a power
    of two and at most a warp.  The grid is as high as fills the device, but not higher than the
    rows.
    """
    threads = -(-cols // pack)
    x = min(WARP, 1 << (threads - 1).bit_length())
    y = THREADS // x
    across = -(-threads // x)
    down = min(-(-rows // y), max(1, BLOCKS * multiprocessors // across))
    return (across, down), (x, y)


def rows(count: int, multiprocessors: int) -> Geometry:
    """For a kernel that gives each row to a warp."""
    warps = THREADS // WARP
    return (1, min(-(-count // warps), BLOCKS * multiprocessors)), (WARP, warps)


def flat(n: int, pack: int, multiprocessors: int) -> Geometry:
    """For a kernel over n elements in any order, `pack` elements at a time."""
    blocks = -(-n // (THREADS * pack))
    return (max(1, min(blocks, BLOCKS * multiprocessors)), 1), (THREADS, 1)


ONE_BLOCK: Geometry = ((1, 1), (THREADS, 1))


def scratch_size(cols: int, pack: int, multiprocessors: int) -> int:
    """The largest number of partial sums of any launch on matrices up to `cols` wide."""
    return max(cols, BLOCKS * multiprocessors * WARP * pack)
