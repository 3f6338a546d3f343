"""What a benchmark has measured already: lines of JSON, one per measurement, so that one that was stopped goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

Figures = dict[str, Any]


class Kept:
    """Measurements by what they are of.

    Args:
        path: the file, which may hold some already; None: nothing is kept.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path is not None and path.exists() else []
        self._found: dict[str, Figures] = {_name(row["of"]): row["found"] for row in map(json.loads, lines)}

    def __call__(self, of: Mapping[str, Any], measure: Callable[..., Figures], *arguments: Any) -> Figures:
        """What was measured of the same settings, or what ``measure(*arguments)`` finds now."""
        name = _name(of)
        if name not in self._found:
            self._found[name] = measure(*arguments)
            if self._path is not None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("a") as file:
                    file.write(json.dumps({"of": of, "found": self._found[name]}) + "\n")
        return self._found[name]


def _name(of: Mapping[str, Any]) -> str:
    return json.dumps(of, sort_keys=True)


def spread(values: Sequence[float], digits: int) -> str:
    """The mean and, of several, the standard deviation."""
    over = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{over}"


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
