"""Named functions of tensors, without gradients, as a recorded graph: what is computed again and again on data."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyro
import torch
from torch import Tensor

from pyro_vae.compiled.lowering import CompilableRecording
from pyro_vae.compiled.tracing import record

Named = dict[str, Tensor]


class Replay(CompilableRecording):
    """A recorded function of inputs of one shape, compiled or as it stands.

    Args:
        function: what to record; it reads the inputs by identity.
        inputs: an example.

    Raises:
        Untraceable: if it cannot be recorded.
    """

    def __init__(self, function: Callable[[], Named], inputs: Sequence[Tensor]) -> None:
        def values() -> Sequence[Tensor]:
            named = function()
            self._names = tuple(named)
            return tuple(named.values())

        with torch.random.fork_rng(), torch.no_grad(), pyro.validation_enabled(False):
            super().__init__(record(values, inputs), inputs)

    def fits(self, inputs: Sequence[Tensor]) -> bool:
        """Whether inputs have the shapes of those that it was recorded with."""
        return [value.shape for value in inputs] == [value.shape for value in self._example]

    def __call__(self, inputs: Sequence[Tensor]) -> Named:
        """The named values at other inputs."""
        return dict(zip(self._names, self.run(inputs), strict=True))


def replayed(replay: Replay | None, inputs: Sequence[Tensor], function: Callable[[], Named]) -> Named:
    """The named values of a function, replayed where there is a recording for inputs of these shapes.

    Args:
        replay: the recording, where there is one.
        inputs: what the function is to be replayed with.
        function: the function of just these inputs, which is run otherwise.
    """
    return function() if replay is None or not replay.fits(inputs) else replay(inputs)
