r"""Draws from the guide, scored under the model: one vectorized run of a pair.

S draws of every sampled site for each of N data under each of E joint values of the enumerated sites, so that every
log-probability has the shape (E, S, N), nats.  Gradients flow where they are switched on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.pairs.handlers import frozen
from pyro_vae.pairs.layout import Layout
from pyro_vae.pairs.marginal import common_scale, marginal_total
from pyro_vae.pairs.pair import ProbedPair
from pyro_vae.pairs.structure import Structure
from pyro_vae.pairs.terms import Terms
from pyro_vae.pairs.traces import distribution_at, log_prob_at, observations, unscaled_log_prob_at, value_at
from pyro_vae.pairs.vectorized import check_data_plate, draws_lie, repeated, run, run_guide, run_model
from pyro_vae.shapes import Float, Shaped


@dataclass(frozen=True)
class Draws:
    """The draws of one vectorized run, and their densities under both programs.

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
        structure, layout, q = self.structure, self.layout, self.q
        groups = (
            *self._of_model(),
            layout.total(log_prob_at(q, name) for name in self._own([*self.sampled, *q.observation_nodes])),
            layout.total(log_prob_at(q, name) for name in structure.enumerated),
            layout.total(unscaled_log_prob_at(q, name) for name in structure.enumerated),
        )
        observed, prior, sampled, enumerated, unscaled = (
            term.flatten(0, -3) for term in torch.broadcast_tensors(*groups)
        )
        means = {name: _means(layout, q, name) for name in self._own(self.sampled)}
        return Terms(observed, prior, sampled, enumerated, unscaled.exp(), means)

    def _of_model(self) -> tuple[Tensor, Tensor]:
        """Log p(x | z, e) and log p(z, e); with sites that are summed out, the first as what the joint adds to it."""
        structure, layout, p = self.structure, self.layout, self.p
        observed, latent = self._own(observations(p)), self._own(structure.latent)
        latent = [name for name in latent if name in p.nodes]
        if not structure.marginal:
            likelihood, prior = (layout.total(log_prob_at(p, n) for n in names) for names in (observed, latent))
            return likelihood, prior
        latent += self._own(structure.marginal)
        prior = marginal_total(p, layout, dict.fromkeys(latent, 1.0))
        joint = marginal_total(p, layout, dict.fromkeys([*latent, *observed], 1.0))
        return (joint - prior) * common_scale(p, observed), prior * common_scale(p, latent)

    def prior_at(self, site: str) -> Tensor:
        """Log p of one latent site given those before it, of shape (E or 1, S, N), whatever the model sums out."""
        if not self.structure.marginal:
            return self.at(self.p, site)
        order = [name for name in self.p.stochastic_nodes if name in self.structure.latent]
        until = order.index(site)
        summed = self._own(self.structure.marginal)
        with_it, without = (
            marginal_total(self.p, self.layout, dict.fromkeys([*self._own(names), *summed], 1.0))
            for names in (order[: until + 1], order[:until])
        )
        return (with_it - without).flatten(0, -3)

    @property
    def shared_kl(self) -> Tensor:
        """The KL term of the latents that all rows share, log q(w) - log p(w) of each draw, nats, shape (S,)."""
        probed, shape = replace(self.structure, data_dim=None), self.layout.num_samples
        layout = Layout(probed, self.q, shape, self.layout.zero)
        latents = [name for name in self.structure.shared_latents if name in self.p.nodes]
        guided = [name for name in self.structure.shared if name in self.q.nodes]
        difference = layout.total(log_prob_at(self.q, n) for n in guided) - layout.total(
            log_prob_at(self.p, n) for n in latents
        )
        return difference.reshape(-1, shape)[0]

    def _own(self, names: Iterable[str]) -> list[str]:
        """The sites that belong to a datum, of some."""
        return [name for name in names if name not in self.structure.shared]

    def beside(self, term: Float[Tensor, "E S N"], value: Tensor) -> Float[Tensor, "..."]:
        """A term of shape (E, S, N) in the shape of an expanded value: (enumerated…, S, plates…, 1…)."""
        if self.layout.as_rows:
            term = term.flatten(1).unsqueeze(1)
        labels = value.shape[: len(self.structure.enumerated)]
        plates = [1] * self.structure.nesting
        plates[self.structure.data_dim or -1] = term.shape[-1]
        events = [1] * (value.dim() - len(labels) - 1 - len(plates))
        return term.reshape(*labels, term.shape[1], *plates, *events)

    def at(self, trace: Trace, site: str) -> Float[Tensor, "E S N"]:
        """The log-probability of one site, of shape (E or 1, S, N)."""
        return self.layout.total([log_prob_at(trace, site)]).flatten(0, -3)


def draw(
    probed: ProbedPair,
    x: Shaped[Tensor, "N *event"],
    y: Shaped[Tensor, "N"] | None = None,
    num_samples: int = 1,
    scaled: bool = True,
) -> Draws:
    r"""Run a pair once, vectorized over draws and labels.

    Args:
        probed: the model and the guide, with what ``pair.probe`` said of them.
        x: data of shape (N, \*event_shape).
        y: class labels of shape (N,), or None to leave the label site latent.
        num_samples: draws per datum, S.
        scaled: whether log-probabilities keep the scales that the programs, or handlers around the call, give them.

    Raises:
        InputError: if a site lies outside the plate over data, so that nothing can be said per datum.

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
    plate, x, y = placed(probed, x, y, num_samples)
    as_rows = plate is None
    with probed.pair.scope():
        q = run_guide(probed, x, y, plate, scaled)
        p = run_model(probed, x, y, plate, q, scaled)
    q.compute_log_prob()
    p.compute_log_prob()
    return Draws(p, q, Layout(probed, q, num_samples, x, as_rows))


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
        counts = _counts(probed, x, num_samples)
        return Terms.together([draw(probed, x, num_samples=count, scaled=False).terms for count in counts])


def draw_terms_and_shared(probed: ProbedPair, x: Tensor, num_samples: int = 1) -> tuple[Terms, Tensor]:
    """The terms of ``draw_terms``, and the part of KL(q(w) || p(w)) of shared latents that a row bears, a scalar."""
    if not probed.shared_latents:
        return draw_terms(probed, x, num_samples), x.new_zeros(())
    with torch.no_grad(), poutine.block():
        runs = [draw(probed, x, num_samples=count, scaled=False) for count in _counts(probed, x, num_samples)]
    rows = probed.plate_size or probed.num_rows or len(x)
    return Terms.together([run.terms for run in runs]), torch.cat([run.shared_kl for run in runs]).mean() / rows


def draw_means(
    probed: ProbedPair, x: Shaped[Tensor, "N *event"], num_samples: int = 1
) -> dict[str, Float[Tensor, "_ _"]]:
    """E_q[z | x] of each sampled site, shape (N, D), from the guide alone; arguments and errors as ``draw_terms``."""
    check_data_plate(probed)
    with torch.no_grad(), poutine.block(), probed.pair.scope():
        parts = [_draw_means(probed, x, count) for count in _counts(probed, x, num_samples)]
    return {name: torch.stack([part[name] for part in parts]).mean(0) for name in parts[0]}


def _draw_means(probed: ProbedPair, x: Tensor, num_samples: int) -> dict[str, Tensor]:
    plate, x, _ = placed(probed, x, None, num_samples)
    q = run_guide(probed, x, None, plate)
    q.compute_log_prob(lambda name, _: name in probed.enumerated)
    layout = Layout(probed, q, num_samples, x, as_rows=plate is None)
    weights = layout.total(log_prob_at(q, name) for name in probed.enumerated).flatten(0, -3).exp().unsqueeze(-1)
    means = {name: _means(layout, q, name) for name in probed.sampled if name not in probed.shared}
    return {name: (weights * mean).sum(0).mean(0) for name, mean in means.items()}


def _counts(probed: ProbedPair, x: Tensor, num_samples: int) -> list[int]:
    """The draws of each run: all at once, but for programs that bear neither draws side by side nor more rows."""
    return [1] * num_samples if draws_lie(probed, x, None) == "alone" else [num_samples]


def placed(
    probed: ProbedPair, x: Tensor, y: Tensor | None, num_samples: int
) -> tuple[int | None, Tensor, Tensor | None]:
    """The size of the plate over draws, None without one, and the data that the programs run on.

    Raises:
        InputError: if the programs can be run for one draw at a time only, and there are more.
    """
    how = draws_lie(probed, x, y)
    if how == "beside":
        return num_samples, x, y
    if how == "alone" and num_samples > 1:
        raise InputError(
            "programs that run for several draws at once",
            "ones that mix them up",
            "write them for dimensions on the left: z[..., 0] for z[:, 0], torch.cat(…, -1) of expanded tensors",
        )
    return None, repeated(x, num_samples), None if y is None else repeated(y, num_samples)


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
    plate, x, y = placed(probed, x, y, num_samples)
    as_rows = plate is None
    noise = torch.get_rng_state()
    with probed.pair.scope():
        first = run_guide(probed, x, y, plate, scaled=True)
        values = _expanded(first, probed)
        fixed = first.copy()
        for name, value in values.items():
            fixed.nodes[name] = fixed.nodes[name] | {"value": value}
        with torch.random.fork_rng(), frozen(probed.pair.guide):
            torch.set_rng_state(noise)  # so that dropout leaves out the same features
            q = run(poutine.replay(probed.pair.guide, trace=fixed), probed, x, y, plate, scaled=True)
            q.compute_log_prob()  # here, because a distribution may hold parameters themselves
        p = run_model(probed, x, y, plate, fixed, scaled=True)
    p.compute_log_prob()
    first.compute_log_prob(site_filter=lambda name, _: name in probed.enumerated)
    for name in probed.enumerated:  # the expectation over labels is exact, so its gradient is too
        q.nodes[name]["unscaled_log_prob"] = first.nodes[name]["unscaled_log_prob"]
    return Draws(p, q, Layout(probed, q, num_samples, x, as_rows)), values


def _means(layout: Layout, q: Trace, name: str) -> Shaped[Tensor, "E S N D"]:
    """The mean of a site, of shape (E or 1, S, N, D); its draws where the distribution does not know its mean."""
    d, value = distribution_at(q, name), value_at(q, name)
    try:
        mean = d.mean
    except NotImplementedError:
        mean = value
    return layout.features(mean.expand(value.shape), d.event_dim)


def _expanded(q: Trace, structure: Structure) -> dict[str, Tensor]:
    """The sampled values, each as a tensor of its own over every enumerated value, draw and, unless shared, datum."""
    sites = {name: q.nodes[name] for name in structure.latent}
    event_dims = {name: distribution_at(q, name).event_dim for name in sites}
    batches = [value_at(q, name).shape[: value_at(q, name).dim() - event_dims[name]] for name in sites]
    batch = torch.broadcast_shapes(*batches)
    values = {}
    for name in structure.sampled:
        value = value_at(q, name)
        whole = value.shape if name in structure.shared else batch + value.shape[value.dim() - event_dims[name] :]
        values[name] = value.expand(whole).clone()
    return values
