"""The operators in torch, on a CPU: their registration, and agreement with torch's functions."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from gpumlp import ACTIVATIONS
from tests.support.refusal import refusal

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402, N812
from torch import library  # noqa: E402

from gpumlp.interop import torch_ops as ops  # noqa: E402
from gpumlp.interop.torch import FusedMLP, linear_activation, softmax_cross_entropy  # noqa: E402
from gpumlp.interop.torch_backend import backend_of  # noqa: E402
from tests.support.torch_cases import (  # noqa: E402  (needs torch)
    LABELS,
    TOLERANCE,
    assert_same,
    torch_layer,
    with_gradients,
)

OTHER_PARAMETERS = {"leaky_relu": (0.3,), "elu": (0.5,), "selu": (1.1, 0.9)}

CASES = [(name, ()) for name in ACTIVATIONS] + list(OTHER_PARAMETERS.items())


# ---- a layer ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "params"), CASES)
def test_layer_agrees_with_torch(name, params, tensor):
    x, W, b = tensor(6, 5), tensor(4, 5), tensor(4)
    got = with_gradients(linear_activation(x, W, b, name, *params), x, W, b)
    assert_same(got, with_gradients(torch_layer(x, W, b, name, params), x, W, b), 1e-12)


@pytest.mark.parametrize(("name", "params"), CASES)
def test_layer_passes_gradcheck(name, params, tensor):
    of = tensor(3, 4), tensor(2, 4), tensor(2)
    assert torch.autograd.gradcheck(lambda *of: linear_activation(*of, name, *params), of)


# what f' reads differs: nothing, h, z, or a whole row; and one has a parameter
@pytest.mark.parametrize(
    ("name", "params"),
    [("identity", ()), ("relu", ()), ("gelu", ()), ("softmax", ()), ("leaky_relu", (0.3,))],
)
def test_layer_passes_opcheck(name, params, tensor):
    args = (name, list(params or ACTIVATIONS[name].params.values()))
    library.opcheck(ops.layer, (tensor(3, 4), tensor(2, 4), tensor(2), *args, True))
    of = tensor(3, 4, grad=False), tensor(2, 4, grad=False), tensor(2, grad=False)
    h, z = ops.layer(*of, *args, True)
    assert ops.layer(*of, *args, False)[1].shape == (0,)
    for needs in ([True] * 3, [False, True, False]):
        given = (tensor(3, 2, grad=False), *of[:2], z, h, *args, needs)
        library.opcheck(ops.layer_backward, given)


@pytest.mark.parametrize(
    "shape", [(7, 5), (5,), (2, 3, 5), (1, 5), (2, 1, 3, 5), (0, 5), (3, 0, 5)]
)
@pytest.mark.parametrize("name", ["relu", "gelu", "softmax", "identity"])
def test_leading_axes(shape, name, tensor):
    x, W, b = tensor(*shape), tensor(4, 5), tensor(4)
    got = with_gradients(linear_activation(x, W, b, name), x, W, b)
    assert_same(got, with_gradients(torch_layer(x, W, b, name, ()), x, W, b), 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["tanh", "silu"])
def test_other_dtypes(dtype, name, tensor):
    x, W, b = tensor(6, 5, dtype=dtype), tensor(4, 5, dtype=dtype), tensor(4, dtype=dtype)
    got = with_gradients(linear_activation(x, W, b, name), x, W, b)
    wide = [t.detach().double().requires_grad_() for t in (x, W, b)]
    want = [t.to(dtype) for t in with_gradients(torch_layer(*wide, name, ()), *wide)]
    assert_same(got, want, TOLERANCE[dtype])


def test_strided_and_expanded_tensors(tensor):
    wide = tensor(5, 12)
    x, W = wide.T[::2], tensor(5, 8).T[::2]
    b = tensor(1).expand(4)
    for f in ("relu", "mish"):
        got = with_gradients(linear_activation(x, W, b, f), wide, W, b)
        assert_same(got, with_gradients(torch_layer(x, W, b, f, ()), wide, W, b), 1e-12)
        # a gradient that is one number, expanded, as sum().backward() makes it
        (gW,) = torch.autograd.grad(linear_activation(x, W, b, f).sum(), W)
        (want,) = torch.autograd.grad(torch_layer(x, W, b, f, ()).sum(), W)
        assert_same([gW], [want], 1e-12)


def recording(op, last):
    """The operator; it appends the last argument of each call to `last`."""

    def call(*args):
        last.append(args[-1])
        return op(*args)

    return call


def test_only_requested_gradients_are_computed(tensor, monkeypatch):
    """z is not stored either if no gradient is requested."""
    keep, needs, of = [], [], (tensor(6, 5), tensor(4, 5), tensor(4))
    want = with_gradients(torch_layer(*of, "gelu", ()), *of)
    monkeypatch.setattr(ops, "layer", recording(ops.layer, keep))
    monkeypatch.setattr(ops, "layer_backward", recording(ops.layer_backward, needs))
    with torch.no_grad():
        assert not linear_activation(*of, "gelu").requires_grad
    linear_activation(*(t.detach() for t in of), "gelu")
    for t in of:
        alone = [each if each is t else each.detach() for each in of]
        got = with_gradients(linear_activation(*alone, "gelu"), t)
        assert_same(got, [want[0], want[1 + len(needs) - 1]], 1e-12)
    assert keep == [False, False, True, True, True]
    assert needs == [[True, False, False], [False, True, False], [False, False, True]]


def test_inputs_are_not_changed(tensor):
    """The result is a new tensor."""
    tensors = tensor(6, 5, grad=False), tensor(4, 5, grad=False), tensor(4, grad=False)
    before = [t.clone() for t in tensors]
    h = linear_activation(*tensors, "relu")
    linear_activation(*tensors, "relu").fill_(torch.nan)
    assert torch.isfinite(h).all()
    for t, b in zip(tensors, before, strict=True):
        assert torch.equal(t, b)


def test_backend_shares_the_tensors_memory(tensor):
    W, strided = tensor(4, 5), tensor(5, 4).T
    half = torch.zeros(4, 5, dtype=torch.float16)
    with backend_of(W) as at:
        assert at.input(W).ctypes.data == at.output(W).ctypes.data == W.data_ptr()
        assert at.input(strided).ctypes.data != strided.data_ptr()
        np.testing.assert_array_equal(at.input(strided), strided.detach().numpy())
    with backend_of(half) as at:
        at.output(half)[...] = 1.25
        assert not half.any()
    assert (half == 1.25).all()


def test_threads_do_not_disturb_each_other(tensor):
    W, b = tensor(64, 64), tensor(64)
    many = [tensor(50 + i, 64) for i in range(8)]

    def work(x):
        return with_gradients(linear_activation(x / 8, W, b, "gelu"), x, W, b)

    want = [work(x) for x in many]
    with ThreadPoolExecutor(4) as pool:
        for got, one in zip(pool.map(work, many * 5), want * 5, strict=True):
            assert_same(got, one, 0)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # inductor's own
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiles_as_one_graph(backend, tensor):
    def net(x, W, b, V, c, y):
        return softmax_cross_entropy(linear_activation(linear_activation(x, W, b, "gelu"), V, c), y)

    of = tensor(6, 5), tensor(4, 5), tensor(4), tensor(3, 4), tensor(3)
    y = torch.tensor([0, 1, 2, 2, -100, 0])
    compiled = torch.compile(net, fullgraph=True, backend=backend)
    got, want = compiled(*of, y), net(*of, y)
    assert_same(with_gradients(got, *of), with_gradients(want, *of), 1e-12)
    with torch.no_grad():
        assert_same([compiled(*of, y)], [want], 1e-12)


def test_second_derivative_raises(tensor):
    x, W, b = tensor(6, 5), tensor(4, 5), tensor(4)
    (gx,) = torch.autograd.grad(linear_activation(x, W, b, "tanh").sum(), x, create_graph=True)
    refusal(
        NotImplementedError, lambda: gx.sum().backward(),
        "gpumlp::linear_activation has no second derivative", "torch.nn.Sequential(*fused)",
    )  # fmt: skip
    logits = tensor(3, 4)
    J = softmax_cross_entropy(logits, torch.tensor([0, 1, 3]))
    (g,) = torch.autograd.grad(J, logits, create_graph=True)
    refusal(NotImplementedError, lambda: g.sum().backward(), "gpumlp::softmax_cross_entropy has no")


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated")  # torch's own use
def test_forward_mode_and_torch_func_raise():
    """torch would take the derivatives of operators that have none for 0."""
    x, fused = torch.ones(6, 5), FusedMLP([5, 4, 3])
    calls = {
        "x": lambda: torch.func.jvp(fused, (x,), (x,)),
        "weight": lambda: torch.func.grad(
            lambda W: torch.func.functional_call(fused, W, (x,)).sum()
        )(dict(fused.named_parameters())),
        "logits": lambda: torch.func.jvp(
            lambda z: softmax_cross_entropy(z, torch.arange(6) % 5), (x,), (x,)
        ),
    }
    for name, call in calls.items():
        said = f"torch.func, and none in forward mode, for {name}", "torch.nn.Sequential(*fused)"
        refusal(NotImplementedError, call, *said)
    assert torch.func.jvp(torch.nn.Sequential(*fused), (x,), (x,))[1].any()


def test_invalid_layer_arguments_raise(tensor):
    x, W, b = tensor(6, 5), tensor(4, 5), tensor(4)
    for bad, error, *texts in (
        (
            (x[:, :4], W, b),
            ValueError,
            "x has shape (6, 4) but the layer's weight has (4, 5)",
            "(…, 5)",
        ),
        ((x.float(), W, b), TypeError, "x is torch.float32 on cpu but", "pass x.to(weight)"),
        ((x, W, b.float()), TypeError, "bias is torch.float32 on cpu", "pass bias.to(weight)"),
        *(
            ((x, W, tensor(*shape)), ValueError, f"bias {shape}; pass", "bias of shape (n_out,)")
            for shape in ((3,), (0,), (8,), (), (4, 1), (1, 4))
        ),
        *(
            ((x, tensor(*shape), bias), ValueError, f"weight has shape {shape}", "(n_out, n_in)")
            for shape in ((5,), (), (1, 4, 5))
            for bias in (b, None)
        ),
        ((x, W, b, ACTIVATIONS["relu"]), TypeError, "activation must be a string"),
        ((x.detach().numpy(), W, b), TypeError, "x must be a torch.Tensor, got ndarray", "as_tens"),
        ((x, W, 0.0), TypeError, "bias must be a torch.Tensor, got float"),
        ((x.to_sparse(), W, b), TypeError, "x is not a dense tensor; pass x.to_dense()"),
        ((x, W, b, "rleu"), ValueError, "unknown activation 'rleu'; did you mean 'relu'?"),
        ((x, W, b, "elu", 1.0, 2.0), ValueError, "elu has the parameters alpha; got 2 numbers"),
        ((x, W, b, "elu", -1.0), ValueError, "elu: alpha must lie in [0, inf)"),
        (
            [t.detach().long() for t in (x, W, b)],
            TypeError,
            "gpumlp computes in float64",
            "move or cast",
        ),
    ):
        refusal(error, lambda bad=bad: linear_activation(*bad), *texts)
    refusal(
        RuntimeError, lambda: ops.layer(x, W, b, "relu", [], False)[0].sum().backward(),
        "call it with keep=True",
    )  # fmt: skip


# ---- cross-entropy ------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("kind", ["labels", "ignoring", "probabilities"])
def test_cross_entropy_agrees_with_torch(smoothing, weighted, reduction, kind, tensor):
    logits, weight = tensor(6, 4), tensor(4, grad=False).abs() + 0.1 if weighted else None
    y = {
        "labels": LABELS, "ignoring": LABELS.masked_fill(LABELS == 2, -100),
        "probabilities": tensor(6, 4, grad=False).softmax(dim=1),
    }[kind]  # fmt: skip
    how = {"label_smoothing": smoothing, "weight": weight, "reduction": reduction}
    got = with_gradients(softmax_cross_entropy(logits, y, **how), logits)
    assert_same(got, with_gradients(F.cross_entropy(logits, y, **how), logits), 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("labels", [torch.int64, torch.uint8])
def test_cross_entropy_in_other_dtypes(dtype, labels, tensor):
    logits = tensor(6, 4, dtype=dtype)
    got = with_gradients(softmax_cross_entropy(logits, LABELS.to(labels)), logits)
    wide = logits.detach().double().requires_grad_()
    want = [t.to(dtype) for t in with_gradients(F.cross_entropy(wide, LABELS), wide)]
    assert_same(got, want, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["labels", "ignoring", "probabilities"])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_of_masked_and_large_logits(weighted, kind, dtype, tensor):
    """−inf excludes a class, an offset changes nothing, and ignored rows may hold anything."""
    offset = {torch.float64: 1e12, torch.float32: 1e6, torch.bfloat16: 256, torch.float16: 1024}
    logits = (8 * tensor(6, 5, grad=False)).round() + offset[dtype]
    logits[:, 4] = -torch.inf
    logits[1, 0] = -torch.inf
    y = LABELS.masked_fill(LABELS == 2, -100) if kind == "ignoring" else LABELS
    if kind == "ignoring":
        logits[2:4] = torch.tensor([-torch.inf, torch.nan])[:, None]
    if kind == "probabilities":
        y = torch.eye(5, dtype=torch.float64)[LABELS]
    weight = tensor(5, grad=False).abs() + 0.1 if weighted else None
    narrow = logits.to(dtype).requires_grad_()
    J = softmax_cross_entropy(narrow, y, weight=weight)
    (gradient,) = torch.autograd.grad(J, narrow)
    # torch itself gives NaN for such probabilities, and for the gradient of such ignored rows
    rows = kind == "probabilities" and weight is not None
    factor = float(weight[LABELS].sum() / 6) if rows else 1.0
    wide = narrow.detach().double().nan_to_num(nan=0.0, neginf=-torch.inf).requires_grad_()
    want = factor * F.cross_entropy(wide, y if kind == "ignoring" else LABELS, weight=weight)
    slope = torch.autograd.grad(want, wide)[0].nan_to_num()
    assert_same([J, gradient], [want.to(dtype), slope.to(dtype)], TOLERANCE[dtype])


def test_cross_entropy_without_any_class_is_nan(tensor):
    logits = tensor(6, 4, grad=False).index_fill(0, torch.tensor([1]), -torch.inf)
    assert softmax_cross_entropy(logits, LABELS).isnan()
    assert F.cross_entropy(logits, LABELS).isnan()


def test_cross_entropy_passes_gradcheck_and_opcheck(tensor):
    logits, share = tensor(6, 4), torch.full((6,), 1 / 6, dtype=torch.float64)
    p = tensor(6, 4, grad=False).softmax(dim=1)
    for y in (LABELS, p):
        assert torch.autograd.gradcheck(lambda a, y=y: ops.entropy(a, y, share, 0.1), (logits,))
        library.opcheck(ops.entropy, (logits, y, share, 0.1))
        given = (torch.tensor(2.0, dtype=torch.float64), logits.detach(), y, share, 0.1)
        library.opcheck(ops.entropy_backward, given)


def test_cross_entropy_of_no_rows_and_of_ignored_rows(tensor):
    """The mean of nothing is NaN, but its gradient, which a step would add, is 0."""
    for rows in (0, 3):
        logits, y = tensor(rows, 4), torch.full((rows,), -100)
        for reduction in ("mean", "sum"):
            ours = softmax_cross_entropy(logits, y, reduction=reduction)
            theirs = F.cross_entropy(logits, y, reduction=reduction)
            np.testing.assert_equal(ours.item(), theirs.item())
            got = torch.autograd.grad(ours, logits)
            assert_same(got, torch.autograd.grad(theirs, logits), 1e-12)


def test_invalid_cross_entropy_arguments_raise(tensor):
    logits = tensor(6, 4)
    for change, error, *texts in (
        (
            {"target": LABELS + 1},
            ValueError,
            "target has labels from 1 to 4 but logits has 4 columns",
        ),
        ({"target": LABELS - 1}, ValueError, "labels from -1 to 2", "pass labels 0 … 3"),
        ({"target": LABELS + 1, "weight": torch.ones(4)}, ValueError, "labels from 1 to 4"),
        ({"target": LABELS[:5]}, ValueError, "logits has shape (6, 4) and target (5,)"),
        ({"target": LABELS.double()}, TypeError, "labels of torch.float64", "target.long()"),
        ({"target": logits}, ValueError, "target requires grad", "target.detach()"),
        ({"reduction": "none"}, ValueError, "reduction must be", "gives each example's"),
        ({"weight": torch.ones(3)}, ValueError, "weight has shape (3,) but logits has 4 classes"),
        ({"label_smoothing": 1.5}, ValueError, "smoothing must lie in [0, 1)"),
        ({"label_smoothing": "a"}, TypeError, "label_smoothing must be a number, got 'a'"),
        ({"ignore_index": 1.5}, TypeError, "ignore_index must be a whole number", "got 1.5"),
        ({"target": LABELS.numpy()}, TypeError, "target must be a torch.Tensor, got ndarray"),
        ({"weight": [1.0] * 4}, TypeError, "weight must be a torch.Tensor, got list"),
    ):
        given = {"target": LABELS} | change
        refusal(error, lambda given=given: softmax_cross_entropy(logits, **given), *texts)


def test_storage_can_be_resized_afterwards():
    """As FSDP does with parameters; `Tensor.numpy` makes that an error."""
    x, W, b = (torch.randn(*shape, requires_grad=True) for shape in [(4, 3), (2, 3), (2,)])
    y = torch.tensor([0, 1, 1, 0])
    h = linear_activation(x, W, b, "gelu")
    J = softmax_cross_entropy(h, y)
    J.backward()
    for t in (x, W, b, y, h, J, x.grad, W.grad, b.grad):
        assert t.untyped_storage().resizable()
