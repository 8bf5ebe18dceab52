# One optimizer step of a W in the product that computes its gradient: W ← rule(W, gzᵀ h + λ W).
#
# The gradient stays in registers: the step reads and writes W, its 16-bit copy and the optimizer's
# state, and nothing else.  cuTile, compiled ahead of time: see gpumlp/backends/cuda/tiles.py.
#
# The loader supplies ct, which is cuda.tile, and puts above this:
#   SLOTS                            the number of arrays in the optimizer's state
#   values(control, numbers)         the numbers that the rule reads, from the device and the launch
#   rule(theta, slots, g, values)    the entry's rule, which returns theta and slots
#
# A block computes one tile of W.  Two blocks share a multiprocessor, so that one multiplies while
# the other one updates.  With the whole tile in the update, the compiler would give up WGMMA, and
# with several tiles for each block it would spill registers.
TILE, DEPTH, PIECE = 128, 64, 32
BAND = 8  # neighbouring blocks share columns of gz and h in the L2 cache: rows of tiles in a band


def sqrt(x):
    return ct.sqrt(x, rounding_mode=ct.RoundingMode.APPROX)


def divide(x, y):
    return ct.truediv(x, y, rounding_mode=ct.RoundingMode.APPROX)


def sign(x):
    return ct.where(x > 0, 1.0, ct.where(x < 0, -1.0, x))


def number(control, i):
    return ct.astype(ct.gather(control, i), ct.float32)


# gz (m, n_out), h (m, n_in); theta is W, and rounded its copy, (n_out, n_in); slots (SLOTS, n_out,
# n_in).  numbers: λ, the group's factors of the learning rate and the weight decay, and the others
# that `values` reads.
@ct.kernel(num_ctas=1, occupancy=2)
def weight_update(gz, h, theta, rounded, slots, control, numbers):
    rows = ct.num_tiles(theta, axis=0, shape=(TILE, TILE))
    columns = ct.num_tiles(theta, axis=1, shape=(TILE, TILE))
    band = ct.bid(0) // (BAND * columns) * BAND
    height = min(rows - band, BAND)
    within = ct.bid(0) % (BAND * columns)
    i, j = band + within % height, within // height
    gradient = ct.full((TILE, TILE), 0, dtype=ct.float32)
    for k in range(ct.num_tiles(gz, axis=0, shape=(DEPTH, TILE))):
        a = ct.load(gz, index=(k, i), shape=(DEPTH, TILE), padding_mode=ct.PaddingMode.ZERO)
        b = ct.load(h, index=(k, j), shape=(DEPTH, TILE), padding_mode=ct.PaddingMode.ZERO)
        gradient = ct.mma(ct.transpose(a), b, gradient)
    now = values(control, numbers)
    pieces = ct.num_tiles(theta, axis=1, shape=(TILE, PIECE))
    for piece in ct.static_iter(range(TILE // PIECE)):
        c = j * (TILE // PIECE) + piece
        if c < pieces:  # a tile that is all beyond the end of W may not be read
            x = ct.load(theta, index=(i, c), shape=(TILE, PIECE))
            state = tuple(
                ct.reshape(ct.load(slots, index=(s, i, c), shape=(1, TILE, PIECE)), (TILE, PIECE))
                for s in ct.static_iter(range(SLOTS))
            )
            g = ct.extract(gradient, index=(0, piece), shape=(TILE, PIECE)) + numbers[0] * x
            x, state = rule(x, state, g, now)
            ct.store(theta, index=(i, c), tile=x)
            ct.store(rounded, index=(i, c), tile=ct.astype(x, rounded.dtype))
            for s in ct.static_iter(range(SLOTS)):
                ct.store(slots, index=(s, i, c), tile=ct.reshape(state[s], (1, TILE, PIECE)))
