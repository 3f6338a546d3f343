"""The training loop: steps, epochs, the best epoch, early stopping, and a state that resumes to the bit.

The best epoch is the one whose objective is highest on validation rows, or the last, where these are no judges
(``validation_rows.keeps_last``).

The trainer's whole state is the programs' parameters plus ``Trainer.state_dict()``: optimizer, random generators, the
place in the epoch, the history.  Put back, the run goes on as if it had never stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.distributions import constraints

from pyro_vae.compiled.payoff import Way, compile_if_it_pays
from pyro_vae.compiled.snapshot import Writes
from pyro_vae.config import TrainingConfig
from pyro_vae.data import Augment, Images
from pyro_vae.data.batches import Batches, Indices
from pyro_vae.data.pixels import LARGEST_BYTE
from pyro_vae.distributed import ALONE, Part, World
from pyro_vae.errors import InputError, TrainingError
from pyro_vae.likelihoods import Likelihood, Standardized
from pyro_vae.objectives import OBJECTIVES
from pyro_vae.pairs import turns
from pyro_vae.pairs.pair import ProbedPair
from pyro_vae.training.automatic import settle
from pyro_vae.training.averaging import averaging
from pyro_vae.training.faults import brief, find_fault
from pyro_vae.training.fitness import check_batches, check_beta
from pyro_vae.training.iterates import Iterates
from pyro_vae.training.loss import loss_on
from pyro_vae.training.optimizers import put_back
from pyro_vae.training.rate import LearningRate
from pyro_vae.training.recorded_step import RecordedStep
from pyro_vae.training.resampling import Resampling, Uniform, effective_rows
from pyro_vae.training.schedules import Constant, parse_schedule
from pyro_vae.training.step import EagerStep, Step, expected_warnings
from pyro_vae.training.together import Together
from pyro_vae.training.validation_rows import Row, Validation, keeps_last, score

REPORT_INTERVAL = 0.1  # seconds
MODERATE_NUMBER = 16  # up to which the scale of data is hardly what is wrong
LARGEST_NUMBER = 1000  # in data that a network with its usual first weights can take
WAYS: dict[str, Way | None] = {"auto": None, "on": "compiled", "off": "eager"}  # what config.compile asks for


@dataclass
class Progress:
    """Where a run stands.

    Args:
        epoch: completed epochs.
        step: completed steps of the epoch under way.
        loss_sum: the sum of their losses, as far as they were read.
        skipped: how many of them were left out, as far as that was read.
        best: the highest validation objective so far, nats per datum.
        best_epoch: the epoch that reached it.
        history: one row a completed epoch.
        stopped: why training ended before its last epoch, or empty.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    skipped: int = 0
    best: float = float("-inf")
    best_epoch: int = 0
    history: list[Row] = field(default_factory=list)
    stopped: str = ""


class Trainer:
    """The training of a pair, epoch by epoch.

    Args:
        probed: the model and the guide, with what ``Pair.probe`` said of them, without labels.
        batches: the training rows.
        validation: the validation rows, binarized for good.
        config: objective, beta, optimizer, epochs.
        augment: changes the images that the classification terms see.
        resampling: how the rows are drawn; default: uniformly.
        world: the processes that train together; default: this one alone.

    Example:
        >>> from pyro_vae import FitConfig
        >>> from pyro_vae.data import Batches, Images
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import VAE
        >>> from pyro_vae.pairs import Pair
        >>> from pyro_vae.training import Trainer
        >>> model, images = VAE((4,), latent_dim=2), Images(torch.rand(20, 4).round())
        >>> batches = Batches(images, labelled=torch.arange(0), batch_size=10, binarization="none", seed=0)
        >>> trainer = Trainer(Pair(model, MeanField(model)).probe(images.x()), batches, images, FitConfig(epochs=3))
        >>> [row["epoch"] for row in trainer.epochs()]
        [1, 2, 3]
    """

    def __init__(
        self,
        probed: ProbedPair,
        batches: Batches,
        validation: Images,
        config: TrainingConfig,
        augment: Augment | None = None,
        resampling: Resampling | None = None,
        world: World = ALONE,
    ) -> None:
        self.world, self._together = world, Together(world, probed.pair)
        if probed.num_rows is None:
            probed = replace(probed, num_rows=len(batches.images))
        self.probed, self.pair, self.batches = probed, probed.pair, batches
        self.config = config = settle(config, batches.num_steps, probed.sums)
        self.beta = parse_schedule(config.beta)
        check_batches(probed, batches.num_steps)
        self.resampling = resampling or Uniform()
        self.resampling.check(probed)
        objective = OBJECTIVES.build(config.objective, probed=probed, num_data=len(batches.images))
        check_beta(probed, objective, self.beta)
        self.validation = Validation(probed, validation, objective, self.beta.final, world)
        self.average = averaging(probed.pair, config.ema, batches.num_steps)
        self._together.follow(self.average)
        self.loss = loss_on(batches, objective, config, augment, self._together.noise, self.average)
        trained = {id(p): p for p in probed.pair.parameters().values() if p.requires_grad}  # some have two names
        parameters = list(trained.values())
        if not parameters:
            raise InputError(
                "programs with parameters to train",
                "a model and a guide that have none, or frozen ones",
                "state one, pyro.param(…), or register a module, pyro.module(…); Pair(model, guide) evaluates without",
            )
        self._keeps_last = keeps_last(probed, len(batches.images))
        self.iterates = Iterates(probed.pair.trained(), batches.num_steps, config.seed)
        self.rate = LearningRate(config, batches.num_steps)
        self.eager = EagerStep(self.loss, batches, parameters, config, world)
        self.step: Step = self.eager
        self.way: Way | None = WAYS[config.compile]  # None: not chosen yet
        self.validation_way: Way | None = self.way
        self.progress = Progress()
        self.stop_requested = False
        self._together.begin(self._loss_of)
        self._epoch_start = batches.generator.get_state()

    def epochs(
        self,
        on_step: Callable[[Progress], None] = lambda progress: None,
    ) -> Iterator[Row]:
        """Train to the last epoch, giving the history row of each as it ends.

        Returns early when ``stop_requested`` is set, after the step under way.

        Args:
            on_step: called after every step; ``Progress.loss_sum`` lags by up to ``REPORT_INTERVAL`` seconds.

        Raises:
            TrainingError: if the loss or its gradient is not finite.
            InputError: if another thread of this process trains.
        """
        with turns.training():
            while not (self.done or self._heard()[0]):
                if self._train_epoch(on_step):
                    yield self._close_epoch()

    def _loss_of(self, part: Part) -> Tensor:
        """The loss of a part of a small batch, leaving everything as it was."""
        with self.pair.evaluating(), Writes() as writes, pyro.validation_enabled(False), expected_warnings():
            self.pair.train()
            loss = self.loss(self.batches.example(part), self.beta.final, 0.0).detach()
        writes.restore()
        return loss

    def _heard(self, report: bool = False) -> tuple[bool, bool]:
        """Whether training is to stop, and to report, in this process as in all others."""
        stop, report = self.world.heard(self.stop_requested, report)
        self.stop_requested = self.stop_requested or stop
        return stop, report

    @property
    def done(self) -> bool:
        """Whether the last epoch is over, or training stopped early."""
        return self.progress.epoch >= self.config.num_epochs or bool(self.progress.stopped)

    @property
    def is_best(self) -> bool:
        """Whether the epoch just completed is the best so far."""
        return self.progress.best_epoch == self.progress.epoch

    def state_dict(self) -> dict[str, Any]:
        """All but the parameters: tensors, numbers and strings only.  All processes call it, and one writes it."""
        return {
            "optimizer": self.eager.optimizer.state_dict(),
            "way": self.way,
            "validation_way": self.validation_way,
            "random": torch.get_rng_state(),
            **self._together.state_dict(),
            "cuda_random": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "order": self._epoch_start,
            "row_weights": self.batches.weights,
            "iterates": self.iterates.values,
            "iterate_names": list(self.iterates.names),
            "progress": dict(vars(self.progress)),
            "average": self.average.state_dict(),
            "running": self.loss.running,
        }

    def weights(self) -> dict[str, Tensor]:
        """A copy of what the programs hold, with averages in the place of weights where such are kept."""
        with self.average.in_use():
            return {name: value.clone() for name, value in self.pair.state_dict().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what ``state_dict`` gave, into a pair that has what ``weights`` gave."""
        if state.get("average"):
            self.average.load_state_dict(state["average"])
        self.loss.load(state.get("running", []))
        put_back(self.eager.optimizer, state["optimizer"])
        self.way, self.validation_way = _way(state), _way(state, "validation_")
        torch.set_rng_state(state["random"])
        if state["cuda_random"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["cuda_random"])
        self._together.load_state_dict(state)
        self._epoch_start = state["order"]
        self.batches.generator.set_state(state["order"])
        self.batches.weights = state.get("row_weights")
        self.progress = Progress(**state["progress"])
        if "iterates" in state:
            self.iterates.load(state["iterates"].to(self.eager.parameters[0].device))

    def _train_epoch(self, on_step: Callable[[Progress], None]) -> bool:
        """Train the epoch under way to its end; False where a stop was requested before that."""
        progress, num_steps = self.progress, self.batches.num_steps
        if progress.step == 0:
            self.pair.train(False)
            weights = self.resampling.weights(self.probed, self.batches.images, self.batches.groups)
            self.batches.weights = weights
            self.world.share([] if weights is None else [weights])
        self.pair.train()
        pending: list[tuple[Indices, Tensor, Tensor]] = []
        reported = time.monotonic()
        for rows in self.batches.indices(start=progress.step):
            now = progress.epoch + progress.step / num_steps
            beta = self.beta.at(now)
            if now > 0 and self.step is self.eager and self.way != "eager":
                self._record_step(rows, beta)
            pending.append((rows, *self._checked_step(rows, beta, now)))
            progress.step += 1
            self.iterates.after(progress.step)
            self.average.after_step()
            last = progress.step == num_steps
            on_step(progress)
            stop, due = self._heard(time.monotonic() - reported >= REPORT_INTERVAL)
            if last or due:
                self._settle(pending)
                reported = time.monotonic()
            if stop and not last:
                self._settle(pending)
                return False
        return True

    def _checked_step(self, rows: Indices, beta: float, now: float) -> tuple[Tensor, Tensor]:
        """A step; where Pyro refuses a value, as it does in the first one, an error that says whose."""
        try:
            rate = self.rate.at(self.progress.epoch, self.progress.step)
            return self.step(rows, rate, beta, now)
        except ValueError as error:
            if "found invalid values" not in str(error):
                raise
            what = f"Pyro refuses a value ({brief(error)})"
            raise self._failure(what, self.progress.step + 1, [self._fault(rows)]) from error

    def _settle(self, pending: list[tuple[Indices, Tensor, Tensor]]) -> None:
        """Read the losses of the last steps, the only moment at which the host waits for the device."""
        if not pending:
            return
        losses, norms = (torch.stack(values).tolist() for values in list(zip(*pending, strict=True))[1:])
        for i, (loss, norm) in enumerate(zip(losses, norms, strict=True)):
            skipped = norm > self.config.largest_norm
            self.progress.skipped += skipped
            if not (math.isfinite(loss) and (skipped or math.isfinite(norm))):
                step = self.progress.step - len(losses) + i + 1
                what = f"the loss became {loss:g} (gradient norm {norm:g})"
                raise self._failure(what, step, self.world.gather(self._fault(pending[i][0])))
            self.progress.loss_sum += loss
        pending.clear()

    def _fault(self, rows: Indices) -> str:
        """Where in the programs something went wrong for some rows; empty where it did not."""
        batch = self.batches.again(rows)
        parts = zip((batch.unlabelled, batch.labelled), rows.rows, strict=True)
        may_miss = self.batches.images.missing is not None
        faults = [
            find_fault(self.pair, part.x, part.y, index, may_miss)
            for part, index in parts
            if part and index is not None
        ]
        return next(filter(None, faults), "")

    def _failure(self, what: str, step: int, faults: list[str]) -> TrainingError:
        """What went wrong at a step, and where in the programs, of what each process has found."""
        epoch = self.progress.epoch
        where = next(filter(None, faults), "a second run of the same rows shows no fault")
        kept = f"the state after epoch {epoch} is kept" if epoch else "nothing was learned before"
        return TrainingError(
            f"{what} in epoch {epoch + 1}, step {step}: {where}; {kept}",
            self._mend(),
        )

    def _mend(self) -> str:
        images, support = self.batches.images, self.probed.support
        finite = (chunk.pixels.nan_to_num(0.0, 0.0, 0.0) for chunk in images.chunks(1000))
        counts = getattr(support, "is_discrete", False)  # which cannot be divided
        largest = 0.0 if counts else max(float(pixels.abs().max()) for pixels in finite) / images.scale
        likelihood = getattr(self.pair.model, "likelihood", None)
        inside = " or --standardize" if isinstance(likelihood, Likelihood) and support is constraints.real else ""
        if largest > LARGEST_NUMBER:
            scale = 10.0 ** math.ceil(math.log10(largest))
            return f"divide the numbers, which go up to {largest:g}: --scale {scale:g}{inside}"
        rate = f"try a smaller --lr, such as {self.config.lr / 4:g}"
        if isinstance(likelihood, Standardized):
            return f"{rate}, or look at those rows"
        if largest > MODERATE_NUMBER:
            white = LARGEST_BYTE if LARGEST_BYTE / 2 < largest < LARGEST_BYTE + 1 else largest
            return f"divide the numbers, which go up to {largest:g}, by --scale {white:g}{inside}, or {rate}"
        return f"{rate}, or look at those rows"

    def _record_step(self, rows: Indices, beta: float) -> None:
        buffers = [buffer for module in self.pair.all_modules().values() for buffer in module.buffers()]
        constant = isinstance(self.beta, Constant)
        step, self.way = compile_if_it_pays(
            "step",
            lambda: RecordedStep(self.eager, buffers, constant, rows, beta),
            self.config.num_epochs * self.batches.num_steps,
            self.way,
        )
        self.step = step or self.eager

    def _record_validation(self) -> None:
        """Where the step is recorded; after the first epoch, so that training begins sooner."""
        runs = self.config.num_epochs * self.validation.num_full_chunks
        if not runs:
            self.validation_way = "eager"
            return
        replay, self.validation_way = compile_if_it_pays(
            "validation", self.validation.record, runs, self.validation_way
        )
        self.validation.use(replay)

    def _validate(self) -> Row:
        with self.average.in_use():
            return self.validation()

    def _close_epoch(self) -> Row:
        progress = self.progress
        self._together.close_epoch()
        if self.way != "eager" and self.validation_way != "eager" and not self.validation.is_recorded:
            self._record_validation()
        row: Row = {
            "epoch": progress.epoch + 1,
            "beta": self.beta.at(progress.epoch + 1),
            "train_loss": progress.loss_sum / self.batches.num_steps,
            **self._validate(),
        }
        if self.config.skip_norm != "none":
            row["skipped_steps"] = progress.skipped
        if self.batches.weights is not None:
            row["effective_rows"] = effective_rows(self.batches.weights)
        progress.epoch, progress.step, progress.loss_sum = progress.epoch + 1, 0, 0.0
        progress.skipped = 0
        progress.history.append(row)
        self._epoch_start = self.batches.generator.get_state()
        reached = score(row, self.beta.final)
        if reached > progress.best or self._keeps_last:
            progress.best, progress.best_epoch = reached, progress.epoch
        waited = progress.epoch - max(progress.best_epoch, int(self.beta.length))
        if self.config.patience != "none" and waited >= int(self.config.patience):
            progress.stopped = (
                f"stopped early after epoch {progress.epoch}: the validation objective has not risen above "
                f"{progress.best:.3f}, of epoch {progress.best_epoch}, for {waited} epochs"
            )
        return row


def _way(state: dict[str, Any], of: str = "") -> Way | None:
    """The way that something runs in a saved state, so that a resumed run goes on to the bit.

    States of earlier versions say whether it is compiled, or nothing, which was eager.
    """
    if of + "way" in state:
        way: Way | None = state[of + "way"]
        return way
    compiled = state.get(of + "compiled", False)
    return None if compiled is None else "compiled" if compiled else "eager"
