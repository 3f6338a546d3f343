r"""The loss of one step, from labelled and unlabelled rows, in nats per datum of the whole set.

With N_l labelled and N_u unlabelled rows, N together, and U and L the objective without and with the label given,

    loss = N_u / N  mean_u U(x) + N_l / N  mean_l L(x, y)
           + w mean_l[-log q(y | a(x))] + c mean_u[-sum_y stop(q(y | x)) log q(y | a(x))]
           + m sum_y mean_u[q(y | a(x))] log(mean q(y) / p(y)).

The first two terms are an unbiased estimate of the objective on the whole set, however few rows are labelled.

The third is the classification term of Kingma et al. 2014 (equation 9), without which q(y | x) would learn from
unlabelled rows alone; its weight w is in nats per datum of the set, so that their alpha = 0.1 N is w = 0.1.  a is a
random change of the image that leaves its class alone (the identity unless asked for).

The fourth, the consistency term, asks the same answer for an image and for a changed one, on the rows whose answer is
sure (max_y q >= 0.95; the others count as 0): the unlabelled loss of Sohn et al., *FixMatch*, 2020, with the soft
answer as its target, that of averaged weights where such are kept (``averaging``).  The fifth holds the mean answer at
the prior of the labels (``marginal``).  The three act on the guide's label site alone and leave the bound as it is.

Where processes share a batch, each has some rows u and some rows l, whose means count by their numbers, so that the
mean of all losses is the loss of the batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_vae.config import TrainingConfig
from pyro_vae.data.augmentation import Augment
from pyro_vae.data.batches import Batch, Batches, Rows
from pyro_vae.distributed import Noise, Part
from pyro_vae.objectives import Objective
from pyro_vae.pairs.handlers import Number
from pyro_vae.pairs.labels import label_distribution, label_prior
from pyro_vae.training.averaging import Averaging
from pyro_vae.training.marginal import MeanAnswer

CONFIDENCE_THRESHOLD = 0.95
FEW_ROWS = 5


class StepLoss:
    r"""The loss of a batch.

    Args:
        objective: the bound, for the pair that trains.
        labelled_fraction: N_l / N.
        config: the weights of the terms of the label.
        augment: a, from pixels of shape (B, \*event_shape) to the same; None for the identity, without consistency.
        noise: where the noise of a batch's rows comes from; default: torch's generator.
        average: an average of the weights, which gives the answers that the consistency term asks for; default: those
            that train give them.
        mean_answer: the mean answer so far, where it is to be that of the prior.
    """

    def __init__(
        self,
        objective: Objective,
        labelled_fraction: float,
        config: TrainingConfig,
        augment: Augment | None = None,
        noise: Noise | None = None,
        average: Averaging | None = None,
        mean_answer: MeanAnswer | None = None,
    ) -> None:
        self.objective = objective
        self.noise = noise or Noise()
        self.labelled_fraction = labelled_fraction
        self.classification_weight = config.classification_weight
        self.consistency_weight = config.consistency_weight
        self.marginal_weight = config.marginal_weight
        self.augment = augment
        self.mean_answer, self._answer = mean_answer, torch.empty(0)
        self.teacher = objective.pair if average is None or not self.asks_alike else average.teacher

    @property
    def asks_alike(self) -> bool:
        """Whether there is a consistency term."""
        return self.consistency_weight > 0 and self.augment is not None and self.labelled_fraction > 0

    @property
    def running(self) -> list[Tensor]:
        """What the loss keeps of the steps so far, and ``note`` changes in place."""
        return [] if self.mean_answer is None else [self.mean_answer.mean]

    @property
    def seen(self) -> list[Tensor]:
        """What the last call saw, for ``note``: this process's share of the mean over all."""
        return [] if self.mean_answer is None else [self._answer]

    def note(self, seen: Sequence[Tensor | None]) -> None:
        """Let what is kept take in what all processes saw in a step."""
        for answer in seen:
            assert self.mean_answer is not None
            assert answer is not None
            self.mean_answer.note(answer)

    def load(self, running: Sequence[Tensor]) -> None:
        """Put back what ``running`` gave; states of trainings without it have nothing."""
        for value, kept in zip(self.running, running, strict=False):
            value.copy_(kept)

    def __call__(self, batch: Batch, beta: Number, epoch: Number = math.inf) -> Tensor:
        """The differentiable loss, a scalar in nats per datum."""
        unlabelled, labelled = batch.unlabelled, batch.labelled
        terms = []
        if unlabelled is not None:
            with self.noise.of("unlabelled", *_parts(unlabelled)):
                value = self.objective(unlabelled.x, beta=beta, epoch=epoch)
            terms.append((1 - self.labelled_fraction) * weight(unlabelled) * value)
        if labelled is not None:
            assert labelled.y is not None
            with self.noise.of("labelled", *_parts(labelled)):
                value = self.objective(labelled.x, labelled.y, beta=beta, epoch=epoch)
            terms.append(self.labelled_fraction * weight(labelled) * value)
            terms += self.label_terms(labelled, unlabelled)
        return torch.stack(terms).sum()

    def label_terms(self, labelled: Rows, unlabelled: Rows | None) -> list[Tensor]:
        """The terms of the label, weighted, where they are asked for.

        Changed images of both kinds pass through q(y | x) at once.

        Args:
            labelled: labelled rows.
            unlabelled: unlabelled rows, if there are any.
        """
        others = unlabelled if self.asks_alike or self.mean_answer is not None else None
        if not (self.classification_weight or others is not None):
            return []
        y, seen = labelled.y, [labelled] if others is None else [labelled, others]
        assert y is not None
        with self.noise.of("changed", *(part for rows in seen for part in _parts(rows))):
            changed = torch.cat([rows.pixels for rows in seen]) if others is not None else labelled.pixels
            if self.augment is not None:
                changed = self.augment(changed)
            answers = label_distribution(self.objective.pair, changed).logits.log_softmax(-1)
        given, free = answers[: len(y)], answers[len(y) :]
        terms = []
        if self.classification_weight:
            term = given.gather(-1, y.unsqueeze(-1)).mean()
            terms.append(-self.classification_weight * weight(labelled) * term)
        if others is not None and self.mean_answer is not None:
            answer = weight(others) * free.exp().mean(0)
            self._answer = answer.detach()
            terms.append(self.marginal_weight * self.mean_answer.term(answer))
        if others is not None and self.asks_alike:
            with torch.no_grad(), self.noise.of("as they are", *_parts(others)):
                target = label_distribution(self.teacher, others.pixels).probs
            sure = target.amax(-1) >= CONFIDENCE_THRESHOLD
            term = ((target * free).sum(-1) * sure).mean()
            terms.append(-self.consistency_weight * weight(others) * term)
        return terms


def loss_on(
    batches: Batches,
    objective: Objective,
    config: TrainingConfig,
    augment: Augment | None = None,
    noise: Noise | None = None,
    average: Averaging | None = None,
) -> StepLoss:
    """The loss of the batches of a training.

    Args:
        batches: the training rows.
        objective: see ``StepLoss``, like the rest.
        config: likewise.
        augment: likewise.
        noise: likewise.
        average: likewise.
    """
    mean_answer = None
    if config.marginal_weight and 0 < batches.labelled_fraction < 1:
        with torch.random.fork_rng():
            example = batches.example(Part(0, FEW_ROWS, FEW_ROWS)).unlabelled
        assert example is not None
        mean_answer = MeanAnswer(label_prior(objective.pair, example.x))
    return StepLoss(objective, batches.labelled_fraction, config, augment, noise, average, mean_answer)


def weight(rows: Rows) -> float:
    """What the mean over some rows counts in the mean over processes."""
    return 1.0 if rows.part is None else rows.part.weight


def _parts(rows: Rows) -> tuple[Part, ...]:
    return () if rows.part is None else (rows.part,)
