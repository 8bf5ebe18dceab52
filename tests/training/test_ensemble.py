"""Ensembles: each member's training is that of its network alone, to the bit."""

from __future__ import annotations

import copy
import pickle
import signal
import threading
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import gpumlp
from gpumlp import MLP, Ensemble, EnsembleTrainer, Trainer
from gpumlp.callbacks import ReduceOnPlateau
from gpumlp.training import members as module
from tests.support import ctrl_c
from tests.support.compiled import needs_library
from tests.support.cuda_networks import on_host
from tests.support.harness.host_device import HostDevice
from tests.support.refusal import refusal

WIDTHS, M, K = [6, 12, 9, 3], 90, 4
BACKENDS = ["numpy", pytest.param("cpu", marks=needs_library)]
SEEDS = [3, 1, 4, 1]
PENALTIES = [None, gpumlp.L2(0.01), "l1", gpumlp.ElasticNet(1e-3, 1e-2, biases=True)]
RATES = {"adamw": [0.01, 0.02, 0.05, 0.003], "sgd": [0.1, 0.3, 0.02, 1.0], "muon": [0.01] * 4}


@pytest.fixture(params=[1, 3], ids="threads={}".format)
def threads(request: Any, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(module, "blas_threads", lambda: request.param)
    return int(request.param)


def data(m: int = M) -> tuple[Any, Any]:
    rng = np.random.default_rng(m)
    x = rng.normal(size=(m, WIDTHS[0]))
    return x, (x[:, :3] + rng.normal(size=(m, 3))).argmax(axis=1)


def members(**settings: Any) -> Ensemble:
    settings = {"regularizer": PENALTIES, "seeds": SEEDS, "backend": "numpy"} | settings
    return Ensemble(K, WIDTHS, **settings)


def alone(net: MLP, **settings: Any) -> MLP:
    """A network like a member that has not been trained."""
    config = {**net.config(), "activation": net.f[1:-1], **settings}
    return MLP(**config, backend=net.backend)


def assert_same(ours: EnsembleTrainer, i: int, single: Trainer) -> None:
    """θ, the optimizer's state and the history of member i are those of its own training."""
    assert np.array_equal(on_host(ours.ensemble.theta[i]), on_host(single.net.theta.flat))
    assert np.array_equal(on_host(ours.trainers[i].slots), on_host(single.slots))
    assert ours.histories is not None
    got, want = ours.histories[i], single.history
    for name in want:
        if name != "seconds":
            assert got[name] == want[name], (i, name)
    assert (got.stopped, got.best_epoch) == (want.stopped, want.best_epoch)
    assert ours.histories.best_epochs[i] == want.best_epoch


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", RATES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_each_member_equals_its_own_training(
    backend: str, optimizer: str, precision: str, threads: int
) -> None:
    """With own seeds, penalties and rates; members stop at different epochs, with their best θ."""
    (x, y), validation = data(), data(30)
    ensemble = members(backend=backend, precision=precision)
    trainer: Any = Trainer(ensemble, optimizer, lr=RATES[optimizer], batch_size=20, seed=7)
    fit = {"epochs": 25, "validation": validation, "early_stopping": 2}
    trainer.fit(x, y, **fit)
    for i, net in enumerate(ensemble):
        rate, seed = RATES[optimizer][i], 7 + SEEDS[i]
        single = Trainer(alone(net), optimizer, lr=rate, batch_size=20, seed=seed)
        single.fit(x, y, progress=False, **fit)
        assert_same(trainer, i, single)
    assert trainer.trainers[1].folds == (optimizer == "sgd")
    if optimizer == "adamw":
        assert len({history.epochs for history in trainer.histories}) > 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_second_fit_goes_on(backend: str, threads: int) -> None:
    """Optimizers, weights, ema and the same order for all."""
    x, y = data()
    weights = np.random.default_rng(0).uniform(size=M)
    rules = ["adam", gpumlp.OPTIMIZERS["adamw"].set(weight_decay=0.1), "nesterov", "lion"]
    settings: dict[str, Any] = {"batch_size": 25, "ema": 0.9, "seed": 2, "clip_norm": 1.0}
    ensemble = members(backend=backend)
    trainer = EnsembleTrainer(ensemble, rules, **settings)
    for _ in range(2):
        trainer.fit(x, y, 2, sample_weight=weights, class_weight="balanced", orders="same")
    for i, net in enumerate(ensemble):
        single = Trainer(alone(net), rules[i], **settings)
        for _ in range(2):
            single.fit(
                x, y, 2, sample_weight=weights, class_weight="balanced", progress=False
            )  # fmt: skip
        assert_same(trainer, i, single)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("folds", [3, "pairs"])
def test_members_of_folds_equal_trainings_on_their_rows(
    backend: str, folds: Any, threads: int
) -> None:
    x, y = data()
    weights = np.random.default_rng(0).uniform(size=M)
    if folds == "pairs":
        pairs = folds = [(np.arange(50), np.arange(60, 90)), ([5, 80, 7, 1], range(4))]
    else:
        pairs = gpumlp.k_folds(M, folds, seed=5)
    ensemble = members(backend=backend)
    trainer = EnsembleTrainer(ensemble, "adamw", lr=0.02, batch_size=16, seed=5)
    trainer.fit(x, y, 6, folds=folds, sample_weight=weights, early_stopping=2)
    for i, net in enumerate(ensemble):
        train, left = (np.array(rows) for rows in pairs[i % len(pairs)])
        single = Trainer(alone(net), "adamw", lr=0.02, batch_size=16, seed=5 + SEEDS[i])
        single.fit(
            x[train], y[train], 6, sample_weight=weights[train], early_stopping=2,
            validation=(x[left], y[left], weights[left]), progress=False,
        )  # fmt: skip
        assert_same(trainer, i, single)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_member_that_diverges_harms_no_other(backend: str, threads: int) -> None:
    x, y = data()
    ensemble = members(backend=backend)
    trainer = EnsembleTrainer(ensemble, "sgd", lr=[0.1, 1e30, 0.2, 0.3], batch_size=20)
    with np.errstate(all="raise"):  # of the caller; a fit says itself what is not finite
        histories = trainer.fit(x, y, 4)
    assert histories.stopped == ["finished", "diverged", "finished", "finished"]
    assert list(histories.diverged) == [1] == list(ensemble.diverged)
    assert "epoch 1 of 4" in histories.diverged[1]
    assert repr(histories) == "Histories(4 members: 3 finished, 1 diverged)"
    for i in (0, 2, 3):
        rate = [0.1, 0, 0.2, 0.3][i]
        single = Trainer(alone(ensemble[i]), "sgd", lr=rate, batch_size=20, seed=SEEDS[i])
        single.fit(x, y, 4, progress=False)
        assert_same(trainer, i, single)
    p = ensemble.predict(x)
    rest = [ensemble[i].predict(x) for i in (0, 2, 3)]
    np.testing.assert_allclose(p, np.mean(rest, axis=0), rtol=1e-6)
    again = trainer.fit(x, y, 1)
    assert again.stopped[1] == "diverged"
    assert [history.epochs for history in again] == [1, 0, 1, 1]
    assert again.columns == histories.columns


def test_an_ensemble_whose_members_all_diverge_raises(threads: int) -> None:
    ensemble = members()
    x, y = data()
    trainer = EnsembleTrainer(ensemble, "sgd", lr=1e30)
    with pytest.raises(FloatingPointError, match="all 4 members: training diverged: .* lower lr"):
        trainer.fit(x, y, 3)
    refusal(ValueError, lambda: ensemble.predict(x), "all members diverged")
    refusal(ValueError, lambda: trainer.fit(x, y), "all members diverged before")


def test_the_error_is_that_of_the_first_member_whichever_thread_was_the_first() -> None:
    ensemble = members()
    ends = module.Ends(ensemble, EnsembleTrainer(ensemble).trainers, False)
    for i in (2, 0, 3, 1):
        ends.ended(i, gpumlp.errors.DivergenceError(f"of member {i}", "the cost"))
    with pytest.raises(FloatingPointError, match="all 4 members: of member 0"):
        ends.histories()


@needs_library
def test_members_with_an_activation_of_numpy_equal_their_own_training(threads: int) -> None:
    """On the compiled backend, beside members whose programs limit BLAS to one thread."""
    tanh = gpumlp.ACTIVATIONS["tanh"]
    own = gpumlp.Activation("own", f=tanh.f, df=tanh.df, reads="h")
    (x, y), widths = data(600), [6, 300, 300, 3]
    ensemble = Ensemble(3, widths, own, backend="cpu")
    trainer = EnsembleTrainer(ensemble, batch_size=300)
    with threadpool_limits(2, user_api="blas"):
        trainer.fit(x, y, 3)
        for i in range(3):
            single = Trainer(alone(ensemble[i]), batch_size=300, seed=i)
            single.fit(x, y, 3, progress=False)
            assert_same(trainer, i, single)


def test_on_a_gpu() -> None:
    """On the harness, which runs the kernels on the CPU."""
    from gpumlp.backends.cuda.backend import CudaBackend

    x, y = data(40)
    ensemble = members(backend=CudaBackend(HostDevice(), "float32"))
    trainer = EnsembleTrainer(ensemble, "adamw", lr=[0.01, 0.02, 0.03, 0.04], batch_size=16)
    trainer.fit(x, y, 2, early_stopping=1, folds=2)
    for i in (0, 3):
        train, left = gpumlp.k_folds(40, 2)[i % 2]
        single = Trainer(
            alone(ensemble[i]), "adamw", lr=0.01 * (i + 1), batch_size=16, seed=SEEDS[i]
        )
        single.fit(
            x[train], y[train], 2, validation=(x[left], y[left]), early_stopping=1, progress=False
        )  # fmt: skip
        assert_same(trainer, i, single)


# ---- files, signals, callbacks -------------------------------------------------------------------


class Interrupting(gpumlp.Callback):
    """Sends Ctrl-C to the process after some epochs."""

    def __init__(self, after: int) -> None:
        self.after = after

    def on_epoch_end(self, trainer: Any, row: Any) -> None:
        self.after -= 1
        if self.after == 0:
            ctrl_c.press()


def test_ctrl_c_ends_all_members_and_resume_goes_on(tmp_path: Any, threads: int) -> None:
    x, y = data()

    def trained(**fit: Any) -> EnsembleTrainer:
        trainer = EnsembleTrainer(members(), "adamw", lr=[0.01, 0.02, 0.03, 0.04], batch_size=20)
        trainer.fit(x, y, 6, **fit)
        return trainer

    whole = trained()
    folder = tmp_path / "run"
    before = signal.getsignal(signal.SIGINT)
    cut = trained(
        checkpoint=folder, callbacks=lambda i: [Interrupting(2)] if i == 1 else [],
    )  # fmt: skip
    assert signal.getsignal(signal.SIGINT) is before
    assert cut.histories is not None
    assert "interrupted" in cut.histories.stopped
    assert sorted(each.name for each in folder.iterdir()) == [
        f"member-{i}.safetensors" for i in range(K)
    ]
    resumed = trained(checkpoint=folder, resume=True)
    assert resumed.histories is not None
    assert resumed.histories.stopped == ["finished"] * K
    assert np.array_equal(resumed.ensemble.theta, whole.ensemble.theta)


def test_an_error_in_one_member_ends_the_others_and_is_raised(threads: int) -> None:
    x, y = data()
    ended = []

    class Failing(gpumlp.Callback):
        def on_epoch_end(self, trainer: Any, row: Any) -> None:
            raise OSError("the disk is full")

        def on_fit_end(self, trainer: Any) -> None:
            ended.append(trainer.epochs)

    trainer = EnsembleTrainer(members(), batch_size=20)
    with pytest.raises(OSError, match="the disk is full"):
        trainer.fit(x, y, 100_000, callbacks=lambda i: [Failing()] if i == 0 else [])
    assert ended == [1]
    assert not [t for t in threading.enumerate() if t.name.startswith("member")]


def test_callbacks_of_a_member_see_its_training(threads: int) -> None:
    x, y = data()
    trainer = EnsembleTrainer(members(), batch_size=20)
    plateau = {i: ReduceOnPlateau(patience=1, factor=0.5, monitor="cost", min_delta=9.0)
               for i in range(K)}  # fmt: skip
    trainer.fit(x, y, 6, callbacks=lambda i: [plateau[i]] if i % 2 else [])
    lrs = trainer.histories["lr"]  # type: ignore[index]
    assert lrs[0][-1] == lrs[2][-1] == 1e-3
    assert lrs[1][-1] == lrs[3][-1] < 1e-3


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
def test_a_copy_goes_on_by_itself(duplicate: Any) -> None:
    x, y = data()
    trainer = EnsembleTrainer(members(), "adamw", lr=0.01, batch_size=20)
    trainer.fit(x, y, 2)
    other = duplicate(trainer)
    start = trainer.ensemble.theta.copy()
    other.fit(x, y, 2)
    assert np.array_equal(trainer.ensemble.theta, start)
    assert np.shares_memory(other.ensemble.theta, other.trainers[2].net.theta.flat)
    trainer.fit(x, y, 2)
    assert np.array_equal(other.ensemble.theta, trainer.ensemble.theta)


def test_progress_says_how_each_member_ended(capsys: Any) -> None:
    x, y = data()
    EnsembleTrainer(members()).fit(x, y, 2, progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == [f"member {i}" for i in range(K)]
    assert all("2 epochs, finished" in line for line in lines)


# ---- plans and arguments -------------------------------------------------------------------------


def test_x_is_placed_once() -> None:
    """In the memory of x itself where it has the network's type, and for all members."""
    x, y = data()
    seen = []

    class Placed(gpumlp.Callback):
        def on_fit_begin(self, trainer: Any) -> None:
            seen.append(x32)

    x32 = x.astype(np.float32)
    trainer = EnsembleTrainer(members(), batch_size=20)
    parts = trainer._data(x32, y, None, None, None, None, "auto")
    assert len(parts) == 1
    assert np.shares_memory(parts[0][0].x, x32)


def test_memory_and_explain_of_an_ensemble(threads: int) -> None:
    trainer = EnsembleTrainer(members(), batch_size=20)
    single = Trainer(trainer.ensemble[0], batch_size=20)
    ours, one = trainer.memory(100, early_stopping=None), single.memory(100)
    assert ours.slots == K * one.slots == sum(t.slots.nbytes for t in trainer.trainers)
    assert ours.theta == trainer.ensemble.theta.nbytes
    assert ours.data == one.data
    assert ours.step == K * one.step  # on NumPy, one program for all
    by_one = EnsembleTrainer(members(), "muon", batch_size=20).memory(100)
    assert by_one.step == Trainer(trainer.ensemble[0], "muon", batch_size=20).memory(100).step
    assert str(trainer.explain(100)) == str(single.explain(100))


def test_invalid_arguments_raise() -> None:
    x, y = data()
    ensemble = members()
    trainer = EnsembleTrainer(ensemble)
    refusal(ValueError, lambda: Trainer(ensemble, lr=[0.1, 0.2]), "lr has 2 entries", "4 members")
    refusal(ValueError, lambda: Trainer(ensemble, ["sgd"]), "optimizer has 1 entries")
    refusal(ValueError, lambda: Trainer(ensemble, lr=[0.1, 0.2, -1, 1]), "lr must be", "-1")
    refusal(TypeError, lambda: EnsembleTrainer(ensemble[0]), "gpumlp.Ensemble, got MLP")  # type: ignore[arg-type]
    refusal(ValueError, lambda: trainer.fit(x, y, orders="mine"), 'orders must be "own"', "mine")
    refusal(TypeError, lambda: trainer.fit(x, y, callbacks=[]), "callbacks=lambda member")  # type: ignore[arg-type]
    refusal(TypeError, lambda: Trainer(ensemble, foo=1), "Trainer has no argument 'foo'", "shards")
    refusal(TypeError, lambda: Trainer(ensemble[0], foo=1), "Trainer has no argument 'foo'")
    refusal(AttributeError, lambda: setattr(trainer, "lr", 1), "for t in trainer.trainers: t.lr =")
    refusal(TypeError, lambda: setattr(trainer, "seed", "a"), "seed must be a whole number")
    one = ReduceOnPlateau(monitor="cost")
    shared = {"callbacks": lambda member: [one]}
    refusal(ValueError, lambda: trainer.fit(x, y, 1, **shared), "same ReduceOnPlateau", "each call")
    trainer = EnsembleTrainer(ensemble := members())
    refusal(ValueError, lambda: trainer.fit(x, y, folds=3, validation=(x, y)), "folds=None")
    refusal(ValueError, lambda: trainer.fit(x, y, early_stopping=3), "early_stopping")
    refusal(ValueError, lambda: trainer.fit(x, y, 0), "epochs")
    refusal(ValueError, lambda: trainer.fit(x[:, 1:], y), "columns")
    assert all(net.config() for net in ensemble)
    assert [t.steps for t in trainer.trainers] == [0] * K


def test_a_checkpoint_that_is_a_file_is_refused(tmp_path: Any) -> None:
    x, y = data()
    path = tmp_path / "model"
    path.write_text("mine")
    trainer = EnsembleTrainer(members())
    refusal(ValueError, lambda: trainer.fit(x, y, checkpoint=path), "needs a folder")
    assert path.read_text() == "mine"
    refusal(ValueError, lambda: trainer.fit(x, y, resume=True), "checkpoint")


def test_trainer_of_an_ensemble_is_an_ensemble_trainer() -> None:
    trainer: Any = Trainer(members(), "sgd", lr=0.1, batch_size=7)
    assert type(trainer) is EnsembleTrainer
    assert [t.batch_size for t in trainer.trainers] == [7] * K
    assert type(Trainer(MLP([2, 2], backend="numpy"))) is Trainer


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("ema", [None, 0.9])
def test_a_trainer_of_a_network_goes_on_where_its_parameters_have_moved(
    backend: str, ema: float | None
) -> None:
    """Into an ensemble, in whose array they lie from then on."""
    x, y = (
        np.random.default_rng(0).normal(size=(20, 3)),
        np.random.default_rng(0).normal(size=(20, 2)),
    )
    settings: dict[str, Any] = {
        "norm": "batch",
        "loss": "squared_error",
        "backend": backend,
        "seed": 3,
    }
    once, moved = (MLP([3, 5, 2], **settings) for _ in range(2))
    trainers = [Trainer(net, "adamw", batch_size=8, ema=ema) for net in (once, moved)]
    for each in trainers:
        each.fit(x, y, 2, progress=False)
    ensemble = Ensemble.of([MLP([3, 5, 2], **settings), moved])
    for each in trainers:
        each.fit(x, y, 2, progress=False)
    for name, tensor in once.tensors().items():
        np.testing.assert_array_equal(moved.tensors()[name], tensor)
        np.testing.assert_array_equal(ensemble[1].tensors()[name], tensor)


def test_networks_of_two_ensembles_are_refused() -> None:
    nets = [MLP([3, 2], backend="numpy", seed=seed) for seed in range(2)]
    with pytest.raises(ValueError, match=r"has a network twice; pass copy.deepcopy\(net\)"):
        Ensemble.of([nets[0], nets[0]])
    ensemble = Ensemble.of([nets[0], copy.deepcopy(nets[0])])
    second = Ensemble.of([nets[1], nets[0]])
    x, y = np.random.default_rng(0).normal(size=(8, 3)), np.arange(8) % 2
    with pytest.raises(ValueError, match="member 0 is in another Ensemble now") as caught:
        Trainer(ensemble).fit(x, y, 1, progress=False)
    assert "train that one, or pass it copy.deepcopy of the members" in str(caught.value)
    before = second.theta.copy()
    Trainer(second).fit(x, y, 1, progress=False)
    assert (second.theta != before).any(axis=1).all()
    copied = Ensemble.of([copy.deepcopy(net) for net in ensemble])
    Trainer(copied).fit(x, y, 1, progress=False)
