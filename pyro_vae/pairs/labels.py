"""The guide's label site on its own: the classifier q(y | x)."""

from __future__ import annotations

from typing import Literal, cast

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine.runtime import NonlocalExit
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.pairs.classes import LABEL_SITE, over_classes
from pyro_vae.pairs.pair import Pair
from pyro_vae.pairs.traces import innermost_of
from pyro_vae.shapes import Shaped

LABEL_DRAWS = 10  # of what a guide draws before the label, where an answer counts


def label_distribution(pair: Pair, x: Shaped[Tensor, "N *event"], num_samples: int = 1) -> dist.TorchDistribution:
    r"""q(y | x): the distribution at the guide's label site; the guide runs no further than that.

    Where the guide draws latents a before the label, q(y | x) = E_q(a | x)[q(y | a, x)] is a mean over draws of them.

    Args:
        pair: a pair with a label site "y".
        x: data of shape (N, \*event_shape).
        num_samples: how many draws, of a guide that makes any.

    Returns:
        A distribution over class indices, of batch shape (N,).

    Example:
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import SSVAE
        >>> from pyro_vae.pairs import Pair, label_distribution
        >>> model, x = SSVAE((1, 8, 8), num_classes=10), torch.rand(3, 1, 8, 8).round()
        >>> label_distribution(Pair(model, MeanField(model)), x).probs.shape
        torch.Size([3, 10])
    """
    with pair.scope():
        found, drew = _at_label(pair, x)
        if not drew or num_samples == 1:
            return found
        rows = x.repeat(num_samples, *(1,) * (x.dim() - 1))
        answers = _at_label(pair, rows)[0].probs
    return dist.Categorical(probs=answers.unflatten(0, (num_samples, len(x))).mean(0))


def label_prior(pair: Pair, x: Shaped[Tensor, "N *event"]) -> Shaped[Tensor, "K"]:
    r"""p(y): the mean over rows of the probabilities at the model's label site, shape (K,).

    Args:
        pair: a pair with a label site "y".
        x: data of shape (N, \*event_shape).

    Example:
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import SSVAE
        >>> from pyro_vae.pairs import Pair
        >>> from pyro_vae.pairs.labels import label_prior
        >>> model = SSVAE((1, 8, 8), num_classes=4)
        >>> label_prior(Pair(model, MeanField(model)), torch.rand(3, 1, 8, 8).round())
        tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """
    with pair.scope(), torch.no_grad(), torch.random.fork_rng():
        probs: Tensor = _at_label(pair, x, "model")[0].probs
    return probs.reshape(-1, probs.shape[-1]).mean(0)


def _at_label(pair: Pair, x: Tensor, role: Literal["model", "guide"] = "guide") -> tuple[dist.TorchDistribution, bool]:
    """The distribution at the label site in one run of a program, and whether the run drew anything before it."""
    tracer, program = poutine.trace(), pair.model if role == "model" else pair.guide
    try:
        with tracer, poutine.escape(escape_fn=lambda site: site["name"] == LABEL_SITE):
            program(*pair.arguments(x, None))
    except NonlocalExit as reached:
        drawn = prune_subsample_sites(tracer.trace).stochastic_nodes
        found = over_classes(cast(dist.TorchDistribution, reached.site["fn"]))
        if found is not None:
            return found, bool(drawn)
        kind = type(innermost_of(reached.site["fn"])).__name__
        raise InputError(f"a {role} whose site {LABEL_SITE!r} is over classes", kind, "use Categorical") from None
    raise InputError(
        f"a {role} that samples the label site {LABEL_SITE!r}", "one that does not", "use a labelled model"
    )
