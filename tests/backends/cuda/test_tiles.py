"""The optimizer's step within the product that computes ∇W: its text, its code, its results."""

import lzma
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import gpumlp
from gpumlp import L2, OPTIMIZERS, ElasticNet, Group
from gpumlp.backends.cuda import tiles
from gpumlp.backends.cuda.backend import CudaBackend
from gpumlp.backends.numpy.backend import NumpyBackend
from tests.support.cuda_networks import device, moved, relative
from tests.support.harness.host_device import HostDevice

RULES = [each for each in OPTIMIZERS.values() if each.orthogonal is None]
CUBINS = files("gpumlp.kernels") / "cubins"
WAY = "branched, update in products"


def disassembler():
    """The path of nvdisasm, of PyPI's package or of a toolkit; None if there is none."""
    places = [Path(each) / "nvidia/cu13/bin/nvdisasm" for each in sys.path]
    found = [str(each) for each in places if each.is_file()]
    return found[0] if found else shutil.which("nvdisasm")


@pytest.mark.parametrize("optimizer", RULES, ids=lambda each: each.name)
def test_the_kernel_computes_what_numpy_computes(optimizer):
    rng = np.random.default_rng(1)
    m, n_out, n_in, start = 150, 136, 264, 64
    n, p = n_out * n_in, n_out * n_in + 128
    gz, h = (rng.normal(size=(m, k)).astype(ml_dtypes.bfloat16) for k in (n_out, n_in))
    theta = rng.normal(size=p).astype(np.float32)
    slots = rng.random((len(optimizer.slots), p)).astype(np.float32)
    control = np.array([1.0, *optimizer.control(0.01, 3)])
    factors = (0.5, 3.0 if "weight_decay" in optimizer.params else 1.0)
    host, on_device = HostDevice(), {}
    backend = CudaBackend(host, "bfloat16")
    given = {"gz": gz, "h": h, "theta": theta, "slots": slots, "control": control,
             "rounded": np.zeros(p, ml_dtypes.bfloat16)}  # fmt: skip
    for name, a in given.items():
        on_device[name] = backend.asarray(a, dtype=a.dtype)

    def run(each, a):
        each.weight_update(
            optimizer, L2(0.1), a["gz"], a["h"], a["theta"], a["rounded"], a["slots"],
            a["control"], (start, start + n), factors,
        )  # fmt: skip

    run(backend, on_device)
    got = {name: on_device[name].values for name in ("theta", "slots", "rounded")}
    before = {name: given[name].copy() for name in ("theta", "slots")}
    run(NumpyBackend("float32"), given | {"gz": gz.astype("f4"), "h": h.astype("f4")})
    for name in ("theta", "slots"):
        want, inside = given[name], (..., slice(start, start + n))
        np.testing.assert_allclose(got[name], want, rtol=2e-5, atol=2e-5)
        assert want.size == 0 or not np.array_equal(want[inside], before[name][inside])
    np.testing.assert_array_equal(
        got["rounded"][start : start + n],
        got["theta"][start : start + n].astype(ml_dtypes.bfloat16),
    )
    outside = np.r_[0:start, start + n : p]
    np.testing.assert_array_equal(got["theta"][outside], before["theta"][outside])
    assert host.launches == [f"kernel weight_update of {optimizer.name}, {2 * 3} tiles"]


@pytest.mark.parametrize("optimizer", ["adamw", "lion", "sgd"])
def test_training_with_updates_in_products_moves_as_without(optimizer):
    def trained(variant):
        net = gpumlp.MLP([16, 24, 32, 8], "gelu", precision="bfloat16", regularizer=L2(1e-3),
                         backend=CudaBackend(HostDevice(variant=variant), "bfloat16"))  # fmt: skip
        start = net.tensors()
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(96, 16)), rng.integers(0, 8, 96)
        groups = {"first": Group(lr=0.5)}
        trainer = gpumlp.Trainer(net, optimizer, lr=0.01, batch_size=32, groups=groups)
        trainer.fit(x, y, 3, progress=False)
        return net, moved(net, start)

    (plain, expected), (net, got) = trained(""), trained(WAY)
    assert relative(got, expected) < 0.03  # dW is not rounded to bfloat16 here
    within = [call for call in device(net).launches if "weight_update" in call]
    assert len(within) >= 3 * 2 * 3  # three layers, and at least two replayed steps an epoch
    assert not any("weight_update" in call for call in device(plain).launches)


def ways(optimizer="adamw", precision="bfloat16", widths=(16, 24, 8), **settings):
    of_net = {"regularizer": settings.pop("regularizer", L2(0.0))}
    net = gpumlp.MLP([*widths], precision=precision, **of_net,
                     backend=CudaBackend(HostDevice(), precision))  # fmt: skip
    trainer = gpumlp.Trainer(net, optimizer, batch_size=8, **settings)
    x, y = np.zeros((16, widths[0])), np.zeros(16, int)
    with pytest.raises(ValueError, match="way must be one of") as raised:
        trainer.explain(x, y, way="?")
    return str(raised.value)


def test_updates_in_products_are_a_way_of_bfloat16_steps():
    assert WAY in ways()
    assert WAY in ways(regularizer=ElasticNet(0.0, 0.1))


@pytest.mark.parametrize(
    "settings",
    [
        {"clip_norm": 1.0}, {"precision": "float16"}, {"precision": "float32"},
        {"slot_precision": "bfloat16"}, {"regularizer": ElasticNet(0.1, 0.1)},
        {"widths": (15, 23, 7)}, {"optimizer": "muon"}, {"accumulate": 2},
        {"optimizer": replace(OPTIMIZERS["sgd"], name="own", cuda_rule="if (g) theta -= lr * g;")},
        {"optimizer": "sgd", "fold": True},
    ],
    ids=str,
)  # fmt: skip
def test_updates_in_products_are_not_offered(settings):
    assert WAY not in ways(**settings)


def test_rule_in_other_statements_has_no_tile_kernel():
    for rule in (
        "theta -= pow(g, 2);",
        "theta -= g > 0 ? lr : -lr;",
        "for (;;) {}",
        "theta.x = 1;",
    ):
        assert tiles.weight_update(replace(OPTIMIZERS["sgd"], cuda_rule=rule)) is None


def test_code_is_shipped_for_each_optimizer_and_for_nothing_else():
    wanted = {
        f"{tiles.weight_update(each).stem}-{architecture}.cubin.xz"
        for each in RULES
        for architecture in tiles.ARCHITECTURES.values()
    }
    assert {each.name for each in CUBINS.iterdir()} == wanted, (
        "write them with: python kernels/compile_tiles.py"
    )


@pytest.mark.skipif(disassembler() is None, reason="needs nvdisasm: nvidia-cuda-nvdisasm")
@pytest.mark.parametrize("path", sorted(CUBINS.iterdir()), ids=lambda each: each.name)
def test_code_uses_tensor_cores_and_no_local_memory(path, tmp_path):
    code = tmp_path / "code.cubin"
    code.write_bytes(lzma.decompress(path.read_bytes()))
    done = subprocess.run([disassembler(), code], capture_output=True, text=True, check=True)
    operations = set(re.findall(r"\*/\s+(?:@!?U?P\w+ )?([A-Z][A-Z0-9]+)", done.stdout))
    assert {"HGMMA", "UTCHMMA"} & operations  # WGMMA of sm_90, tcgen05 of sm_100
    assert "UTMALDG" in operations  # loads by the tensor memory accelerator
    assert not {"HMMA", "LDL", "STL"} & operations


def test_gpu_of_another_kind_has_no_code():
    source = tiles.weight_update(OPTIMIZERS["adamw"])
    assert tiles.machine_code(source, "8.0") is None
    assert tiles.machine_code(source, "9.0")[:4] == b"\x7fELF"


def test_more_entries_than_32_bits_count_are_a_device_error():
    """Two slots of a network of 2³¹ parameters; tuning then leaves this way out."""
    slots = np.lib.stride_tricks.as_strided(np.zeros(1, "f4"), (2, 8, 8), (4 << 31, 32, 4))
    with pytest.raises(gpumlp.DeviceError, match="too many entries"):
        tiles.flattened((slots,))


def test_arrays_are_flattened_as_the_calling_convention_says():
    a = np.zeros((3, 5, 8), np.float32)[:, 1:3]
    array, *sizes, number = tiles.flattened((a, np.float32(2)))
    assert array is a
    assert sizes == [3, 2, 8, 40, 8, 1]
    assert {type(each) for each in sizes} == {np.int32}
    assert number == 2
