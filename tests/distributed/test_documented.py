"""The commands of the page on several processes, large data and many fits, run as they stand there, on small data."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
SMALL = ["--hidden", "8", "--latent-dim", "2", "--epochs", "1"]
SMALLER = {"mnist": "digits", "4": "2", "beta=1,2,4": "beta=1,2", "latent_dim=10,20": "hidden=8", "5": "1"}


def commands() -> list[list[str]]:
    text = (ROOT / "docs/scaling.md").read_text()
    lines = "\n".join(re.findall(r"```(?:sh|text)\n(.*?)```", text, re.DOTALL)).splitlines()
    return [shlex.split(line) for line in lines if line.startswith(("torchrun ", "python cli.py "))]


@pytest.fixture
def place(tmp_path) -> Path:
    x = np.random.default_rng(0).integers(0, 256, size=(300, 6, 6)).astype(np.uint8)
    np.save(tmp_path / "faces.npy", x)
    np.save(tmp_path / "faces.labels.npy", np.arange(300) % 4 - 1)
    (tmp_path / "photos").mkdir()
    for i in range(30):
        Image.fromarray(x[i]).save(tmp_path / f"photos/{i}.png")
    return tmp_path


def test_the_page_has_commands():
    assert [words[0] for words in commands()] == ["torchrun", "torchrun", "python", "python"]


@pytest.mark.slow
def test_the_commands_of_the_page_run(place):
    begin = {"torchrun": ["-m", "torch.distributed.run"], "python": []}
    for words in commands():
        smaller = [SMALLER.get(word, word) for word in words]
        if "--memory" in smaller:
            smaller[smaller.index("--memory") + 1] = "64KB"
            smaller += ["--batch-size", "20"]
        if "photos:size=64" in smaller:
            smaller[smaller.index("photos:size=64")] = "photos:size=4"
        run = [sys.executable, *begin[words[0]], *smaller[1:]]
        run = [str(ROOT / word) if word == "cli.py" else word for word in run]
        small = ["--data", "digits", "--set", "epochs=1"] if "sweep" in run else SMALL
        made = place / smaller[smaller.index("--out") + 1]
        done = subprocess.run(
            [*run, *small],
            cwd=place,
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYRO_VAE_DATA": str(place / "kept")},
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.returncode == 0, (run, done.stderr)
        assert (made / ("table.csv" if "sweep" in run else "history.csv")).exists()
