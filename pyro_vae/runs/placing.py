"""How a run directory comes to its place, and takes the place of another.

It is made whole under a name of its own beside its place, its writer holding the lock, and moved there in one step: to
a free name by a rename that replaces nothing, to that of another run by letting the two change places.  Where a file
system cannot do that, the old run steps aside under a name by which readers still find it, so that one of the two is
there at any moment.  What a killed process left beside a place is known by its name and by a lock that nobody holds.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pyro_vae.errors import InputError, TakenError
from pyro_vae.files import whole
from pyro_vae.files.bounded import as_text
from pyro_vae.files.whole import is_leftover, make_folders, remove_empty, remove_tree, rename_new, short, sync
from pyro_vae.runs.config_file import CONFIG
from pyro_vae.runs.refusals import no_place
from pyro_vae.runs.writer_lock import LOCK, WriterLock, is_free

_ASIDE, _REPLACED = "pyro-vae-new", "pyro-vae-old"
_OF_A_RUN = re.compile(  # what commands write into a run directory unasked, and what systems put everywhere
    r"config\.json|history\.csv|(evaluation|diagnosis)\.json|checkpoints|figures|frames|export|tensorboard"
    r"|posterior(_nuts)?\.nc|(report|comparison)\.html|\.lock|\.DS_Store|\._.*|Thumbs\.db|desktop\.ini"
)


class Place:
    """A path that leads to the same place when another folder has become the current one.

    Args:
        path: the path as somebody gave it.
    """

    def __init__(self, path: Path) -> None:
        self._given, self._full = path, path.absolute()

    @property
    def now(self) -> Path:
        """The path as it was given while that leads there, and in full afterwards."""
        with contextlib.suppress(OSError):  # the current folder may be gone
            if self._given.absolute() == self._full:
                return self._given
        return self._full


@contextmanager
def placed(path: Path, overwrite: bool) -> Iterator[tuple[Path, WriterLock]]:
    """A new folder to make a run in, which becomes ``path`` at the end, and its lock, which stays held.

    Args:
        path: where the run shall lie.
        overwrite: whether it takes the place of a run that is there.

    Raises:
        InputError: if something is there, or came there meanwhile, that may not be replaced.
        OSError: if the place cannot be written; nothing is left then.
    """
    place = path
    path = Path(os.path.realpath(path))  # the run itself where a link leads to it
    put_back(path)
    clear_beside(path)
    made = make_folders(path.parent)
    aside, lock = _make_aside(path)
    try:
        yield aside, lock
        sync(aside)
        if overwrite and is_run(path):
            _replace(path, aside)
        else:
            try:
                rename_new(aside, path)
            except FileExistsError:
                raise taken(place) from None
            with _undone(lambda: rename_new(path, aside)):
                sync(path.parent)
    except BaseException:
        is_aside = lock.is_in_place  # unless it was moved and could not be moved back
        lock.release()
        with contextlib.suppress(OSError):
            if is_aside:
                remove_tree(aside)
            remove_empty(made)
        raise
    lock.lies_in(place)


def spelled_out(path: Path) -> Path:
    """A path with each ``..`` in it gone, as the system will go once folders on the way are there."""
    return Path(os.path.realpath(path)) if ".." in path.parts else path


def check_free(path: Path, overwrite: bool) -> None:
    """Refuse a place that is taken or cannot be written, before any work is done for it.

    Args:
        path: where a run shall lie.
        overwrite: whether it may take the place of a run that is there.

    Raises:
        InputError: as ``placed`` would.
    """
    found = found_at(path)
    if os.path.lexists(found) and not (overwrite and is_run(found)):
        raise taken(found)
    check_replaceable(found)
    parent = path.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not (parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)):
        raise no_place(path, OSError(f"{parent} is not a folder that you may write to"))


def taken(path: Path) -> TakenError:
    """The refusal of a place where something is."""
    run = is_run(path)
    what = "a run" if run else "something that is not a run"
    mend = (
        "use --overwrite to replace it, --resume to go on with it, or another --out" if run else "choose another --out"
    )
    return TakenError(f"a new folder for --out {path}", f"{what} that is there already", mend)


def check_replaceable(path: Path) -> None:
    """Refuse to replace a run in whose directory somebody keeps something else, another run for example.

    Raises:
        TakenError: if there is such a thing.
    """
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        names = [name for name in sorted(os.listdir(path)) if not (_OF_A_RUN.fullmatch(name) or is_leftover(name))]
        if names:
            also = f" and {len(names) - 1} more" if names[1:] else ""
            raise TakenError(
                f"nothing but a run to replace at {path}",
                f"{as_text(names[0])}{also}, which fit did not write",
                "move that elsewhere, or choose another --out",
            )


def is_run(path: Path) -> bool:
    """Whether a run lies at a place."""
    return (path / CONFIG).is_file()


def found_at(path: Path) -> Path:
    """Where a run lies that belongs to ``path``: there, or beside it where a killed ``--overwrite`` left it."""
    return path if os.path.lexists(path) else next(_beside(path, _REPLACED), path)


def put_back(path: Path) -> None:
    """Undo a replacement that a killed process began and did not finish."""
    found = found_at(path)
    if found != path and (is_free(found) or not (found / LOCK).exists()):
        rename_new(found, path)
        sync(path.absolute().parent)


def _replace(path: Path, aside: Path) -> None:
    """Let a new run take the place of one that nobody is writing, and remove the old one."""
    check_replaceable(path)
    lock = WriterLock(path)
    try:
        sync(path)  # what is half removed after a power failure is known by its lock
        if whole.exchange(aside, path):
            old = aside
            with _undone(lambda: whole.exchange(aside, path)):
                sync(path.parent)
        else:
            old = _name_beside(path, _REPLACED)
            rename_new(path, old)
            with _undone(lambda: rename_new(old, path)):
                rename_new(aside, path)
                with _undone(lambda: rename_new(path, aside)):
                    sync(path.parent)
        with contextlib.suppress(OSError):  # the new run is in place; what is left is cleared by the next
            remove_tree(old, last=LOCK)
    finally:
        lock.release()


@contextmanager
def _undone(undo: Callable[[], object]) -> Iterator[None]:
    """Take back what was moved where the disk cannot be made to hold it."""
    try:
        yield
    except OSError:
        with contextlib.suppress(OSError):
            undo()
        raise


def _make_aside(path: Path, tries: int = 3) -> tuple[Path, WriterLock]:
    aside = _name_beside(path, _ASIDE)
    os.mkdir(aside)
    lock: WriterLock | None = None
    try:
        lock = WriterLock(aside)
        sync(aside)  # what else comes to be there is known by the lock to be left behind
        return aside, lock
    except (InputError, OSError) as error:
        if lock is not None:
            lock.release()
        with contextlib.suppress(OSError):
            remove_tree(aside)
        if tries == 1 or isinstance(error, OSError):
            raise
        return _make_aside(path, tries - 1)  # somebody who clears up took it for left behind


def clear_beside(path: Path) -> None:
    """Remove what killed processes left beside a place."""
    path = Path(os.path.realpath(path))
    with contextlib.suppress(OSError):
        for left in [*_beside(path, _ASIDE), *(_beside(path, _REPLACED) if path.exists() else ())]:
            if is_free(left):
                remove_tree(left, last=LOCK)
            elif not (left / LOCK).exists():
                with contextlib.suppress(OSError):
                    os.rmdir(left)  # killed before it was locked, or when all was removed


def _name_beside(path: Path, kind: str) -> Path:
    return path.with_name(f".{short(path.name)}.{secrets.token_hex(4)}.{kind}")


def _beside(path: Path, kind: str) -> Iterator[Path]:
    pattern = re.compile(rf"\.{re.escape(short(path.name))}\.[0-9a-f]{{8}}\.{kind}")
    with contextlib.suppress(OSError):
        for entry in sorted(path.absolute().parent.iterdir()):
            if pattern.fullmatch(entry.name) and entry.is_dir() and not entry.is_symlink():
                yield entry
