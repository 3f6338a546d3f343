"""What a person should know while something runs, handed to whoever shows it."""

from __future__ import annotations

from collections.abc import Callable

Note = Callable[[str], None]
