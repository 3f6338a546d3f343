r"""A deep flow of affine coupling blocks as a prior, z = T^{-1}(e) with e ~ N(0, I) and T = T_K o … o T_1.

A block T_k normalizes, moves and shuffles,

    u = (z - loc_k) exp(-s_k),    (u_1, u_2) -> (u_1, u_2 exp(a_k(u_1)) + b_k(u_1)),    a fixed permutation,

with a network for a_k and b_k, so that log p(z) = log N(T(z); 0, I) + sum_k [sum a_k - sum s_k], and density and sample
both take one pass.  Affine coupling is Dinh, Sohl-Dickstein and Bengio's, *Density Estimation Using Real NVP*, 2017;
activation normalization is Kingma and Dhariwal's, *Glow*, 2018; as priors of one latent layer, of 20 blocks and more,
Xu et al., *On the Necessity and Effectiveness of Learning the Prior of Variational Auto-Encoder*, 2019.

loc_k and s_k begin as mean and log standard deviation of what the block is given for the first batch.  That is done
once, by ``meet_first_batch``, before training; no later run of the programs looks at a batch.  So a recorded step is
the step, and a run that is resumed has them among its weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import pyro.distributions as dist
import torch
from pyro.nn import DenseNN
from torch import Tensor, nn

from pyro_vae.errors import InputError
from pyro_vae.networks import start_near_identity
from pyro_vae.option_types import Whole, Wholes
from pyro_vae.pairs import Pair
from pyro_vae.pairs.probing import traced
from pyro_vae.priors.base import PRIORS, Copied
from pyro_vae.priors.normal import StandardNormal
from pyro_vae.shapes import Float

SMALLEST_SCALE = 1e-6  # of a dimension that is normalized: one that does not vary stays as it is


class ActNorm(dist.torch_transform.TransformModule):
    r"""Activation normalization, u = (z - loc) exp(-log_scale), an affine map of each dimension.

    Kingma and Dhariwal, *Glow*, 2018.  It is the identity until ``meet_first_batch`` has shown it some values.

    Args:
        size: the dimension D of z.

    Example:
        >>> from pyro_vae.priors import ActNorm
        >>> norm, z = ActNorm(2), torch.tensor([[1.0, 5.0], [3.0, 5.0]])
        >>> norm.starts = True
        >>> norm(z).detach()  # the second dimension does not vary
        tensor([[-1.,  0.],
                [ 1.,  0.]])
        >>> norm.starts = False
        >>> norm(torch.tensor([4.0, 6.0])).detach(), norm.inv(torch.zeros(2)).detach()
        (tensor([2., 1.]), tensor([2., 5.]))
    """

    domain = dist.constraints.independent(dist.constraints.real, 1)
    codomain = dist.constraints.independent(dist.constraints.real, 1)
    bijective = True

    def __init__(self, size: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.starts = False  # whether the next values are those to begin with
        self.loc, self.log_scale = nn.Parameter(torch.zeros(size)), nn.Parameter(torch.zeros(size))

    def _call(self, z: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        if self.starts:
            self._start(z.detach().flatten(0, -2))
        return (z - self.loc) * (-self.log_scale).exp()

    def _inverse(self, u: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        return u * self.log_scale.exp() + self.loc

    def log_abs_det_jacobian(self, z: Float[Tensor, "... D"], u: Float[Tensor, "... D"]) -> Float[Tensor, "..."]:
        return -self.log_scale.sum().expand(z.shape[:-1])

    @torch.no_grad()
    def _start(self, z: Float[Tensor, "N D"]) -> None:
        scale = z.std(0, correction=0)
        self.loc.copy_(z.mean(0))
        self.log_scale.copy_(torch.where(scale > SMALLEST_SCALE, scale, 1.0).log())


class _Coupling(Copied, dist.transforms.AffineCoupling):
    """(u_1, u_2) -> (u_1, u_2 exp(a(u_1)) + b(u_1))."""


@PRIORS.register("realnvp")
class RealNVP(nn.Module):
    r"""A learned deep flow of affine coupling blocks, each with activation normalization and a permutation.

    Xu et al., *On the Necessity and Effectiveness of Learning the Prior of Variational Auto-Encoder*, 2019.  ``fit``
    lets it begin from the first batch; for programs of your own, trained by ``pyro.infer.SVI``, call
    ``start(guide.posterior(x).sample())`` once.

    Args:
        latent_dim: the dimension D of z, at least two.
        num_blocks: the number K of blocks.
        hidden: the widths of the hidden layers of each block's network.

    Raises:
        InputError: if z has a single dimension.

    Example:
        >>> from pyro_vae.priors import RealNVP
        >>> side = torch.linspace(-8, 8, 81)
        >>> grid = torch.cartesian_prod(side, side)
        >>> density = RealNVP(latent_dim=2, num_blocks=4)().log_prob(grid).exp()
        >>> round(density.sum().item() * 0.2**2, 3)  # it integrates to one
        1.0
    """

    orders: Tensor

    def __init__(self, latent_dim: int, num_blocks: Whole = 20, hidden: Wholes = (128, 128)) -> None:
        super().__init__()
        if latent_dim < 2:
            raise InputError("at least two latent dimensions for the prior 'realnvp'", "1", "use --latent-dim 2")
        self.base = StandardNormal(latent_dim)
        kept = latent_dim // 2
        self.norms = nn.ModuleList(ActNorm(latent_dim) for _ in range(num_blocks))
        self.couplings = nn.ModuleList()
        for _ in range(num_blocks):
            network = DenseNN(kept, list(hidden), [latent_dim - kept] * 2)
            start_near_identity(network)
            self.couplings.append(_Coupling(kept, network))  # type: ignore[no-untyped-call]
        self.register_buffer("orders", torch.stack([torch.randperm(latent_dim) for _ in range(num_blocks)]))

    def forward(self) -> dist.TorchDistribution:
        """p(z), with event shape (D,)."""
        steps: list[Any] = []  # from z to e
        for norm, coupling, order in zip(self.norms, self.couplings, self.orders, strict=True):
            steps += [norm, coupling, dist.transforms.Permute(order)]
        return dist.TransformedDistribution(self.base(), [step.inv for step in reversed(steps)])

    def start(self, z: Float[Tensor, "... D"]) -> None:
        """Begin from these values: what each block is given for them has mean 0 and variance 1 in every dimension.

        Args:
            z: draws from the posteriors of a batch, shape (..., D).

        Example:
            >>> from pyro_vae.priors import RealNVP
            >>> prior, z = RealNVP(latent_dim=2), 3 * torch.randn(500, 2) + 4
            >>> before = prior().log_prob(z).mean()
            >>> prior.start(z)
            >>> bool(prior().log_prob(z).mean() > before)
            True
        """
        with torch.no_grad(), _starting(cast(Iterable[ActNorm], self.norms)):
            self().log_prob(z)


def meet_first_batch(pair: Pair, x: Tensor, seed: int) -> None:
    r"""Let the parts of a pair that begin from data do so, wherever in its programs they are.

    The model is run once on the guide's draws for x, and each such part sets itself by what it is given.

    Args:
        pair: the model and the guide.
        x: the first batch, shape (N, \*event_shape).
        seed: the seed of the draws; the random state is left as it was.

    Example:
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import VAE
        >>> from pyro_vae.pairs import Pair
        >>> from pyro_vae.priors import RealNVP, meet_first_batch
        >>> model = VAE((4,), latent_dim=2, prior=RealNVP(latent_dim=2))
        >>> meet_first_batch(Pair(model, MeanField(model)), torch.rand(50, 4).round(), seed=0)
        >>> bool(model.prior.norms[0].log_scale.abs().min() > 0)
        True
    """
    modules = [part for module in pair.all_modules().values() for part in module.modules()]
    parts = [part for part in modules if isinstance(part, ActNorm)]
    if parts:
        with pair.looked_at(seed), _starting(parts):
            traced(pair, x, None).p.compute_log_prob(lambda _, site: not site["is_observed"])


@contextmanager
def _starting(norms: Iterable[ActNorm]) -> Iterator[None]:
    norms = list(norms)
    for norm in norms:
        norm.starts = True
    try:
        yield
    finally:
        for norm in norms:
            norm.starts = False
