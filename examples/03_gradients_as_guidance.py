"""What should each layer's output have been?  Its gradient gh = ∂J/∂h is the answer.

The book (section 6.5) calls the gradients of Algorithm 6.4 guidance: they say how each layer's
output should change to reduce the error.  This example tests that.  For the digits that a network
gets wrong, it moves one layer's output h, and nothing else, against gh.  The move −J gh / ‖gh‖²
ends where a cost that is linear in h would be 0.  The layers above are computed from there.  For
comparison, h is also moved by the same distance in a random direction.
"""

import numpy as np

import gpumlp
from gpumlp import data


def onward(net, h, k):
    """Return h of layer k, which is given, and of layers k+1 … L: Algorithm 6.3 from layer k on."""
    outputs = [h]
    for layer in net.layers[k:]:
        outputs.append(layer.f.f(outputs[-1] @ layer.W.T + layer.b))
    return outputs


def lengths(rows):
    """Return ‖row‖ of each row, as a column."""
    return np.linalg.norm(rows, axis=1, keepdims=True)


train, test = data.split(data.load("digits"), validation=0.5)
net = gpumlp.MLP([64, 64, 64, 64, 10], activation="tanh", backend="numpy")
gpumlp.Trainer(net, lr=1e-3, batch_size=64).fit(train.x, train.y, epochs=8)

wrong = net.predict(test.x).argmax(axis=1) != test.y
x, y = test.x[wrong], test.y[wrong]
J = np.array([[net.cost(x[i : i + 1], y[i : i + 1])] for i in range(len(y))])
# these are gradients of the mean cost; that of an example's own cost is len(y) times as large
_, gradients = net.cost_and_gradients(x, y)

print(f"{len(y)} of {len(test)} digits are wrong.  Share that is right after one layer was moved:")
print(f"{'layer':<8}{'moved by':>10}{'along −gh':>15}{'at random':>15}")
rng = np.random.default_rng(0)
outputs = onward(net, x, 0)
for k, gh in enumerate([gradients.x, *gradients.h[:-1]]):
    h, gh = outputs[k], len(y) * gh
    move = J * gh / lengths(gh) ** 2
    noise = rng.normal(size=h.shape)
    noise *= lengths(move) / lengths(noise)
    guided, blind = (
        np.mean(onward(net, h - by, k)[-1].argmax(axis=1) == y) for by in (move, noise)
    )
    share = np.median(lengths(move) / lengths(h))
    print(f"{f'h{k}' if k else 'h0 = x':<8}{share:>10.0%}{guided:>15.0%}{blind:>15.0%}")
