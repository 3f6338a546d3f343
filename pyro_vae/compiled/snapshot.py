"""Noise and tensors as they are, to go back to: a recording is a real run, and leaves its marks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any

import pyro
import torch
import torch.utils._pytree as pytree
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class Snapshot:
    """The state of some programs, as it was when this was made.

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


def torch_noise() -> Callable[[], None]:
    """What puts torch's generators back to where they are now; a graph draws from no other ones."""
    noise = torch.get_rng_state()
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []

    def restore() -> None:
        torch.set_rng_state(noise)
        if devices:
            torch.cuda.set_rng_state_all(devices)

    return restore


# Operations that write to their running statistics, and do not say so.
_STATISTICS = {"native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm"}


class Writes(TorchDispatchMode):
    """What a run writes to tensors that were there before, kept as it was: nothing else is copied.

    Used around a run, ``with Writes() as writes: ...``, after which ``writes.restore()`` undoes it.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._noise = Snapshot(())
        self._made: set[int] = set()  # storages of the run's own
        self._kept: dict[Any, tuple[Tensor, Tensor]] = {}
        self._after: list[Tensor] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        for tensor in written(func, args, kwargs or {}):
            self._keep(tensor)
        result = func(*args, **(kwargs or {}))
        if not any(value.alias_info for value in func._schema.returns):
            leaves = (result,) if isinstance(result, Tensor) else pytree.tree_leaves(result)
            self._made.update(storage(leaf) for leaf in leaves if _has_storage(leaf))
        return result

    def storages(self) -> set[int]:
        """The storages that were written to."""
        return {storage(tensor) for tensor, _ in self._kept.values()}

    def restore(self) -> None:
        """Undo what the run did to tensors and to the random states."""
        self._noise.restore()
        with torch.no_grad():
            for tensor, value in reversed(self._kept.values()):
                tensor.copy_(value)

    def _keep(self, tensor: Tensor) -> None:
        if not _has_storage(tensor) or storage(tensor) in self._made or tensor.numel() == 0:
            return
        place = (storage(tensor), tensor.storage_offset(), tensor.shape, tensor.stride())
        if place not in self._kept:
            with torch.no_grad():
                plain = tensor.detach()
                self._kept[place] = plain, plain.clone()


def written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Any]:
    """The arguments of an operation that it writes to; tensors, or nodes of a graph in their place."""
    for i, name in _written_to(func):
        value = args[i] if i < len(args) else kwargs.get(name)
        if value is not None:
            yield from value if isinstance(value, (list, tuple)) else (value,)


@cache
def _written_to(func: Any) -> tuple[tuple[int, str], ...]:
    """The places and names of the arguments that an operation writes to."""
    has_statistics = func._schema.name.split("::")[-1] in _STATISTICS

    def is_written(argument: Any) -> bool:
        said = argument.alias_info is not None and argument.alias_info.is_write
        return said or (has_statistics and argument.name.startswith("running_"))

    return tuple((i, argument.name) for i, argument in enumerate(func._schema.arguments) if is_written(argument))


def storage(tensor: Tensor) -> int:
    """The memory of a tensor, as a number."""
    return tensor.untyped_storage()._cdata


def _has_storage(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.layout is torch.strided and leaf.device.type != "meta"
