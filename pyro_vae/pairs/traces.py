"""Typed views of what Pyro's traces hold."""

from __future__ import annotations

from typing import cast

from pyro.distributions import TorchDistribution
from pyro.poutine import Trace
from torch import Tensor
from torch.distributions import Distribution, Independent


def distribution_at(trace: Trace, site: str) -> TorchDistribution:
    """The distribution at a sample site."""
    return cast(TorchDistribution, trace.nodes[site]["fn"])


def value_at(trace: Trace, site: str) -> Tensor:
    """The value at a sample site."""
    return cast(Tensor, trace.nodes[site]["value"])


def log_prob_at(trace: Trace, site: str) -> Tensor:
    """The log-probability at a sample site, scaled and masked, where it was computed."""
    return trace.nodes[site]["log_prob"]


def is_independent(d: Distribution) -> bool:
    """Whether a distribution over vectors is a product over their entries."""
    return isinstance(d, Independent) and d.base_dist.event_shape == ()


def unscaled_log_prob_at(trace: Trace, site: str) -> Tensor:
    """The log-probability at a sample site before any scaling, where it was computed."""
    return trace.nodes[site]["unscaled_log_prob"]
