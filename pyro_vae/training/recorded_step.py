"""The whole training step as one compiled graph: rows, noise, loss, gradients, clipping, the optimizer's update.

Where several processes make a step together, the mean of their gradients is an operation of the graph.
The step is recorded once, on state that is put back afterwards, so that a run which is resumed takes the same steps as
one that never stopped.  Learning rate, beta (unless it is one number for the whole run) and epoch are tensors of the
graph, so a schedule never compiles anything anew; parameters and the optimizer's state are updated in place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pyro
import torch
from torch import Tensor

from pyro_vae.compiled.lowering import CompilableRecording
from pyro_vae.compiled.snapshot import Snapshot
from pyro_vae.compiled.tracing import record
from pyro_vae.data.batches import Indices
from pyro_vae.pairs.handlers import Number
from pyro_vae.training.optimizers import Update
from pyro_vae.training.step import EagerStep, expected_warnings


class RecordedStep(CompilableRecording):
    """A training step that replays a graph, compiled or as recorded.

    Args:
        eager: the step; its optimizer's state is the one that is used.
        buffers: tensors that the programs change in place as they run.
        constant_beta: whether beta never changes.
        rows: an example.
        beta: the weight of the latent terms that goes with it.
    """

    def __init__(
        self, eager: EagerStep, buffers: Sequence[Tensor], constant_beta: bool, rows: Indices, beta: float
    ) -> None:
        self.eager = eager
        device = eager.parameters[0].device
        self._lr, self._beta, self._epoch = (torch.zeros((), device=device) for _ in range(3))
        moments = [eager.moments(parameter) for parameter in eager.parameters]
        self._state = [
            *eager.parameters,
            *(value for state in moments for value in state.values()),
            *eager.loss.running,
        ]
        self._steps_made = {p: int(state["step"]) for p, state in zip(eager.parameters, moments, strict=True)}
        inputs = self._inputs(rows, 0.0, beta, 0.0)
        before = Snapshot([*self._state, *buffers])
        try:
            with pyro.validation_enabled(False), expected_warnings():
                if not eager.has_run:  # in a run that goes on: what is made at a first call is not to be recorded
                    eager.value(rows, beta, self._epoch)
                recording = record(lambda: self._step(rows, beta if constant_beta else self._beta), inputs)
        finally:
            before.restore()
        super().__init__(recording, inputs, [self._lr, self._beta, self._epoch, *self._state, *buffers])

    def __call__(self, rows: Indices, lr: float, beta: float, epoch: float) -> tuple[Tensor, Tensor]:
        loss, norm = self.run(self._inputs(rows, lr, beta, epoch))
        return loss, norm

    def _inputs(self, rows: Indices, lr: float, beta: float, epoch: float) -> list[Tensor]:
        for tensor, value in ((self._lr, lr), (self._beta, beta), (self._epoch, epoch)):
            tensor.fill_(value)
        return [self._lr, self._beta, self._epoch, *rows.tensors(), *self._state]

    def _step(self, rows: Indices, beta: Number) -> tuple[Tensor, Tensor]:
        eager = self.eager
        loss = eager.value(rows, beta, self._epoch)
        mine = torch.autograd.grad(loss, eager.parameters, allow_unused=True)
        with torch.no_grad():
            found, loss = eager.together(mine, loss)
            used = [(parameter, g) for parameter, g in zip(eager.parameters, found, strict=True) if g is not None]
            norm = torch.stack([g.square().sum() for _, g in used]).sum().sqrt()
            scale = (eager.config.clip_norm / (norm + 1e-6)).clamp(max=1.0).as_strided((), ())  # once, as memory
            fine, kept = self._used(norm)
            updates = self._updates([parameter for parameter, _ in used], kept)
            for parameter, gradient in used:  # one that is not finite must not reach the parameters
                if decay := eager.config.weight_decay:
                    parameter.mul_(1 - kept * self._lr * decay)
                updates[parameter](parameter, torch.where(fine, gradient * scale, 0.0), eager.moments(parameter))
        return loss, norm

    def _used(self, norm: Tensor) -> tuple[Tensor, Number]:
        """Whether the gradient is used, and 1 or 0 for a step that is kept or left out."""
        largest = self.eager.config.largest_norm
        if math.isinf(largest):
            return norm.isfinite(), 1.0
        fine = norm <= largest
        return fine, fine.to(norm.dtype)

    def _updates(self, parameters: Sequence[Tensor], kept: Number) -> dict[Tensor, Update]:
        """Count the step for each parameter; gives what is done to it.  Those that have made as many steps share it."""
        shared: dict[int, Update] = {}
        for parameter in parameters:
            step, made = self.eager.moments(parameter)["step"].add_(kept), self._steps_made[parameter]
            if made not in shared:
                shared[made] = self.eager.rule.update(self._lr, step.clamp(min=1), kept)
        return {parameter: shared[self._steps_made[parameter]] for parameter in parameters}
