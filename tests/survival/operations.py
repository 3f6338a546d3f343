"""Every change that a process makes to the files below a folder: counted, recorded, and stopped at.

The functions of ``os`` that change files are wrapped, as is the system call that exchanges two names; what is written
past them (by HDF5, for example) is seen when it is synced, and an audit hook counts files that are opened for writing
by ``open``.  ``tests/survival/test_kills.py`` compares the counts with those of the kernel, as ``strace`` gives them.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyro_vae.files import whole

NEEDS_SPACE = ("mkdir", "create", "open", "write", "sync")


@dataclass
class Operation:
    """One change: its kind, the paths that it concerns below the folder, and the content of the file after it."""

    kind: str
    path: str
    target: str = ""
    content: bytes | None = None


@dataclass
class Watch:
    """Watches this process from ``start`` to its end; a process watches one folder, once.

    Args:
        root: the folder.
        kill_at: the number of the operation before which the process is killed, from 0 on; None: never.
        half: whether the half of that operation is done, if it is a write.
        full_at: the number of the operation from which on the disk is full.
        fail_at: the number of an operation that fails, it alone.
    """

    root: Path
    kill_at: int | None = None
    half: bool = False
    full_at: int | None = None
    fail_at: int | None = None
    done: list[Operation] = field(default_factory=list)

    def start(self) -> None:
        for name in ("open", "write", "fsync", "ftruncate", "mkdir", "rmdir", "unlink", "replace", "rename"):
            setattr(os, name, getattr(self, f"_{name}")(getattr(os, name)))
        call = whole._renameat2()
        if call is not None:
            wrapped = self._renameat2(call)
            whole._renameat2 = lambda: wrapped
        sys.addaudithook(self._audit)

    def _before(self, operation: Operation, half: Callable[[], Any] = lambda: None) -> None:
        if self.kill_at == len(self.done):
            if self.half:
                half()
            os.kill(os.getpid(), signal.SIGKILL)
        self.done.append(operation)
        if self.fail_at == len(self.done) - 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(self.root / operation.path))
        if self.full_at is not None and len(self.done) > self.full_at and operation.kind in NEEDS_SPACE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.root / operation.path))

    def _inside(self, path: object) -> str | None:
        place = os.path.abspath(os.fspath(path))
        return os.path.relpath(place, self.root) if place.startswith(f"{self.root}{os.sep}") else None

    def _of(self, descriptor: int) -> str | None:
        return self._inside(os.readlink(f"/proc/self/fd/{descriptor}"))

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """A file that ``open`` makes; ``os.open`` has no mode."""
        if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
            path = self._inside(arguments[0]) if isinstance(arguments[0], str | os.PathLike) else None
            if path:
                self._before(Operation("open", path))

    def _open(self, real):
        def run(path, flags, *rest, **named):
            inside = self._inside(path)
            if inside and flags & (os.O_WRONLY | os.O_RDWR) and flags & os.O_CREAT and not os.path.lexists(path):
                self._before(Operation("create", inside))
            return real(path, flags, *rest, **named)

        return run

    def _write(self, real):
        def run(descriptor, content):
            inside = self._of(descriptor)
            if inside is None:
                return real(descriptor, content)
            operation = Operation("write", inside)
            self._before(operation, half=lambda: real(descriptor, bytes(content)[: len(content) // 2]))
            written = real(descriptor, content)
            operation.content = (self.root / inside).read_bytes()
            return written

        return run

    def _fsync(self, real):
        def run(descriptor):
            inside = self._of(descriptor)
            if inside is not None or os.readlink(f"/proc/self/fd/{descriptor}") == str(self.root):
                path = self.root / (inside or ".")
                content = path.read_bytes() if path.is_file() else None
                self._before(Operation("sync", inside or ".", content=content))
            return real(descriptor)

        return run

    def _ftruncate(self, real):
        def run(descriptor, length):
            inside = self._of(descriptor)
            if inside is None:
                return real(descriptor, length)
            operation = Operation("write", inside)
            self._before(operation)
            real(descriptor, length)
            operation.content = (self.root / inside).read_bytes()
            return None

        return run

    def _one_path(self, kind, real):
        def run(path, *rest, **named):
            inside = self._inside(path)
            if inside and (kind != "mkdir" or not os.path.lexists(path)) and (kind == "mkdir" or os.path.lexists(path)):
                self._before(Operation(kind, inside))
            return real(path, *rest, **named)

        return run

    def _mkdir(self, real):
        return self._one_path("mkdir", real)

    def _rmdir(self, real):
        return self._one_path("rmdir", real)

    def _unlink(self, real):
        return self._one_path("unlink", real)

    def _two_paths(self, real):
        def run(source, target, **named):
            if (inside := self._inside(source)) is not None:
                self._before(Operation("rename", inside, self._inside(target) or ""))
            return real(source, target, **named)

        return run

    _replace = _rename = _two_paths

    def _renameat2(self, real):
        def run(first, source, second, target, flags):
            source_inside, target_inside = (self._inside(os.fsdecode(path)) for path in (source, target))
            if source_inside is not None:
                kind = "exchange" if flags == 2 else "rename"
                if kind == "exchange" or not os.path.lexists(os.fsdecode(target)):
                    self._before(Operation(kind, source_inside, target_inside or ""))
            return real(first, source, second, target, flags)

        return run
