r"""A pair without noise: every latent at the centre of its distribution, which is what is left when nothing is drawn.

The centre of a distribution is its mean; where it does not know one, as a flow T of a base does not, it is the image of
the base's centre, T(E[base]).  A site is given the centres of those before it, and an enumerated label takes all its
values, so that

    E[z | x] = sum_k q(y = k | x) E[z | x, y = k]

is exact where z is given no other continuous latent, and the usual plug-in where it is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import Categorical, Distribution

from pyro_vae.errors import InputError
from pyro_vae.pairs.draws import placed
from pyro_vae.pairs.handlers import unconditioned
from pyro_vae.pairs.labels import label_distribution
from pyro_vae.pairs.layout import Layout
from pyro_vae.pairs.observations import assemble
from pyro_vae.pairs.pair import ProbedPair
from pyro_vae.pairs.traces import distribution_at, innermost_of, log_prob_at, value_at
from pyro_vae.pairs.vectorized import check_data_plate, run_guide


@dataclass(frozen=True)
class Moments:
    """What q(z | x) says of a site, per datum.

    Args:
        mean: the centre, shape (N, D).
        sd: the standard deviations, of the same shape; None where the distribution does not know them.
    """

    mean: Tensor
    sd: Tensor | None


def centres(probed: ProbedPair, x: Tensor) -> dict[str, Moments]:
    r"""Centre and spread of each sampled site under the guide, labels averaged over q(y | x); nothing is drawn.

    Args:
        probed: the model and the guide, with what ``pair.probe`` said of them.
        x: data of shape (N, \*event_shape).

    Raises:
        InputError: if a site has no centre, or lies outside the plate over data.

    Example:
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import VAE
        >>> from pyro_vae.pairs import Pair
        >>> from pyro_vae.pairs.centres import centres
        >>> model, x = VAE((1, 8, 8), latent_dim=2), torch.rand(3, 1, 8, 8).round()
        >>> guide = MeanField(model)
        >>> found = centres(Pair(model, guide).probe(x), x)["z"]
        >>> torch.allclose(found.mean, guide.posterior(x).mean), found.sd.shape
        (True, torch.Size([3, 2]))
    """
    probed = probed.by_row
    check_data_plate(probed)
    with torch.no_grad(), poutine.block(), probed.pair.scope(), _Centred(probed.sampled):
        plate, x, _ = placed(probed, x, None, 1)
        q = run_guide(probed, x, None, plate)
    q.compute_log_prob(lambda name, _: name in probed.enumerated)
    layout = Layout(probed, q, 1, x, as_rows=plate is None)
    weights = layout.total(log_prob_at(q, name) for name in probed.enumerated).flatten(0, -3).exp().unsqueeze(-1)
    found = {}
    for name in (name for name in probed.sampled if name not in probed.shared):
        d, value = distribution_at(q, name), value_at(q, name)
        each, variance = layout.features(value, d.event_dim), _variance(d)
        mean = (weights * each).sum(0)
        sd = None
        if variance is not None:
            spread = layout.features(variance.expand(value.shape), d.event_dim) + (each - mean).square()
            sd = (weights * spread).sum(0).sqrt().squeeze(0)
        found[name] = Moments(mean.squeeze(0), sd)
    return found


def class_probabilities(probed: ProbedPair, x: Tensor) -> Tensor:
    r"""q(y | x), shape (N, K), at the centres of what the guide draws before the label.

    Args:
        probed: a pair with a label site.
        x: data of shape (N, \*event_shape).
    """
    with torch.no_grad(), poutine.block(), _Centred(probed.sampled):
        return label_distribution(probed.pair, x).probs


def shared_centres(probed: ProbedPair, x: Tensor) -> dict[str, Tensor]:
    """The centres of the latents that all rows share, by name, in the shape that the guide gives them."""
    with torch.no_grad(), poutine.block(), probed.pair.scope(), _Centred(probed.latent):
        q = poutine.trace(probed.pair.guide).get_trace(*probed.pair.arguments(x, None))
    return {name: value_at(q, name) for name in probed.shared_latents}


def expected(probed: ProbedPair, template: Tensor, latent: Mapping[str, Tensor]) -> Tensor:
    r"""E[x | latents], shape (N, \*event_shape); latents that are not given are at their centres.

    Args:
        probed: the model and the guide; ``check_generates`` has no objection to them.
        template: rows that the model reads its part of, shape (N, \*event_shape).
        latent: values by site, as the model has them.

    Raises:
        InputError: if an observed distribution has no mean.
    """
    with torch.no_grad(), poutine.block(), probed.pair.scope(), _Centred((*probed.latent, *probed.marginal)):
        program = poutine.condition(unconditioned(probed.pair.model), data=dict(latent))
        p = poutine.trace(program).get_trace(*probed.pair.arguments(template, None))

    def mean(name: str) -> tuple[Tensor, int]:
        d = distribution_at(p, name)
        try:
            return d.mean, d.event_dim
        except NotImplementedError:
            got = f"{type(innermost_of(d)).__name__}, which has none"
            raise InputError(f"a distribution with a mean at the site {name!r}", got, "leave this part out") from None

    return assemble(probed, template, mean)


class _Centred(Messenger):
    """Answers some sites with the centre of their distribution; others too, where they have one, which saves a draw."""

    def __init__(self, names: Collection[str]) -> None:
        super().__init__()
        self.names = names

    def _pyro_sample(self, msg: Any) -> None:
        if msg["value"] is None and isinstance(msg["fn"], Distribution):  # which the rows of a plate are not
            found = _centre(msg["fn"])
            if found is None and msg["name"] in self.names:
                raise InputError(
                    f"a distribution with a mean at the site {msg['name']!r}, or transforms of one",
                    type(innermost_of(msg["fn"])).__name__,
                    "use another guide, such as mean_field",
                )
            msg["value"] = found


def _centre(d: Any) -> Tensor | None:
    """The mean of a distribution, the most probable category, or what its parts make; None where there is none."""
    inner = innermost_of(d)
    if isinstance(inner, Categorical):
        return inner.logits.argmax(-1).expand(d.batch_shape + d.event_shape)
    try:
        mean: Tensor = d.mean
    except (NotImplementedError, AttributeError):
        return _of_parts(d)
    support = getattr(d, "support", None)
    return mean.round() if support is not None and support.is_discrete else mean


def _of_parts(d: Any) -> Tensor | None:
    """The centre by what a distribution is made of: transforms of a base, or components and their weights."""
    if hasattr(d, "transforms"):
        found = _centre(d.base_dist)
        return None if found is None else reduce(lambda value, transform: transform(value), d.transforms, found)
    if hasattr(d, "image"):  # of a guide that is made for a program
        vector = _centre(d.base)
        return None if vector is None else d.image(vector)
    if hasattr(d, "component_logits") and hasattr(d, "locs"):  # Pyro's mixtures of normals
        weights = d.component_logits.softmax(-1).unsqueeze(-1)
        return (weights * d.locs).sum(-2)
    return _centre(d.base_dist) if hasattr(d, "base_dist") else None


def _variance(d: Any) -> Tensor | None:
    try:
        variance: Tensor = d.variance
    except (NotImplementedError, AttributeError):
        return None
    return variance
