"""Sums over processes through shared memory, beside gloo's; run as a module, it says ``fine`` if right."""

from __future__ import annotations

import os

import torch

from pyro_vae.distributed import shared_memory
from pyro_vae.distributed.shared_memory import SharedSums

ROUNDS = 20


def main() -> None:
    torch.distributed.init_process_group("gloo")
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    shared_memory.LARGEST = 4096  # so that some tensors go piece by piece
    sums = SharedSums(rank, size)
    sums.use()
    sums.make(10**6)
    mine, alike = torch.Generator().manual_seed(rank), torch.Generator().manual_seed(99)
    for number in range(ROUNDS):
        dtype = (torch.float32, torch.float64)[number % 2]
        lengths = torch.randint(1, 700, (3,), generator=alike).tolist()
        parts = [torch.randn(length, generator=mine, dtype=dtype) for length in lengths]
        assert sums.holds(parts)
        expected = torch.cat(parts)
        torch.distributed.all_reduce(expected)
        found = torch.ops.pyro_vae_distributed.sum_in_memory(parts)
        torch.testing.assert_close(found, expected)
        everywhere = [torch.empty_like(found) for _ in range(size)]
        torch.distributed.all_gather(everywhere, found)
        assert all(torch.equal(each, found) for each in everywhere)  # to the bit
    torch.distributed.destroy_process_group()
    if rank == 0:
        print("fine", os.environ["LOCAL_WORLD_SIZE"], flush=True)


if __name__ == "__main__":
    main()
