"""One program in a process of its own, with one set of estimators; what its calls gave is written to a file.

    python -m benchmarks.compatibility.worker OUT WAY SECONDS CALLS PROGRAM [ARGUMENT …]

WAY is ``stock``, or one of ``patching.set_way``.  It is run in a folder that it may write to.  The program ends by
itself, after so many seconds, or after so many calls of its estimators (0: no limit); the file says which.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import pyro

from benchmarks.compatibility import notebooks, patching, provisions
from benchmarks.compatibility.calls import Enough, Log, logged
from pyro_vae.compiled import NotCompiled, Recompiled

SEED = 0


class TimeUp(BaseException):
    """As many seconds as were asked for."""


def main() -> None:
    out, way, limit, most, program, *arguments = sys.argv[1:]
    folder = Path.cwd()
    log, said = Log(int(most)), _listen()
    patching.replace(patching.choices(way, lambda name, kind: logged(name, kind, log)))
    patching.set_way(way)
    source = Path(program)
    if source.suffix == ".ipynb":
        source = folder / f"{source.stem}.py"
        source.write_text(notebooks.script(Path(program)), encoding="utf-8")
    beside = [source] if source.parent.name == "examples" else source.parent.rglob("*.py")
    provisions.provide(folder, "".join(file.read_text(encoding="utf-8") for file in beside))
    pyro.set_rng_seed(SEED)
    signal.signal(signal.SIGALRM, _time_up)
    signal.alarm(int(limit))
    start = time.perf_counter()
    end, problem = _run(source, [program, *arguments])
    signal.alarm(0)
    found = {**log.to_dict(), "whole": time.perf_counter() - start, "end": end, "problem": problem, "said": said}
    Path(out).write_text(json.dumps(found))
    sys.stdout.flush()
    os._exit(0)  # whatever threads and workers a program leaves behind


def _run(source: Path, argv: list[str]) -> tuple[str, str]:
    """Run a script as ``python`` would; how it ended, and the last line of its error."""
    sys.argv = argv
    sys.path[0] = str(Path(argv[0]).parent)
    main_module: Any = type(sys)("__main__")
    main_module.__file__ = str(source)
    sys.modules["__main__"] = main_module
    try:
        exec(compile(source.read_text(encoding="utf-8"), str(source), "exec"), vars(main_module))
    except TimeUp:
        return "time", ""
    except Enough:
        return "calls", ""
    except SystemExit as error:
        return ("failed", f"exit status {error.code}") if error.code else ("finished", "")
    except BaseException as error:
        traceback.print_exc()
        return "failed", "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
    return "finished", ""


def _time_up(*_: Any) -> None:
    raise TimeUp


class _Compilations(logging.Handler):
    """Notes what is said of compilations."""

    def __init__(self, said: list[list[str]]) -> None:
        super().__init__(logging.INFO)
        self._said = said

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text.startswith("compiling") or "replayed as recorded" in text:
            self._said.append(["compiling", text])


def _listen() -> list[list[str]]:
    """What is said of compiling, whatever a program's own filters let through."""
    said: list[list[str]] = []
    log = logging.getLogger("pyro_vae.compiled")
    log.addHandler(_Compilations(said))
    log.setLevel(logging.INFO)
    log.propagate = False  # so that a program's own log is as it would be
    original = warnings.warn

    def warn(message: Any, category: Any = None, stacklevel: int = 1, *args: Any, **kwargs: Any) -> None:
        if category in (NotCompiled, Recompiled):
            said.append([category.__name__, str(message)])
        original(message, category, stacklevel + 1, *args, **kwargs)

    warnings.warn = warn
    return said


if __name__ == "__main__":
    main()
