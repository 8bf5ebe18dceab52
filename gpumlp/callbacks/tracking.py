"""A fit told to TensorBoard and MLflow."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpumlp import checks
from gpumlp._version import __version__
from gpumlp.training.callbacks import check_rate
from gpumlp.training.events import Callback

if TYPE_CHECKING:
    from gpumlp.training.events import Training


class TensorBoard(Callback):
    """The history's numbers as TensorBoard's event files; the axis is the trainer's steps.

    Scalars are "cost/training", "cost/validation" and so on for each metric, "lr" and "seconds",
    after each epoch.  The settings and the last epoch's numbers go into the HPARAMS page when the
    fit ends.  Of a folder that is used again, TensorBoard hides what lies after the fit's start.

    Args:
        folder: of the event files, made where it is missing.
        lr_every: also the learning rate after each so many steps, as "lr/step".
        histograms: also weights and biases of each layer, as histograms, each so many epochs; θ is
            copied to the host for them.

    Raises:
        ImportError: at the start of a fit, tensorboardX is missing.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        lr_every: int | None = None,
        histograms: int | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.lr_every = None if lr_every is None else checks.positive_int(lr_every, "lr_every")
        self.histograms = (
            None if histograms is None else checks.positive_int(histograms, "histograms")
        )
        self._writer: Any = None

    def on_fit_begin(self, trainer: Training) -> None:
        """Open an event file."""
        if self.lr_every:
            check_rate("TensorBoard(lr_every=…)", trainer)
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise ImportError('for TensorBoard: pip install "gpumlp[tracking]"') from error
        # files are named by the second, and one of the same second would be overwritten
        within = f".{time.time_ns() % 10**9:09d}"
        self._writer = SummaryWriter(
            str(self.folder), purge_step=trainer.steps + 1, filename_suffix=within
        )

    def on_step_end(self, trainer: Training) -> None:
        """The learning rate, where it is asked for."""
        if self.lr_every and trainer.steps % self.lr_every == 0:
            self._writer.add_scalar("lr/step", trainer.last_lr, trainer.steps)

    def on_epoch_end(self, trainer: Training, row: Mapping[str, float]) -> None:
        """The epoch's numbers."""
        for column, value in row.items():
            self._writer.add_scalar(_tag(column), value, trainer.steps)
        if self.histograms and trainer.history.epochs % self.histograms == 0:
            for name, tensor in trainer.net.tensors().items():
                if np.isfinite(tensor).all():
                    self._writer.add_histogram(name, tensor.astype(np.float64), trainer.steps)
        self._writer.flush()

    def on_fit_end(self, trainer: Training) -> None:
        """The settings; then close the file."""
        if self._writer is None:
            return
        try:
            last = trainer.history.row(-1) if trainer.history.epochs else {}
            final = {f"final/{name}": value for name, value in last.items()}
            self._writer.add_hparams(settings(trainer), final, "hparams", trainer.steps)
        finally:
            self._writer.close()
            self._writer = None


def _tag(column: str) -> str:
    """cost → "cost/training", val_cost → "cost/validation"."""
    if column in ("lr", "seconds"):
        return column
    name = column.removeprefix("val_")
    return f"{name}/training" if name == column else f"{name}/validation"


class MLflow(Callback):
    """A fit as a run of MLflow: its settings as parameters, the history's columns as metrics.

    The run ends as FINISHED, after Ctrl-C as KILLED, after an error as FAILED.  A fit that resumes
    goes on with its run.  MLflow's global state (the active run, the tracking URI) is left alone.

    Args:
        experiment: its name; made where it is missing.
        run_name: None lets MLflow choose one.
        uri: of the tracking server or store; None takes what MLflow is set to.  mlflow-skinny alone
            takes servers, and folders where MLFLOW_ALLOW_FILE_STORE=true is set; for
            "sqlite:///…" there must be the whole mlflow.
        model: also the network as the artifact "model.safetensors", when the fit ends without an
            error.

    Attributes:
        run_id: of the last run, or None.

    Raises:
        ImportError: at the start of a fit, mlflow is missing.
        ValueError: MLflow cannot use the store.
    """

    def __init__(
        self,
        experiment: str = "gpumlp",
        run_name: str | None = None,
        *,
        uri: str | os.PathLike[str] | None = None,
        model: bool = False,
    ) -> None:
        self.experiment, self.run_name, self.model = experiment, run_name, model
        self.uri = None if uri is None else os.fspath(uri)
        self.run_id: str | None = None
        self._client: Any = None
        self._resumed = False

    def on_fit_begin(self, trainer: Training) -> None:
        """Start a run, or go on with it, and note the settings."""
        try:
            from mlflow import MlflowClient
            from mlflow.entities import Param
            from mlflow.exceptions import MlflowException
        except ImportError as error:
            raise ImportError('for MLflow: pip install "gpumlp[tracking]"') from error
        try:
            client = MlflowClient(self.uri)
            found = client.get_experiment_by_name(self.experiment)
            where = found.experiment_id if found else client.create_experiment(self.experiment)
        except MlflowException as error:
            raise ValueError(
                f"MLflow cannot use {self.uri or 'its store'} ({str(error).partition('. ')[0]}); "
                "pass uri= a server's address, set MLFLOW_ALLOW_FILE_STORE=true for a folder, "
                "or pip install mlflow for sqlite:///…"
            ) from error
        if self._resumed and self.run_id is not None:
            client.update_run(self.run_id, status="RUNNING")
        else:
            tags = {"gpumlp.version": __version__}
            self.run_id = client.create_run(where, tags=tags, run_name=self.run_name).info.run_id
            known = [Param(name, str(value)) for name, value in settings(trainer).items()]
            client.log_batch(self.run_id, params=known)
        self._client, self._resumed = client, False

    def on_epoch_end(self, trainer: Training, row: Mapping[str, float]) -> None:
        """The epoch's numbers, all in one call; other characters than MLflow's become _."""
        from mlflow.entities import Metric

        now, epoch = int(1000 * time.time()), trainer.history.epochs
        names = {column: re.sub(r"[^\w\-. :/]", "_", column) for column in row}
        metrics = [Metric(names[column], value, now, epoch) for column, value in row.items()]
        self._client.log_batch(self.run_id, metrics=metrics)

    def on_fit_end(self, trainer: Training) -> None:
        """The model, and how the fit ended."""
        if self._client is None:
            return
        client, self._client = self._client, None
        error, interrupted = sys.exception(), trainer.history.stopped == "interrupted"
        status = "FINISHED"
        if interrupted:  # also where an error did it, short of a second Ctrl-C
            status = "KILLED" if error is None or isinstance(error, KeyboardInterrupt) else "FAILED"
        try:
            if self.model and not (interrupted and error):
                with tempfile.TemporaryDirectory() as folder:
                    path = Path(folder) / "model.safetensors"
                    trainer.net.save(path)
                    client.log_artifact(self.run_id, str(path))
        finally:
            client.set_terminated(self.run_id, status)

    def state(self) -> dict[str, Any]:
        """The run, while there is one."""
        return {} if self.run_id is None else {"run_id": self.run_id}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on with it."""
        self.run_id, self._resumed = state["run_id"], True


def settings(trainer: Training) -> dict[str, Any]:
    """A network's and its trainer's settings as names with one number or string each."""
    net = trainer.net
    of_net = {"network_seed" if k == "seed" else k: v for k, v in net.config().items()}
    flat: dict[str, Any] = {}
    of_trainer = trainer.settings
    for name, value in {**of_net, **of_trainer}.items():
        if isinstance(value, dict):  # an entry, its name and its parameters; groups
            flat |= {name: value["name"]} if "name" in value else {}
            flat |= {f"{name}.{key}": number for key, number in value.items() if key != "name"}
        elif isinstance(value, list):  # widths, or the hidden layers' activations
            texts = [str(v["name"] if isinstance(v, dict) else v) for v in value]
            same = len(set(texts)) == 1 and name == "activation"
            flat[name] = texts[0] if same else "-".join(texts)
        else:
            flat[name] = "none" if value is None else value
    return {**flat, "backend": net.backend.name, "parameters": net.theta.layout.count}
