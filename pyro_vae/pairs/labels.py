"""The guide's label site on its own: the classifier q(y | x)."""

from __future__ import annotations

from typing import cast

import pyro.distributions as dist
from pyro import poutine
from pyro.poutine.runtime import NonlocalExit
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.pairs.pair import Pair
from pyro_vae.pairs.structure import LABEL_SITE
from pyro_vae.shapes import Shaped


def label_distribution(pair: Pair, x: Shaped[Tensor, "N *event"]) -> dist.TorchDistribution:
    r"""q(y | x): the distribution at the guide's label site; the guide runs no further than that.

    Args:
        pair: a pair with a label site "y".
        x: data of shape (N, \*event_shape).

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
        try:
            with poutine.escape(escape_fn=lambda site: site["name"] == LABEL_SITE):
                pair.guide(*pair.arguments(x, None))
        except NonlocalExit as reached:
            return cast(dist.TorchDistribution, reached.site["fn"])
    raise InputError(f"a guide that samples the label site {LABEL_SITE!r}", "one that does not", "use a labelled model")
