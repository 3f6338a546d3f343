"""Missing values: out of the likelihood, seen as missing by the encoder, filled in by the run."""

from __future__ import annotations

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO

import pyro_vae
from pyro_vae.data import Batches, Dataset, Images
from pyro_vae.data.augmentation import Affine, OfSeen
from pyro_vae.diagnostics import nll_per_datum
from pyro_vae.errors import InputError
from pyro_vae.guides import MeanField
from pyro_vae.likelihoods import LIKELIHOODS, Gaussian, Likelihood
from pyro_vae.likelihoods.seen_pixels import leave_out_missing
from pyro_vae.models import CVAE, SSVAE, VAE, LinearGaussian
from pyro_vae.networks import MLP
from pyro_vae.pairs import Pair, draw_terms
from tests.conftest import FAST, toy
from tests.runs.test_folder import contents

HOLES = torch.tensor([[False, True, False, True], [True, True, True, True], [False, False, False, False]])
SETTINGS = FAST | {"display": False, "compile": "off", "labels": "none", "missing": "mask"}
ROWS, CLASSES = toy()
HIDDEN = np.random.default_rng(1).random(ROWS.shape) < 0.3
HOLED = np.where(HIDDEN, np.nan, ROWS).astype(np.float32)


def holed(x, holes):
    return x.masked_fill(holes, torch.nan)


COUNTS = ("poisson", "negative_binomial", "zero_inflated_negative_binomial")
BITS = ("bernoulli", "categorical")


@pytest.mark.parametrize("choice", [*LIKELIHOODS, "gaussian:sigma=optimal", "laplace:sigma=optimal"])
def test_a_likelihood_is_that_of_the_values_that_are_there(choice):
    counts = (torch.rand(3, 4) * 16).round()
    bits = torch.rand(3, 4).round()
    x = counts if choice in COUNTS else bits if choice in BITS else counts / 16
    masked, whole = (LIKELIHOODS.build(choice, event_shape=(4,)) for _ in range(2))
    params = torch.randn(2, 3, *whole.params_shape, requires_grad=True)
    leave_out_missing(masked)
    score = masked(params).log_prob(holed(x, HOLES))
    if "optimal" in choice:  # the scale is that of the errors that are there
        error = (holed(x, HOLES) - params)[:, ~HOLES]
        scale = error.square().mean().sqrt() if "gaussian" in choice else error.abs().mean()
        each = whole.family(params, scale).log_prob(x)
    else:
        each = whole(params).base_dist.log_prob(x)
    assert torch.allclose(score, each.masked_fill(HOLES, 0.0).sum(-1), atol=1e-5)
    gradient = torch.autograd.grad(score.sum(), params)[0]
    assert gradient.isfinite().all()
    assert (gradient[:, 1] == 0).all() or "optimal" in choice
    assert masked(params).mean.shape == (2, 3, 4)
    assert not masked(params).sample().isnan().any()
    supports = [likelihood(params).support.base_constraint for likelihood in (masked, whole)]
    assert supports[0] is supports[1] or choice in ("binomial", "categorical", "mixed")  # which make it anew


def test_the_evidence_is_the_marginal_of_what_is_there():
    torch.manual_seed(0)
    model = LinearGaussian((4,), scale=0.5)
    model.mask_missing()
    x = holed(torch.randn(3, 4), HOLES)
    nll = nll_per_datum(Pair(model, MeanField(model)).probe(torch.zeros(2, 4)), Images(x), num_samples=20_000)
    w, b = model.decoder.weight.detach(), model.decoder.bias.detach()
    covariance = w @ w.T + 0.25 * torch.eye(4)
    for row, holes, found in zip(x, HOLES, nll, strict=True):
        seen = ~holes
        there = torch.distributions.MultivariateNormal(b[seen], covariance[seen][:, seen]) if seen.any() else None
        expected = 0.0 if there is None else -there.log_prob(row[seen]).item()
        assert found.item() == pytest.approx(expected, abs=0.1)


def test_stock_svi_takes_missing_values_and_the_encoder_sees_them():
    torch.manual_seed(0)
    model = VAE((4,), latent_dim=2, network=MLP(hidden=(8,)))
    model.mask_missing()
    guide = MeanField(model, network=MLP(hidden=(8,)))
    x = holed(torch.rand(3, 4).round(), HOLES)
    before = guide.posterior(x).mean
    filled = x.nan_to_num(0.0)
    assert not torch.allclose(guide.posterior(filled).mean[:2], before[:2])  # a missing value is no zero
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    losses = [svi.step(x) for _ in range(60)]
    assert np.isfinite(losses).all()
    assert np.mean(losses[-10:]) < np.mean(losses[:10])


def test_labels_are_summed_over_with_values_missing():
    torch.manual_seed(0)
    model = SSVAE((4,), num_classes=3, latent_dim=2, network=MLP(hidden=(8,)))
    model.mask_missing()
    guide = MeanField(model, network=MLP(hidden=(8,)))
    nothing = torch.full((2, 4), torch.nan)
    terms = draw_terms(Pair(model, guide).probe(torch.zeros(2, 4)), nothing, num_samples=4000)
    assert (terms.log_likelihood == 0).all()
    assert torch.allclose(terms.log_weights.logsumexp(0) - math.log(4000), torch.zeros(2), atol=0.1)  # log p() = 0
    assert np.isfinite(TraceEnum_ELBO(max_plate_nesting=1).loss(model, guide, nothing))


def test_binarized_batches_keep_what_is_missing():
    images = Images(torch.full((20, 4), 0.5), missing=torch.rand(20, 4) < 0.5)
    for how in ("dynamic", "threshold", "none"):
        batch = next(Batches(images, torch.arange(0), 20, how, seed=0).epoch()).unlabelled
        assert torch.equal(batch.x.isnan(), batch.pixels.isnan())
        assert 0 < batch.x.isnan().sum() < 80


def test_images_are_moved_with_their_holes():
    x = torch.rand(50, 1, 8, 8)
    torch.manual_seed(0)
    plain = Affine()(x)
    torch.manual_seed(0)
    assert torch.allclose(OfSeen(Affine())(x), plain, atol=1e-6)
    holes = torch.rand(x.shape) < 0.2
    changed = OfSeen(Affine())(holed(torch.full_like(x, 0.7), holes))
    assert 0.02 < changed.isnan().double().mean() < 0.4
    seen = changed[~changed.isnan()]
    assert ((seen - 0.7).abs() < 1e-5).double().mean() > 0.5  # but where the outside, which is 0, is mixed in


@pytest.mark.parametrize("model", ["vae", "hvae", "ss_vae", "db_vae", "linear_gaussian", "banana"])
def test_every_model_fits_holes_and_fills_them_in(model):
    settings = SETTINGS | ({"labels": 6} if model in ("ss_vae", "db_vae") else {})
    settings |= {} if model not in ("linear_gaussian", "banana") else {"hidden": None}
    run = pyro_vae.fit(model, data=(HOLED, CLASSES), **settings)
    rows = run.data.test
    x = rows.values()
    filled = run.complete(x, num_samples=3)
    assert filled.shape == (3, *x.shape)
    assert torch.equal(filled[:, ~x.isnan()], x[~x.isnan()].expand(3, -1))
    assert filled.isfinite().all()
    assert not torch.equal(filled[0], filled[1])
    assert torch.equal(run.complete(x, 3), filled)  # the same seed
    figures = run.evaluate(num_samples=5)
    assert all(np.isfinite(value) for value in figures.values() if isinstance(value, float))
    assert torch.equal(run.complete(x.nan_to_num(0.0)), x.nan_to_num(0.0)[None])  # nothing to fill in


def test_a_conditional_model_leaves_out_what_is_missing_of_either_part():
    torch.manual_seed(0)
    model = CVAE((1, 2, 2), 2, 2, likelihood=Gaussian((1, 2, 2), "fixed"), network=MLP(hidden=(8,)))
    model.mask_missing()
    x = torch.randn(3, 1, 2, 2)
    x[0, 0, 0, 0] = x[1, 0, 1, 1] = torch.nan  # of the visible left half, of the hidden right one
    z = torch.randn(3, 2)

    def scored(program):
        trace = poutine.trace(poutine.condition(program, {"z": z})).get_trace(x)
        trace.compute_log_prob()
        loc = trace.nodes["x"]["fn"].base_dist.base_dist.base.mean
        each = dist.Normal(loc, 1.0).log_prob(x.nan_to_num(0.0)).masked_fill(x.isnan(), 0.0)[:, 0]
        return trace.nodes["x"]["log_prob"], each, trace

    found, each, trace = scored(model.eval())
    assert torch.allclose(found, each[..., 1].sum(-1))
    before = trace.nodes["z"]["fn"].mean
    assert not torch.equal(before[0], poutine.trace(model).get_trace(x.nan_to_num(0.0)).nodes["z"]["fn"].mean[0])
    filled = poutine.uncondition(model)(x)
    assert filled.isfinite().all()
    there = ~x.isnan() & ~model.hidden
    assert torch.equal(filled[there], x[there])
    found, each, _ = scored(model.train())  # each row is to make what the row before it lacks, too
    each[:, 0, 0] = torch.where(torch.tensor([False, True, False]), each[:, 0, 0], 0.0)
    each[:, 1, 0] = 0.0
    assert torch.allclose(found, each.sum((-1, -2)))


def test_a_conditional_model_fills_in_both_parts():
    run = pyro_vae.fit("cvae:quadrants=2", data=HOLED, **SETTINGS)
    x = run.data.test.values()
    filled = run.complete(x, num_samples=2)
    kept = ~x.isnan() & ~run.model.hidden
    assert filled.isfinite().all()
    assert torch.equal(filled[:, kept], x[kept].expand(2, -1))
    assert np.isfinite(run.evaluate(num_samples=5)["nll"])
    assert run.encode(x).isfinite().all()
    assert run.reconstruct(x).isfinite().all()


def test_what_the_data_have_in_common_is_filled_in():
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((400, 1)) @ np.ones((1, 6)) + 0.1 * rng.standard_normal((400, 6))).astype(np.float32)
    hidden = rng.random(x.shape) < 0.3
    hidden[hidden.all(1), 0] = False
    settings = SETTINGS | {"epochs": 25, "hidden": None, "lr": 5e-2, "beta": 1.0, "patience": "none"}
    run = pyro_vae.fit("linear_gaussian", data=np.where(hidden, np.nan, x), **(settings | {"latent_dim": 1}))
    filled = run.complete(np.where(hidden, np.nan, x), num_samples=20).mean(0).numpy()
    error = np.sqrt(np.square((filled - x)[hidden]).mean())
    assert error < 0.4 * x.std()  # the mean of a column would be off by 1 standard deviation


def test_a_run_with_holes_is_opened_and_resumed(tmp_path):
    run = pyro_vae.fit("vae", data=HOLED, out=tmp_path / "run", **SETTINGS)
    again = pyro_vae.load(tmp_path / "run", data=HOLED)
    x = again.data.test.values()
    assert torch.equal(again.complete(x), run.complete(x))
    whole = pyro_vae.fit(
        "vae", data=HOLED, **(SETTINGS | {"epochs": 3, "patience": "none", "lr_schedule": "constant", "beta": 1.0})
    )
    short = SETTINGS | {"epochs": 2, "patience": "none", "lr_schedule": "constant", "beta": 1.0}
    pyro_vae.fit("vae", data=HOLED, out=tmp_path / "short", **short)
    longer = pyro_vae.resume(tmp_path / "short", data=HOLED, epochs=3, display=False)
    assert longer.history.drop(columns="seconds", errors="ignore").equals(
        whole.history.drop(columns="seconds", errors="ignore")
    )


@pytest.mark.parametrize("compile", ["off", pytest.param("on", marks=pytest.mark.exhaustive)])
def test_where_nothing_is_missing_nothing_changes(compile, uncompiled):
    settings = SETTINGS | {"compile": compile}
    asked = pyro_vae.fit("vae", data=ROWS, **settings)
    plain = pyro_vae.fit("vae", data=ROWS, **(settings | {"missing": "refuse"}))
    assert asked.config == plain.config
    states = [run.pair.state_dict() for run in (asked, plain)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.exhaustive
def test_holes_train_alike_recorded_and_not(uncompiled):
    runs = [
        pyro_vae.fit("ss_vae", data=(HOLED, CLASSES), **(SETTINGS | {"labels": 6, "compile": c})) for c in ("off", "on")
    ]
    off, on = (run.history["validation_elbo"].to_numpy() for run in runs)
    np.testing.assert_allclose(on, off, rtol=1e-4)


class Correlated(Likelihood):
    def forward(self, params):
        return dist.MultivariateNormal(params, torch.eye(4))


def own_model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        seen = ~x.isnan()
        pyro.sample("x", dist.Normal(z.unsqueeze(-1), 1.0).mask(seen).to_event(1), obs=x.nan_to_num(0.0))


def own_guide(x):
    loc = pyro.param("loc", torch.tensor(0.0))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(loc + 0.1 * x.nanmean(-1), 1.0))


def blind_guide(x):
    loc = pyro.param("loc", torch.tensor(0.0))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(loc + x.mean(-1), 1.0))


FLAT = HOLED.reshape(60, 36)[:, :4].copy()
FLAT[np.isnan(FLAT).all(1), 0] = 0.5


def test_programs_of_ones_own_take_holes_or_are_refused(tmp_path):
    run = pyro_vae.fit(own_model, own_guide, data=FLAT, **SETTINGS)
    assert np.isfinite(run.history["validation_elbo"]).all()
    with pytest.raises(InputError, match="got the guide's site 'z' has values that are not finite"):
        pyro_vae.fit(own_model, blind_guide, data=FLAT, out=tmp_path / "run", **SETTINGS)
    model = VAE((4,), latent_dim=2, likelihood=Correlated((4,)))
    with pytest.raises(InputError, match="independent pixels, to leave out missing ones; got Correlated"):
        pyro_vae.fit(model, "mean_field", data=FLAT, out=tmp_path / "run", **SETTINGS)
    late = VAE((4,), latent_dim=2)
    with pytest.raises(InputError, match=r"call mask_missing\(\) on the model before the guide is made"):
        pyro_vae.fit(
            late, MeanField(late), data=FLAT, out=tmp_path / "run", **(SETTINGS | {"binarization": "threshold"})
        )
    assert not contents(tmp_path)


def test_holes_are_refused_unless_they_are_asked_for():
    rows = Images(torch.from_numpy(HOLED)[:, None])
    data = Dataset("mine", rows, rows, rows)
    with pytest.raises(InputError, match=r"some that are missing .*; use --missing mask"):
        pyro_vae.fit("vae", data=data, **(SETTINGS | {"missing": "refuse"}))
    run = pyro_vae.fit("vae", data=data, **SETTINGS)
    assert run.data.train.missing.sum() == int(HIDDEN.sum())
    plain = pyro_vae.fit("vae", data=ROWS, **SETTINGS)
    with pytest.raises(
        InputError, match=r"x without missing values, as the run was fitted on; got .*fit with --missing mask"
    ):
        plain.complete(HOLED)


def test_the_command_line_fits_holes_and_draws_them(command, tmp_path):
    np.savez(tmp_path / "holed.npz", x=ROWS, y=CLASSES, missing=HIDDEN)
    flags = ["--epochs", 2, "--hidden", 8, "--latent-dim", 2, "--labels", 6]
    found = command("fit", "--model", "ss_vae", "--data", "holed.npz", "--missing", "mask", "--out", "run", *flags)
    assert found.exit_code == 0, found.stderr
    assert f"{100 * HIDDEN.mean():.3g} % missing" in found.stderr.splitlines()[0]
    for words in (["evaluate", "run", "--samples", 2], ["reconstruct", "run"], ["latent", "run"]):
        found = command(*words)
        assert found.exit_code == 0, found.stderr
    refused = command("fit", "--model", "ss_vae", "--data", "holed.npz", "--out", "other", *flags)
    assert refused.exit_code == 2
    assert "use --missing mask" in refused.stderr
    assert not (tmp_path / "other").exists()


@pytest.mark.exhaustive
def test_a_run_with_holes_is_diagnosed(tmp_path):
    from pyro_vae.diagnostics.effort import Effort
    from pyro_vae.runs.diagnosis import diagnose

    run = pyro_vae.fit("ss_vae", data=(HOLED, CLASSES), out=tmp_path / "run", **(SETTINGS | {"labels": "all"}))
    found = diagnose(run, 6, Effort(50, 50, 4, 2, 50))
    assert len(found.save()) > 5
