r"""What is wrong with a finished run, and what would mend it.

Each check compares a number with a threshold, and says nothing where the number is on the right side of it:

- *latents that carry nothing*: see ``latent``;
- *a curve that still rises*: the best validation score of the last fifth of the epochs is above the best one before by
  more than 2 % of what training gained since its first epoch;
- *a curve that fell*: the last score is below the best one by more than 2 % of that;
- *an unsure classifier*: the mean of max_y q(y | x) is below 0.75;
- *a miscalibrated classifier*: its expected calibration error is above 0.05 and what chance makes of N data in M bins,
  which by the Cauchy-Schwarz inequality is at most sqrt(M c (1 - c) / N) on average for a calibrated one of mean
  confidence c.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from pyro_vae.diagnostics.classifier import NUM_BINS, accuracy, expected_calibration_error
from pyro_vae.diagnostics.latent_units import LatentUse
from pyro_vae.shapes import Float, Shaped

LAST = 0.2  # of the epochs
RISE, FALL = 0.02, 0.02  # of what training gained; the fall of the rate alone brings about 1 % at the end
LEAST_GAIN = 0.1  # nats
LEAST_CONFIDENCE = 0.75
LARGEST_ECE = 0.05


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a run.

    Args:
        kind: a short name.
        found: what was found, in a sentence.
        mend: what would mend it.
    """

    kind: str
    found: str
    mend: str

    def __str__(self) -> str:
        return f"{self.found}; {self.mend}"


def judge_latents(use: LatentUse) -> list[Finding]:
    """Whether latent sites carry nothing."""
    return [Finding("collapse", *site.fault) for site in use.sites if site.fault]


def judge_curve(
    scores: Sequence[float], warm_up: float, stopped_early: bool, keeps_last: bool = False
) -> list[Finding]:
    """Whether training was too short or too long.

    Args:
        scores: the validation score after each epoch, nats per datum, higher is better.
        warm_up: after how many epochs beta stays where it is; the best epoch comes later.
        stopped_early: whether training ended by itself.
        keeps_last: whether the weights of the last epoch are kept, and not those of the best.
    """
    num_epochs, first = len(scores), min(int(warm_up), len(scores) - 1)
    if num_epochs < 2 or not all(map(math.isfinite, scores)):
        return []
    later = scores[first:]
    best_epoch = first + max(range(len(later)), key=later.__getitem__) + 1
    best, gained = scores[best_epoch - 1], max(max(scores) - scores[0], LEAST_GAIN)
    start = min(num_epochs - max(1, round(LAST * num_epochs)), num_epochs - 1)
    rise = best - max(scores[:start], default=best)
    if not stopped_early and best_epoch > start and rise > max(RISE * gained, LEAST_GAIN):
        last = f"{num_epochs - start} epochs" if start < num_epochs - 1 else "epoch"
        return [
            Finding(
                "still rising",
                f"the validation ELBO still rises: by {rise:.2f} nats over the last {last}",
                f"train longer: --epochs {2 * num_epochs}",
            )
        ]
    fall = best - scores[-1]
    if fall > max(FALL * gained, LEAST_GAIN):
        return [
            Finding(
                "overfitting",
                f"the validation ELBO was best after epoch {best_epoch} of {num_epochs} "
                f"and fell by {fall:.2f} nats since",
                "those of the last one are kept; fewer epochs, or more data"
                if keeps_last
                else f"the weights of epoch {best_epoch} are kept; fewer epochs, a smaller --network or more data "
                "would do as well",
            )
        ]
    return []


def judge_classifier(probabilities: Float[Tensor, "N K"], labels: Shaped[Tensor, "N"]) -> list[Finding]:
    """Whether q(y | x) is unsure, or as sure as it should not be.

    Args:
        probabilities: q(y | x) of shape (N, K).
        labels: the classes, shape (N,).
    """
    right, confidence = accuracy(probabilities, labels), probabilities.amax(-1).mean().item()
    findings = []
    if confidence < LEAST_CONFIDENCE:
        findings.append(
            Finding(
                "unsure classifier",
                f"the classifier is unsure: it gives its answers a probability of {100 * confidence:.0f} % on average",
                "give it more labels (--labels) or train longer (--epochs)",
            )
        )
    error = expected_calibration_error(probabilities, labels)
    by_chance = math.sqrt(NUM_BINS * max(0.0, confidence * (1 - confidence)) / len(labels))
    if error > LARGEST_ECE + by_chance:
        how = "too sure" if confidence > right else "too doubtful"
        findings.append(
            Finding(
                "miscalibrated classifier",
                f"the classifier is {how}: right in {100 * right:.0f} % of cases, and sure by {100 * confidence:.0f} % "
                f"on average (ECE {error:.2f})",
                "do not read its probabilities as they stand; more labels (--labels) mend it best",
            )
        )
    return findings
