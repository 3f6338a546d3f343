"""One fit under way: data, trainer, folder and display, from the first step to the last."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from pyro_vae.config import FitConfig
from pyro_vae.data import (
    Batches,
    Dataset,
    binarize_once,
    check_range,
    describe_pixels,
    labelled_rows,
)
from pyro_vae.data.augmentation import OfSeen
from pyro_vae.data.images import CHUNK
from pyro_vae.data.mapped import check_mapped
from pyro_vae.diagnostics.findings import Finding
from pyro_vae.distributed import ALONE, World, note_run
from pyro_vae.errors import InputError, TrainingError
from pyro_vae.pairs import Pair, ProbedPair
from pyro_vae.priors import meet_first_batch
from pyro_vae.runs import animation
from pyro_vae.runs.assembly import AUTO, resolve_augmentation, resolve_binarization, resolve_resampling
from pyro_vae.runs.config_file import broken
from pyro_vae.runs.current import CHECKPOINTS
from pyro_vae.runs.data_facts import facts_of
from pyro_vae.runs.display import Display, listening
from pyro_vae.runs.folder import RunFolder
from pyro_vae.runs.run import Run, count
from pyro_vae.runs.saving import Saver
from pyro_vae.runs.stopping import Interrupted, hinting, stopping
from pyro_vae.runs.surroundings import SURROUNDINGS, note_on, surroundings
from pyro_vae.runs.table_rows import check_columns, supports_of
from pyro_vae.training import Trainer
from pyro_vae.training.automatic import settle
from pyro_vae.training.faults import find_fault
from pyro_vae.training.fitness import check_classes, check_labels, rehearse
from pyro_vae.training.precision import note_on_precision
from pyro_vae.training.trainer import Progress

logger = logging.getLogger(__name__)

MASKED_ROWS = 100  # on which programs have to show that they take missing values
PROBED_ROWS = 11  # that programs are looked at with: a number that few plates but that over the rows will have


class Session:
    """One fit under way."""

    def __init__(
        self, config: FitConfig, dataset: Dataset, pair: Pair, device: torch.device, world: World = ALONE
    ) -> None:
        self.dataset, self.pair, self.world, self.device = dataset, pair, world, device
        self.notes = [note_on_precision(config.precision, device)]  # to be said when the training begins
        self.facts = facts_of(dataset)
        if dataset.columns:
            supports = supports_of(pair.model, dataset.columns)
            parts = (chunk.values() for part in dataset.splits for chunk in part.chunks(CHUNK))
            check_columns(parts, dataset.columns, supports, dataset.name)
        if dataset.has_missing:
            check_masks(pair, dataset.train[:MASKED_ROWS].values().to(device))
        self.probed = place(pair, dataset.train[:PROBED_ROWS].values().to(device), len(dataset.train))
        binarization = resolve_binarization(config, self.probed, dataset.kind)
        check_range(dataset, binarization, None if self.probed.units else self.probed.support)
        if dataset.train.labels is not None and not self.probed.has_label:
            check_labels(self.probed, *_labelled(dataset, device))
        labels = config.labels if self.probed.has_label else "none"
        if labels != "none":
            check_classes(self.probed, dataset.num_classes or 0)
        rows = labelled_rows(dataset.train, labels, dataset.num_classes, config.seed, dataset.class_names)
        check_mapped(dataset.train, config.batch_size, 1 + (0 < len(rows) < len(dataset.train)))
        batches = Batches(dataset.train.to(device), rows, config.batch_size, binarization, config.seed, world)
        validation = binarize_once(dataset.validation, binarization).to(device)
        augment = resolve_augmentation(config, dataset.event_shape)
        if augment is not None and dataset.has_missing:
            augment = OfSeen(augment)
        resampling = resolve_resampling(config, pair)
        config = settle(config, batches.num_steps, self.probed.sums)
        self.config = config.model_copy(update={"binarization": binarization})
        meet_first_batch(pair, first_batch(batches, device), config.seed)
        self.trainer = Trainer(self.probed, batches, validation, config, augment, resampling, world)
        rehearse(self.probed, self.trainer.loss.objective, validation[:PROBED_ROWS].x(), self.trainer.beta.final)
        self.folder: RunFolder | None = None  # of the process that writes
        self.path: Path | None = None

    def create_folder(self, path: Path, overwrite: bool) -> None:
        self.path, weights, training = path, self.trainer.weights(), self._state()
        self.folder = self.world.together(lambda: self._create(path, weights, training, overwrite))

    def _create(
        self, path: Path, weights: dict[str, Any], training: dict[str, Any], overwrite: bool
    ) -> RunFolder | None:
        if not self.world.is_writer:
            return None
        folder = RunFolder.create(path, self.config, self.facts, weights, training, overwrite)
        note_run(os.path.abspath(path))
        return folder

    def go_on(self, folder: RunFolder, training: dict[str, Any]) -> None:
        """Take up a run where it stopped.

        Args:
            folder: its directory, with the right to write into it.
            training: the state that it holds.

        Raises:
            InputError: if that is not the state of such a training.
        """
        self.pair.load_state_dict(folder.weights("last"))
        try:
            self.trainer.load_state_dict(training)
        except (LookupError, RuntimeError, TypeError, ValueError) as error:
            raise broken(folder.path / CHECKPOINTS, error) from None
        self.trainer.progress.stopped = ""
        self.notes.append(note_on(training.get(SURROUNDINGS), self.device))
        self.path = folder.path
        if self.world.is_writer:
            folder.begin(self.config, training)
            self.folder = folder

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Give back the right to write into the run directory at the end."""
        try:
            yield
        finally:
            if self.folder is not None:
                self.folder.release()

    def train(self, display: Display) -> Run:
        trainer = self.trainer
        watched = self.world.watching(None if self.path is None else str(self.path))
        hint = f"go on from the last checkpoint with: python cli.py fit --resume {self.path}" if self.path else ""
        with hinting(hint), stopping(trainer) as signals, Saver(self.folder) as saver:
            with display, listening(display.say), watched:
                for line in filter(None, [self._describe(), *self.notes]):
                    display.say(line)
                logger.debug(f"settings: {self.config.model_dump()}")
                display.start(trainer)
                animation.begin(self._run())
                try:
                    best = self._train(display, saver)
                except TrainingError as error:
                    if self.folder is not None:
                        with contextlib.suppress(OSError):
                            self.folder.save_evaluation({}, [Finding("failed", error.found, error.mend)])
                    raise
            if trainer.progress.stopped:
                display.say(trainer.progress.stopped)
            if trainer.stop_requested and not trainer.done:
                self._save(saver, best=False)
                saver.wait()
                self.pair.load_state_dict(trainer.weights())
                raise Interrupted(self._run(), *signals[:1])
        self.pair.load_state_dict(best if self.folder is None else self.folder.weights("best"))
        self.world.share(list(self.pair.state_dict().values()))
        return self._run()

    def _train(self, display: Display, saver: Saver) -> dict[str, torch.Tensor]:
        """Train to the end, with a checkpoint after every epoch; the best weights, where no directory has them."""
        trainer = self.trainer
        best = trainer.weights() if self.folder is None else {}

        def after_step(progress: Progress) -> None:
            display.step(progress)
            saver.check()
            if progress.step == trainer.batches.num_steps:
                saver.copy(self._settled())

        start = time.perf_counter()
        try:
            for row in trainer.epochs(after_step):
                seconds, start = time.perf_counter() - start, time.perf_counter()
                logger.debug(f"epoch {trainer.progress.epoch}: {seconds:.2f} s, {_in_words(row)}")
                if trainer.is_best and self.folder is None:
                    best = trainer.weights()
                if animation.is_due(trainer.progress.epoch, self.config.num_epochs, last=trainer.done):
                    saver.wait()
                    with trainer.average.in_use():
                        animation.keep(self._run(), last=trainer.done)  # before the checkpoint: none is missing
                self._save(saver, trainer.is_best)
                display.epoch(row)
        finally:
            saver.wait()
        return best

    def _settled(self) -> list[torch.Tensor]:
        """What steps alone change; where averages are kept, they take the place of the weights for a while."""
        eager = self.trainer.eager
        states = eager.optimizer.state_dict()["state"].values()
        moments = [value for state in states for value in state.values() if isinstance(value, torch.Tensor)]
        return moments if self.config.ema else [*eager.parameters, *moments]

    def _describe(self) -> str:
        """What is trained on what, what ``auto`` became and why, in three lines."""
        config, batches, pixels = self.config, self.trainer.batches, describe_pixels(self.dataset)
        likelihood = f"; likelihood {config.likelihood}" if config.likelihood != AUTO else ""
        pixels += ", standardized" if config.standardize else ""
        drawn = {"dynamic": ", binarized by draws", "threshold": ", binarized at 0.5", "none": ""}[batches.binarization]
        labels = f" ({len(batches.labelled_rows)} labelled)" if self.probed.has_label else ""
        where = f" -> {self.folder.path}" if self.folder else ""
        return (
            f"{config.model} + {config.guide} on {self.dataset.name}, {pixels}{drawn}{likelihood}\n"
            f"{self.facts.split}{labels}, seed {config.seed}{where}\n"
            f"{count(config.num_epochs, 'epoch')} of {count(batches.num_steps, 'step')}{self._stopping()}; "
            f"{self.trainer.beta}{self._units()}"
        )

    def _units(self) -> str:
        units = self.probed.units
        return f"\nmetrics and draws are in the units {units}" if units else ""

    def _stopping(self) -> str:
        patience = self.config.patience
        if patience == "none" or int(patience) >= self.config.num_epochs:
            return ""
        return f" or fewer, if {patience} in a row bring nothing"

    def _save(self, saver: Saver, best: bool) -> None:
        if self.path is None:
            return
        training = self._state()
        with self.trainer.average.in_use():
            saver.save(self.pair.state_dict(), training, best)

    def _state(self) -> dict[str, Any]:
        return self.trainer.state_dict() | {SURROUNDINGS: surroundings(self.device)}

    def _run(self) -> Run:
        progress = self.trainer.progress
        return Run(
            self.config,
            self.facts,
            self.probed,
            dataset=self.dataset,
            folder=self.folder,
            history=pd.DataFrame(progress.history),
            stopped=progress.stopped,
            iterates=(self.trainer.iterates.values, self.trainer.iterates.names),
        )


def _in_words(row: Mapping[str, float]) -> str:
    """The numbers of an epoch in one line."""
    return ", ".join(f"{name} {value:.6g}" for name, value in row.items() if name != "epoch")


def check_masks(pair: Pair, x: torch.Tensor) -> None:
    r"""Refuse programs that take no missing values.

    Args:
        pair: the model and the guide.
        x: some rows, shape (N, \*event_shape), NaN where a value is missing.

    Raises:
        InputError: if a site is not finite where x is NaN.
    """
    for module in pair.all_modules().values():
        module.to(x.device)
    fault = find_fault(pair, x, None, torch.arange(len(x)), may_miss=True)
    if fault:
        raise InputError(
            "programs that leave missing values (NaN in x) out of the likelihood and out of what they encode",
            fault,
            "use a model and a guide by name, call mask_missing() on the model before the guide is made, or fill them",
        )


def first_batch(batches: Batches, device: torch.device) -> torch.Tensor:
    r"""As many training rows as a batch has, from all over the set, shape (B, \*event_shape).

    The first rows of a set that is sorted, by class or by time, would be of one kind.
    """
    images = batches.images
    rows = torch.linspace(0, len(images) - 1, min(batches.batch_size, len(images))).long()
    return binarize_once(images[rows.to(device)], batches.binarization).to(device).x()


def _labelled(dataset: Dataset, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The first rows and their labels; what has none is of the first class here."""
    rows = dataset.train[:PROBED_ROWS].to(device)
    assert rows.labels is not None
    return rows.values(), rows.labels.clamp(min=0)


def place(pair: Pair, x: torch.Tensor, num_rows: int) -> ProbedPair:
    r"""Move a pair to the device of some rows, and run it on them, so that all its parameters are there.

    Args:
        pair: the model and the guide.
        x: some rows, shape (N, \*event_shape).
        num_rows: the rows of the whole set that it is trained on.
    """
    for module in pair.all_modules().values():
        module.to(x.device)
    return pair.probe(x, num_rows=num_rows)
