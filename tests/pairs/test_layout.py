"""Numbers per datum out of vectorized runs, wherever the plate over data lies."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_vae.pairs.draws import draw, draw_means, draw_terms
from pyro_vae.pairs.pair import Pair
from pyro_vae.posterior.target import Target

NUM_DATA, NUM_PARTS, NUM_WORDS = 4, 3, 2


def nested(data_dim):
    """Latents in a plate of parts beside that over data, of two entries each; means tell where a number is from."""
    parts_dim = -3 - data_dim
    locs = torch.arange(NUM_DATA * NUM_PARTS * 2.0).reshape(NUM_DATA, NUM_PARTS, 2)
    placed = locs if data_dim == -2 else locs.transpose(0, 1)

    def plates():
        return pyro.plate("data", NUM_DATA, dim=data_dim), pyro.plate("parts", NUM_PARTS, dim=parts_dim)

    def model(x):
        data, parts = plates()
        with data, parts:
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x if data_dim == -2 else x.T)

    def guide(x):
        data, parts = plates()
        with data, parts:
            pyro.sample("z", dist.Normal(placed, 1.0).to_event(1))

    return Pair(model, guide), locs, torch.zeros(NUM_DATA, NUM_PARTS)


@pytest.mark.parametrize("data_dim", [-1, -2])
def test_means_and_values_are_those_of_their_datum(data_dim):
    pair, locs, x = nested(data_dim)
    probed = pair.probe(x)
    assert probed.data_dim == data_dim
    torch.testing.assert_close(draw_means(probed, x)["z"], locs.reshape(NUM_DATA, -1))
    terms = draw_terms(probed, x, 5)
    torch.testing.assert_close(terms.means["z"], locs.reshape(NUM_DATA, -1).expand(1, 5, -1, -1))
    target = Target(probed, x)
    torch.manual_seed(0)
    draws = target.draw(2000)
    assert draws.u.shape == (2000, NUM_DATA, NUM_PARTS * 2)
    torch.testing.assert_close(draws.u.mean(0), locs.reshape(NUM_DATA, -1), atol=5 / 2000**0.5, rtol=0)
    values = target.values(draws.u)["z"]
    torch.testing.assert_close(values.flatten(2), draws.u)


@pytest.mark.parametrize("data_dim", [-1, -2])
def test_terms_are_sums_over_the_parts_of_a_datum(data_dim):
    pair, locs, x = nested(data_dim)
    probed = pair.probe(x)
    torch.manual_seed(0)
    draws = draw(probed, x, num_samples=5)
    z = draws.layout.features(draws.q.nodes["z"]["value"], 1)[0].reshape(5, NUM_DATA, NUM_PARTS, 2)
    torch.testing.assert_close(draws.terms.prior[0], dist.Normal(0.0, 1.0).log_prob(z).sum((-1, -2)))
    torch.testing.assert_close(draws.terms.observed[0], dist.Normal(0.0, 1.0).log_prob(z.sum(-1)).sum(-1))
    torch.testing.assert_close(draws.terms.sampled[0], dist.Normal(locs, 1.0).log_prob(z).sum((-1, -2)))


def test_two_labels_of_which_a_latent_sees_one():
    """The mean of a latent is that over both labels: 3 * 0.25, not a third of it or twice."""

    def model(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Categorical(torch.ones(2)))
            b = pyro.sample("b", dist.Categorical(torch.ones(3)))
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z + a + b, 1.0), obs=x)

    def guide(x):
        enumerated = {"enumerate": "parallel"}
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Categorical(torch.tensor([0.75, 0.25])), infer=enumerated)
            pyro.sample("b", dist.Categorical(torch.ones(3)), infer=enumerated)
            pyro.sample("z", dist.Normal(3.0 * a, 0.01))

    x = torch.zeros(4)
    pair = Pair(model, guide)
    probed = pair.probe(x)
    torch.testing.assert_close(draw_means(probed, x)["z"], torch.full((4, 1), 0.75))
    terms = draw_terms(probed, x, 5)
    assert terms.means["z"].shape == (6, 5, 4, 1)
    torch.manual_seed(0)
    draws = Target(probed, x).draw(4000)
    torch.testing.assert_close(draws.u.round(), 3.0 * draws.enumerated["a"].unsqueeze(-1))
    assert draws.u.mean().item() == pytest.approx(0.75, abs=0.06)  # 5 standard errors of 16,000 draws
    assert set(draws.enumerated["b"].unique().tolist()) == {0, 1, 2}
