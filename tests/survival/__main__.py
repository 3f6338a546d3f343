"""Kill a command at every change of a file, let the power fail after each, the disk be full from each one on, and
each one fail alone.

Run it as ``python -m tests.survival``.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.survival.disk import crashes
from tests.survival.scenarios import SCENARIOS, Harness

FAILING = ("kills", "power", "disk", "errors")


def states(harness: Harness, failing: str, every: int, first: int) -> Iterator[tuple[str, Callable[[], Path]]]:
    """States by name, each with what makes it."""
    operations = harness.operations()
    if failing == "power":
        yield from itertools.islice(crashes(harness.start, operations, harness.fresh), first % every, None, every)
        return
    for at in range(first, len(operations), every):
        where = f"{at} ({operations[at].kind} {operations[at].path})"
        if failing in ("disk", "errors"):
            stays = failing == "errors" and operations[at].kind in ("unlink", "rmdir")
            yield f"{failing} at {where}", partial(harness.failed, at, failing == "disk", stays)
            continue
        yield f"before {where}", lambda at=at: harness.killed(at)
        if operations[at].kind == "write":
            yield f"in the middle of {where}", lambda at=at: harness.killed(at, half=True)


def run(name: str, failing: str, every: int = 1, first: int = 0) -> list[str]:
    """Check every n-th state of a scenario; what is broken, a line each."""
    with tempfile.TemporaryDirectory() as place:
        return check(Harness(name, Path(place)), failing, every, first)


def check(harness: Harness, failing: str, every: int, first: int) -> list[str]:
    """The same of a scenario that is prepared."""
    begin, seen, different, broken = time.monotonic(), 0, 0, []
    for state, make in states(harness, failing, every, first):
        seen += 1
        try:
            different += harness.check(make(), frames=failing != "errors")
        except Exception as error:
            broken.append(f"{harness.name}, {failing}, {state}: {type(error).__name__}: {error}")
            print(f"BROKEN {broken[-1]}", flush=True)
    seconds = time.monotonic() - begin
    print(f"{harness.name}, {failing}: {seen} states, {different} of them different, {seconds:.0f} s", flush=True)
    return broken


def main() -> int:
    """Print a line per scenario and one per broken state; exit status 1 if there is one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenario", choices=SCENARIOS, action="append", help="default: all")
    parser.add_argument("--failing", choices=FAILING, action="append", help="default: all four")
    parser.add_argument("--every", type=int, default=1, help="take every n-th state")
    parser.add_argument("--first", type=int, default=0, help="and begin with this one")
    given = parser.parse_args()
    broken = 0
    for name in given.scenario or SCENARIOS:
        for failing in given.failing or FAILING:
            broken += len(run(name, failing, given.every, given.first))
    print(f"{broken} broken")
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
