"""Streamed data gives the same θ, bit for bit, in both backends and with late streams."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp.backends.cuda.feed import DeviceFeed
from gpumlp.loader import examples as placement
from gpumlp.loader.examples import Examples
from tests.support.harness.host_streams import HostCopies
from tests.support.streaming_cases import M, network, problem, trained
from tests.support.training_cases import Hook

DTYPES = ["uint8", "int8", "int16", "float16", "bfloat16", "float32", "float64"]


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "squared_error"])
@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("dtype", [*DTYPES, "int64", "bool", ">f4"])
def test_streaming_in_the_numpy_backend(dtype: str, precision: str, loss: str) -> None:
    x, y = problem(dtype, loss)
    expected = trained(network(loss, precision), x, y, "device")
    assert trained(network(loss, precision), x, y, "stream") == expected


@pytest.mark.parametrize(
    ("precision", "late"),
    [("float64", "copies"), ("float32", "work"), ("bfloat16", "both"), ("float16", "copies")],
)
@pytest.mark.parametrize("dtype", [*DTYPES, "int64", ">f4"])
def test_streaming_in_the_cuda_backend(dtype: str, precision: str, late: str) -> None:
    loss = {"copies": "softmax_cross_entropy"}.get(late, "squared_error")
    x, y = problem(dtype, loss)
    expected = trained(network(loss, precision, "copies"), x, y, "device")
    assert trained(network(loss, precision, late), x, y, "stream") == expected


def test_mapped_file_trains_as_its_values(tmp_path: Any) -> None:
    x, y = problem("uint8", "squared_error")
    files = []
    for name, a in (("x", x), ("y", y)):
        np.save(tmp_path / name, a)
        files.append(np.load(tmp_path / f"{name}.npy", mmap_mode="r"))
    for late in ("", "both"):
        nets = [network("squared_error", "float32", late) for _ in range(3)]
        expected = trained(nets[0], x.astype(np.float32), y.astype(np.float32), "auto")
        assert trained(nets[1], *files, "auto") == expected
        assert trained(nets[2], *files, "device") == expected


# ---- planted bugs: events left out, or in the wrong place ----------------------------------------


def no_follow(copies: HostCopies, event: Any) -> None:
    """The cast does not wait for its upload."""


def no_wait(copies: HostCopies, event: Any) -> None:
    """The host does not wait for the upload out of the buffer that it fills again."""


def upload_at_once(copies: HostCopies, host: Any, out: Any, after: Any) -> Any:
    """The upload does not wait for the cast out of the buffer that it fills again."""
    return copies._copies.put(lambda: np.copyto(out.values, host))


def mark_too_early(feed: DeviceFeed, out: Any) -> None:
    """The buffer is called read before it is."""
    pair = feed._pairs[feed._next]
    pair.read = feed._device.mark()
    feed._device.follow(pair.copied)
    feed._cast(pair.on_device[: len(out)], out)
    feed._next = 1 - feed._next


BUGS = {
    "follow": (HostCopies, no_follow, "copies"),
    "wait": (HostCopies, no_wait, "both"),
    "upload_async": (HostCopies, upload_at_once, "work"),
    "copy_into": (DeviceFeed, mark_too_early, "work"),
}


@pytest.mark.parametrize("name", BUGS)
def test_planted_race_is_detected(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, bug, late = BUGS[name]
    x, y = problem("uint8", "squared_error")

    def fitted() -> tuple[bytes, Any]:
        return trained(network("squared_error", "float32", late), x, y, "stream")

    expected = fitted()
    monkeypatch.setattr(owner, name, bug)
    with contextlib.suppress(FloatingPointError):  # NaN from memory that was not written yet
        assert fitted() != expected


# ---- what a step asks for ------------------------------------------------------------------------


def test_step_waits_only_for_a_free_buffer() -> None:
    x, y = problem("uint8", "squared_error")
    net = network("squared_error", "float32", "copies")
    calls, steps = net.backend._device.calls, []

    def step(trainer: gpumlp.Trainer) -> None:
        steps.append([c for c in calls if not c.startswith("gemm")])
        calls.clear()

    trained(net, x, y, "stream", callbacks=[Hook(step)], validation=None, train_metric=False)
    assert [sum(call == "record" for call in calls) for calls in steps] == [0, 1, 0, 0, 0] + [
        0, 0, 0, 0, 1,
    ] + [0] * 5  # one graph a size  # fmt: skip
    cast = ["follow", "kernel cast in cast.cu, grid 1 1, block 256 1", "mark"]
    for i in (2, 6, 7, 11, 12):
        assert steps[i][:6] == cast * 2
        fetch = ["wait", "async upload (16, 13) uint8", "wait", "async upload (16, 3) uint8"]
        assert steps[i][-4:] == fetch
        between = steps[i][6:-4]
        assert between[0].startswith("replay of")
        assert all(call.startswith("kernel") for call in between[1:])
        assert not any("gather.cu" in call and "mean_weights" not in call for call in between)
    assert steps[3][-4:] == [c.replace("16,", "6,") for c in fetch]
    assert steps[4][-1].startswith("kernel update")  # nothing is fetched beyond the epoch


def test_epoch_can_begin_at_any_step() -> None:
    """Rows that were fetched for another step are dropped."""
    x, y = problem("int8", "squared_error")
    net = network("squared_error", "float32", "both")
    trainer = gpumlp.Trainer(net, "sgd", batch_size=16)
    batches = trainer.batches(Examples.checked(net, x, y, data="stream"))
    controls = trainer.controls([1e-3] * batches.order.steps, 1)
    batches.start(0, controls, np.zeros(batches.order.steps), 0)
    order = np.random.default_rng([0, 0]).permutation(M)
    for at in (0, 3, 1, 2, 0):
        batches.seek(at)
        trainer.step(batches)
        rows, _ = batches._places[16, 0]
        got = net.backend.to_host(rows)
        np.testing.assert_array_equal(got, x[order[16 * at : 16 * at + 16]].astype(np.float32))


# ---- where data goes -----------------------------------------------------------------------------


def test_auto_streams_what_does_not_fit() -> None:
    x, y = problem("uint8", "squared_error")
    net = network("squared_error", "float32", "copies")
    device = net.backend._device
    needed = placement._of_steps(net, 16, M) + M * 16 * 4
    for free, streamed in ((needed, False), (needed - 1, True)):
        device.limit = device.live + free
        data = Examples.checked(net, x, y, rows=16)
        assert (data.x is x, data.y is y) == (streamed, streamed)
    net = network("softmax_cross_entropy", "float32", "copies")
    data = Examples.checked(net, x, y[:, 0], data="stream")  # labels
    assert data.x is x
    assert net.backend.owns(data.y)


def test_auto_on_the_cpu_streams_only_mapped_files(tmp_path: Any) -> None:
    net = network("squared_error", "float32")
    for dtype in ("float32", "uint8"):
        x, y = problem(dtype, "squared_error")
        np.save(tmp_path / "x", x)
        file = np.load(tmp_path / "x.npy", mmap_mode="r")
        assert np.shares_memory(Examples.checked(net, file, y).x, file)
        assert (Examples.checked(net, x, y).x is x) == (dtype == "float32")
        cast = Examples.checked(net, file, y, data="device").x
        assert cast.dtype == np.float32
        np.testing.assert_array_equal(cast, x)


def test_invalid_data_argument_raises() -> None:
    x, y = problem("uint8", "squared_error")
    with pytest.raises(ValueError, match='data must be "auto", "device" or "stream", got \'disk\''):
        trained(network("squared_error", "float32"), x, y, "disk")


@pytest.mark.parametrize("late", ["", "both"])
def test_run_resumes_with_data_streamed_or_not(late: str, tmp_path: Any) -> None:
    x, y = problem("float64", "squared_error")
    file = tmp_path / "run.safetensors"

    def fail(trainer: gpumlp.Trainer) -> None:
        if trainer.steps == 8:
            raise StopIteration

    def net() -> gpumlp.MLP:
        return network("squared_error", "float32", late)

    with pytest.raises(StopIteration):
        trained(net(), x, y, "device", checkpoint=file, checkpoint_every=3, callbacks=[Hook(fail)])
    whole = trained(net(), x, y, "stream")
    assert trained(net(), x, y, "stream", checkpoint=file, resume=True) == whole
    with pytest.raises(gpumlp.CheckpointError, match="other data"):
        trained(net(), x + 1, y, "stream", checkpoint=file, resume=True)
