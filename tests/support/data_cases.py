"""A small table that tests of data write in all formats."""

import numpy as np

RNG = np.random.default_rng(5)
X = RNG.normal(size=(60, 3)).round(6)
COLOURS = np.array(["red", "blue", "green"])[np.arange(60) % 3]


def write_csv(path, columns, delimiter=","):
    lines = [delimiter.join(columns)]
    lines += [delimiter.join(map(str, row)) for row in zip(*columns.values(), strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return path


def table(**more):
    return {"a": X[:, 0], "b": X[:, 1], "c": X[:, 2], **more}
