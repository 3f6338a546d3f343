"""Commands that write, each started from a known folder, and what must hold of the folder whatever happened to them."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import itertools
import json
import os
import pickle
import secrets
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch._dynamo  # which an optimizer loads: once here, and not for a second in each forked process
from matplotlib.figure import Figure

import pyro_vae
from pyro_vae.cli import main
from pyro_vae.files import whole
from pyro_vae.runs import diagnosis, report
from pyro_vae.runs.current import CHECKPOINTS, Current
from pyro_vae.runs.folder import RunFolder
from tests.survival.operations import Operation, Watch

SETTINGS = "--data toy.npz --batch-size 24 --hidden 4 --latent-dim 2 --labels none --likelihood gaussian".split()
FIT = ["fit", *SETTINGS, "--epochs", "2", "--out", "run", "--compile", "off"]
DIAGNOSE = "diagnose run --num-data 6 --samples 8 --simulated 0 --split-gap 0 --check latents".split()
RESUME = ["fit", "--resume", "run"]


@dataclass(frozen=True)
class Scenario:
    """A command, and the commands that lead to the folder that it starts from."""

    before: tuple[list[str], ...]
    words: list[str]
    exchanging: bool = True  # whether the file system can exchange two names


SCENARIOS = {
    "fit": Scenario((), FIT),
    "resume": Scenario((FIT,), [*RESUME, "--epochs", "3", "--lr", "0.001"]),
    "overwrite": Scenario(([*FIT, "--seed", "5"],), [*FIT, "--overwrite"]),
    "overwrite without exchange": Scenario(([*FIT, "--seed", "5"],), [*FIT, "--overwrite"], exchanging=False),
    "evaluate": Scenario((FIT,), "evaluate run --samples 3".split()),
    "diagnose": Scenario((FIT,), DIAGNOSE),
}


class Broken(AssertionError):
    """A state that is not as it has to be."""


def forked(work: Callable[[], None], folder: Path) -> int:
    """Do something in a process of its own, in a folder; its exit status, negative for a signal."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        status = 99
        try:
            os.chdir(folder)
            log = os.open("../said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))
            _quicken()
            work()
            status = 0
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _quicken() -> None:
    """Names that are the same each time, and pictures that take no time."""
    counter = itertools.count()
    secrets.token_hex = lambda n=32: hashlib.blake2b(str(next(counter)).encode(), digest_size=n).hexdigest()
    Figure.savefig = lambda self, place, **options: Path(place).write_bytes(b"a picture")
    torch.set_num_threads(1)


def command(words: list[str]) -> Callable[[], None]:
    def run() -> None:
        main(words)

    return run


class Harness:
    """Prepares folders, runs commands in them, and says whether what they leave is whole.

    Args:
        name: of the scenario.
        place: a folder for the work.
    """

    def __init__(self, name: str, place: Path) -> None:
        gc.freeze()  # what is loaded by now: forked processes need not look through it
        self.name, self.scenario = name, SCENARIOS[name]
        self.place = Path(os.path.realpath(place))
        self._numbers = itertools.count()
        self.start = self._new()
        rng = np.random.default_rng(0)
        np.savez(self.start / "toy.npz", x=rng.uniform(size=(60, 4, 4)).astype(np.float32))
        for words in self.scenario.before:
            self._must(command(words), self.start)
        self.end = self.copy(self.start)
        forked(self._command(self.scenario.words), self.end)
        self._seen: set[str] = set()
        self._expected = self._finish(self.copy(self.end))

    def copy(self, folder: Path) -> Path:
        target = self._new()
        shutil.copytree(folder, target, dirs_exist_ok=True)
        return target

    def fresh(self) -> Path:
        """An empty folder for a state."""
        return self._new()

    def operations(self) -> list[Operation]:
        """All that the command does to files."""
        folder, found = self.copy(self.start), self.place / "operations"

        def run() -> None:
            watch = Watch(folder)
            watch.start()
            with contextlib.suppress(SystemExit):
                self._command(self.scenario.words)()
            with open(found, "wb") as file:
                pickle.dump(watch.done, file)

        status = forked(run, folder)
        if status:
            raise Broken(f"{self.name}: ended with {status}: {self._said(folder)}")
        return pickle.loads(found.read_bytes())

    def killed(self, at: int, half: bool = False) -> Path:
        """The folder as the command leaves it that is killed before an operation."""
        folder = self.copy(self.start)

        def run() -> None:
            Watch(folder, at, half).start()
            self._command(self.scenario.words)()

        status = forked(run, folder)
        if status != -signal.SIGKILL:
            raise Broken(f"{self.name}: not killed at {at}, but ended with {status}: {self._said(folder)}")
        return folder

    def failed(self, at: int, full: bool, may_leave: bool = False) -> Path:
        """The folder as the command leaves it where an operation fails, and what it says.

        Args:
            at: the number of the operation.
            full: whether the disk is full from there on; else that operation fails alone.
            may_leave: whether something may lie about until the next command: it could not be removed.

        Raises:
            Broken: if it says it in another way than it has to, or leaves something lying about.
        """
        folder = self.copy(self.start)

        def run() -> None:
            (Watch(folder, full_at=at) if full else Watch(folder, fail_at=at)).start()
            self._command(self.scenario.words)()

        status, said = forked(run, folder), self._said(folder)
        errors = [line for line in said.splitlines() if line.startswith("Error: ")]
        if "Traceback" in said or "unforeseen" in said or status not in (0, 1, 2) or len(errors) != (status > 0):
            raise Broken(f"{self.name}: ended with {status}: {said}")
        left = [str(path) for path in folder.rglob(".*")]
        if left and not may_leave:
            raise Broken(f"{self.name}: left lying about: {left}")
        return folder

    def check(self, folder: Path, frames: bool = True) -> bool:
        """Whether a state is whole, opens, and goes on to the end that it would have had; False if seen before.

        Args:
            folder: the state.
            frames: whether all pictures of epochs have to be there: one that cannot be written is left out.

        Raises:
            Broken: if it does not.
        """
        key = _digest(folder)
        if key in self._seen:
            shutil.rmtree(folder)
            return False
        self._seen.add(key)
        run = folder / "run"
        if self.name.startswith("overwrite") or self.scenario.before:
            found = RunFolder.open(run)  # at any moment there is one
            found.weights("best"), found.weights("last"), found.training(), found.history, found.evaluation
        found = self._finish(folder)
        different = [name for name in self._expected if found.get(name) != self._expected[name]]
        if found.keys() != self._expected.keys() or set(different) - (set() if frames else {"frames"}):
            raise Broken(f"{self.name}: another end than expected, in {different}")
        left = [path.name for path in folder.iterdir() if path.name not in ("toy.npz", "run")]
        left += [str(path) for path in run.rglob(".*")]
        left += [path.name for path in (run / CHECKPOINTS).iterdir() if path.name not in Current.read(run).files]
        if left:
            raise Broken(f"{self.name}: left lying about: {left}")
        shutil.rmtree(folder)
        return True

    def _command(self, words: list[str]) -> Callable[[], None]:
        def run() -> None:
            if not self.scenario.exchanging:
                whole.exchange = lambda first, second: False
            main(words)

        return run

    def _finish(self, folder: Path) -> dict[str, str]:
        """Take a folder to the end that it would have had, then an epoch further; a digest of each thing in it."""
        run = folder / "run"
        if not (run / "config.json").exists() and not self.scenario.before:
            self._must(command(FIT), folder)
        elif self.name.startswith("overwrite") and RunFolder.open(run).config.seed == 5:
            self._must(self._command(self.scenario.words), folder)
        if self.name == "resume" and RunFolder.open(run).config.epochs == 2:
            self._must(command(self.scenario.words), folder)
        config = RunFolder.open(run).config
        if len(RunFolder.open(run).history) < config.num_epochs:
            self._must(command(RESUME), folder)
        if self.name in ("evaluate", "diagnose"):
            self._must(command(self.scenario.words), folder)
        self._must(command([*RESUME, "--epochs", str(config.num_epochs + 1)]), folder)
        return _logical(run)

    def _must(self, work: Callable[[], None], folder: Path) -> None:
        """Do something that has to end well, without the figures, which no state depends on."""

        def run() -> None:
            report.is_picture = lambda shape: False
            report._busiest_site = lambda run: None
            report.elbo_curves = lambda history: Figure()
            diagnosis.Diagnosis.figures = lambda self: {}
            work()

        status = forked(run, folder)
        if status:
            raise Broken(f"{self.name}: ended with {status}: {self._said(folder)}")

    def _said(self, folder: Path) -> str:
        return (folder / "../said.txt").read_text().strip()[-600:]

    def _new(self) -> Path:
        path = self.place / f"{next(self._numbers):05}" / "work"
        path.mkdir(parents=True)
        return path


def _logical(run: Path) -> dict[str, str]:
    """A digest of everything that a run says, names of files and the time that it took apart."""
    found: dict[str, str] = {"history": hashlib.blake2b((run / "history.csv").read_bytes()).hexdigest()}
    for checkpoint in ("best", "last"):
        digest = hashlib.blake2b()
        for name, value in sorted(pyro_vae.load(run, checkpoint=checkpoint).pair.state_dict().items()):
            digest.update(name.encode() + value.numpy().tobytes())
        found[checkpoint] = digest.hexdigest()
    for name in ("evaluation.json", "diagnosis.json"):
        if (run / name).exists():
            content = json.loads((run / name).read_text())
            found[name] = json.dumps(content | {"seconds": 0}, sort_keys=True)
    config = json.loads((run / "config.json").read_text())["config"]
    found["config"] = json.dumps(config, sort_keys=True)
    frames = sorted((run / "frames").glob("*.png"))
    found["frames"] = str([(path.name, hashlib.blake2b(path.read_bytes()).hexdigest()) for path in frames])
    return found


def _digest(folder: Path) -> str:
    """A digest of all files and folders; of locks, what is written aside and what no pointer names, whether they hold
    something."""
    digest = hashlib.blake2b()
    counted = {path for run in folder.glob("*/config.json") for path in _counted(run.parent)}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.name.endswith(".new"):
            name = f"{path.parent.relative_to(folder)}/{path.name.split('.')[1]}"
        digest.update(name.encode() + b"\0")
        if path.is_file():
            content = path.read_bytes()
            counts = path in counted and path.name not in ("evaluation.json", "diagnosis.json")
            digest.update(content if counts else str(bool(content)).encode())
    return digest.hexdigest()


def _counted(run: Path) -> list[Path]:
    """The files of a run that are not left behind by somebody who was killed."""
    files = [path for path in run.rglob("[!.]*") if path.parent.name != CHECKPOINTS]
    with contextlib.suppress(OSError, ValueError):
        current = Current.read(run)
        return files + [run / CHECKPOINTS / name for name in (current.files if current else ())]
    return [*files, run / CHECKPOINTS / "current.json"]
