"""Learning rates of a run against their formulas."""

import math

import numpy as np
import pytest

from gpumlp import SCHEDULES, Schedule

STEPS = 200


def rates(name, steps=STEPS, base=2.0, **params):
    schedule = SCHEDULES[name].set(**params)
    return np.array([schedule.lr(base, t, steps) for t in range(steps)])


def test_constant():
    assert set(rates("constant")) == {2.0}


@pytest.mark.parametrize("final", [0.0, 0.1])
def test_warmup_cosine_rises_linearly_and_falls_by_half_a_cosine(final):
    lr = rates("warmup_cosine", warmup=0.1, final=final)
    np.testing.assert_allclose(lr[:20], 2 * np.arange(1, 21) / 21, rtol=1e-14)
    progress = np.arange(180) / 180
    cosine = final + (1 - final) * (1 + np.cos(np.pi * progress)) / 2
    np.testing.assert_allclose(lr[20:], 2 * cosine, rtol=1e-13)
    assert lr.argmax() == 20
    assert lr.max() == 2.0


def test_warmup_cosine_without_warm_up_starts_at_the_top():
    assert rates("warmup_cosine", warmup=0.0)[0] == 2.0


def test_one_cycle_rises_to_the_base_rate_and_falls_to_the_final_one():
    lr = rates("one_cycle", steps=201, rise=0.3, start=0.04, final=1e-3)
    assert lr[0] == pytest.approx(2 * 0.04)
    assert lr[60] == 2.0  # 0.3 of 200 intervals
    assert lr[200] == pytest.approx(2 * 1e-3)
    assert lr[30] == pytest.approx(2 * (1 + 0.04) / 2)  # half way up a half cosine
    assert lr[130] == pytest.approx(2 * (1 + 1e-3) / 2)
    assert (np.diff(lr[:61]) > 0).all()
    assert (np.diff(lr[60:]) < 0).all()


def test_one_cycle_matches_torch():
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 2.0, total_steps=201, div_factor=25, final_div_factor=1e4,
        pct_start=61 / 201, cycle_momentum=False,  # torch counts steps, not intervals
    )  # fmt: skip
    expected = []
    for _ in range(201):
        expected.append(theirs.get_last_lr()[0])
        optimizer.step()
        if len(expected) < 201:
            theirs.step()
    np.testing.assert_allclose(rates("one_cycle", steps=201), expected, rtol=1e-12)


def test_step_drops_at_even_distances():
    lr = rates("step", drops=3, gamma=0.1)
    np.testing.assert_allclose(lr, 2 * 0.1 ** (np.arange(200) // 50), rtol=1e-14)


def test_inverse_sqrt_rises_linearly_and_falls_by_the_root():
    lr = rates("inverse_sqrt", warmup=0.1)
    np.testing.assert_allclose(lr[:20], 2 * np.arange(1, 21) / 20, rtol=1e-14)
    np.testing.assert_allclose(lr[19:], 2 * np.sqrt(20 / np.arange(20, 201)), rtol=1e-14)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 3, 1000])
def test_every_rate_is_finite_and_at_most_the_base_rate(name, steps):
    lr = rates(name, steps)
    assert np.isfinite(lr).all()
    assert (lr >= 0).all()
    assert lr.max() <= 2.0
    assert lr[0] > 0


def test_a_schedule_past_its_end_stays_at_the_final_rate():
    assert SCHEDULES["warmup_cosine"].lr(1.0, 250, 200) == 0
    assert math.isclose(SCHEDULES["one_cycle"].lr(1.0, 250, 200), 4e-6)


@pytest.mark.parametrize("factor", [-0.25, math.nan, math.inf])
def test_factors_of_ones_own_are_checked_in_each_step(factor):
    own = Schedule("own", factor=lambda t, steps: factor if t == 5 else -1e-17 if t == 4 else 1.0)
    assert [own.lr(2.0, t, 9) for t in (3, 4, 6)] == [2.0, 0.0, 2.0]
    with pytest.raises(ValueError, match=f"schedule 'own' must be .* got {factor} at step 5 of 9"):
        own.lr(2.0, 5, 9)
