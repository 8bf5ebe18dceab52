"""What should each layer's output have been?  Its gradient gh = ∂J/∂h says so.

The book (section 6.5) reads the gradients of Algorithm 6.4 as guidance: how each layer's output
should change to reduce the error.  Here we take it at its word.  Of the digits that a network gets
wrong we move one layer's output h, and nothing else, against gh, to where a cost linear in h would
be 0: by J gh / ‖gh‖².  The layers above go on from there.  Beside it, a move as long at random.
"""

import numpy as np

import gpumlp
from gpumlp import data


def onward(net, h, k):
    """[h of layer k, given, then h of layers k+1 … L]: Algorithm 6.3 from layer k on."""
    outputs = [h]
    for layer in net.layers[k:]:
        outputs.append(layer.f.f(outputs[-1] @ layer.W.T + layer.b))
    return outputs


def lengths(rows):
    """‖row‖ of each, as a column."""
    return np.linalg.norm(rows, axis=1, keepdims=True)


train, test = data.split(data.load("digits"), validation=0.5)
net = gpumlp.MLP([64, 64, 64, 64, 10], activation="tanh", backend="numpy")
gpumlp.Trainer(net, lr=1e-3, batch_size=64).fit(train.x, train.y, epochs=8)

wrong = net.predict(test.x).argmax(axis=1) != test.y
x, y = test.x[wrong], test.y[wrong]
J = np.array([[net.cost(x[i : i + 1], y[i : i + 1])] for i in range(len(y))])
_, gradients = net.cost_and_gradients(x, y)  # of the mean cost: an example's own is len(y) times it

print(f"{len(y)} of {len(test)} digits are taken for others.  With one layer's output moved,")
print(f"{'layer':<8}{'by':>5}{'right along gh':>20}{'right at random':>20}")
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
    print(f"{f'h{k}' if k else 'h0 = x':<8}{share:>5.0%}{guided:>20.0%}{blind:>20.0%}")
