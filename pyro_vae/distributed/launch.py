"""What ``torchrun`` says to a process, and the little that its processes share before they are a group, and after.

``torchrun`` keeps a store of small values for the processes that it starts, which outlives each of them.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

STARTED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_PATIENCE = timedelta(seconds=5)
_SAID, _RUN = "pyro_vae/said", "pyro_vae/run"


def is_one_of_several() -> bool:
    """Whether this process was started as one of several.

    Example:
        >>> from pyro_vae.distributed import is_one_of_several
        >>> is_one_of_several()
        False
    """
    size = os.environ.get("WORLD_SIZE", "1")
    return all(name in os.environ for name in STARTED) and size.isdecimal() and int(size) > 1


def may_speak() -> bool:
    """Whether this process is the one that says what went wrong: of several the first that asks.

    Example:
        >>> from pyro_vae.distributed import may_speak
        >>> may_speak()  # for nobody else is there
        True
    """
    if not is_one_of_several():
        return True
    try:
        return bool(_store().add(f"{_SAID}/{attempt()}", 1) == 1)
    except Exception:  # of whatever kind: a store that is gone with whoever kept it
        return True


def note_run(path: str) -> None:
    """Let processes that ``torchrun`` starts again know of the run that these train; alone there is nobody to know.

    Example:
        >>> from pyro_vae.distributed import note_run, run_before
        >>> note_run("runs/vae")
        >>> run_before() is None
        True
    """
    if is_one_of_several():
        _store().set(_RUN, path)


def run_before() -> str | None:
    """The run that was under way when ``torchrun`` had to start its processes again; None where it had not.

    Example:
        >>> from pyro_vae.distributed import run_before
        >>> run_before() is None
        True
    """
    if not is_one_of_several() or attempt() == 0:
        return None
    store = _store()
    return store.get(_RUN).decode() if store.check([_RUN]) else None


def attempt() -> int:
    """The number of times that ``torchrun`` has started its processes before this one."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def _store() -> Any:
    import torch.distributed as distributed  # late: errors of usage are said without torch

    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store: Any = getattr(distributed, "TCPStore")  # noqa: B009, which it hands on without saying so
    return store(address, port, is_master=False, timeout=_PATIENCE, wait_for_workers=False)
