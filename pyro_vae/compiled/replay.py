"""Named figures of tensors, without gradients, as a recorded graph: what is computed again and again on data."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyro
import torch
from torch import Tensor

from pyro_vae.compiled.lowering import CompilableRecording
from pyro_vae.compiled.tracing import record

Figures = dict[str, Tensor]


class Replay(CompilableRecording):
    """A recorded function of inputs of one shape, compiled or as it stands.

    Args:
        function: what to record; it reads the inputs by identity.
        inputs: an example.

    Raises:
        Untraceable: if it cannot be recorded.
    """

    def __init__(self, function: Callable[[], Figures], inputs: Sequence[Tensor]) -> None:
        def values() -> Sequence[Tensor]:
            figures = function()
            self._names = tuple(figures)
            return tuple(figures.values())

        with torch.random.fork_rng(), torch.no_grad(), pyro.validation_enabled(False):
            super().__init__(record(values, inputs), inputs)

    def __call__(self, inputs: Sequence[Tensor]) -> Figures:
        """The figures of other inputs."""
        return dict(zip(self._names, self.run(inputs), strict=True))
