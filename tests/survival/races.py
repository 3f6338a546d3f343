"""Kills at random moments, readers beside a writer, two writers at once: ``python -m tests.survival.races``."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyro_vae
from pyro_vae.runs.folder import RunFolder
from tests.survival.scenarios import FIT, RESUME, Broken, Harness, _logical, command, forked

COMPILED = [*(word for word in FIT if word not in ("--compile", "off")), "--compile", "on"]


def start(work: Callable[[], None], folder: Path) -> int:
    """Begin something in a process of its own, which leads a group; its number."""
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        os._exit(abs(forked(work, folder)))
    return child


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kills(count: int, compiled: bool, seed: int = 0) -> int:
    """Kill ``fit`` at random moments from its first instruction on, resume it, and count ends that are not equal.

    Each is a process of its own until it is killed; what goes on with it is forked from here, where all is loaded.
    """
    words = COMPILED if compiled else FIT
    program = [sys.executable, "-c", "from pyro_vae.cli import main; main()", *words]
    chance, broken, lengths, fell = random.Random(seed), 0, [], Counter[str]()
    if compiled:
        _load_compiler()
    with tempfile.TemporaryDirectory() as place:
        harness = Harness("fit", Path(place))
        whole = harness.copy(harness.start)
        for _ in range(2):  # the second time with all that a first one keeps
            begin = time.monotonic()
            subprocess.run([*program, "--overwrite"], cwd=whole, check=True, capture_output=True)
            lengths.append(time.monotonic() - begin)
        expected = _end(whole)
        for number in range(count):
            folder = harness.copy(harness.start)
            process = subprocess.Popen(program, cwd=folder, stdout=-3, stderr=-3, start_new_session=True)
            time.sleep(chance.uniform(0, lengths[-1]))
            os.killpg(process.pid, signal.SIGKILL)
            alive = process.wait() == -signal.SIGKILL
            try:
                fell[_finished(harness, folder, words) if alive else "after its end"] += 1
                if _end(folder) != expected:
                    raise Broken("another end")
                if left := [path.name for path in folder.iterdir() if path.name not in ("run", "toy.npz")]:
                    raise Broken(f"left lying about: {left}")
            except Exception as error:
                broken += 1
                print(f"BROKEN kill {number}: {type(error).__name__}: {error}", flush=True)
            shutil.rmtree(folder)
    print(f"killed {', '.join(f'{where}: {times}' for where, times in fell.items())}", flush=True)
    return broken


def _finished(harness: Harness, folder: Path, words: list[str]) -> str:
    """Take a killed fit to its end; says how far it had come."""
    if not (folder / "run").exists():
        harness._must(command(words), folder)
        return "before there was a run"
    rows = len(RunFolder.open(folder / "run").history)
    if rows < 2:
        harness._must(command(RESUME), folder)
    return f"after {rows} epochs"


def _load_compiler() -> None:
    """Load what a compiled step needs, and have the digest of the compiler ready, without which no cache is read."""
    from torch._inductor import codecache, compile_fx, cpp_builder  # noqa: F401
    from torch.utils import cpp_extension  # noqa: F401

    codecache.CacheBase.get_system()
    codecache.torch_key()


def _end(folder: Path) -> dict[str, str]:
    return {name: _logical(folder / "run")[name] for name in ("history", "best", "last", "config")}


def reads(count: int) -> int:
    """Read a run in a loop while it trains, and count reads that fail, and trainings that are disturbed."""
    with tempfile.TemporaryDirectory() as place:
        harness = Harness("fit", Path(place))
        alone, beside = harness.copy(harness.end), harness.copy(harness.end)
        broken = done = epochs = 0
        while done < count:
            epochs += 30
            more = [*RESUME, "--epochs", str(epochs)]
            harness._must(command(more), alone)
            writer = start(command(more), beside)
            while done < count and os.waitpid(writer, os.WNOHANG) == (0, 0):
                done += 1
                try:
                    folder = RunFolder.open(beside / "run")
                    last, history = folder.training()["progress"], folder.history
                    if last["epoch"] != len(history) or len(last["history"]) != len(history):
                        raise Broken(f"the state of epoch {last['epoch']} beside {len(history)} rows")
                    pyro_vae.load(beside / "run", checkpoint="last" if done % 2 else "best")
                except Exception as error:
                    broken += 1
                    print(f"BROKEN read {done}: {type(error).__name__}: {error}", flush=True)
            else:
                if done >= count:
                    ended(writer)
            if _logical(alone / "run") != _logical(beside / "run"):
                broken += 1
                print("BROKEN: the training was disturbed", flush=True)
    return broken


def resumes(count: int) -> int:
    """Resume one run twice at once, and count the times when not one wins and one is refused."""
    broken = 0
    with tempfile.TemporaryDirectory() as place:
        harness = Harness("fit", Path(place))
        more = command([*RESUME, "--epochs", "4"])
        alone = harness.copy(harness.end)
        harness._must(more, alone)
        for number in range(count):
            folder = harness.copy(harness.end)
            both = sorted(map(ended, [start(more, folder), start(more, folder)]))
            if both != [0, 2] or _logical(folder / "run") != _logical(alone / "run"):
                broken += 1
                print(f"BROKEN resume {number}: exit statuses {both}", flush=True)
    return broken


def main() -> int:
    """Print a line per race; exit status 1 if something was disturbed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=0, metavar="N", help="at random moments, eager")
    parser.add_argument("--compiled-kills", type=int, default=0, metavar="N", help="at random moments, compiled")
    parser.add_argument("--reads", type=int, default=0, metavar="N", help="beside a fit")
    parser.add_argument("--resumes", type=int, default=0, metavar="N", help="pairs of them at once")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    given, total = parser.parse_args(), 0
    races = {
        "kills": (given.kills, lambda n: kills(n, False, given.seed)),
        "compiled kills": (given.compiled_kills, lambda n: kills(n, True, given.seed)),
        "reads": (given.reads, reads),
        "resumes": (given.resumes, resumes),
    }
    for name, (count, race) in races.items():
        if count:
            begin = time.monotonic()
            broken = race(count)
            total += broken
            print(f"{name}: {count}, {broken} broken, {time.monotonic() - begin:.0f} s", flush=True)
    return int(total > 0)


if __name__ == "__main__":
    sys.exit(main())
