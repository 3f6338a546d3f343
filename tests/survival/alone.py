"""Calls a test function in a process that has loaded neither pytest nor what other tests need."""

from __future__ import annotations

import importlib
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any


def call(module: str, name: str, arguments: dict[str, Any], root: Path) -> None:
    """Call a function in a new process; what it printed and raised there is what fails here."""
    command = [sys.executable, "-m", "tests.survival.alone"]
    done = subprocess.run(command, input=pickle.dumps((module, name, arguments)), cwd=root, capture_output=True)
    said = done.stdout[-3000:].decode() + done.stderr[-2000:].decode()
    assert done.returncode == 0, said


def main() -> None:
    """Call the function that standard input names; warnings are errors, as under pytest."""
    module, name, arguments = pickle.load(sys.stdin.buffer)
    function = getattr(importlib.import_module(module), name)
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", ".*use of fork.*", DeprecationWarning)
    function(**arguments)


if __name__ == "__main__":
    main()
