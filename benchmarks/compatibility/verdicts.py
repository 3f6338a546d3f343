"""What two runs of a program say of the compiled estimators: one with stock Pyro, one without."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

COMPARED = 100  # first losses: rounding alone leads two long runs apart
TOLERANCE = 1e-3  # relative; what is beyond it is called wrong
Status = Literal["compiled", "eager", "wrong", "crashed", "not run"]


@dataclass(frozen=True)
class Finding:
    """A row of the matrix.

    Args:
        name: of the program.
        status: what happened.
        why: the reason, where there is one.
        difference: the largest of the first losses, relative to the largest of them; None without losses.
        graphs: recorded in all.
        compiled: of these, those that were compiled; the others are replayed as recorded.
        first: seconds from the first call of an estimator to the first that ran a graph.
        step: the median time of later calls, over stock's.
        whole: the time of the whole script, over stock's; None where it was cut short.
        calls: of the estimators.
    """

    name: str
    status: Status
    why: str = ""
    difference: float | None = None
    graphs: int = 0
    compiled: int = 0
    first: float | None = None
    step: float | None = None
    whole: float | None = None
    calls: int = 0
    notes: list[str] = field(default_factory=list)


def judge(name: str, stock: dict[str, Any], ours: dict[str, Any]) -> Finding:
    """The row of a program.

    Args:
        name: what the table calls it.
        stock: what the worker wrote with Pyro's estimators.
        ours: what it wrote with the compiled ones.
    """
    if not stock["losses"]:
        return Finding(name, "not run", stock["problem"] or "it calls none of the estimators")
    reasons = list(dict.fromkeys(text for kind, text in ours["said"] if kind == "NotCompiled"))
    if not ours["losses"] and ours["end"] == "time":
        return Finding(name, "not run", "no call within the time limit")
    difference = largest_difference(stock["losses"], ours["losses"])
    graphs = sum(ours["compiled"].values())
    whole = ours["whole"] / stock["whole"] if stock["end"] == ours["end"] in ("finished", "calls", "failed") else None
    status: Status = "compiled" if graphs else "eager"
    if not (graphs or reasons):
        reasons = ["none of its pairs of programs is called often enough"]
    why = "; ".join(reasons)
    if stock["problem"]:
        why = "; ".join([*reasons, f"both end early: {stock['problem']}"])
    if ours["end"] == "failed" and stock["end"] != "failed":
        status, why = "crashed", ours["problem"]
    elif difference is None or difference > TOLERANCE:
        status = "wrong"
    return Finding(
        name,
        status,
        why,
        difference,
        graphs,
        sum(text.startswith("compiling") for kind, text in ours["said"] if kind == "compiling"),
        first_compiled(ours),
        _ratio(later(ours), later(stock)),
        whole,
        len(ours["losses"]),
        [text for kind, text in ours["said"] if kind == "Recompiled"],
    )


def largest_difference(stock: Sequence[float], ours: Sequence[float]) -> float | None:
    """The largest difference of the first losses, relative to the largest of them; two that are not numbers agree."""
    pairs = [
        (a, b) for a, b in zip(stock[:COMPARED], ours[:COMPARED], strict=False) if not (a == b or (a != a and b != b))
    ]
    if not ours:
        return None
    scale = max((abs(a) for a in stock[:COMPARED] if a == a and abs(a) != float("inf")), default=0.0) or 1.0
    differences = [abs(a - b) / scale for a, b in pairs]
    return max((float("inf") if value != value else value for value in differences), default=0.0)


def first_compiled(run: dict[str, Any]) -> float | None:
    """Seconds from the beginning of the first call to the end of the first whose programs had a graph."""
    i = next((i for i, graphs in enumerate(run["graphs"]) if graphs), None)
    return None if i is None else float(run["starts"][i] + run["seconds"][i] - run["starts"][0])


def later(run: dict[str, Any]) -> float | None:
    """The median time of the later half of the calls."""
    half = run["seconds"][len(run["seconds"]) // 2 :]
    return statistics.median(half) if half else None


def _ratio(ours: float | None, stock: float | None) -> float | None:
    return None if ours is None or not stock else ours / stock
