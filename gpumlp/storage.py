"""Files: safetensors with settings in the metadata, written whole or not at all, checked at load.

safetensors checks its header alone: of 2,000 single-bit flips in a file 1,996 would load.  So the
metadata carries a SHA-256 over all tensors (names, dtypes, shapes, bytes) and over the settings.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import secrets
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from gpumlp.errors import CheckpointError
from gpumlp.functions import Activation, Loss, Regularizer

Tensors = Mapping[str, npt.NDArray[Any]]
PathLike = str | os.PathLike[str]
FORMAT = "1"
BESIDE_THETA = (
    "optimizer.",
    "best.",
    "iterate.",
)  # how the names begin that a training checkpoint adds


# ---- a network -----------------------------------------------------------------------------------


def save_network(
    path: PathLike,
    config: Mapping[str, Any],
    tensors: Tensors,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write θ and the settings of a network, and what the caller wants to keep with them."""
    metadata = {"gpumlp": FORMAT, "network": json.dumps(config)}
    if extra:
        metadata["extra"] = json.dumps(extra)
    write(path, tensors, metadata)


def load_extra(path: PathLike) -> dict[str, Any]:
    """What `MLP.save` was given as `extra`; an empty mapping where that was nothing.

    Raises:
        CheckpointError: the file is damaged or foreign.
        FileNotFoundError: there is no such file.
    """
    return _json(path, read(path)[1].get("extra", "{}"))


def load_network(
    path: PathLike, functions: Sequence[Activation | Loss | Regularizer] = ()
) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """The settings, as arguments of `MLP`, and θ.  A file of torch's has the widths alone."""
    tensors, metadata = read(path)
    if "network" in metadata:
        config = _json(path, metadata["network"])
        return _with_functions(config, functions), theta_of(tensors)
    if "gpumlp" in metadata:
        raise CheckpointError(f"{path} is a gpumlp file but holds no network's settings")
    return {"widths": _widths(path, tensors)}, tensors


def theta_of(tensors: Tensors) -> dict[str, npt.NDArray[Any]]:
    """The tensors without those that a training checkpoint adds."""
    return {name: t for name, t in tensors.items() if not name.startswith(BESIDE_THETA)}


def _with_functions(config: dict[str, Any], functions: Sequence[Any]) -> dict[str, Any]:
    """The settings with the user's own entries in place of their names."""
    own = {entry.name: entry for entry in functions}

    def entry(spec: Any) -> Any:
        if isinstance(spec, list):
            return [entry(one) for one in spec]
        if isinstance(spec, dict) and spec.get("name") in own:
            return own[spec["name"]].set(**{k: v for k, v in spec.items() if k != "name"})
        return spec

    return {key: entry(value) for key, value in config.items()}


def _widths(path: PathLike, tensors: Tensors) -> list[int]:
    """n_0 … n_L of a file that has tensors "0.weight", "0.bias", "2.weight", … alone."""
    depth = len(tensors) // 2
    weights = [tensors.get(f"{2 * i}.weight", np.empty(0)) for i in range(depth)]
    if not depth or any(W.ndim != 2 for W in weights):
        names = ", ".join(sorted(tensors)[:4])
        raise CheckpointError(
            f"{path} holds no multilayer perceptron: it has {names or 'no tensors'}, "
            "expected 0.weight, 0.bias, 2.weight, …"
        )
    return [weights[0].shape[1], *(W.shape[0] for W in weights)]


# ---- any file ------------------------------------------------------------------------------------


def write(path: PathLike, tensors: Tensors, metadata: Mapping[str, str]) -> None:
    """Write a safetensors file with a digest of its contents; see `atomic_write`."""
    save = _safetensors("write").save
    # safetensors writes wrong bytes for arrays that are not C-contiguous, without a word
    arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    digest = _digest(arrays, metadata)
    atomic_write(path, save(arrays, {**metadata, "sha256": digest}))


def write_plain(path: PathLike, tensors: Tensors) -> None:
    """Write a safetensors file as torch's tools do: the tensors, and no settings and no digest."""
    arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    atomic_write(path, _safetensors("write").save(arrays, {"format": "pt"}))


def read(path: PathLike) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
    """The tensors and metadata of a safetensors file.

    A file without a digest (torch's, say) loads with a warning that it could not be checked.

    Raises:
        FileNotFoundError: there is none.
        CheckpointError: the file is truncated, damaged or no safetensors file.
    """
    load = _safetensors("read").load
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")
    data = Path(path).read_bytes()
    try:
        metadata = _metadata(data)
        tensors = load(data)
    except Exception as error:  # the library raises its own class, and others on odd headers
        raise CheckpointError(
            f"{path} is damaged or no safetensors file ({error}); use another copy"
        ) from error
    digest = metadata.pop("sha256", None)
    if digest is None and "gpumlp" not in metadata:
        warnings.warn(f"{path} carries no digest: its values could not be checked", stacklevel=3)
    elif digest != _digest(tensors, metadata):
        raise CheckpointError(
            f"{path} is damaged: its values do not match its SHA-256; use another copy"
        )
    return tensors, metadata


def atomic_write(path: PathLike, data: bytes) -> None:
    """Put `data` at `path`, whole or not at all: see `replacing`."""
    with replacing(path) as file:
        file.write(data)


@contextlib.contextmanager
def replacing(path: PathLike) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of `path` once the block has ended well.

    A crash at any moment leaves the old file or the new one, whole.
    The temporary file is a sibling, "NAME.HEX.tmp".  One that a killed process of the past left
    behind is removed.
    """
    path = Path(path)
    check_place(path)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)
    for orphan in path.parent.glob(f"{glob.escape(path.name)}.{'[0-9a-f]' * 8}.tmp"):
        orphan.unlink(missing_ok=True)


def check_writable(path: PathLike) -> None:
    """Raise at once what `write` would raise later, after hours of training perhaps."""
    _safetensors("write")
    check_place(Path(path))


def check_place(path: PathLike) -> None:
    """Raise where no file can be written at `path`: a folder is there, or there is none for it."""
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"cannot write {path}: it is a folder; pass the path of a file")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: the folder {path.parent} does not exist")


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable; a file system that cannot is left alone."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _metadata(data: bytes) -> dict[str, str]:
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    return dict(header.get("__metadata__", {}))


def _digest(tensors: Tensors, metadata: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(sorted(metadata.items())).encode())
    for part in _described(tensors):
        digest.update(part)
    return digest.hexdigest()


def _described(tensors: Tensors) -> Iterator[bytes | memoryview]:
    for name in sorted(tensors):
        array = tensors[name]
        yield json.dumps([name, array.dtype.str, array.shape]).encode()
        yield array.tobytes()


def _json(path: PathLike, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"{path}: its settings cannot be read ({error})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: its settings are no mapping")
    return value


def _safetensors(what: str) -> Any:
    """safetensors.numpy: the one place where it is imported."""
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(f'to {what} files: pip install "gpumlp[files]"') from error
    return safetensors.numpy
