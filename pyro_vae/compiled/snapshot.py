"""Noise and tensors as they are, to go back to: a recording is a real run, and leaves its marks."""

from __future__ import annotations

from collections.abc import Iterable

import pyro
import torch
from torch import Tensor


class Snapshot:
    """What it was, when this was made.

    Args:
        tensors: those whose values are kept, beside the random states.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self._noise = pyro.util.get_rng_state()
        self._devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        self._values = [(tensor, tensor.detach().clone()) for tensor in tensors]

    def restore(self) -> None:
        """Put everything back."""
        pyro.util.set_rng_state(self._noise)
        if self._devices:
            torch.cuda.set_rng_state_all(self._devices)
        with torch.no_grad():
            for tensor, value in self._values:
                tensor.copy_(value)
