"""What all figures share: how a figure is made and written, its title, its colours."""

from __future__ import annotations

import io
import os
import warnings
from typing import Any

from gpumlp.errors import needs
from gpumlp.plots.fonts import make_drawable
from gpumlp.storage import atomic_write

# Okabe and Ito's blue and vermilion, which colour-blind readers can distinguish
TRAINING, VALIDATION = "#0072B2", "#D55E00"
GREY = "#666666"


def blank_figure(height: float = 3.8, width: float = 9.6) -> Any:
    """Return a matplotlib Figure that needs no display; the sizes are in inches.

    Raises:
        ImportError: matplotlib is not installed.
    """
    with needs("for plots", "cli"):
        from matplotlib.figure import Figure
    return Figure(figsize=(width, height), layout="constrained")


def set_title(figure: Any, title: str) -> None:
    """Put the title at the top left; a $ in it stays a $."""
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, parse_math=False)


def set_axes(axes: Any, x: str, y: str, grid: bool = True) -> None:
    """Label both axes, draw a light grid and leave out the frame at the top and the right."""
    axes.set_xlabel(x, parse_math=False)
    axes.set_ylabel(y, parse_math=False)
    if grid:
        axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def write_png(figure: Any, path: str | os.PathLike[str]) -> None:
    """Write the figure as a PNG file; an error leaves no partial file."""
    image = io.BytesIO()
    make_drawable(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # of signs that are not drawn
        figure.savefig(image, format="png", dpi=144)
    atomic_write(path, image.getvalue())
