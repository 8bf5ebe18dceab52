"""Train on a file that need not fit in memory: `fit` accepts an np.memmap, in its own dtype.

For each of 100,000 people, the file contains the number of copies (0, 1 or 2) of 1,000 gene
variants.  As uint8 it needs a quarter of the space that float32 would need.  `fit` leaves it on the
disk, and reads and casts one minibatch after the other.
"""

import tracemalloc
from pathlib import Path

import numpy as np

import gpumlp

PEOPLE, VARIANTS, FILE = 100_000, 1000, "variants.npy"

rng = np.random.default_rng(0)
x = np.lib.format.open_memmap(FILE, "w+", np.uint8, (PEOPLE, VARIANTS))
for rows in np.array_split(np.arange(PEOPLE), 50):  # in pieces, as a sequencer writes it
    x[rows] = rng.binomial(2, 0.3, (len(rows), VARIANTS))
effect = rng.normal(size=20)
score = x[:, :20] @ effect + 2.0 * (x[:, 20] > 0) * (x[:, 21] > 0)  # two variants that act together
y = (score > np.median(score)).astype(np.int64)

x = np.load(FILE, mmap_mode="r")
test = slice(PEOPLE - 5000, PEOPLE)
net = gpumlp.MLP([VARIANTS, 32, 2], activation="relu", regularizer=gpumlp.L1(1e-4))
trainer = gpumlp.Trainer(net, lr=1e-3, batch_size=256)

tracemalloc.start()  # counts allocations; pages of the file are the system's cache
history = trainer.fit(x[:-5000], y[:-5000], epochs=2, validation=(x[test], y[test]))
peak = tracemalloc.get_traced_memory()[1]

print(f"on disk, as uint8    {x.nbytes / 1e6:6.0f} MB")
print(f"cast to float32      {x.nbytes * 4 / 1e6:6.0f} MB, for comparison")
print(f"arrays at the peak   {peak / 1e6:6.1f} MB")
print(f"accuracy             {history['val_metric'][-1]:6.3f}")

del x
Path(FILE).unlink()
