"""Files that are written aside and moved into place, so that a reader finds them whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pyro_vae.errors import InputError


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Write a picture aside and move it into place.

    Args:
        path: where it shall lie.
        write: writes it where it is told.

    Raises:
        InputError: if the place cannot be written.
    """
    aside = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(aside)
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise InputError(f"a place for a picture at {path}", str(error), "choose another --out") from None
