r"""The loss of one step, from labelled and unlabelled rows, in nats per datum of the whole set.

With N_l labelled and N_u unlabelled rows, N together, and U and L the objective without and with the label given,

    loss = N_u / N  mean_u U(x) + N_l / N  mean_l L(x, y)
           + w mean_l[-log q(y | a(x))] + c mean_u[-sum_y stop(q(y | x)) log q(y | a(x))].

The first two terms are an unbiased estimate of the objective on the whole set, however few rows are labelled.

The third is the classification term of Kingma et al. 2014 (equation 9), without which q(y | x) would learn from
unlabelled rows alone; its weight w is in nats per datum of the set, so that their alpha = 0.1 N is w = 0.1.  a is a
random change of the image that leaves its class alone (the identity unless asked for).

The fourth, the consistency term, asks the same answer for an image and for a changed one, on the rows whose answer is
sure (max_y q >= 0.95; the others count as 0): the unlabelled loss of Sohn et al., *FixMatch*, 2020, with the soft
answer as its target.  Both act on the guide's label site alone and leave the bound as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pyro_vae.config import TrainingConfig
from pyro_vae.data.batches import Batch
from pyro_vae.objectives import Objective
from pyro_vae.pairs.handlers import Number
from pyro_vae.pairs.labels import label_distribution

CONFIDENCE_THRESHOLD = 0.95
Augment = Callable[[Tensor], Tensor]


class StepLoss:
    r"""The loss of a batch.

    Args:
        objective: the bound, for the pair that trains.
        labelled_fraction: N_l / N.
        config: the weights of the classification and the consistency term.
        augment: a, from pixels of shape (B, \*event_shape) to the same; None for the identity, without consistency.
    """

    def __init__(
        self, objective: Objective, labelled_fraction: float, config: TrainingConfig, augment: Augment | None = None
    ) -> None:
        self.objective = objective
        self.labelled_fraction = labelled_fraction
        self.classification_weight = config.classification_weight
        self.consistency_weight = config.consistency_weight
        self.augment = augment

    def __call__(self, batch: Batch, beta: Number, epoch: Number = math.inf) -> Tensor:
        """The differentiable loss, a scalar in nats per datum."""
        unlabelled, labelled = batch.unlabelled, batch.labelled
        terms = []
        if unlabelled is not None:
            terms.append((1 - self.labelled_fraction) * self.objective(unlabelled.x, beta=beta, epoch=epoch))
        if labelled is not None:
            assert labelled.y is not None
            terms.append(self.labelled_fraction * self.objective(labelled.x, labelled.y, beta=beta, epoch=epoch))
            terms += self.label_terms(labelled.pixels, labelled.y, None if unlabelled is None else unlabelled.pixels)
        return torch.stack(terms).sum()

    def label_terms(self, pixels: Tensor, y: Tensor, others: Tensor | None) -> list[Tensor]:
        """The third and the fourth term, weighted, where they are asked for.

        Changed images of both kinds pass through q(y | x) at once.

        Args:
            pixels: labelled rows.
            y: their labels.
            others: unlabelled rows, if there are any.
        """
        consistent = others is not None and self.consistency_weight > 0 and self.augment is not None
        if not (self.classification_weight or consistent):
            return []
        changed = torch.cat([pixels, others]) if consistent and others is not None else pixels
        if self.augment is not None:
            changed = self.augment(changed)
        answers = label_distribution(self.objective.pair, changed).logits.log_softmax(-1)
        given, free = answers[: len(y)], answers[len(y) :]
        terms = []
        if self.classification_weight:
            terms.append(-self.classification_weight * given.gather(-1, y.unsqueeze(-1)).mean())
        if consistent and others is not None:
            with torch.no_grad():
                target = label_distribution(self.objective.pair, others).probs
            sure = target.amax(-1) >= CONFIDENCE_THRESHOLD
            terms.append(-self.consistency_weight * ((target * free).sum(-1) * sure).mean())
        return terms
