"""Log the numbers of a fit: as a CSV file, in TensorBoard, in MLflow; each step's learning rate."""

from __future__ import annotations

import csv
import io
import re
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from gpumlp import checks
from gpumlp._version import __version__
from gpumlp.errors import needs
from gpumlp.io.paths import PathLike, checked_path
from gpumlp.io.types import HostVector
from gpumlp.storage import atomic_write
from gpumlp.training.callbacks import check_rate
from gpumlp.training.events import Callback, Training


class CSVLogger(Callback):
    """Write the history as a CSV file; each epoch's line is on disk when the epoch ends.

    The file is replaced when a fit starts.  A fit that resumes writes the epochs of its checkpoint
    again, so no line remains that a killed run left half written or wrote after its checkpoint.

    Args:
        path: the file; its folder must exist.  The first column is "epoch", from 1.  Numbers have
            all their digits.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = Path(checked_path(path))
        self._file: Any = None

    def on_fit_begin(self, trainer: Training) -> None:
        """Write the header, and the epochs of a resumed fit."""
        history = trainer.history
        done = ([i + 1, *history.row(i).values()] for i in range(history.epochs))
        atomic_write(self.path, _lines([["epoch", *history], *done]).encode())
        self._file = self.path.open("a", encoding="utf-8", newline="")

    def on_epoch_end(self, trainer: Training, row: Mapping[str, float]) -> None:
        """Write the epoch's line."""
        self._file.write(_lines([[trainer.history.epochs, *row.values()]]))
        self._file.flush()

    def on_fit_end(self, trainer: Training) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _lines(rows: Iterable[Iterable[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


class LearningRateLogger(Callback):
    """Keep the learning rate of each step of a fit, also of the steps before a checkpoint."""

    def __init__(self) -> None:
        self._lr: list[float] = []
        self._resumed = False

    @property
    def lr(self) -> HostVector:
        """The learning rates, (steps,) float64."""
        return np.array(self._lr, np.float64)

    def on_fit_begin(self, trainer: Training) -> None:
        """Start with an empty list, unless a fit resumes."""
        check_rate("LearningRateLogger", trainer)
        if not self._resumed:
            self._lr = []
        self._resumed = False

    def on_step_end(self, trainer: Training) -> None:
        """Append the step's learning rate."""
        self._lr.append(trainer.last_lr)

    def state(self) -> dict[str, Any]:
        """Return the learning rates so far."""
        return {"lr": self._lr} if self._lr else {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue after the learning rates of `state`."""
        if not isinstance(state["lr"], list):
            raise TypeError(f"lr must be a list, got {state['lr']!r}")
        self._lr = [checks.positive_number(lr, "lr", least=0) for lr in state["lr"]]
        self._resumed = True


class TensorBoard(Callback):
    """Write the history as TensorBoard event files; the axis is the number of steps.

    The scalars are "cost/training" and "cost/validation", the same for each metric, "lr" and
    "seconds", after each epoch.  When the fit ends, the settings and the last epoch's numbers are
    added to the HPARAMS page.  If the folder has events of an earlier fit, TensorBoard hides those
    at later steps than where this fit starts.

    Args:
        folder: the folder of the event files; it is created if it does not exist.
        lr_every: write the learning rate after every so many steps too, as "lr/step".
        histograms: copy θ to the host every so many epochs, and write a histogram of each W and b.

    Raises:
        ImportError: at the start of a fit: tensorboardX is not installed.
    """

    def __init__(
        self,
        folder: PathLike,
        *,
        lr_every: int | None = None,
        histograms: int | None = None,
    ) -> None:
        for name, number in (("lr_every", lr_every), ("histograms", histograms)):
            if number is not None:
                checks.positive_int(number, name)
        self.folder = Path(checked_path(folder, "folder"))
        self.lr_every, self.histograms = lr_every, histograms
        self._writer: Any = None

    def on_fit_begin(self, trainer: Training) -> None:
        """Open an event file."""
        if self.lr_every:
            check_rate("TensorBoard(lr_every=…)", trainer)
        with needs("for TensorBoard", "tracking"):
            from tensorboardX import SummaryWriter
        # TensorBoard reads the files in the order of their names, which have the time in seconds
        earlier = len([*self.folder.glob("events.*")])
        suffix = f".{earlier:06d}.{time.time_ns()}"
        folder, first = str(self.folder), trainer.steps + 1
        self._writer = SummaryWriter(folder, purge_step=first, filename_suffix=suffix)

    def on_step_end(self, trainer: Training) -> None:
        """Write the learning rate every `lr_every` steps."""
        if self.lr_every and trainer.steps % self.lr_every == 0:
            self._writer.add_scalar("lr/step", trainer.last_lr, trainer.steps)

    def on_epoch_end(self, trainer: Training, row: Mapping[str, float]) -> None:
        """Write the epoch's numbers."""
        for column, value in row.items():
            name = column.removeprefix("val_")
            data = "/training" if name == column else "/validation"
            tag = name if name in ("lr", "seconds") else name + data
            self._writer.add_scalar(tag, value, trainer.steps)
        if self.histograms and trainer.history.epochs % self.histograms == 0:
            for name, tensor in trainer.net.tensors().items():
                if np.isfinite(tensor).all():
                    self._writer.add_histogram(name, tensor.astype(np.float64), trainer.steps)
        self._writer.flush()

    def on_fit_end(self, trainer: Training) -> None:
        """Write the settings and close the file."""
        if self._writer is None:
            return
        final = {f"final/{name}": value for name, value in trainer.history.row(-1).items()}
        with closing(self._writer) as writer:
            self._writer = None
            writer.add_hparams(settings(trainer), final, "hparams", trainer.steps)


class MLflow(Callback):
    """Log a fit as a run of MLflow: its settings as parameters, the history as metrics.

    The run ends as FINISHED, after Ctrl-C as KILLED, after an error as FAILED.  A fit that resumes
    continues its run.  MLflow's global state (the active run, the tracking URI) is not changed.

    Args:
        experiment: the name of the experiment; it is created if it does not exist.
        run_name: the name of the run; None lets MLflow choose one.
        uri: the tracking server or store; None uses MLflow's own setting.  mlflow-skinny supports
            servers only, and folders where MLFLOW_ALLOW_FILE_STORE=true is set; "sqlite:///…" needs
            the full mlflow.
        model: save the artifact "model.safetensors", unless the fit ends with an error.

    Attributes:
        run_id: the id of the last run, or None.

    Raises:
        ImportError: at the start of a fit: mlflow is not installed.
        ValueError: at the start of a fit: MLflow cannot use the store.
    """

    def __init__(
        self,
        experiment: str = "gpumlp",
        run_name: str | None = None,
        *,
        uri: PathLike | None = None,
        model: bool = False,
    ) -> None:
        self.experiment = checks.text(experiment, "experiment")
        self.run_name = None if run_name is None else checks.text(run_name, "run_name")
        self.model = checks.boolean(model, "model")
        self.uri = None if uri is None else checked_path(uri, "uri")
        self.run_id: str | None = None
        self._client: Any = None
        self._resumed = False

    def on_fit_begin(self, trainer: Training) -> None:
        """Start a run and log the settings, or continue the run of a resumed fit."""
        with needs("for MLflow", "tracking"):
            from mlflow import MlflowClient
            from mlflow.entities import Param
            from mlflow.exceptions import MlflowException
        try:
            client = MlflowClient(self.uri)
            found = client.get_experiment_by_name(self.experiment)
            experiment = found.experiment_id if found else client.create_experiment(self.experiment)
        except MlflowException as error:
            raise ValueError(
                f"MLflow cannot use {self.uri or 'its store'} ({str(error).partition('. ')[0]}); "
                "pass the address of a server as uri, set MLFLOW_ALLOW_FILE_STORE=true for a "
                "folder, or pip install mlflow for sqlite:///…"
            ) from error
        if self._resumed and self.run_id is not None:
            client.update_run(self.run_id, status="RUNNING")
        else:
            tags = {"gpumlp.version": __version__}
            run = client.create_run(experiment, tags=tags, run_name=self.run_name)
            self.run_id = run.info.run_id
            params = [Param(name, str(value)) for name, value in settings(trainer).items()]
            client.log_batch(self.run_id, params=params)
        self._client, self._resumed = client, False

    def on_epoch_end(self, trainer: Training, row: Mapping[str, float]) -> None:
        """Log the epoch's numbers in one call; characters that MLflow does not allow become _."""
        from mlflow.entities import Metric

        now, epoch = int(1000 * time.time()), trainer.history.epochs
        numbers = [(re.sub(r"[^\w\-. :/]", "_", column), row[column]) for column in row]
        metrics = [Metric(name, value, now, epoch) for name, value in numbers]
        self._client.log_batch(self.run_id, metrics=metrics)

    def on_fit_end(self, trainer: Training) -> None:
        """Save the model, and log how the fit ended."""
        if self._client is None:
            return
        client, self._client = self._client, None
        error, interrupted = sys.exception(), trainer.history.stopped == "interrupted"
        status = "FINISHED"
        if interrupted:  # by Ctrl-C, whose second press raises, or by an error
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
        """Return the id of the run, if there is one."""
        return {} if self.run_id is None else {"run_id": self.run_id}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue the run of `state`."""
        if not isinstance(state["run_id"], str):
            raise TypeError(f"run_id must be the id of a run, got {state['run_id']!r}")
        self.run_id, self._resumed = state["run_id"], True


def settings(trainer: Training) -> dict[str, Any]:
    """Return the settings of a network and its training: one number or string for each name."""
    net = trainer.net
    of_net = {"network_seed" if k == "seed" else k: v for k, v in net.config().items()}
    flat: dict[str, Any] = {}
    for name, value in {**of_net, **trainer.settings}.items():
        if name == "embed":  # column → categories and width
            flat |= {f"embed.{j}": f"{c}x{d}" for j, (c, d) in value.items()}
        elif isinstance(value, dict):  # a function with its parameters, or the groups
            flat |= {name if k == "name" else f"{name}.{k}": v for k, v in value.items()}
        elif isinstance(value, list):  # the widths, or the layers' activations or blocks
            texts = [_text(v) for v in value]
            same = len(set(texts)) == 1 and name != "widths"
            flat[name] = texts[0] if same else "-".join(texts)
        else:
            flat[name] = "none" if value is None else value
    return {**flat, "backend": net.backend.name, "parameters": net.theta.layout.count}


def _text(value: Any) -> str:
    """The name of a function, or another setting as text."""
    return "none" if value is None else str(value["name"] if isinstance(value, dict) else value)
