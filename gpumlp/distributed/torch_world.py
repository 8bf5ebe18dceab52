"""Bytes between processes by torch.distributed with gloo, for torchrun and Ray."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NoReturn

from gpumlp.distributed.transport import offsets
from gpumlp.errors import needs
from gpumlp.io.types import HostArray

HOURS = timedelta(hours=2)  # gloo's own time-out should come after that of the world


class Works:
    """Operations of torch.distributed that were started; those of one root name their rank."""

    def __init__(self, works: list[Any], roots: list[int] | None = None) -> None:
        self._works, self._roots = works, roots or []

    def done(self) -> bool:
        if not all(work.is_completed() for work in self._works):
            return False
        try:
            for work in self._works:
                work.wait()  # raises the error of an operation that failed
        except RuntimeError as error:  # "[file:line] Connection closed by peer [address]. This is…"
            text = re.sub(r"^\[\S+\] ", "", str(error))
            raise RuntimeError(text.partition(". This is")[0]) from None
        return True

    def missing(self) -> list[int]:
        return [
            root
            for root, work in zip(self._roots, self._works, strict=False)
            if not work.is_completed()
        ]


class TorchTransport:
    """The processes that torchrun or Ray launched.

    A process group that the script has made is kept; the bytes travel in one of their own.

    Args:
        timeout: seconds to wait for the other processes at the start.
        local_rank: by the launcher's variables.
    """

    broken: tuple[type[Exception], ...] = (RuntimeError,)  # gloo's

    def __init__(self, timeout: float, local_rank: int) -> None:
        with needs("several processes under torchrun or Ray need torch", "torch"):
            import torch
            import torch.distributed
        self._torch, self._distributed = torch, torch.distributed
        limit = timedelta(seconds=timeout)
        if not self._distributed.is_initialized():
            self._distributed.init_process_group("gloo", timeout=limit)
        self._group = self._distributed.new_group(backend="gloo", timeout=max(2 * limit, HOURS))
        self.rank, self.size = self._distributed.get_rank(), self._distributed.get_world_size()
        self.local_rank = local_rank

    def exchange(self, source: HostArray, counts: Sequence[int], received: HostArray) -> Works:
        work = self._distributed.all_to_all_single(
            self._tensor(received.reshape(-1)),
            self._tensor(source if source.flags.writeable else source.copy()),
            [counts[self.rank]] * self.size,
            list(counts),
            group=self._group,
            async_op=True,
        )
        return Works([work])

    def gather(self, whole: HostArray, counts: Sequence[int]) -> Works:
        """Every rank's piece of `whole` ← that rank's, by broadcasts: pieces may be unequal."""
        pieces = offsets(counts)
        roots = [rank for rank in range(self.size) if counts[rank]]
        return Works([self._broadcast(whole[pieces[root]], root) for root in roots], roots)

    def broadcast(self, array: HostArray) -> Works:
        return Works([self._broadcast(array, 0)], [0])

    def end(self, status: int) -> NoReturn:
        """End this process.  The others' transfers fail then, and end them."""
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # an ordinary exit could wait for transfers that never end

    def _broadcast(self, array: HostArray, root: int) -> Any:
        if not array.flags.writeable:  # a root's own bytes
            array = array.copy()
        tensor = self._tensor(array)
        return self._distributed.broadcast(tensor, root, group=self._group, async_op=True)

    def _tensor(self, array: HostArray) -> Any:
        return self._torch.from_numpy(array)
