"""Sums over the processes of one computer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pyro_vae.distributed.shared_memory import SharedSums

ROOT = Path(__file__).parents[2]


@pytest.mark.exhaustive
@pytest.mark.parametrize("size", [2, 3])
def test_sums_through_memory_are_gloos_and_the_same_bits_everywhere(size):
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size)]
    variables = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    words = [*run, "-m", "tests.distributed.summing_worker"]
    done = subprocess.run(words, env=variables, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.stdout.strip() == f"fine {size}", done.stderr


def test_processes_of_several_computers_have_no_memory_in_common(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    sums = SharedSums(0, 4)
    sums.make(100)  # asks nobody
    assert not sums.holds([torch.zeros(3)])
