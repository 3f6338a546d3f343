"""From a configuration to a trained run: data, programs, trainer, run directory.

This is the one room that knows all the others.  ``fit`` starts a run, ``resume`` goes on with one, ``load`` opens one.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from pyro_vae import animation
from pyro_vae.assembly import (
    AUTO,
    Program,
    build_pair,
    check_names,
    resolve_augmentation,
    resolve_binarization,
    resolve_classifier,
    resolve_likelihood,
    resolve_resampling,
)
from pyro_vae.config import FitConfig
from pyro_vae.data import (
    IN_MEMORY,
    Batches,
    Dataset,
    binarize_once,
    check_range,
    check_same,
    describe_pixels,
    facts_of,
    from_arrays,
    labelled_rows,
    load_data,
    load_same_data,
    random_affine,
)
from pyro_vae.diagnostics.findings import Finding
from pyro_vae.errors import InputError, TrainingError
from pyro_vae.folder import RunFolder
from pyro_vae.inference import Pair, Structure, Trainer
from pyro_vae.inference.automatic import settle
from pyro_vae.progress import Display, choose_display
from pyro_vae.run import Run

CHANGEABLE = {"epochs", "patience", "device"}  # what a resumed run may change
Data = str | Dataset | np.ndarray | torch.Tensor | tuple[Any, Any]


class Interrupted(KeyboardInterrupt):
    """Training was stopped by Ctrl-C, after the step under way; the run, as far as it came, is in ``run``."""

    def __init__(self, run: Run) -> None:
        super().__init__("stopped by Ctrl-C")
        self.run = run


def fit(
    model: Program = "vae",
    guide: Program = "mean_field",
    data: Data = "digits",
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    download: bool = False,
    strict: bool = False,
    display: Display | bool = True,
    **settings: Any,
) -> Run:
    r"""Fit a guide to a model.

    Args:
        model: a name, or any Pyro program called with (x) or (x, y).
        guide: a name, or any Pyro program called likewise; a name pairs with models of this package.
        data: a name, the path of an ``.npz`` or ``.npy`` file or of a folder of images, a ``Dataset``, an array x, or
            a pair of arrays (x, y).
        out: the run directory to write; None keeps the run in memory.
        overwrite: whether ``out`` may replace a run that is there.
        download: whether a data set that is not there may be fetched.
        strict: whether an image of a folder that cannot be read is refused; else it is left out, and that is said.
        display: shows the progress; True: a bar on a terminal and a line elsewhere, False: nothing.
        **settings: the other fields of ``FitConfig``: ``labels``, ``latent_dim``, ``beta``, ``epochs``, ``seed``, …

    Raises:
        InputError: if anything asked for does not fit; nothing was written then.
        TrainingError: if the loss became no finite number; the run directory holds the last good checkpoint.
        Interrupted: after Ctrl-C, with the run as far as it came.
    """
    names = {"model": _name_of(model), "guide": _name_of(guide), "data": data if isinstance(data, str) else IN_MEMORY}
    config = FitConfig.of(**names, **settings)
    check_names(config, model, guide)
    if not isinstance(model, str) and config.beta == AUTO:
        config = config.model_copy(update={"beta": 1.0})  # a program of one's own is trained as it stands
    folder = None if out is None else Path(out)
    if folder is not None:
        RunFolder.check_free(folder, overwrite)
    device = _device(config.device)
    dataset = _dataset(data, download, strict)
    config = resolve_classifier(resolve_likelihood(config, dataset, model), dataset, model, guide)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        pair = build_pair(config, dataset.event_shape, dataset.num_classes, model, guide)
        under_way, shown = _Fit(config, dataset, pair, device), choose_display(display)
        if folder is not None:
            under_way.create_folder(folder, overwrite)
        return _finished(under_way.train(shown), shown)


def resume(
    path: str | Path,
    *,
    model: Callable[..., Any] | None = None,
    guide: Callable[..., Any] | None = None,
    data: Data | None = None,
    display: Display | bool = True,
    **settings: Any,
) -> Run:
    """Go on with a run from its last checkpoint, to the bit as if it had never stopped.

    Args:
        path: the run directory.
        model: the program, where it was not one of this package's.
        guide: likewise.
        data: the data, where they came as arrays.
        display: as for ``fit``.
        **settings: ``epochs``, ``patience`` or ``device`` to change; any other must be what the run has.

    Raises:
        InputError: if there is no such run, or it was made from another model, other data or other settings.
    """
    folder = RunFolder.open(Path(path))
    old = folder.config
    given = {"model": model, "guide": guide, "data": data}
    settings = settings | {name: value for name, value in given.items() if isinstance(value, str)}
    settings = {name: value for name, value in settings.items() if value != AUTO}  # what the run has, then
    config = FitConfig.of(**(old.model_dump() | settings))
    for name, value in config:
        if name not in CHANGEABLE and value != getattr(old, name):
            raise InputError(
                f"{name} {_shown(getattr(old, name))}, as the run at {path} has it",
                _shown(value),
                f"leave out --{name.replace('_', '-')}, or start a new run without --resume",
            )
    training = folder.training()
    done, epochs = training["progress"]["epoch"], config.num_epochs
    if done >= epochs:
        raise InputError(f"more epochs than the {done} that {path} has", f"{epochs}", f"use --epochs {done + epochs}")
    device = _device(config.device)
    if data is None or isinstance(data, str):
        dataset = load_same_data(config.data, folder.facts)
    else:
        dataset = _dataset(data)
        check_same(dataset, folder.facts)
    with torch.random.fork_rng():
        pair = build_pair(config, dataset.event_shape, dataset.num_classes, model or old.model, guide or old.guide)
        under_way, shown = _Fit(config, dataset, pair, device), choose_display(display)
        pair.load_state_dict(folder.weights("last"))
        under_way.trainer.load_state_dict(training)
        under_way.trainer.progress.stopped = ""
        folder.save_config(config)
        under_way.folder = folder
        return _finished(under_way.train(shown), shown)


def load(
    path: str | Path,
    *,
    checkpoint: str = "best",
    model: Callable[..., Any] | None = None,
    guide: Callable[..., Any] | None = None,
    device: str = "auto",
) -> Run:
    """Open a run directory.

    Args:
        path: the run directory.
        checkpoint: ``best``, by the validation objective, or ``last``.
        model: the program, where it was not one of this package's; its weights are put back.
        guide: likewise.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        InputError: if there is no run, it is of a newer format, or its checkpoint is cut off.
    """
    if checkpoint not in ("best", "last"):
        raise InputError("a checkpoint: best or last", repr(checkpoint), "use --checkpoint best")
    folder = RunFolder.open(Path(path))
    config, facts = folder.config, folder.facts
    with torch.random.fork_rng():
        pair = build_pair(config, facts.event_shape, facts.num_classes, model or config.model, guide or config.guide)
        structure = _place(pair, facts.event_shape, _device(device))
    pair.load_state_dict(folder.weights(checkpoint))
    return Run(config, facts, pair, structure, dataset=None, folder=folder, history=folder.history)


class _Fit:
    """One fit under way."""

    def __init__(self, config: FitConfig, dataset: Dataset, pair: Pair, device: torch.device) -> None:
        self.dataset, self.pair = dataset, pair
        self.facts = facts_of(dataset)
        self.structure = _place(pair, dataset.event_shape, device)
        binarization = resolve_binarization(config, self.structure, dataset.kind)
        check_range(dataset, binarization, self.structure.support)
        labels = config.labels if self.structure.has_label else "none"
        rows = labelled_rows(dataset.train, labels, dataset.num_classes, config.seed)
        batches = Batches(dataset.train.to(device), rows, config.batch_size, binarization, config.seed)
        validation = binarize_once(dataset.validation, binarization).to(device)
        augment = random_affine if resolve_augmentation(config, dataset.event_shape) == "affine" else None
        resampling = resolve_resampling(config, pair)
        config = settle(config, batches.num_steps, bool(self.structure.enumerated))
        self.config = config.model_copy(update={"binarization": binarization})
        self.trainer = Trainer(pair, self.structure, batches, validation, config, augment, resampling)
        self.folder: RunFolder | None = None

    def create_folder(self, path: Path, overwrite: bool) -> None:
        weights, training = self.pair.state_dict(), self.trainer.state_dict()
        self.folder = RunFolder.create(path, self.config, self.facts, weights, training, overwrite)

    def train(self, display: Display) -> Run:
        trainer = self.trainer
        best = self._weights() if self.folder is None else self.folder.weights("best")
        with _stopping(trainer), display:
            display.say(self._describe())
            display.start(trainer)
            animation.begin(self._run())
            try:
                for row in trainer.epochs(display.step, display.say):
                    if trainer.is_best:
                        best = self._weights()
                    animation.keep(self._run(), last=trainer.done)  # before the checkpoint, so that none is missing
                    self._save(trainer.is_best)
                    display.epoch(row)
            except TrainingError as error:
                if self.folder is not None:
                    self.folder.save_evaluation({}, [Finding("failed", error.found, error.mend)])
                raise
        if trainer.progress.stopped:
            display.say(trainer.progress.stopped)
        if trainer.stop_requested and not trainer.done:
            self._save(best=False)
            raise Interrupted(self._run())
        self.pair.load_state_dict(best)
        return self._run()

    def _describe(self) -> str:
        """What is trained on what, what ``auto`` became and why, in three lines."""
        config, batches, pixels = self.config, self.trainer.batches, describe_pixels(self.dataset)
        likelihood = f"; likelihood {config.likelihood}" if config.likelihood != AUTO else ""
        drawn = {"dynamic": ", binarized by draws", "threshold": ", binarized at 0.5", "none": ""}[batches.binarization]
        labels = f" ({len(batches.labelled_rows)} labelled)" if self.structure.has_label else ""
        where = f" -> {self.folder.path}" if self.folder else ""
        return (
            f"{config.model} + {config.guide} on {self.dataset.name}, {pixels}{drawn}{likelihood}\n"
            f"{self.facts.split}{labels}, seed {config.seed}{where}\n"
            f"{_count(config.num_epochs, 'epoch')} of {_count(batches.num_steps, 'step')}{self._stopping()}; "
            f"{self.trainer.beta}"
        )

    def _stopping(self) -> str:
        patience = self.config.patience
        if patience == "none" or int(patience) >= self.config.num_epochs:
            return ""
        return f" or fewer, if {patience} in a row bring nothing"

    def _weights(self) -> dict[str, torch.Tensor]:
        return {name: value.clone() for name, value in self.pair.state_dict().items()}

    def _save(self, best: bool) -> None:
        if self.folder is None:
            return
        self.folder.save_history(self.trainer.progress.history)
        weights = self.pair.state_dict()
        if best:
            self.folder.save_checkpoint("best", weights)
        self.folder.save_checkpoint("last", weights, self.trainer.state_dict())

    def _run(self) -> Run:
        progress = self.trainer.progress
        return Run(
            self.config,
            self.facts,
            self.pair,
            self.structure,
            dataset=self.dataset,
            folder=self.folder,
            history=pd.DataFrame(progress.history),
            stopped=progress.stopped,
            iterates=(self.trainer.iterates.values, self.trainer.iterates.names),
        )


def _finished(run: Run, display: Display) -> Run:
    for finding in run.findings:
        display.say(f"Note: {finding}")
    if run.folder is not None:
        from pyro_vae.report import write_report  # late: it imports matplotlib

        write_report(run)
    return run


@contextmanager
def _stopping(trainer: Trainer) -> Iterator[None]:
    """Let the first Ctrl-C finish the step under way; a second one is the ordinary kind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(signum: int, frame: Any) -> None:
        trainer.stop_requested = True
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _place(pair: Pair, event_shape: tuple[int, ...], device: torch.device) -> Structure:
    """Move a pair to its device and run it once, so that all its parameters are there."""
    for module in pair.modules().values():
        module.to(device)
    return pair.probe(torch.zeros(2, *event_shape, device=device))


def _device(name: str) -> torch.device:
    if name not in ("auto", "cpu", "cuda"):
        raise InputError("a device: auto, cpu or cuda", repr(name), "use --device auto")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("a CUDA device for --device cuda", "a torch that sees none", "use --device auto or cpu")
    return torch.device(name)


def _dataset(data: Data, download: bool = False, strict: bool = False) -> Dataset:
    if isinstance(data, str):
        return load_data(data, download=download, strict=strict)
    if isinstance(data, Dataset):
        return data
    x, y = data if isinstance(data, tuple) else (data, None)
    return from_arrays(np.asarray(x), None if y is None else np.asarray(y), IN_MEMORY)


def _name_of(program: Program) -> str:
    if isinstance(program, str):
        return program
    kind = program if hasattr(program, "__qualname__") else type(program)
    return f"{kind.__module__}.{kind.__qualname__}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _shown(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else repr(value)
