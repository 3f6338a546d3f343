r"""Likelihoods of counts without a bound: 0, 1, 2, …, such as those of words, reads or purchases.

The decoder's output is the logarithm of the mean, mu = exp(eta).  Counts vary more than a Poisson's with the same mean
do, so the negative binomial has a dispersion r for each entry of x, learned,

    log p(x) = log C(x + r - 1, x) + r log (r / (r + mu)) + x log (mu / (r + mu)),        var x = mu + mu^2 / r,

and with more zeros still, a share g of them comes from elsewhere: p(0) = g + (1 - g) p_NB(0) (Lopez et al., *Deep
Generative Modeling for Single-Cell Transcriptomics*, 2018, whose dispersions are of each gene, too).  An encoder sees
log (1 + x).
"""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae.likelihoods.base import LIKELIHOODS, Likelihood

LARGEST_LOG_MEAN = 15.0  # of three million; beyond it an untrained decoder would overflow
GATE = -2.0  # the log-odds of a zero from elsewhere, at first


class _Logarithm(nn.Module):
    """Counts as an encoder sees them, for they are spread over orders of magnitude."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(min=0).log1p()


class _Counts(Likelihood):
    """Base of the likelihoods of counts."""

    def view(self) -> nn.Module:
        return _Logarithm()


@LIKELIHOODS.register("poisson")
class Poisson(_Counts):
    """Independent Poisson counts, the decoder's output being the logarithm of the mean.

    Example:
        >>> from pyro_vae.likelihoods import Poisson
        >>> p = Poisson((2,))(torch.zeros(2))  # of mean 1
        >>> p.log_prob(torch.tensor([0.0, 2.0]))  # -1, and -1 - log 2
        tensor(-2.6931)
    """

    def forward(self, params: Tensor) -> dist.TorchDistribution:
        return dist.Poisson(params.clamp(max=LARGEST_LOG_MEAN).exp()).to_event(self.event_dim)


@LIKELIHOODS.register("negative_binomial")
class NegativeBinomial(_Counts):
    """Independent negative binomial counts: more spread than a Poisson's, by a dispersion that each entry learns.

    Example:
        >>> from pyro_vae.likelihoods import NegativeBinomial
        >>> pixels = NegativeBinomial((3,))(torch.zeros(3)).base_dist  # of mean 1, and dispersion 1 at first
        >>> pixels.mean, pixels.variance
        (tensor([1., 1., 1.], grad_fn=<MulBackward0>), tensor([2., 2., 2.], grad_fn=<DivBackward0>))
    """

    def __init__(self, event_shape: tuple[int, ...]) -> None:
        super().__init__(event_shape)
        self.log_dispersion = nn.Parameter(torch.zeros(event_shape))

    def forward(self, params: Tensor) -> dist.TorchDistribution:
        return self._entries(params).to_event(self.event_dim)

    def _entries(self, params: Tensor) -> dist.TorchDistribution:
        logits = params.clamp(max=LARGEST_LOG_MEAN) - self.log_dispersion
        return dist.NegativeBinomial(self.log_dispersion.exp(), logits=logits)


@LIKELIHOODS.register("zero_inflated_negative_binomial")
class ZeroInflatedNegativeBinomial(NegativeBinomial):
    """Negative binomial counts, and zeros from elsewhere, in a share that each entry learns.

    Example:
        >>> from pyro_vae.likelihoods import NegativeBinomial, ZeroInflatedNegativeBinomial
        >>> params, none = torch.zeros(1), torch.zeros(1)
        >>> more = ZeroInflatedNegativeBinomial((1,))(params).log_prob(none)
        >>> bool(more > NegativeBinomial((1,))(params).log_prob(none))
        True
    """

    def __init__(self, event_shape: tuple[int, ...]) -> None:
        super().__init__(event_shape)
        self.gate_logits = nn.Parameter(torch.full(event_shape, GATE))

    def _entries(self, params: Tensor) -> dist.TorchDistribution:
        entries = super()._entries(params)
        return dist.ZeroInflatedDistribution(entries, gate_logits=self.gate_logits)
