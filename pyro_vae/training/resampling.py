r"""Which training rows an epoch draws: all alike, or the rare ones more often.

Debiasing draws a row x with a weight that is high where its latent means are rare,

    W(x) proportional to prod_d 1 / (Q_d(z_d(x)) + alpha),

Q_d(z_d) being the share of the rows in the same bin of a histogram of z_d, refreshed at every epoch: Amini et al.,
*Uncovering and Mitigating Algorithmic Bias through Learned Latent Structure*, 2019.  The larger alpha, the more even
the draws.  Factors of many dimensions multiply up to draws from a handful of rows, more so the smaller alpha is: the
history says how many ``effective_rows`` there were, and ``combine=max`` takes the largest factor, each normalized over
the rows, instead of the product.  Rows are weighed within their class where their label is seen, so that classes keep
their share.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from pyro_vae.data.images import Images
from pyro_vae.option_types import Positive, Whole
from pyro_vae.pairs.draws import draw_means
from pyro_vae.pairs.pair import ProbedPair
from pyro_vae.pairs.structure import Structure
from pyro_vae.pairs.vectorized import check_data_plate
from pyro_vae.registry import Registry

CHUNK = 500


class Resampling:
    """Base of the ways to draw rows; a new one registers itself and writes ``weights``.

    Example:
        >>> from pyro_vae.data import Images
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import VAE
        >>> from pyro_vae.pairs import Pair
        >>> from pyro_vae.training import RESAMPLINGS
        >>> model, x = VAE((4,), latent_dim=2), torch.cat([torch.zeros(9, 4), torch.ones(1, 4)])
        >>> probed, resampling = Pair(model, MeanField(model)).probe(x), RESAMPLINGS.build("latent_histogram:alpha=0.1")
        >>> resampling.weights(probed, Images(x), groups=torch.zeros(10)).argmax()  # the odd one out, drawn more often
        tensor(9)
    """

    def check(self, structure: Structure) -> None:
        """Refuse programs that it cannot weigh rows by.

        Raises:
            InputError: if there are such reasons.
        """

    def weights(self, probed: ProbedPair, images: Images, groups: Tensor) -> Tensor | None:
        """The frequency of each row, up to a factor, shape (N,); None for shuffled passes over all of them.

        Args:
            probed: the model and the guide, with what ``pair.probe`` said of them.
            images: the N training rows.
            groups: a number for each row, shape (N,); the share of a group stays what it is.
        """
        raise NotImplementedError


RESAMPLINGS: Registry[Resampling] = Registry("resampling")


@RESAMPLINGS.register("uniform")
class Uniform(Resampling):
    """Every row once per epoch, in random order."""

    def weights(self, probed: ProbedPair, images: Images, groups: Tensor) -> Tensor | None:
        return None


@RESAMPLINGS.register("latent_histogram")
class LatentHistogram(Resampling):
    """Rows with rare latent means more often: debiasing.

    Args:
        alpha: added to the share of rows in a bin; the larger, the more even the draws.
        bins: the bins of each histogram.
        combine: how the dimensions are put together, ``product`` or ``max``.
    """

    def __init__(self, alpha: Positive = 1.0, bins: Whole = 10, combine: Literal["product", "max"] = "product") -> None:
        self.alpha, self.bins, self.combine = alpha, bins, combine

    def check(self, structure: Structure) -> None:
        check_data_plate(structure)

    def weights(self, probed: ProbedPair, images: Images, groups: Tensor) -> Tensor | None:
        means = latent_means(probed, images)
        weights = torch.empty(len(images))
        for group in groups.unique():
            mine = groups == group
            weights[mine] = self.rarity(means[mine]) * mine.sum()
        return weights

    def rarity(self, means: Tensor) -> Tensor:
        """W of each row, normalized to sum to 1, shape (N,), from latent means of shape (N, D)."""
        low, high = means.amin(0), means.amax(0)
        bins = ((means - low) / (high - low).clamp(min=1e-12) * self.bins).long().clamp(max=self.bins - 1)
        counts = torch.stack([torch.bincount(column, minlength=self.bins)[column] for column in bins.T], -1)
        log_factors = -(counts / len(means) + self.alpha).log()
        if self.combine == "product":
            return log_factors.sum(-1).softmax(0)
        largest = log_factors.softmax(0).amax(-1)
        return largest / largest.sum()


def effective_rows(weights: Tensor) -> float:
    """How many rows, drawn alike, would vary as much as draws by these weights: (sum w)^2 / sum w^2 (Kish 1965)."""
    return (weights.sum() ** 2 / weights.square().sum()).item()


def latent_means(probed: ProbedPair, images: Images) -> Tensor:
    """E_q[z | x] of every row, all sampled sites side by side, on the CPU, shape (N, D)."""
    parts = []
    with probed.pair.looked_at(0):
        for chunk in images.chunks(CHUNK):
            means = draw_means(probed, chunk.values())
            parts.append(torch.cat(list(means.values()), -1).cpu())
    return torch.cat(parts)
