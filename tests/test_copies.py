"""Copies and pickles of entries, networks and trainers are independent of the original."""

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
def test_copied_parameters_have_views_of_their_own(duplicate):
    theta = network().theta
    copied = duplicate(theta)
    copied.W[1][...] = 0
    assert copied.flat.any()
    assert not copied.flat[: copied.W[1].size].any()
    assert theta.W[1].all()


@pytest.mark.parametrize("duplicate", COPIES)
def test_a_copied_network_has_its_own_theta(duplicate):
    net, (x, y) = network(), problem()
    copied = duplicate(net)
    assert copied.config() == net.config()
    assert copied.cost(x, y) == net.cost(x, y)
    before = net.theta.flat.copy()
    copied.layers[0].W[...] = 0  # a view of the copy's own θ
    assert not copied.theta.W[1].any()
    np.testing.assert_array_equal(net.theta.flat, before)


@pytest.mark.parametrize("duplicate", COPIES)
def test_a_copied_trainer_continues_like_the_original(duplicate):
    (x, y), net = problem(), network()
    trainer = gpumlp.Trainer(net, "adam", 0.01, batch_size=16)
    trainer.fit(x, y, 3, progress=False)
    copied = duplicate(trainer)
    for each in (trainer, copied):
        each.fit(x, y, 3, progress=False)
    assert copied.history["cost"] == trainer.history["cost"]
    assert copied.net.theta.flat.tobytes() == trainer.net.theta.flat.tobytes()
    assert not np.shares_memory(copied.net.theta.flat, trainer.net.theta.flat)


@pytest.mark.parametrize("duplicate", COPIES)
def test_a_copied_entry_is_equal(duplicate):
    for entry in (entry for table in TABLES for entry in table.values()):
        assert duplicate(entry) == entry
        for name, value in entry.params.items():
            changed = entry.set(**{name: value * 0.5 if value else 0.25})
            assert duplicate(changed) == changed != entry


def test_the_old_name_of_is_built_in_warns():
    with pytest.warns(DeprecationWarning, match=r"is now Activation\.is_built_in"):
        assert ACTIVATIONS["relu"].stands_in_a_table()


def own_square(z):
    return z * z


def own_slope(z, h):
    return 2 * z


def test_custom_entries_are_pickled_unless_they_have_lambdas():
    own = gpumlp.Activation("square", f=own_square, df=own_slope, reads="z")
    assert pickle.loads(pickle.dumps(own)) == own
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(gpumlp.Activation("square", f=lambda z: z * z, df=own_slope, reads="z"))


def test_custom_entry_with_a_builtin_name_raises():
    """A saved network would be loaded with gpumlp's function."""
    own = gpumlp.Activation("relu", f=own_square, df=own_slope, reads="z")
    with pytest.raises(
        ValueError, match="'relu' is not gpumlp's function of that name; rename yours"
    ):
        MLP([2, 3, 1], own, loss="huber", backend="numpy")


def test_pickles_of_a_version_without_blocks_and_embeddings():
    net = gpumlp.MLP([4, 5, 2], backend="numpy", seed=3)
    state = {k: v for k, v in net.__getstate__().items() if k not in ("blocks", "embed")}
    loaded = object.__new__(gpumlp.MLP)
    loaded.__setstate__(state)
    x = np.random.default_rng(0).normal(size=(6, 4))
    assert np.array_equal(loaded.predict(x), net.predict(x))
    assert loaded.config() == net.config()
