"""The contents of checkpoint files, which are written completely or not at all."""

from __future__ import annotations

import os
import resource
import stat
from pathlib import Path

import numpy as np
import pytest

import gpumlp
from gpumlp import storage
from tests.support.kill_worker import STEPS, run


def test_a_checkpoint_is_readable_and_loads_as_the_network(path):
    trainer = run(path, early_stopping=gpumlp.EarlyStopping(restore_best=False), epochs=3)
    net = gpumlp.MLP.load(path, backend="numpy")
    assert net.theta.flat.tobytes() == trainer.net.theta.flat.tobytes()
    assert net.config() == trainer.net.config()
    tensors, _ = storage.read(path)
    theta = ["0.bias", "0.weight", "2.bias", "2.weight"]
    slots = [f"optimizer.{slot}.{name}" for slot in "mv" for name in theta]
    assert sorted(tensors) == theta + slots
    np.testing.assert_array_equal(
        tensors["optimizer.v.0.weight"], trainer.slots[1, :40].reshape(8, 5)
    )


def test_checkpoint_holds_the_best_and_the_last_theta(path):
    trainer = run(path, trainer={"lr": 0.3, "schedule": "constant"}, early_stopping=2, epochs=40)
    tensors, _ = storage.read(path)
    for name, best in trainer.net.tensors().items():  # restored
        np.testing.assert_array_equal(tensors[f"best.{name}"], best)
        assert not np.array_equal(tensors[name], best)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
def test_arrays_of_any_memory_order_survive(path, dtype):
    a = np.arange(35, dtype=dtype).reshape(5, 7)
    odd = {"f": np.asfortranarray(a), "t": a.T, "every": a[::2, ::-3], "empty": a[:0]}
    storage.write(path, odd, {"gpumlp": "1"})
    tensors, _ = storage.read(path)
    assert set(tensors) == set(odd)
    for name, array in odd.items():
        assert tensors[name].dtype == dtype
        np.testing.assert_array_equal(tensors[name], array)


def test_weights_assigned_in_fortran_order_survive(path):
    net = gpumlp.MLP([5, 8, 3], backend="numpy")
    W = np.asfortranarray(np.arange(40, dtype=np.float32).reshape(8, 5))
    net.assign({**net.tensors(), "0.weight": W})
    net.save(path)
    np.testing.assert_array_equal(gpumlp.MLP.load(path, backend="numpy").layers[0].W, W)


def test_file_of_torch_loads_with_a_warning(path):
    torch = pytest.importorskip("torch")
    save = pytest.importorskip("safetensors.torch").save_file
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    save(model.state_dict(), path)
    with pytest.warns(UserWarning, match="carries no digest"):
        net = gpumlp.MLP.load(path, backend="numpy", activation="tanh", precision="float32")
    assert net.widths == (5, 8, 3)
    x = torch.randn(9, 5)
    np.testing.assert_allclose(net.forward(x.numpy()), model(x).detach().numpy(), atol=1e-6)


# ---- writing -----------------------------------------------------------------------------------


def test_file_is_synced_before_it_is_renamed(path, monkeypatch):
    path.write_bytes(b"old")
    seen = []

    def fsync(handle):
        is_folder = stat.S_ISDIR(os.fstat(handle).st_mode)
        size = None if is_folder else os.fstat(handle).st_size
        seen.append(("folder" if is_folder else size, path.read_bytes()))

    monkeypatch.setattr(os, "fsync", fsync)
    storage.write(path, {"a": np.arange(3.0)}, {"gpumlp": "1"})
    data = path.read_bytes()
    assert seen == [(len(data), b"old"), ("folder", data)]


def test_a_full_disk_leaves_the_old_file_and_no_other(path):
    path.write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            run(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_rename_that_fails_leaves_the_old_file_and_no_other(path, monkeypatch, error):
    path.write_bytes(b"old")

    def fail(*names):
        raise error("no rename")

    for place, name in ((Path, "replace"), (os, "replace")):
        monkeypatch.setattr(place, name, fail)
    with pytest.raises(error, match="no rename"):
        run(path)
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_only_temporary_files_of_killed_writers_are_removed(path):
    orphan, stranger = (
        path.with_name(f"{path.name}.{middle}.tmp") for middle in ("0123abcd", "mine.too")
    )
    orphan.write_bytes(b"half")
    stranger.write_bytes(b"whole")
    run(path, epochs=1)
    assert sorted(path.parent.iterdir()) == sorted([path, stranger])


@pytest.mark.parametrize("every", [None, 1])
def test_a_run_that_diverges_leaves_the_last_finite_checkpoint(path, every):
    class Spoil(gpumlp.Callback):
        def on_step_end(self, trainer):
            if trainer.steps == 2 * STEPS + 3:
                trainer.net.layers[0].W[0, 0] = np.inf

    with pytest.raises(FloatingPointError, match=r"diverged.*run.safetensors is as it was before"):
        run(path, checkpoint_every=every, callbacks=[Spoil()])
    assert all(np.isfinite(tensor).all() for tensor in storage.read(path)[0].values())
    expected = 2 * STEPS + 2 if every else 2 * STEPS
    assert f'"steps_ever": {expected},' in storage.read(path)[1]["training"]


def test_a_link_stays_and_its_file_holds_the_checkpoint(tmp_path, path):
    (tmp_path / "disk").mkdir()
    path.symlink_to("disk/run")
    run(path, epochs=1, trainer={"schedule": "constant"})
    run(path, epochs=2, resume=True, trainer={"schedule": "constant"})
    assert path.readlink() == Path("disk/run")
    assert '"epoch": 2,' in storage.read(tmp_path / "disk" / "run")[1]["training"]


@pytest.mark.parametrize("which", ["x", "y", "validation"])
def test_a_checkpoint_does_not_replace_the_data(tmp_path, which):
    data = {"x": np.ones((12, 5)), "y": np.arange(12) % 3, "validation": np.ones((4, 5))}
    np.save(tmp_path / "data.npy", data[which])
    (tmp_path / "link").symlink_to("data.npy")
    data[which] = np.load(tmp_path / "data.npy", mmap_mode="r")[:]
    trainer = gpumlp.Trainer(gpumlp.MLP([5, 3], backend="numpy"))
    before = (tmp_path / "data.npy").read_bytes()
    for name in ("data.npy", "link"):
        with pytest.raises(ValueError, match=f"checkpoint .*{name} is a file of the data; pass"):
            trainer.fit(
                data["x"], data["y"], 1, validation=(data["validation"], [0, 1, 2, 0]),
                checkpoint=tmp_path / name,
            )  # fmt: skip
    assert (tmp_path / "data.npy").read_bytes() == before
