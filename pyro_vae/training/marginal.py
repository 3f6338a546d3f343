r"""The mean answer of a classifier, held at the prior of the labels.

Over the data, the labels that a guide gives ought to come as often as the model says that they do: the mean of
q(y | x) ought to be p(y).  A running mean m of the answers q(y | a(x)) to unlabelled rows,

    m <- m + (1 - d) (mean_u q(y | a(x_u)) - m),    d = 0.98,

stands for that of all data, and what a step adds to its loss,

    sum_y mean_u q(y | a(x_u)) log(m_y / p(y)),

has the gradient of KL(m || p) in the answers of the batch, but for the factor 1 - d.  A kind of image that no labelled
row shows, such as a seven with a bar, is else learned as what it looks like at first, and with certainty; here it makes
one class too frequent and another too rare.  The balance of answers is a half of the information that Krause, Perona
and Gomes maximize (*Discriminative Clustering by Regularized Information Maximization*, 2010).
"""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_vae.shapes import Float

DECAY = 0.98


class MeanAnswer:
    """The running mean of a classifier's answers, and what it has to be.

    Args:
        prior: p(y), shape (K,), positive.

    Example:
        >>> from pyro_vae.training.marginal import MeanAnswer
        >>> answers = MeanAnswer(torch.tensor([0.5, 0.5]))
        >>> answers.note(torch.tensor([1.0, 0.0]))
        >>> answers.mean, answers.term(torch.tensor([1.0, 0.0])) > 0
        (tensor([0.5100, 0.4900]), tensor(True))
    """

    def __init__(self, prior: Float[Tensor, "K"]) -> None:
        self.prior, self.mean = prior, prior.clone()

    def term(self, answer: Float[Tensor, "K"]) -> Float[Tensor, ""]:
        """What makes answers that are too frequent rarer, nats.

        Args:
            answer: the mean answer to a batch, differentiable, shape (K,).
        """
        return (answer * (self.mean / self.prior).log()).sum()

    @torch.no_grad()
    def note(self, answer: Float[Tensor, "K"]) -> None:
        """Let the running mean take in the mean answer to a batch, shape (K,)."""
        self.mean.lerp_(answer, 1 - DECAY)
