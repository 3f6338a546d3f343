r"""The aggregate posterior beside the prior.

Where the model is right for the data, and the guide for the model, the posterior averaged over the data is the prior:

    integral q(z | x) p(x) dx = integral p(z | x) p(x) dx = p(z).

Latents drawn for the data, one for each, are a sample of the left side, and the model's prior gives one of the right:
all latent sites together, on the unconstrained scale, compared by the energy distance and its permutation test
(``two_sample``).  Each coordinate is compared by the test of Kolmogorov and Smirnov, adjusted by Holm's method, to say
which ones differ.  Samples from the prior fall where a mismatch leaves holes (Hoffman and Johnson, *ELBO Surgery*,
2016; Rosca, Lakshminarayanan and Mohamed, *Distribution Matching in Variational Inference*, 2018).

With a thousand data the test finds mismatches that do no harm; the distance says how large one is.  A prior that
depends on part of x is drawn for the same data, which makes the two samples alike, and the test conservative.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_vae.diagnostics.two_sample import EnergyTest, energy_test
from pyro_vae.errors import InputError
from pyro_vae.pairs.memory import at_once
from pyro_vae.pairs.vectorized import check_data_plate
from pyro_vae.posterior.target import Target
from pyro_vae.shapes import Float

FEWEST_AGGREGATED = 20


@dataclass(frozen=True)
class AggregatePosterior:
    """Draws of the aggregate posterior and of the prior, compared.

    Args:
        names: the names of the D unconstrained coordinates.
        posterior: a latent drawn for each of n data, shape (n, D).
        prior: as many from the prior, shape (n, D).
        test: the two-sample test of all coordinates together.
        unit_p_values: the p-values of each coordinate, adjusted for their number, shape (D,).
        num_dropped: the data with a latent that is not finite; they are left out.

    Example:
        >>> from pyro_vae.diagnostics import aggregate_posterior
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import VAE
        >>> from pyro_vae.pairs import Pair
        >>> from pyro_vae.posterior import Target
        >>> model, x = VAE((1, 8, 8), latent_dim=2), torch.rand(50, 1, 8, 8).round()
        >>> target = Target(Pair(model, MeanField(model)).probe(x), x)
        >>> found = aggregate_posterior(target, num_permutations=99)
        >>> found.names, found.posterior.shape, found.prior.shape
        (('z[0]', 'z[1]'), torch.Size([50, 2]), torch.Size([50, 2]))
    """

    names: tuple[str, ...]
    posterior: Float[Tensor, "N D"]
    prior: Float[Tensor, "N D"]
    test: EnergyTest
    unit_p_values: Float[Tensor, "D"]
    num_dropped: int = 0

    @property
    def p_value(self) -> float:
        """The p-value of all coordinates together."""
        return self.test.p_value

    @property
    def shift(self) -> Float[Tensor, "D"]:
        """The posterior's mean less the prior's, in standard deviations of the prior, shape (D,)."""
        return (self.posterior.mean(0) - self.prior.mean(0)) / self.prior.std(0)

    @property
    def spread(self) -> Float[Tensor, "D"]:
        """The posterior's standard deviation over the prior's, shape (D,)."""
        return self.posterior.std(0) / self.prior.std(0)

    @property
    def worst(self) -> list[int]:
        """The coordinates by their p-values, and by how far mean and spread are off where these are equal."""
        off = self.shift.abs() + self.spread.log().abs()
        return sorted(range(len(self.names)), key=lambda i: (self.unit_p_values[i].item(), -off[i].item()))

    def as_dict(self) -> dict[str, Any]:
        """The test, and the ten worst coordinates."""
        units = [
            {
                "name": self.names[i],
                "shift": self.shift[i].item(),
                "spread": self.spread[i].item(),
                "p_value": self.unit_p_values[i].item(),
            }
            for i in self.worst[:10]
        ]
        return self.test.as_dict() | {"num_data": len(self.prior), "num_dropped": self.num_dropped, "units": units}


def aggregate_posterior(
    target: Target, num_data: int = 1000, num_permutations: int = 999, seed: int = 0
) -> AggregatePosterior:
    """Compare the aggregate posterior of some data with the prior.

    Args:
        target: the posterior of N data.
        num_data: the most of them to use, chosen at random.
        num_permutations: B, of the test.
        seed: the seed of the choice, the draws and the permutations.

    Raises:
        InputError: if there are too few data, no continuous latent, or a site outside the plate "data".

    Example:
        >>> from pyro_vae.diagnostics import aggregate_posterior
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import VAE
        >>> from pyro_vae.pairs import Pair
        >>> from pyro_vae.posterior import Target
        >>> model, x = VAE((1, 8, 8), latent_dim=2), 255 * torch.rand(50, 1, 8, 8)  # pixels that nobody divided by 255
        >>> target = Target(Pair(model, MeanField(model)).probe(x), x)
        >>> found = aggregate_posterior(target, num_permutations=99)
        >>> found.p_value  # the smallest that 99 permutations can give: the latents are not where the prior has them
        0.01
    """
    check_data_plate(target.probed)
    if not target.probed.continuous:
        raise InputError("a continuous latent site", "a guide without", "fit another model")
    with target.pair.looked_at(seed):
        rows = torch.randperm(target.num_data)[:num_data].to(target.x.device)
        parts = [target[some] for some in rows.split(at_once(target.probed.widest(target.x)))]
        posterior = torch.cat([part.draw(1).u[0] for part in parts]).cpu()
        prior = torch.cat([part.draw_prior(1)[0] for part in parts]).cpu()
    finite = posterior.isfinite().all(-1) & prior.isfinite().all(-1)
    if finite.sum() < FEWEST_AGGREGATED:
        raise InputError(
            f"at least {FEWEST_AGGREGATED} data with finite latents", str(int(finite.sum())), "give more data"
        )
    posterior, prior = posterior[finite].double(), prior[finite].double()
    return AggregatePosterior(
        names=parts[0].names,
        posterior=posterior,
        prior=prior,
        test=energy_test(posterior, prior, num_permutations, seed),
        unit_p_values=_units(posterior, prior),
        num_dropped=int((~finite).sum()),
    )


def _units(first: Float[Tensor, "N D"], second: Float[Tensor, "N D"]) -> Float[Tensor, "D"]:
    """Kolmogorov and Smirnov's p-value of each coordinate, adjusted by Holm's method, shape (D,)."""
    from scipy.stats import ks_2samp

    p_values = torch.tensor(
        [ks_2samp(*columns).pvalue for columns in zip(first.T.numpy(), second.T.numpy(), strict=True)],
        dtype=torch.float64,
    )
    order = p_values.argsort()
    stepped = p_values[order] * torch.arange(len(order), 0, -1)
    return torch.empty_like(p_values).scatter_(0, order, stepped.cummax(0).values.clamp(max=1))
