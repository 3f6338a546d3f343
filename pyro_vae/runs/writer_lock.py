"""One writer per run directory: a lock that the system gives back when its holder dies.

The lock is ``flock`` on the file ``.lock``, which says who holds it and since when, if the disk has room for that.  The
file is removed when the lock is given back; one that a killed process left is free to be taken.  A file system without
locks is said to have none, and the file alone decides there: that of a process of this machine that has ended is taken
over, any other is kept.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import socket
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pyro_vae.errors import InputError
from pyro_vae.files.bounded import as_text
from pyro_vae.files.whole import is_running, write_all

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)
LOCK = ".lock"
LONGEST = 4096  # bytes of a lock file that are read
_HELD = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}


class WriterLock:
    """The right to write into a run directory, held from construction until ``release``.

    Args:
        folder: the run directory.

    Raises:
        InputError: if another process, or another fit of this one, holds it, or its file is not an ordinary one.
        OSError: if the directory cannot be written; no file is left then.
    """

    def __init__(self, folder: Path) -> None:
        self._pid = os.getpid()
        self.lies_in(folder)
        self._descriptor: int | None = None
        try:
            while not self._take():
                pass  # the holder removed the file between our opening and our locking it
        except BaseException:
            self._close()
            raise

    def lies_in(self, folder: Path) -> None:
        """Take note of where the run directory lies, whatever folder is the current one later."""
        self._folder, self.path = folder, folder.absolute() / LOCK  # as it is shown, and as it is found

    @property
    def is_in_place(self) -> bool:
        """Whether the directory that was locked still lies where it did, and this process is the one that locked it."""
        if self._descriptor is None or self._pid != os.getpid():
            return False
        return _same_file(self._descriptor, self.path)

    def check(self) -> None:
        """See whether this process may still write.

        Raises:
            OSError: if the directory lies elsewhere now, or this process was forked from the one that holds the lock.
        """
        if self._pid != os.getpid():
            raise PermissionError(f"this process was forked from process {self._pid}, which writes the run")
        if not self.is_in_place:
            raise FileNotFoundError(f"the run directory {self._folder} was moved or removed while it was written")

    def release(self) -> None:
        """Give the lock back; a second time, and in a process that was forked meanwhile, nothing happens."""
        if self._descriptor is None:
            return
        if self.is_in_place:
            with contextlib.suppress(OSError):
                os.unlink(self.path)
        self._close()

    def _take(self) -> bool:
        self._close()
        self._descriptor = _open(self.path, os.O_CREAT)
        if not _lock(self._descriptor):
            raise self._refusal()
        if not self.is_in_place:
            return False
        try:
            os.ftruncate(self._descriptor, 0)
            write_all(self._descriptor, json.dumps(_who()).encode())
        except OSError:
            if not _flock(self._descriptor):  # the content decides here
                self.release()
                raise
        return True

    def _refusal(self) -> InputError:
        return InputError(
            f"a run that nobody else is writing at {self._folder}",
            _in_words(_read(self._descriptor)),
            "wait until that ends; to look at the run meanwhile is safe",
        )

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def is_free(folder: Path) -> bool:
    """Whether a folder has a lock file that nobody holds; False without one."""
    try:
        descriptor = _open(folder / LOCK)
    except (OSError, InputError):
        return False
    try:
        return _lock(descriptor)
    except (OSError, InputError):
        return False
    finally:
        os.close(descriptor)


def _open(path: Path, flags: int = 0) -> int:
    """Open a lock file, which is an ordinary one: a link would have another file be written."""
    flags |= os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
    try:
        descriptor = os.open(path, flags, 0o666)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR):
            raise
    raise InputError(f"an ordinary file at {path}", "something else", "remove it")


def _lock(descriptor: int) -> bool:
    """Lock an open file, without waiting; False if it is held."""
    locked = _flock(descriptor)
    if locked is not None:
        return locked
    logger.info("This file system has no locks: make sure that one process alone writes this run")
    holder = _read(descriptor)
    if not holder:
        return True
    pid = holder.get("pid")
    return holder.get("host") == socket.gethostname() and isinstance(pid, int) and not is_running(pid)


def _flock(descriptor: int) -> bool | None:
    """Lock an open file by the system, without waiting; False if it is held, None where there are no locks."""
    if fcntl is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno in _HELD:
                return False
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
                raise
    return None


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        found, mine = os.stat(path), os.fstat(descriptor)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino)


def _who() -> dict[str, Any]:
    since = datetime.now(UTC).astimezone().isoformat(timespec="seconds")
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": since,
    }


def _read(descriptor: int | None) -> dict[str, Any]:
    if descriptor is None:
        return {}
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        content = json.loads(os.read(descriptor, LONGEST))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _in_words(holder: dict[str, Any]) -> str:
    if not holder:
        return "one that another process is writing"
    pid, host, since = (as_text(holder.get(name, "?"), 64) for name in ("pid", "host", "since"))
    return f"one that process {pid} on {host} has been writing since {since}"
