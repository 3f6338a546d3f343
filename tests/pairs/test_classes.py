"""The label site: which sites "y" are over classes, and what form labels have for a program."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pyro_vae
from pyro_vae.diagnostics import nll_per_datum
from pyro_vae.errors import InputError
from pyro_vae.pairs import Pair, label_distribution
from pyro_vae.pairs.classes import indices_of

MEANS = torch.tensor([[-2.0, 0.0], [2.0, 1.0], [0.0, 3.0]])
SETTINGS = {"display": False, "compile": "off", "epochs": 1}


def programs(kind, classes, taken=lambda y: y):
    """A mixture whose component is the label site, and a guide that knows the exact posterior of it."""

    def likelihood(y, x):
        index = y if kind is dist.Categorical else y.long() if kind is dist.Bernoulli else y.argmax(-1)
        return dist.Normal(MEANS[index], 1.0).to_event(1)

    def prior(logits):
        return kind(logits=logits[..., 1] - logits[..., 0]) if kind is dist.Bernoulli else kind(logits=logits)

    def model(x, y=None):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", prior(torch.zeros(classes)), obs=None if y is None else taken(y))
            pyro.sample("x", likelihood(y, x), obs=x)

    def guide(x, y=None):
        shift = pyro.param("shift", torch.tensor(0.0))
        logits = dist.Normal(MEANS[:classes], 1.0).log_prob(x.unsqueeze(-2)).sum(-1) + shift
        with pyro.plate("data", len(x)):
            if y is None:
                pyro.sample("y", prior(logits), infer={"enumerate": "parallel"})

    return model, guide


FORMS = {
    "categories": (dist.Categorical, 3, lambda y: y),
    "truth values": (dist.Bernoulli, 2, lambda y: y),
    "truth values, made of indices": (dist.Bernoulli, 2, lambda y: y.float()),
    "one-hot vectors": (dist.OneHotCategorical, 3, lambda y: y),
    "one-hot vectors, made of indices": (dist.OneHotCategorical, 3, lambda y: F.one_hot(y, 3).float()),
}


@pytest.mark.parametrize("form", FORMS)
def test_labels_have_the_form_that_programs_take(form):
    kind, classes, taken = FORMS[form]
    y = torch.arange(60) % classes
    x = MEANS[y] + torch.randn(60, 2)
    pair = Pair(*programs(kind, classes, taken))
    probed = pair.probe(x)
    joint = dist.Normal(MEANS[:classes], 1.0).log_prob(x.unsqueeze(1)).sum(-1) - torch.tensor(float(classes)).log()
    assert probed.has_label
    assert torch.equal(indices_of(probed.classes, probed.classes), torch.arange(classes))
    torch.testing.assert_close(label_distribution(pair, x).probs, joint.softmax(-1))
    torch.testing.assert_close(
        nll_per_datum(probed, pyro_vae.data.Images(x), num_samples=2).float(), -joint.logsumexp(-1)
    )
    with pair.scope():
        given = pyro.poutine.trace(pair.model).get_trace(*pair.arguments(x, y))
    assert given.log_prob_sum().item() == pytest.approx(joint[torch.arange(60), y].sum().item(), rel=1e-5)


@pytest.mark.parametrize("form", [pytest.param("truth values", marks=pytest.mark.exhaustive), "one-hot vectors"])
def test_a_run_with_labels_of_any_form(form):
    kind, classes, taken = FORMS[form]
    y = torch.arange(60) % classes
    x = MEANS[y] + 0.1 * torch.randn(60, 2)
    model, guide = programs(kind, classes, taken)
    run = pyro_vae.fit(model=model, guide=guide, data=(x, y), labels=20, **SETTINGS)
    assert run.evaluate(num_samples=2)["accuracy"] == 1.0
    assert torch.equal(run.classify(x), y)
    assert torch.allclose(run.sample(200, y=1).mean(0), MEANS[1], atol=0.4)  # 5 standard errors


def test_a_latent_called_y_is_a_latent():
    def model(x):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(y.unsqueeze(-1), 1.0).to_event(1), obs=x)

    def guide(x):
        half = pyro.param("half", torch.tensor(0.5))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(half * x[:, 0], 0.5**0.5))

    x = torch.randn(30, 1)
    run = pyro_vae.fit(model=model, guide=guide, data=x, labels="none", lr=1e-6, **SETTINGS)
    exact = -dist.Normal(0.0, 2**0.5).log_prob(run.data.test.values()).mean().item()
    assert run.evaluate(num_samples=50)["nll"] == pytest.approx(exact, abs=1e-4)
    with pytest.raises(InputError, match="a model with class labels"):
        run.classify(x)


def test_more_classes_than_the_label_site_has_are_refused():
    x, y = torch.randn(30, 2), torch.arange(30) % 3
    with pytest.raises(InputError, match="'y' of 3 classes, as the data have; got one of 2"):
        pyro_vae.fit(*programs(dist.Categorical, 2), data=(x, y), labels="all", **SETTINGS)
    run = pyro_vae.fit(*programs(dist.Categorical, 2), data=(x, y), labels="none", **SETTINGS)
    assert run.structure.has_label


def test_the_draw_of_a_one_hot_label_is_one_hot_where_latents_depend_on_it():
    weight = torch.tensor([[1.0], [-1.0], [0.0]])

    def model(x):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.OneHotCategorical(torch.ones(3)))
            z = pyro.sample("z", dist.Normal(y @ weight, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    class Guide(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(4, 1)

        def forward(self, x):
            with pyro.plate("data", len(x)):
                y = pyro.sample(
                    "y", dist.OneHotCategorical(torch.ones(3)), infer={"enumerate": "parallel", "expand": True}
                )
                seen = torch.cat([x.expand(*y.shape[:-1], 1), y], -1)  # draws are more rows to this one
                pyro.sample("z", dist.Normal(self.net(seen), 1.0).to_event(1))

    x = torch.randn(5, 1)
    target = pyro_vae.posterior.Target(Pair(model, Guide()).probe(x), x)
    draws = target.draw(7)
    assert draws.enumerated["y"].shape == (7, 5, 3)
    assert torch.equal(draws.enumerated["y"].sum(-1), torch.ones(7, 5))
    u = torch.randn(2, 5, 1)
    components = torch.stack([dist.Normal(mean, 1.0).log_prob(u[..., 0]) for mean in (1.0, -1.0, 0.0)])
    exact = components.logsumexp(0) - torch.tensor(3.0).log() + dist.Normal(u, 1.0).log_prob(x)[..., 0]
    torch.testing.assert_close(target.log_density(u), exact)
