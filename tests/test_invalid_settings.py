"""Invalid settings raise an error of one line that names the argument and what to pass."""

import fractions
import inspect

import numpy as np
import pytest

import gpumlp
from gpumlp import (
    ACTIVATIONS,
    L1,
    L2,
    LOSSES,
    MLP,
    OPTIMIZERS,
    REGULARIZERS,
    SCHEDULES,
    ElasticNet,
    callbacks,
    distributed,
)
from gpumlp.interop.onnx import export_onnx
from tests.support.refusal import refusal

EXPECTED_WIDTHS = "must list inputs, hidden layers and outputs, as [784, 256, 10]"
SETTINGS = [
    ({"widths": 5}, ValueError, "widths", EXPECTED_WIDTHS, "got 5"),
    ({"widths": [5]}, ValueError, "widths", EXPECTED_WIDTHS, "got [5]"),
    ({"widths": []}, ValueError, "widths", EXPECTED_WIDTHS),
    ({"widths": "3-5-2"}, ValueError, "widths", EXPECTED_WIDTHS),
    ({"widths": {3, 5}}, ValueError, "widths", EXPECTED_WIDTHS),
    ({"widths": [3, 0, 2]}, ValueError, "widths[1] must be at least 1, got 0"),
    ({"widths": [3, 5, -2]}, ValueError, "widths[2] must be at least 1, got -2"),
    ({"widths": [3.0, 5, 2]}, TypeError, "widths[0] must be a whole number of 1 or more, got 3.0"),
    ({"widths": [3, True, 2]}, TypeError, "widths[1] must be a whole number", "got True"),
    ({"widths": [3, "5", 2]}, TypeError, "widths[1] must be a whole number", "got '5'"),
    ({"widths": [3, None, 2]}, TypeError, "widths[1] must be a whole number", "got None"),
    ({"widths": np.ones((99, 99))}, TypeError, "widths[0] must be a whole number"),
    ({"activation": "rleu"}, ValueError, "unknown activation 'rleu'; did you mean 'relu'?"),
    ({"activation": "rleu", "widths": [3, 2]}, ValueError, "unknown activation 'rleu'"),
    ({"activation": "Tanh"}, ValueError, "unknown activation 'Tanh'; did you mean 'tanh'?"),
    ({"activation": "zzz"}, ValueError, "unknown activation 'zzz'; known: identity, relu"),
    ({"activation": None}, TypeError, "activation must be a name or an entry", "got NoneType"),
    ({"activation": np.tanh}, TypeError, "activation must be a name or an entry", "got ufunc"),
    ({"activation": ["relu"] * 2}, ValueError, "activation has 2 entries but there are 1 hidden",
     "give one name for all, or one for each"),
    ({"activation": []}, ValueError, "activation has 0 entries but there are 1 hidden"),
    ({"output_activation": "soft_max"}, ValueError, "unknown output_activation 'soft_max'",
     "did you mean 'softmax'?"),
    ({"loss": "squared_eror"}, ValueError, "unknown loss", "did you mean 'squared_error'?"),
    ({"loss": None}, TypeError, "loss must be a name or an entry (gpumlp.Loss)", "known names: "),
    ({"loss": ACTIVATIONS["relu"]}, TypeError, "loss must be a name or an entry", "Activation"),
    ({"regularizer": "elasticnet"}, ValueError, "unknown", "did you mean 'elastic_net'?"),
    ({"regularizer": ""}, ValueError, "unknown regularizer ''; known: none, l1, l2, elastic_net"),
    ({"regularizer": 0.1}, TypeError, "regularizer must be a name or an entry", "got float"),
    ({"initializer": "xavier"}, ValueError, "unknown initializer 'xavier'; known: glorot"),
    ({"initializer": ""}, ValueError, "unknown initializer ''; known: glorot"),
    ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
    ({"seed": None}, TypeError, "seed must be a whole number of 0 or more, got None"),
    ({"precision": "fp32"}, ValueError, "unknown precision 'fp32'; known: float64, float32, tf32"),
    ({"precision": np.float32}, ValueError, "unknown precision", "known: float64, float32"),
    ({"precision": "tf32"}, ValueError, 'backend "numpy" has precision "float64" or "float32"',
     "got 'tf32'; the others need a GPU"),
    ({"backend": "cuda"}, ValueError, "unknown backend 'cuda'", '"auto", "cupy", "cpu", "numpy"'),
    ({"backend": None}, TypeError, "backend must be", '"auto", "cupy", "cpu", "numpy" or'),
    ({"backend": np}, TypeError, "backend must be", '"auto", "cupy", "cpu", "numpy" or'),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "error", "said"), [(s, e, m) for s, e, *m in SETTINGS])
def test_invalid_settings_raise(settings, error, said):
    settings = {"widths": [3, 5, 2], "backend": "numpy"} | settings
    refusal(error, lambda: MLP(**settings), *said)


def test_unknown_arguments_raise():
    with pytest.raises(TypeError, match="unexpected keyword argument 'activations'"):
        MLP([3, 2], activations="relu", backend="numpy")


def test_cupy_without_a_gpu_raises():
    try:
        MLP([3, 2], backend="cupy")
    except gpumlp.DeviceError as error:
        message = str(error)
        assert "\n" not in message
        assert 'backend="numpy"' in message or "pip install" in message, message
    else:
        pytest.skip("there is a GPU here")


PARAMS = [
    (ACTIVATIONS["leaky_relu"], {"slope": -1}, ValueError, "slope must lie in [0, inf), got -1"),
    (ACTIVATIONS["leaky_relu"], {"slop": 1}, TypeError, "no parameter 'slop'; it has: slope"),
    (ACTIVATIONS["tanh"], {"slope": 1}, TypeError, "no parameter 'slope'; it has: none"),
    (ACTIVATIONS["selu"], {"scale": 0}, ValueError, "scale must lie in (0, inf), got 0"),
    (LOSSES["huber"], {"delta": 0}, ValueError, "delta must lie in (0, inf), got 0"),
    (LOSSES["huber"], {"delta": 10**400}, ValueError, "delta must lie in (0, inf), got inf"),
    (LOSSES["huber"], {"delta": float("nan")}, ValueError, "delta must lie in (0, inf), got nan"),
    (LOSSES["huber"], {"delta": float("inf")}, ValueError, "delta must lie in (0, inf), got inf"),
    (LOSSES["huber"], {"delta": "1"}, TypeError, "delta must be a number, got '1'"),
    (LOSSES["huber"], {"delta": True}, TypeError, "delta must be a number, got True"),
    (LOSSES["quantile"], {"q": 1}, ValueError, "q must lie in (0, 1), got 1"),
    (LOSSES["softmax_cross_entropy"], {"smoothing": 1}, ValueError, "must lie in [0, 1), got 1"),
    (OPTIMIZERS["adam"], {"beta1": 1}, ValueError, "beta1 must lie in [0, 1), got 1"),
    (OPTIMIZERS["adam"], {"eps": 0}, ValueError, "eps must lie in (0, inf), got 0"),
    (SCHEDULES["step"], {"gamma": 0}, ValueError, "gamma must lie in (0, 1], got 0"),
    (REGULARIZERS["l1"], {"lam": -1}, ValueError, "lam must lie in [0, inf), got -1"),
]


@pytest.mark.parametrize(("entry", "params", "error", "said"), PARAMS)
def test_invalid_parameters_raise(entry, params, error, said):
    refusal(error, lambda: entry.set(**params), entry.name, said)


def test_invalid_regularizer_parameters_raise():
    refusal(ValueError, lambda: ElasticNet(l2=-1), "elastic_net: l2 must lie in [0, inf), got -1")
    refusal(TypeError, lambda: L1(biases="no"), "l1: biases must be a number, got 'no'")
    refusal(ValueError, lambda: L2(biases=-1), "l2: biases must lie in [0, inf), got -1")


def test_numbers_of_numpy_are_accepted():
    for value in (np.float32(0.25), np.float64(0.25), fractions.Fraction(1, 4)):
        assert ACTIVATIONS["leaky_relu"].set(slope=value).params["slope"] == 0.25
    assert MLP(np.array([3, 2]), backend="numpy", seed=np.int64(1)).widths == (3, 2)


class Odd:
    """No name, number, array or path."""

    def __repr__(self):
        return "<Odd>"


X, Y = np.eye(4, 3), np.arange(4) % 2


def small():
    return MLP([3, 4, 4, 2], backend="numpy")


def ensemble():
    return gpumlp.Ensemble(2, [3, 4, 2], backend="numpy")


DATA = {"x": X, "y": Y}
FILE = {"path": "m.safetensors"}
PUBLIC = {  # a function, its valid arguments, and the parameters that take anything
    "MLP": lambda: (MLP, {"widths": [3, 4, 4, 2], "backend": "numpy"}, ()),
    "Ensemble": lambda: (
        gpumlp.Ensemble,
        {"K": 2, "widths": [3, 4, 2], "backend": "numpy"},
        ("more",),
    ),
    "Trainer": lambda: (gpumlp.Trainer, {"net": small()}, ()),
    "fit": lambda: (gpumlp.Trainer(small()).fit, DATA, ()),
    "fit of an ensemble": lambda: (gpumlp.Trainer(ensemble()).fit, DATA, ()),
    "memory": lambda: (gpumlp.Trainer(small()).memory, DATA, ("sample_weight", "class_weight")),
    "explain": lambda: (gpumlp.Trainer(small()).explain, DATA, ()),
    "find_lr": lambda: (gpumlp.Trainer(small()).find_lr, DATA, ()),
    "fit_lbfgs": lambda: (gpumlp.fit_lbfgs, {"net": small(), **DATA}, ()),
    "predict": lambda: (small().predict, {"x": X}, ()),
    "predict of an ensemble": lambda: (ensemble().predict, {"x": X}, ()),
    "cost": lambda: (small().cost, DATA, ()),
    "save": lambda: (small().save, FILE, ()),
    "load": lambda: (MLP.load, FILE, ("settings",)),
    "export_onnx": lambda: (export_onnx, {"net": small()}, ()),
    "k_folds": lambda: (gpumlp.k_folds, {"m": 9, "n": 3}, ("n",)),
    "world": lambda: (distributed.world, {}, ()),
    "CSVLogger": lambda: (callbacks.CSVLogger, {}, ()),
    "EarlyStopping": lambda: (gpumlp.EarlyStopping, {}, ()),
    "MLflow": lambda: (callbacks.MLflow, {}, ()),
    "ModelCheckpoint": lambda: (callbacks.ModelCheckpoint, FILE, ()),
    "ReduceOnPlateau": lambda: (callbacks.ReduceOnPlateau, {}, ()),
    "TensorBoard": lambda: (callbacks.TensorBoard, {"folder": "f"}, ()),
}
WRONG = {"object": Odd(), "array": np.array([1, -7]), "0-d array": np.array("7"), "list": ["7"]}


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("public", PUBLIC)
def test_every_argument_refuses_other_types_by_its_name(public, what, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small().save("m.safetensors")
    function, given, free = PUBLIC[public]()
    for name in inspect.signature(function).parameters.keys() - set(free):
        with pytest.raises((TypeError, ValueError), match=name):
            function(**{**given, name: WRONG[what]})
