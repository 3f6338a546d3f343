"""What a run writes is kept as it was, and nothing else is copied."""

from __future__ import annotations

import random
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from pyro_vae.compiled.snapshot import Writes


def copies(writes: Writes) -> int:
    """The entries that were copied."""
    return sum(value.numel() for _, value in writes._kept.values())


def test_only_what_is_written_is_copied_and_put_back():
    large, small = torch.ones(1000, 1000), torch.arange(6.0)
    with Writes() as writes:
        y = large * 2
        y.add_(1)
        small[1:3].mul_(7)
        small[2] = -1.0
        small.sub_(1)
    assert copies(writes) <= 9
    writes.restore()
    assert torch.equal(small, torch.arange(6.0))


@pytest.mark.parametrize("training", [True, False])
def test_statistics_are_written_without_a_word(training):
    norm = nn.BatchNorm1d(4).train(training)
    before = {name: value.clone() for name, value in norm.named_buffers()}
    with Writes() as writes:
        norm(torch.randn(8, 4))
    assert (norm.running_mean.abs().sum() > 0) == training
    writes.restore()
    torch.testing.assert_close(dict(norm.named_buffers()), before)


def test_tensors_that_cannot_be_copied_into_are_left_alone(tmp_path):
    np.save(tmp_path / "mapped.npy", np.arange(4, dtype=np.float32))
    with warnings.catch_warnings(action="ignore"):  # torch says once in a process that it is not writable
        mapped = torch.from_numpy(np.load(tmp_path / "mapped.npy", mmap_mode="r"))
    expanded = torch.ones(1).expand(4)
    with Writes() as writes:
        (mapped + expanded).sum()
    writes.restore()
    assert copies(writes) == 0
    assert mapped.tolist() == [0, 1, 2, 3]


def test_the_random_states_are_put_back():
    writes = Writes()
    expected = torch.rand(2), random.random(), np.random.rand()
    writes.restore()
    found = torch.rand(2), random.random(), np.random.rand()
    assert torch.equal(found[0], expected[0])
    assert found[1:] == expected[1:]
