"""The settings of a preparation as a model's file stores them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gpumlp.data.dates import DateFormat
from gpumlp.data.numbers import NumberFormat
from gpumlp.errors import CheckpointError

OLDER: Mapping[str, Any] = {  # settings that files of earlier versions lack
    "fill": None, "holes": (), "categories": {}, "others": (), "formats": {}, "dates": {},
    "constant": {}, "embedded": {}, "zones": {},
}  # fmt: skip


def from_json(path: Any, extra: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The settings of these names in the contents `extra` of the file.

    Raises CheckpointError if they are not there.
    """
    try:
        data = OLDER | extra["data"]
        known = {name: data[name] for name in names}
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} does not say what data it was trained on: models of `gpumlp train` do; "
            "use gpumlp.MLP.load for others"
        ) from error
    settings: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in known.items()}
    settings["categories"] = {k: tuple(v) for k, v in settings["categories"].items()}
    settings["formats"] = {
        k: NumberFormat(*v) if len(v) == len(NumberFormat._fields) else DateFormat(*v)
        for k, v in settings["formats"].items()
    }
    settings["dates"] = {k: tuple(v) for k, v in settings["dates"].items()}
    return dict(settings)
