"""The label site: a discrete site "y" of model and guide, whose values are classes.

A class is the index of a value among those that the model's site can take: itself for a ``Categorical``, 0.0 or 1.0 for
a ``Bernoulli``, a unit vector for a ``OneHotCategorical``.  Whoever asks for a class gives its index; the programs are
given the value.  A site "y" of another kind is a latent like any other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor

from pyro_vae.pairs.traces import distribution_at, innermost_of, num_values

if TYPE_CHECKING:
    from pyro_vae.pairs.pair import Pair

LABEL_SITE = "y"


def classes_of(p: Trace, q: Trace) -> Tensor | None:
    r"""The values of the label site, a class each, of shape (K, \*event_shape).

    Args:
        p: a run of the model without labels.
        q: the guide's.

    Returns:
        The values; None where model and guide have no such site among their latents, or one that is not over classes.
    """
    if LABEL_SITE not in p.stochastic_nodes or LABEL_SITE not in q.nodes:
        return None
    if over_classes(distribution_at(q, LABEL_SITE)) is None:
        return None
    d = distribution_at(p, LABEL_SITE)
    number = num_values(d)
    if not number:
        return None
    values = d.enumerate_support(expand=False).detach()
    return values.reshape(number, *d.event_shape) if values.numel() == number * d.event_shape.numel() else None


def over_classes(d: dist.TorchDistribution) -> dist.TorchDistribution | None:
    """A distribution at the label site as one over class indices, with ``probs`` and ``logits`` of shape (…, K).

    Returns:
        It; None where the site has no such distribution.
    """
    while isinstance(d, dist.MaskedDistribution):
        d = d.base_dist
    probs = getattr(d, "probs", None)
    if isinstance(innermost_of(d), torch.distributions.Bernoulli) and isinstance(probs, Tensor):
        logits = cast(Any, d).logits
        return dist.Categorical(logits=torch.stack([torch.zeros_like(logits), logits], -1))
    is_vector = isinstance(probs, Tensor) and probs.dim() == len(d.batch_shape) + 1
    return d if is_vector and not isinstance(innermost_of(d), torch.distributions.Multinomial) else None


def indices_of(values: Tensor, classes: Tensor) -> Tensor:
    """The classes of values of the label site, of the shape that these have without their event dimensions."""
    events = classes.dim() - 1
    equal = values.unsqueeze(values.dim() - events) == classes.to(values.device)
    return equal.flatten(values.dim() - events + 1).all(-1).int().argmax(-1) if events else equal.int().argmax(-1)


def labels_by_value(pair: Pair, x: Tensor, classes: Tensor | None) -> bool:
    r"""Whether programs take labels as the values of their label site, since they do not take class indices.

    Both are tried on the programs as they are: some make a one-hot vector of an index themselves.

    Args:
        pair: the programs.
        x: a few rows, shape (N, \*event_shape).
        classes: the values of the label site; None without one.
    """
    if classes is None or not pair.takes_label or not x.dim():
        return False
    indices = torch.arange(len(x), device=x.device) % len(classes)
    values = classes.to(x.device)[indices]
    if values.dtype == indices.dtype and torch.equal(values, indices):
        return False
    return not _run(pair, x, indices) and _run(pair, x, values)


def _run(pair: Pair, x: Tensor, y: Tensor) -> bool:
    """Whether both programs run on rows and labels, the label site being what was given."""
    programs: list[Callable[..., Any]] = [pair.guide, pair.model]
    try:
        with pyro.validation_enabled(True):
            q = poutine.trace(programs[0]).get_trace(x, y)
            poutine.trace(poutine.replay(programs[1], q)).get_trace(x, y).compute_log_prob()
            q.compute_log_prob()
    except Exception:  # whatever a program raises
        return False
    return True
