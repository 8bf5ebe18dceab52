"""The estimate of a step on a stated H100 meets the bars, and follows from its assumptions."""

import json
from pathlib import Path

import pytest

from benchmarks import roofline

RESULTS = Path(roofline.__file__).parent / "results" / "roofline.json"


def test_committed_estimate_is_that_of_the_program_and_meets_the_bars():
    rows = json.loads(RESULTS.read_text())["rows"]
    assert [row["batch_size"] for row in rows] == list(roofline.PEERS)
    for row, again in zip(rows, roofline.rows(), strict=True):
        assert row["milliseconds"] == pytest.approx(again["milliseconds"], rel=1e-6)
        of_amp, of_half = row["bars"]
        assert row["of AMP"] <= of_amp
        assert row["of bfloat16 parameters"] <= of_half


def test_estimate_counts_products_and_bytes():
    ms = roofline.times(4096)
    products = 23 * 2 * 4096 * 8192**2 / 700e12
    update = 28 * 8 * 8192**2 / 3e12
    assert ms["sequential"] == pytest.approx(1e3 * (products + update), rel=0.05)
    assert 1e3 * products < ms["branched, update in products, rate 1.0"] < ms["sequential"]
    saved = ms["sequential, 16-bit state"] - ms["sequential, 16-bit state and remainder"]
    assert saved == pytest.approx(1e3 * 2 * 8 * 8192**2 / 3e12, rel=0.01)
