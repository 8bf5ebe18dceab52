"""`gpumlp tune` on a fake CuPy and a fake cublasLt, whose clock says how long a product takes."""

import json

import pytest

pytest.importorskip("typer")

import gpumlp
from gpumlp.backends.cuda.device import CudaDevice
from tests.support.cli_cases import run
from tests.support.fake_cupy import FakeCupy, with_clock

WIDTHS = ["--widths", "5,16,8,3", "--batch-size", "32"]
# (m, n, k), letters' role, epilogue
STEP = {
    ("forward", 32, 16, 5, "relu_aux_bias"),
    ("forward", 32, 8, 16, "relu_aux_bias"),
    ("forward", 32, 3, 8, None),
    ("∂J/∂W", 3, 8, 32, None),
    ("∂J/∂h", 32, 8, 3, "drelu_bgrad"),
    ("∂J/∂W", 8, 16, 32, None),
    ("∂J/∂h", 32, 16, 8, "drelu_bgrad"),
    ("∂J/∂W", 16, 5, 32, None),
}


@pytest.fixture
def lt(monkeypatch):
    """A fake cublasLt with algorithms of 9, 3 and 5 µs.  Each command opens a device."""
    lt = with_clock(monkeypatch)
    device = []
    monkeypatch.setattr("gpumlp.backends.cuda.open_device", lambda: device[0])
    monkeypatch.setattr("gpumlp.cli.tune.open_device", lambda: device[0])
    lt.reopen = lambda: device.__setitem__(slice(None), [CudaDevice(FakeCupy(), lt)])
    lt.reopen()
    return lt


def products(*arguments):
    """The rows of the JSON, with rounded times."""
    rows = json.loads(run("tune", *arguments, "--json").stdout)["products"]
    for row in rows:
        row |= {name: round(t, 6) for name, t in row.items() if isinstance(t, float)}
    return rows


def by_product(rows):
    return {
        tuple(row[name] for name in ("product", "m", "n", "k", "epilogue")): row for row in rows
    }


def test_every_product_of_a_step_is_measured(lt):
    rows = by_product(products(*WIDTHS))
    # beside the step's, the same products without their epilogues, to compare with
    assert set(rows) == STEP | {(*shape, None) for *shape, _ in STEP}
    for (_, m, n, k, epilogue), row in rows.items():
        assert (row["candidates"], row["microseconds"], row["speedup"]) == (3, 3, 3)
        assert row["fused"] == (epilogue is not None)
        # a kernel up; down one and perhaps a second for the sums of db
        assert row["unfused_microseconds"] in ([10, 17] if epilogue else [None])
        assert row["tflops"] == round(2 * m * n * k / 3e-6 / 1e12, 6)


def test_stored_products_are_measured_again_only_with_again(lt):
    before = by_product(products(*WIDTHS))
    lt.microseconds = {70: 1.0, 71: 3.0, 72: 5.0}
    lt.reopen()
    lt.calls.clear()
    assert by_product(products(*WIDTHS)) == {product: before[product] for product in STEP}
    assert len(lt.calls) == 2 * len(STEP)  # a step of separate launches, and a recorded one
    lt.reopen()
    again = products(*WIDTHS, "--again")
    assert {row["microseconds"] for row in again} == {1}


def test_all_variants_of_the_step_are_measured(lt):
    """The graphs of the fake device take no time, so all variants are equally fast."""
    name = "step 5-16-8-3 relu relu identity softmax_cross_entropy adamw float32, minibatch 32"
    printed = json.loads(run("tune", *WIDTHS, "--json").stdout)
    ways = "sequential", "branched", "branched, early update", "early update, reserved"
    assert printed["steps"] == {name: dict.fromkeys(ways, 0)}
    lt.reopen()
    assert json.loads(run("tune", *WIDTHS, "--json").stdout)["steps"] == {}  # it is kept
    lt.reopen()
    assert f"{name}: branched 0 µs, sequential 0 µs" in " ".join(
        run("tune", *WIDTHS, "--again").stdout.split()
    )


def test_table(lt):
    lt.epilogue = 50.0
    text = run("tune", *WIDTHS, "--activation", "gelu").stdout
    assert "MLP(5-16-8-3, gelu" in text
    assert "Test GPU, float32" in text
    [line] = [line for line in text.splitlines() if "32×16×5" in line and "gelu" in line]
    # the variant without the epilogue: 3 µs and one kernel
    assert line.split() == [
        "forward", "32×16×5", "gelu_aux_bias", "no", "3", "10", "0.000512", "5.9",
    ]  # fmt: skip
    assert "measured now, 0 measured before; stored in" in " ".join(text.split())


def test_products_without_an_algorithm_have_no_times(lt):
    lt.lacks = {134, 152}
    with pytest.warns(UserWarning, match="without the epilogue"):
        text = run("tune", *WIDTHS).stdout
    lines = [line.split() for line in text.splitlines() if "×" in line and " no " in line]
    assert len(lines) == 2  # forward writes no bits, so backward reads none
    assert all(line[-2:] == ["no", "0"] for line in lines)


def test_a_model_file(lt, tmp_path):
    net = gpumlp.MLP([4, 8, 1], "gelu", loss="binary_cross_entropy", backend="numpy")
    net.save(tmp_path / "model.safetensors")
    text = run("tune", tmp_path / "model.safetensors", "--precision", "tf32").stdout
    assert "MLP(4-8-1, gelu" in text
    rows = products(tmp_path / "model.safetensors", "--precision", "tf32")
    assert {row["precision"] for row in rows} == {"tf32"}


def test_the_members_of_an_ensemble_have_the_same_products(lt, tmp_path):
    e = gpumlp.Ensemble(3, [4, 8, 1], "gelu", loss="quantile", backend="numpy")
    e.save(tmp_path / "several.safetensors")
    e[0].save(tmp_path / "one.safetensors")
    rows = by_product(products(tmp_path / "several.safetensors", "--again"))
    assert list(rows) == list(by_product(products(tmp_path / "one.safetensors", "--again")))
    text = run("tune", tmp_path / "several.safetensors", "--activation", "tanh").stdout
    assert "MLP(4-8-1, tanh" in text


@pytest.mark.parametrize("loss", ["quantile", "negative_log_likelihood", "softmax_cross_entropy"])
def test_loss_and_output(lt, tmp_path, loss):
    output = "softmax" if loss == "negative_log_likelihood" else "identity"
    net = gpumlp.MLP([4, 8, 3], "tanh", output, loss=loss, backend="numpy")
    net.save(tmp_path / "model.safetensors")
    assert len(products(tmp_path / "model.safetensors")) == 5


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], "give a MODEL file, or the widths of a network: --widths 784,1024,1024,10"),
        (["m.safetensors", "--widths", "3,2"], "give a MODEL file, or the widths"),
        (["--widths", "3;2"], "--widths must be widths such as 784,256,10, got '3;2'"),
        (["--widths", "3,2", "--precision", "int8"], "unknown precision 'int8'"),
        (["missing.safetensors"], "there is no file missing.safetensors"),
    ],
)
def test_errors(lt, arguments, error):
    assert error in run("tune", *arguments, code=2).stderr


def test_without_a_gpu(monkeypatch):
    def no_device():
        raise gpumlp.DeviceError(
            'no NVIDIA driver is installed: install one, or use backend="numpy"'
        )

    monkeypatch.setattr("gpumlp.cli.tune.open_device", no_device)
    printed = run("tune", "--widths", "3,2", code=2).stderr
    assert printed == (
        "gpumlp: error: tune measures products on a GPU: no NVIDIA driver is installed: "
        "install one\n"
    )
