r"""A posterior as an ``xarray.DataTree`` in the groups of ArviZ's InferenceData.

    posterior             the latents, dimensions (chain, draw, datum, …); restarts of one configuration are chains
    prior                 the same from the model alone
    posterior_predictive  data generated given the first draws of the posterior
    prior_predictive      data generated given the first draws of the prior
    observed_data         the data as the model sees them
    sample_stats          of a guide log_weight, log p(x, z) - log q(z | x), nats; of NUTS what the sampler says
    importance            of a guide, per datum: k_hat, ess, elbo and log_evidence
    log_likelihood        log p(x | z), where latents are shared by all data

A latent of each datum has a dimension ``datum``; one that is shared by all data has none.  ``log_likelihood`` is left
out where every latent belongs to one datum: leaving a datum out then leaves its latent's posterior at the prior, and
leave-one-out cross-validation on log p(x_i | z_i) is the harmonic-mean estimator of p(x_i), whose variance is infinite
(Neal, *Contribution to the discussion of Newton and Raftery*, 1994).  The importance weights estimate p(x_i) instead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.distributions import constraints

from pyro_vae.arviz_bridge.pareto import psis
from pyro_vae.errors import InputError
from pyro_vae.pairs.memory import at_once
from pyro_vae.pairs.seeding import seeded
from pyro_vae.pairs.vectorized import check_densities
from pyro_vae.posterior.draws import PosteriorDraws
from pyro_vae.posterior.predictive import draw_enumerated, generate, log_likelihood, model_sites, observed_values
from pyro_vae.posterior.target import Target

PREDICTIVE_DRAWS = 50  # of each chain, where every datum has latents of its own
CHAIN_SEED_STRIDE = 15_485_863  # between the random numbers of two chains

Values = dict[str, Tensor]


def from_guide(
    targets: Target | Sequence[Target],
    num_draws: int = 500,
    *,
    num_predictive: int | None = None,
    seed: int = 0,
    rows: Sequence[int] | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> xr.DataTree:
    """Draws from a guide, or from the guides of several restarts, one per chain.

    Args:
        targets: the posterior under one pair, or under several with the same sites and data.
        num_draws: S, of each chain.
        num_predictive: the draws of each chain that data are generated for; default: the first 50, or all where
            latents are shared by all data.
        seed: the seed of all draws.
        rows: the coordinate of each datum, N numbers; default: 0, 1, …
        attrs: what made it, for the root of the tree.

    Raises:
        InputError: if there are no draws or no targets, the targets have other sites or other numbers of data, or a
            guide puts a latent of each datum into one point.

    Example:
        >>> from pyro_vae.arviz_bridge import from_guide
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import VAE
        >>> from pyro_vae.pairs import Pair
        >>> from pyro_vae.posterior import Target
        >>> model, x = VAE((1, 8, 8), latent_dim=2), torch.rand(3, 1, 8, 8).round()
        >>> tree = from_guide(Target(Pair(model, MeanField(model)).probe(x), x), num_draws=50)
        >>> tree["posterior"]["z"].dims, tree["posterior"]["z"].shape
        (('chain', 'draw', 'datum', 'z_dim_0'), (1, 50, 3, 2))
    """
    targets = [targets] if isinstance(targets, Target) else list(targets)
    _check_targets(targets, num_draws)
    layout = _Layout(targets[0], rows)
    chains: dict[str, list[Values]] = {}
    for chain, target in enumerate(targets):
        with seeded(seed + CHAIN_SEED_STRIDE * chain):
            groups = _groups(target, num_draws, num_predictive)
        for name, group in groups.items():
            chains.setdefault(name, []).append(group)
    stacked = {name: {v: torch.stack([g[v] for g in found]) for v in found[0]} for name, found in chains.items()}
    return layout.tree(stacked, {"inference": "variational", "sampling_seed": seed} | dict(attrs or {}))


def _groups(target: Target, num_draws: int, num_predictive: int | None) -> dict[str, Values]:
    """The groups of one chain of draws from a guide, by the global random state."""
    draws = _draw(target, num_draws)
    latents = target.values(draws.u) | draws.enumerated
    latents |= draw_enumerated(target, latents)
    predictions = _predictions(target, latents, num_draws, num_predictive)
    return {"posterior": latents, **predictions, "sample_stats": _weights(draws), "importance": _importance(draws)}


def from_chains(
    u: Tensor,
    target: Target,
    statistics: Mapping[str, Tensor] | None = None,
    *,
    num_predictive: int | None = None,
    seed: int = 0,
    rows: Sequence[int] | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> xr.DataTree:
    """Markov chains on a target, for example of NUTS.  Labels that were summed out are drawn from p(y | z, x).

    Args:
        u: unconstrained draws, shape (chains, S, N, D).
        target: the posterior that they are draws of.
        statistics: what the sampler says of each draw, by ArviZ's names (diverging, energy, tree_depth,
            acceptance_rate, step_size, lp), shape (chains, S) or (chains, S, N).
        num_predictive: as for ``from_guide``.
        seed: the seed of the predictions and labels.
        rows: as for ``from_guide``.
        attrs: as for ``from_guide``.

    Raises:
        InputError: if a shape does not fit.

    Example:
        >>> from pyro_vae.arviz_bridge import from_chains
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import LinearGaussian
        >>> from pyro_vae.pairs import Pair
        >>> from pyro_vae.posterior import Target, nuts
        >>> model, x = LinearGaussian((3,), latent_dim=2), torch.randn(3, 3)
        >>> target = Target(Pair(model, MeanField(model)).probe(x), x)
        >>> dict(from_chains(nuts(target, num_samples=5, num_warmup=3, num_chains=2).u, target)["posterior"].sizes)
        {'chain': 2, 'draw': 5, 'datum': 3, 'z_dim_0': 2}
    """
    _check_chains(u, target, statistics or {})
    num_chains, num_draws = u.shape[:2]
    layout = _Layout(target, rows)
    with torch.no_grad(), seeded(seed):
        latents = target.values(u.flatten(0, 1))
        latents = latents | draw_enumerated(target, latents)
        by_chain = {name: value.unflatten(0, (num_chains, num_draws)) for name, value in latents.items()}
        groups = {"posterior": by_chain} | _predictions_by_chain(target, by_chain, num_predictive)
    if statistics:
        groups["sample_stats"] = dict(statistics)
    return layout.tree(groups, {"inference": "MCMC", "sampling_seed": seed} | dict(attrs or {}))


def _check_chains(u: Tensor, target: Target, statistics: Mapping[str, Tensor]) -> None:
    if u.dim() != 4 or u.shape[2:] != (target.num_data, target.size) or not u.numel():
        raise InputError(
            f"draws of shape (chains, draws, {target.num_data}, {target.size})",
            f"shape {tuple(u.shape)}",
            "give the draws of this target",
        )
    for name, values in statistics.items():
        if tuple(values.shape) not in {tuple(u.shape[:2]), tuple(u.shape[:3])}:
            raise InputError(
                f"the statistic {name!r} of shape {tuple(u.shape[:2])} or {tuple(u.shape[:3])}",
                f"shape {tuple(values.shape)}",
                "give one number per draw, or one per draw and datum",
            )


class _Layout:
    """The names and coordinates of a target's dimensions."""

    def __init__(self, target: Target, rows: Sequence[int] | None) -> None:
        self.target, self.sites = target, model_sites(target)
        self.per_datum = target.probed.data_dim is not None
        self.rows = np.arange(target.num_data) if rows is None else np.asarray(rows)
        if self.per_datum and len(self.rows) != target.num_data:
            raise InputError(f"{target.num_data} rows, one per datum", str(len(self.rows)), "give one number per datum")
        support = target.probed.support
        self.whole = support is constraints.boolean or isinstance(support, WHOLE)
        self.pixels = np.int8 if support is constraints.boolean else np.int64  # plot_ppc refuses unsigned numbers

    def tree(self, groups: Mapping[str, Values], attrs: dict[str, Any]) -> xr.DataTree:
        """Groups of values with leading dimensions (chain, draw, datum), but for per-datum and observed ones."""
        found = {}
        for name, group in groups.items():
            leading = ["chain"] if name == "importance" else ["chain", "draw"]
            found[name] = self._dataset(name, group, leading)
        found["observed_data"] = self._dataset("observed_data", observed_values(self.target), [])
        order = [name for name in _GROUPS if name in found]
        tree = xr.DataTree.from_dict({name: found[name] for name in order})
        tree.attrs = _versions() | attrs
        tree["posterior"].attrs = {
            "inference_library": "pyro",
            "inference_library_version": metadata.version("pyro-ppl"),
        }
        return tree

    def _dataset(self, group: str, values: Values, leading: list[str]) -> xr.Dataset:
        variables: dict[str, xr.Variable] = {}
        coordinates: dict[str, np.ndarray] = {}
        for name, value in values.items():
            array = value.detach().cpu().numpy()
            if self.whole and name in self.target.probed.entries and group.endswith(("predictive", "data")):
                array = array.astype(self.pixels)
            if not self.per_datum and array.ndim > len(leading):
                array = array.squeeze(len(leading))
            dims = [*leading, *self._trailing(name, array.ndim - len(leading), group)]
            variables[name] = xr.Variable(dims, array)
            coordinates |= {dim: np.arange(size) for dim, size in zip(dims, array.shape, strict=True)}
        if "datum" in coordinates:
            coordinates["datum"] = self.rows
        return xr.Dataset(variables, coordinates)

    def _trailing(self, name: str, count: int, group: str) -> list[str]:
        """The dimensions behind chain and draw: datum, plates, event."""
        dims = ["datum"] if self.per_datum and count else []
        site = None if group in ("sample_stats", "importance") else self.sites.get(name)
        if site is not None:
            taken = {*self.sites, "chain", "draw", "datum"}
            dims += [f"{plate}_plate" if plate in taken else plate for plate in site.plates]
        return dims + [f"{name}_dim_{i}" for i in range(count - len(dims))]


WHOLE = (constraints.integer_interval, type(constraints.nonnegative_integer))  # supports of whole numbers
_GROUPS = (
    "posterior",
    "prior",
    "posterior_predictive",
    "prior_predictive",
    "observed_data",
    "sample_stats",
    "log_likelihood",
    "importance",
)


def _versions() -> dict[str, Any]:
    packages = {"pyro": "pyro-ppl", "torch": "torch", "xarray": "xarray", "arviz": "arviz"}
    return {f"{name}_version": metadata.version(package) for name, package in packages.items()}


def _draw(target: Target, num_draws: int) -> PosteriorDraws:
    """Draws of the guide, as many at a time as memory allows."""
    step = at_once(target.probed.combinations * target.x.numel())
    with target.pair.evaluating():
        parts = [target.draw(min(step, num_draws - start)) for start in range(0, num_draws, step)]
    return PosteriorDraws(
        torch.cat([part.u for part in parts]),
        torch.cat([part.log_weight for part in parts]),
        torch.cat([part.log_evidence_weight for part in parts]),
        {name: torch.cat([part.enumerated[name] for part in parts]) for name in parts[0].enumerated},
    )


def _predictions(
    target: Target, latents: Values, num_draws: int, num_predictive: int | None, prior: bool = True
) -> dict[str, Values]:
    """The groups that the model makes, of one chain."""
    per_datum = target.probed.data_dim is not None
    count = min(num_draws, (PREDICTIVE_DRAWS if per_datum else num_draws) if num_predictive is None else num_predictive)
    sites = model_sites(target)
    observed = [name for name, site in sites.items() if site.is_observed]
    groups: dict[str, Values] = {}
    if observed and count:
        groups["posterior_predictive"] = generate(target, observed, {n: v[:count] for n, v in latents.items()})
    if prior:
        groups["prior"] = generate(target, [n for n in latents if n in sites], num_samples=num_draws)
    if prior and observed and count:
        groups["prior_predictive"] = generate(target, observed, {n: v[:count] for n, v in groups["prior"].items()})
    if not per_datum and observed:
        groups["log_likelihood"] = log_likelihood(target, latents)
    return groups


def _predictions_by_chain(target: Target, latents: Values, num_predictive: int | None) -> dict[str, Values]:
    """What ``_predictions`` gives for each chain, one beside the other; of the prior there is one."""
    found = []
    for number, chain in enumerate(zip(*latents.values(), strict=True)):
        values = dict(zip(latents, chain, strict=True))
        found.append(_predictions(target, values, len(chain[0]), num_predictive, prior=number == 0))
    return {
        group: {name: torch.stack([part[group][name] for part in found if group in part]) for name in values}
        for group, values in found[0].items()
    }


def _weights(draws: PosteriorDraws) -> Values:
    weights = {"log_weight": draws.log_weight}
    return weights | ({"log_evidence_weight": draws.log_evidence_weight} if draws.enumerated else {})


def _importance(draws: PosteriorDraws) -> Values:
    """Metrics per datum, shape (N,)."""
    weights = draws.log_evidence_weight
    smoothed, k_hat = psis(weights)
    return {
        "k_hat": k_hat,
        "ess": 1 / (2 * smoothed).exp().sum(0),
        "elbo": draws.log_weight.mean(0),
        "log_evidence": weights.logsumexp(0) - math.log(len(weights)),
    }


def _check_targets(targets: Sequence[Target], num_draws: int) -> None:
    if num_draws < 1:
        raise InputError("at least one draw", str(num_draws), "use num_draws=500")
    kinds = {
        (tuple(target.sites and [(s.name, s.event_shape) for s in target.sites]), len(target.x)) for target in targets
    }
    if len(kinds) != 1:
        got = "no target" if not targets else f"targets of {len(kinds)} kinds"
        raise InputError("restarts with the same latent sites and data", got, "make one tree for each")
    check_densities(targets[0].probed)
