"""Callbacks, the progress display, Ctrl-C and divergence of a fit."""

from __future__ import annotations

import copy
import io
import signal
import sys
import threading

import numpy as np
import pytest

import gpumlp
from gpumlp.estimators import MLPRegressor
from tests.support.training_cases import Hook, X, Y, regression, theta

# ---- callbacks ---------------------------------------------------------------------------------


class Recorder(gpumlp.Callback):
    def __init__(self, log):
        self.log = log

    def on_fit_begin(self, trainer):
        self.log.append("begin")

    def on_step_end(self, trainer):
        self.log.append(trainer.steps)

    def on_epoch_end(self, trainer, row):
        self.log.append(row["cost"] == trainer.history["cost"][-1])

    def on_fit_end(self, trainer):
        self.log.append(trainer.history.stopped)


def test_hooks_are_called_in_order():
    log = []
    gpumlp.Trainer(regression(), batch_size=25).fit(X, Y, 2, callbacks=[Recorder(log)])
    assert log == ["begin", 1, 2, True, 3, 4, True, "finished"]


def test_a_callback_stops_the_fit_by_its_answer_or_by_the_trainers_flag():
    trainer = gpumlp.Trainer(regression(), batch_size=25)
    history = trainer.fit(X, Y, 9, callbacks=[Hook(epoch=lambda t, row: t.epochs == 3)])
    assert (history.epochs, history.stopped) == (3, "early")
    hook = Hook(lambda trainer: setattr(trainer, "stop", True))
    history = trainer.fit(X, Y, 9, callbacks=[hook])
    assert (history.epochs, trainer.steps) == (1, 8)
    assert trainer.fit(X, Y, 2).epochs == 2  # the flag does not outlive its fit


def test_fit_end_comes_after_an_error_too():
    log = []

    def fail(trainer):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        gpumlp.Trainer(regression()).fit(X, Y, 2, callbacks=[Recorder(log), Hook(fail)])
    assert log == ["begin", 1, "interrupted"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("progress", [True, None])
def test_progress_on_a_terminal_is_a_bar(monkeypatch, progress):
    pytest.importorskip("tqdm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    fit = gpumlp.Trainer(regression(), batch_size=25).fit
    fit(X, Y, 2, progress=False)
    assert sys.stderr.getvalue() == ""
    history = fit(X, Y, 2, progress=progress)
    shown = sys.stderr.getvalue()
    assert "4/4" in shown
    assert f"cost={history['cost'][-1]:.4g}" in shown


def test_progress_without_a_terminal_is_one_line_per_epoch(capsys):
    fit = gpumlp.Trainer(regression(), batch_size=5).fit
    fit(X, Y, 2)
    fit(X, Y, 2, progress=False)
    assert capsys.readouterr().err == ""
    history = fit(X, Y, 3, validation=(X[:9], Y[:9]), progress=True)
    shown = capsys.readouterr().err
    assert "\r" not in shown
    numbers = zip(history["cost"], history["val_cost"], history["val_metric"], strict=True)
    assert shown.splitlines() == [
        f"epoch {i}: cost {cost:.4g}, val_cost {val_cost:.4g}, val_metric {val_metric:.4g}"
        for i, (cost, val_cost, val_metric) in enumerate(numbers, start=1)
    ]


def test_progress_bar_of_a_resumed_fit_begins_where_the_fit_goes_on(monkeypatch, tmp_path):
    pytest.importorskip("tqdm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    kept = {"checkpoint": tmp_path / "c", "progress": True}
    stop = Hook(epoch=lambda trainer, row: True)
    gpumlp.Trainer(regression(), batch_size=25).fit(X, Y, 2, callbacks=[stop], **kept)
    assert "2/4" in sys.stderr.getvalue().split("\r")[-1]
    monkeypatch.setattr(sys, "stderr", Terminal())
    gpumlp.Trainer(regression(), batch_size=25).fit(X, Y, 2, resume=True, **kept)
    shown = sys.stderr.getvalue().strip("\r").split("\r")
    assert "2/4" in shown[0]
    assert "4/4" in shown[-1]


def test_progress_true_without_tqdm_raises(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(sys, "stderr", Terminal())
    fit = gpumlp.Trainer(regression()).fit
    with pytest.raises(ImportError, match="pip install tqdm"):
        fit(X, Y, 1, progress=True)
    assert fit(X, Y, 1).stopped == "finished"
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert fit(X, Y, 1, progress=True).stopped == "finished"  # lines do not need it


@pytest.mark.parametrize("name", ["on_fit_begin", "on_step_end", "on_epoch_end", "on_fit_end"])
@pytest.mark.parametrize("error", [StopIteration, GeneratorExit, KeyError])
def test_errors_of_callbacks_are_raised_as_they_are(name, error):
    raised = error()

    def fail(*arguments):
        raise raised

    hook, trainer = gpumlp.Callback(), gpumlp.Trainer(regression(), batch_size=16)
    setattr(hook, name, fail)
    with pytest.raises(error) as caught:
        trainer.fit(X, Y, 2, callbacks=[hook])
    assert caught.value is raised
    assert trainer.fit(X, Y, 2).stopped == "finished"


def fit_by_minibatches(callback):
    return gpumlp.Trainer(regression(), batch_size=16).fit(X, Y, 2, callbacks=[callback])


def fit_by_lbfgs(callback):
    return gpumlp.fit_lbfgs(regression(), X, Y, callbacks=[callback])


@pytest.mark.parametrize("fit", [fit_by_minibatches, fit_by_lbfgs])
@pytest.mark.parametrize(
    ("hook", "epochs"), [("on_fit_begin", 0), ("on_step_end", 1), ("on_epoch_end", 1)]
)
def test_only_true_stops_a_fit(fit, hook, epochs):
    """A hook that happens to return a number ended the fit after its first epoch."""
    callback = gpumlp.Callback()
    for value in (1, "stop", np.ones(2), {"cost": 1.0}):
        setattr(callback, hook, lambda *_, value=value: value)
        with pytest.raises(TypeError, match=f"Callback.{hook} returned .*; return True to stop"):
            fit(callback)
    setattr(callback, hook, lambda *_: np.True_)
    history = fit(callback)
    assert (history.stopped, history.epochs) == ("early", epochs)


@pytest.mark.parametrize("hook", ["on_fit_begin", "on_step_end", "on_epoch_end"])
def test_a_fit_within_a_fit_of_the_same_trainer_raises(hook):
    """A copy of the trainer can be fitted there, and changes nothing."""
    callback, trainer = gpumlp.Callback(), gpumlp.Trainer(regression(), batch_size=16)
    setattr(callback, hook, lambda trainer, *_: trainer.fit(X, Y, 1))
    with pytest.raises(ValueError, match=r"fit copy\.deepcopy\(trainer\)"):
        trainer.fit(X, Y, 2, callbacks=[callback])
    nets = []
    for used in (trainer.fit, copy.deepcopy):
        other = gpumlp.Trainer(regression(), batch_size=16)
        setattr(callback, hook, lambda other, *_: copy.deepcopy(other).fit(X, Y, 1) and None)
        other.fit(X, Y, 2, callbacks=[callback] if used is copy.deepcopy else [])
        nets.append(theta(other.net))
    assert nets[0] == nets[1]


# ---- Ctrl-C ------------------------------------------------------------------------------------


def ctrl_c_at(step, times=1):
    def press(trainer):
        if trainer.steps == step:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)

    return Hook(press)


def test_ctrl_c_leaves_a_network_between_two_steps():
    before = signal.getsignal(signal.SIGINT)
    net, same = regression(), regression()
    trainer = gpumlp.Trainer(net, batch_size=16)
    history = trainer.fit(X, Y, 50, callbacks=[ctrl_c_at(10)])
    assert (history.stopped, history.epochs, trainer.steps) == ("interrupted", 2, 10)
    assert signal.getsignal(signal.SIGINT) is before

    def stop(trainer):
        if trainer.steps == 10:
            raise StopIteration

    with pytest.raises(StopIteration):
        gpumlp.Trainer(same, batch_size=16).fit(X, Y, 50, callbacks=[Hook(stop)])
    assert theta(net) == theta(same)


def test_a_second_ctrl_c_raises():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        gpumlp.Trainer(regression(), batch_size=16).fit(X, Y, 5, callbacks=[ctrl_c_at(3, times=2)])
    assert signal.getsignal(signal.SIGINT) is before


def test_ignored_ctrl_c_stays_ignored():
    """As Unix asks of a program that was started with SIGINT ignored, under nohup for example."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        history = gpumlp.Trainer(regression()).fit(X, Y, 3, callbacks=[ctrl_c_at(1, times=2)])
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert (history.stopped, history.epochs) == ("finished", 3)


def test_ctrl_c_restores_the_best():
    net, after = regression(), []
    hooks = [Hook(epoch=lambda trainer, row: after.append(theta(net))), ctrl_c_at(10)]
    history = gpumlp.Trainer(net, "sgd", 1e-3, batch_size=16).fit(
        X, Y, 50, early_stopping=gpumlp.EarlyStopping(monitor="cost"), callbacks=hooks
    )
    assert history.stopped == "interrupted"
    assert theta(net) == after[history.best_epoch]


def test_a_fit_in_another_thread_leaves_the_handler_alone():
    seen = []

    def work():
        hook = Hook(lambda trainer: seen.append(signal.getsignal(signal.SIGINT)))
        seen.append(gpumlp.Trainer(regression()).fit(X, Y, 1, callbacks=[hook]).stopped)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGINT), "finished"]


@pytest.mark.parametrize("fit", [
    lambda net: gpumlp.Trainer(net).fit(X, Y, 1, progress=False),
    lambda net: gpumlp.fit_lbfgs(net, X, Y, max_iter=1),
])  # fmt: skip
def test_fits_of_one_network_in_two_threads_raise(fit):
    net, said = regression(), []

    def work(network):
        try:
            fit(network)
            said.append("trained")
        except ValueError as error:
            said.append(str(error))

    def begin(trainer, row):
        for network in (net, copy.deepcopy(net)):  # the copy, as the error says
            thread = threading.Thread(target=work, args=(network,))
            thread.start()
            thread.join()
        work(net)  # in a callback of this thread it may be trained

    gpumlp.Trainer(net).fit(X, Y, 1, callbacks=[Hook(epoch=begin)])
    assert "this network is in a fit of another thread" in said[0]
    assert said[1:] == ["trained", "trained"]
    fit(net)


# ---- divergence --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("epochs", "what"),
    [(1, "0.weight is not finite in epoch 1 of 1"), (50, "the cost is (inf|nan) in epoch 2 of 50")],
)  # after one step only θ shows it, no cost
def test_divergence_is_one_error_that_says_what_to_do(epochs, what):
    net = gpumlp.MLP([4, 2], loss="squared_error", backend="numpy")
    message = rf"diverged: {what}, with lr 1e\+38; lower lr, pass clip_norm=1.0, or scale x and y"
    with pytest.raises(FloatingPointError, match=message):
        gpumlp.Trainer(net, "sgd", 1e38, batch_size=50).fit(10 * X, 10 * Y, epochs)


def test_clip_norm_is_not_advised_where_it_is_given():
    net = gpumlp.MLP([4, 2], loss="squared_error", backend="numpy")
    trainer = gpumlp.Trainer(net, "sgd", 1e38, batch_size=50, clip_norm=1e9)
    with pytest.raises(FloatingPointError, match=r"lr 1e\+38; lower lr, or scale x and y"):
        trainer.fit(10 * X, 10 * Y, 50)
    e = MLPRegressor(solver="sgd", learning_rate_init=1e38, clip_norm=1e9, backend="numpy")
    with pytest.raises(FloatingPointError, match="lower it, or scale X and y"):
        e.fit(10 * X, 10 * Y)


def test_a_network_that_has_diverged_before_is_not_blamed_on_lr():
    net = gpumlp.MLP([4, 2], loss="squared_error", backend="numpy")
    net.layers[0].W[0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match="before the first update.* build a new network"):
        gpumlp.Trainer(net, batch_size=20).fit(X, Y, 2)


def failing(y, p):
    raise AssertionError("a metric got predictions that are not finite")


@pytest.mark.parametrize("metric", ["r2", "auto", failing])
@pytest.mark.parametrize("train_metric", [False, True])
def test_a_metric_never_sees_predictions_that_are_not_finite(metric, train_metric):
    """After the step that diverges, validation is the first to compute with θ."""
    net = gpumlp.MLP([4, 2], loss="squared_error", backend="numpy")
    whose = "training" if train_metric else "validation"
    message = rf"diverged: .* the {whose} data is (NaN|not finite) in epoch 1 of 9, .* lower lr"
    with pytest.raises(FloatingPointError, match=message):
        gpumlp.Trainer(net, "sgd", 1e38, batch_size=50).fit(
            10 * X, 10 * Y, 9, validation=(X, Y), metric=metric, train_metric=train_metric
        )


@pytest.mark.parametrize("value", [float("nan"), -float("inf")])
def test_early_stopping_on_a_metric_that_is_never_a_number_raises(value):
    net = gpumlp.MLP([4, 2], loss="squared_error", backend="numpy")
    how = {"validation": (X, Y), "metric": lambda y, p: value}
    rule = gpumlp.EarlyStopping(3, monitor="val_metric")
    with pytest.raises(ValueError, match="'val_metric', which was NaN .* pass another metric"):
        gpumlp.Trainer(net).fit(X, Y, 9, early_stopping=rule, **how)
    with pytest.warns(RuntimeWarning, match="'val_metric', which was NaN .* of the last"):
        history = gpumlp.Trainer(net).fit(X, Y, 3, early_stopping=rule, **how)
    assert (history.stopped, history.best_epoch) == ("finished", None)
