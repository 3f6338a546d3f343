"""The opponents compute what pyro_vae computes, and what they say of themselves holds."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from pyro.infer import TraceEnum_ELBO, TraceMeanField_ELBO, config_enumerate

from benchmarks import own, step
from benchmarks.peers import batches, pyro_m2, settings, torch_vae
from benchmarks.timing import ROOT, Here, repeat
from pyro_vae.guides import MeanField
from pyro_vae.models import VAE
from pyro_vae.networks import MLP


@pytest.fixture
def few_images(monkeypatch):
    """So few that making them takes no time."""
    pixels = (np.random.default_rng(0).uniform(size=(400, settings.NUM_PIXELS)) * 60).astype(np.uint8)
    monkeypatch.setattr(settings, "NUM_IMAGES", len(pixels))
    monkeypatch.setattr(settings, "images", lambda: pixels)
    return pixels


def test_the_images_are_mostly_black_and_each_its_own():
    images = settings.images()
    assert images.shape == (settings.NUM_IMAGES, settings.NUM_PIXELS)
    assert images.dtype == np.uint8
    assert 0.6 < (images == 0).mean() < 0.95
    assert (images.max(1) > 100).mean() > 0.99
    assert len(np.unique(images[:1000], axis=0)) == 1000


def test_an_order_has_no_row_twice(few_images):
    order = settings.order(128)
    assert order.shape == (3, 128)
    assert len(np.unique(order)) == order.size


def test_batches_are_those_rows_drawn_anew_in_every_pass(few_images):
    stream = batches.batches(200)
    passes = [torch.cat([next(stream), next(stream)]) for _ in range(50)]
    assert set(passes[0].unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(passes[0], passes[1])
    expected = few_images[settings.order(200).ravel()] / 255
    error = torch.stack(passes).mean((0, 2)).numpy() - expected.mean(1)
    assert np.abs(error).max() < 0.012  # 5.5 standard errors of a row's mean or more: by chance once in 10^4 at most


def test_the_vae_by_hand_is_the_pair_of_the_package(few_images):
    model = VAE((1, 28, 28), settings.LATENT_DIM, network=MLP(hidden=(settings.HIDDEN,)))
    guide = MeanField(model, network=MLP(hidden=(settings.HIDDEN,)))
    by_hand = torch_vae.VAE()
    weights = [*guide.parameters(), *model.parameters()]
    assert [w.shape for w in weights] == [w.shape for w in by_hand.parameters()]
    with torch.no_grad():
        for mine, theirs in zip(by_hand.parameters(), weights, strict=True):
            mine.copy_(theirs)
    x = next(batches.batches(settings.BATCH_SIZE))
    losses = []
    for loss in (
        lambda: by_hand(x).item(),
        lambda: TraceMeanField_ELBO().loss(model, guide, x.view(-1, 1, 28, 28)) / len(x),
    ):
        torch.manual_seed(0)
        losses.append(loss())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_m2_sums_over_all_labels(few_images):
    """The enumerated loss is the mean over q(y | x) of the losses given y, minus its entropy and log p(y)."""
    m2, x = pyro_m2.M2(), next(batches.batches(20))
    torch.manual_seed(0)
    guide = config_enumerate(m2.guide, "parallel", expand=True)
    loss = TraceEnum_ELBO(max_plate_nesting=1).loss(m2.model, guide, x) / len(x)
    torch.manual_seed(0)
    with torch.no_grad():
        q = m2.encoder_y(x).softmax(-1).T  # (K, N)
        y = torch.eye(settings.NUM_CLASSES).unsqueeze(1).expand(-1, 20, -1)
        loc, log_scale = m2.encoder_z(x, y).chunk(2, -1)
        noise = torch.normal(torch.zeros_like(loc), torch.ones_like(loc))
        z = loc + log_scale.exp() * noise
        log_ratio = (noise.square() / 2 + log_scale - z.square() / 2).sum(-1)
        logits = m2.decoder(z, y)
        log_likelihood = -torch.nn.functional.binary_cross_entropy_with_logits(
            logits, x.expand_as(logits), reduction="none"
        ).sum(-1)
        bound = (q * (log_likelihood + log_ratio - np.log(settings.NUM_CLASSES) - q.log())).sum(0)
    assert loss == pytest.approx(-bound.mean().item(), rel=1e-5)


def test_m2_trains_under_stock_pyro(few_images, monkeypatch):
    monkeypatch.setattr(settings, "M2_BATCH_SIZE", 20)
    monkeypatch.setattr(settings, "M2_HIDDEN", (16,))
    work = pyro_m2.build()
    before = work(3)
    work(20)
    assert work(3) < before - 20


def test_both_libraries_multiply(few_images):
    a, b = torch.randn(30, 20), torch.randn(20, 10)
    for multiply in torch_vae.MULTIPLY.values():
        torch.testing.assert_close(multiply(a, b), a @ b)
        torch.testing.assert_close(multiply(b.t(), a.t()), (a @ b).t())


@pytest.mark.parametrize("module", ["numpyro_epoch", "tensorflow_cvae"])
def test_workers_need_neither_torch_nor_pyro(module):
    script = f"import sys, benchmarks.peers.{module}; print({{'torch', 'pyro', 'pyro_vae'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_rows_name_peers_that_exist():
    available = step.peers(sys.executable)
    named = {name for row in step.ROWS for name in (row.reference, *row.others)}
    assert named == set(available)
    assert len({row.name for row in step.ROWS}) == len(step.ROWS)


def test_the_table_judges_our_ratio_and_says_who_is_missing(monkeypatch):
    """The command itself, with contenders that cost nothing."""

    def idle() -> float:
        return 2.5

    def missing():
        raise ImportError("No module named 'jax'")

    monkeypatch.setattr(step.timing, "use_threads", lambda count: None)
    monkeypatch.setattr(own, "ours", lambda: {"vae": lambda: Here("pyro_vae, compiled", lambda: repeat(idle))})
    fakes = [Here("NumPyro, jitted epoch", lambda: repeat(idle)), Here("NumPyro, jitted step", missing)]
    monkeypatch.setattr(step, "peers", lambda python: {fake.name: fake for fake in fakes})
    arguments = ["--only", "numpyro", "--rounds", "2", "--steps", "3", "--threads", str(torch.get_num_threads())]
    result = CliRunner().invoke(step.main, arguments)
    assert result.exit_code == 0, result.output
    assert "vae, against NumPyro (target: a ratio of at most 1.00)" in result.output
    assert "pyro_vae, compiled" in result.output
    assert "2.5 … 2.5" in result.output
    assert "NumPyro, jitted step: ImportError: No module named 'jax'" in result.output
    assert "2 rounds of 3 steps" in result.output
