"""The script for a machine with a GPU, on one without."""

from __future__ import annotations

import pytest
import torch
from click.testing import CliRunner

from benchmarks.gpu import ROWS, main


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_machine_without_a_gpu_is_told_so():
    done = CliRunner().invoke(main)
    assert done.exit_code == 2
    assert "no CUDA GPU" in done.stderr


@pytest.mark.slow
def test_every_row_runs_in_small():
    done = CliRunner().invoke(
        main, ["--device", "cpu", "--quick", *(f"--only={row}" for row in ROWS if row != "tests")]
    )
    assert done.exit_code == 0, done.output
    for found in ("step of vae", "in bfloat16", "epoch of 2,000 images", "evaluate", "NUTS"):
        assert found in done.stdout
    assert "Error" not in done.stdout
