"""Generated command lines and mutated files, as many as are asked for: ``python -m tests.fuzzing``."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

import pyro_vae
from pyro_vae.arviz_bridge import open_posterior, save_posterior
from pyro_vae.errors import InputError
from tests.fuzzing import commands, files

LONGEST = 60  # seconds of a command


@contextmanager
def folder() -> Iterator[Path]:
    """A folder with a run, files of data and a folder of images, in which commands are run."""
    home = Path.cwd()
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        try:
            rng = np.random.default_rng(0)
            x, y = rng.uniform(size=(60, 4, 4)).astype(np.float32), np.arange(60) % 3
            np.savez("toy.npz", x=x, y=y)
            np.save("toy.npy", x.reshape(60, 16))
            table = np.c_[x.reshape(60, 16)[:, :4], y]
            np.savetxt("toy.csv", table, delimiter=",", header="a,b,c,d,label", comments="")
            Path("photos").mkdir()
            for i in range(12):
                Image.fromarray((255 * x[i]).astype(np.uint8)).save(f"photos/{i}.png")
            options = {"batch_size": 24, "hidden": (4,), "latent_dim": 2, "labels": "none", "likelihood": "gaussian"}
            run = pyro_vae.fit("vae", data="toy.npz", out="run", epochs=2, compile="off", display=False, **options)
            save_posterior(run.to_arviz(3, 4), "posterior.nc")
            yield Path(place)
        finally:
            os.chdir(home)


class Findings:
    """Runs commands and keeps what is wrong with how they end."""

    def __init__(self, place: Path) -> None:
        self.place, self.faults, self.count = place, list[str](), 0
        self._kept = {path.name: path.read_bytes() for path in place.iterdir() if path.is_file()}
        shutil.copytree(place / "run", place / "kept", dirs_exist_ok=True)

    def restore(self) -> None:
        for name in ("run", "new", "runs"):
            shutil.rmtree(self.place / name, ignore_errors=True)
        shutil.copytree(self.place / "kept", self.place / "run")
        for path in self.place.iterdir():
            if path.is_file() and path.name not in self._kept:
                path.unlink()
        for name, content in self._kept.items():
            (self.place / name).write_bytes(content)

    def run(self, words: list[str], about: str = "") -> None:
        self.count += 1
        begin = time.monotonic()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = commands.run(words)
        fault = commands.fault(result, set(), self.place)
        if time.monotonic() - begin > LONGEST:
            fault = f"{time.monotonic() - begin:.0f} seconds"
        if fault:
            self.faults.append(f"{words}{about}: {fault}")
            print(f"FAULT {self.faults[-1]}", flush=True)

    def read(self, path: Path, about: str) -> None:
        """Read a posterior, which no command does."""
        self.count += 1
        errors: list[BaseException | None] = []
        said, sys.unraisablehook = sys.unraisablehook, lambda what: errors.append(what.exc_value)
        try:
            open_posterior(path)
        except InputError:
            pass
        except Exception as error:
            errors.append(error)
        finally:
            sys.unraisablehook = said
        for error in errors:
            self.faults.append(f"open_posterior{about}: {type(error).__name__}: {error}")
            print(f"FAULT {self.faults[-1]}", flush=True)


def examples(strategy: st.SearchStrategy, count: int, seed: int, do: Callable[[object], None]) -> None:
    """Draw from a strategy, as often as is asked for, the same each time for a seed."""
    from hypothesis import seed as seeded

    @seeded(seed)
    @settings(max_examples=count, deadline=None, database=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(strategy)
    def each(value: object) -> None:
        do(value)

    each()


def command_lines(place: Path, count: int, seed: int = 0) -> Findings:
    """Run generated command lines."""
    found = Findings(place)

    def do(words: list[str]) -> None:
        found.restore()
        found.run(words)

    examples(commands.lines().filter(lambda words: not commands.costs_too_much(words)), count, seed, do)
    found.restore()
    return found


def mutated_files(place: Path, count: int, seed: int = 0) -> Findings:
    """Open mutated files of every kind with each of the commands that read them."""
    found = Findings(place)
    kinds = files.kinds_of(place / "run")
    fit = ["fit", *commands.SMALL[2:], "--out", "new"]
    targets = {name: (path.relative_to(place), words) for name, (path, words) in kinds.items()}
    for name, path in files.data_kinds(place).items():
        targets[name] = (path.relative_to(place), [[*fit, "--data", path.name]])
    targets["image"] = (Path("photos/0.png"), [[*fit, "--data", "photos"]])
    targets["settings"] = (Path("kept/config.json"), [[*fit, "--config", "kept/config.json", "--data", "toy.npz"]])
    for name in ("weights", "training"):
        targets[f"{name} and its checksum"] = targets[name]
    targets["posterior"] = (Path("posterior.nc"), [])
    each = -(-count // len(targets))
    for name, (path, words) in targets.items():
        whole = (place / path).read_bytes()

        def do(content: bytes, name: str = name, path: Path = path, words: list[list[str]] = words) -> None:
            found.restore()
            (place / path).write_bytes(content)
            if name.endswith("checksum"):
                files.mend_checksums(place / "run")
            about = f" with a changed {name} {content[:200]!r}"
            if words:
                found.run(words[found.count % len(words)], about)
            else:
                found.read(path, about)

        examples(files.changed(path.name, whole), each, seed, do)
        (place / path).write_bytes(whole)
        found.restore()
    return found


def main() -> int:
    """Print what is wrong; exit status 1 if something is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commands", type=int, default=0, metavar="N", help="command lines")
    parser.add_argument("--files", type=int, default=0, metavar="N", help="mutated files")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    total = 0
    for name, count, fuzz in (("commands", asked.commands, command_lines), ("files", asked.files, mutated_files)):
        if count:
            begin = time.monotonic()
            with folder() as place:
                found = fuzz(place, count, asked.seed)
            total += len(found.faults)
            print(
                f"{name}: {found.count} run, {len(found.faults)} faults, {time.monotonic() - begin:.0f} s", flush=True
            )
    return int(total > 0)


if __name__ == "__main__":
    sys.exit(main())
