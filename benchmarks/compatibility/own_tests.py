"""Pyro's own tests, with its own and with the compiled estimators: which pass with the one and fail with the other?"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

FILES = tuple(
    f"tests/infer/test_{name}.py"
    for name in ("gradient", "enum", "autoguide", "inference", "multi_sample_elbos", "jit")
)
LIMIT = 300  # seconds for one test
LOOKS_INSIDE: dict[str, str] = {}  # a pattern of names of tests, and why they cannot pass

Outcomes = dict[str, tuple[str, str]]


def run_tests(checkout: Path, only: Sequence[str], way: str, environment: dict[str, str]) -> int:
    """Run the tests both ways, and print what differs.

    Args:
        checkout: of Pyro.
        only: texts of which the name of a test has one; all without.
        way: how graphs run, one of ``patching.set_way``.
        environment: of the processes.

    Returns:
        0 if every test that passes with stock Pyro passes, or is known to look inside.
    """
    stock = outcomes(checkout, only, "stock", environment)
    ours = outcomes(checkout, only, way, environment)
    passed = [name for name, (outcome, _) in stock.items() if outcome == "passed"]
    print(f"{len(passed)} of {len(stock)} tests pass with stock Pyro")
    unexpected = 0
    for name in passed:
        outcome, why = ours.get(name, ("missing", ""))
        if outcome == "passed":
            continue
        known = [reason for pattern, reason in LOOKS_INSIDE.items() if re.search(pattern, name)]
        unexpected += not known
        print(f"  {name}: {known[0] if known else f'{outcome.upper()}: {why}'}")
    print(f"{sum(ours.get(name, ('', ''))[0] == 'passed' for name in passed)} of these pass with the compiled classes")
    return min(unexpected, 1)


def outcomes(checkout: Path, only: Sequence[str], way: str, environment: dict[str, str]) -> Outcomes:
    """The outcome of every test, and the first line of its error."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "outcomes.jsonl"
        out.touch()
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "benchmarks.compatibility.plugin",
            "-p",
            "no:cacheprovider",
        ]
        command += ["-n", str(os.cpu_count()), "--timeout", str(LIMIT), "-p", "no:cacheprovider", "-o", "addopts="]
        command += [*FILES, *(["-k", " or ".join(only)] if only else [])]
        found = {"PYRO_VAE_TESTS_WAY": way, "PYRO_VAE_TESTS_OUT": str(out)}
        subprocess.run(command, cwd=checkout, env={**environment, **found}, stdout=sys.stderr, check=False)
        lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    return {name: (outcome, why) for name, outcome, why in lines}
