"""The learning rate of each step: a warm-up, the full rate, and a fall to 0."""

from __future__ import annotations

import math

from pyro_vae.config import TrainingConfig
from pyro_vae.errors import InputError

FALL_STARTS = {"constant": 1.0, "cosine": 0.0, "decay": 0.7}  # where the learning rate begins to fall, of the training


class LearningRate:
    """The rate at each step: ``lr``, and where it falls, a half cosine from there to 0 after the last step.

    The fall takes the whole training (Loshchilov and Hutter, *SGDR*, 2017) or its last part alone, which leaves more
    steps at the full rate (Zhai et al., *Scaling Vision Transformers*, 2022).  Over the first ``lr_warmup`` steps it
    rises in a straight line, so that the first gradients, whose sizes an optimizer does not know yet, move little
    (Goyal et al., *Accurate, Large Minibatch SGD*, 2017).

    Args:
        config: the rate, how it falls, the steps of the warm-up, the epochs.
        num_steps: the steps of an epoch.

    Raises:
        InputError: if the warm-up would take all steps, so that none has the full rate.

    Example:
        >>> from pyro_vae import FitConfig
        >>> from pyro_vae.training.rate import LearningRate
        >>> rate = LearningRate(FitConfig(lr=0.1, lr_warmup=4, epochs=2), num_steps=5)
        >>> [round(rate.at(0, step), 3) for step in range(5)]
        [0.025, 0.05, 0.075, 0.1, 0.1]
    """

    def __init__(self, config: TrainingConfig, num_steps: int) -> None:
        whole = num_steps * config.num_epochs
        if config.lr_warmup >= whole > 0:
            raise InputError(
                f"a warm-up shorter than the {whole:,} steps of the training",
                f"{config.lr_warmup:,}",
                f"use --lr-warmup {whole // 10}, or more --epochs",
            )
        self._lr, self._warm_up, self._start = config.lr, config.lr_warmup, FALL_STARTS[config.lr_schedule]
        self._num_steps, self._num_epochs = num_steps, config.num_epochs

    def at(self, epoch: int, step: int) -> float:
        """The rate of the step that comes next.

        Args:
            epoch: completed epochs.
            step: completed steps of the epoch under way.
        """
        done = (epoch + step / self._num_steps) / self._num_epochs
        fallen = max(0.0, done - self._start) / (1 - self._start) if self._start < 1 else 0.0
        rate = self._lr * (1 + math.cos(math.pi * fallen)) / 2
        made = epoch * self._num_steps + step
        return rate * (made + 1) / self._warm_up if made < self._warm_up else rate
