"""One way to run a graph in the place of another, once both were seen to give the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pyro_vae.compiled.refusals import Untraceable
from pyro_vae.compiled.snapshot import Writes, storage

Flat = Callable[[Sequence[Tensor]], tuple[Tensor, ...]]


def exchanged(now: Flat, make: Callable[[], Flat], values: Sequence[Tensor], held: Sequence[Tensor] = ()) -> Flat:
    """What is made, once it was run beside what runs now, on tensors that are left as they were.

    Args:
        now: what runs now.
        make: makes what is to run in its place.
        values: what both are given.
        held: what both may write to beside these.

    Raises:
        Exception: whatever making and running it raise, and ``Untraceable`` if the two do not agree.
    """
    with Writes() as writes:
        expected = summary(now(values))
    changed = [tensor for tensor in (*values, *held) if storage(tensor) in writes.storages()]
    writes.restore()
    kept = [(tensor, tensor.clone()) for tensor in changed]
    made = make()
    try:
        found = summary(made(values))
    finally:
        writes.restore()
        with torch.no_grad():
            for tensor, value in kept:
                tensor.copy_(value)
    if all(tensor.device.type == "cpu" for tensor in values):  # elsewhere the noise is another
        check_agreement(found, expected)
    return made


def check_agreement(found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    """See that two runs gave the same, but for rounding.

    Raises:
        Untraceable: if they did not.
    """
    for one, other in zip(found, expected, strict=True):
        if not torch.allclose(one, other, rtol=1e-3, atol=1e-6, equal_nan=True):
            raise Untraceable(f"its graph gave {one.item():.6g} where the program gave {other.item():.6g}")


def summary(tensors: Sequence[Tensor]) -> list[Tensor]:
    """One number for each of some tensors, so that runs can be compared without keeping both."""
    return [_norm(tensor.detach()) for tensor in tensors]


def _norm(tensor: Tensor) -> Tensor:
    if tensor.numel() == 1:
        return tensor.to(torch.float64).reshape(())
    return torch.linalg.vector_norm(tensor if tensor.is_floating_point() else tensor.float(), dtype=torch.float64)
