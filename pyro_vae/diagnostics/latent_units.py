r"""What the latent space is used for: active units, the divergence of each, and the aggregate posterior.

A unit u is *active* where Var_x(E_q[z_u | x]) > 0.01 (Burda, Grosse and Salakhutdinov, *Importance Weighted
Autoencoders*, 2016).  Where E_q[z_u | x] is estimated from S draws, the part of the variance that their noise makes,
mean_x Var_s / S, is taken off, so that a guide without a known mean does not look more active than it is.

The divergence is a sum over sites, KL(q(z | x) || p(z)) = sum_l E_q[log q(z_l | …) - log p(z_l | …)], of which each
term is reported.  Where guide and model visit the sites in one order every term is itself a divergence, at least 0; a
term of a hierarchy that the guide climbs bottom-up is not, though their sum is.

The divergence *of a unit* is that of its marginal, KL(q(z_u | …) || p(z_u | …)), defined where p factorizes over the
units and the marginals of q are known: q factorizes too (the units then add up to the site), or is normal (their sum
falls short of the site's by the correlations in q).  Other guides, flows and mixtures, have a divergence of the site
only.

*Posterior collapse* is a site whose units are all inactive (Bowman et al., *Generating Sentences from a Continuous
Space*, 2016): the guide says the same for every x.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    kl_divergence,
)

from pyro_vae.diagnostics.evaluation import ACTIVE_VARIANCE
from pyro_vae.errors import InputError
from pyro_vae.pairs.draws import Draws, draw
from pyro_vae.pairs.memory import at_once
from pyro_vae.pairs.pair import ProbedPair
from pyro_vae.pairs.structure import Structure
from pyro_vae.pairs.traces import distribution_at, is_independent, value_at
from pyro_vae.shapes import Bool, Float, Shaped

COLLAPSED_SHARE = 0.05  # of active units, up to which it is said that a site collapsed
NO_DIVERGENCE = 0.1  # nats


@dataclass(frozen=True)
class SiteUse:
    """The use of a continuous latent site of D units.

    Args:
        name: the site.
        kl: its term of the divergence, nats per datum.
        kl_error: the standard error of that over the data.
        activity: Var_x(E_q[z_u | x]), shape (D,).
        unit_kl: the divergence of each unit's marginal, nats per datum, shape (D,); None where it is not defined.
        adds_up: whether the units' divergences add up to the site's.
    """

    name: str
    kl: float
    kl_error: float
    activity: Float[Tensor, "D"]
    unit_kl: Float[Tensor, "D"] | None
    adds_up: bool

    @property
    def active(self) -> Bool[Tensor, "D"]:
        """Which units are active, shape (D,)."""
        return self.activity > ACTIVE_VARIANCE

    @property
    def num_active(self) -> int:
        """How many."""
        return int(self.active.sum())

    @property
    def units(self) -> tuple[str, ...]:
        """A name for each unit: ``z[3]``, or ``mu`` for a site of one."""
        size = len(self.activity)
        return tuple(f"{self.name}[{i}]" for i in range(size)) if size > 1 else (self.name,)

    @property
    def fault(self) -> tuple[str, str] | None:
        """The fault of the site, and what would mend it; None where there is none."""
        size, active = len(self.activity), self.num_active
        if active > COLLAPSED_SHARE * size:
            return None
        found = f"{active} of the {size} units of {self.name!r} {'is' if active == 1 else 'are'} active"
        if active:
            return f"almost a posterior collapse: {found}", "a smaller latent_dim would do, or train with a lower beta"
        if self.kl > NO_DIVERGENCE:
            return (
                f"posterior collapse: {found}, though KL is {self.kl:.2f} nats: the guide says the same for every x, "
                "and not what the prior says",
                "train longer",
            )
        return (
            f"posterior collapse: {found} and KL is {self.kl:.3f} nats: the guide is the prior whatever x is",
            "warm up beta, use free bits, or take a weaker decoder",
        )

    @property
    def warning(self) -> str:
        """The fault in one sentence; empty where there is none."""
        return "; ".join(self.fault or ())


@dataclass(frozen=True)
class LatentUse:
    """The use of the latents: active units and divergences.

    Args:
        sites: the continuous ones, in the guide's order.
        label_kl: the term of each enumerated site, KL(q(y | x) || p(y)) for a lone label, nats per datum.
        num_data: the data that it was found from.

    Example:
        >>> from pyro_vae.diagnostics import latent_use
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import VAE
        >>> from pyro_vae.pairs import Pair
        >>> model, x = VAE((1, 8, 8), latent_dim=2), torch.rand(20, 1, 8, 8).round()
        >>> use = latent_use(Pair(model, MeanField(model)).probe(x), x)  # of a guide without training
        >>> use.num_active, use.num_units, use.collapsed
        (0, 2, ('z',))
    """

    sites: tuple[SiteUse, ...]
    label_kl: dict[str, float]
    num_data: int

    @property
    def kl(self) -> float:
        """KL(q(z, y | x) || p(z, y)), nats per datum: the sum of the terms."""
        return sum(site.kl for site in self.sites) + sum(self.label_kl.values())

    @property
    def num_active(self) -> int:
        """The active units of all sites."""
        return sum(site.num_active for site in self.sites)

    @property
    def num_units(self) -> int:
        """The units of all sites."""
        return sum(len(site.activity) for site in self.sites)

    @property
    def collapsed(self) -> tuple[str, ...]:
        """The sites without an active unit."""
        return tuple(site.name for site in self.sites if not site.num_active)

    @property
    def inactive(self) -> tuple[str, ...]:
        """The names of the units that are not active."""
        return tuple(
            unit
            for site in self.sites
            for unit, active in zip(site.units, site.active.tolist(), strict=True)
            if not active
        )

    @property
    def warning(self) -> str:
        """The faults in words, site by site; empty where there are none."""
        return "; ".join(site.warning for site in self.sites if site.warning)

    def as_dict(self) -> dict[str, Any]:
        """Plain metrics, site by site."""
        sites = {
            site.name: {
                "kl": site.kl,
                "kl_standard_error": site.kl_error,
                "num_units": len(site.activity),
                "active_units": site.num_active,
                "activity": site.activity.tolist(),
                "unit_kl": None if site.unit_kl is None else site.unit_kl.tolist(),
            }
            for site in self.sites
        }
        total = {"kl": self.kl, "active_units": self.num_active, "num_units": self.num_units}
        return total | {"sites": sites, "label_kl": self.label_kl, "warning": self.warning}


def latent_use(probed: ProbedPair, x: Shaped[Tensor, "N *event"], num_draws: int = 32, seed: int = 0) -> LatentUse:
    r"""Active units and divergences of a guide on some data.

    Args:
        probed: the model and the guide, with what ``pair.probe`` said of them.
        x: data of shape (N, \*event_shape), N at least 2.
        num_draws: S, the draws from the guide per datum.
        seed: the seed of the draws.

    Raises:
        InputError: if there are too few data or draws, or a site lies outside the plate "data".

    Example:
        >>> from pyro_vae.diagnostics import latent_use
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import VAE
        >>> from pyro_vae.pairs import Pair
        >>> model, x = VAE((1, 8, 8), latent_dim=2), torch.rand(20, 1, 8, 8).round()
        >>> print(latent_use(Pair(model, MeanField(model)).probe(x), x).warning)  # of a guide without training
        posterior collapse: 0 of the 2 units of 'z' are active and KL is ... nats: the guide is the prior whatever...
    """
    if len(x) < 2 or num_draws < 2:
        raise InputError("at least 2 data and 2 draws of each", f"{len(x)} and {num_draws}", "ask for more")
    numbers = probed.widest(x) * num_draws
    with probed.pair.looked_at(seed), poutine.block():
        parts = [_use(draw(probed, chunk, num_samples=num_draws, scaled=False)) for chunk in _chunks(x, numbers)]
    columns = {key: torch.cat([part[key] for part in parts]).double().cpu() for key in parts[0]}
    sites = tuple(_site(name, probed, columns) for name in probed.continuous)
    labels = {name: columns[f"kl.{name}"].mean().item() for name in probed.enumerated}
    return LatentUse(sites, labels, len(x))


def _chunks(x: Shaped[Tensor, "N *event"], numbers: int) -> tuple[Tensor, ...]:
    return x.split(at_once(numbers))


def _site(name: str, structure: Structure, columns: dict[str, Tensor]) -> SiteUse:
    means, noise, kl = columns[f"mean.{name}"], columns[f"noise.{name}"], columns[f"kl.{name}"]
    units = columns.get(f"units.{name}")
    adds_up = units is not None and bool(columns[f"product.{name}"].all())
    if units is not None and adds_up:
        kl = units.sum(-1)  # in closed form where that is known
    return SiteUse(
        name=name,
        kl=kl.mean().item(),
        kl_error=(kl.std() / len(kl) ** 0.5).item(),
        activity=(means.var(0) - noise.mean(0)).clamp(min=0),
        unit_kl=None if units is None else units.mean(0),
        adds_up=adds_up,
    )


def _use(draws: Draws) -> dict[str, Tensor]:
    """Metrics per datum, by kind and site: shape (n,), or (n, D)."""
    terms, found = draws.terms, {}
    weights = terms.probabilities  # (E, S, n)

    def expectation(value: Tensor) -> Tensor:
        """Over the labels, of each draw: (E or 1, S, n, …) to (S, n, …)."""
        return (weights.reshape(weights.shape + (1,) * (value.dim() - 3)) * value).sum(0)

    for name in (n for n in draws.structure.latent if n in draws.p.nodes):
        term = draws.at(draws.q, name) - draws.prior_at(name)
        found[f"kl.{name}"] = expectation(term.expand(weights.shape)).mean(0)
    for name in draws.structure.continuous:
        means = expectation(terms.means[name])
        found[f"mean.{name}"] = means.mean(0)
        found[f"noise.{name}"] = means.var(0) / len(means)
        units = _unit_divergence(draws, name)
        if units is not None:
            found[f"units.{name}"] = expectation(units).mean(0)
            product = _units_of(distribution_at(draws.q, name)) is not None
            found[f"product.{name}"] = torch.full((units.shape[2],), float(product))
    return found


def _unit_divergence(draws: Draws, name: str) -> Tensor | None:
    """The divergence of each unit's marginal, or an estimate of it from each draw; shape (E or 1, S, n, D)."""
    q, p, value = distribution_at(draws.q, name), distribution_at(draws.p, name), value_at(draws.q, name)
    if len(p.batch_shape) > draws.layout.num_dims:  # a prior for each value of what the model sums out
        return None
    of_q, of_p = _units_of(q), _units_of(p)
    if of_p is None:
        return None
    same_order = draws.structure.same_order  # otherwise p may depend on the value itself
    if of_q is None and same_order and isinstance(q, MultivariateNormal | LowRankMultivariateNormal):
        of_q = Normal(q.mean, q.variance.sqrt())
    if of_q is None:
        return None
    divergence = _closed_form(of_q, of_p) if same_order else None
    if divergence is None:
        divergence = of_q.log_prob(value) - of_p.log_prob(value)
    whole = torch.broadcast_shapes(divergence.shape, value.shape)  # p may depend on what is enumerated, q not
    return draws.layout.features(divergence.expand(whole), q.event_dim)


def _closed_form(q: Distribution, p: Distribution) -> Tensor | None:
    try:
        return kl_divergence(q, p)
    except NotImplementedError:
        return None


def _units_of(d: Distribution) -> Distribution | None:
    """The distribution of the entries of a vector of independent ones, the entries in its batch shape; else None."""
    if isinstance(d, Independent) and is_independent(d):
        return d.base_dist
    return d if d.event_shape == () else None
