"""Several processes that ``torchrun`` has started, by torch.distributed: gloo on the CPU, NCCL on CUDA.

All gradients of a step, its loss and what the processes want of each other travel in one buffer, so that a step waits
once.  The reduction is an operation of torch, which is recorded and compiled with the rest of the step.
"""

from __future__ import annotations

import atexit
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor

from pyro_vae.compiled.tape import is_recording
from pyro_vae.distributed.launch import attempt, is_one_of_several
from pyro_vae.distributed.noise import RowNoise
from pyro_vae.distributed.shared_memory import SharedSums
from pyro_vae.distributed.world import ALONE, ElsewhereError, LostError, World
from pyro_vae.errors import InputError, PyroVAEError

Result = TypeVar("Result")

MEETING = 60  # seconds that a process waits for the others to come; PYRO_VAE_MEETING says another number
WAITING = timedelta(minutes=30)  # at most for one that works; that one has ended shows at once
MORE_BYTES = 2**14  # of a step's loss, and of what the processes want of each other
HEARD_ON_CUDA = 20  # steps, since looking makes the host wait for the device


class Group(World):
    """The processes that were started together; ``join`` makes it.

    Args:
        rank: the number of this process.
        size: how many there are.
        device: where it trains.

    Example:
        >>> from pyro_vae.distributed import ALONE, join
        >>> join("cpu") is ALONE  # for nobody has started several
        True
    """

    def __init__(self, rank: int, size: int, device: torch.device) -> None:
        super().__init__(rank, size)
        self._wishes, self._heard = torch.zeros(2, device=device), torch.zeros(2, device=device)
        self._looked, self._last = 0, (False, False)
        self._sums = SharedSums(rank, size)
        self._sums.use()

    def new_noise(self) -> RowNoise:
        return RowNoise()

    def mean(
        self, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None], loss: Tensor
    ) -> tuple[Sequence[Tensor | None], Tensor]:
        pairs = list(zip(parameters, gradients, strict=True))
        used = torch.tensor([0.0 if gradient is None else 1.0 for gradient in gradients], device=loss.device)
        sent = [torch.zeros_like(p, requires_grad=False) if g is None else g.detach() for p, g in pairs]
        *found, used, mean_loss, heard = self._means([*sent, used, loss.detach(), self._wishes])
        self._heard.copy_(heard)
        if not is_recording():  # what a recorded step uses is what the processes used in this one
            there = [share > 0 for share in used.tolist()]
        else:
            there = [gradient is not None for gradient in gradients]
        return [gradient if is_there else None for gradient, is_there in zip(found, there, strict=True)], mean_loss

    def _means(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The means over processes, by one reduction for each dtype."""
        means: dict[int, Tensor] = {}
        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
            mine = [i for i, tensor in enumerate(tensors) if tensor.dtype == dtype]
            reduced = self._reduced([tensors[i].reshape(-1) for i in mine])
            pieces = reduced.split([tensors[i].numel() for i in mine])
            means |= {i: piece.view(tensors[i].shape) for i, piece in zip(mine, pieces, strict=True)}
        return [means[i] for i in range(len(tensors))]

    def _reduced(self, parts: list[Tensor]) -> Tensor:
        if self._sums.holds(parts):
            total: Tensor = torch.ops.pyro_vae_distributed.sum_in_memory(parts)
            return total / self.size
        from torch.distributed import _functional_collectives as collectives  # late: half a second

        everybody: Any = torch.distributed.group.WORLD
        return collectives.wait_tensor(collectives.all_reduce(torch.cat(parts), "sum", everybody)) / self.size

    def heard(self, stop: bool, report: bool) -> tuple[bool, bool]:
        self._looked += 1
        if self._heard.device.type == "cpu" or self._looked % HEARD_ON_CUDA == 0:
            stops, reports = self._heard.tolist()
            self._last = stops > 0, reports > 0
        else:
            self._last = self._last[0], False
        self._wishes[0], self._wishes[1] = float(stop), float(report)
        return self._last

    def gather(self, value: Result) -> list[Result]:
        found: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(found, value)
        return found

    def share(self, tensors: Sequence[Tensor]) -> None:
        for tensor in tensors:
            whole = tensor.detach().contiguous()
            torch.distributed.broadcast(whole, 0)
            _put(tensor, whole)
        if self._heard.device.type == "cpu":
            self._sums.make(sum(tensor.nbytes for tensor in tensors) + MORE_BYTES)

    def average(self, tensors: Sequence[Tensor]) -> None:
        for tensor in tensors:
            whole = tensor.detach().clone()
            torch.distributed.all_reduce(whole)
            _put(tensor, whole / self.size)

    def total(self, sums: dict[str, float]) -> dict[str, float]:
        parts = self.gather(sums)
        names = dict.fromkeys(name for part in parts for name in part)
        return {name: sum(part.get(name, 0.0) for part in parts) for name in names}

    def together(self, do: Callable[[], Result]) -> Result:
        error: Exception | None = None
        try:
            result = do()
        except Exception as raised:
            error = raised
        failed = self.gather(None if error is None else getattr(error, "exit_status", 1))
        if error is not None:
            raise error
        status = next((status for status in failed if status is not None), None)
        if status is not None:
            raise ElsewhereError(status)
        return result

    def in_turn(self, do: Callable[[], Result]) -> Result:
        if not self.is_writer:
            self.together(lambda: None)
            return self.together(do)
        result = self.together(do)
        self.together(lambda: None)
        return result

    def check_alike(self, settings: dict[str, str], mend: str) -> None:
        found = self.gather(settings)
        for name, value in found[0].items():
            for rank, others in enumerate(found):
                if others.get(name) != value:
                    raise InputError(
                        f"the same {name} in all {self.size} processes",
                        f"{value} in process 0 and {others.get(name)} in process {rank}",
                        mend,
                    )

    @contextmanager
    def watching(self, path: str | None) -> Iterator[None]:
        try:
            yield
        except PyroVAEError:
            raise
        except RuntimeError as error:
            if not _is_of_the_network(error):
                raise
            raise LostError(self.size, _reason(error), path) from error


def join(device: str = "auto") -> World:
    """The processes that this one was started with by ``torchrun``, or ``ALONE``.

    Args:
        device: auto, cpu or cuda, as the configuration has it; with CUDA each process takes the GPU of its local rank.

    Raises:
        InputError: if the others do not come within a minute, or there are more processes than GPUs.

    Example:
        >>> from pyro_vae.distributed import join
        >>> join("cpu").size
        1
    """
    if not is_one_of_several():
        return ALONE
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    on_cuda = device != "cpu" and torch.cuda.is_available()
    where = _own_gpu() if on_cuda else torch.device("cpu")
    if not torch.distributed.is_initialized():
        _meet("nccl" if on_cuda else "gloo", rank, size)
    return Group(rank, size, where)


def _own_gpu() -> torch.device:
    local, here = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if here > torch.cuda.device_count():
        raise InputError(
            f"at most {torch.cuda.device_count()} processes, one per GPU of this machine",
            str(here),
            f"use --nproc-per-node {torch.cuda.device_count()}, or --device cpu",
        )
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


def _meet(backend: str, rank: int, size: int) -> None:
    address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    distributed: Any = torch.distributed  # which hands on names without saying so
    seconds = float(os.environ.get("PYRO_VAE_MEETING", MEETING))
    try:
        timeout = timedelta(seconds=seconds)
        store, _, _ = next(distributed.rendezvous("env://", timeout=timeout))
        store = distributed.PrefixStore(f"pyro_vae/{attempt()}", store)  # addresses of an attempt before are there
        torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
        _wait_longer()
        atexit.register(_leave)
    except Exception as error:
        raise InputError(
            f"{size} processes that reach each other at {address} within {seconds:g} s",
            f"{_reason(error)} in process {rank}",
            "start as many as WORLD_SIZE says, and let the address be one that all reach",
        ) from None


def _wait_longer() -> None:
    """Let a process that works, and compiles or writes a report for example, be waited for."""
    distributed: Any = torch.distributed
    if hasattr(distributed, "set_timeout"):  # of later versions of torch
        distributed.set_timeout(WAITING)
    else:
        distributed.distributed_c10d._set_pg_timeout(WAITING, distributed.group.WORLD)


def _leave() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _put(tensor: Tensor, value: Tensor) -> None:
    with torch.no_grad():
        tensor.copy_(value)


def _is_of_the_network(error: RuntimeError) -> bool:
    text = str(error).lower()
    words = ("gloo", "nccl", "connection", "socket", "process group", "peer")
    return isinstance(error, torch.distributed.DistError) or any(word in text for word in words)


def _reason(error: BaseException) -> str:
    """What the network says, without the place in its source that it says it from."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    said = re.sub(r"\[\S*\.\w+:\d+\]\s*", "", lines[0]).split(". ")[0].strip()
    return said[:120] or type(error).__name__
