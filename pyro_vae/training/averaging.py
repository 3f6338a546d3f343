r"""Weights averaged over training, which are judged, saved and used in the place of those that train.

The average a of weights theta is exponential (Polyak and Juditsky, *Acceleration of Stochastic Approximation by
Averaging*, 1992, on the mean itself),

    a <- a + (1 - d) (theta - a)

at every step; here at every k-th, with d^k in the place of d, which is nearly the same and costs a k-th.  While
training is young the share is larger, 9 / (8 + u) at the u-th update, an average over the last ninth of the training,
so that the weights of the very beginning are forgotten.  Running statistics of networks are averaged alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from pyro_vae.pairs.pair import Pair

EVERY = 10  # steps
FORGETTING = 9  # the part of a short training that is averaged is one of so many


class Averaging(Protocol):
    """What keeps an average of a pair's weights, or none."""

    def after_step(self) -> None:
        """Note the weights after a step."""

    def in_use(self) -> Any:
        """A context in which the pair has the averages."""

    def of(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        """The averages of some of the pair's tensors, themselves; none where none are kept."""
        return ()

    def state_dict(self) -> dict[str, Any]:
        """The state to resume from, beside the averages: the weights that train."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what ``state_dict`` gave, into a pair that has the averages now."""


class NoAverage:
    """The weights as they are."""

    def after_step(self) -> None:
        pass

    @contextmanager
    def in_use(self) -> Iterator[None]:
        yield

    def of(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        return ()

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class ExponentialAverage:
    """An exponential moving average of a pair's weights.

    Args:
        pair: the model and the guide, which have run.
        decay: d, from 0 to 1: how much of the average a step keeps.
        num_steps: the steps of an epoch.
    """

    def __init__(self, pair: Pair, decay: float, num_steps: int) -> None:
        self._live = {name: value for name, value in pair.state_dict().items() if value.is_floating_point()}
        self._averages = {name: value.clone() for name, value in self._live.items()}
        self._every = min(EVERY, num_steps)
        self._least = 1 - decay**self._every
        self._steps = 0

    @torch.no_grad()
    def after_step(self) -> None:
        self._steps += 1
        updates, rest = divmod(self._steps, self._every)
        if rest == 0:
            share = min(1.0, max(self._least, FORGETTING / (FORGETTING - 1 + updates)))
            for name, average in self._averages.items():
                average.lerp_(self._live[name], share)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        raw = {name: value.clone() for name, value in self._live.items()}
        self._put(self._averages)
        try:
            yield
        finally:
            self._put(raw)

    def of(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        places = {tensor.data_ptr() for tensor in tensors}
        return [average for name, average in self._averages.items() if self._live[name].data_ptr() in places]

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self._steps, "weights": {name: value.clone() for name, value in self._live.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in self._live.items():
            self._averages[name].copy_(value)
        self._steps = state["steps"]
        self._put(state["weights"])

    @torch.no_grad()
    def _put(self, values: dict[str, Tensor]) -> None:
        for name, value in self._live.items():
            value.copy_(values[name])


def averaging(pair: Pair, decay: float, num_steps: int) -> Averaging:
    """What keeps the average that is asked for; arguments as for ``ExponentialAverage``, and 0 for none."""
    return ExponentialAverage(pair, decay, num_steps) if decay else NoAverage()
