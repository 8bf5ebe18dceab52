"""Networks as safetensors files, which are checked when they are loaded.

safetensors checks only its header: of 2,000 files with one flipped bit, 1,996 loaded.  So the
metadata has a SHA-256 of all tensors (names, dtypes, shapes, bytes) and of the settings.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from gpumlp.errors import CheckpointError, needs
from gpumlp.functions.entry import Entry
from gpumlp.io.files import atomic_write, check_place, replacing
from gpumlp.io.paths import PathLike, checked_path
from gpumlp.io.types import HostArray

__all__ = [
    "FORMAT", "TRAINING_PREFIXES", "PathLike", "Tensors", "atomic_write", "check_place",
    "check_writable", "checked_path", "has_ensemble", "json_of", "load_extra", "load_network",
    "read", "replacing", "save_network", "theta_of", "with_functions", "write",
]  # fmt: skip
Tensors = Mapping[str, HostArray]
FORMAT = "1"
LONGEST_HEADER = 100_000_000  # bytes, as safetensors itself allows
DTYPES = {  # NumPy's, by safetensors' names
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "C64": "<c8", "BOOL": "?", "I64": "<i8", "I32": "<i4",
    "I16": "<i2", "I8": "<i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "<u1",
}  # fmt: skip
TRAINING_PREFIXES = ("optimizer.", "best.", "iterate.")  # of tensors that only checkpoints have


# ---- a network -----------------------------------------------------------------------------------


def save_network(
    path: PathLike,
    config: Mapping[str, Any],
    tensors: Tensors,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write θ and the settings of a network, and `extra`, a mapping of JSON types."""
    write(path, tensors, {"gpumlp": FORMAT, "network": json.dumps(config), **extra_of(extra)})


def extra_of(extra: Mapping[str, Any] | None) -> dict[str, str]:
    """The metadata that holds `extra`; TypeError unless it is a mapping that JSON can hold."""
    if extra is not None and not isinstance(extra, Mapping):
        raise TypeError(f"extra must be a mapping, got {type(extra).__name__}")
    try:
        return {"extra": json.dumps(dict(extra))} if extra else {}
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"extra has what JSON cannot hold ({error}); pass numbers, strings, lists and dicts"
        ) from error


def load_extra(path: PathLike) -> dict[str, Any]:
    """Return the `extra` that `MLP.save` stored, or an empty mapping.

    Raises:
        CheckpointError: the file is damaged or foreign.
        FileNotFoundError: the file does not exist.
    """
    return json_of(path, read(path)[1].get("extra", "{}"))


def load_network(
    path: PathLike, functions: Sequence[Entry] = ()
) -> tuple[dict[str, Any], dict[str, HostArray]]:
    """Return the settings, as arguments of `MLP`, and θ.

    A file that torch wrote has only the widths, the shapes of embeddings, the kinds of norms, and
    float64 if all weights are of this type.

    functions: the user's own entries.
    """
    tensors, metadata = read(path)
    if "network" in metadata:
        config = json_of(path, metadata["network"])
        return with_functions(config, functions), theta_of(tensors)
    if "ensemble" in metadata:
        raise CheckpointError(f"{path} has an ensemble; load it by gpumlp.Ensemble.load")
    if "gpumlp" in metadata:
        raise CheckpointError(f"{path} is a gpumlp file but has no settings of a network")
    return _shapes(path, tensors), tensors


def theta_of(tensors: Tensors) -> dict[str, HostArray]:
    """Return the tensors without those that only a training checkpoint has."""
    return {name: t for name, t in tensors.items() if not name.startswith(TRAINING_PREFIXES)}


def with_functions(config: dict[str, Any], functions: Sequence[Entry]) -> dict[str, Any]:
    """Return the settings with the user's own entries instead of their names."""
    if not isinstance(functions, (list, tuple)) or not all(isinstance(f, Entry) for f in functions):
        raise TypeError(
            "functions must be a list of entries, such as gpumlp.Activation, got "
            f"{type(functions).__name__} {functions!r}"
        )
    own = {entry.name: entry for entry in functions}

    def entry(spec: Any) -> Any:
        if isinstance(spec, list):
            return [entry(one) for one in spec]
        name = spec.get("name") if isinstance(spec, dict) else None
        if isinstance(name, str) and name in own:
            return own[name].set(**{k: v for k, v in spec.items() if k != "name"})
        return spec

    return {key: entry(value) for key, value in config.items()}


def _shapes(path: PathLike, tensors: Tensors) -> dict[str, Any]:
    """Return the settings that a file shows by tensors "0.weight", "0.bias", "2.weight", … alone.

    And, of embeddings, "embed.3.weight", and of norms "2.norm.weight" and what else they have.
    """
    tables = {name: a for name, a in tensors.items() if re.fullmatch(r"embed\.\d+\.weight", name)}
    embed = {name.split(".")[1]: list(a.shape) for name, a in tables.items() if a.ndim == 2}
    each = (tensors.get(f"{2 * i}.weight", np.empty(0)) for i in range(len(tensors)))
    weights = [*takewhile(lambda W: W.ndim == 2, each)]
    layers = "|".join(str(2 * i) for i in range(len(weights)))
    known = re.compile(rf"({layers})\.((norm|skip)\.\w+|weight|bias)")
    if not all(known.fullmatch(name) for name in tensors.keys() - tables.keys()) or not weights:
        names = ", ".join(sorted(tensors)[:4])
        raise CheckpointError(
            f"{path} has no multilayer perceptron: it has {names or 'no tensors'}, "
            "expected 0.weight, 0.bias, 2.weight, …"
        )
    n_0 = weights[0].shape[1] - sum(d - 1 for _, d in embed.values())
    # a gate has twice as many rows of W as outputs
    widths = [n_0, *(W.shape[1] for W in weights[1:]), weights[-1].shape[0]]
    norms = [_norm(f"{2 * i}.norm.", tensors) for i in range(1, len(weights))]
    precision = "float64" if all(W.dtype == np.float64 for W in weights) else None
    shown = {"embed": embed, "norm": norms if any(norms) else None, "precision": precision}
    return {"widths": widths} | {name: value for name, value in shown.items() if value}


def _norm(prefix: str, tensors: Tensors) -> str | None:
    """The norm that has these tensors, if it is one of torch's."""
    kinds = {"running_mean": "batch", "bias": "layer", "weight": "rms"}
    return next((norm for name, norm in kinds.items() if f"{prefix}{name}" in tensors), None)


# ---- any file ------------------------------------------------------------------------------------


def write(
    path: PathLike, tensors: Tensors, metadata: Mapping[str, str], digest: bool = True
) -> None:
    """Write a safetensors file, with a digest of its contents unless `digest` is false."""
    # safetensors silently writes wrong bytes for arrays that are not C-contiguous
    arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    sha256 = {"sha256": _digest(arrays, metadata)} if digest else {}
    atomic_write(path, _safetensors("write").save(arrays, {**metadata, **sha256}))


def read(path: PathLike) -> tuple[dict[str, HostArray], dict[str, str]]:
    """Return the tensors and metadata of a safetensors file.

    A file without a digest, such as one from torch, loads with a warning.

    Raises:
        FileNotFoundError: the file does not exist.
        CheckpointError: the file is truncated, damaged or no safetensors file.
    """
    deserialize = _safetensors("read").deserialize
    if not Path(checked_path(path)).is_file():
        folder = "; it is a folder, pass the path of a file" * Path(path).is_dir()
        raise FileNotFoundError(f"there is no file {path}{folder}")
    data = Path(path).read_bytes()
    try:
        length = int.from_bytes(data[:8], "little")
        metadata = dict(json.loads(data[8 : 8 + length]).get("__metadata__", {}))
        stored = deserialize(data)
    except Exception as error:  # of safetensors' own class or, for some headers, of others
        raise CheckpointError(
            f"{path} is damaged or no safetensors file ({error}); use another copy"
        ) from error
    tensors = {name: _array(path, name, **each) for name, each in stored}
    digest = metadata.pop("sha256", None)
    if digest is None and "gpumlp" not in metadata:
        warnings.warn(f"{path} carries no digest: its values could not be checked", stacklevel=3)
    elif digest != _digest(tensors, metadata):
        raise CheckpointError(
            f"{path} is damaged: its values do not match its SHA-256; use another copy"
        )
    if (found := metadata.get("gpumlp", FORMAT)) != FORMAT:
        raise CheckpointError(
            f"{path} has the format {found} of gpumlp, and this version reads {FORMAT}; read it "
            "with the version that wrote it"
        )
    return tensors, metadata


def _array(path: PathLike, name: str, dtype: str, shape: Sequence[int], data: Any) -> HostArray:
    """A tensor of a file; one in bfloat16, which NumPy lacks, in float32, which represents it."""
    if dtype == "BF16":
        wide: HostArray = np.frombuffer(data, "<u2").astype("<u4") << 16
        return wide.view("<f4").reshape(shape)
    try:
        return np.frombuffer(data, DTYPES[dtype]).reshape(shape)
    except KeyError as error:
        raise CheckpointError(
            f"{path}: {name} is of type {dtype}, which NumPy lacks; write float32, for example of "
            "module.float()"
        ) from error


def has_ensemble(path: PathLike) -> bool:
    """Whether the header of a file names an ensemble; nothing else is read or checked."""
    try:
        with Path(path).open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, LONGEST_HEADER)))
        return "ensemble" in header["__metadata__"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return False  # who loads the file says what is wrong with it


def check_writable(path: PathLike) -> None:
    """Raise now what `write` would raise later, perhaps after hours of training."""
    _safetensors("write")
    check_place(path)


def _digest(tensors: Tensors, metadata: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(sorted(metadata.items())).encode())
    for name, array in sorted(tensors.items()):
        digest.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def json_of(path: PathLike, text: str) -> dict[str, Any]:
    """The mapping in a text of the metadata; CheckpointError if it holds none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: its settings cannot be read ({error})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: its settings are not a mapping")
    return value


def _safetensors(what: str) -> Any:
    """Return safetensors.numpy.  This is the only place that imports it."""
    with needs(f"to {what} files, run", "files"):
        import safetensors.numpy
    return safetensors.numpy
