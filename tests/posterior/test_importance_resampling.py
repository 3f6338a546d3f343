"""Draws by sampling importance resampling, beside a posterior that is known."""

from __future__ import annotations

import pytest
import torch

from pyro_vae.guides import MeanField
from pyro_vae.models import SSVAE, LinearGaussian
from pyro_vae.networks import MLP
from pyro_vae.pairs import Pair
from pyro_vae.posterior.importance_resampling import draw_resampled


@pytest.mark.exhaustive
def test_draws_come_near_the_posterior_as_proposals_grow():
    torch.manual_seed(0)
    model = LinearGaussian((5,), scale=0.7)
    probed = Pair(model, MeanField(model, network=MLP(hidden=(8,)))).probe(
        torch.zeros(2, 5)
    )  # a guide without training
    x = torch.randn(3, 5).repeat_interleave(4000, 0)
    exact = model.posterior(x[::4000])
    torch.manual_seed(1)
    errors = []
    for proposals in (1, 200):
        z = draw_resampled(probed, x, proposals)["z"].view(3, 4000, 2)
        errors.append(((z.mean(1) - exact.mean).abs() + (z.std(1) - exact.stddev).abs()).max().item())
    assert errors[0] > 0.2
    assert errors[1] < 0.08  # the largest of six means and deviations, of 4,000 draws each


def test_labels_are_drawn_by_their_weight():
    torch.manual_seed(0)
    model = SSVAE((4,), num_classes=3, latent_dim=2, network=MLP(hidden=(8,)))
    model.mask_missing()
    probed = Pair(model, MeanField(model, network=MLP(hidden=(8,)))).probe(torch.zeros(2, 4))
    nothing = torch.full((6000, 4), torch.nan)  # of which the posterior is the prior
    drawn = draw_resampled(probed, nothing, 40)
    shares = drawn["y"].bincount(minlength=3) / 6000
    assert shares.tolist() == pytest.approx([1 / 3] * 3, abs=0.03)
    assert drawn["z"].shape == (6000, 2)
    assert drawn["z"].mean(0).abs().max() < 0.06
    assert (drawn["z"].std(0) - 1).abs().max() < 0.06
