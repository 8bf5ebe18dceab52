"""Processes of torchrun: what they exchange, and how all end when one fails."""

import socket

import pytest

from tests.support.launching import WORKER, under_torchrun

pytest.importorskip("torch.distributed.run")


def test_torchrun_exchanges_and_ends_all_when_one_fails():
    """One launch for both, since it takes seconds: the failure comes after the comparisons."""
    ended = under_torchrun(2, "-m", "gpumlp.distributed", WORKER, "check-raise")
    assert ended.output.count("begins\n") == 2, ended.output  # both have compared all
    assert ended.status == 1
    host, where = socket.gethostname(), "(step 2, exchange of ∇W)"
    lines = {line.partition(":")[2].partition(":")[0]: line for line in ended.lines()}
    raised = lines.pop(f" rank 1 of 2 on {host}")
    assert raised == f"gpumlp: rank 1 of 2 on {host}: ValueError: the fourth row {where}"
    for line in lines.values():  # of rank 0, unless torchrun ended it before
        assert line.startswith(f"gpumlp: rank 0 of 2 on {host}: exchange failed: ")
        assert line.endswith(f"; look for errors of other ranks {where}")
    assert "completed" not in ended.output
