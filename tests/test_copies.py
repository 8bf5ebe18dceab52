"""Copies and pickles of entries, networks and trainers stand on their own."""

import copy
import pickle

import numpy as np
import pytest

import gpumlp
from gpumlp import ACTIVATIONS, LOSSES, MLP, OPTIMIZERS, REGULARIZERS

COPIES = [copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))]
TABLES = [ACTIVATIONS, LOSSES, OPTIMIZERS, REGULARIZERS, gpumlp.SCHEDULES, gpumlp.INITIALIZERS]


def problem():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 3))
    return x, np.tanh(x[:, :1])


def network():
    return MLP(
        [3, 8, 1], ACTIVATIONS["leaky_relu"].set(slope=0.2), loss="huber", regularizer="l2",
        precision="float64", backend="numpy",
    )  # fmt: skip


@pytest.mark.parametrize("duplicate", COPIES)
def test_a_network(duplicate):
    net, (x, y) = network(), problem()
    twin = duplicate(net)
    assert twin.config() == net.config()
    assert twin.cost(x, y) == net.cost(x, y)
    before = net.theta.flat.copy()
    twin.layers[0].W[...] = 0  # a view of the twin's own θ
    assert not twin.theta.W[1].any()
    np.testing.assert_array_equal(net.theta.flat, before)


@pytest.mark.parametrize("duplicate", COPIES)
def test_a_trainer_goes_on_like_its_original(duplicate):
    (x, y), net = problem(), network()
    trainer = gpumlp.Trainer(net, "adam", 0.01, batch_size=16)
    trainer.fit(x, y, 3, progress=False)
    twin = duplicate(trainer)
    for each in (trainer, twin):
        each.fit(x, y, 3, progress=False)
    assert twin.history["cost"] == trainer.history["cost"]
    assert twin.net.theta.flat.tobytes() == trainer.net.theta.flat.tobytes()
    assert not np.shares_memory(twin.net.theta.flat, trainer.net.theta.flat)


@pytest.mark.parametrize("duplicate", COPIES)
def test_every_entry(duplicate):
    for entry in (entry for table in TABLES for entry in table.values()):
        assert duplicate(entry) == entry
        for name, value in entry.params.items():
            changed = entry.set(**{name: value * 0.5 if value else 0.25})
            assert duplicate(changed) == changed != entry


def own_square(z):
    return z * z


def own_slope(z, h):
    return 2 * z


def test_an_entry_of_ones_own():
    own = gpumlp.Activation("square", f=own_square, df=own_slope, reads="z")
    assert pickle.loads(pickle.dumps(own)) == own
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(gpumlp.Activation("square", f=lambda z: z * z, df=own_slope, reads="z"))


def test_another_function_under_a_known_name_is_refused():
    """A saved network would come back with gpumlp's."""
    own = gpumlp.Activation("relu", f=own_square, df=own_slope, reads="z")
    with pytest.raises(
        ValueError, match="'relu' is not gpumlp's function of that name; rename yours"
    ):
        MLP([2, 3, 1], own, loss="huber", backend="numpy")
