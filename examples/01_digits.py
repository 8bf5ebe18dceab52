"""Digits in 15 lines: load, split, train, and draw the digit with the least certain prediction."""

import numpy as np

import gpumlp
from gpumlp import data

train, test = data.split(data.load("digits"), validation=0.25)
net = gpumlp.MLP([64, 128, 128, 10], activation="gelu", regularizer=gpumlp.L2(1e-4))
trainer = gpumlp.Trainer(net, lr=3e-3, batch_size=64, schedule="warmup_cosine")
history = trainer.fit(train.x, train.y, epochs=20, validation=(test.x, test.y))
print(net)
print(f"accuracy {history['val_metric'][-1]:.3f} on {len(test)} new digits")

p = net.predict(test.x)  # (m, 10) probabilities
i = p.max(axis=1).argmin()
print(f"least certain: a {test.y[i]}, predicted as {p[i].argmax()} with p = {p[i].max():.2f}")
for row in np.rint(test.x[i].reshape(8, 8) * 4).astype(int):
    print("   " + "".join(" ░▒▓█"[v] * 2 for v in row))
