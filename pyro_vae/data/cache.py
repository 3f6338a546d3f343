"""Arrays that take long to make, kept: one ``.npz`` file a thing under ``data_folder()/cache``.

A file remembers the fingerprint of what it was made from, and is made anew where that is another now; so nothing old is
ever taken for new, and nothing old is left lying about.  The whole folder may be deleted at any time.

Rows that are larger than memory are kept as an ``.npy`` file, whose name has the fingerprint, and beside it an ``.npz``
of what else there is to know, the digest of the rows among it: a file that is damaged is made anew.  Of several
processes that want one file one makes it, and the others wait.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from pyro_vae.data.base import data_folder
from pyro_vae.data.npy_files import SUFFIX, NpyFile, NpyWriter
from pyro_vae.data.pixels import Array
from pyro_vae.errors import InputError
from pyro_vae.files.whole import unwritable, whole_file

try:
    import fcntl
except ImportError:  # of Windows, where each process makes the file
    fcntl = None  # type: ignore[assignment]

VERSION = 1  # of how images are decoded; a file of another one is made anew
_FINGERPRINT = "fingerprint"
_DIGEST = "digest"


def cached(name: str, origin: str, fingerprint: str, make: Callable[[], dict[str, Array]]) -> dict[str, Array]:
    """The arrays that ``make`` gives, from the cache if they are there and still right.

    Args:
        name: what the file's name starts with, for people.
        origin: what is asked for: a folder and the options it is read with.  Each has one file.
        fingerprint: what is there now, see ``fingerprint_of``.
        make: makes the arrays, none of them named "fingerprint".
    """
    path = data_folder() / "cache" / f"{name[:64]}-{_digest([origin])}.npz"
    arrays = _read(path, fingerprint)
    if arrays is None:
        arrays = make()
        _write(path, arrays | {_FINGERPRINT: np.array(fingerprint)})
    return arrays


def kept_rows(
    name: str, origin: str, fingerprint: str, make: Callable[[NpyWriter], dict[str, Array]]
) -> tuple[NpyFile, dict[str, Array]]:
    """Rows that ``make`` writes, as a file in the cache, and what it returns; made if they are not there and whole.

    Args:
        name: what the files' names start with, for people.
        origin: what is asked for: a file or folder and the options it is read with.  Each has one file of rows.
        fingerprint: what is there now, see ``fingerprint_of``.
        make: writes the rows, and returns arrays to be kept beside them.

    Raises:
        InputError: if the cache cannot be written.
    """
    folder = data_folder() / "cache"
    stem = f"{name[:64]}-{_digest([origin])}"
    path = folder / f"{stem}-{fingerprint}{SUFFIX}"
    beside = path.with_suffix(".npz")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder / f".{stem}.lock"):
            found = _whole_rows(path, beside, fingerprint)
            if found is None:
                with whole_file(path) as aside, aside.open("w+b") as file, NpyWriter(file) as writer:
                    arrays = make(writer)
                arrays = arrays | {_DIGEST: np.array(writer.digest)}
                _write(beside, arrays | {_FINGERPRINT: np.array(fingerprint)})
                found = NpyFile.open(path), arrays
            for other in folder.iterdir():
                if other.name.startswith(f"{stem}-") and other not in (path, beside):
                    other.unlink(missing_ok=True)  # of what was there before; who has it mapped keeps it
    except OSError as error:
        raise unwritable(path, error, f"a place for the rows at {path}", "set PYRO_VAE_DATA") from None
    return found


def forget_rows(file: NpyFile) -> None:
    """Remove rows that were kept and turned out to be damaged."""
    for path in (file.path, file.path.with_suffix(".npz")):
        path.unlink(missing_ok=True)


def _whole_rows(path: Path, beside: Path, fingerprint: str) -> tuple[NpyFile, dict[str, Array]] | None:
    """Rows that are kept and what is beside them, or None where one of the two is not there or is cut off."""
    arrays = _read(beside, fingerprint)
    if arrays is None:
        return None
    try:
        return NpyFile.open(path), arrays
    except InputError:
        return None


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Wait until no other process of this machine is here."""
    taken = False
    while not taken:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        try:
            if fcntl is not None:
                with contextlib.suppress(OSError):  # of a file system without locks
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
            taken = _is_there(lock, descriptor)  # or it was removed by the process that had it
            if taken:
                try:
                    yield
                finally:
                    with contextlib.suppress(OSError):
                        lock.unlink()
        finally:
            os.close(descriptor)


def _is_there(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def fingerprint_of(root: Path, files: Iterable[Path]) -> str:
    """A digest of the paths of files below ``root``, of their sizes and of the times when they were changed last."""
    stats = ((path, path.stat()) for path in files)
    lines = (f"{path.relative_to(root).as_posix()} {s.st_size} {s.st_mtime_ns} {s.st_ctime_ns}" for path, s in stats)
    return _digest([str(VERSION), *lines])


def _digest(lines: Iterable[str]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for line in lines:
        digest.update(line.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()


def _read(path: Path, fingerprint: str) -> dict[str, Array] | None:
    """The arrays of a file, or None where there is none, it is damaged, or was made from something else."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if str(archive[_FINGERPRINT]) != fingerprint:
                return None
            return {key: archive[key] for key in archive.files if key != _FINGERPRINT}
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile):
        return None


def _write(path: Path, arrays: dict[str, Array]) -> None:
    """Write a file aside and move it into place; where that fails, say so and go on."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as aside, aside.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy's stub takes them for its flag
    except OSError as error:
        print(f"The decoded images are not kept: {error}; set PYRO_VAE_DATA to a writable folder", file=sys.stderr)
