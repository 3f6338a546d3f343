r"""Weights averaged over training, which are judged, saved and used in the place of those that train.

The average a of weights theta is exponential (Polyak and Juditsky, *Acceleration of Stochastic Approximation by
Averaging*, 1992, on the mean itself),

    a <- a + (1 - d) (theta - a)

at every step; here at every k-th, with d^k in the place of d, which is nearly the same and costs a k-th.  While
training is young the share is larger, 9 / (8 + u) at the u-th update, an average over the last ninth of the training,
so that the weights of the very beginning are forgotten.  Running statistics of networks are averaged alike.

The average answers better than the weights that train, so it is their teacher where a loss asks for the same answer
(Tarvainen and Valpola, *Mean Teachers Are Better Role Models*, 2017): a copy of the guide whose weights are the
averages themselves.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import chain
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pyro_vae.pairs.pair import Pair

EVERY = 10  # steps
FORGETTING = 9  # the part of a short training that is averaged is one of so many


class Averaging(Protocol):
    """What keeps an average of a pair's weights, or none."""

    @property
    def teacher(self) -> Pair:
        """A pair whose guide has the averages at any time; the pair itself where none are kept, or it is no module."""

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
    """The weights as they are.

    Args:
        pair: whose.
    """

    def __init__(self, pair: Pair) -> None:
        self._pair = pair

    @property
    def teacher(self) -> Pair:
        return self._pair

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
        self._pair = pair
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

    @cached_property
    def teacher(self) -> Pair:
        if not isinstance(self._pair.guide, nn.Module):
            return self._pair
        guide = copy.deepcopy(self._pair.guide).requires_grad_(False).eval()
        names = {value.data_ptr(): name for name, value in self._live.items()}
        stated: dict[int, Tensor] = {}
        for live, copied in zip(_tensors(self._pair.guide), _tensors(guide), strict=True):
            stated[id(live)] = copied
            if name := names.get(live.data_ptr()):
                copied.detach().copy_(self._averages[name])
                self._averages[name] = copied.detach()
        return self._pair.apart(
            guide,
            {
                name: stated.get(id(value), self._averages.get(f"param.{name}", value))
                for name, value in self._pair.parameters().items()
            },
        )

    @torch.no_grad()
    def _put(self, values: dict[str, Tensor]) -> None:
        for name, value in self._live.items():
            value.copy_(values[name])


def averaging(pair: Pair, decay: float, num_steps: int) -> Averaging:
    """What keeps the average that is asked for; arguments as for ``ExponentialAverage``, and 0 for none."""
    return ExponentialAverage(pair, decay, num_steps) if decay else NoAverage(pair)


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    return chain(module.parameters(), module.buffers())
