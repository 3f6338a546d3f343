"""One training step: gather the rows, loss, gradients, clipping, the optimizer's update (see ``optimizers``).

Gradients are scaled down to a global norm of at most ``clip_norm`` (Pascanu, Mikolov and Bengio, *On the Difficulty of
Training Recurrent Neural Networks*, 2013).  A step whose gradient has a norm above ``skip_norm`` is left out: it
changes neither parameters nor the optimizer's state (Child, *Very Deep VAEs Generalize Autoregressive Models*, 2021).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import pyro
import torch
from torch import Tensor

from pyro_vae.config import TrainingConfig
from pyro_vae.data.batches import Batches, Indices
from pyro_vae.distributed import ALONE, World
from pyro_vae.pairs.handlers import Number
from pyro_vae.training.loss import StepLoss
from pyro_vae.training.optimizers import OPTIMIZERS
from pyro_vae.training.precision import precision


class Step(Protocol):
    """What makes a training step."""

    def __call__(self, rows: Indices, lr: float, beta: float, epoch: float) -> tuple[Tensor, Tensor]:
        """Make it.

        Args:
            rows: the indices of the rows.
            lr: the learning rate.
            beta: the weight of the latent terms.
            epoch: how far training is.

        Returns:
            The loss, nats per datum, and the norm of its gradient; both scalars on the device that trains.
        """


class EagerStep:
    """The step as it stands, operation by operation.

    Args:
        loss: the loss of a batch.
        batches: where the rows come from.
        parameters: what is trained.
        config: the optimizer, the learning rate, the largest norms, the precision.
        world: the processes that make it together.
    """

    def __init__(
        self,
        loss: StepLoss,
        batches: Batches,
        parameters: Sequence[Tensor],
        config: TrainingConfig,
        world: World = ALONE,
    ) -> None:
        self.loss, self.batches, self.parameters, self.config = loss, batches, list(parameters), config
        self.world, self.has_run = world, False
        self.rule = OPTIMIZERS.build(config.optimizer)
        self.optimizer = self.rule.of_torch(self.parameters, config.lr, config.weight_decay)

    def __call__(self, rows: Indices, lr: float, beta: float, epoch: float) -> tuple[Tensor, Tensor]:
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        first = epoch == 0  # checked by Pyro, for mistakes in a program
        with pyro.validation_enabled(first), expected_warnings():
            loss = self.value(rows, beta, epoch)
            loss.backward()
        found, loss = self.together([parameter.grad for parameter in self.parameters], loss)
        for parameter, gradient in zip(self.parameters, found, strict=True):
            parameter.grad = gradient
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm)
        if math.isfinite(norm) and norm <= self.config.largest_norm:
            self.optimizer.step()
        return loss, norm

    def value(self, rows: Indices, beta: Number, epoch: Number) -> Tensor:
        """The differentiable loss of some rows, in the precision asked for."""
        self.has_run = True
        with precision(self.config.precision):
            return self.loss(self.batches.batch(rows), beta, epoch)

    def together(self, gradients: Sequence[Tensor | None], loss: Tensor) -> tuple[Sequence[Tensor | None], Tensor]:
        """The means over processes of the parameters' gradients and of the loss, which notes what all have seen."""
        tensors, values = [*self.parameters, *self.loss.running], [*gradients, *self.loss.seen]
        found, loss = self.world.mean(tensors, values, loss.detach())
        num_gradients = len(self.parameters)
        self.loss.note(found[num_gradients:])
        return found[:num_gradients], loss

    def moments(self, parameter: Tensor) -> dict[str, Any]:
        """The optimizer's state of a parameter, made if it is not there yet."""
        state: dict[str, Any] = self.optimizer.state[parameter]
        if not state:
            state |= self.rule.moments(parameter)
        return state


@contextmanager
def expected_warnings() -> Iterator[None]:
    """Without what Pyro warns of in a step that is meant so, or that the trainer says better."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Encountered NaN", UserWarning)
        warnings.filterwarnings("ignore", ".* was not registered in the param store", UserWarning)  # held fixed
        yield
