"""Typed views of what Pyro's traces hold."""

from __future__ import annotations

from typing import cast

from pyro.distributions import Delta, TorchDistribution, Unit, constraints
from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from torch import Tensor
from torch.distributions import Distribution, Independent

from pyro_vae.errors import InputError


def distribution_at(trace: Trace, site: str) -> TorchDistribution:
    """The distribution at a sample site."""
    return cast(TorchDistribution, trace.nodes[site]["fn"])


def value_at(trace: Trace, site: str) -> Tensor:
    """The value at a sample site."""
    return cast(Tensor, trace.nodes[site]["value"])


def log_prob_at(trace: Trace, site: str) -> Tensor:
    """The log-probability at a sample site, scaled and masked, where it was computed."""
    return trace.nodes[site]["log_prob"]


def rows_axis(value: Tensor, event_dim: int, plate_dim: int | None) -> int:
    """Where the rows lie in the value of a site, counted from the left; negative for one that no plate has expanded.

    Args:
        value: its value in a run without other draws, or with them on the left.
        event_dim: its event dimensions.
        plate_dim: the dimension of the plate over data, or None without one: the rows come first then.
    """
    return 0 if plate_dim is None else value.dim() - event_dim + plate_dim


def is_independent(d: Distribution) -> bool:
    """Whether a distribution over vectors is a product over their entries."""
    return isinstance(d, Independent) and d.base_dist.event_shape == ()


def unscaled_at(trace: Trace, site: str) -> Tensor:
    """The log-probability at a sample site, masked but not scaled, where it was computed."""
    node = trace.nodes[site]
    masked: Tensor = scale_and_mask(node["unscaled_log_prob"], 1.0, node["mask"])
    return masked


def unscaled_log_prob_at(trace: Trace, site: str) -> Tensor:
    """The log-probability at a sample site before any scaling, where it was computed."""
    return trace.nodes[site]["unscaled_log_prob"]


def is_factor(trace: Trace, site: str) -> bool:
    """Whether a sample site is a factor, which Pyro files as an observation of nothing."""
    return isinstance(innermost(trace, site), Unit)


def is_bookkeeping(trace: Trace, site: str) -> bool:
    """Whether a sample site is a factor or a deterministic value, which Pyro files as observed."""
    return is_factor(trace, site) or _is_deterministic(trace, site)


def observations(trace: Trace) -> list[str]:
    """The observed sites and the factors of a trace: what has a density, as a deterministic value has not."""
    return [name for name in trace.observation_nodes if not _is_deterministic(trace, name)]


def _is_deterministic(trace: Trace, site: str) -> bool:
    """Whether it is a value that Pyro notes, as ``pyro.deterministic`` and a reparameterized site are."""
    masked = getattr(trace.nodes[site]["fn"], "_mask", None) is False and isinstance(innermost(trace, site), Delta)
    return masked or bool((trace.nodes[site]["infer"] or {}).get("_deterministic"))


def innermost(trace: Trace, site: str) -> object:
    """The distribution at a site without the masks, plates and event dimensions around it."""
    return innermost_of(trace.nodes[site]["fn"])


def innermost_of(d: object) -> object:
    """A distribution without the masks, plates and event dimensions around it."""
    while hasattr(d, "base_dist"):  # masks and plates wrap a distribution
        d = d.base_dist
    return d


def support_of(d: Distribution) -> constraints.Constraint | None:
    """The values that a distribution can take; None where it does not say."""
    try:
        support: constraints.Constraint | None = d.support
    except NotImplementedError:
        return None
    return support


def num_values(d: TorchDistribution) -> int | None:
    """How many values a discrete distribution has; None where they cannot be enumerated."""
    try:
        return len(d.enumerate_support(expand=False)) if d.has_enumerate_support else None
    except NotImplementedError:  # of a binomial whose number of trials differs
        return None


def mean_at(trace: Trace, site: str) -> Tensor:
    """The mean of the distribution at a sample site.

    Raises:
        InputError: if it has none, as a category or a heavy tail has none.
    """
    d = distribution_at(trace, site)
    try:
        mean: Tensor = d.mean.detach()  # some compute it with gradients, whatever is around
    except NotImplementedError:
        found = None
    else:
        found = None if mean.isnan().any() and not value_at(trace, site).isnan().any() else mean
    if found is None:
        kind = type(innermost(trace, site)).__name__
        raise InputError(
            f"a distribution with a mean at the site {site!r}", f"{kind}, which has none", "use mean=False for a draw"
        )
    return found
