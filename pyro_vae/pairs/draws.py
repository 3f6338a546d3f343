r"""Draws from the guide, scored under the model: one vectorized run of a pair.

S draws of every sampled site for each of N data under each of E joint values of the enumerated sites, so that every
log-probability has the shape (E, S, N), nats.  Gradients flow where they are switched on.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from pyro_vae.pairs.handlers import frozen
from pyro_vae.pairs.layout import Layout
from pyro_vae.pairs.pair import ProbedPair
from pyro_vae.pairs.structure import Structure
from pyro_vae.pairs.terms import Terms
from pyro_vae.pairs.traces import distribution_at, log_prob_at, unscaled_log_prob_at, value_at
from pyro_vae.pairs.vectorized import check_data_plate, run, run_guide, run_model
from pyro_vae.shapes import Float, Shaped


@dataclass(frozen=True)
class Draws:
    """What one vectorized run shows.

    Args:
        p: the model's trace, log-probabilities computed.
        q: the guide's.
        layout: where their batch dimensions lie.

    Example:
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import LinearGaussian
        >>> from pyro_vae.pairs import Pair, draw
        >>> model, x = LinearGaussian((3,), latent_dim=2), torch.randn(4, 3)
        >>> draws = draw(Pair(model, MeanField(model)).probe(x), x, num_samples=5)
        >>> draws.sampled, draws.at(draws.q, "z").shape
        (('z',), torch.Size([1, 5, 4]))
    """

    p: Trace
    q: Trace
    layout: Layout

    @property
    def structure(self) -> Structure:
        """The pair's structure."""
        return self.layout.structure

    @property
    def sampled(self) -> tuple[str, ...]:
        """The latent sites that were drawn, not enumerated."""
        return self.structure.sampled

    @cached_property
    def terms(self) -> Terms:
        """The terms of the bound, computed once."""
        structure, layout, p, q = self.structure, self.layout, self.p, self.q
        groups = (
            layout.total(log_prob_at(p, name) for name in p.observation_nodes),
            layout.total(log_prob_at(p, name) for name in structure.latent),
            layout.total(log_prob_at(q, name) for name in self.sampled),
            layout.total(log_prob_at(q, name) for name in structure.enumerated),
            layout.total(unscaled_log_prob_at(q, name) for name in structure.enumerated),
        )
        observed, prior, sampled, enumerated, unscaled = (
            term.flatten(0, -3) for term in torch.broadcast_tensors(*groups)
        )
        means = {name: _means(layout, q, name) for name in self.sampled}
        return Terms(observed, prior, sampled, enumerated, unscaled.exp(), means)

    def beside(self, term: Float[Tensor, "E S N"], value: Tensor) -> Float[Tensor, "..."]:
        """A term of shape (E, S, N) in the shape of an expanded value: (enumerated…, S, plates…, 1…)."""
        labels = value.shape[: len(self.structure.enumerated)]
        plates = [1] * self.structure.nesting
        plates[self.structure.data_dim or -1] = term.shape[-1]
        events = [1] * (value.dim() - len(labels) - 1 - len(plates))
        return term.reshape(*labels, term.shape[1], *plates, *events)

    def at(self, trace: Trace, site: str) -> Float[Tensor, "E S N"]:
        """The log-probability of one site, of shape (E or 1, S, N)."""
        return self.layout.total([log_prob_at(trace, site)]).flatten(0, -3)


def draw(
    probed: ProbedPair, x: Shaped[Tensor, "N *event"], y: Shaped[Tensor, "N"] | None = None, num_samples: int = 1
) -> Draws:
    r"""Run a pair once, vectorized over draws and labels.

    Args:
        probed: the model and the guide, with what ``pair.probe`` said of them.
        x: data of shape (N, \*event_shape).
        y: class labels of shape (N,), or None to leave the label site latent.
        num_samples: draws per datum, S.

    Raises:
        InputError: if a site lies outside the plate "data", so that nothing can be said per datum.

    Example:
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import VAE
        >>> from pyro_vae.pairs import Pair, draw
        >>> model, x = VAE((1, 8, 8), latent_dim=2), torch.rand(3, 1, 8, 8).round()
        >>> draws = draw(Pair(model, MeanField(model)).probe(x), x, num_samples=5)
        >>> draws.terms.elbo.shape
        torch.Size([3])
    """
    check_data_plate(probed)
    with probed.pair.scope():
        q = run_guide(probed, x, y, num_samples)
        p = run_model(probed, x, y, num_samples, q)
    q.compute_log_prob()
    p.compute_log_prob()
    return Draws(p, q, Layout(probed, q, num_samples, x))


def draw_terms(probed: ProbedPair, x: Shaped[Tensor, "N *event"], num_samples: int = 1) -> Terms:
    r"""The terms of the bound with the labels latent, without gradients.

    Args:
        probed: the model and the guide, with what ``pair.probe`` said of them.
        x: data of shape (N, \*event_shape).
        num_samples: draws per datum, S.

    Raises:
        InputError: as ``draw`` does.

    Example:
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import LinearGaussian
        >>> from pyro_vae.pairs import Pair, draw_terms
        >>> model, x = LinearGaussian((3,), latent_dim=2), 3 * torch.randn(4, 3)
        >>> terms = draw_terms(Pair(model, MeanField(model)).probe(x), x, num_samples=1000)
        >>> terms.elbo < model.evidence(x)
        tensor([True, True, True, True])
    """
    with torch.no_grad(), poutine.block():
        return draw(probed, x, num_samples=num_samples).terms


def draw_means(
    probed: ProbedPair, x: Shaped[Tensor, "N *event"], num_samples: int = 1
) -> dict[str, Float[Tensor, "_ _"]]:
    """E_q[z | x] of each sampled site, shape (N, D), from the guide alone; arguments and errors as ``draw_terms``."""
    check_data_plate(probed)
    with torch.no_grad(), poutine.block(), probed.pair.scope():
        q = run_guide(probed, x, None, num_samples)
        q.compute_log_prob(lambda name, _: name in probed.enumerated)
    layout = Layout(probed, q, num_samples, x)
    weights = layout.total(log_prob_at(q, name) for name in probed.enumerated).flatten(0, -3).exp().unsqueeze(-1)
    means = {name: _means(layout, q, name) for name in probed.sampled}
    return {name: (weights * mean).sum(0).mean(0) for name, mean in means.items()}


def draw_along_paths(
    probed: ProbedPair, x: Shaped[Tensor, "N *event"], y: Shaped[Tensor, "N"] | None = None, num_samples: int = 1
) -> tuple[Draws, dict[str, Tensor]]:
    r"""Run a pair so that the guide's parameters are felt through its draws alone.

    The draws are made as ever; then model and guide are scored at them with the guide's parameters held fixed, so that
    log q(z | x) depends on those parameters through z only (Roeder, Wu and Duvenaud, *Sticking the Landing*, 2017).

    Args:
        probed: the model and the guide, with what ``pair.probe`` said of them.
        x: data of shape (N, \*event_shape).
        y: class labels of shape (N,), or None.
        num_samples: draws per datum, S.

    Returns:
        The draws as scored, and by site the values that they were scored at, of shape (enumerated…, S, plates…,
        \*event): every gradient from the scores to the guide's parameters passes through these, and once.
    """
    check_data_plate(probed)
    noise = torch.get_rng_state()
    with probed.pair.scope():
        first = run_guide(probed, x, y, num_samples)
        values = _expanded(first, probed)
        fixed = first.copy()
        for name, value in values.items():
            fixed.nodes[name] = fixed.nodes[name] | {"value": value}
        with torch.random.fork_rng(), frozen(probed.pair.guide):
            torch.set_rng_state(noise)  # so that dropout leaves out the same features
            q = run(poutine.replay(probed.pair.guide, trace=fixed), probed, x, y, num_samples)
            q.compute_log_prob()  # here, because a distribution may hold parameters themselves
        p = run_model(probed, x, y, num_samples, fixed)
    p.compute_log_prob()
    first.compute_log_prob(site_filter=lambda name, _: name in probed.enumerated)
    for name in probed.enumerated:  # the expectation over labels is exact, so its gradient is too
        q.nodes[name]["unscaled_log_prob"] = first.nodes[name]["unscaled_log_prob"]
    return Draws(p, q, Layout(probed, q, num_samples, x)), values


def _means(layout: Layout, q: Trace, name: str) -> Shaped[Tensor, "E S N D"]:
    """The mean of a site, of shape (E or 1, S, N, D); its draws where the distribution does not know its mean."""
    d, value = distribution_at(q, name), value_at(q, name)
    try:
        mean = d.mean
    except NotImplementedError:
        mean = value
    return layout.features(mean.expand(value.shape), d.event_dim)


def _expanded(q: Trace, structure: Structure) -> dict[str, Tensor]:
    """The sampled values, each as a tensor of its own over every enumerated value, draw and datum."""
    sites = {name: q.nodes[name] for name in structure.latent}
    event_dims = {name: distribution_at(q, name).event_dim for name in sites}
    batches = [value_at(q, name).shape[: value_at(q, name).dim() - event_dims[name]] for name in sites]
    batch = torch.broadcast_shapes(*batches)
    values = {}
    for name in structure.sampled:
        value = value_at(q, name)
        values[name] = value.expand(batch + value.shape[value.dim() - event_dims[name] :]).clone()
    return values
