r"""Objectives whose gradient reaches the guide through its draws alone.

The score function of q has mean zero, so it can be left out of the ELBO's gradient, which then vanishes where the guide
is exact: sticking the landing, Roeder, Wu and Duvenaud, 2017.  For the importance-weighted bound of k draws with
normalized weights w_s the doubly reparameterized gradient of the guide's parameters phi is

    sum_s w_s^2  d log w_s / d z_s  d z_s / d phi,

whose signal does not drown as k grows: Tucker, Lawson, Gu and Maddison, *Doubly Reparameterized Gradient Estimators for
Monte Carlo Objectives*, 2019.  The model's parameters get their ordinary gradients.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.objectives.base import OBJECTIVES, ReparameterizedObjective
from pyro_vae.option_types import Whole
from pyro_vae.pairs.draws import Draws, draw_along_paths
from pyro_vae.pairs.handlers import Number, temper
from pyro_vae.pairs.pair import ProbedPair
from pyro_vae.pairs.structure import Structure
from pyro_vae.shapes import Float, Shaped


class PathObjective(ReparameterizedObjective):
    """Base of these objectives; a new one writes ``bound``."""

    def bound(self, draws: Draws, values: dict[str, Tensor]) -> Float[Tensor, "N"]:
        """The bound per datum, nats, shape (N,), from what ``draw_along_paths`` gives."""
        raise NotImplementedError

    def prepare(self, probed: ProbedPair) -> ProbedPair:
        if probed.own_draws_only:
            raise InputError(
                "a guide whose density can be evaluated at any point, for a gradient through its draws alone",
                f"one that knows it at its own draws only, at the site {probed.own_draws_only[0]!r}",
                "use --objective elbo or iwae, or another --guide",
            )
        return super().prepare(probed)

    def loss(
        self, prepared: Any, x: Shaped[Tensor, "N *event"], y: Shaped[Tensor, "N"] | None, beta: Number, epoch: Number
    ) -> Float[Tensor, ""]:
        with temper(beta):
            draws, values = draw_along_paths(prepared, x, y, self.num_samples)
        return -self.bound(draws, values).mean()


@OBJECTIVES.register("stl")
class StickingTheLanding(PathObjective):
    """The ELBO without the score function in its gradient: sticking the landing.

    Latents that all rows share may lie outside of the plate over data, but no factor or observation.

    Example:
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import VAE
        >>> from pyro_vae.objectives import OBJECTIVES
        >>> from pyro_vae.pairs import Pair
        >>> model, x = VAE((1, 8, 8), latent_dim=2), torch.rand(3, 1, 8, 8).round()
        >>> probed = Pair(model, MeanField(model)).probe(x)
        >>> with torch.random.fork_rng():
        ...     elbo = OBJECTIVES.build("elbo", probed=probed)(x)
        >>> torch.allclose(OBJECTIVES.build("stl", probed=probed)(x), elbo)  # the gradient is what differs
        True
    """

    is_elbo: ClassVar[bool] = True

    def __init__(self, probed: ProbedPair, num_samples: Whole = 1) -> None:
        super().__init__(probed, num_samples)

    def prepare(self, probed: ProbedPair) -> ProbedPair:
        return super().prepare(probed.by_row if _has_shared_part(probed) else probed)

    def bound(self, draws: Draws, values: dict[str, Tensor]) -> Float[Tensor, "N"]:
        elbo = draws.terms.elbo
        if not _has_shared_part(draws.structure):
            return elbo
        return elbo - draws.shared_kl.mean() / (self.num_rows or len(elbo))


def _has_shared_part(structure: Structure) -> bool:
    """Whether each row bears its part of what latents that all rows share cost, which are all that lies outside."""
    latents = structure.shared_latents
    return bool(latents) and set(structure.shared) == {*latents} and structure.plate_size is None


@OBJECTIVES.register("dreg")
class DoublyReparameterized(PathObjective):
    """The importance-weighted bound with doubly reparameterized gradients.

    Example:
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import LinearGaussian
        >>> from pyro_vae.objectives import OBJECTIVES
        >>> from pyro_vae.pairs import Pair
        >>> model, x = LinearGaussian((3,), latent_dim=2), torch.randn(4, 3)
        >>> objective = OBJECTIVES.build("dreg:num_samples=10000", probed=Pair(model, MeanField(model)).probe(x))
        >>> torch.allclose(objective(x), -model.evidence(x).mean(), atol=0.1)
        True
    """

    def __init__(self, probed: ProbedPair, num_samples: Whole = 10) -> None:
        super().__init__(probed, num_samples)

    def bound(self, draws: Draws, values: dict[str, Tensor]) -> Float[Tensor, "N"]:
        terms = draws.terms
        weights = terms.log_ratios.detach().softmax(1)  # the bound's own gradient brings the other factor w_s
        for value in values.values():
            if value.requires_grad:
                value.register_hook(partial(Tensor.mul, draws.beside(weights, value)))
        return terms.over_labels(terms.power_bound(1.0))
