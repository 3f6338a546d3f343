"""A disk that forgets: files and folders in memory, with what of them would be there after the power failed.

Content is on the disk when its file was synced, a name when its folder was; until then each may be there or not, in any
order (as in Mohan et al., *Finding Crash-Consistency Bugs with Bounded Black-Box Crash Testing*, 2018).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.survival.operations import Operation

Names = dict[str, "File | Folder"]


@dataclass(eq=False)
class File:
    """A file: its content now, and what of it is on the disk."""

    content: bytes = b""
    synced: bytes = b""


@dataclass(eq=False)
class Folder:
    """A folder: the names in it now, those on the disk, and the changes in between."""

    names: Names = field(default_factory=dict)
    synced: Names = field(default_factory=dict)
    pending: list[Callable[[Names], None]] = field(default_factory=list)

    def change(self, do: Callable[[Names], None]) -> None:
        do(self.names)
        self.pending.append(do)

    def sync(self) -> None:
        self.synced, self.pending = dict(self.names), []


class Disk:
    """A copy in memory of a folder, all of it on the disk, and of what is done to it."""

    def __init__(self, root: Path) -> None:
        self.root = _read(root)

    def do(self, operation: Operation) -> None:
        folder, name = self._at(operation.path)
        match operation.kind:
            case "mkdir":
                new = Folder()
                folder.change(lambda names: names.__setitem__(name, new))
            case "create" | "open":
                file = File()
                folder.change(lambda names: names.__setitem__(name, file))
            case "write":
                folder.names[name].content = operation.content
            case "unlink" | "rmdir":
                folder.change(lambda names: names.pop(name, None))
            case "rename" | "exchange":
                self._move(operation.kind, folder, name, operation.target)
            case "sync" if operation.content is None:
                (folder.names[name] if name != "." else self.root).sync()
            case "sync":
                if name not in folder.names:  # made past the functions of os
                    file = File()
                    folder.change(lambda names: names.__setitem__(name, file))
                folder.names[name].content = folder.names[name].synced = operation.content

    def _move(self, kind: str, folder: Folder, name: str, target: str) -> None:
        other, new = self._at(target)
        assert other is folder, "names move inside one folder here"
        moved, replaced = folder.names[name], folder.names.get(new)

        def do(names: Names) -> None:
            names.pop(name, None)
            names[new] = moved
            if kind == "exchange" and replaced is not None:
                names[name] = replaced

        folder.change(do)

    def _at(self, path: str) -> tuple[Folder, str]:
        *folders, name = path.split(os.sep)
        found = self.root
        for each in folders:
            found = found.names[each]
        return found, name

    def write(self, target: Path, keep_name: Callable[[int, int], bool], keep_content: bool) -> None:
        """Write what would be there after the power failed.

        Args:
            target: where to write it.
            keep_name: whether the i-th of n changes of the names in a folder got to the disk.
            keep_content: whether content did that was not synced.
        """
        _write(self.root, target, keep_name, keep_content)


def _read(path: Path) -> Folder:
    names: Names = {}
    for entry in os.scandir(path):
        if entry.is_dir(follow_symlinks=False):
            names[entry.name] = _read(Path(entry.path))
        else:
            content = Path(entry.path).read_bytes()
            names[entry.name] = File(content, content)
    return Folder(names, dict(names))


def _write(folder: Folder, target: Path, keep_name: Callable[[int, int], bool], keep_content: bool) -> None:
    names = dict(folder.synced)
    for place, do in enumerate(folder.pending):
        if keep_name(place, len(folder.pending)):
            do(names)
    target.mkdir(exist_ok=True)
    for name, what in names.items():
        if isinstance(what, Folder):
            _write(what, target / name, keep_name, keep_content)
        else:
            (target / name).write_bytes(what.content if keep_content else what.synced)


FAILURES: dict[str, tuple[Callable[[int, int], bool], bool]] = {
    "all that is not synced is gone": (lambda i, n: False, False),
    "names are there, content is not": (lambda i, n: True, False),
    "content is there, names are not": (lambda i, n: False, True),
    "the last change of names alone": (lambda i, n: i == n - 1, False),
    "all but the last change of names": (lambda i, n: i < n - 1, False),
    "every other change of names": (lambda i, n: i % 2 == 0, True),
}


def crashes(
    before: Path, operations: Iterable[Operation], target: Callable[[], Path]
) -> Iterator[tuple[str, Callable[[], Path]]]:
    """What the disk holds where the power fails after each operation, in each of the ways above: what it is called,
    and what writes it to a new folder, until the next one is asked for."""
    disk = Disk(before)
    for number, operation in enumerate(operations):
        disk.do(operation)
        for failure, (keep_name, keep_content) in FAILURES.items():

            def write(keep_name: Callable[[int, int], bool] = keep_name, keep_content: bool = keep_content) -> Path:
                path = target()
                disk.write(path, keep_name, keep_content)
                return path

            yield f"after {number} ({operation.kind} {operation.path}): {failure}", write
