"""Trainings by several processes: bits, resuming, failures, and what is refused."""

from __future__ import annotations

import json
import socket
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import gpumlp
from tests.support.launching import run, under_mpi

WORKER = "tests/support/training_worker.py"
COMMAND_WORKER = "tests/support/command_worker.py"
FIRST_RANK_WORKER = "tests/support/first_rank_worker.py"
LAUNCHER = ("-m", "gpumlp.distributed", WORKER)


@cache
def bits(processes: int, *how: str) -> dict[str, object]:
    ended = under_mpi(processes, WORKER, *how)
    assert ended.status == 0, ended.output
    return dict(json.loads(ended.output.splitlines()[-1]))


def fitted(processes: int, folder: Path, epochs: int, *how: object) -> str:
    """The hash of θ after a fit that goes on from the folder's checkpoint."""
    ended = under_mpi(processes, *LAUNCHER, "fit", folder, epochs, *how)
    assert ended.status == 0, ended.output
    return (folder / "digest").read_text(encoding="utf-8")


@pytest.mark.parametrize(("backend", "numbers"), [("auto", [4]), ("numpy", [2])])
def test_any_number_of_processes_gives_the_same_bits(backend: str, numbers: list[int]) -> None:
    one = bits(1, "bits", backend)
    assert len(set(map(str, one.values()))) > len(one) // 2  # settings make a difference
    for number in numbers:
        assert bits(number, "bits", backend) == one


def test_cuda_backend_with_two_processes_equals_numpy() -> None:
    one, two = bits(1, "bits", "numpy"), bits(2, "bits", "harness")
    assert bits(1, "bits", "harness") == two
    np.testing.assert_allclose(two["θ"], one["θ"], rtol=0, atol=1e-12)


def test_buckets_in_16_bits_have_the_same_bits_and_callbacks_read_all_of_theta() -> None:
    assert bits(2, "buckets") == bits(1, "buckets")


def test_checkpoints_resume_with_any_number_of_processes(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    whole = fitted(2, tmp_path / "whole", 6)
    for processes, epochs in ((2, 2), (4, 4), (1, 6)):
        last = fitted(processes, tmp_path, epochs)
    assert last == whole


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The hash of θ after a fit of 4 epochs by two processes."""
    return fitted(2, tmp_path_factory.mktemp("whole"), 4)


@pytest.mark.slow
@pytest.mark.parametrize(("how", "step"), [("raise", 9), ("kill", 13), ("stop", 16)])
def test_a_rank_that_fails_ends_all_and_resuming_gives_the_same_bits(
    how: str, step: int, whole: str, tmp_path: Path
) -> None:
    """In the last step of an epoch, between two, and after a checkpoint within one."""
    ended = under_mpi(2, *LAUNCHER, "fit", tmp_path, 4, how, step)
    assert ended.status != 0, ended.output
    if how != "kill":  # then mpiexec reports it
        (line,) = ended.lines()
        assert f"rank {int(how == 'raise')} of 2 on" in line, line
        assert "step" in line, line
    assert fitted(2, tmp_path, 4) == whole


@pytest.mark.parametrize(
    ("how", "named"),
    [("settings", "lr"), ("data", "x and y"), ("version", "version of gpumlp")],
)
def test_other_arguments_on_a_rank_are_refused(how: str, named: str, tmp_path: Path) -> None:
    ended = under_mpi(2, *LAUNCHER, "fit", tmp_path, 4, how)
    assert ended.status != 0
    (line,) = ended.lines()  # of rank 0 alone, although all have the error
    assert line.startswith("gpumlp: rank 0 of 2 on "), line
    assert f"need the same {named}, but rank 0 has" in line, line
    assert ended.output.count("Traceback") == 1
    assert not list(tmp_path.iterdir())  # nothing was trained


FAILS_BETWEEN_STEPS = """
import numpy as np, gpumlp

class Fails(gpumlp.Callback):
    {hook} = lambda self, *_: 1 / 0

x = np.random.default_rng(0).normal(size=(50, 2))
net = gpumlp.MLP([2, 3, 1], loss="squared_error")
trainer = gpumlp.Trainer(net, batch_size=10, world=gpumlp.distributed.world())
metric = Fails().metric if "{hook}" == "metric" else "auto"
trainer.fit(x, x[:, :1], 1, validation=(x, x[:, :1]), metric=metric, checkpoint="{path}",
            callbacks=[Fails()])
"""


@pytest.mark.parametrize(
    ("hook", "named"),
    [
        ("on_fit_begin", "step 0, on_fit_begin"), ("metric", "step 5, costs and metrics"),
        ("on_epoch_end", "step 5, on_epoch_end"), ("state", "step 5, checkpoint"),
    ],
)  # fmt: skip
def test_an_error_between_steps_says_in_which_part_of_a_fit(
    hook: str, named: str, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(FAILS_BETWEEN_STEPS.format(hook=hook, path=tmp_path / "x"), encoding="utf-8")
    ended = under_mpi(2, "-m", "gpumlp.distributed", script)
    assert ended.status == 1
    (line,) = ended.lines()
    assert line.startswith("gpumlp: rank 0 of 2 on "), line
    assert line.endswith(f"ZeroDivisionError: division by zero ({named})"), line


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "status", "said"),
    [
        ("raise 1", 1, "rank 1 of 2 on {}: LookupError: a planted fault"),
        ("stop 0", 75, "rank 1 of 2 on {}: exchange: no answer from rank 0 for 2 s; "),
    ],
)
def test_a_command_says_in_one_line_which_rank_failed(
    how: str, status: int, said: str, tmp_path: Path
) -> None:
    pytest.importorskip("typer")
    options = ("--epochs", 3, "--hidden", 8, "--quiet", "--out", tmp_path / "run")
    ended = under_mpi(2, COMMAND_WORKER, how, "train", "diabetes", *options, "--stream")
    assert ended.status == status, ended.output
    (line,) = ended.lines()
    assert line.startswith(f"gpumlp: {said.format(socket.gethostname())}"), line
    assert ended.output.count("Traceback") == how.startswith("raise")
    assert [each.name for each in tmp_path.rglob("*")] == ["run", "checkpoint.safetensors"]


@pytest.mark.slow
def test_a_command_of_two_processes_is_repeated_by_one(tmp_path: Path, flowers: Path) -> None:
    pytest.importorskip("typer")
    options = ("--epochs", 2, "--hidden", 8, "--seed", 3, "--ema", 0.9, "--out", tmp_path / "two")
    ended = under_mpi(2, "-m", "gpumlp", "train", flowers, "--target", "species", *options)
    assert ended.status == 0, ended.output
    assert ended.output.count("finished after 2 epochs") == 1
    files = {each.name for each in (tmp_path / "two").iterdir()}
    config = ("--config", tmp_path / "two" / "run.toml", "--out", tmp_path / "one", "--quiet")
    ended = run([sys.executable, "-m", "gpumlp", "train", *config], 60)
    assert ended.status == 0, ended.output
    assert {each.name for each in (tmp_path / "one").iterdir()} == files
    one, two = (gpumlp.MLP.load(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert one.theta.flat.tobytes() == two.theta.flat.tobytes()


@pytest.mark.slow
def test_a_slow_rank_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    whole = fitted(2, tmp_path / "whole", 1)
    assert fitted(2, tmp_path, 1, "sleep", 3) == whole


def test_what_rank_0_does_alone_has_the_same_effect_on_all(tmp_path: Path) -> None:
    """Callbacks, metrics and checkpoints, compared with those of a single process."""
    found = []
    for processes in (1, 2):
        (tmp_path / str(processes)).mkdir()
        ended = under_mpi(processes, FIRST_RANK_WORKER, tmp_path / str(processes))
        assert ended.status == 0, ended.output
        found.append(json.loads(ended.output.splitlines()[-1]))
    assert found[1] == found[0]
    assert found[0]["on_epoch_end raises"] == "KeyError 'a key'"
    assert found[0]["no folder"].startswith("FileNotFoundError cannot write absent/file: ")
    assert found[0]["unknown metric"].startswith("ValueError unknown metric 'no scorer'; ")


# ---- one process ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shards", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "muon"])
def test_shards_change_only_rounding(shards: int, optimizer: str) -> None:
    """Each example has its weight, also with micro-batches, and with shards that have none."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((103, 7)), rng.integers(0, 3, 103)
    found = []
    for count in (None, shards):
        net = gpumlp.MLP([7, 9, 8, 3], "gelu", precision="float64", backend="numpy", seed=0)
        trainer = gpumlp.Trainer(
            net, optimizer, batch_size=20, clip_norm=0.5, accumulate=2, shards=count
        )
        history = trainer.fit(x, y, 3, sample_weight=1 / (1 + y))
        found.append(np.append(net.theta.flat, history["cost"]))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adamw", "muon"])
def test_checkpoints_of_shards_resume_with_any_number_of_slots(
    optimizer: str, tmp_path: Path
) -> None:
    """Plain SGD has no slots."""
    x, y = np.random.default_rng(0).standard_normal((2, 30, 2))
    found = []
    for epochs in ([3], [1, 3]):
        for until in epochs:
            net = gpumlp.MLP([2, 3, 2], loss="huber", precision="float64", backend="numpy")
            trainer = gpumlp.Trainer(net, optimizer, batch_size=10, shards=2)
            trainer.fit(x, y, until, checkpoint=tmp_path / str(len(epochs)), resume=True)
        found.append((net.theta.flat.tobytes(), trainer.slots.tobytes()))
    assert found[0] == found[1]


def test_resuming_with_other_shards_raises(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((30, 2))
    for shards in (None, 4):  # None is 1 in a world of one
        net = gpumlp.MLP([2, 3, 1], loss="squared_error", backend="numpy")
        trainer = gpumlp.Trainer(net, batch_size=10, shards=shards)
        if shards is None:
            trainer.fit(x, x[:, :1], 1, checkpoint=tmp_path / "file")
    with pytest.raises(gpumlp.CheckpointError, match="other shards: 1, here 4; "):
        trainer.fit(x, x[:, :1], 2, checkpoint=tmp_path / "file", resume=True)


def test_fold_with_shards_raises() -> None:
    net = gpumlp.MLP([2, 3, 1], backend="numpy")
    with pytest.raises(ValueError, match="with shards, the weights move by the sum"):
        gpumlp.Trainer(net, "sgd", shards=2, fold=True)


@pytest.mark.parametrize("shards", [0, 2.5, "2", 1 << 17, 10**23])
def test_invalid_shards_raises(shards: object) -> None:
    with pytest.raises((ValueError, TypeError), match="shards"):
        gpumlp.Trainer(gpumlp.MLP([2, 3, 1], backend="numpy"), shards=shards)  # type: ignore


def test_invalid_world_raises() -> None:
    with pytest.raises(TypeError, match=r"world must be gpumlp\.distributed\.world\(\) or None"):
        gpumlp.Trainer(gpumlp.MLP([2, 3, 1], backend="numpy"), world=2)  # type: ignore
