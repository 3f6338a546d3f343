r"""One question, asked in every way there is: can this posterior be believed?

    p(x) and k-hat     importance weights of the guide's draws, per datum              (``importance``)
    moments            the guide's against those of the weighted draws                 (``importance``)
    calibration        ranks and coverage on data that the model makes                 (``sbc``)
    gap, split         into approximation and amortization                             (``gaps``)
    NUTS               the guide's moments against those of an independent sampler     (``posterior.mcmc``)
    latent units       active units, divergences, collapse                             (``latent``)
    aggregate          the latents of all data against the prior                       (``aggregate``)
    convergence        of the optimization, from its iterates                          (``convergence``)
    labels             accuracy and calibration of q(y | x)                            (``calibration``)

No one of them sees everything.  Weights cannot show a mode that the guide never visits, calibration speaks of the
model's own data, NUTS of a few data.  What is made of the figures is in ``verdicts``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pyro
from torch import Tensor

from pyro_vae.diagnostics.aggregate import FEWEST as FEWEST_AGGREGATED
from pyro_vae.diagnostics.aggregate import AggregatePosterior, aggregate_posterior
from pyro_vae.diagnostics.checks import CHECKS
from pyro_vae.diagnostics.classifier import Reliability, accuracy, confusion_matrix, reliability
from pyro_vae.diagnostics.convergence import FEWEST_STEPS, Convergence, convergence
from pyro_vae.diagnostics.gaps import InferenceGap, inference_gap
from pyro_vae.diagnostics.importance import Importance, importance_sample
from pyro_vae.diagnostics.latent_units import LatentUse, latent_use
from pyro_vae.diagnostics.sbc import SBC, simulation_based_calibration
from pyro_vae.diagnostics.verdicts import (
    Check,
    Verdict,
    judge_aggregate,
    judge_calibration,
    judge_chains,
    judge_convergence,
    judge_gap,
    judge_k_hat,
    judge_labels,
    judge_latent_units,
    judge_moments,
    judge_split,
    judge_weights,
    plain,
)
from pyro_vae.errors import InputError, PyroVAEError, nearest
from pyro_vae.pairs.pair import Pair, ProbedPair, Program
from pyro_vae.posterior.mcmc import Chains, nuts
from pyro_vae.posterior.target import Target

logger = logging.getLogger(__name__)

R = TypeVar("R")
GROUPS = ("posterior", "model", "labels")
NULL_DRAWS = 999  # of a test's law: p-values down to 0.001


@dataclass(frozen=True)
class Effort:
    """How much of each check to make; 0 leaves it out.

    Args:
        samples: importance samples per datum.
        simulated: data that the model makes for calibration.
        split: data whose inference gap is split into its parts.
        nuts: data that NUTS draws from the posteriors of.
        nuts_samples: draws of each of four chains, after as many of warm-up.
        only: the checks to make, of ``CHECKS``; default: all that can be made.  Weights are always looked at.

    Example:
        >>> from pyro_vae.diagnostics import Effort
        >>> quick = Effort(samples=200, simulated=0, only=("latents",))
        >>> quick.split, quick.nuts  # left out unless asked for
        (0, 0)
        >>> Effort(only=("latent",))
        Traceback (most recent call last):
            ...
        pyro_vae.errors.InputError: expected a known check; got 'latent'; ...'latents'...
    """

    samples: int = 1000
    simulated: int = 500
    split: int = 0
    nuts: int = 0
    nuts_samples: int = 500
    only: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.only:
            if name not in CHECKS:
                raise InputError("a known check", repr(name), nearest(name, CHECKS))
        if self.samples < 1:
            raise InputError("at least one sample per datum", str(self.samples), "use --samples 1000")
        for name in ("simulated", "split", "nuts"):
            if getattr(self, name) < 0:
                raise InputError(f"a number of data, 0 or more, for {name}", str(getattr(self, name)), "use 0 for none")


@dataclass(frozen=True)
class Known:
    """What is known of the data and of the training, for checks that need it.

    Args:
        probabilities: q(y | x) of the data, shape (N, K), where there is a classifier.
        labels: their classes, shape (N,).
        iterates: the iterates of the parameters, shape (T, K), the whole way; the second half of it is looked at.
        names: the names of the parameters.
    """

    probabilities: Tensor | None = None
    labels: Tensor | None = None
    iterates: Tensor | None = None
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Labels:
    """What q(y | x) is worth on data with labels.

    Args:
        accuracy: the share of labels that it gets right.
        reliability: how often it is right, by how sure it is.
        confusion: how often a datum of a class (the row) is taken for each class, shape (K, K).
    """

    accuracy: float
    reliability: Reliability
    confusion: Tensor


@dataclass(frozen=True)
class Criticism:
    """What was found of a guide, check by check; None is what was left out or cannot be said.

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
        >>> found.importance.k_hat.shape, found.chains  # a figure per datum; NUTS was not asked for
        (torch.Size([30]), None)
    """

    importance: Importance
    calibration: SBC | None
    latents: LatentUse | None
    aggregate: AggregatePosterior | None
    chains: Chains | None
    gap: InferenceGap | None
    convergence: Convergence | None
    labels: Labels | None
    checks: tuple[Check, ...]

    @property
    def verdict(self) -> Verdict:
        """On the posterior: the worst of the checks of it."""
        return Verdict.worst(check.verdict for check in self.checks if check.group == "posterior" and check.verdict)

    @property
    def worst(self) -> Tensor:
        """The rows of the data, those with the largest k-hat first, shape (N,)."""
        return self.importance.k_hat.argsort(descending=True)

    def __str__(self) -> str:
        width = max(len(check.name) for check in self.checks)
        lines = [f"{c.name:{width}}  {_word(c.verdict):13}  {c.finding}" for c in self.checks]
        return "\n".join([*lines, f"{'the posterior':{width}}  {self.verdict.value}"])

    def as_dict(self) -> dict[str, Any]:
        """The verdict, and the figures of every check; those that are not finite are None."""
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
    known: Known | None = None,
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
    critic = _Critic(probed, x, effort or Effort(), known or Known(), seed)
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


class _Critic:
    """Makes the checks, one after another."""

    def __init__(self, probed: ProbedPair, x: Tensor, effort: Effort, known: Known, seed: int) -> None:
        self.probed, self.x = probed, x
        self.effort, self.known, self.seed = effort, known, seed
        self.per_datum = probed.data_dim is not None and bool(probed.continuous)
        self.checks: list[Check] = []
        self.made = {name for name, (possible, *_) in self._needs().items() if possible}
        for name in effort.only:
            possible, needs, mend = self._needs()[name]
            if not possible:
                raise InputError(f"{needs}, for the check {name!r}", "none, or too few", f"leave it out, or {mend}")
        if effort.only:
            self.made &= set(effort.only)

    def _needs(self) -> dict[str, tuple[bool, str, str]]:
        """For each check, whether it can be made, what it needs, and where that comes from."""
        num_rows = len(self.x) if self.per_datum else 0
        iterates = 0 if self.known.iterates is None else len(self.known.iterates)
        labelled = self.known.probabilities is not None and self.known.labels is not None
        return {
            "gap": (self.effort.split > 0 and self.per_datum, "data to split the gap of", "use --split-gap 100"),
            "calibration": (self.effort.simulated > 0, "simulated data", "use --simulated 500"),
            "nuts": (self.effort.nuts > 0, "data to draw for", "use --nuts 16"),
            "latents": (num_rows >= 2, "two data or more", "give more data"),
            "aggregate": (num_rows >= FEWEST_AGGREGATED, f"{FEWEST_AGGREGATED} data or more", "give more data"),
            "convergence": (iterates >= 2 * FEWEST_STEPS, "iterates of the training", "train for longer"),
            "labels": (labelled, "a model with class labels, and labels of the data", "fit --model ss_vae"),
        }

    def weigh(self) -> Importance:
        weights = importance_sample(self.probed, self.x, num_samples=self.effort.samples, seed=self.seed)
        logger.info(f"drew {self.effort.samples:,} importance samples for {weights.log_weights.shape[1]:,} data")
        return weights

    def look_at_latents(self) -> LatentUse | None:
        """What the latents are used for, which the gaps are measured against, too."""
        if not self._needs()["latents"][0]:
            return None
        found = latent_use(self.probed, self.x, seed=self.seed)
        if "latents" in self.made:
            self.checks.append(judge_latent_units(found))
        return found

    def judge_weights(self, weights: Importance, dimensions: int) -> None:
        self.checks += [judge_weights(weights), judge_k_hat(weights), judge_gap(weights, dimensions)]
        self.checks.append(judge_moments(weights))

    def split_gap(self, dimensions: int) -> InferenceGap | None:
        if "gap" not in self.made:
            return None
        x = self.x[: self.effort.split]
        return self._try(
            "gap, split",
            lambda: inference_gap(self.probed, x, seed=self.seed),
            lambda found: judge_split(found, dimensions),
        )

    def calibrate(self) -> SBC | None:
        if "calibration" not in self.made:
            return None

        def make() -> SBC:
            return simulation_based_calibration(
                self.probed, self.x, self.effort.simulated, num_null=NULL_DRAWS, seed=self.seed
            )

        found = self._try("calibration (SBC)", make, judge_calibration)
        logger.info(f"checked the calibration on {self.effort.simulated:,} simulated data")
        return found

    def run_chains(self, weights: Importance) -> Chains | None:
        if "nuts" not in self.made:
            return None
        x, draws = self.x[: self.effort.nuts] if self.per_datum else self.x, self.effort.nuts_samples
        return self._try(
            "NUTS",
            lambda: nuts(Target(self.probed, x), draws, draws, seed=self.seed),
            lambda found: judge_chains(*_against(found, weights), found),
        )

    def compare_aggregate(self) -> AggregatePosterior | None:
        if "aggregate" not in self.made:
            return None
        return self._try(
            "aggregate posterior",
            lambda: aggregate_posterior(self.probed, self.x, seed=self.seed),
            judge_aggregate,
        )

    def look_at_iterates(self) -> Convergence | None:
        if "convergence" not in self.made:
            return None
        assert self.known.iterates is not None
        later = self.known.iterates[len(self.known.iterates) // 2 :]
        return self._try("convergence (SVI)", lambda: convergence(later, names=self.known.names), judge_convergence)

    def judge_labels(self) -> Labels | None:
        if "labels" not in self.made:
            return None
        assert self.known.probabilities is not None
        assert self.known.labels is not None
        rows = (self.known.probabilities.cpu(), self.known.labels.cpu())
        found = Labels(accuracy(*rows), reliability(*rows), confusion_matrix(*rows))
        self.checks.append(judge_labels(found.accuracy, found.reliability))
        return found

    def _try(self, name: str, make: Callable[[], R], check: Callable[[R], Check]) -> R | None:
        """A result, with its check among the others; one that cannot be made says why."""
        try:
            found = make()
        except PyroVAEError as error:
            self.checks.append(Check(name, None, f"not made: {error}"))
            return None
        self.checks.append(check(found))
        return found


def _against(chains: Chains, weights: Importance) -> tuple[Tensor, Tensor]:
    """The guide's mean error and ratio of standard deviations against chains, per datum, shape (n,)."""
    draws = chains.draws.double().cpu()
    mean, sd = draws.mean(0), draws.std(0)
    u = weights.u[:, : len(mean)].double()
    error = ((u.mean(0) - mean) / sd).square().mean(-1).sqrt()
    return error, (u.std(0).log() - sd.log()).mean(-1).exp()


def _word(verdict: Verdict | None) -> str:
    return "-" if verdict is None else verdict.value
