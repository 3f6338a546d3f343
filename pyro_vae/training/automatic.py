"""How long to train where nothing is said: what ``auto`` means for epochs, beta and patience.

Training is as long as its number of steps.  ``epochs`` are 80 passes over the training rows, but no fewer than 3,000
steps, which small sets need, and no more than 40,000; from 800 to 10,000 where labels are summed over, for a step
costs more there.  Over the first quarter of them beta rises from 0 to 1, so that the decoder finds a use for the
latents before their cost counts in full (Sonderby et al., *Ladder Variational Autoencoders*, 2016).  Training stops
early after a quarter of the epochs, and no fewer than five, without progress.
"""

from __future__ import annotations

from typing import TypeVar

from pyro_vae.config import TrainingConfig

PASSES = 80
STEPS, ENUMERATED_STEPS = (3_000, 40_000), (800, 10_000)  # the fewest and the most
WARM_UP = 0.25  # of the epochs
PATIENCE, MIN_PATIENCE = 0.25, 5  # of the epochs, and epochs

C = TypeVar("C", bound=TrainingConfig)


def settle(config: C, num_steps: int, enumerated: bool) -> C:
    """The configuration with a number of epochs, a schedule and a patience in the place of ``auto``.

    Args:
        config: what was asked for.
        num_steps: the steps of an epoch.
        enumerated: whether a step sums over the values of a discrete site.
    """
    settled: dict[str, object] = {}
    epochs = auto_epochs(num_steps, enumerated) if config.epochs == "auto" else config.epochs
    settled["epochs"] = epochs
    if config.beta == "auto":
        settled["beta"] = f"linear:0:1:{max(1, round(WARM_UP * epochs))}" if epochs > 1 else 1.0
    if config.patience == "auto":
        settled["patience"] = max(MIN_PATIENCE, round(PATIENCE * epochs))
    return config.model_copy(update=settled)


def auto_epochs(num_steps: int, enumerated: bool) -> int:
    """The number of epochs of ``auto``; arguments as for ``settle``."""
    fewest, most = ENUMERATED_STEPS if enumerated else STEPS
    return max(1, round(min(max(PASSES * num_steps, fewest), most) / num_steps))
