r"""Objectives: what turns a model, a guide and a batch into a loss, in nats per datum.

The loss of a batch is minus the evidence lower bound, averaged over its rows,

    -1/B sum_n E_q[log p(x_n, z_n) - log q(z_n | x_n)],

with every latent term multiplied by beta (see ``handlers.temper``).  Pyro's own ELBOs do the estimating.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro.infer import ELBO
from torch import Tensor

from pyro_vae.inference.handlers import temper
from pyro_vae.inference.pair import Pair, Structure
from pyro_vae.registry import Registry


class Objective:
    """Base of the objectives.

    To write one, subclass this in a file of its own, enter it with ``@OBJECTIVES.register("name")``, and write
    ``estimator``.  An instance serves one pair: Pyro's ELBO objects remember the programs they first met.

    Args:
        pair: the model and the guide.
        structure: what a probe of them without labels said, so that an objective that does not suit them is refused
            now; None leaves that to the first call.
    """

    def __init__(self, pair: Pair, structure: Structure | None = None) -> None:
        self.pair = pair
        self._estimators: dict[bool, Any] = {} if structure is None else {False: self.estimator(structure)}

    def estimator(self, structure: Structure) -> ELBO:
        """The Pyro ELBO for programs of this structure.

        Raises:
            InputError: if it cannot estimate the bound of such programs.
        """
        raise NotImplementedError

    def __call__(self, x: Tensor, y: Tensor | None = None, beta: float = 1.0) -> Tensor:
        r"""The differentiable loss of a batch, a scalar in nats per datum.

        Args:
            x: data of shape (B, \*event_shape).
            y: class labels of shape (B,), or None to leave the label site latent.
            beta: the weight of the latent terms.
        """
        labelled = y is not None
        if labelled not in self._estimators:
            self._estimators[labelled] = self.estimator(self.pair.probe(x, y))
        model, guide = self.pair.model, self.pair.guide
        if beta != 1.0:
            model, guide = _tempered(model, beta), _tempered(guide, beta)
        with self.pair.scope():
            loss: Tensor = self._estimators[labelled].differentiable_loss(model, guide, *self.pair.arguments(x, y))
        return loss / x.shape[0]


OBJECTIVES: Registry[Objective] = Registry("objective", ("pair", "structure", "num_data"))


def _tempered(program: Callable[..., Any], beta: float) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        with temper(beta):
            return program(*args, **kwargs)

    return run
