"""What a program does outside of tensors and of what it holds: it reads a clock, writes to a terminal, opens a file.

A graph does none of that again, and no recording sees it.  So the run that a graph is compared with is watched: Python
tells of every call of a function that is written in C, by whatever name or library a program reaches it.
"""

from __future__ import annotations

import datetime
import gc
import io
import sys
from pathlib import Path
from types import FrameType
from typing import Any, Self

_CLOCK = "it reads a clock"
_CLOCKS = ("time", "perf_counter", "monotonic", "process_time", "thread_time", "clock_gettime")
_FUNCTIONS = {  # by module and name
    **{("time", f"{name}{unit}"): _CLOCK for name in _CLOCKS for unit in ("", "_ns")},
    **{("time", name): _CLOCK for name in ("localtime", "gmtime", "ctime", "asctime")},
    **{(system, name): "it looks at files" for system in ("posix", "nt") for name in ("stat", "lstat", "listdir")},
    **{(system, name): "it looks at files" for system in ("posix", "nt") for name in ("scandir", "access", "open")},
    **{(system, "urandom"): "it draws random numbers of the system" for system in ("posix", "nt")},
    **{(module, "open"): "it opens a file" for module in ("io", "_io")},
    ("builtins", "print"): "it prints or logs",
    ("builtins", "input"): "it reads what is typed",
}
_WRITING, _READING = ("write", "writelines"), ("read", "readline", "readlines", "readinto")
_NAMES = {name for _, name in _FUNCTIONS} | {"now", "utcnow", "today", *_WRITING, *_READING}
# What these do in between is not the program's: a warning is written once, a module is read when it is first used.
_PASSED_OVER = {"importlib", "linecache", "tokenize", "warnings"}
_QUIET = {"numpy", "pyro", "pyro_vae", "torch"}


class Outside:
    """Watches a run, ``with Outside() as outside: ...``.

    Where another profiler is at work already, nothing is watched.

    Attributes:
        found: what the run did outside, and where; None for nothing.
    """

    def __init__(self) -> None:
        self.found: str | None = None
        self._watches = self._collects = False

    def __enter__(self) -> Self:
        self._watches, self._collects = sys.getprofile() is None, gc.isenabled()
        if self._watches:
            gc.disable()  # what others have done at each collection would look like the program's doing
            sys.setprofile(self._look)
        return self

    def __exit__(self, *_: object) -> None:
        if self._watches:
            sys.setprofile(None)
            if self._collects:
                gc.enable()

    def _look(self, frame: FrameType, event: str, function: Any) -> None:
        if event == "c_call" and self.found is None and function.__name__ in _NAMES:
            what = _what(function)
            caller = None if what is None else _caller(frame)
            if caller is not None:
                self.found = f"{what} ({Path(caller.f_code.co_filename).name}, line {caller.f_lineno})"


def _what(function: Any) -> str | None:
    """What calling a function of C code does outside; None for nothing."""
    name, owner = function.__name__, getattr(function, "__self__", None)
    if isinstance(owner, type):
        return _CLOCK if issubclass(owner, datetime.date) and name in ("now", "utcnow", "today") else None
    if isinstance(owner, io.IOBase):
        return "it writes to a file or a terminal" if name in _WRITING else "it reads a file or a terminal"
    return _FUNCTIONS.get((getattr(function, "__module__", None) or "", name))


def _caller(frame: FrameType | None) -> FrameType | None:
    """Who had it called, through the standard library; None if that is torch, or nobody's concern."""
    while frame is not None:
        name: str = frame.f_globals.get("__name__", "")
        root = name.split(".")[0]
        if root in _PASSED_OVER or (root in _QUIET and name.split(".")[:3] != ["torch", "utils", "tensorboard"]):
            return None
        if root not in sys.stdlib_module_names and root not in _QUIET:
            return frame
        frame = frame.f_back
    return None
