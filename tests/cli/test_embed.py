"""Commands that embed columns of categories: --embed."""

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("typer")
pytest.importorskip("pyarrow")

import gpumlp
from gpumlp.data import Preparation, Scratch, load, load_inputs, split
from gpumlp.data.scratch import select_rows
from gpumlp.training.folds import k_folds
from tests.support.cli_cases import columns, pressed, refused, rows_of, run, theta
from tests.support.data_cases import write_csv

RNG = np.random.default_rng(4)
M = 400
CITIES = [f"c{i:02}" for i in range(30)]
CITY = RNG.choice(CITIES, M)
CITY[:30] = CITIES  # each is there
AREA = RNG.normal(100, 20, M).round(1)
EFFECT = dict(zip(CITIES, RNG.normal(size=30), strict=True))
PRICE = np.array([EFFECT[c] for c in CITY]) * 100 + AREA
SIZES = ["--hidden", "16", "--batch-size", "32", "--backend", "numpy", "--quiet"]
OPTIONS = ["--target", "price", "--embed", "city=4", *SIZES]


@pytest.fixture
def shop(tmp_path):
    """30 cities, some missing and some rare, an area, and a zone of 3 words."""
    city = np.where(np.arange(M) % 19 == 3, "", CITY)
    zone = np.array(["n", "s", "w"])[np.arange(M) % 3]
    rows = {"city": city, "area": AREA, "zone": zone, "price": PRICE.round(3)}
    return write_csv(tmp_path / "shop.csv", rows)


@pytest.fixture
def new(tmp_path):
    """A city of each kind: known, rare or unknown, missing."""
    rows = {"city": [CITIES[5], "zz", "", f" {CITIES[5]}"], "area": [90, 100, 110, 90.0],
            "zone": ["n", "s", "x", "n"]}  # fmt: skip
    return write_csv(tmp_path / "new.csv", rows)


def in_python(path, **settings):
    """What train builds with OPTIONS: preparation, trainer, and prepared data."""
    train, held_out = split(load(path, "price", embed=["city"]), 0.2, 0)
    known = Preparation.of(train, x=True, y=True, embed={"city": 4})
    net = gpumlp.MLP(
        [len(known.columns), 16, 1], loss="squared_error", backend="numpy", embed=known.embed
    )
    known.begin(net)
    trainer = gpumlp.Trainer(net, "adamw", batch_size=32, **settings)
    data = [
        (known.prepared(part.x, "f4", Scratch(), part.categories), known.targets(part.y))
        for part in (train, held_out)
    ]
    return known, trainer, *data


def test_train_predict_and_evaluate_match_the_python_api(shop, new, tmp_path):
    out, model = tmp_path / "o", tmp_path / "o" / "model.safetensors"
    said = run("train", shop, *OPTIONS, "--epochs", 20, "--lr", 0.01, "--out", out).stderr
    known, trainer, data, held_out = in_python(shop, lr=0.01, schedule="warmup_cosine")
    n, others = len(known.categories["city"]), " and others" * ("city" in known.others)
    assert said.splitlines() == [
        "columns of categories, one input for each: zone (3)",
        f"columns of categories, a vector for each: city ({n}{others}; 4 numbers)",
        "columns with missing values, filled and marked: city",
    ]
    history = trainer.fit(*data, 20, validation=held_out, progress=False)
    saved = gpumlp.MLP.load(model, "numpy")
    assert saved.embed == trainer.net.embed
    for name, tensor in trainer.net.tensors().items():
        np.testing.assert_array_equal(saved.tensors()[name], tensor, err_msg=name)
    np.testing.assert_allclose(columns(out)["val_cost"], history["val_cost"], 1e-6)
    assert Preparation.load(model) == known
    for data_file in (shop, new):
        run("predict", model, data_file, "--out", tmp_path / "p.csv", "--backend", "numpy")
        rows = rows_of((tmp_path / "p.csv").read_text())
        x = known.inputs(load_inputs(data_file, known))
        p = known.outputs(trainer.net.predict(x))[:, 0]
        np.testing.assert_allclose([float(row["prediction"]) for row in rows], p, 1e-6)
    assert p[0] == p[3]  # of the same city
    whole = known.outputs(trainer.net.predict(known.inputs(load_inputs(shop, known))))[:, 0]
    error = np.sqrt(np.square(whole - PRICE.round(3)).mean())
    found = json.loads(run("evaluate", model, shop, "--json", "--backend", "numpy").stdout)
    assert found["result"]["rmse"] == pytest.approx(error, rel=1e-6)
    assert found["result"]["r2"] > 0.5  # the areas alone have about 0.04


def test_unknown_categories_are_reported_unless_rare_ones_are_known(shop, new, tmp_path):
    for least, said in ((1, "city (1), zone (1)"), (16, "zone (1)")):
        run("train", shop, *OPTIONS, "--min-frequency", least, "--epochs", 1, "--out", tmp_path)
        said_now = run("predict", tmp_path / "model.safetensors", new).stderr
        assert said_now == (
            f"columns with values of a kind that the training data did not have: {said}\n"
        )
    known = Preparation.load(tmp_path / "model.safetensors")
    assert known.others == ("city",)


def test_classes_of_one_category(tmp_path):
    rows = {"word": ["one"] * 60, "a": RNG.normal(size=60), "y": ["no", "yes"] * 30}
    path = write_csv(tmp_path / "t.csv", rows)
    options = ["--target", "y", "--embed", "word=2", *SIZES, "--epochs", 2, "--out", tmp_path / "o"]
    run("train", path, *options)
    net = gpumlp.MLP.load(tmp_path / "o" / "model.safetensors", "numpy")
    E = net.tensors()["embed.0.weight"]
    assert E.shape == (3, 2)
    assert (E[0] != 0).any()
    assert (E[1:] == 0).all()
    found = json.loads(run("evaluate", tmp_path / "o" / "model.safetensors", path, "--json").stdout)
    assert found["result"]["accuracy"] >= 0.4


def test_resume_continues_the_same_training(shop, tmp_path, monkeypatch):
    options = [*OPTIONS, "--epochs", 6]
    run("train", shop, *options, "--out", tmp_path / "whole")
    cut = ["--out", tmp_path / "cut"]
    with pressed(monkeypatch, 23):  # of 60, in the third epoch
        run("train", shop, *options, *cut, code=130)
    run("train", shop, *options, *cut, "--resume")
    np.testing.assert_array_equal(theta(tmp_path / "cut"), theta(tmp_path / "whole"))


def test_several_networks_predict_their_mean(shop, new, tmp_path):
    run("train", shop, *OPTIONS, "--models", 2, "--epochs", 2, "--out", tmp_path)
    model = tmp_path / "model.safetensors"
    ensemble, known = gpumlp.Ensemble.load(model, "numpy"), Preparation.load(model)
    x = known.inputs(load_inputs(new, known))
    assert all(net.embed.each[0].d == 4 for net in ensemble)
    p = np.mean([known.outputs(net.predict(x))[:, 0] for net in ensemble], axis=0)
    found = rows_of(run("predict", model, new, "--backend", "numpy").stdout)
    np.testing.assert_allclose([float(row["prediction"]) for row in found], p, 1e-6)
    n = len(known.categories["city"])
    if "city" not in known.others:
        assert all((net.theta.E[0][n] == 0).all() for net in ensemble)


def test_a_config_file_repeats_a_run_and_resumes_refuse_another_width(shop, tmp_path):
    one, again = tmp_path / "one", tmp_path / "again"
    run("train", shop, *OPTIONS, "--embed", 2, "--epochs", 2, "--out", one)
    assert 'embed = ["city=4", "2"]' in (one / "run.toml").read_text()
    run("train", "--config", one / "run.toml", "--out", again, "-q")
    np.testing.assert_array_equal(theta(one), theta(again))
    assert Preparation.load(again / "model.safetensors").embedded == {"city": 4, "zone": 2}
    config = tmp_path / "c.toml"
    config.write_text('embed = "2"\ntarget = "price"\n')
    run("train", shop, "--config", config, *SIZES, "--epochs", 1, "--out", again)
    assert Preparation.load(again / "model.safetensors").embedded == {"city": 2, "zone": 2}
    refused_now = run(
        "train", shop, *OPTIONS[:2], *SIZES, "--embed", "city=5", "--epochs", 3, "--out", one,
        "--resume", code=2,
    ).stderr  # fmt: skip
    assert "gpumlp: error: " in refused_now


@pytest.mark.parametrize("flag", ["--stream", "--no-stream"])
def test_streaming_gives_the_same_bits(shop, tmp_path, monkeypatch, flag):
    monkeypatch.setattr("gpumlp.io.chunks.CHUNK_BYTES", 2000)
    monkeypatch.setattr("gpumlp.data.csv_files.BLOCK", 1500)
    for name, more in (("a", []), ("b", [flag])):
        run("train", shop, *OPTIONS, "--epochs", 3, "--out", tmp_path / name, *more)
    np.testing.assert_array_equal(theta(tmp_path / "a"), theta(tmp_path / "b"))


def test_find_lr_plan_and_describe(shop):
    _, trainer, data, _ = in_python(shop)
    curve = trainer.find_lr(*data)
    found = json.loads(run("find-lr", shop, *OPTIONS[:-1], "--json").stdout)
    np.testing.assert_array_equal(found["curve"]["loss"], curve.loss)
    printed = run("train", shop, *OPTIONS, "--plan").stdout
    assert "embed_gradient" in printed
    rows = json.loads(run("describe", shop, *OPTIONS[:4], "--json").stdout)["columns"]
    city = next(row for row in rows if row["name"] == "city")
    assert city["becomes"] == "embedding of 4 of 30 categories"
    assert city["missing"] == len(range(3, M, 19))
    lines = run("describe", shop, "--target", "price", "--embed", 4, "--min-frequency", 14).stdout
    n = int((np.unique(np.where(np.arange(M) % 19 == 3, "", CITY), return_counts=True)[1][1:] >= 14)
            .sum())  # fmt: skip
    assert f"embedding of 4 of {n} categories and others" in lines
    assert "zone    3 categories" in lines


def test_a_table_of_many_embedded_columns_shares_a_line(tmp_path):
    words = {f"w{j}": [f"a{i % (3 + j % 2)}" for i in range(60)] for j in range(102)}
    path = write_csv(tmp_path / "t.csv", {**words, "y": RNG.normal(size=60)})
    lines = run("describe", path, "--target", "y", "--embed", 2).stdout.splitlines()
    assert len([line for line in lines if "embedding of 2 of categories" in line]) == 1


def test_search_tries_widths(shop, tmp_path):
    tries = ["--try", "embed=2,city=4,none", "--folds", 2, "--epochs", 2, "--hidden", "4"]
    options = ["--target", "price", *tries, "--backend", "numpy", "-q"]
    run("search", shop, *options, "--out", tmp_path / "o")
    found = json.loads((tmp_path / "o" / "search.json").read_text())["candidates"]
    tried = [row["options"]["embed"] for row in found]
    assert sorted(map(str, tried)) == ["None", "['2']", "['city=4']"]
    known = Preparation.load(tmp_path / "o" / "model.safetensors")
    widths = {"None": {}, "['2']": {"city": 2, "zone": 2}, "['city=4']": {"city": 4}}
    assert known.embedded == widths[str(tried[0])]  # the best one


def test_search_scores_are_those_of_train(shop, tmp_path):
    """A fold's score is that of the same training alone."""
    tries = ["--try", "embed=4", "--folds", 2, "--epochs", 2, "--hidden", "4", "--lr", 0.01]
    options = ["--target", "price", *tries, "--backend", "numpy", "-q", "--out", tmp_path / "o"]
    run("search", shop, *options)
    found = json.loads((tmp_path / "o" / "search.json").read_text())["candidates"][0]["scores"]
    data = load(shop, "price")
    for (rows, held), score in zip(k_folds(M, 2, 0), found["r2"], strict=True):
        train, validation = (
            replace(data, x=select_rows(data.x, i), y=data.y[i]) for i in (rows, held)
        )
        known = Preparation.of(train, x=True, y=True, embed=4)
        net = gpumlp.MLP([len(known.columns), 4, 1], loss="squared_error", backend="numpy",
                         embed=known.embed)  # fmt: skip
        known.begin(net)
        trainer = gpumlp.Trainer(net, "adamw", 0.01, 64, schedule="warmup_cosine")
        x = known.prepared(train.x, "f4", Scratch(), train.categories)
        trainer.fit(x, known.targets(train.y), 2, progress=False)
        x = known.prepared(validation.x, "f4", Scratch(), validation.categories)
        residual = known.outputs(net.predict(x))[:, 0] - validation.y
        r2 = 1 - np.square(residual).sum() / np.square(validation.y - validation.y.mean()).sum()
        assert score == pytest.approx(r2, rel=1e-5)


@pytest.mark.parametrize(
    ("embed", "said"),
    [
        ("twon=4", "shop.csv has no feature column 'twon'; it has: city, area, zone"),
        ("citty=4", "did you mean 'city'?"),
        ("price=4", "has no feature column 'price'"),
        ("area=4", "only categories have embeddings, and area holds numbers; take them as "
         "categories, --categorical area"),
        ("0", "--embed 0: the number must be at least 1, got 0"),
        ("city=0", "--embed city=0: the number must be at least 1, got 0"),
        ("-4", "--embed -4: the number must be at least 1, got -4"),
        ("wide", "such as 16, or COLUMN=NUMBER such as city=16, got 'wide'"),
        ("city", "such as 16, or COLUMN=NUMBER such as city=16, got 'city'"),
        ("city=", "such as 16, or COLUMN=NUMBER such as city=16, got 'city='"),
        ("=4", "such as 16, or COLUMN=NUMBER such as city=16, got '=4'"),
        ("city=x", "such as 16, or COLUMN=NUMBER such as city=16, got 'city=x'"),
        ("2.5", "such as 16, or COLUMN=NUMBER such as city=16, got '2.5'"),
        ("2,4", "--embed has a number for all columns twice; give it once"),
        ("city=2,city=4", "--embed has 'city' twice; give it once"),
        ("city=70000", "width below 65,536"),
    ],
)  # fmt: skip
def test_wrong_values_are_one_line(shop, embed, said):
    for command in ("train", "find-lr"):
        assert said in refused(command, shop, "--target", "price", "--embed", embed)


def test_embed_without_categories_or_names(shop, tmp_path):
    np.savez(tmp_path / "t.npz", x=RNG.normal(size=(60, 2)), y=RNG.normal(size=60))
    said = refused("train", tmp_path / "t.npz", "--embed", "4")
    assert "has no column of categories; leave out --embed, or name the columns" in said
    said = refused("train", tmp_path / "t.npz", "--embed", "a=4")
    assert "t.npz has no columns with names; leave out --embed" in said
    said = refused("train", shop, "--target", "price", "--embed", "city=4", "--drop", "city")
    assert "an embedded column is dropped; leave out --drop city" in said


def test_numbers_and_names_with_commas(tmp_path):
    rows = {'"zone, old"': [501, 502, 503] * 20, "a=b": list("xyz") * 20,
            "a": RNG.normal(size=60), "y": RNG.normal(size=60)}  # fmt: skip
    path = write_csv(tmp_path / "t.csv", rows)
    options = ["--categorical", '"zone, old"', "--embed", '"zone, old=2",a=b=3', "--target", "y"]
    run("train", path, *options, *SIZES, "--epochs", 1, "--out", tmp_path / "o")
    known = Preparation.load(tmp_path / "o" / "model.safetensors")
    assert known.embedded == {"zone, old": 2, "a=b": 3}
