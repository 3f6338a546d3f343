"""What the toolkit takes: the time of ``--help``, the time of the default command, the memory of training on MNIST.

    python benchmarks/footprint.py               # needs PYRO_VAE_DATA for the MNIST rows

Every figure is of whole processes, run one after the other on an otherwise idle machine.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parent.parent
PEAK = "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)"
IMPORT = f"import torch, pyro, pyro.infer; {PEAK}"
TRAIN = """
import pyro_vae
pyro_vae.fit({model!r}, data="mnist", epochs=1, display=False)
"""


def seconds(*words: str, repeat: int = 1) -> list[float]:
    """Wall-clock seconds of ``python …``, run from the root of the checkout, each time."""
    taken = []
    for _ in range(repeat):
        begin = time.perf_counter()
        subprocess.run([sys.executable, *words], cwd=ROOT, check=True, capture_output=True)
        taken.append(time.perf_counter() - begin)
    return taken


def peak(script: str) -> float:
    """The peak memory of a Python script, in GiB (Linux counts in KiB)."""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    """Measure and print."""
    table = Table("what", "figure", "limit", title=f"{os.cpu_count()} cores")
    help_times = seconds("cli.py", "--help", repeat=11)
    table.add_row("cli.py --help, median of 11", f"{statistics.median(help_times):.2f} s", "0.5 s")
    with tempfile.TemporaryDirectory() as folder:
        taken = seconds("cli.py", "fit", "--model", "ss_vae", "--out", f"{folder}/run")[0]
        table.add_row("cli.py fit --model ss_vae, whole process", f"{taken:.0f} s", "90 s")
    base = peak(IMPORT)
    table.add_row("peak memory of importing torch and pyro", f"{base:.2f} GiB", "")
    if os.environ.get("PYRO_VAE_DATA"):
        for model in ("vae", "ss_vae"):
            extra = peak(TRAIN.format(model=model) + PEAK) - base
            table.add_row(f"an epoch of {model} on MNIST, above that", f"{extra:.2f} GiB", "1.5 GB")
    Console().print(table)


if __name__ == "__main__":
    main()
