"""Arrays that take long to make, kept: one ``.npz`` file a thing under ``data_folder()/cache``.

A file remembers the fingerprint of what it was made from, and is made anew where that is another now; so nothing old is
ever taken for new, and nothing old is left lying about.  The whole folder may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import sys
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from pyro_vae.data.base import data_folder
from pyro_vae.data.pixels import Array
from pyro_vae.files.whole import whole_file

VERSION = 1  # of how images are decoded; a file of another one is made anew
_FINGERPRINT = "fingerprint"


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


def fingerprint_of(root: Path, files: Iterable[Path]) -> str:
    """A digest of the paths of files below ``root``, of their sizes and of the times when they were changed last."""
    stats = ((path, path.stat()) for path in files)
    return _digest(
        [str(VERSION), *(f"{path.relative_to(root).as_posix()} {s.st_size} {s.st_mtime_ns}" for path, s in stats)]
    )


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
