"""Uses that fail with an error that advises something, for the tests that carry it out.

A key is the part of the message, as it is written in the code, that advises.
"""

import contextlib
import warnings

import numpy as np

import gpumlp
from gpumlp.callbacks import ReduceOnPlateau
from gpumlp.data import Dataset, load, split
from gpumlp.estimators import MLPClassifier, MLPRegressor
from tests.support.data_cases import COLOURS, X, table

# ---- the command line ----------------------------------------------------------------------------

CODES = np.arange(len(X)) % 3
WORDS = [f"name {i % 50}" for i in range(len(X))]
GAPS = ["?", "<0.5", *X[2:, 0]]
MANY_TEXTS = [*(f"code {i}" for i in range(9)), *X[9:, 0]]
DATES = [f"2020-01-{1 + i % 28:02d}" for i in range(len(X))]
AMBIGUOUS = [f"{1 + i % 12}/{1 + i % 9}/2020" for i in range(len(X))]
TARGET = [*["?"] * 5, *[1.5] * 28, *[2.5] * 27]  # texts that may be classes
HELD_OUT = split(Dataset("t", "regression", X, X[:, 0], tuple("abc")))[1].x[0]
ONE = np.where((HELD_OUT == X).all(axis=1), "1", "")  # a value that is not in the training part
PLAN = ["--backend", "numpy", "--plan"]
AGAIN = {"--lr": "0.01", "COLUMN": "y", "EPOCHS": "2"}
TABLES = {  # the part of an error that advises → columns, and options of train
    "say which column to predict, --target COLUMN": (table(y=COLOURS), ["--target", ""]),
    "leave them out, --drop {option}": (table(w=WORDS, y=COLOURS), []),
    "correct these texts": (table(d=GAPS, y=COLOURS), []),
    "{}.{}.to_{}(": (table(d=MANY_TEXTS, y=COLOURS), []),
    ".notna()": (table(d=[*MANY_TEXTS[:9], *DATES[9:]], y=COLOURS), []),
    "--date-order dmy": (table(d=AMBIGUOUS, y=COLOURS), []),
    "c.mask(pandas.to_numeric(": (table(d=["inf", "-inf", *X[2:, 0]], y=COLOURS), []),
    "leave out identifiers, --drop": (table(d=2**60 + 7 * CODES, y=COLOURS), []),
    "missing values; leave out those rows": (table(y=["", *COLOURS[1:]]), []),
    "leave these empty": (table(y=TARGET), []),
    "write the days since a date": (table(y=20_240_101 + np.arange(60) % 28), []),
    "write one number in each row": (
        table(y=[f"{i % 26} h 5 min" for i in range(60)]), ["--validation", "0"]
    ),
    "write them as 2024-12-31": (
        table(d=[f"2024-01-{1 + i % 26:02} 10:{i % 26:02} CET" for i in range(60)], y=COLOURS), []
    ),
    "write the numbers alone": (table(d=[f"< {i % 26}.5" for i in range(60)], y=COLOURS), []),
    "write each number in a column": (table(d=[f"{i % 26}h 5m" for i in range(60)], y=COLOURS), []),
    "no category has {} examples": (
        {"k": [f"w{i // 4}" for i in range(60)], "y": COLOURS}, ["--min-frequency", "9"]
    ),
    "write 1234.5": (table(y=[f"{1 + i % 4}.5%" for i in range(len(X))]), []),
    "predict another column, or say": (table(y=WORDS), ["--validation", "0"]),
    "classes do not leave": (
        table(y=[f"c{i % 25}" for i in range(len(X))]), ["--validation", "50"]
    ),
    "; leave them out, --drop {}": (table(k=ONE, y=X[:, 0]), []),
    "--impute mean": (table(k=[*[""] * 20, *CODES[20:]], y=COLOURS), ["--impute", "refuse"]),
    ", say --task regression": (table(y=X[:, 0]), ["--task", "classification"]),
    ", say --task classification": (table(y=COLOURS), ["--task", "regression"]),
    "use --loss {}": (table(y=COLOURS), ["--loss", "huber"]),
    "use --loss softmax_cross_entropy": (table(y=COLOURS), ["--loss", "binary_cross_entropy"]),
    "no weight decay": (table(y=COLOURS), ["--optimizer", "sgd", "--weight-decay", "0.1"]),
    "more, but --hidden": (table(y=COLOURS), ["--hidden", "8", "--residual", "1"]),
    "--label-smoothing is for": (table(y=X[:, 0]), ["--label-smoothing", "0.1"]),
    "add --plateau EPOCHS": (table(y=COLOURS), ["--plateau-factor", "0.1"]),
    "for --patience and --plateau": (table(y=COLOURS), ["--monitor", "cost"]),
    "watches the validation cost": (table(y=COLOURS), ["--validation", "0", "--patience", "2"]),
    "needs validation data; leave out --validation 0": (
        table(y=COLOURS), ["--validation", "0", "--patience", "2", "--monitor", "val_cost"]
    ),
    "name another one, --scratch DIR": (table(y=COLOURS), ["--scratch", "none", "--stream"]),
    "slot_precision=None": (table(y=COLOURS), ["--slot-precision", "bfloat16"]),
    "remainder=False": (table(y=COLOURS), ["--remainder"]),
    "; take them as categories, --categorical": (table(k=CODES, y=COLOURS), ["--embed", "k=2"]),
    "leave out --drop {name}": (table(k=COLOURS, y=X[:, 0]), ["--embed", "k=2", "--drop", "k"]),
}  # fmt: skip
OTHERS = {  # the same for other commands
    "or leave out --resume to start anew": (
        "train {flowers} --target species --batch-size 16 --out {folder} --resume "
        "--hidden 16 --epochs 5 --backend numpy --quiet"
    ),
    "lower --lr, pass --clip-norm 1.0": (
        "train {flowers} --target length --lr 30 --optimizer sgd --hidden 16,16 --epochs 3 "
        "--backend numpy --quiet --out {folder}/n"
    ),
    "missing or infinite values": "train {gaps} --backend numpy --plan",
    "store it as numbers, or say": "train {marks} --validation 0 --backend numpy --plan",
    "store one number for each row, or say": "train {units} --validation 0 --backend numpy --plan",
    "leave out those rows, --drop-missing-target": "evaluate {model} {blank}",
    "leave out --drop": "train digits --drop a --plan --backend numpy",
    "leave out --target": "train digits --target y --plan --backend numpy",
    "use --no-raw": "export {bare} {folder}/m.onnx --raw",
    "--std is for models that predict numbers": "predict {model} {flowers} --std",
    "are for .onnx files": "export {model} {folder}/m.npz --opset 17 --raw",
}

# ---- Python --------------------------------------------------------------------------------------

RNG = np.random.default_rng(4)
ROWS = RNG.normal(size=(40, 3))
ROW_LABELS = np.arange(40) % 2
ROW_CODES = np.arange(40)[:, None] % [2, 5, 4]
VALUES = ROWS @ [1.0, -2.0, 0.5]
NETWORK = ("loss", "output_activation", "norm", "residual")
FIT = ("validation", "metric", "checkpoint", "resume", "callbacks", "train_metric",
       "early_stopping", "checkpoint_every")  # fmt: skip


def fit(**settings):
    """Train a small network; `settings` are those of MLP, of Trainer and of `fit`."""
    chosen = {"loss": "softmax_cross_entropy", "optimizer": "sgd", "batch_size": 10} | settings
    net = {k: chosen.pop(k) for k in NETWORK if k in chosen}
    fit = {k: chosen.pop(k) for k in FIT if k in chosen}
    mlp = gpumlp.MLP([3, 8, 2], "tanh", backend="numpy", **net)
    trainer = gpumlp.Trainer(mlp, **chosen)
    return trainer.fit(ROWS, ROW_LABELS, 2, progress=False, **fit)


def regress(**settings):
    mlp = gpumlp.MLP([3, 16, 16, 1], loss="squared_error", backend="numpy")
    return gpumlp.Trainer(mlp, "sgd", **{"lr": 5.0} | settings).fit(ROWS, VALUES, 4, progress=False)


def resume(path, **settings):
    """Continue another run than the one that wrote the file."""
    if not path.exists():
        fit(checkpoint=path, callbacks=[ReduceOnPlateau("cost")])
    return fit(**{"checkpoint": path, "resume": True} | settings)


def classify(part=False, **settings):
    chosen = {"max_iter": 2, "hidden_layer_sizes": (4,), "backend": "numpy", "tol": 1.0}
    e = MLPClassifier(**chosen | settings)
    return e.partial_fit(ROWS, ROW_LABELS, [0, 1]) if part else e.fit(ROWS, ROW_LABELS)


def embedded(**settings):
    e = MLPClassifier((4,), max_iter=2, backend="numpy", tol=1.0, **settings)
    return e.fit(ROW_CODES, ROW_LABELS)


def again(**settings):
    """Change an estimator between two fits."""
    e = classify(warm_start=True).set_params(hidden_layer_sizes=(5,), **settings)
    return e.fit(ROWS, ROW_LABELS)


def new_class(**settings):
    return classify(warm_start=True).set_params(**settings).fit(ROWS, ROW_LABELS + 1)


def regressor(**settings):
    settings = {"loss": "softmax_cross_entropy", "max_iter": 2, "tol": 1.0} | settings
    return MLPRegressor(**settings).fit(ROWS, VALUES)


def after_divergence(**settings):
    """Train on with parameters that are not finite, or call fit with other settings."""
    e = MLPRegressor(max_iter=2, tol=1.0, precision="float64").fit(ROWS, VALUES)
    with contextlib.suppress(FloatingPointError):
        e.partial_fit(1e200 * ROWS, VALUES)
    return e.set_params(**settings).fit(ROWS, VALUES) if settings else e.partial_fit(ROWS, VALUES)


def weighted(**settings):
    chosen = {"hidden_layer_sizes": (4,), "class_weight": "balanced"} | settings
    return MLPClassifier(**chosen).partial_fit(ROWS, ROW_LABELS, [0, 1])


def members(**settings):
    e = gpumlp.Ensemble(2, [3, 8, 2], backend="numpy")
    return gpumlp.EnsembleTrainer(e).fit(ROWS, ROW_LABELS, 2, **settings)


def mean(**settings):
    """The prediction of an ensemble of which no member is left."""
    e = gpumlp.Ensemble(2, [3, 8, 2], backend="numpy")
    e.diverged |= {0, 1}
    return e.predict(ROWS, **settings)


def spread(**settings):
    return MLPRegressor(max_iter=2, tol=1.0, **settings).fit(ROWS, VALUES).predict(ROWS, True)


CASES = {  # the part of the message that advises → the call that fails, and its settings
    "clip_norm=1.0, or scale x and y": (regress, {}),
    "or scale X": (
        regressor, {"loss": "squared_error", "solver": "sgd", "max_iter": 9,
                    "learning_rate_init": 30.0}),
    "fit anew with warm_start=False": (after_divergence, {}),
    "resume=False to start anew": (resume, {"optimizer": "adam"}),
    "ReduceOnPlateau: ": (resume, {"callbacks": [ReduceOnPlateau("cost", patience=3)]}),
    "pass checkpoint=PATH": (fit, {"checkpoint_every": 1}),
    "pass validation=(x_val, y_val)": (fit, {"early_stopping": 2}),
    'pass metric="auto"': (fit, {"train_metric": True, "metric": None}),
    "slot_precision=None": (fit, {"slot_precision": "bfloat16"}),
    "remainder=False": (fit, {"remainder": True}),
    "pass fold=None": (fit, {"fold": True, "clip_norm": 1.0}),
    'pass output_activation="softmax"': (fit, {"loss": "negative_log_likelihood"}),
    "pass loss='auto'": (classify, {"loss": "squared_error"}),
    'such as solver="adam"': (classify, {"part": True, "solver": "lbfgs"}),
    'such as loss="squared_error"': (regressor, {}),
    'pass learning_rate="constant"': (classify, {"part": True, "learning_rate": "warmup_cosine"}),
    'pass precision="auto"': (
        classify, {"backend": gpumlp.get_backend("numpy", "float64"), "precision": "float32"}),
    "set it back, or call fit": (again, {}),
    "or name all of them in the first partial_fit": (new_class, {}),
    "return_std needs several models": (spread, {}),
    "name the columns whose numbers stand for categories": (embedded, {"embed": 2}),
    "pass positions, such as embed={": (embedded, {"embed": {"city": 2}}),
    'single one has no variance; pass more': (fit, {"norm": "batch", "batch_size": 1}),
    "or pass n_models=1": (classify, {"n_models": 2, "callbacks": [ReduceOnPlateau("cost")]}),
    "pass folds=5": (members, {"folds": "five"}),
    "parts cannot be made of": (members, {"folds": 50}),
    "pass folds=None": (members, {"folds": 3, "validation": (ROWS, ROW_LABELS)}),
    "or call predict with members=True": (mean, {}),
    "pass residual=False": (fit, {"residual": 5}),
}  # fmt: skip
NAMES = {"x_val": ROWS, "y_val": ROW_LABELS, "float": float}


def as_file(name, **options):
    """Load an array of an .npz file in place of the one called `name`."""

    def call(array):
        arrays = {"x": ROWS, "y": VALUES} | {name: array}
        arrays["y"] = arrays["y"][: len(arrays["x"])]
        np.savez("a.npz", **arrays)
        load("a.npz", **options)

    return call


def entropy(target):
    import gpumlp.interop.torch

    return gpumlp.interop.torch.softmax_cross_entropy(target.new_zeros(3, 2).double(), target)


def layer(x):
    import torch

    import gpumlp.interop.torch

    weight = torch.zeros(2, 3, dtype=torch.float64)
    return gpumlp.interop.torch.linear_activation(x, weight, weight[:, 0])


def from_torch(module):
    import gpumlp.interop.torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that Dropout is left out
        return gpumlp.interop.torch.from_torch(module, backend="numpy")


def modules(*more, dtype=None):
    def make():
        import torch

        layers = torch.nn.Linear(3, 2), *(getattr(torch.nn, name)() for name in more)
        return torch.nn.Sequential(*layers).to(dtype and getattr(torch, dtype))

    return make


def tensor(*shape, **settings):
    def make():
        import torch

        return torch.zeros(shape, **settings)

    return make


def labelled(y):
    return MLPClassifier((4,), max_iter=20, tol=1.0, backend="numpy").fit(ROWS, y)


MIXED = np.array(["a", 1] * 20, object)
BIG, INFINITE = ROWS.astype(np.int64), np.where(np.arange(40)[:, None] == 3, np.inf, ROWS)
BIG[:, 1] = 2**60
CALLS = {  # the part of the message → the call that fails, the name of its argument, the argument
    "for partial_fit, set it to a": (
        lambda w: weighted(class_weight=w), "class_weight", "balanced"),
    "pass them as strings, numpy.array(": (labelled, "y", MIXED),
    "numpy.delete(x": (as_file("x"), "x", BIG),
    "np.isinf(x)": (as_file("x"), "x", INFINITE),
    "x.reshape(len(x), -1)": (as_file("x"), "x", ROWS[:, :, None]),
    "e.g. y.argmax(axis=1)": (
        as_file("y", task="classification"), "y", np.eye(2)[ROW_LABELS]),
    "pass whole numbers, target.long()": (entropy, "target", tensor(3)),
    "pass torch.as_tensor(": (layer, "x", lambda: ROWS),
    "pass target.detach()": (entropy, "target", tensor(3, 2, requires_grad=True)),
    ".to(weight)": (layer, "x", tensor(4, 3)),
    "cast it, e.g. module.float()": (from_torch, "module", modules(dtype="float8_e4m3fn")),
    "call module.eval() first": (from_torch, "module", modules("Dropout")),
}  # fmt: skip

# ---- not here ------------------------------------------------------------------------------------

ELSEWHERE = (
    "is for --plan; add --plan",  # tests/step/test_explain.py
    # tests/data/test_sources.py reads several files in each of these ways
    "Several .csv or .parquet files, folders", "pandas.concat([{}], ignore_index=True)",
    ", or leave it out, --drop {}", "has files in subfolders that are not called key=value",
    "begin with 0 ({}) may be codes",  # tests/data/test_csv.py
    # tests/data/test_fitting.py trains on all rows
    "; train on all rows, --validation 0",
    # tests/test_invalid_input.py carries these out, for all containers of arrays
    ".toarray()", ".filled(0)", "structured_to_unstructured({})", "numpy.stack(list({}))",
    "numpy.array({}, 'float32')", ".fillna(0)", "encode such columns", "numpy.column_stack(",
    "numpy.load({})", "numpy.array(list({}))", "e.g. {}.astype('float32')",
    # a GPU, a compiler, or a library that is not installed
    'backend "cpu" cannot be used', ' and precision="float32"',
    'precision "bfloat16" needs a GPU or',
    "is on {} but this network computes on the host", "out of GPU memory", "gpumlp[cuda13]",
    'or use backend="numpy"', "the CUDA source {} is not installed", "pip install ml_dtypes",
    'pip install "gpumlp[', "pip install tqdm", "MLflow cannot use", ' and memory="low"',
    "find_lr trains a copy", "fit_lbfgs compares costs", "has no CUDA",
    # several processes: tests/distributed/
    "use the mpiexec of the same library", "use gpumlp.distributed.world(timeout=",
    "world must be gpumlp.distributed.world()", "a trainer of several processes cannot be copied",
    "shards={} cannot be shared by {} processes",
    # tests/training/test_hooks.py, test_arguments.py, tests/test_network_theta.py
    "fit copy.deepcopy(trainer)", "train copy.deepcopy(net)",
    "build the network without output_activation=",
    'pass reads="zh"',  # tests/functions/test_trials.py
    "if it is your own, load it with functions=", "pass θ on by new.assign(old.tensors())",
    # tests/training/test_ensemble.py, tests/estimators/test_several.py
    "has a network twice; pass copy.deepcopy(net)",
    "models diverged and are left out", "callbacks=lambda member",
    "is a file, and an ensemble needs a folder",
    'has no effect with solver="lbfgs"',  # tests/estimators/test_fit.py
    # tests/cli/test_models.py
    "diverged and is left out: {}; lower --lr", "--std needs a model of several networks",
    "--models trains its networks in one process", "all members that had begun diverged",
    # tests/cli/test_resume.py, test_written_files.py, test_config.py and test_tune.py
    "; --resume continues", "and add --resume", "--config run.toml",
    "--widths 784", "use --out FILE",
    # tests/cli/test_search.py carries these out
    "such as --try lr=0.001", "some of them: --random 100", "from which --random N draws",
    "--folds {} is more than", "or fewer --folds", "every candidate diverged in a fold",
    "add --validation 0.2",
    # tests/interop/test_torch_blocks.py
    "fuse_linear_bn_eval(linear, norm)",
    "; set one: module.get_submodule({})", "module.get_submodule({}), {}",
    # tests/search/test_searches.py
    "n_models={} is the number of models of the best estimator",
    # the decision of this file's neighbour in tests/cli/, and notes about what was done
    "--task {} takes them as {}", "--keep keeps them", "early stopping has ended", "raise max_iter",
    # any other value will do
    "choose another --out", "--group {}: {} is given twice", "must be more than 0 and less than",
    "leaves {} to validate on", "one of sklearn.metrics.get_scorer_names()", "pass at most as many",
    "as net.tensors() returns", "such as Preparation.of(dataset)",
    "return numbers, strings, lists and dicts", "write a new one there",
    # parts of messages that have a case, and texts that are no messages
    "pass clip_norm=1.0, ",
    "categories, --categorical", "; or say --task classification", ", else say --task regression",
    "pandas.to_datetime(", ".str.fullmatch(", ".str.replace(", "to_numeric(",
    ", dtype=str", ", sep={}",
    ", skiprows=1", "learn a vector for each of them, --embed",
    "; --json has all of them", "With --json", "--group {}:decay={}",
    'data="stream"( for', "the file of --config", "NAME:lr=X", "alpha={}", "groups={", "for metric",
    "numpy.asarray(z)", "numpy.where(z", "axis=-1, keepdims=True",
    # dropout, norms and embeddings: tests/test_blocks.py, test_batch_norm.py, test_embeddings.py
    "dropout=0.1, for example", "reads means over the whole minibatch, and streamed data",
    "adds the parts of at most", 'leave out groups["embeddings"]',
    # tests/estimators/test_codes.py, tests/data/test_codes.py and tests/cli/test_embed.py
    "learn a vector for each word, embed=16",
    "MLP(…, embed=preparation.embed)", "or COLUMN=NUMBER such as city=16", "; keep it, --keep {}",
    # the interfaces to torch and ONNX: tests/interop/
    "call it with keep=True", "preparation=None", "link=False is for single networks",
    'loss="softmax_cross_entropy" takes logits', "torch.fx.symbolic_trace(module)",
    "delete it: del module.get_submodule({}).forward", "write float32, for example of module.fl",
    "r-th layer, residual=r", "embedding(x[:, 1].long())",
)  # fmt: skip
