"""Operations on streams that share a device, against schedules by hand."""

import pytest

from gpumlp.step.explain import timeline

MULTIPLY, MOVE = (1.0, 0.0), (0.0, 1.0)


def alone(multiplying, moving, least=0.0):
    """The work of an operation that takes the longer of its times, or `least`."""
    return multiplying, moving, max(multiplying, moving, least)


@pytest.mark.parametrize(
    ("streams", "after", "work", "gap", "expected"),
    [
        ([0, 0], [(), ()], [(2.0, 1.0), (1.0, 3.0)], 0.0, [(0, 2), (2, 5)]),
        ([0, 0], [(), ()], [(2.0, 1.0), (1.0, 3.0)], 0.5, [(0, 2), (2.5, 5.5)]),
        ([0, 1], [(), ()], [MULTIPLY, MOVE], 0.0, [(0, 1), (0, 1)]),
        ([0, 1], [(), ()], [MULTIPLY, MULTIPLY], 0.0, [(0, 2), (0, 2)]),
        ([0, 1], [(), ()], [(1.0, 0.5), (0.0, 1.0)], 0.0, [(0, 1.5), (0, 1.5)]),
        ([0, 1], [(), ()], [MULTIPLY, (3.0, 0.0)], 0.0, [(0, 2), (0, 4)]),
        ([0, 1], [(), (0,)], [MULTIPLY, MOVE], 0.25, [(0, 1), (1.25, 2.25)]),
        ([0, 0, 1], [(), (), (0,)], [MULTIPLY, MULTIPLY, MOVE], 0.0, [(0, 1), (1, 2), (1, 2)]),
        (
            [0, 1, 0],
            [(), (), (1,)],
            [MULTIPLY, (0.0, 3.0), MULTIPLY],
            0.0,
            [(0, 1), (0, 3), (3, 4)],
        ),
        ([0, 0], [(), ()], [(0.0, 0.0), MULTIPLY], 0.0, [(0, 0), (0, 1)]),
        ([0, 1], [(), ()], [(1.0, 0.0, 2.0), (0.5, 0.0, 1.0)], 0.0, [(0, 2), (0, 1)]),
    ],
)
def test_schedules(streams, after, work, gap, expected):
    found = timeline(streams, after, [alone(*each) for each in work], gap)
    for got, want in zip(found, expected, strict=True):
        assert got == pytest.approx(want)


def test_gap_of_one_stream_does_not_stop_the_other():
    work = [alone(*each) for each in (MULTIPLY, MULTIPLY, (0.0, 3.0))]
    got = timeline([0, 0, 1], [(), (), ()], work, 0.5)
    assert [end for _, end in got] == pytest.approx([1, 2.5, 3])
