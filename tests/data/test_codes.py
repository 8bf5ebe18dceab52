"""Codes of embedded columns equal those of scikit-learn; which columns become codes."""

import json

import numpy as np
import pytest

from tests.support.compiled import needs_library
from tests.support.cuda_networks import on_cuda_backend
from tests.support.data_cases import COLOURS, X, table, write_csv
from tests.support.refusal import refusal

pytest.importorskip("pyarrow")
pytest.importorskip("sklearn")

from sklearn.preprocessing import OrdinalEncoder

from gpumlp import MLP
from gpumlp.data import Embed, Preparation, Scratch, load, load_inputs
from gpumlp.data.scratch import FileMatrix

RNG, M = np.random.default_rng(8), 300
TOWNS = RNG.permutation(np.repeat([f"t{i:02}" for i in range(24)], np.arange(24, 0, -1)))  # 300
EMPTY = np.where(np.arange(M) % 11 == 3, "", TOWNS)


@pytest.fixture
def shop(tmp_path):
    """24 towns, more or less rare, some missing; 3 colours; numbers."""
    columns = {"a": RNG.normal(size=M).round(3), "town": EMPTY, "colour": np.resize(COLOURS, M),
               "b": np.arange(M) % 7, "y": RNG.normal(size=M).round(3)}  # fmt: skip
    return write_csv(tmp_path / "t.csv", columns)


def seen(data, **settings):
    """The inputs of the network, and the preparation."""
    known = Preparation.of(data, x=False, y=False, **settings)
    return known.inputs(data.x[:], data.categories), known


@pytest.mark.parametrize("least", [1, 8])
def test_codes_equal_those_of_scikit_learn(shop, least):
    x, known = seen(load(shop, "y"), embed={"town": 4}, min_frequency=least)
    n = len(known.categories["town"])
    gone = EMPTY == ""
    encoder = OrdinalEncoder(min_frequency=least, handle_unknown="use_encoded_value",
                             unknown_value=n).fit(EMPTY[~gone, None])  # fmt: skip
    assert known.columns == ("a", "town", "colour=blue", "colour=green", "colour=red", "b")
    np.testing.assert_array_equal(x[~gone, 1], encoder.transform(EMPTY[~gone, None])[:, 0])
    np.testing.assert_array_equal(x[gone, 1], n + 1)
    assert known.embed == {1: (n + 2, 4)}
    assert (known.others == ("town",)) == (least > 1)


def test_the_other_inputs_are_those_without_embeddings(shop):
    data = load(shop, "y")
    plain, embedded = (
        Preparation.of(data, x=True, y=True, embed=embed) for embed in (None, {"town": 4})
    )
    at = [embedded.columns.index(n) for n in embedded.columns if n != "town"]
    same = [plain.columns.index(embedded.columns[i]) for i in at]
    x, z = (p.inputs(data.x[:], data.categories) for p in (embedded, plain))
    np.testing.assert_array_equal(x[:, at], z[:, same])


def test_unknown_missing_and_rare_categories(tmp_path, shop):
    _, known = seen(load(shop, "y"), embed={"town": 4, "colour": 2}, min_frequency=12)
    n = len(known.categories["town"])
    new = {"a": [1] * 4, "b": [0] * 4, "colour": ["red", "pink", "", " red"],
           "town": ["t00", "Ulm", "", "t23"]}  # fmt: skip
    raw = load_inputs(write_csv(tmp_path / "n.csv", new), known)
    x = known.inputs(raw)
    town, colour = (x[:, known.columns.index(name)].tolist() for name in ("town", "colour"))
    assert town == [0, n, n + 1, n]  # t23 is rare, Ulm unknown
    assert colour == [2, 3, 4, 2]
    # pink and the missing colour; rare towns and missing ones are known
    np.testing.assert_array_equal(known.unseen_counts(raw), [0, 0, 2, 0])


def test_a_number_is_for_columns_with_more_categories(shop):
    data = load(shop, "y")
    for d, embedded in [(2, {"town": 2, "colour": 2}), (3, {"town": 3}), (23, {"town": 23}),
                        (24, {})]:  # fmt: skip
        assert seen(data, embed=d, min_frequency=1)[1].embedded == embedded
    # 17 towns have 8 examples or more; the others are one category more
    least = sum(np.unique(EMPTY[EMPTY != ""], return_counts=True)[1] >= 8)
    assert seen(data, embed=least, min_frequency=8)[1].embedded == {"town": least}
    assert seen(data, embed=least + 1, min_frequency=8)[1].embedded == {}
    both = Embed(3, (("town", 8),))
    assert seen(data, embed=both)[1].embedded == {"town": 8}
    both = Embed(2, (("town", 8),))
    assert seen(data, embed=both)[1].embedded == {"town": 8, "colour": 2}


def test_embedded_columns_have_all_categories_that_are_not_rare(shop):
    _, known = seen(load(shop, "y"), embed={"town": 4}, min_frequency=1, max_categories=5)
    assert len(known.categories["town"]) == 24
    _, known = seen(load(shop, "y"), min_frequency=1, max_categories=5)
    assert len(known.categories["town"]) == 5


def test_one_category_and_none(tmp_path):
    path = write_csv(tmp_path / "t.csv", table(word=["one"] * 60, y=X[:, 0]))
    x, known = seen(load(path, "y", embed=["word"]), embed={"word": 3})
    np.testing.assert_array_equal(x[:, 3], 0)
    assert known.embed == {3: (3, 3)}
    assert known.others == ()


@pytest.mark.parametrize("gap", [False, True])
def test_only_rare_categories(tmp_path, gap):
    """They would share one vector, which says nothing."""
    words = [f"w{i // 2}" for i in range(60)]
    path = write_csv(tmp_path / "t.csv", table(word=["" if gap else "w0", *words[1:]], y=X[:, 0]))
    found = load(path, "y", embed=["word"])
    x, known = seen(found, embed={"word": 3})
    assert known.columns == ("a", "b", "c", *["word missing"] * gap)
    assert (known.embed, known.others, known.categories) == ({}, (), {"word": ()})
    assert not known.unseen_counts(found.x[:]).any()
    np.testing.assert_array_equal(x[:, 3:], np.arange(60)[:, None][:, :gap] == 0)
    assert seen(found, embed={"word": 3}, min_frequency=2)[1].embed == {3: (32 - gap, 3)}


def test_many_words_are_categories_if_they_are_named(tmp_path):
    names = [f"Mr {i // 2}" if i < 20 else f"Ms {i}" for i in range(60)]
    path = write_csv(tmp_path / "t.csv", table(name=names, y=X[:, 0]))
    refusal(ValueError, lambda: load(path, "y"), "name (50 different)")
    _, known = seen(load(path, "y", embed=["name"]), embed={"name": 4}, min_frequency=2)
    assert known.embed == {3: (12, 4)}


def test_json_has_the_widths_and_files_without_them_can_be_read(shop):
    _, known = seen(load(shop, "y"), embed={"town": 4})
    stored = json.loads(json.dumps(known.to_json()))
    assert Preparation.from_json("m", {"data": stored}) == known
    del stored["embedded"]
    assert Preparation.from_json("m", {"data": stored}).embedded == {}


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_many_codes_are_exact_in_a_file(tmp_path, monkeypatch, dtype):
    """70,000 words, which float16 or a rounded standardisation would not keep apart."""
    monkeypatch.setattr("gpumlp.io.chunks.CHUNK_BYTES", 20_000)
    order = np.random.default_rng(1).permutation(70_000)
    path = write_csv(tmp_path / "t.csv", {"w": [f"w{i:05}" for i in order], "y": order % 5 * 1.5})
    scratch = Scratch(tmp_path, stream=True)
    data = load(path, "y", embed=["w"], scratch=scratch)
    assert isinstance(data.x, FileMatrix)
    known = Preparation.of(data, x=True, y=True, embed={"w": 2}, min_frequency=1)
    x = known.prepared(data.x, dtype, scratch, data.categories)
    assert isinstance(x, np.memmap)
    assert x.dtype == dtype
    np.testing.assert_array_equal(x[:, 0], order)


@pytest.mark.parametrize("place", ["numpy", pytest.param("cpu", marks=needs_library), "cuda"])
def test_vectors_that_training_never_uses_begin_at_0(shop, place):
    data = load(shop, "y")
    known = Preparation.of(data, x=True, y=True, embed=Embed(2, (("town", 4),)), min_frequency=1)
    net = MLP([len(known.columns), 8, 1], loss="squared_error", embed=known.embed, backend="numpy")
    before = net.tensors()
    if place == "cuda":
        net = on_cuda_backend(net)
    elif place == "cpu":
        net = MLP(**net.config() | {"backend": "cpu"})
    known.begin(net)
    after = net.tensors()
    never = {"embed.1.weight": [24], "embed.2.weight": [3, 4]}  # missing towns are known
    for name, tensor in before.items():
        tensor[never.get(name, [])] = 0
        np.testing.assert_array_equal(after[name], tensor, err_msg=name)
    assert known.embed == {1: (26, 4), 2: (5, 2)}
    plain = MLP([len(known.columns), 8, 1], loss="squared_error", backend="numpy")
    refusal(ValueError, lambda: known.begin(plain), "embed=preparation.embed")


@pytest.mark.parametrize(
    ("embed", "error", "said"),
    [
        ({"twon": 4}, ValueError, "no feature column 'twon'; did you mean 'town'?"),
        ({"b": 4}, ValueError, "only categories have embeddings, and b holds numbers; take them"),
        ({"b": 4}, ValueError, "as categories, --categorical b"),
        ({"gone": 4}, ValueError, "an embedded column is dropped; leave out --drop gone"),
        ({"town": 0}, ValueError, "embed['town'] must be at least 1, got 0"),
        ({"town": "x"}, TypeError, "embed['town'] must be a whole number"),
        (0, ValueError, "embed must be at least 1, got 0"),
        (-3, ValueError, "embed must be at least 1, got -3"),
        ("16", TypeError, "embed must be a whole number of 1 or more, got '16'"),
        (2.5, TypeError, "embed must be a whole number of 1 or more, got 2.5"),
    ],
)
def test_wrong_values_raise(shop, embed, error, said):
    data = load(shop, "y")
    vars(data)["left_out"] = {"gone": ""}
    refusal(error, lambda: Preparation.of(data, x=True, y=True, embed=embed), said)


def test_data_without_categories_raises(tmp_path):
    data = load(write_csv(tmp_path / "t.csv", table()), "c")
    refusal(ValueError, lambda: Preparation.of(data, x=True, y=True, embed=4), "no column of cat")
    with pytest.raises(ValueError, match="digits has no columns with names; leave out --embed"):
        load("digits", embed=["a"])
