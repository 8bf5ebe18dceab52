"""Names in scripts that matplotlib's font lacks: drawn by another font, else numbered."""

import io
import warnings

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager

from gpumlp.plots import confusion_figure, history_figure, write_png
from gpumlp.plots import figure as fonts

Y = np.array([0, 1, 1])
DOG, CAT = "犬", "고양이"


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A system with matplotlib's own fonts and those that the returned function adds."""
    manager = font_manager.fontManager
    own = [font for font in manager.ttflist if font.name == "DejaVu Sans"]
    monkeypatch.setattr(manager, "ttflist", own)
    added = []
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: added)
    fonts._fonts.cache_clear()

    def add(name, characters):
        pen = TTGlyphPen(None)
        pen.moveTo((0, 0))
        pen.lineTo((0, 700))
        pen.lineTo((700, 0))
        pen.closePath()
        glyphs = {".notdef": pen.glyph(), **{f"u{ord(c):04X}": pen.glyph() for c in characters}}
        font = FontBuilder(1000, isTTF=True)
        font.setupGlyphOrder([*glyphs])
        font.setupCharacterMap({ord(c): f"u{ord(c):04X}" for c in characters})
        font.setupGlyf(glyphs)
        font.setupHorizontalMetrics(dict.fromkeys(glyphs, (800, 0)))
        font.setupHorizontalHeader(ascent=800, descent=-200)
        font.setupNameTable({"familyName": name, "styleName": "Regular"})
        font.setupOS2(sTypoAscender=800, usWinAscent=800, usWinDescent=200)
        font.setupPost()
        font.save(tmp_path / f"{name}.ttf")
        added.append(str(tmp_path / f"{name}.ttf"))
        fonts._fonts.cache_clear()

    yield add
    fonts._fonts.cache_clear()


def names_of(figure):
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_a_font_of_the_system_draws_what_the_default_lacks(system):
    system("Dogs", DOG)
    system("Cats", CAT)
    assert fonts.fallbacks([DOG, CAT, "τ, é"]) == (["Cats", "Dogs"], set())
    figure = confusion_figure(Y, Y, [DOG, f"{CAT} (cat)"], DOG)
    assert names_of(figure) == [DOG, f"{CAT} (cat)"]
    fonts.make_drawable(figure)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of characters that it lacks
        figure.savefig(io.BytesIO())
    for label in figure.axes[0].get_yticklabels():
        assert {"Dogs", "Cats"} < set(label.get_fontfamily())


def test_without_a_font_the_classes_have_numbers_and_a_warning_is_their_legend(system):
    with pytest.warns(
        UserWarning, match=f"{DOG}: the figure numbers the classes, 0 {DOG}, 1 cat; "
    ):
        figure = confusion_figure(Y, Y, [DOG, "cat"])
    assert names_of(figure) == ["0", "1"]


def test_without_a_font_other_texts_have_escapes_and_matplotlib_says_nothing(system, tmp_path):
    figure = history_figure({"cost": [2.0, 1.0]}, title=f"{DOG}: 2-1")
    with pytest.warns(UserWarning, match=f"no font of this system can write {DOG}: ") as caught:
        write_png(figure, tmp_path / "f.png")
    assert len(caught) == 1
    assert figure.get_suptitle() == "\\u72ac: 2-1"


def test_line_breaks_and_signs_without_a_shape_need_no_font(system, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = confusion_figure(Y, Y, ["a\nb\u200d", "é\t$x$"])
        write_png(figure, tmp_path / "f.png")
    assert names_of(figure) == ["a b\u200d", "é $x$"]
