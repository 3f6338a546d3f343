"""The noise of a part of a batch is that of its rows in the whole."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from pyro_vae.compiled.tracing import record
from pyro_vae.distributed import Part, RowNoise
from pyro_vae.networks.images import Dropout

PARTS = Part(0, 3, 7, 2), Part(3, 7, 7, 2)


def shared_and_own(rows):
    return torch.randn(2) + torch.randn(rows, 2)


DRAWS = {
    "normal": lambda rows: torch.randn(rows, 4),
    "in place": lambda rows: torch.empty(rows, 4).uniform_(2, 3),
    "the second dimension": lambda rows: torch.rand(5, rows),
    "shared and own": shared_and_own,
    "like": lambda rows: torch.rand_like(torch.zeros(rows, 3)),
    "by parameters": lambda rows: torch.normal(torch.zeros(rows, 2), torch.ones(rows, 2)),
    "classes": lambda rows: torch.multinomial(torch.ones(rows, 5), 1).float(),
    "dropout": lambda rows: F.dropout(torch.ones(rows, 8)),
    "dropout by words": lambda rows: Dropout(0.5)(torch.ones(rows, 8)),
    "exponential": lambda rows: torch.empty(rows).exponential_(),
    "rows as long as they are many": lambda rows: torch.randn(3, rows),
}


def parts_of(draw, noise, seed=0):
    pieces = []
    for part in PARTS:
        torch.manual_seed(seed)
        with noise.of("it", part):
            pieces.append(draw(len(part)))
    return pieces


def learned(draw):
    noise = RowNoise()

    def run(part):
        torch.manual_seed(1)
        with noise.of("it", part):
            return part.weight * draw(len(part)).mean()

    noise.learn(run)
    return noise


@pytest.mark.parametrize("name", DRAWS)
def test_the_parts_make_up_what_is_drawn_for_all(name):
    draw, noise = DRAWS[name], learned(DRAWS[name])
    assert noise.is_exact
    torch.manual_seed(0)
    whole = draw(7)
    dim = next(dim for dim, length in enumerate(whole.shape) if length == 7)
    torch.testing.assert_close(torch.cat(parts_of(draw, noise), dim), whole)


def test_parameters_of_a_row_stay_its_own():
    def draw(rows, start=0):
        chances = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0])[start : start + rows]
        return torch.bernoulli(chances.unsqueeze(-1).expand(rows, 3).contiguous())

    noise = learned(lambda rows: draw(2) if rows < 0 else torch.bernoulli(torch.full((rows, 3), 0.5)))
    pieces = []
    for part in PARTS:
        with noise.of("it", part):
            pieces.append(draw(len(part), part.start))
    assert torch.cat(pieces)[:, 0].tolist() == [0, 1, 0, 1, 0, 1, 1]


@pytest.mark.parametrize(
    "draw",
    [
        lambda rows: torch._standard_gamma(torch.full((rows,), 2.0)),
        lambda rows: torch.poisson(torch.full((rows,), 2.0)),
        lambda rows: torch.randperm(rows).float(),
        lambda rows: torch.randn(2 * rows).view(2, rows)[0],  # laid out by draws, not by rows
        lambda rows: torch.randn(rows, 2).mean(0).abs(),  # not a mean over rows
    ],
    ids=["gamma", "poisson", "permutation", "another layout", "no mean"],
)
def test_what_cannot_be_drawn_for_rows_alone_is_noticed(draw):
    assert not learned(draw).is_exact


def test_a_recorded_draw_is_that_of_the_rows_too():
    noise, part = learned(DRAWS["in place"]), PARTS[1]

    def run():
        with noise.of("it", part):
            return (DRAWS["in place"](len(part)),)

    recording = record(run, [torch.zeros(1)])
    torch.manual_seed(0)
    (replayed,) = recording.graph(torch.zeros(1), *recording.held)
    assert torch.equal(replayed, parts_of(DRAWS["in place"], noise)[1])


def test_two_parts_one_after_the_other_have_the_noise_of_each():
    noise = learned(DRAWS["normal"])
    torch.manual_seed(0)
    whole = torch.randn(12, 4)
    torch.manual_seed(0)
    with noise.of("it", Part(2, 4, 5, 2), Part(0, 3, 7, 2)):
        drawn = torch.randn(5, 4)
    assert torch.equal(drawn, torch.cat([whole[2:4], whole[5:8]]))
