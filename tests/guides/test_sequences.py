"""Guides by name for programs with a site at each step: one conditional for all steps, sequences of unequal length."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from pyro.poutine.util import prune_subsample_sites

import pyro_vae
from pyro_vae.compiled import CompiledTrace_ELBO
from pyro_vae.conditionals import Conditional, DiagonalNormal
from pyro_vae.errors import InputError
from pyro_vae.guides import GUIDES, amortize
from pyro_vae.guides.sequences import STATE, InSteps
from pyro_vae.networks import MLP
from pyro_vae.pairs.series import find_series
from pyro_vae.pairs.weighting import Presence, Weight

ROWS, STEPS, SIZE = 6, 5, 2
LENGTHS = torch.tensor([5, 3, 1, 4, 5, 2])
DECAY, NOISE = 0.9, 0.5


def walk(x, there, scale=1.0):
    """A linear Gaussian chain, whose steps a mask takes out."""
    with pyro.plate("rows", len(x)):
        z = torch.zeros(len(x), SIZE)
        for t in pyro.markov(range(x.shape[1])):
            with poutine.mask(mask=there[:, t]):
                with poutine.scale(scale=scale):
                    z = pyro.sample(f"z_{t + 1}", dist.Normal(DECAY * z, NOISE).to_event(1))
                pyro.sample(f"x_{t + 1}", dist.Normal(z, NOISE).to_event(1), obs=x[:, t].nan_to_num())


def masked(x, mask):
    walk(x, mask.bool())


def lengths(x, lengths):
    walk(x, torch.arange(x.shape[1]) < lengths.unsqueeze(1))


def known(x):
    walk(x, ~x.isnan().any(-1))


def annealed(x, beta=1.0):
    walk(x, torch.ones(x.shape[:2], dtype=torch.bool).fill_(True) & (x == x).all(-1), beta)


def inside(x, mask):
    """The mask of a distribution, over its event, as in Pyro's deep Markov model."""
    with pyro.plate("rows", len(x)):
        z = torch.zeros(len(x), SIZE)
        for t in range(x.shape[1]):
            z = pyro.sample(f"z_{t}", dist.Normal(DECAY * z, NOISE).mask(mask[:, t : t + 1]).to_event(1))
            pyro.sample(f"x_{t}", dist.Normal(z, NOISE).mask(mask[:, t : t + 1]).to_event(1), obs=x[:, t])


def second_order(x):
    with pyro.plate("rows", len(x)):
        a = b = torch.zeros(len(x))
        for t in range(x.shape[1]):
            a, b = pyro.sample(f"z{t}", dist.Normal(a - 0.5 * b, NOISE)), a
            pyro.sample(f"x{t}", dist.Normal(a, NOISE), obs=x[:, t])


def two_kinds(x):
    """A level of each row, a drift and a value of each step."""
    with pyro.plate("rows", len(x)):
        level = pyro.sample("level", dist.LogNormal(0.0, 1.0))
        z = torch.zeros(len(x))
        for t in range(x.shape[1]):
            drift = pyro.sample(f"drift_{t:02d}", dist.Gamma(2.0, 2.0))
            z = pyro.sample(f"z_{t:02d}", dist.Normal(z + drift, NOISE))
            pyro.sample(f"x_{t:02d}", dist.Normal(z * level, NOISE), obs=x[:, t])


def sequences(steps=STEPS, rows=ROWS, seed=0):
    return torch.randn(rows, steps, SIZE, generator=torch.Generator().manual_seed(seed))


def there(steps=STEPS):
    return torch.arange(steps) < LENGTHS.unsqueeze(1)


def drawn_by(guide, *args, **kwargs):
    trace = prune_subsample_sites(poutine.trace(guide).get_trace(*args, **kwargs))
    trace.compute_log_prob()
    return trace


def make(model, *args, family="mean_field", **options):
    torch.manual_seed(0)
    pyro.clear_param_store()
    return amortize(model, family, args, network=MLP(hidden=(16,)), **options)


@pytest.mark.parametrize(
    ("model", "args", "presence"),
    [
        (masked, (sequences(), there().float()), Presence("mask", "mask")),
        (masked, (sequences(), torch.ones(ROWS, STEPS)), Presence("mask", "mask")),  # all there, among these
        (lengths, (sequences(), LENGTHS), Presence("lengths", "length")),
        (known, (torch.where(there().unsqueeze(-1), sequences(), torch.nan),), Presence("x", "known")),
        (inside, (sequences(), there()), Presence("mask", "mask")),
    ],
)
def test_the_guide_is_masked_as_the_model_is(model, args, presence):
    guide = make(model, *args)
    assert [*guide._weights.values()] == [Weight(presence)]
    q = drawn_by(guide, *args)
    sites = q.stochastic_nodes
    assert len(sites) == STEPS
    counted = torch.stack([q.nodes[name]["log_prob"] != 0 for name in sites], 1)
    assert torch.equal(counted, args[1].bool() if presence.kind == "mask" else there())


@pytest.mark.parametrize("model", [lengths, known])
def test_a_posterior_is_the_same_however_far_its_row_is_padded(model):
    short = sequences() if model is lengths else torch.where(there().unsqueeze(-1), sequences(), torch.nan)
    padded = torch.nn.functional.pad(short, (0, 0, 0, 4), value=7.0 if model is lengths else torch.nan)
    more = (LENGTHS,) if model is lengths else ()
    guide = make(model, short, *more)
    drawn = drawn_by(guide, short, *more)
    values = {name: drawn.nodes[name]["value"] for name in drawn.stochastic_nodes}

    def density(x):
        q = drawn_by(poutine.condition(guide, values), x, *more)
        return torch.stack([q.nodes[name]["log_prob"] for name in values], 1)

    assert len(drawn_by(guide, padded, *more).stochastic_nodes) == STEPS + 4
    torch.testing.assert_close(density(padded), density(short), rtol=1e-5, atol=1e-5)


def test_an_argument_that_anneals_is_that_of_the_guide_too():
    guide = make(annealed, sequences())
    assert guide._weights["z_1"].scale == "beta"
    trace = drawn_by(guide, sequences(), beta=0.25)
    assert trace.nodes["z_2"]["scale"] == 0.25


def test_a_chain_that_is_not_markov_remembers_all_steps():
    x = sequences()[..., 0]
    assert make(second_order, x).before.cell is not None
    guide = make(masked, sequences(), there())
    assert guide.before.cell is None


def test_sites_of_rows_and_several_of_a_step():
    x = sequences()[..., 0]
    guide = make(two_kinds, x)
    names = drawn_by(guide, sequences(12)[..., 0]).stochastic_nodes
    assert names[:5] == ["level", "drift_00", "z_00", "drift_01", "z_01"]
    assert names[-1] == "z_11"
    elbo = Trace_ELBO()
    assert math.isfinite(elbo.loss_and_grads(two_kinds, guide, x))
    assert all(p.grad is not None for p in guide.parameters())


def test_what_the_data_say_of_all_steps_is_made_once():
    """The encoder's map of the summaries is called once for all steps."""
    x = sequences()
    guide = make(two_kinds, x[..., 0])
    encoders = {conditional.encoder for conditional in guide.local.conditionals.values()}
    sizes = []
    for encoder in encoders:
        for linear in encoder.first.maps:
            linear.register_forward_hook(lambda _, inputs, output: sizes.append(inputs[0].shape))
    posterior = guide.posterior(x[..., 0])
    assert [tuple(size) for size in sizes].count((ROWS, STEPS, 2 * STATE)) == 2  # of the drifts and of the values
    assert len(sizes) < 4 * 2 * STEPS
    assert posterior["z_04"].batch_shape == (ROWS,)


class Gated(torch.nn.Module):
    """An encoder that is no sum of maps first."""

    def __init__(self):
        super().__init__()
        self.num_features, self.inner, self.gate = 4, torch.nn.Linear(3, 4), torch.nn.Linear(2, 4)

    def forward(self, x, z):
        return self.inner(x) * self.gate(z).sigmoid()


@pytest.mark.parametrize("encoder", [MLP(hidden=(4,)).encoder([(3,), (2,)]), Gated()])
def test_a_conditional_in_steps_is_that_of_each_step(encoder):
    q = Conditional(encoder, DiagonalNormal(4, 2))
    x, z = torch.rand(5, 7, 3), torch.rand(5, 2)
    at = InSteps(q, ["x", "z"], {"x": x})
    for step in (0, 6):
        torch.testing.assert_close(at(step, {"x": x[:, step], "z": z}).mean, q(x[:, step], z).mean)


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=() if name == "iaf" else pytest.mark.exhaustive) for name in GUIDES]
)
def test_every_family_has_a_density_at_each_step(family):
    args = sequences(), LENGTHS
    guide = make(lengths, *args, family=family)
    assert math.isfinite(Trace_ELBO().loss_and_grads(lengths, guide, *args))
    assert all(p.grad is not None for p in guide.parameters())
    q = drawn_by(guide, *args)
    assert all(q.nodes[name]["log_prob"].isfinite().all() for name in q.stochastic_nodes)


@pytest.mark.exhaustive
def test_the_compiled_bound_is_the_stock_one():
    args = sequences(), LENGTHS
    guide, losses = make(lengths, *args), []
    for elbo in (Trace_ELBO(), CompiledTrace_ELBO()):
        pyro.clear_param_store()
        torch.manual_seed(1)
        losses.append([elbo.differentiable_loss(lengths, guide, *args).item() for _ in range(4)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.exhaustive
def test_mean_field_steps_reach_the_posterior_of_a_linear_gaussian_chain():
    """Each q(z_t | z_{t-1}, x) of that posterior is normal, so the bound is log p(x), which the covariance gives."""
    torch.manual_seed(0)
    rows, steps = 200, 4
    z, x = torch.zeros(rows, SIZE), torch.empty(rows, steps, SIZE)
    for t in range(steps):
        z = DECAY * z + NOISE * torch.randn(rows, SIZE)
        x[:, t] = z + NOISE * torch.randn(rows, SIZE)
    number = torch.randint(1, steps + 1, (rows,))
    powers = torch.arange(steps).unsqueeze(1) - torch.arange(steps)
    effect = torch.where(powers >= 0, DECAY ** powers.clamp(min=0).float(), torch.zeros(()))
    covariance = NOISE**2 * (effect @ effect.T + torch.eye(steps))
    exact = 0.0
    for n, length in enumerate(number.tolist()):
        normal = dist.MultivariateNormal(torch.zeros(length), covariance[:length, :length])
        exact += normal.log_prob(x[n, :length].T).sum().item()
    guide = make(lengths, x, number)
    optimizer = pyro.optim.ClippedAdam({"lr": 0.02, "lrd": 0.01 ** (1 / 400)})
    svi = SVI(lengths, guide, optimizer, CompiledTrace_ELBO())
    for _ in range(400):
        svi.step(x, number)
    bound = -sum(svi.evaluate_loss(x, number) for _ in range(50)) / 50
    assert (exact - bound) / rows < 0.05


@pytest.mark.exhaustive
def test_fit_takes_sequences_that_are_padded_with_nan(tmp_path):
    x = torch.where(there().unsqueeze(-1), sequences(), torch.nan).repeat(20, 1, 1).numpy()
    options = {"epochs": 2, "hidden": (16,), "missing": "mask", "labels": "none", "display": False}
    run = pyro_vae.fit(known, "mean_field", data=x, out=tmp_path / "run", **options)
    assert math.isfinite(run.evaluate()["nll"])
    assert run.sample(3).shape == (3, STEPS, SIZE)
    assert run.reconstruct(x[:2]).shape == (2, STEPS, SIZE)
    again = pyro_vae.load(tmp_path / "run", model=known, data=x)
    assert again.evaluate()["elbo"] == run.evaluate()["elbo"]


@pytest.mark.parametrize(
    ("model", "match"),
    [
        (lambda x: walk(x, x[..., 0] > 0), "a mask of the latent site 'z_1' that an argument of the model says"),
        (lambda x: walk(x, (x == x).all(-1), 0.01), "a scale of 1 at the latent site 'z_1'"),
        (lambda x, beta=2.0: walk(x, (x == x).all(-1), beta**2), "depends on 'beta' in another way"),
    ],
)
def test_weights_that_no_argument_says_are_refused(model, match):
    with pytest.raises(InputError, match=match):
        make(model, sequences())


def test_masks_of_some_numbers_of_a_latent_are_refused():
    def model(x):
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(SIZE), 1.0).mask(torch.tensor([True, False])).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    with pytest.raises(InputError, match="masks of whole rows around latent sites"):
        make(model, sequences()[:, 0])


def test_numbers_that_do_not_follow_each_other_are_no_series():
    def alike(name):
        return name[0]

    assert not find_series(["z1", "z2", "z4"], alike, [3])
    assert not find_series(["z1", "z2"], alike, [2])
    assert not find_series(["z1", "z2", "z3"], alike, [7])
    assert [one.at(10) for one in find_series(["a08", "a09", "a10"], alike, [3])] == ["a18"]
    both = find_series(["w1", "z1", "w2", "z2", "w3", "z3"], alike, [3])
    assert [one.names[0] for one in both] == ["w1", "z1"]
