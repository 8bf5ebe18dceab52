"""The model of scaling gives what one computes by hand, and finds links from measured times."""

import json

import pytest

from benchmarks.scaling_model import GPUS, Link, Machine, Step, fitted, machine_of, main

MACHINE = Machine(nvlink=Link(1.0, 80.0), network=Link(10.0, 5.0))


def test_ring_takes_its_steps_and_its_bytes():
    assert Link(1e-6, 100e9).seconds(8e9, 8) == pytest.approx(7e-6 + 7e9 / 100e9)
    assert Link(1e-6, 100e9).seconds(8e9, 1) == 0


def test_flat_ring_passes_each_node_once():
    assert MACHINE.flat(160, 8) == 7 * 1.0 + 160 * 7 / 8 / 80
    # 14 steps within the two nodes and one between them; 8 NICs of 5 bytes/s are slower than NVLink
    assert MACHINE.flat(160, 16) == 14 * 1.0 + 10.0 + 160 * 15 / 16 / 40
    assert Machine().flat(0, 1024) == pytest.approx(896 * 3.4e-6 + 127 * 14e-6)  # 4.8 ms


def test_two_levels_move_an_eighth_between_nodes():
    assert MACHINE.two_level(160, 8) == MACHINE.flat(160, 8)
    within = 7 * 1.0 + 160 * 7 / 8 / 80
    assert MACHINE.two_level(160, 32) == within + 2 * 10.0 + 20 * 3 / 4 / 5  # log2(4) steps


def test_network_loses_as_rings_of_128_nodes_did():
    rate = Machine().network_rate
    assert [8 * rate(nodes) / 1e9 for nodes in (2, 4, 128)] == pytest.approx([360, 360, 260])


def machine(rate):
    """A product of 4,096 examples and width 1 takes 1 s, the update of a parameter 1 s."""
    return Machine(nvlink=Link(0.0, rate), half_rate=8192.0, memory_rate=28.0)


@pytest.mark.parametrize(
    ("rate", "buckets", "seconds"),
    [
        # the collectives of a bucket take 1 s each, its update 1/2: 4 + 2.5, then 2.5 more
        (1.0, 2, 9.0),
        # 1/4 s each: the second bucket is ready at 5, when the first is complete
        (4.0, 2, 6.0),
        # one bucket is ready at 5; 1/2 s each, and 1 s for two parameters
        (4.0, 1, 7.0),
    ],
)
def test_buckets_overlap_with_the_backward_pass(rate, buckets, seconds):
    step = Step(1, 4096, machine(rate), layers=2)
    assert step.alone() == 5 + 2  # the first layer has two products, the second three
    assert step.together(2, "flat", buckets) == seconds
    assert step.efficiency(2, "flat", buckets) == 7 / seconds
    assert step.best_buckets(2, "flat") == 2


def test_small_minibatches_multiply_more_slowly():
    assert Step(8192, 1024).product == pytest.approx(2 * 1024 * 8192**2 / 600e12)
    assert Step(8192, 4096).product == pytest.approx(2 * 4096 * 8192**2 / 700e12)


def test_fit_finds_the_link_of_measured_times():
    link = Link(5e-6, 200e9)
    sizes = [2.0**k for k in range(10, 30, 3)]
    again = fitted(8, [(size, link.seconds(size, 8)) for size in sizes])
    assert (again.alpha, again.rate) == pytest.approx((5e-6, 200e9))
    # errors of 5 % change alpha and rate by about as much, although sizes differ by 10⁵
    noisy = [(s, link.seconds(s, 8) * (1.05 if k % 2 else 0.95)) for k, s in enumerate(sizes)]
    again = fitted(8, noisy)
    assert (again.alpha, again.rate) == pytest.approx((5e-6, 200e9), rel=0.08)


@pytest.mark.parametrize("pairs", [[(1e6, 1e-3), (1e6, 2e-3)], [(1e3, 1e-3), (1e6, 9e-4)]])
def test_times_of_no_link_are_refused(pairs):
    with pytest.raises(ValueError, match="no link has these times"):
        fitted(2, pairs)


def test_measurements_replace_their_link(tmp_path, capsys):
    link = Link(2e-6, 400e9)
    pairs = [(size, link.seconds(size, 8)) for size in (1e4, 1e6, 1e8)]
    measured = {"nvlink": {"ranks": 8, "pairs": pairs}}
    made = machine_of(measured)
    assert (made.nvlink.alpha, made.nvlink.rate) == pytest.approx((2e-6, 400e9))
    assert made.network == Machine().network
    path = tmp_path / "measured.json"
    path.write_text(json.dumps(measured))
    main(["--fit", str(path), "--buckets", "2"])
    printed = capsys.readouterr().out
    assert "nvlink: 2.00 µs a step, 400.0 GB/s" in printed
    assert printed.count("8192, 1024") == len(GPUS)
    expected = Step(8192, 1024, made).efficiency(8, "flat", 2)
    row = next(line for line in printed.splitlines() if "8192, 1024 " in line)
    assert f" {expected:.2f} " in row
