"""The training loop: steps, epochs, the best epoch, early stopping, and a state that resumes to the bit.

The trainer's whole state is the programs' parameters plus ``Trainer.state_dict()``: optimizer, random generators, the
place in the epoch, the history.  Put back, the run goes on as if it had never stopped.
"""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyro
import torch

from pyro_vae.config import TrainingConfig
from pyro_vae.data.batches import Batches
from pyro_vae.data.images import Images
from pyro_vae.errors import TrainingError
from pyro_vae.inference.draws import draw_terms
from pyro_vae.inference.labels import label_distribution
from pyro_vae.inference.loss import Augment, StepLoss
from pyro_vae.inference.objectives import OBJECTIVES
from pyro_vae.inference.pair import Pair, Structure
from pyro_vae.inference.resampling import Resampling, Uniform, effective_rows
from pyro_vae.inference.schedules import parse_schedule

Row = dict[str, float]
VALIDATION_SEED = 0
VALIDATION_CHUNK = 500


@dataclass
class Progress:
    """Where a run stands.

    Args:
        epoch: completed epochs.
        step: completed steps of the epoch under way.
        loss_sum: the sum of their losses.
        best: the highest validation objective so far, nats per datum.
        best_epoch: the epoch that reached it.
        history: one row a completed epoch.
        stopped: why training ended before its last epoch, or empty.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    best: float = float("-inf")
    best_epoch: int = 0
    history: list[Row] = field(default_factory=list)
    stopped: str = ""


class Trainer:
    """Trains a pair.

    Args:
        pair: the model and the guide; must have run once (``Pair.probe``).
        structure: what the probe said, without labels.
        batches: the training rows.
        validation: the validation rows, binarized for good.
        config: objective, beta, optimizer, epochs.
        augment: changes the images that the classification terms see.
        resampling: how the rows are drawn; uniformly unless given.
    """

    def __init__(
        self,
        pair: Pair,
        structure: Structure,
        batches: Batches,
        validation: Images,
        config: TrainingConfig,
        augment: Augment | None = None,
        resampling: Resampling | None = None,
    ) -> None:
        self.pair, self.structure, self.batches, self.validation = pair, structure, batches, validation
        self.config = config
        self.beta = parse_schedule(config.beta)
        self.resampling = resampling or Uniform()
        self.resampling.check(structure)
        objective = OBJECTIVES.build(config.objective, pair=pair, structure=structure, num_data=len(batches.images))
        self.loss = StepLoss(objective, batches.labelled_fraction, config, augment)
        self.parameters = [p for p in pair.parameters().values() if p.requires_grad]
        fused = all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in self.parameters)
        self.optimizer = torch.optim.Adam(self.parameters, lr=config.lr, fused=fused)
        self.progress = Progress()
        self.stop_requested = False
        self._epoch_start = batches.generator.get_state()

    def epochs(self, on_step: Callable[[Progress], None] = lambda progress: None) -> Iterator[Row]:
        """Train to the last epoch, giving the history row of each as it ends.

        Returns early when ``stop_requested`` is set, after the step under way.

        Args:
            on_step: called after every step.

        Raises:
            TrainingError: if the loss or its gradient is no finite number.
        """
        while not (self.done or self.stop_requested):
            if self._train_epoch(on_step):
                yield self._close_epoch()

    @property
    def done(self) -> bool:
        """Whether the last epoch is over, or training stopped early."""
        return self.progress.epoch >= self.config.epochs or bool(self.progress.stopped)

    @property
    def is_best(self) -> bool:
        """Whether the epoch just completed is the best so far."""
        return self.progress.best_epoch == self.progress.epoch

    def state_dict(self) -> dict[str, Any]:
        """All but the parameters: tensors, numbers and strings only."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "order": self._epoch_start,
            "row_weights": self.batches.weights,
            "progress": dict(vars(self.progress)),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what ``state_dict`` gave; the parameters must have been put back already."""
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        if state["cuda_random"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["cuda_random"])
        self._epoch_start = state["order"]
        self.batches.generator.set_state(state["order"])
        self.batches.weights = state.get("row_weights")
        self.progress = Progress(**state["progress"])

    def _train_epoch(self, on_step: Callable[[Progress], None]) -> bool:
        """Train the epoch under way to its end; False where a stop was requested before that."""
        progress = self.progress
        if progress.step == 0:
            self.pair.train(False)
            images, groups = self.batches.images, self.batches.groups
            self.batches.weights = self.resampling.weights(self.pair, self.structure, images, groups)
        self.pair.train()
        for batch in self.batches.epoch(start=progress.step):
            now = progress.epoch + progress.step / self.batches.num_steps
            beta = self.beta.at(now)
            first = progress.epoch == progress.step == 0  # checked by Pyro, for mistakes in a program
            for group in self.optimizer.param_groups:
                group["lr"] = self._learning_rate()
            self.optimizer.zero_grad(set_to_none=True)
            with pyro.validation_enabled(first), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Encountered NaN", UserWarning)  # said better below
                warnings.filterwarnings("ignore", ".* was not registered in the param store", UserWarning)  # held fixed
                loss = self.loss(batch, beta, now)
                loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm)
            if not torch.isfinite(loss + norm):
                raise TrainingError(
                    f"the loss became {loss.item():g} (gradient norm {norm.item():g}) "
                    f"in epoch {progress.epoch + 1}, step {progress.step + 1}; try a smaller --lr"
                )
            self.optimizer.step()
            progress.step += 1
            progress.loss_sum += loss.item()
            on_step(progress)
            if self.stop_requested and progress.step < self.batches.num_steps:
                return False
        return True

    def _learning_rate(self) -> float:
        """Adam's rate at this step; the cosine falls from ``lr`` at the first step to 0 after the last (SGDR, 2017)."""
        if self.config.lr_schedule == "constant":
            return self.config.lr
        done = self.progress.epoch + self.progress.step / self.batches.num_steps
        return self.config.lr * (1 + math.cos(math.pi * done / self.config.epochs)) / 2

    def _close_epoch(self) -> Row:
        progress = self.progress
        row: Row = {
            "epoch": progress.epoch + 1,
            "beta": self.beta.at(progress.epoch + 1),
            "train_loss": progress.loss_sum / self.batches.num_steps,
            **self._validate(),
        }
        if self.batches.weights is not None:
            row["effective_rows"] = effective_rows(self.batches.weights)
        progress.epoch, progress.step, progress.loss_sum = progress.epoch + 1, 0, 0.0
        progress.history.append(row)
        self._epoch_start = self.batches.generator.get_state()
        beta_elbo = row["validation_elbo"] + (1 - self.beta.final) * row.get("validation_kl", 0.0)
        score = row.get("validation_objective", beta_elbo)
        if score > progress.best:
            progress.best, progress.best_epoch = score, progress.epoch
        waited = progress.epoch - max(progress.best_epoch, int(self.beta.length))
        if self.config.patience is not None and waited >= self.config.patience:
            progress.stopped = (
                f"stopped early after epoch {progress.epoch}: the validation objective has not risen above "
                f"{progress.best:.3f}, of epoch {progress.best_epoch}, for {waited} epochs"
            )
        return row

    def _validate(self) -> Row:
        """The bound on the validation rows, with the same noise every time."""
        self.pair.train(False)
        measure = self._bound if self.structure.data_dim is None else self._terms
        totals: defaultdict[str, float] = defaultdict(float)
        with torch.random.fork_rng(), torch.no_grad(), pyro.validation_enabled(False):
            torch.manual_seed(VALIDATION_SEED)
            for chunk in self.validation.chunks(VALIDATION_CHUNK):
                for name, value in measure(chunk).items():
                    totals[f"validation_{name}"] += value
        return {name: value / len(self.validation) for name, value in totals.items()}

    def _bound(self, images: Images) -> Row:
        """The summed bound of rows that do not come apart: a program with sites outside the plate over data."""
        return {"elbo": -self.loss.objective(images.x()).item() * len(images)}

    def _terms(self, images: Images) -> Row:
        """The summed terms of the bound, and the number of labels guessed right."""
        terms = draw_terms(self.pair, self.structure, images.x())
        row = {name: getattr(terms, name).sum().item() for name in ("elbo", "log_likelihood", "kl")}
        if not self.loss.objective.is_elbo:
            row["objective"] = -self.loss.objective(images.x(), beta=self.beta.final).item() * len(images)
        if self.structure.has_label and images.labels is not None:
            guess = label_distribution(self.pair, images.values()).probs.argmax(-1)
            row["accuracy"] = (guess == images.labels).sum().item()
        return row
