"""What a program does outside of tensors and of what it holds: it reads a clock, writes to a terminal, opens a file.

A graph does none of that again, and no recording sees it.  So the run that a graph is compared with is watched: Python
tells of every call of a function, by whatever name or library a program reaches it.  What a program asks of the whole
process, the number of threads or the level of a logger, is outside, too: it may be another at the next call.

What C code does is not to be seen.  So a program whose own code calls a function of an extension, or a method of
one's object, is taken to do something outside, unless that extension is known to compute only.
"""

from __future__ import annotations

import datetime
import gc
import io
import sys
from collections.abc import Set
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, Self

from pyro_vae.compiled.patches import Patchable

_CLOCK, _FILES = "it reads a clock", "it looks at files"
_SETTING, _VALUE = "it reads a setting of the process", "it reads the value of a tensor"
_CLOCKS = ("time", "perf_counter", "monotonic", "process_time", "thread_time", "clock_gettime")
_OF_FILES = ("stat", "lstat", "listdir", "scandir", "access", "open", "getcwd")
_SYSTEMS = ("posix", "nt")
_FUNCTIONS = {  # in C, by module and name
    **{("time", f"{name}{unit}"): _CLOCK for name in _CLOCKS for unit in ("", "_ns")},
    **{("time", name): _CLOCK for name in ("localtime", "gmtime", "ctime", "asctime")},
    **{(system, name): _FILES for system in _SYSTEMS for name in _OF_FILES},
    **{(system, "urandom"): "it draws random numbers of the system" for system in _SYSTEMS},
    **{(module, "open"): "it opens a file" for module in ("io", "_io")},
    ("builtins", "print"): "it prints or logs",
    ("builtins", "input"): "it reads what is typed",
    ("builtins", "__import__"): "it looks for a module by its name",
    **{("sys", name): _SETTING for name in ("getrecursionlimit", "getswitchinterval")},
    **{("gc", name): _SETTING for name in ("isenabled", "get_count", "get_threshold")},
    **{("torch", name): _SETTING for name in ("get_num_threads", "get_num_interop_threads")},
    ("decimal", "getcontext"): _SETTING,
}
_CALLED_BY_PROGRAMS = {  # in Python, where a program calls them itself, by module and name
    ("importlib", "import_module"): "it looks for a module by its name",
    ("warnings", "_showwarnmsg"): "it warns at every call",  # once only would be over by now
    **{("logging", name): _SETTING for name in ("isEnabledFor", "getEffectiveLevel", "hasHandlers")},
    **{("threading", name): _SETTING for name in ("active_count", "enumerate", "current_thread", "main_thread")},
    **{("numpy._core._ufunc_config", name): _SETTING for name in ("geterr", "getbufsize")},
    **{("torch", name): _SETTING for name in ("get_float32_matmul_precision", "get_device_module")},
    **{("torch.random", name): _SETTING for name in ("initial_seed", "get_rng_state")},
    ("torch.backends", "__get__"): _SETTING,
    ("pyro.settings", "get"): _SETTING,
    ("pyro.util", "get_rng_state"): _SETTING,
    **{("torch.serialization", name): _FILES for name in ("save", "load")},
}
_CALLED_BY_ANYBODY = {("torch._tensor", "__repr__"): _VALUE, ("torch._tensor", "__dlpack__"): _VALUE}
_OWNERS = ("sqlite3", "_socket", "_ssl", "mmap", "select")  # whose objects are what is outside
_WRITING, _READING = ("write", "writelines"), ("read", "readline", "readlines", "readinto")
# What these do in between is not the program's: a warning is written once, a module is read when it is first used.
_PASSED_OVER = {"importlib", "linecache", "tokenize", "warnings"}
_QUIET = {"pyro", "pyro_vae", "torch"}
# Extensions whose functions, and methods, compute and do nothing else, or are looked at elsewhere.
_COMPUTING = set(
    "builtins math cmath itertools functools operator collections bisect heapq struct statistics re sre datetime "
    "decimal fractions string json weakref abc typing copy types enum contextvars array random sys time gc "
    "unicodedata binascii base64 hashlib zlib tokenize ast symtable opcode warnings".split()
)
_HARMLESS = {(system, "fspath") for system in _SYSTEMS}
_HANDED_ON = sys.stdlib_module_names | {"numpy", "scipy"}  # they do it because they are told to


class Outside:
    """Watches a run, ``with Outside() as outside: ...``.

    Where another profiler is at work already, nothing is watched.

    Attributes:
        found: what the run did outside, and where; None for nothing.
        called: the functions of libraries that it called.
    """

    def __init__(self) -> None:
        self.found: str | None = None
        self.called = Patchable()
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
        if self.found is not None:  # there will be no graph
            return
        what = caller = None
        if event == "c_call":
            self.called.note_in_c(function)
            what = _what(function)
            caller = None if what is None else _caller(frame)
            if caller is None and _is_own(frame):
                what, caller = _what_of_an_extension(function), frame
        elif event == "call":
            self.called.note(frame)
            what, caller = _what_in_python(frame)
        if what is not None and caller is not None:
            self.found = f"{what} ({Path(caller.f_code.co_filename).name}, line {caller.f_lineno})"


def _what(function: Any) -> str | None:
    """What calling a function of C code does outside; None for nothing."""
    name, owner = function.__name__, getattr(function, "__self__", None)
    if isinstance(owner, type):
        return _CLOCK if name in ("now", "utcnow", "today") and issubclass(owner, datetime.date) else None
    if isinstance(owner, io.IOBase):
        if name in _WRITING:
            return "it writes to a file or a terminal"
        return "it reads a file or a terminal" if name in _READING else None
    if type(owner).__module__ in _OWNERS:
        return f"it uses a {type(owner).__name__} of {type(owner).__module__.lstrip('_')}"
    return _FUNCTIONS.get((getattr(function, "__module__", None) or "", name))


def _what_of_an_extension(function: Any) -> str | None:
    """What a program has an extension do that is not known to compute only; None for nothing."""
    name, owner = function.__name__, getattr(function, "__self__", None)
    if owner is None or isinstance(owner, (ModuleType, type)):
        module = getattr(function, "__module__", None) or ""
        known = module.split(".")[0] not in sys.stdlib_module_names or (module, name) in _HARMLESS
        return None if known or module.strip("_") in _COMPUTING else f"it calls {module.strip('_')}.{name}"
    kind = next((base for base in type(owner).__mro__ if name in vars(base)), type(owner))
    root = kind.__module__.split(".")[0].strip("_")
    if root in _COMPUTING | _QUIET | {"numpy", "scipy"}:
        return None
    return f"it calls {name} of a {kind.__name__} of {root}"


def _root(space: dict[str, Any]) -> str:
    return str(space.get("__name__", "")).split(".")[0]


def _is_own(frame: FrameType) -> bool:
    """Whether code is a program's own, and of no library that was installed."""
    installed = any(folder in frame.f_code.co_filename for folder in ("site-packages", "dist-packages"))
    return not installed and _root(frame.f_globals) not in _HANDED_ON | _QUIET


def _what_in_python(frame: FrameType) -> tuple[str | None, FrameType | None]:
    """What the function that a frame runs does outside, and who has it done; None for nothing."""
    key = frame.f_globals.get("__name__", ""), frame.f_code.co_name
    if key in _CALLED_BY_ANYBODY:
        return _CALLED_BY_ANYBODY[key], _caller(frame.f_back, quiet=set())
    caller = frame.f_back
    if key not in _CALLED_BY_PROGRAMS or caller is None:
        return None, None
    root = _root(caller.f_globals)
    return _CALLED_BY_PROGRAMS[key], None if root in _HANDED_ON | _QUIET else caller


def _caller(frame: FrameType | None, quiet: Set[str] = _QUIET) -> FrameType | None:
    """Who had it called, through the standard library; None if that is torch, or nobody's concern."""
    while frame is not None:
        name: str = frame.f_globals.get("__name__", "")
        root = name.split(".")[0]
        if root in _PASSED_OVER or (root in quiet and name.split(".")[:3] != ["torch", "utils", "tensorboard"]):
            return None
        if root not in _HANDED_ON and root not in _QUIET:
            return frame
        frame = frame.f_back
    return None
