"""The checks of a pair on some data, made one after another; what follows from their metrics is in ``verdicts``."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from pyro_vae.diagnostics.aggregate import FEWEST_AGGREGATED, AggregatePosterior, aggregate_posterior
from pyro_vae.diagnostics.classifier import Reliability, accuracy, confusion_matrix, reliability
from pyro_vae.diagnostics.convergence import FEWEST_STEPS, Convergence, convergence
from pyro_vae.diagnostics.effort import Effort, TrainingFacts
from pyro_vae.diagnostics.gaps import InferenceGap, inference_gap
from pyro_vae.diagnostics.importance import Importance, importance_sample
from pyro_vae.diagnostics.latent_units import LatentUse, latent_use
from pyro_vae.diagnostics.sbc import SBC, simulation_based_calibration
from pyro_vae.diagnostics.verdicts import (
    Check,
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
)
from pyro_vae.errors import InputError, PyroVAEError
from pyro_vae.pairs.vectorized import check_densities
from pyro_vae.posterior.mcmc import Chains, nuts
from pyro_vae.posterior.target import Target
from pyro_vae.shapes import Float, Int

logger = logging.getLogger(__name__)

R = TypeVar("R")
NULL_DRAWS = 999  # of a test's law: p-values down to 0.001


@dataclass(frozen=True)
class LabelQuality:
    """The quality of q(y | x) on data with labels.

    Args:
        accuracy: the share of labels that it gets right.
        reliability: how often it is right, by how sure it is.
        confusion: how often a datum of a class (the row) is taken for each class, shape (K, K).
    """

    accuracy: float
    reliability: Reliability
    confusion: Int[Tensor, "K K"]


class Critic:
    """Makes the checks, one after another, all of the same posterior or of its first rows.

    Args:
        target: the posterior of the data.
        effort: how much of each check to make.
        known: labels and iterates, where there are any.
        seed: the seed of every draw.
    """

    def __init__(self, target: Target, effort: Effort, known: TrainingFacts, seed: int) -> None:
        check_densities(target.probed)
        self.target, self.probed, self.x = target, target.probed, target.x
        self.effort, self.known, self.seed = effort, known, seed
        self.per_datum = self.probed.data_dim is not None and bool(self.probed.continuous)
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
        weights = importance_sample(self.target, num_samples=self.effort.samples, seed=self.seed)
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
        return self._try(
            "gap, split",
            lambda: inference_gap(self.target.first(self.effort.split), seed=self.seed),
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
        draws = self.effort.nuts_samples
        return self._try(
            "NUTS",
            lambda: nuts(self.target.first(self.effort.nuts), draws, draws, seed=self.seed),
            lambda found: judge_chains(*_against(found, weights), found),
        )

    def compare_aggregate(self) -> AggregatePosterior | None:
        if "aggregate" not in self.made:
            return None
        return self._try(
            "aggregate posterior",
            lambda: aggregate_posterior(self.target, seed=self.seed),
            judge_aggregate,
        )

    def look_at_iterates(self) -> Convergence | None:
        if "convergence" not in self.made:
            return None
        assert self.known.iterates is not None
        later = self.known.iterates[len(self.known.iterates) // 2 :]
        return self._try("convergence (SVI)", lambda: convergence(later, names=self.known.names), judge_convergence)

    def judge_labels(self) -> LabelQuality | None:
        if "labels" not in self.made:
            return None
        assert self.known.probabilities is not None
        assert self.known.labels is not None
        rows = (self.known.probabilities.cpu(), self.known.labels.cpu())
        found = LabelQuality(accuracy(*rows), reliability(*rows), confusion_matrix(*rows))
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


def _against(chains: Chains, weights: Importance) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
    """The guide's mean error and ratio of standard deviations against chains, per datum, shape (n,)."""
    draws = chains.draws.double().cpu()
    mean, sd = draws.mean(0), draws.std(0)
    u = weights.u[:, : len(mean)].double()
    error = ((u.mean(0) - mean) / sd).square().mean(-1).sqrt()
    return error, (u.std(0).log() - sd.log()).mean(-1).exp()
