r"""Sums over the processes of one computer, through memory that all of them see.

Each process p writes its part x_p of a tensor into a buffer of its own, waits for the others, and reads all buffers:

    sum_p x_p,  added up in the order of the processes, so that all of them have the same bits.

gloo carries the wait alone, which is also how a process that has ended is noticed; its sockets would take several
times as long for the tensor as memory does.  There are two sets of buffers, used in turn: a process that comes back to
a set has waited once more since, so that the others have read what it held.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import Tensor

MOST = 8  # processes; where more read all buffers, a ring of sockets has less to carry
LARGEST = 2**25  # bytes of a buffer at most; what is longer goes piece by piece
ALIGNED = 64  # bytes, of any dtype and of a line of the processor's memory

_library = torch.library.Library("pyro_vae_distributed", "DEF")
_library.define("sum_in_memory(Tensor[] parts) -> Tensor")


class SharedSums:
    """The buffers of the processes that ``torch.distributed`` has brought together.

    Args:
        rank: the number of this process.
        size: how many there are.
    """

    def __init__(self, rank: int, size: int) -> None:
        self._rank, self._size, self._turn = rank, size, 0
        here = os.environ.get("LOCAL_WORLD_SIZE") == str(size)
        self._may_be = here and size <= MOST and hasattr(os, "memfd_create")
        self._sets: Tensor | None = None

    def use(self) -> None:
        """Let ``torch.ops.pyro_vae_distributed.sum_in_memory`` go through these buffers from here on."""
        global _used  # for an operation of torch has tensors and numbers alone
        _used = self

    def make(self, num_bytes: int) -> None:
        """Make buffers for so many bytes, up to ``LARGEST``, if there are none; all processes do so at once."""
        if self._may_be and self._sets is None:
            length = max(ALIGNED, min(LARGEST, -(-num_bytes // ALIGNED) * ALIGNED))
            self._sets = _buffers(self._rank, self._size, length)

    def holds(self, parts: Sequence[Tensor]) -> bool:
        """Whether there are buffers, and for such parts."""
        return self._sets is not None and all(part.device.type == "cpu" for part in parts)

    def __call__(self, parts: Sequence[Tensor]) -> Tensor:
        """The sums over processes of tensors of shapes (N_i,), of one dtype, one after the other."""
        assert self._sets is not None
        sets = self._sets.view(parts[0].dtype)
        total = parts[0].new_empty(sum(map(len, parts)))
        longest = sets.shape[-1]
        pieces = [parts] if len(total) <= longest else [[piece] for piece in torch.cat(list(parts)).split(longest)]
        for mine, result in zip(pieces, total.split(longest), strict=True):
            buffers = sets[self._turn, :, : len(result)]
            self._turn = 1 - self._turn
            torch.cat(list(mine), out=buffers[self._rank])
            torch.distributed.barrier()
            torch.add(buffers[0], buffers[1], out=result)
            for buffer in buffers[2:]:
                result.add_(buffer)
        return total


_used: SharedSums | None = None


def _sum(parts: Sequence[Tensor]) -> Tensor:
    assert _used is not None
    return _used(parts)


_library.impl("sum_in_memory", _sum, "CPU")
_library.impl("sum_in_memory", lambda parts: parts[0].new_empty(sum(map(len, parts))), "Meta")


def _buffers(rank: int, size: int, length: int) -> Tensor | None:
    """Two sets of buffers, uint8 of shape (2, P, length), in a file without a name, gone with the last process."""
    number, file = 2 * size * length, None
    said: list[str | None] = [None]
    if rank == 0:
        with suppress(OSError):
            file = os.memfd_create("pyro_vae")
            os.posix_fallocate(file, 0, number)  # now, for memory that is not there shows as a crash later
            said = [f"/proc/{os.getpid()}/fd/{file}"]
    torch.distributed.broadcast_object_list(said, 0)
    found: Tensor | None = None
    if said[0] is not None:
        with suppress(RuntimeError):  # of a process that sees other processes than the first one, or may not look
            found = torch.from_file(said[0], True, number, dtype=torch.uint8).view(2, size, length)
    all_found: list[bool] = [False] * size
    torch.distributed.all_gather_object(all_found, found is not None)
    if file is not None:
        os.close(file)
    return found if all(all_found) else None
