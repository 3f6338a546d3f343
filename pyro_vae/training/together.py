"""What processes that train together share at the start, at the end of each epoch, and in a checkpoint.

Layers that normalize by their batch see the rows of their own process, as they do in torch's data-parallel training;
their running statistics are the means over processes, taken at the end of every epoch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyro_vae.distributed import Part, World
from pyro_vae.pairs.pair import Pair
from pyro_vae.training.averaging import Averaging, NoAverage

logger = logging.getLogger(__name__)


class Together:
    """The part of a training that processes share, of which all have the same parameters from here on.

    Args:
        world: the processes.
        pair: the programs that they train.
    """

    def __init__(self, world: World, pair: Pair) -> None:
        self.world, self.noise, self._pair = world, world.new_noise(), pair
        self._average: Averaging = NoAverage(pair)
        world.share(list(pair.state_dict().values()))

    def follow(self, average: Averaging) -> None:
        """Share the averages of running statistics, too."""
        self._average = average

    def begin(self, loss_of: Callable[[Part], Tensor]) -> None:
        """See how a step draws its noise.

        Args:
            loss_of: the loss of a part of a small batch, weighted, without a trace and with the same noise each time.
        """
        self.noise.learn(loss_of)
        if all(self.world.gather(self.noise.is_exact)):
            return
        self.noise.is_exact = False
        self._draw_apart()
        logger.info(
            f"Each of the {self.world.size} processes takes its rows as a batch of their own, with noise of its own: "
            "the loss of a batch of these programs is not made up of the losses of its parts"
        )

    def close_epoch(self) -> None:
        """Give all processes the mean of the running statistics."""
        self.world.average([buffer for buffer in self._buffers() if buffer.is_floating_point()])

    def state_dict(self) -> dict[str, Any]:
        """What each process has of its own, where these are not all alike; all processes call it."""
        mine = {"random": torch.get_rng_state(), "buffers": [buffer.cpu() for buffer in self._buffers()]}
        ranks = self.world.gather(mine)
        first = _flat(ranks[0])
        return {} if all(all(map(torch.equal, _flat(each), first)) for each in ranks) else {"ranks": ranks}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what each process had of its own, where there are as many as there were."""
        ranks = state.get("ranks", [])
        if len(ranks) == self.world.size:
            mine = ranks[self.world.rank]
            torch.set_rng_state(mine["random"])
            with torch.no_grad():
                for buffer, value in zip(self._buffers(), mine["buffers"], strict=True):
                    buffer.copy_(value)
        elif not self.noise.is_exact:
            self._draw_apart()

    def _draw_apart(self) -> None:
        """Let each process draw noise of its own from here on."""
        torch.manual_seed(int(torch.randint(2**62, ())) + self.world.rank)

    def _buffers(self) -> list[Tensor]:
        buffers = [buffer for module in self._pair.all_modules().values() for buffer in module.buffers()]
        return [*buffers, *self._average.of(buffers)]


def _flat(state: dict[str, Any]) -> list[Tensor]:
    return [state["random"], *state["buffers"]]
