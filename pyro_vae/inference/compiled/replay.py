"""A function of tensors without gradients, as a compiled graph: for what is computed again and again on data."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyro
import torch
from torch import Tensor

from pyro_vae.inference.compiled.lowering import Flat, compile_recording
from pyro_vae.inference.compiled.tracing import Recording, record

Function = Callable[[], Sequence[Tensor]]


class Replay:
    """A compiled function of inputs of one shape.

    Args:
        function: what to compile; it reads the inputs by identity.
        inputs: an example.

    Raises:
        Untraceable: if it cannot be recorded.
    """

    def __init__(self, function: Function, inputs: Sequence[Tensor]) -> None:
        with torch.random.fork_rng(), torch.no_grad(), pyro.validation_enabled(False):
            self.recording: Recording = record(function, inputs)
        self._example = inputs
        self._run: Flat | None = None

    def compile(self) -> None:
        """Compile the recording.

        Raises:
            Exception: whatever the compiler raises.
        """
        self._run = compile_recording(self.recording, self._example)

    def __call__(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        assert self._run is not None
        return self._run(inputs)
