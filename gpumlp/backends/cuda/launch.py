"""Grids and blocks: one function for matrices, one for rows, one for flat arrays."""

from __future__ import annotations

THREADS = 256  # a block's, as in kernels/common.cuh
WARP = 32
PACK_BYTES = 16
BLOCKS = 8  # a multiprocessor: 8 · 256 threads are all that it can hold, where registers allow

Geometry = tuple[tuple[int, int], tuple[int, int]]
"""(grid, block), each (x, y)."""


def tile(rows: int, cols: int, pack: int, multiprocessors: int) -> Geometry:
    """For a kernel whose blocks cover a tile of columns and walk down a share of the rows.

    A thread takes `pack` neighbouring columns.  The block is as wide as the matrix needs, up to a
    warp, and a power of two; the grid is as high as fills the device, but no higher than the rows.
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
    """For a kernel over n elements in any order, `pack` of them at a time."""
    blocks = -(-n // (THREADS * pack))
    return (max(1, min(blocks, BLOCKS * multiprocessors)), 1), (THREADS, 1)


ONE_BLOCK: Geometry = ((1, 1), (THREADS, 1))


def scratch_size(cols: int, pack: int, multiprocessors: int) -> int:
    """The most partial sums that any launch above leaves on matrices up to `cols` wide."""
    return max(cols, BLOCKS * multiprocessors * WARP * pack)
