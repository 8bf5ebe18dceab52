"""What all figures share: how a figure is made and written, its title, its colours."""

from __future__ import annotations

import contextlib
import io
import os
import unicodedata
import warnings
from collections.abc import Iterable
from functools import cache
from typing import Any

from gpumlp.errors import needs
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


def fallbacks(texts: Iterable[str]) -> tuple[list[str], set[str]]:
    """The families that draw the texts together with the default font, and what none can draw."""
    found = {c for text in texts for c in text if not (c.isascii() or c.isspace())}
    visible = {c for c in found if unicodedata.category(c) not in ("Cc", "Cf")}
    missing = {c for c in visible if ord(c) not in _default()}
    families = list[str]()
    while missing:
        having = {name: sum(ord(c) in at for c in missing) for name, at in _fonts().items()}
        best = max(having, key=having.__getitem__, default="")
        if not having.get(best):
            break
        families.append(best)
        missing = {c for c in missing if ord(c) not in _fonts()[best]}
    return families, missing


def escaped(text: str, missing: Iterable[str]) -> str:
    """The text with an escape of its code for each character that is missing."""
    return "".join(ascii(c)[1:-1] if c in missing else c for c in text)


def make_drawable(figure: Any) -> None:
    """Give the figure's texts fonts that have their characters, else write these as escapes."""
    from matplotlib import rcParams
    from matplotlib.text import Text

    texts = figure.findobj(Text)
    families, missing = fallbacks(text.get_text() for text in texts)
    for text in texts:
        content = text.get_text()
        if not content.isascii():
            text.set_fontfamily([*rcParams["font.family"], *families])
            text.set_text(escaped(content, missing))
    if missing:
        warn_missing(sorted(missing), "the figure has escapes for them, such as \\u732b")


def warn_missing(names: Iterable[str], instead: str) -> None:
    """Warn that no font can write the names."""
    warnings.warn(
        f"no font of this system can write {', '.join([*names][:8])}: {instead}; install a "
        "font that has these characters, for example Noto Sans CJK for Chinese, Japanese and "
        "Korean",
        stacklevel=3,
    )


@cache
def _default() -> frozenset[int]:
    """The characters of the font that figures use."""
    from matplotlib import font_manager

    return _characters(font_manager.findfont(font_manager.FontProperties()))


@cache
def _fonts() -> dict[str, frozenset[int]]:
    """Each family of the system and its characters, by name; of its upright, normal font."""
    from matplotlib import font_manager

    manager = font_manager.fontManager
    known = {font.fname for font in manager.ttflist}
    for path in font_manager.findSystemFonts():
        if path not in known:  # installed after matplotlib made its list
            with contextlib.suppress(Exception):  # not a font that matplotlib can use
                manager.addfont(path)
    found: dict[str, frozenset[int]] = {}
    for font in sorted(manager.ttflist, key=lambda font: (font.name, font.fname)):
        usual = font.style == "normal" and font.weight in (400, "normal", "regular", "book")
        if usual and font.name not in found and "Last Resort" not in font.name:
            found[font.name] = _characters(font.fname)
    return found


def _characters(path: str) -> frozenset[int]:
    """The characters of a font; none if it has no outlines, as those of coloured pictures."""
    from matplotlib.ft2font import FT2Font

    with contextlib.suppress(Exception):  # a font that has gone, or that FreeType cannot read
        font = FT2Font(path)
        if font.scalable:
            return frozenset(font.get_charmap())
    return frozenset()
