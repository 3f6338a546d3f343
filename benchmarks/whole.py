"""What a step's time leaves out: whole epochs, likelihoods, the time to the first step, memory."""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from rich.console import Console

import pyro_vae
from benchmarks.own import EVENT_SHAPE, MLP
from benchmarks.peers import settings
from benchmarks.timing import ROOT, Here
from pyro_vae.config import FitConfig
from pyro_vae.data import Images
from pyro_vae.data.binarization import binarize_once
from pyro_vae.diagnostics import nll_per_datum
from pyro_vae.runs.assembly import OfShape, build_pair
from pyro_vae.runs.display import Bar
from pyro_vae.training.step import Step

SAMPLES = 5_000
IMAGES = 1_000
PRODUCT = 2048
EPOCHS = 6


def likelihood(console: Console, rounds: int) -> None:
    """The importance-weighted NLL of 5,000 samples: achieved FLOP/s against a plain large matrix product."""
    config = FitConfig.from_settings(**MLP)
    torch.manual_seed(0)
    pair = build_pair(config, OfShape(EVENT_SHAPE), "vae", "mean_field")
    probed = pair.probe(torch.zeros(2, *EVENT_SHAPE))
    images = Images(torch.from_numpy(settings.images()[:IMAGES]).view(-1, *EVENT_SHAPE), scale=255)
    images = binarize_once(images, "dynamic")
    encoder = sum(math.prod(p.shape) for p in pair.guide.parameters() if p.dim() == 2)  # type: ignore[attr-defined]
    decoder = sum(math.prod(p.shape) for p in pair.model.parameters() if p.dim() == 2)  # type: ignore[attr-defined]
    flop = 2.0 * IMAGES * (encoder + SAMPLES * decoder)
    a = torch.randn(PRODUCT, PRODUCT)
    products = {
        "torch.mm": partial(torch.mm, a, a),
        "oneDNN": partial(torch.ops.mkldnn._linear_pointwise, a, a, None, "none", [], ""),
    }
    console.print(f"[bold]NLL of {IMAGES:,} images, {SAMPLES:,} samples each, compiling included[/] (target: 0.60)")
    rates: dict[str, list[float]] = {"pyro_vae": [], **{name: [] for name in products}}
    for _ in range(max(2, rounds // 5)):
        begin = time.perf_counter()
        nll_per_datum(probed, images, SAMPLES)
        rates["pyro_vae"].append(flop / (time.perf_counter() - begin))
        for name, product in products.items():
            begin = time.perf_counter()
            for _ in range(20):
                product()
            rates[name].append(20 * 2.0 * PRODUCT**3 / (time.perf_counter() - begin))
    ours = statistics.median(rates["pyro_vae"])
    for name, values in rates.items():
        rate = statistics.median(values)
        console.print(f"  {name:10} {rate / 1e9:5.0f} GFLOP/s   ours / it {ours / rate:.2f}")
    console.print()


class _Watching(Bar):
    """The bar, on a terminal or not, that sums the time of the steps and of the epochs as they pass."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[float] = [0.0]
        self.epochs: list[float] = []

    def step(self, progress: Any) -> None:
        trainer = self._trainer
        if trainer.step is not trainer.eager and not isinstance(trainer.step, _Timed):
            trainer.step = cast(Step, _Timed(trainer.step, self.steps))
        super().step(progress)

    def epoch(self, row: Any) -> None:
        super().epoch(row)
        self.epochs.append(time.perf_counter())
        self.steps.append(0.0)

    @property
    def whole(self) -> list[float]:
        """Seconds of each epoch but the first, in which the step is compiled."""
        return [b - a for a, b in zip(self.epochs[:-1], self.epochs[1:], strict=True)]


class _Timed:
    def __init__(self, step: Any, sums: list[float]) -> None:
        self.made, self.sums = step, sums

    def __call__(self, *arguments: Any) -> Any:
        begin = time.perf_counter()
        result = self.made(*arguments)
        self.sums[-1] += time.perf_counter() - begin
        return result


def epoch(console: Console, rounds: int) -> None:
    """A whole epoch through ``fit``, with its bar, validation and checkpoint, against the sum of its steps."""
    watching = _Watching()
    with tempfile.TemporaryDirectory() as folder:
        images = settings.images().reshape(-1, *EVENT_SHAPE)
        pyro_vae.fit(
            "vae", data=images, out=f"{folder}/run", display=watching, compile="on", epochs=EPOCHS, **_fit_settings()
        )
    whole = watching.whole
    steps = watching.steps[1 : len(whole) + 1]
    ratio = statistics.median(a / b for a, b in zip(whole, steps, strict=True))
    console.print("[bold]An epoch through fit, with bar, validation and checkpoints[/] (target: 1.10 of its steps)")
    console.print(
        f"  epoch {statistics.median(whole):.2f} s, its steps {statistics.median(steps):.2f} s: {ratio:.2f}\n"
    )


def cuda_epoch(console: Console, rounds: int) -> None:
    """An epoch of 60,000 images through ``fit`` on a GPU, with its bar, validation and checkpoint."""
    console.print("[bold]An epoch through fit on a GPU[/] (target: 0.15 s)")
    if not torch.cuda.is_available():
        console.print("  needs a CUDA GPU\n", style="yellow")
        return
    watching = _Watching()
    with tempfile.TemporaryDirectory() as folder:
        images = settings.images().reshape(-1, *EVENT_SHAPE)
        given = _fit_settings() | {"compile": "on", "epochs": 5 * EPOCHS, "device": "cuda"}
        pyro_vae.fit("vae", data=images, out=f"{folder}/run", display=watching, **given)
    console.print(f"  epoch {statistics.median(watching.whole):.3f} s\n")


def first_step(console: Console, rounds: int) -> None:
    """From the call of ``fit`` to the end of its first compiled step, in new processes: cold, then with a cache."""
    console.print("[bold]Time to the first compiled step[/] (target: 12 s cold, 3 s with a warm cache)")
    with tempfile.TemporaryDirectory() as cache:
        for name in ("cold", "warm", "warm"):
            seconds = _in_a_process(
                "first_step", str(time.time()), TORCHINDUCTOR_CACHE_DIR=f"{cache}/inductor", TMPDIR=cache
            )
            console.print(f"  {name}: {seconds['fit']:.1f} s, and {seconds['imports']:.1f} s of imports before it")
    console.print()


def memory(console: Console, rounds: int) -> None:
    """The largest resident size of a process that trains."""
    console.print("[bold]Peak memory[/] (target: 1.20 of stock SVI's)")
    for name in ("vae", "ss_vae"):
        stock, ours = (_in_a_process("peak", name, kind)["gib"] for kind in ("stock", "compiled"))
        console.print(f"  {name}: stock SVI {stock:.2f} GiB, compiled {ours:.2f} GiB: {ours / stock:.2f}")
    console.print()


WHOLE: dict[str, Callable[[Console, int], None]] = {
    "nll": likelihood,
    "epoch": epoch,
    "cuda_epoch": cuda_epoch,
    "first_step": first_step,
    "memory": memory,
}


def _fit_settings() -> dict[str, Any]:
    return MLP | {"binarization": "dynamic", "likelihood": "bernoulli", "device": "cpu"}


def _in_a_process(task: str, *words: str, **environment: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.whole", task, *words]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _first_step(started: str) -> None:
    imported = time.time()
    images = settings.images()[:10_000].reshape(-1, *EVENT_SHAPE)
    called = time.time()

    class Stop(Bar):
        def step(self, progress: Any) -> None:
            if self._trainer.step is not self._trainer.eager:
                seconds = {"imports": imported - float(started), "fit": time.time() - called}
                print(json.dumps(seconds), flush=True)
                os._exit(0)

    pyro_vae.fit("vae", data=images, display=Stop(), compile="on", **_fit_settings())


def _peak(name: str, kind: str) -> None:
    from benchmarks.own import SS_VAE, own_step
    from benchmarks.peers.pyro_m2 import pyro_m2
    from benchmarks.peers.pyro_stock import pyro_stock

    if kind == "stock":
        contender: Here = pyro_stock() if name == "vae" else pyro_m2()
    else:
        contender = own_step(name, **(MLP if name == "vae" else SS_VAE))
    settings.images()  # made once, at a peak of its own
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak begins anew
    contender.start()
    contender.run(100)
    (peak,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"gib": int(peak.split()[1]) / 2**20}))


if __name__ == "__main__":
    task, *rest = sys.argv[1:]
    tasks: dict[str, Callable[..., None]] = {"first_step": _first_step, "peak": _peak}
    tasks[task](*rest)
