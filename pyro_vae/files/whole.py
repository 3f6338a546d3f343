"""Files and folders that appear whole or not at all, and that a power failure does not take back.

A file is written aside under a name of its own, synced, renamed and its folder synced, in this order: a rename that
reaches the disk before what was written leaves an empty file behind.  Every change of a file goes through the functions
of ``os`` that are called here, so that a test can stop at each of them.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import itertools
import os
import re
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Self

from pyro_vae.errors import InputError, PyroVAEError, StorageError

_LEFTOVER = re.compile(r"\.(?P<name>.+)\.(?P<machine>[0-9a-f]{6})-(?P<pid>\d+)-\d+\.new")
_FORGOTTEN = 86_400  # seconds after which a file that another machine was writing counts as left behind
PIECE = 1 << 20  # bytes from which on a piece of a file is written at once
_counter = itertools.count()
_AT_FDCWD, _NOREPLACE, _EXCHANGE = -100, 1, 2
_NO_FAULT_OF_THE_PATH = {
    errno.ENOSPC: "make room on the disk and try again",
    errno.EDQUOT: "make room within the quota and try again",
    errno.EFBIG: "raise the limit on the size of a file (ulimit -f) and try again",
    errno.EMFILE: "raise the limit on open files (ulimit -n) and try again",
    errno.ENFILE: "close files that other programs hold open and try again",
    errno.EIO: "look after the disk, or write to another",
}
_NOT_SUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP}


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A place to write a file to, which becomes ``path`` at the end, on the disk; nothing is left of one that fails.

    Two processes that write one file do not meet: the last one to end wins.  What a killed one left is cleared away.

    Args:
        path: where the file shall lie.
    """
    aside = _place_aside(path)
    clear_leftovers(path.parent, path.name)
    try:
        yield aside
        sync(aside)
        os.replace(aside, path)
        sync(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(aside)
        raise


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write or replace a file, whole or not at all.

    Args:
        path: where it shall lie.
        content: what it shall hold.
    """
    with whole_file(path) as aside:
        write_new(aside, content)


def write_new(path: Path, content: bytes | memoryview) -> None:
    """Write a file under a name that is not taken, synced; its folder is not.

    Raises:
        FileExistsError: if there is something.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o666)
    try:
        write_all(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class NewFile:
    """A file written piece by piece under a name that is not taken, and synced at its end; its folder is not.

    What cannot be written is told by ``close`` alone, since ``torch.save`` ends its archive, with more to write and
    another error, whatever happened to it.

    Args:
        path: where it lies.

    Attributes:
        crc32: the checksum of what was written.

    Raises:
        FileExistsError: if there is something.
    """

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
        self.crc32, self._descriptor = 0, os.open(path, flags, 0o666)
        self._rest = bytearray()
        self._fault: OSError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def write(self, content: bytes | memoryview) -> int:
        """Write a piece; those that are small wait for others."""
        size = memoryview(content).nbytes
        if size < PIECE:
            self._rest += content
        if size >= PIECE or len(self._rest) >= PIECE:
            self.flush()
        if size >= PIECE:
            self._put(content)
        return size

    def flush(self) -> None:
        """Write what waits."""
        rest, self._rest = self._rest, bytearray()
        self._put(rest)

    def close(self) -> None:
        """Write what waits, and have the disk hold it all.

        Raises:
            OSError: if a piece could not be written.
        """
        try:
            self.flush()
            if self._fault is not None:
                raise self._fault
            os.fsync(self._descriptor)
        finally:
            os.close(self._descriptor)

    def _put(self, content: bytes | bytearray | memoryview) -> None:
        if self._fault is None and len(content):
            self.crc32 = zlib.crc32(content, self.crc32)
            try:
                write_all(self._descriptor, content)
            except OSError as error:
                self._fault = error


def write_all(descriptor: int, content: bytes | bytearray | memoryview) -> None:
    """Write bytes to an open file, all of them."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def sync(path: Path) -> None:
    """Have the disk hold a file as it is, or the names in a folder."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except PermissionError:
        if os.name == "nt":  # Windows opens no folders
            return
        raise
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:  # some file systems sync no folders
            raise
    finally:
        os.close(descriptor)


def make_folders(path: Path) -> list[Path]:
    """Make a folder and those above it that are missing, on the disk; returns those that were made, outermost first."""
    missing = list(itertools.takewhile(lambda folder: not folder.exists(), (path, *path.parents)))
    made = []
    try:
        for folder in reversed(missing):
            try:
                os.mkdir(folder)
            except FileExistsError:
                continue  # somebody was quicker
            made.append(folder)
            sync(folder.parent)
    except OSError:
        remove_empty(made)
        raise
    return made


def remove_empty(folders: list[Path]) -> None:
    """Remove folders that ``make_folders`` made, as far as nothing was put into them."""
    with contextlib.suppress(OSError):
        for folder in reversed(folders):
            os.rmdir(folder)


def remove_tree(path: Path, last: str = "") -> None:
    """Remove a folder with all that is in it; symbolic links are not followed.

    Args:
        path: the folder.
        last: the name of a file in it to remove after all others.
    """
    with contextlib.suppress(FileNotFoundError):
        entries = list[os.DirEntry[str]]()
        with contextlib.suppress(PermissionError):  # of one that may be empty
            entries = sorted(os.scandir(path), key=lambda entry: entry.name == last)
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                remove_tree(Path(entry.path))
            else:
                if entry.name == last:
                    with contextlib.suppress(OSError):  # of a full disk, which has room again after this
                        sync(path)
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(entry.path)
        os.rmdir(path)


def rename_new(source: Path, target: Path) -> None:
    """Move a file or folder to a name that is not taken, in one step.

    Raises:
        FileExistsError: if there is something, an empty folder even.
    """
    if _rename(source, target, _NOREPLACE):
        return
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    os.rename(source, target)


def exchange(first: Path, second: Path) -> bool:
    """Let two files or folders change places in one step; False where the system cannot, and nothing was done."""
    return _rename(first, second, _EXCHANGE)


def write_picture(path: Path, write: Callable[[Path], None], what: str = "a picture") -> None:
    """Write a picture or something else that a person asked for, whole or not at all.

    Args:
        path: where it shall lie.
        write: writes it where it is told.
        what: what it is.

    Raises:
        InputError: if the place cannot be written.
        StorageError: if the disk is full or fails.
    """
    try:
        made = make_folders(path.parent)
        try:
            with whole_file(path) as aside:
                write(aside)
        except BaseException:
            remove_empty(made)
            raise
    except OSError as error:
        raise unwritable(path, error, f"a place for {what} at {path}", "choose another --out") from None


def unwritable(path: Path, error: OSError, expected: str, mend: str) -> PyroVAEError:
    """The error for a place that cannot be written: it was badly chosen, or the disk takes no more.

    Args:
        path: the place.
        error: what the system said.
        expected: what would have been right.
        mend: what to do where another place is right.
    """
    return _fault_of_the_system(path, error, "written") or InputError(expected, why(error), mend)


def unreadable(path: Path, error: OSError, expected: str, mend: str) -> PyroVAEError:
    """The error for a file that cannot be read; arguments are those of ``unwritable``."""
    if isinstance(error, PermissionError):
        mend = "see to it that you may read it"
    return _fault_of_the_system(path, error, "read") or InputError(expected, why(error), mend)


def _fault_of_the_system(path: Path, error: OSError, what: str) -> StorageError | None:
    if error.errno not in _NO_FAULT_OF_THE_PATH:
        return None
    return StorageError(f"{path} could not be {what}: {why(error)}", _NO_FAULT_OF_THE_PATH[error.errno])


def why(error: OSError) -> str:
    """The words of the system for an error, without its number: ``No space left on device``."""
    return error.strerror or str(error) or type(error).__name__


def clear_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove what killed processes were writing in a folder.

    Args:
        folder: the folder.
        name: of this file alone; default: of all.
    """
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(folder)):
            match = _LEFTOVER.fullmatch(entry.name)
            if match and (name is None or short(name) == match["name"]) and _is_left_behind(entry, match):
                os.unlink(entry.path)


def is_leftover(name: str) -> bool:
    """Whether a file of this name is one that somebody is writing, or was."""
    return _LEFTOVER.fullmatch(name) is not None


def _is_left_behind(entry: os.DirEntry[str], match: re.Match[str]) -> bool:
    if match["machine"] != _machine():
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > _FORGOTTEN
    pid = int(match["pid"])
    return pid != os.getpid() and not is_running(pid)


def is_running(pid: int) -> bool:
    """Whether a process of this machine lives."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True  # of somebody else
    return True


def _place_aside(path: Path) -> Path:
    return path.with_name(f".{short(path.name)}.{_machine()}-{os.getpid()}-{next(_counter)}.new")


def short(name: str) -> str:
    """A name, or the digest of one so long that nothing can be added to it: a file system takes 255 bytes."""
    encoded = os.fsencode(name)
    return name if len(encoded) <= 180 else hashlib.blake2b(encoded, digest_size=16).hexdigest()


@cache
def _machine() -> str:
    """Where a process number means this process: the machine, since it was started, and the container."""
    parts = [os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=3).hexdigest()


def _rename(source: Path, target: Path, flags: int) -> bool:
    """Linux's renameat2; False where there is none, or the file system does not take the flags."""
    call = _renameat2()
    if call is None:
        return False
    sys.audit("os.rename", str(source), str(target), -1, -1)
    if call(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flags) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NOT_SUPPORTED:
        return False
    raise OSError(code, os.strerror(code), str(source), None, str(target))


@cache
def _renameat2() -> Callable[..., int] | None:
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return None
    function.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    found: Callable[..., int] = function
    return found
