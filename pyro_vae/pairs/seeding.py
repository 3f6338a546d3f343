"""Random states of one's own: noise from a seed, for a while, after which torch goes on as if nobody had drawn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch


def begin_noise(seed: int) -> None:
    """Begin a random state by a seed, as ``torch.manual_seed`` does.

    That seeds every kind of device, and where there is none keeps a stack trace for each in case one appears, a
    millisecond a call; here the CPU alone is seeded where nothing else computes.

    Example:
        >>> begin_noise(0)
        >>> first = torch.randn(3)
        >>> _ = torch.manual_seed(0)
        >>> torch.equal(first, torch.randn(3))
        True
    """
    (torch.manual_seed if _has_accelerator() else torch.default_generator.manual_seed)(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from a random state that a seed begins, and go back to the one before at the end.

    Args:
        seed: as ``torch.manual_seed`` takes it.

    Example:
        >>> with seeded(0):
        ...     first = torch.randn(3)
        >>> with seeded(0):
        ...     torch.equal(first, torch.randn(3))
        True
    """
    with torch.random.fork_rng():
        begin_noise(seed)
        yield


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let code of somebody else run, after which torch draws and computes as if it had not.

    What is kept is the random state, the type of new tensors and whether gradients are recorded.

    Example:
        >>> begin_noise(0)
        >>> with undisturbed():
        ...     first = torch.randn(3)
        >>> torch.equal(first, torch.randn(3))
        True
    """
    dtype, device = torch.get_default_dtype(), [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(device), torch.set_grad_enabled(torch.is_grad_enabled()):
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)


@cache
def _has_accelerator() -> bool:
    return torch.cuda.is_available() or torch.backends.mps.is_available() or torch.xpu.is_available()
