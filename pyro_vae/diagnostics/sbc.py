r"""Simulation-based calibration: whether the guide's posterior is right for data that the model itself makes.

Draw (z, x) from the model M times, and L draws z_1, …, z_L from the guide q(z | x) for each.  If q is the exact
posterior, z and the draws are exchangeable, so that the rank of f(z, x) among the f(z_l, x) is uniform on 0, …, L for
every function f, and a central credible interval of content c holds z with probability c.  Talts, Betancourt, Simpson,
Vehtari and Gelman, *Validating Bayesian Inference Algorithms with Simulation-Based Calibration*, 2018.

The functions f here are every continuous latent coordinate, unconstrained, and log p(x, z).  The last one depends on
the data: coordinates alone cannot tell the prior from the posterior, nor see a wrong correlation (Modrák et al.,
*Simulation-Based Calibration Checking for Bayesian Computation: The Choice of Test Quantities Shapes Sensitivity*,
2023).  Labels are summed out of it; ranks are marginal over labels.

*The test.*  Each f has the statistic gamma of ``ranks``, the worst point of its empirical distribution, with an exact
p-value of its own.  They are combined by their minimum, whose law under exchangeability is found by choosing another
of the L + 1 vectors of each datum as the truth, B times over (a Monte Carlo test, exact for any dependence between the
coordinates; Westfall and Young, *Resampling-Based Multiple Testing*, 1993).  So the overall p-value and the adjusted
ones are at least 1 / (B + 1), and the band of the rank plot is left with the same 5 % by any f at any point.

*What it does not say.*  The data are the model's own.  The guide may be right for them and wrong for real data that
the model has not learned to make; k-hat per datum and the gaps look at those.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_vae.diagnostics.ranks import UniformRanks, ranks_among
from pyro_vae.errors import InputError
from pyro_vae.pairs.pair import ProbedPair
from pyro_vae.posterior.simulation import posterior_and_truth
from pyro_vae.shapes import Shaped

LEVELS = (0.5, 0.8, 0.95)  # of the credible intervals
SIGNIFICANCE = 0.01  # of the adjusted p-values that a direction is named from
BAND = 0.05  # how often calibrated ranks leave the band
JOINT = "log p(x, z)"


@dataclass(frozen=True)
class Coverage:
    """How often a central credible interval holds the truth.

    Args:
        level: the content that was asked for.
        nominal: the content of the interval between two of the L draws that comes nearest, what an exact posterior
            covers.
        observed: by coordinate, shape (D,).
        error: the binomial standard error of one of them under an exact posterior.
    """

    level: float
    nominal: float
    observed: Tensor
    error: float

    def as_dict(self) -> dict[str, float]:
        """The mean over the coordinates, and the lowest and highest."""
        observed = {"mean": self.observed.mean(), "lowest": self.observed.min(), "highest": self.observed.max()}
        metrics = {"level": self.level, "nominal": self.nominal, "standard_error": self.error}
        return metrics | {name: value.item() for name, value in observed.items()}


@dataclass(frozen=True)
class SBC:
    """Simulation-based calibration of Q quantities: D coordinates and, last where it was asked for, log p(x, z).

    Args:
        names: the names of the quantities.
        ranks: the ranks of the truths among the guide's draws, shape (M, Q).
        num_draws: L.
        p_value: the p-value of all quantities together: uniform under the exact posterior.
        p_values: the p-values of each quantity on its own, exact, shape (Q,).
        adjusted: the p-value of each quantity among the Q, shape (Q,): the chance that any of them is as far off.
        band_level: the pointwise level of the band that calibrated ranks leave somewhere with probability 5 %.
        num_dropped: the simulated data with a latent or a draw that is not a number; they are left out.

    Example:
        >>> from pyro_vae.diagnostics import simulation_based_calibration
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import VAE
        >>> from pyro_vae.pairs import Pair
        >>> model, x = VAE((1, 8, 8), latent_dim=2), torch.zeros(2, 1, 8, 8)
        >>> sbc = simulation_based_calibration(Pair(model, MeanField(model)).probe(x), x, num_data=30, num_draws=19)
        >>> sbc.names, sbc.ranks.shape
        (('z[0]', 'z[1]', 'log p(x, z)'), torch.Size([30, 3]))
    """

    names: tuple[str, ...]
    ranks: Tensor
    num_draws: int
    p_value: float
    p_values: Tensor
    adjusted: Tensor
    band_level: float
    num_dropped: int = 0

    @property
    def num_data(self) -> int:
        """M, the simulated data."""
        return len(self.ranks)

    @property
    def is_coordinate(self) -> list[bool]:
        """Which of the quantities are coordinates, by quantity."""
        return [name != JOINT for name in self.names]

    @property
    def scores(self) -> Tensor:
        """Normal scores of the ranks, Phi^-1((rank + 1/2) / (L + 1)), shape (M, Q): standard normal if calibrated."""
        return torch.special.ndtri((self.ranks.double() + 0.5) / (self.num_draws + 1))

    @property
    def directions(self) -> tuple[str, ...]:
        """The fault of each quantity in words, empty where nothing was found at the level 1 %.

        For a coordinate "too narrow", "too wide", "shifted up", "shifted down" (the guide, against the truth), for
        log p(x, z) "draws too probable" or "draws too improbable"; "misshapen" where none of these stands out.
        """
        scores = self.scores
        root = self.num_data**0.5
        shift, spread = root * scores.mean(0), root * (scores.var(0) - 1) / 2**0.5  # standard normal if calibrated
        pairs = zip(self.names, self.adjusted.tolist(), shift.tolist(), spread.tolist(), strict=True)
        return tuple("" if p > SIGNIFICANCE else _direction(name == JOINT, s, v) for name, p, s, v in pairs)

    @property
    def coverage(self) -> tuple[Coverage, ...]:
        """The coverage of central credible intervals of 50, 80 and 95 %."""
        ranks = self.ranks[:, torch.tensor(self.is_coordinate)]
        return tuple(coverage(ranks, self.num_draws, level) for level in LEVELS)

    def as_dict(self) -> dict[str, Any]:
        """Plain metrics: the test, the coverage, and what was found wrong, the worst first."""
        found = [
            {"name": name, "direction": direction, "p_value": p}
            for p, name, direction in sorted(zip(self.p_values.tolist(), self.names, self.directions, strict=True))
            if direction
        ]
        return {
            "p_value": self.p_value,
            "num_data": self.num_data,
            "num_draws": self.num_draws,
            "num_dropped": self.num_dropped,
            "coverage": [each.as_dict() for each in self.coverage] if any(self.is_coordinate) else [],
            "wrong": found,
        }


def simulation_based_calibration(
    probed: ProbedPair,
    x: Shaped[Tensor, "N *event"],
    num_data: int = 500,
    num_draws: int = 199,
    num_null: int = 999,
    seed: int = 0,
    *,
    joint: bool = True,
) -> SBC:
    r"""Check a guide on data drawn from its model.

    Args:
        probed: the model and the guide, with what ``pair.probe`` said of them.
        x: templates of shape (N, \*event_shape): only their shape is used, but for what a conditional model reads.  For
            programs with a latent outside the plate over data, one simulated datum is all N together.
        num_data: M, the data to simulate.
        num_draws: L, the draws from the guide per datum; with 199 the intervals hold 50, 80 and 95 % exactly.
        num_null: B, the draws of the null law: the smallest p-value is 1 / (B + 1).
        seed: the seed of data, draws and the null law.
        joint: whether to rank log p(x, z) too, which doubles the work.

    Raises:
        InputError: if there are too few data or draws, nothing continuous to rank, or the model cannot generate data.

    Example:
        >>> from pyro_vae.diagnostics import simulation_based_calibration
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import LinearGaussian
        >>> from pyro_vae.pairs import Pair
        >>> model, x = LinearGaussian((3,), scale=0.2), torch.zeros(2, 3)
        >>> sbc = simulation_based_calibration(Pair(model, MeanField(model)).probe(x), x, num_data=100, num_draws=99)
        >>> sbc.directions  # without training it says about what the prior says, which only log p(x, z) can tell
        ('', '', 'draws too improbable')
    """
    if num_data < 10 or num_draws < 19:
        raise InputError("at least 10 simulated data and 19 draws", f"{num_data} and {num_draws}", "ask for more")
    values: list[Tensor] = []
    names: tuple[str, ...] = ()
    with probed.pair.looked_at(seed):
        for target, truth, parts in posterior_and_truth(probed, x, num_data, num_draws):
            names = (*target.names, JOINT) if joint else target.names
            vectors = (truth.unsqueeze(0), *parts)
            if joint:
                vectors = tuple(torch.cat([u, target.log_density(u).unsqueeze(-1)], -1) for u in vectors)
            values.append(torch.cat(vectors).cpu())
    if names in ((), (JOINT,)):
        raise InputError("a continuous latent site to rank", "a guide without", "fit another model")
    return check_exchangeable(torch.cat(values, 1), names, num_null, seed)


def check_exchangeable(values: Tensor, names: tuple[str, ...], num_null: int = 999, seed: int = 0) -> SBC:
    """Whether the first of L + 1 vectors could be any of them, for M data.

    Args:
        values: the truth and, after it, L draws, shape (L + 1, M, Q).
        names: the names of the Q quantities; ``JOINT`` names the joint log-density.
        num_null: B, the draws of the null law.
        seed: the seed of these draws.

    Raises:
        InputError: if no data are left when those that hold a NaN are left out.
    """
    whole = ~values.isnan().any(-1).any(0)
    if not whole.any():
        raise InputError("latents that are numbers", "a NaN for every simulated datum", "look at the fitted weights")
    every = ranks_among(values[:, whole], seed)
    num_data = every.shape[1]
    law = UniformRanks(num_data, len(values) - 1)
    observed = law.gamma(every[0])
    generator, rows = torch.Generator().manual_seed(seed), torch.arange(num_data)
    others = [torch.randint(len(values), (num_data,), generator=generator) for _ in range(num_null)]
    null = torch.stack([law.gamma(every[other, rows]).min() for other in others])
    worse = (null.unsqueeze(-1) <= observed * (1 + 1e-9)).double().sum(0)
    adjusted = (1 + worse) / (1 + num_null)
    return SBC(
        names=tuple(names),
        ranks=every[0],
        num_draws=len(values) - 1,
        p_value=adjusted.min().item(),
        p_values=torch.tensor([law.p_value(gamma) for gamma in observed.tolist()], dtype=torch.float64),
        adjusted=adjusted,
        band_level=null.sort().values[max(0, int(BAND * (num_null + 1)) - 1)].item(),
        num_dropped=int((~whole).sum()),
    )


def coverage(ranks: Tensor, num_draws: int, level: float) -> Coverage:
    """How often the central credible interval of a content holds the truth.

    Args:
        ranks: the ranks of the truths, shape (M, D).
        num_draws: L.
        level: the content, between 0 and 1.
    """
    tail = round((1 - level) / 2 * (num_draws + 1))  # ranks left out at each end
    nominal = 1 - 2 * tail / (num_draws + 1)
    observed = ((ranks >= tail) & (ranks <= num_draws - tail)).double().mean(0)
    return Coverage(level, nominal, observed, (nominal * (1 - nominal) / len(ranks)) ** 0.5)


def _direction(joint: bool, shift: float, spread: float) -> str:
    """The larger of two standard normal statistics in words; a truth that ranks high means draws that are too low."""
    if max(abs(shift), abs(spread)) < 3:
        return "misshapen"
    if joint:
        return "draws too improbable" if shift > 0 else "draws too probable"
    if abs(shift) > abs(spread):
        return "shifted down" if shift > 0 else "shifted up"
    return "too narrow" if spread > 0 else "too wide"
