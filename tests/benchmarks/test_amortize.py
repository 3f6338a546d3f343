"""The comparison with AutoNormal scores both alike, and Pyro's examples get their guides."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.amortize import CASES, auto_normal
from benchmarks.amortized_examples import EXAMPLES, tried


@pytest.mark.parametrize(
    ("name", "rows", "truth"),
    [
        ("item response", 400, torch.linspace(-2, 2, 20)),
        ("Poisson factors", 80, torch.stack([torch.linspace(0.1, 1.5, 20), torch.linspace(1.5, 0.1, 20)])),
    ],
)
def test_the_score_is_highest_at_what_the_data_were_drawn_with(name, rows, truth):
    x = torch.as_tensor(CASES[name].make(rows), dtype=torch.float32)
    score = CASES[name].score
    assert score(truth, x) > max(score(truth + 0.3, x), score(truth * 1.2, x))
    assert score(truth, x[::2]) + score(truth, x[1::2]) == pytest.approx(2 * score(truth, x))


def test_auto_normal_stops_where_it_is_asked_to():
    case = CASES["item response"]
    x = torch.as_tensor(case.make(100), dtype=torch.float32)
    start = case.score(torch.zeros(20), x)
    spent, best = auto_normal(case, x, x, start + 0.5, 0.1, longest=30.0)
    assert best > start + 0.5
    assert spent < 30
    assert np.isfinite(best)


@pytest.mark.exhaustive
@pytest.mark.skipif("PYRO_VAE_PYRO" not in os.environ, reason="PYRO_VAE_PYRO names no checkout of Pyro")
def test_ten_of_pyro_s_examples_get_a_guide():
    table = tried(Path(os.environ["PYRO_VAE_PYRO"]))
    before = list(table.columns[3].cells)
    assert len(before) == len(EXAMPLES)
    assert sum(bool(loss) for loss in before) >= 10
