"""Why a run is not made a graph, as errors; nothing is loaded for that but Python."""

from __future__ import annotations

MAX_NODES = 50_000  # operations of a graph


class Untraceable(Exception):
    """A function cannot be recorded; the text says why."""


class TooLarge(Untraceable):
    """A function takes more operations than are recorded.

    Args:
        most: how many are.
        recorded: how many were, until this was known.

    Attributes:
        operations: how many the function takes, once it was run and they were counted; 0 before.
    """

    def __init__(self, most: int, recorded: int) -> None:
        super().__init__(f"a run takes more than {most:,} operations")
        self.recorded, self.operations = recorded, 0


class Unsettled(Untraceable):
    """A run has made parameters, or met invalid values, and the next one will not."""


class Missed(Untraceable):
    """Values are not those that a graph was recorded with; the text says what depends on them."""


class Failed(Exception):
    """A graph could not be made; the text says why.  The programs, and all they hold, are as they were."""
