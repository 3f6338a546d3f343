"""Checkpoints that are written beside the training: a copy of the state, and a thread that takes it to the disk.

1. When the steps of an epoch are over, the thread copies what steps alone change, parameters and the optimizer's state,
   into memory kept for that, while the trainer validates and draws.
2. When a checkpoint is due, training waits for the end of that copy, adds what is small, and goes on; the thread writes
   the history, the files and the pointer, in the order in which ``RunFolder.save`` does.
3. There is one thread and one copy.  Whoever is next waits: a copy for the checkpoint before it, and so a checkpoint
   that is due while another is being written.  Nothing else writes into the run directory meanwhile.

What fails there is raised in the training at its next step, as the error that it is.  A small state is written at
once, in the training itself: a thread beside it would cost the next steps more than they wait.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from pyro_vae.runs.checkpoint import bytes_of
from pyro_vae.runs.folder import RunFolder

Place = tuple[int, tuple[int, ...], torch.dtype]
SMALL = 4_000_000  # bytes


class Saver:
    """Writes the checkpoints of a training, which holds the right to write its directory for as long.

    Args:
        folder: the run directory; None: nothing is written.
    """

    def __init__(self, folder: RunFolder | None) -> None:
        self._folder = folder
        self._memory: dict[Place, Tensor] = {}
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._copying: Future[None] | None = None

    def _submit(self, work: Callable[..., None], *arguments: Any) -> Future[None]:
        if self._pid != os.getpid():  # a process that was forked has no such thread; the folder will refuse it
            self._begin()
        return self._thread.submit(work, *arguments)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._thread.shutdown()  # which waits

    def copy(self, tensors: Sequence[Tensor]) -> None:
        """Begin to copy what stays as it is until the next checkpoint is saved."""
        if self._folder is not None and _size(tensors) >= SMALL:
            self._copying = self._submit(self._copy, list(tensors))

    def save(self, weights: dict[str, Tensor], training: dict[str, Any], best: bool) -> None:
        """Begin to write a checkpoint of a state, which may change from here on.

        Args:
            weights: what ``Pair.state_dict`` gives.
            training: what ``Trainer.state_dict`` gives.
            best: whether this is the best epoch so far.

        Raises:
            TrainingError: if the one before could not be written, or this one, where it is small.
        """
        if self._folder is None:
            return
        self.wait()
        if self._copying is None and _size(weights.values()) < SMALL:
            self._folder.save(weights, training, best)
            return
        copied = self._copied()
        progress = training["progress"] | {"history": list(training["progress"]["history"])}
        state = {name: _kept(value, copied) for name, value in training.items() if name != "progress"}
        self._writing = self._submit(self._folder.save, _kept(weights, copied), state | {"progress": progress}, best)

    def check(self) -> None:
        """See whether what was written by now is on the disk.

        Raises:
            TrainingError: if it could not be written.
        """
        if self._writing is not None and self._writing.done():
            self.wait()

    def wait(self) -> None:
        """Wait until the checkpoint that is being written, if any, is on the disk.

        Raises:
            TrainingError: if it cannot be written.
        """
        writing, self._writing = self._writing, None
        if writing is not None and self._pid == os.getpid():
            writing.result()

    def _copied(self) -> dict[Place, Tensor]:
        """What was copied for this checkpoint."""
        copying, self._copying = self._copying, None
        if copying is None or self._pid != os.getpid():
            return {}
        copying.result()
        return self._memory

    def _copy(self, tensors: list[Tensor]) -> None:
        before, self._memory = self._memory, {}
        for tensor in tensors:
            place = _place(tensor)
            memory = before.get(place)
            if memory is None:
                memory = torch.empty_like(tensor, device="cpu", requires_grad=False)
            if tensor.is_cpu and tensor.is_contiguous():
                np.copyto(bytes_of(memory), bytes_of(tensor))  # on one core, and others run meanwhile
            else:
                memory.copy_(tensor.detach())
            self._memory[place] = memory


def _kept(value: Any, copied: dict[Place, Tensor]) -> Any:
    """A state that nobody else changes: tensors as they were copied, others copied now."""
    if isinstance(value, Tensor):
        return copied[_place(value)] if _place(value) in copied else value.detach().cpu().clone()
    if isinstance(value, dict):
        return {name: _kept(each, copied) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_kept(each, copied) for each in value)
    return value


def _size(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _place(tensor: Tensor) -> Place:
    return tensor.data_ptr(), tuple(tensor.shape), tensor.dtype
