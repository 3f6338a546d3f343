r"""Guides that bend a normal by transforms whose parameters depend on x.

With z_0 ~ N(mu(x), diag sigma(x)^2) and z = T_K o … o T_1(z_0), every T_k taking the features of x as its context,

    log q(z | x) = log N(z_0; mu, sigma^2) - sum_k log |det dT_k / dz_{k-1}|.

The transforms are Pyro's: inverse autoregressive flows (Kingma et al., *Improved Variational Inference with Inverse
Autoregressive Flow*, 2016), planar flows (Rezende and Mohamed, *Variational Inference with Normalizing Flows*, 2015),
Householder flows (Tomczak and Welling, 2016), which turn the diagonal normal into one with a full covariance, and
autoregressive neural splines (Durkan et al., *Neural Spline Flows*, 2019).  The density of a draw is exact and costs
nothing extra; the density of a point from elsewhere needs the inverse, which is sequential for the autoregressive ones
and does not exist in closed form for planar flows.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import pyro.distributions as dist
from pyro.distributions import transforms
from torch import Tensor, nn

from pyro_vae.conditionals import DiagonalNormal
from pyro_vae.guides.base import GUIDES, Guide
from pyro_vae.models.base import Declares
from pyro_vae.networks import Network, start_near_identity
from pyro_vae.option_types import Whole
from pyro_vae.shapes import Float

MakeTransform = Callable[[int, int], nn.Module]
WIDTH = 64  # of the hidden layer that turns features into a transform's parameters


class ConditionalFlow(nn.Module):
    """A diagonal normal and a chain of transforms, all conditioned on the features.

    Args:
        num_features: the number of features F.
        size: the dimension D.
        make: makes one conditional transform from D and F.
        count: how many.
    """

    def __init__(self, num_features: int, size: int, make: MakeTransform, count: int) -> None:
        super().__init__()
        self.base = DiagonalNormal(num_features, size)
        with warnings.catch_warnings():  # of one dimension an autoregressive step is affine, which is as it should be
            warnings.filterwarnings("ignore", "ConditionalAutoRegressiveNN input_dim = 1")
            self.transforms = nn.ModuleList(make(size, num_features) for _ in range(count))
        start_near_identity(self.transforms)

    def forward(self, features: Float[Tensor, "... F"]) -> dist.TorchDistribution:
        """q(z | features), with batch shape (...) and event shape (size,)."""
        conditioned = [cast(Any, transform).condition(features) for transform in self.transforms]
        return dist.TransformedDistribution(self.base(features), conditioned)


def autoregressive(size: int, num_features: int) -> nn.Module:
    """One inverse autoregressive step, z_d -> mu_d(z_<d, x) + sigma_d(z_<d, x) z_d."""
    return transforms.conditional_affine_autoregressive(size, num_features, hidden_dims=[max(WIDTH, size + 1)])


def planar(size: int, num_features: int) -> nn.Module:
    """One planar step, z -> z + u(x) tanh(w(x)^T z + b(x))."""
    return transforms.conditional_planar(size, num_features, hidden_dims=[WIDTH])


def householder(size: int, num_features: int) -> nn.Module:
    """One reflection, z -> z - 2 v(x) v(x)^T z / |v(x)|^2."""
    return transforms.conditional_householder(size, num_features, hidden_dims=[WIDTH])


def spline(size: int, num_features: int) -> nn.Module:
    """One autoregressive rational-linear spline of 8 bins on [-3, 3] in every dimension."""
    return transforms.conditional_spline_autoregressive(size, num_features, hidden_dims=[max(WIDTH, size + 1)])


class Flow(Guide):
    """Base of the flow guides: a transform and how many of them.

    Args:
        model: the model whose latent sites this guide samples.
        make: makes one conditional transform.
        num_transforms: how many are chained.
        network: makes the encoders; default: an MLP.
        classifier: makes the encoder of a discrete site; default: ``network``.
    """

    def __init__(
        self,
        model: Declares,
        make: MakeTransform,
        num_transforms: int,
        *,
        network: Network | None = None,
        classifier: Network | None = None,
    ) -> None:
        family = partial(ConditionalFlow, make=make, count=num_transforms)
        super().__init__(model, family, network=network, classifier=classifier)


@GUIDES.register("iaf")
class IAF(Flow):
    """Inverse autoregressive flow.

    Example:
        >>> from pyro_vae.guides import IAF
        >>> from pyro_vae.models import VAE
        >>> q = IAF(VAE((4,), latent_dim=3), num_transforms=2).posterior(torch.rand(5, 4))
        >>> len(q.transforms)
        2
        >>> z = q.rsample([10])  # ten draws for each of five rows
        >>> q.log_prob(z).shape
        torch.Size([10, 5])
    """

    def __init__(
        self,
        model: Declares,
        num_transforms: Whole = 2,
        *,
        network: Network | None = None,
        classifier: Network | None = None,
    ) -> None:
        super().__init__(model, autoregressive, num_transforms, network=network, classifier=classifier)


@GUIDES.register("planar")
class Planar(Flow):
    """Planar flow.

    Example:
        >>> from pyro_vae.guides import Planar
        >>> from pyro_vae.models import VAE
        >>> q = Planar(VAE((4,), latent_dim=3), num_transforms=1).posterior(torch.rand(5, 4))
        >>> before = q.base_dist.sample()
        >>> after = q.transforms[0](before)
        >>> stretch = q.transforms[0].log_abs_det_jacobian(before, after)
        >>> torch.allclose(q.log_prob(after), q.base_dist.log_prob(before) - stretch)
        True
    """

    fewest = 2  # Pyro's transform divides by the length of w(x), a single number near 0 else

    def __init__(
        self,
        model: Declares,
        num_transforms: Whole = 8,
        *,
        network: Network | None = None,
        classifier: Network | None = None,
    ) -> None:
        super().__init__(model, planar, num_transforms, network=network, classifier=classifier)


@GUIDES.register("householder")
class Householder(Flow):
    """Householder flow: a full covariance from a few reflections.

    Example:
        >>> from pyro_vae.guides import Householder
        >>> from pyro_vae.models import VAE
        >>> q = Householder(VAE((4,), latent_dim=3)).posterior(torch.rand(5, 4))
        >>> z = q.base_dist.sample()
        >>> reflected = q.transforms[0](z)
        >>> torch.allclose(reflected.norm(dim=-1), z.norm(dim=-1))  # a reflection keeps lengths, so also volumes
        True
    """

    def __init__(
        self,
        model: Declares,
        num_transforms: Whole = 4,
        *,
        network: Network | None = None,
        classifier: Network | None = None,
    ) -> None:
        super().__init__(model, householder, num_transforms, network=network, classifier=classifier)


@GUIDES.register("spline")
class Spline(Flow):
    """Autoregressive neural spline flow.

    Example:
        >>> from pyro_vae.guides import Spline
        >>> from pyro_vae.models import VAE
        >>> q = Spline(VAE((4,), latent_dim=3)).posterior(torch.rand(5, 4))
        >>> q.log_prob(q.rsample([10])).shape
        torch.Size([10, 5])
        >>> far = torch.full((5, 3), 4.0)
        >>> torch.equal(q.transforms[0](far), far)  # the splines bend nothing beyond [-3, 3]
        True
    """

    def __init__(
        self,
        model: Declares,
        num_transforms: Whole = 1,
        *,
        network: Network | None = None,
        classifier: Network | None = None,
    ) -> None:
        super().__init__(model, spline, num_transforms, network=network, classifier=classifier)
