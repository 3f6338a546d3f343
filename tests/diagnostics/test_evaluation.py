from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_vae.arviz_bridge import psis
from pyro_vae.data import Images
from pyro_vae.diagnostics import (
    accuracy,
    evaluate,
    expected_calibration_error,
    importance_sample,
    nll_per_datum,
)
from pyro_vae.diagnostics.evaluation import default_samples
from pyro_vae.errors import InputError
from pyro_vae.pairs import Pair, draw_terms
from pyro_vae.posterior import Target
from tests.conftest import LinearGaussian, make_pair
from tests.diagnostics.planted import linear_model, linear_pair


def test_accuracy_and_calibration_by_hand():
    probabilities = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    labels = torch.tensor([0, 1, 1, 0])
    assert accuracy(probabilities, labels) == 0.75
    # bins of width 1/15 put each datum into one of its own: |1 - 0.9|, |0 - 0.8|, |1 - 0.7|, |1 - 0.6|
    assert expected_calibration_error(probabilities, labels) == pytest.approx((0.1 + 0.8 + 0.3 + 0.4) / 4)


def test_a_calibrated_classifier_has_no_calibration_error():
    """Labels drawn from the stated probabilities; 40,000 data in one bin, 6 standard errors are 0.0137."""
    probabilities = torch.tensor([0.7, 0.3]).expand(40_000, 2)
    labels = (torch.rand(40_000) < 0.3).long()
    assert expected_calibration_error(probabilities, labels) < 0.0137
    assert expected_calibration_error(probabilities, torch.ones(40_000, dtype=torch.long)) == pytest.approx(
        0.7, abs=1e-6
    )


def test_certain_answers_fall_into_the_last_bin():
    probabilities = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert expected_calibration_error(probabilities, torch.tensor([0, 1])) == 0


def test_nll_of_the_linear_gaussian_model(linear_gaussian: LinearGaussian):
    """An importance-weighted bound rises to the evidence with the samples; a bad guide needs many."""
    x = linear_gaussian.sample(50)
    with torch.no_grad():  # a guide near the posterior: its mean, and the prior's width
        precision = torch.eye(2) + linear_gaussian.w.T @ linear_gaussian.w / linear_gaussian.variance
        projection = torch.linalg.solve(precision, linear_gaussian.w.T / linear_gaussian.variance)
        family = linear_gaussian.guide.conditionals["z"].family
        family.loc.weight.copy_(projection)
        family.loc.bias.copy_(-projection @ linear_gaussian.b)
        family.log_scale.weight.zero_()
        family.log_scale.bias.fill_(-0.3)
    exact = -linear_gaussian.evidence(x).mean().item()
    args = linear_gaussian.probed, Images(x)
    few, many = evaluate(*args, num_samples=1), evaluate(*args, num_samples=5000)
    assert few.nll > many.nll
    assert many.nll == pytest.approx(exact, abs=0.02)
    assert few.nll == pytest.approx(-few.elbo, rel=1e-6)
    assert -many.elbo > exact


def test_the_errors_of_the_likelihood_are_those_of_its_parts(x, monkeypatch):
    """The spread over the data, and the effective sample size that the criticism finds from the same draws."""
    pair = make_pair("vae")
    probed = pair.probe(x)
    found = evaluate(probed, Images(x), num_samples=40)
    nll = nll_per_datum(probed, Images(x), num_samples=40)
    assert found.nll_standard_error == pytest.approx(nll.std().item() / math.sqrt(len(x)))
    weights = importance_sample(Target(probed, x), num_samples=40)
    assert found.effective_samples == pytest.approx(weights.ess.median().item(), rel=1e-4)
    monkeypatch.setattr("pyro_vae.pairs.memory.NUMBERS_AT_ONCE", 512 * 8 * 3)  # several runs of draws
    assert 1 <= evaluate(probed, Images(x), num_samples=40).effective_samples <= 40
    assert evaluate(probed, Images(x[:1]), num_samples=5).nll_standard_error == math.inf


@pytest.mark.parametrize(("model", "samples"), [("vae", 500), ("ss_vae", 166)])
def test_a_datum_takes_five_hundred_runs_of_the_decoder(model, samples, x):
    assert default_samples(make_pair(model).probe(x)) == samples


def test_chunks_of_data_and_samples_change_nothing_but_noise(x, monkeypatch):
    pair = make_pair("vae")
    probed, images = pair.probe(x), Images(x)
    whole = evaluate(probed, images, num_samples=3000)
    monkeypatch.setattr("pyro_vae.pairs.memory.NUMBERS_AT_ONCE", 512 * 700)
    parts = evaluate(probed, images, num_samples=3000)
    assert parts.num_data == whole.num_data == 7
    assert parts.nll == pytest.approx(whole.nll, abs=0.05)
    assert parts.elbo == pytest.approx(whole.elbo, abs=0.1)
    assert parts.elbo == pytest.approx(parts.log_likelihood - parts.kl, rel=1e-6)


def test_a_bar_is_told_of_every_chunk(x, monkeypatch):
    pair = make_pair("vae")
    probed, images = pair.probe(x), Images(x)
    monkeypatch.setattr("pyro_vae.pairs.memory.NUMBERS_AT_ONCE", 512 * 20)
    seen: list[int] = []

    def track(chunks, total):
        assert total == 4
        for chunk in chunks:
            seen.append(len(chunk))
            yield chunk

    evaluate(probed, images, num_samples=10, track=track)
    assert seen == [2, 2, 2, 1]


def test_the_same_seed_gives_the_same_figures_and_no_other_randomness_moves(x):
    pair = make_pair("ss_vae")
    probed, images = pair.probe(x), Images(x, torch.arange(7) % 3)
    before = torch.get_rng_state()
    assert evaluate(probed, images, 10, seed=4) == evaluate(probed, images, 10, seed=4)
    assert evaluate(probed, images, 10, seed=4) != evaluate(probed, images, 10, seed=5)
    assert torch.equal(torch.get_rng_state(), before)


def test_active_units(x):
    pair = make_pair("vae")
    probed = pair.probe(x)
    family = pair.guide.conditionals["z"].family
    with torch.no_grad():
        family.loc.weight.zero_()
        assert evaluate(probed, Images(x), 2).active_units == 0
        family.loc.weight[0] = torch.linspace(-5, 5, family.loc.in_features)
    assert evaluate(probed, Images(x), 2).active_units == 1


def test_labelled_figures_only_where_there_are_labels(x, y):
    vae, ss_vae = make_pair("vae"), make_pair("ss_vae")
    assert "accuracy" not in evaluate(vae.probe(x), Images(x, y), 2).as_dict()
    assert "accuracy" not in evaluate(ss_vae.probe(x), Images(x), 2).as_dict()
    figures = evaluate(ss_vae.probe(x), Images(x, y), 2).as_dict()
    assert figures["error_percent"] == pytest.approx(100 * (1 - figures["accuracy"]))
    assert 0 <= figures["ece"] <= 1
    assert all(math.isfinite(value) for value in figures.values())


def test_no_samples_are_refused(x):
    pair = make_pair("vae")
    with pytest.raises(InputError, match="at least one sample per datum; got 0; use --samples 100"):
        evaluate(pair.probe(x), Images(x), 0)


def test_heavy_weights_are_said_and_light_ones_are_not():
    x = linear_model(4, 6).eval()().detach() + torch.randn(40, 6, generator=torch.Generator().manual_seed(3))
    for scale, is_heavy in ((1.0, False), (0.35, True)):
        probed = linear_pair(scale, latent_dim=4, data_dim=6)
        found = evaluate(probed, Images(x), 200)
        exact = -probed.pair.model.evidence(x).mean().item()
        k_hat = psis(draw_terms(probed, x, 200).log_weights)[1]
        share = (k_hat > 0.7).double().mean().item()
        assert found.heavy_weights == pytest.approx(share, abs=0.25)
        assert (found.note is not None) == is_heavy == (found.nll > exact + 0.02)
        assert ("note" in found.as_dict()) == is_heavy
        rough = evaluate(probed, Images(x), 20)
        assert rough.heavy_weights is rough.note is None
    assert "the NLL is a bound that more samples would lower; use more of them (--samples)" in (found.note or "")


def test_programs_that_bear_one_draw_at_a_time_run_once_per_draw():
    calls = []

    def model(x):
        weights = pyro.sample("weights", dist.Normal(torch.zeros(3), 0.1).to_event(1))
        calls.append(len(x))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal((x @ weights).unsqueeze(-1), 1.0).expand([len(x), 3]).to_event(1), obs=x)

    def guide(x):
        pyro.sample("weights", dist.Normal(torch.zeros(3), 0.1).to_event(1))

    x = torch.randn(30, 3)
    nll = nll_per_datum(Pair(model, guide).probe(x), Images(x), num_samples=200).mean()
    assert calls[-200:] == [30] * 200  # and not some rows at a time, as if the draws lay beside each other
    spread = torch.eye(3) + 0.01 * (x @ x.T).diagonal()[:, None, None] * torch.ones(3, 3)
    exact = -dist.MultivariateNormal(torch.zeros(3), spread).log_prob(x).mean()
    assert nll == pytest.approx(exact.item(), abs=0.1)
