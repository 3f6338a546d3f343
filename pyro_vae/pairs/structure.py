"""What a pair of programs looks like, read off one run of each: its sites, its plate over data, its dimensions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pyro.distributions as dist
from pyro import poutine
from pyro.distributions import constraints
from torch import Tensor

from pyro_vae.pairs.traces import distribution_at, is_independent, value_at

LABEL_SITE = "y"


OBSERVED_SITE = "x"


DATA_PLATE = "data"
WIDEST_LAYER = 512  # units, for an estimate of memory


@dataclass(frozen=True)
class LatentSite:
    """A continuous latent site, as one datum has it.

    Args:
        shape: the shape of its value.
        support: the values that one number of it can take; None where the distribution does not say.
    """

    shape: tuple[int, ...]
    support: constraints.Constraint | None

    @property
    def size(self) -> int:
        """The dimension D."""
        return math.prod(self.shape)

    @property
    def is_real(self) -> bool:
        """Whether every point of R^D is a value of it."""
        return self.support is constraints.real


@dataclass(frozen=True)
class Structure:
    """What one run of a pair shows of it.

    Args:
        latent: the guide's sample sites, in order.
        enumerated: those that ask for parallel enumeration.
        continuous: the others that the model has too, in the guide's order; none where a site lies outside the plate
            over data.
        nesting: the number of plate dimensions, Pyro's ``max_plate_nesting``.
        combinations: the number of joint values of the enumerated sites.
        data_dim: the dimension of the plate over data, or None where a site lies outside it.
        support: the values that the observation "x" can take, of one pixel; None where there is no such site.
        has_label: whether the model has a label site "y" that is latent when no label is given.
        score_function: the sampled sites that cannot be reparameterized.
        own_draws_only: the sampled sites whose density is known at their own draws alone, as that of planar flows is.
        factorized: whether every sampled site of the guide factorizes over its dimensions.
        same_order: whether model and guide visit the latent sites in the same order, as closed-form KL terms need.

    Example:
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import SSVAE
        >>> from pyro_vae.pairs import Pair
        >>> model, x = SSVAE((1, 8, 8), num_classes=10), torch.rand(3, 1, 8, 8).round()
        >>> structure = Pair(model, MeanField(model)).probe(x)
        >>> structure.latent, structure.enumerated, structure.combinations
        (('y', 'z'), ('y',), 10)
    """

    latent: tuple[str, ...]
    enumerated: tuple[str, ...]
    continuous: dict[str, LatentSite]
    combinations: int
    nesting: int
    data_dim: int | None
    support: constraints.Constraint | None
    has_label: bool
    score_function: tuple[str, ...] = ()
    own_draws_only: tuple[str, ...] = ()
    factorized: bool = True
    same_order: bool = True

    def widest(self, x: Tensor) -> int:
        r"""The numbers of a run's widest tensor, per datum and draw: an image or a hidden layer, for every label.

        Args:
            x: data of shape (N, \*event_shape).
        """
        return max(math.prod(x.shape[1:]), WIDEST_LAYER) * self.combinations

    @property
    def sampled(self) -> tuple[str, ...]:
        """The latent sites that are drawn, not enumerated, in order."""
        return tuple(name for name in self.latent if name not in self.enumerated)


def read_structure(p: poutine.Trace, q: poutine.Trace) -> Structure:
    """The structure of a pair, from a trace of the model and one of the guide."""
    sites = [site for trace in (p, q) for site in trace.nodes.values() if site["type"] == "sample"]
    frames = [[frame for frame in site["cond_indep_stack"] if frame.vectorized] for site in sites]
    data_dims = [{frame.dim for frame in stack if frame.name == DATA_PLATE} for stack in frames]
    shared = data_dims[0] if sites and all(dims == data_dims[0] for dims in data_dims) else set()
    label = p.nodes.get(LABEL_SITE)
    enumerated = tuple(n for n in q.stochastic_nodes if (q.nodes[n]["infer"] or {}).get("enumerate") == "parallel")
    sampled = [n for n in q.stochastic_nodes if n not in enumerated]
    others = [n for n in sampled if n in p.nodes] if shared else []
    return Structure(
        latent=tuple(q.stochastic_nodes),
        enumerated=enumerated,
        continuous={n: LatentSite(tuple(value_at(p, n).shape[1:]), _support(distribution_at(p, n))) for n in others},
        combinations=math.prod([len(distribution_at(q, n).enumerate_support(expand=False)) for n in enumerated]),
        nesting=max((-(frame.dim or 0) for stack in frames for frame in stack), default=0),
        data_dim=next(iter(shared), None),
        support=_support(distribution_at(p, OBSERVED_SITE)) if OBSERVED_SITE in p.observation_nodes else None,
        has_label=label is not None and label["type"] == "sample" and not label["is_observed"],
        score_function=tuple(n for n in sampled if not distribution_at(q, n).has_rsample),
        own_draws_only=tuple(n for n in sampled if not _scores_any_point(distribution_at(q, n), value_at(q, n))),
        factorized=all(
            distribution_at(q, n).event_shape == () or is_independent(distribution_at(q, n)) for n in sampled
        ),
        same_order=[n for n in p.stochastic_nodes if n in q.stochastic_nodes] == q.stochastic_nodes,
    )


def _scores_any_point(q: dist.TorchDistribution, value: Tensor) -> bool:
    try:
        q.log_prob(value.clone())  # a clone, which no cache of a transform knows
    except (NotImplementedError, KeyError):  # Pyro's word for a transform without an inverse
        return False
    return True


def _support(p: dist.TorchDistribution) -> constraints.Constraint | None:
    try:
        support = p.support
    except NotImplementedError:
        return None
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support
