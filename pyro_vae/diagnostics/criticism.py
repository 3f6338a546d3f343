r"""One question, asked in every way there is: can this posterior be believed?

    p(x) and k-hat     importance weights of the guide's draws, per datum              (``importance``)
    moments            the guide's against those of the weighted draws                 (``importance``)
    calibration        ranks and coverage on data that the model makes                 (``sbc``)
    gap, split         into approximation and amortization                             (``gaps``)
    NUTS               the guide's moments against those of an independent sampler     (``posterior.mcmc``)
    latent units       active units, divergences, collapse                             (``latent_units``)
    aggregate          the latents of all data against the prior                       (``aggregate``)
    convergence        of the optimization, from its iterates                          (``convergence``)
    labels             accuracy and calibration of q(y | x)                            (``classifier``)

No one of them sees everything.  Weights cannot show a mode that the guide never visits, calibration speaks of the
model's own data, NUTS of a few data.  What is made of the metrics is in ``verdicts``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pyro
from torch import Tensor

from pyro_vae.diagnostics.aggregate import AggregatePosterior
from pyro_vae.diagnostics.convergence import Convergence
from pyro_vae.diagnostics.critic import Critic, LabelQuality
from pyro_vae.diagnostics.effort import Effort, TrainingFacts
from pyro_vae.diagnostics.gaps import InferenceGap
from pyro_vae.diagnostics.importance import Importance
from pyro_vae.diagnostics.latent_units import LatentUse
from pyro_vae.diagnostics.sbc import SBC
from pyro_vae.diagnostics.verdicts import (
    Check,
    Verdict,
    plain,
)
from pyro_vae.errors import InputError
from pyro_vae.pairs.pair import Pair, ProbedPair, Program
from pyro_vae.posterior.mcmc import Chains
from pyro_vae.posterior.target import Target
from pyro_vae.shapes import Int

GROUPS = ("posterior", "model", "labels")


@dataclass(frozen=True)
class Criticism:
    """The findings about a guide, check by check; None is what was left out or cannot be said.

    Args:
        importance: the weights of the guide's draws.
        calibration: on simulated data.
        latents: what the latents are used for.
        aggregate: the latents of all data beside the prior.
        chains: NUTS for the first data.
        gap: the inference gap of the first data, split.
        convergence: the convergence of the optimization.
        labels: the labels of the classifier.
        checks: what follows from each, in words.

    Example:
        >>> from pyro_vae.diagnostics import criticise
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import LinearGaussian
        >>> model, x = LinearGaussian((3,), scale=0.5), torch.randn(30, 3)
        >>> found = criticise(model, MeanField(model), x, num_samples=100, num_simulated=50)  # a guide without training
        >>> print(found.verdict)
        do not trust
        >>> found.importance.k_hat.shape, found.chains  # a number per datum; NUTS was not asked for
        (torch.Size([30]), None)
    """

    importance: Importance
    calibration: SBC | None
    latents: LatentUse | None
    aggregate: AggregatePosterior | None
    chains: Chains | None
    gap: InferenceGap | None
    convergence: Convergence | None
    labels: LabelQuality | None
    checks: tuple[Check, ...]

    @property
    def verdict(self) -> Verdict:
        """The verdict on the posterior: the worst of its checks."""
        return Verdict.worst(check.verdict for check in self.checks if check.group == "posterior" and check.verdict)

    @property
    def worst(self) -> Int[Tensor, "N"]:
        """The rows of the data, those with the largest k-hat first, shape (N,)."""
        return self.importance.k_hat.argsort(descending=True)

    def __str__(self) -> str:
        width = max(len(check.name) for check in self.checks)
        lines = [f"{c.name:{width}}  {_word(c.verdict):13}  {c.finding}" for c in self.checks]
        return "\n".join([*lines, f"{'the posterior':{width}}  {self.verdict.value}"])

    def as_dict(self) -> dict[str, Any]:
        """The verdict, and the metrics of every check; those that are not finite are None."""
        return {"verdict": self.verdict.value, "checks": [plain(check.as_dict()) for check in self.checks]}


def criticise(
    model: Program,
    guide: Program,
    x: Tensor,
    *,
    num_samples: int = 1000,
    num_simulated: int = 500,
    num_split: int = 0,
    num_nuts: int = 0,
    seed: int = 0,
) -> Criticism:
    r"""Criticise any Pyro model and guide, as they were trained.

    Both are called with x alone.  Parameters of ``pyro.param`` are taken from the global parameter store; those of
    modules are the modules' own.  Latents outside a plate "data" are shared by all data, which are one datum then.

    Args:
        model: the program p.
        guide: the program q.
        x: data of shape (N, \*event_shape).
        num_samples: importance samples per datum.
        num_simulated: data that the model makes for calibration; 0 leaves it out.
        num_split: data whose inference gap is split into approximation and amortization; 0 leaves it out.
        num_nuts: data that NUTS is run for; 0 leaves it out.
        seed: the seed of every draw.

    Raises:
        InputError: if there are no samples to take, no data, or a latent site is discrete and not enumerated.

    Example:
        >>> import pyro
        >>> from pyro_vae.diagnostics import criticise
        >>> from pyro_vae.models import LinearGaussian
        >>> model, x = LinearGaussian((3,), scale=0.5), torch.randn(30, 3)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", model.posterior(x))  # exact
        >>> print(criticise(model, guide, x, num_samples=100, num_simulated=50))
        importance weights   trust          all 3,000 are finite
        ...
        the posterior        trust
    """
    if not len(x):
        raise InputError("at least one datum", "none", "give some rows of x")
    pair = Pair.of_trained(model, guide)
    with pyro.validation_enabled(False):  # what is not a number is counted, not raised
        probed = pair.probe(x)
    effort = Effort(num_samples, num_simulated, num_split, num_nuts)
    return criticise_pair(probed, x, effort, seed=seed)


def criticise_pair(
    probed: ProbedPair,
    x: Tensor,
    effort: Effort | None = None,
    *,
    known: TrainingFacts | None = None,
    seed: int = 0,
) -> Criticism:
    r"""Criticise a fitted pair.

    Args:
        probed: the model and the guide, with what ``pair.probe`` said of them.
        x: data of shape (N, \*event_shape).
        effort: how much of each check to make.
        known: labels and iterates, where there are any.
        seed: the seed of every draw.

    Raises:
        InputError: as ``criticise`` does.

    Example:
        >>> from pyro_vae.diagnostics import Effort, criticise_pair
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import VAE
        >>> from pyro_vae.pairs import Pair
        >>> model, x = VAE((1, 8, 8), latent_dim=2), torch.rand(5, 1, 8, 8).round()
        >>> probed = Pair(model, MeanField(model)).probe(x)
        >>> found = criticise_pair(probed, x, Effort(samples=50, only=("latents",)))
        >>> [check.name for check in found.checks]
        ['importance weights', 'Pareto k-hat', ..., 'latent units']
    """
    critic = Critic(Target(probed, x), effort or Effort(), known or TrainingFacts(), seed)
    with probed.pair.evaluating(), pyro.validation_enabled(False):
        weights, latents = critic.weigh(), critic.look_at_latents()
        units = len(weights.names) if latents is None else latents.num_active
        in_use = max(1, units + len(probed.enumerated))
        critic.judge_weights(weights, in_use)
        found = Criticism(
            importance=weights,
            latents=latents,
            gap=critic.split_gap(in_use),
            calibration=critic.calibrate(),
            chains=critic.run_chains(weights),
            aggregate=critic.compare_aggregate(),
            convergence=critic.look_at_iterates(),
            labels=critic.judge_labels(),
            checks=(),
        )
    return replace(found, checks=tuple(sorted(critic.checks, key=lambda check: GROUPS.index(check.group))))


def _word(verdict: Verdict | None) -> str:
    return "-" if verdict is None else verdict.value
