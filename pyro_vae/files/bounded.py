"""Reading files that may be damaged or hostile: with a limit on their size and depth, and as text that is only text."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections import Counter
from pathlib import Path
from typing import Any

MAX_JSON = 64 << 20  # bytes
MAX_DEPTH = 50  # of lists and objects in each other
MAX_NODES = 2_000_000  # values in a JSON file


def read_bounded(path: Path, most: int) -> bytes:
    """The content of an ordinary file.

    Args:
        path: the file.
        most: the bytes that it may have.

    Raises:
        ValueError: if it is longer, or is not an ordinary file: a pipe would be waited for.
        OSError: if it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("it is not an ordinary file")
        if found.st_size > most:
            raise ValueError(f"it has {found.st_size:,} bytes, of which at most {most:,} are read")
        content = file.read(min(most, found.st_size + (1 << 20)) + 1)  # of which one may be growing
    if len(content) > most:
        raise ValueError(f"it has more than {most:,} bytes")
    return content


def check_ordinary(path: Path) -> None:
    """Refuse what is not an ordinary file; a pipe would be waited for, and a device read without end.

    Raises:
        ValueError: if it is something else.
        OSError: if it is not there.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError("it is not an ordinary file")


def read_json(path: Path, most: int = MAX_JSON) -> Any:
    """What a JSON file holds.

    Raises:
        ValueError: if it is not JSON in UTF-8, too long or too deep, or a name stands in an object twice.
        OSError: if it cannot be read.
    """
    content = read_bounded(path, most)
    try:
        value = json.loads(content, object_pairs_hook=_each_once)
    except RecursionError:
        raise ValueError("lists or objects in each other without end") from None
    _check_size(value)
    return value


def read_json_object(path: Path, required: tuple[str, ...] = (), most: int = MAX_JSON) -> dict[str, Any]:
    """The object that a JSON file holds.

    Args:
        path: the file.
        required: the names that it must have.
        most: the bytes that it may have.

    Raises:
        ValueError: if it is not a JSON object in UTF-8, lacks a name, or is too long or too deep.
        OSError: if it cannot be read.
    """
    value = read_json(path, most)
    if not isinstance(value, dict):
        raise ValueError(f"a JSON {type(value).__name__} in the place of an object")
    missing = [name for name in required if name not in value]
    if missing:
        raise ValueError(f"without {', '.join(missing)}")
    return value


def as_text(value: object, most: int = 200) -> str:
    """A value from a file or a user as one printable line: no line breaks, no control characters, not too long."""
    text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in str(value)[: most + 1])
    return text if len(text) <= most else text[: most - 1] + "…"


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).strip().splitlines()
    return as_text(lines[0]) if lines else type(error).__name__


def _check_size(value: Any) -> None:
    """Refuse what is too deep or has too many values."""
    level, seen = [value], 0
    for _ in range(MAX_DEPTH):
        seen += len(level)
        if seen > MAX_NODES:
            raise ValueError(f"more than {MAX_NODES:,} values")
        level = [item for each in level if isinstance(each, dict | list) for item in _items(each)]
        if not level:
            return
    raise ValueError(f"lists or objects in each other, more than {MAX_DEPTH} deep")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object by its names, of which JSON itself takes the last of two."""
    found = dict(pairs)
    if len(found) < len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the name {as_text(twice, 40)!r} twice")
    return found


def _items(value: dict[str, Any] | list[Any]) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value
