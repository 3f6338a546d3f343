from __future__ import annotations

import pytest
import torch

from pyro_vae.config import TrainingConfig
from pyro_vae.data import Batches, Images
from pyro_vae.errors import InputError
from pyro_vae.pairs import Pair
from pyro_vae.training import RESAMPLINGS, Trainer
from pyro_vae.training.resampling import LatentHistogram, effective_rows, latent_means
from tests.conftest import make_pair


def test_rarity_by_hand():
    """Nine rows in one bin and one in another, in both of two dimensions, but not the same one."""
    means = torch.zeros(10, 2)
    means[0, 0], means[1, 1] = 1.0, 1.0
    common, rare = 0.9 + 0.01, 0.1 + 0.01
    expected = torch.full((10,), 1 / common**2)
    expected[:2] = 1 / (common * rare)
    torch.testing.assert_close(LatentHistogram(alpha=0.01).rarity(means), expected / expected.sum())
    factors = torch.full((10,), 1 / common)
    factors[0] = 1 / rare
    largest = torch.stack([factors, factors[[1, 0, *range(2, 10)]]]).amax(0)
    torch.testing.assert_close(LatentHistogram(alpha=0.01, combine="max").rarity(means), largest / largest.sum())


def test_a_large_alpha_draws_evenly_and_ends_of_the_range_count():
    means = torch.linspace(-1, 1, 50).unsqueeze(1) ** 3
    even = LatentHistogram(alpha=1e6).rarity(means)
    torch.testing.assert_close(even, torch.full((50,), 0.02), rtol=1e-3, atol=0)
    skewed = LatentHistogram(alpha=0.001).rarity(means)
    assert skewed[0] > 3 * skewed[25]
    assert torch.isfinite(LatentHistogram().rarity(torch.zeros(5, 3))).all()


def test_groups_keep_their_share(x):
    pair = make_pair("db_vae")
    probed, images = pair.probe(x), Images(x.repeat(4, 1, 1, 1))
    groups = torch.tensor([0] * 20 + [-1] * 8)
    weights = RESAMPLINGS.build("latent_histogram").weights(probed, images, groups)
    assert weights[groups == 0].sum().item() == pytest.approx(20, rel=1e-4)
    assert weights[groups == -1].sum().item() == pytest.approx(8, rel=1e-4)
    assert weights[groups == 0].std() > 0


def test_latent_means_are_those_of_the_guide(x):
    pair = make_pair()
    torch.testing.assert_close(latent_means(pair.probe(x), Images(x)), pair.guide.posterior(x).mean.detach())
    assert latent_means(make_pair("hvae").probe(x), Images(x)).shape == (7, 4)


def test_batches_are_drawn_by_weight(x):
    """10,000 rows drawn by weights 1 to 7; a share is off by 6 standard errors with a chance below 1e-8."""
    batches = Batches(Images(x), torch.empty(0, dtype=torch.int64), 7, "none", seed=0)
    batches.weights = torch.arange(1.0, 8.0)
    drawn = torch.zeros(7)
    for _ in range(1429):
        for batch in batches.epoch():
            same = (batch.unlabelled.x.unsqueeze(1) == x).flatten(2).all(-1)
            drawn += same.float().sum(0)
    share = torch.arange(1.0, 8.0) / 28
    assert ((drawn / drawn.sum() - share).abs() < 6 * (share * (1 - share) / drawn.sum()).sqrt()).all()


def trainer(pair: Pair, x, weights: str, epochs: int = 3) -> Trainer:
    rare = torch.zeros(4, 1, 4, 4)
    images = Images(torch.cat([x.repeat(8, 1, 1, 1)[:52], rare]))
    batches = Batches(images, torch.empty(0, dtype=torch.int64), 8, "none", seed=0)
    config = TrainingConfig(epochs=epochs, lr=0.01)
    probed = pair.probe(x)
    return Trainer(probed, batches, images, config, resampling=RESAMPLINGS.build(weights))


def test_rare_images_are_drawn_more_often():
    common = torch.ones(1, 1, 4, 4)
    debiased = trainer(make_pair("db_vae"), common, "latent_histogram:alpha=0.001", epochs=10)
    rows = list(debiased.epochs())
    weights = debiased.batches.weights
    assert weights[-4:].sum() / weights.sum() > 0.4  # of 4 rows in 56
    plain = trainer(make_pair("db_vae"), common, "uniform")
    list(plain.epochs())
    assert plain.batches.weights is None
    assert rows[-1]["effective_rows"] == pytest.approx(effective_rows(weights))
    assert effective_rows(torch.ones(9)) == pytest.approx(9)
    assert effective_rows(torch.tensor([1.0, 0.0, 0.0])) == pytest.approx(1)


def test_a_debiased_run_resumes_to_the_bit_in_mid_epoch(x):
    def run(stop_at: int | None) -> dict[str, torch.Tensor]:
        torch.manual_seed(3)
        pair = make_pair("db_vae")
        training = trainer(pair, x, "latent_histogram")
        if stop_at is not None:

            def stop(progress):
                training.stop_requested = progress.epoch * 7 + progress.step == stop_at

            list(training.epochs(stop))
            state, weights = training.state_dict(), pair.state_dict()
            pair = make_pair("db_vae")
            training = trainer(pair, x, "latent_histogram")
            pair.load_state_dict({name: value.clone() for name, value in weights.items()})
            training.load_state_dict(state)
        list(training.epochs())
        return pair.state_dict()

    whole, resumed = run(None), run(10)
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_programs_without_a_likelihood_per_datum_are_refused():
    import pyro
    import pyro.distributions as dist

    def program(x):
        pyro.sample("z", dist.Normal(0.0, 1.0))

    pair = Pair(program, program)
    with pytest.raises(InputError, match="plate"):
        RESAMPLINGS.build("latent_histogram").check(pair.probe(torch.zeros(3, 2)))
