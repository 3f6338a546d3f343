"""Files and folders that are written aside and moved into place, so that a reader finds them whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pyro_vae.errors import InputError


@contextmanager
def whole_file(path: Path, ending: str = "new") -> Iterator[Path]:
    """A place to write a file to, which becomes ``path`` at the end; nothing is left of a file that fails.

    Args:
        path: where the file shall lie.
        ending: the ending of the name meanwhile; the next write replaces what a killed one left under it, so several
            processes that write one file need an ending each.
    """
    aside = path.with_name(f".{path.name}.{ending}")
    try:
        yield aside
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path, aside: Path, old: Path) -> Iterator[Path]:
    """An empty folder to write to, which becomes ``path`` at the end, in the place of what is there.

    Between its two moves the new folder is whole, but aside: whoever opens ``path`` later can tell by the names.

    Args:
        path: where the folder shall lie.
        aside: where it is written, on the same file system.
        old: where what is there goes until the new one is in place.
    """
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
            path.rename(old)
        aside.rename(path)
    except OSError:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Write a picture, whole or not at all.

    Args:
        path: where it shall lie.
        write: writes it where it is told.

    Raises:
        InputError: if the place cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as aside:
            write(aside)
    except OSError as error:
        raise InputError(f"a place for a picture at {path}", str(error), "choose another --out") from None
