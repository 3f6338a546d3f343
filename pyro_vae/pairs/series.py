r"""Sites that are one site at each step of a sequence: z_1, z_2, …, z_T.

A program in a loop over time names its sites by number.  Such sites are of one kind, and what a guide makes of one of
them it can make of all: q(z_t | …) is the same function at every t, for sequences of any length.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

FEWEST_STEPS = 3  # what is numbered up to two may be anything


@dataclass(frozen=True)
class Series:
    """The names of the sites of one kind, one for each step.

    Args:
        prefix: what comes before the number.
        suffix: what comes after it.
        first: the number of the first step.
        length: how many steps there were.
        digits: how many digits a number has at least, ``z_01``.

    Example:
        >>> from pyro_vae.pairs.series import Series
        >>> z = Series("z_", "", first=1, length=3)
        >>> z.names, z.at(8)
        (('z_1', 'z_2', 'z_3'), 'z_9')
    """

    prefix: str
    suffix: str
    first: int
    length: int
    digits: int = 1

    def at(self, step: int) -> str:
        """The name of the site at a step, of which the first is 0."""
        return f"{self.prefix}{self.first + step:0{self.digits}d}{self.suffix}"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all sites there were."""
        return tuple(self.at(step) for step in range(self.length))


def find_series(names: Iterable[str], kind: Callable[[str], Hashable], lengths: Sequence[int]) -> tuple[Series, ...]:
    """The series among some sites, all of one length, in the order of their first sites.

    Args:
        names: of the sites.
        kind: whatever the sites of a series have in common.
        lengths: those that a series may have, of which the first that there is counts.

    Example:
        >>> from pyro_vae.pairs.series import find_series
        >>> [series.names for series in find_series(["w", "z1", "z2", "z3"], lambda name: name[0], [3])]
        [('z1', 'z2', 'z3')]
    """
    numbered: dict[tuple[str, str, Hashable], list[str]] = {}
    for name in names:
        for number in re.finditer(r"\d+", name):
            place = name[: number.start()], name[number.end() :], kind(name)
            numbered.setdefault(place, []).append(number[0])
    series = [_series(prefix, suffix, numbers) for (prefix, suffix, _), numbers in numbered.items()]
    there = [one for one in series if one is not None]
    length = next((length for length in lengths if any(one.length == length for one in there)), None)
    found: list[Series] = []
    for one in there:
        if one.length == length and not any({*one.names} & {*other.names} for other in found):
            found.append(one)
    return tuple(found)


def _series(prefix: str, suffix: str, numbers: Sequence[str]) -> Series | None:
    """The series of sites with these numbers; None if they do not follow each other."""
    first, digits = int(numbers[0]), len(numbers[0])
    if len(numbers) < FEWEST_STEPS or [int(number) for number in numbers] != [*range(first, first + len(numbers))]:
        return None
    return Series(prefix, suffix, first, len(numbers), digits if digits > len(str(first)) else 1)
