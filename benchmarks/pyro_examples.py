"""Pyro's own examples, tutorials and tests under the compiled estimators: is one wrong, does one crash?

    python benchmarks/pyro_examples.py --pyro PATH                    # some forty programs, short; an hour
    python benchmarks/pyro_examples.py --pyro PATH --default          # with their default numbers of steps
    python benchmarks/pyro_examples.py --pyro PATH --only vae --only lda
    python benchmarks/pyro_examples.py --pyro PATH --at-once          # each graph compiled when it first runs
    python benchmarks/pyro_examples.py --pyro PATH --tests            # Pyro's tests of gradients, enumeration, …

PATH is a checkout of Pyro, which is run as it is and not changed; only the classes that ``from pyro.infer import …``
finds are others.  Each program runs twice, in a process of its own, at one seed: with Pyro's estimators and with the
compiled ones.  A row says

- *compiled*; *eager*, with what the estimator said; *wrong*, where a loss differs by more than rounding; *crashed*,
  where only the compiled one raises; or *not run*, where a program needs what is not here;
- the largest difference among the first hundred losses, relative to the largest of them;
- graphs, and how many of them were compiled, since a graph is replayed as recorded until its runs have lost what
  compiling it costs; seconds to the first step of a graph; the median time of a later step and the time of the whole
  script, over stock's.

MNIST and faces are read from the folder of PYRO_VAE_DATA; three small data sets are made up in the form of the real
ones.  Modules that a program imports and that are not installed (seaborn, zuko, …) can be put on PYTHONPATH.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.compatibility.programs import PROGRAMS, Program
from benchmarks.compatibility.verdicts import Finding, judge

ROOT = Path(__file__).parent.parent
GRACE = 120  # seconds beyond its limit, until a process that does not answer is ended
COLOURS = {"compiled": "green", "eager": "yellow", "wrong": "bold red", "crashed": "bold red", "not run": "dim"}


@click.command()
@click.option("--pyro", "checkout", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--only", multiple=True, metavar="TEXT", help="programs, or tests, whose name has this in it")
@click.option("--without", multiple=True, metavar="TEXT", help="leave out programs whose name has this in it")
@click.option("--default", is_flag=True, help="the default number of steps, not a small one")
@click.option("--limit", default=0, metavar="SECONDS", help="for each run  [default: 120; 3600 with --default]")
@click.option("--calls", default=1500, show_default=True, help="that end a short run of a tutorial")
@click.option("--replay", "way", flag_value="replayed", help="never compile, replay as recorded")
@click.option("--at-once", "way", flag_value="at once", help="compile each graph when it first runs")
@click.option("--markdown", type=click.Path(dir_okay=False, path_type=Path), help="a file for the table")
@click.option("--tests", is_flag=True, help="Pyro's own tests, in the place of its programs")
def main(
    checkout: Path,
    only: tuple[str, ...],
    without: tuple[str, ...],
    default: bool,
    limit: int,
    calls: int,
    way: str | None,
    markdown: Path | None,
    tests: bool,
) -> None:
    """Run Pyro's programs twice, with its own estimators and with the compiled ones, and print what differs."""
    checkout = checkout.resolve()
    environment = surroundings(checkout)
    if tests:
        from benchmarks.compatibility.own_tests import run_tests

        sys.exit(run_tests(checkout, only, way or "at once", environment))
    limit = limit or (3600 if default else 120)
    findings = []
    for program in PROGRAMS:
        if only and not any(text in program.name for text in only):
            continue
        if any(text in program.name for text in without):
            continue
        most = 0 if default or not program.path.endswith(".ipynb") else calls
        ways = ("stock", way or "compiled")
        argv = command(checkout, program, default)
        findings.append(compare(program.name, argv, ways, (limit, most), environment, to_the_end=default))
        print(line(findings[-1]), flush=True)
    show(findings)
    if markdown is not None:
        markdown.write_text(as_markdown(findings))


def surroundings(checkout: Path) -> dict[str, str]:
    """The environment of a process that runs a program of a checkout."""
    path = [str(checkout), str(ROOT), os.environ.get("PYTHONPATH", "")]
    extra = {"PYTHONPATH": os.pathsep.join(filter(None, path)), "MPLBACKEND": "Agg", "PYTHONDONTWRITEBYTECODE": "1"}
    return {**os.environ, **extra}


def command(checkout: Path, program: Program, default: bool) -> list[str]:
    """A program and its arguments."""
    return [str(program.source(checkout)), *program.arguments(default)]


def compare(
    name: str,
    command: list[str],
    ways: tuple[str, str],
    limits: tuple[int, int],
    environment: dict[str, str],
    to_the_end: bool = False,
) -> Finding:
    """Run a program both ways, each in a process and a folder of its own.

    Args:
        name: what the table calls it.
        command: the program and its arguments.
        ways: the two sets of estimators, stock's first.
        limits: seconds and calls.
        environment: of the processes.
        to_the_end: whether a program counts only if it ends by itself.
    """
    if not Path(command[0]).exists():
        return Finding(name, "not run", "it is not in this checkout")
    runs = []
    for way in ways:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            runs.append(run(Path(folder), way, limits, command, environment))
        if not runs[0]["losses"]:
            return judge(name, runs[0], runs[0])
        if to_the_end and runs[0]["end"] == "time":
            return Finding(name, "not run", f"stock Pyro's run does not end within {limits[0]} s")
    return judge(name, *runs)


def run(
    folder: Path, way: str, limits: tuple[int, int], command: list[str], environment: dict[str, str]
) -> dict[str, Any]:
    """What a worker writes of a run; a process that dies has failed."""
    out, place = folder / "found.json", folder / "here"
    place.mkdir()
    worker = [sys.executable, "-m", "benchmarks.compatibility.worker", str(out), way, *map(str, limits)]
    problem = ""
    with (folder / "output.txt").open("w") as output:
        try:
            done = subprocess.run(
                [*worker, *command],
                cwd=place,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=limits[0] + GRACE,
                check=False,
            )
            if not out.exists():
                last = (folder / "output.txt").read_text(errors="replace").strip().splitlines()[-1:]
                problem = f"the process ended with status {done.returncode}: {''.join(last)}"
        except subprocess.TimeoutExpired:
            problem = f"no answer after {limits[0] + GRACE} s"
    if not out.exists():
        empty: dict[str, Any] = {"losses": [], "seconds": [], "starts": [], "graphs": [], "compiled": {}, "said": []}
        return {**empty, "whole": 0.0, "end": "failed", "problem": problem}
    found: dict[str, Any] = json.loads(out.read_text())
    return found


HEADINGS = ("program", "status", "difference", "calls", "graphs (compiled)", "first graph", "step", "whole", "why")


def cells(finding: Finding) -> list[str]:
    """A row as text."""
    if finding.status == "not run":
        return [finding.name, finding.status, *[""] * 6, finding.why]

    def number(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    return [
        finding.name,
        finding.status,
        number(finding.difference, ".0e"),
        str(finding.calls),
        f"{finding.graphs} ({finding.compiled})" if finding.graphs else "0",
        number(finding.first, ".1f") + (" s" if finding.first is not None else ""),
        number(finding.step, ".2f"),
        number(finding.whole, ".2f"),
        "; ".join(filter(None, [finding.why, *finding.notes])),
    ]


def line(finding: Finding) -> str:
    """A row on one line, as it comes."""
    return "  ".join(filter(None, cells(finding)))


def show(findings: list[Finding]) -> None:
    """Print the matrix, and how many there are of each status."""
    table = Table(*HEADINGS, box=None, padding=(0, 1, 0, 0))
    for finding in findings:
        name, status, *rest = cells(finding)
        table.add_row(name, f"[{COLOURS[status]}]{status}[/]", *rest)
    console = Console(highlight=False)
    console.print(table)
    counts = [f"{sum(finding.status == status for finding in findings)} {status}" for status in COLOURS]
    console.print(", ".join(counts))


def as_markdown(findings: list[Finding]) -> str:
    """The matrix as a table of a document."""
    rows = [list(HEADINGS), ["---"] * len(HEADINGS), *(cells(finding) for finding in findings)]
    return "".join(f"| {' | '.join(text.replace('|', '/') for text in row)} |\n" for row in rows)


if __name__ == "__main__":
    main()
