"""Pyro's estimators of the evidence lower bound, each as one compiled graph.

    svi = pyro.infer.SVI(model, guide, optimizer, loss=CompiledTrace_ELBO())

is stock Pyro otherwise.  The estimator is Pyro's own: its ``loss`` or its ``loss_and_grads`` is recorded on one run
(see ``tracing``), and compiled (see ``lowering``) the second time that programs meet arguments of the same kind.  The
first time they run as they are, with Pyro's validation if it is on; that makes parameters which a program makes at its
first call, and shows a mistake in a program as stock Pyro would.

A graph serves one pair of programs, one set of shapes, dtypes, devices and plain values among the arguments, and one
state of the programs' own switches (see ``program_state``).  Tensors are never part of that: their values may change
from call to call.  What cannot be recorded runs eagerly, and says why, once.
"""

from __future__ import annotations

import copy
import functools
import types
import weakref
from collections.abc import Hashable
from typing import Any, ClassVar, cast

import torch
from pyro.infer import ELBO, RenyiELBO, Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO
from pyro.util import warn_if_nan
from torch import Tensor

from pyro_vae.compiled.graphs import Call, CompiledPair, Outcome, Program


class CompiledELBO(ELBO):
    """Base of the compiled estimators; a new one names the stock class that it compiles.

    One object serves any number of programs.

    Args:
        num_particles: draws whose estimates are averaged.
        max_plate_nesting: how deep plates are nested; default: found by a run.
        vectorize_particles: whether the draws are made in one run.
        **options: further arguments of the stock class.

    Attributes:
        stock: the estimator of Pyro that is compiled.

    Example:
        >>> from pyro.infer import TraceGraph_ELBO
        >>> from pyro_vae.compiled import CompiledELBO
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import VAE
        >>> class CompiledTraceGraph_ELBO(CompiledELBO):
        ...     stock = TraceGraph_ELBO
        >>> model, x = VAE((1, 8, 8), latent_dim=2), torch.rand(3, 1, 8, 8).round()
        >>> CompiledTraceGraph_ELBO().loss(model, MeanField(model), x) > 0
        True
    """

    stock: ClassVar[type[ELBO]]

    def __init__(
        self,
        num_particles: int = 1,
        max_plate_nesting: float = float("inf"),
        vectorize_particles: bool = False,
        **options: Any,
    ) -> None:
        given = {
            "num_particles": num_particles,
            "max_plate_nesting": max_plate_nesting,
            "vectorize_particles": vectorize_particles,
        }
        self._stock = self.stock(**given, **options)
        super().__init__(num_particles, max_plate_nesting, vectorize_particles=vectorize_particles)  # type: ignore[no-untyped-call]
        self._pairs: dict[Hashable, tuple[CompiledPair, list[weakref.ref[Any]]]] = {}

    def loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """The loss, nats, without gradients; as the stock estimator's, and so are the arguments."""
        return _number(self._evaluate("loss", model, guide, args, kwargs))

    def loss_and_grads(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """The loss, nats; its gradients are added to those of the parameters."""
        outcome = self._evaluate("loss_and_grads", model, guide, args, kwargs)
        if isinstance(outcome, Outcome):
            outcome.accumulate()
        return _number(outcome)

    def differentiable_loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """The loss, nats, as a tensor that can be differentiated, once."""
        outcome = self._evaluate("differentiable_loss", model, guide, args, kwargs)
        if not isinstance(outcome, Outcome):
            return cast(Tensor, outcome)
        warn_if_nan(outcome.loss, "loss")
        loss: Tensor = _Differentiable.apply(outcome, *outcome.tensors)
        return loss

    def num_graphs(self, model: Program, guide: Program) -> int:
        """How many graphs were compiled for a pair of programs so far."""
        return len(self._pair(model, guide).graphs)

    def _get_trace(self, *args: Any) -> Any:
        return self._stock._get_trace(*args)

    def _evaluate(
        self, method: str, model: Program, guide: Program, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Outcome | Any:
        return self._pair(model, guide).evaluate(Call(method, model, guide, args, kwargs))

    def _pair(self, model: Program, guide: Program) -> CompiledPair:
        key = _identity(model), _identity(guide)
        if key not in self._pairs:
            forget = functools.partial(
                _forget, weakref.ref(self), key
            )  # an identity is given anew once its owner is gone
            owners = [weakref.ref(getattr(program, "__self__", program), forget) for program in (model, guide)]
            self._pairs[key] = CompiledPair(copy.copy(self._stock)), owners
        return self._pairs[key][0]

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_pairs": {}}  # graphs are not copied


class CompiledTrace_ELBO(CompiledELBO):
    """Pyro's ``Trace_ELBO``, compiled.

    Example:
        >>> import pyro
        >>> from pyro_vae.compiled import CompiledTrace_ELBO
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import LinearGaussian
        >>> model, x = LinearGaussian((3,), latent_dim=2), 3 * torch.randn(4, 3)
        >>> evidence, loss = model.evidence(x).sum(), CompiledTrace_ELBO(num_particles=10)
        >>> svi = pyro.infer.SVI(model, MeanField(model), pyro.optim.Adam({"lr": 1e-3}), loss=loss)
        >>> svi.step(x) > -evidence
        tensor(True)
    """

    stock = Trace_ELBO


class CompiledTraceMeanField_ELBO(CompiledELBO):
    """Pyro's ``TraceMeanField_ELBO``, compiled: KL terms in closed form where there is one.

    Example:
        >>> import pyro
        >>> from pyro_vae.compiled import CompiledTraceMeanField_ELBO
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import LinearGaussian
        >>> model, x = LinearGaussian((3,), latent_dim=2), 3 * torch.randn(4, 3)
        >>> evidence, loss = model.evidence(x).sum(), CompiledTraceMeanField_ELBO(num_particles=10)
        >>> svi = pyro.infer.SVI(model, MeanField(model), pyro.optim.Adam({"lr": 1e-3}), loss=loss)
        >>> svi.step(x) > -evidence
        tensor(True)
    """

    stock = TraceMeanField_ELBO


class CompiledTraceEnum_ELBO(CompiledELBO):
    """Pyro's ``TraceEnum_ELBO``, compiled: discrete sites summed over where they ask for it.

    Example:
        >>> from pyro.infer import TraceEnum_ELBO
        >>> from pyro_vae.compiled import CompiledTraceEnum_ELBO
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import SSVAE
        >>> model, x = SSVAE((1, 8, 8), num_classes=10, latent_dim=2), torch.rand(3, 1, 8, 8).round()
        >>> guide = MeanField(model)
        >>> with torch.random.fork_rng():
        ...     stock = TraceEnum_ELBO(max_plate_nesting=1).loss_and_grads(model, guide, x)
        >>> CompiledTraceEnum_ELBO(max_plate_nesting=1).loss_and_grads(model, guide, x) == stock
        True
    """

    stock = TraceEnum_ELBO

    def compute_marginals(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Any:
        """The stock estimator's own, not compiled."""
        return cast(TraceEnum_ELBO, self._stock).compute_marginals(model, guide, *args, **kwargs)

    def sample_posterior(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Any:
        """The stock estimator's own, not compiled."""
        return cast(TraceEnum_ELBO, self._stock).sample_posterior(model, guide, *args, **kwargs)


class CompiledRenyiELBO(CompiledELBO):
    """Pyro's ``RenyiELBO``, compiled; at alpha = 0, the default, the importance-weighted bound.

    Args:
        alpha: the order of the divergence, not 1.
        num_particles: draws, at least 2.
        max_plate_nesting: how deep plates are nested; default: found by a run.
        vectorize_particles: whether the draws are made in one run.
        **options: further arguments of the stock class.

    Example:
        >>> from pyro_vae.compiled import CompiledRenyiELBO
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import LinearGaussian
        >>> model, x = LinearGaussian((3,), latent_dim=2), torch.randn(4, 3)
        >>> elbo = CompiledRenyiELBO(alpha=0, num_particles=10_000, max_plate_nesting=1, vectorize_particles=True)
        >>> loss = elbo.loss_and_grads(model, MeanField(model), x)
        >>> abs(loss + model.evidence(x).sum().item()) < 0.2
        True
    """

    stock = RenyiELBO

    def __init__(
        self,
        alpha: float = 0.0,
        num_particles: int = 2,
        max_plate_nesting: float = float("inf"),
        vectorize_particles: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(num_particles, max_plate_nesting, vectorize_particles, alpha=alpha, **options)


class _Differentiable(torch.autograd.Function):
    """A loss whose gradients are known already."""

    @staticmethod
    def forward(ctx: Any, outcome: Outcome, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*outcome.gradients)
        return outcome.loss.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        return (None, *(upstream * gradient for gradient in ctx.saved_tensors))


def _number(outcome: Outcome | Any) -> float:
    if not isinstance(outcome, Outcome):
        return cast(float, outcome)
    warn_if_nan(outcome.loss, "loss")
    return outcome.loss.item()


def _forget(owner: weakref.ref[CompiledELBO], key: Hashable, _: weakref.ref[Any]) -> None:
    elbo = owner()
    if elbo is not None:
        elbo._pairs.pop(key, None)


def _identity(program: Program) -> Hashable:
    """Which program it is; a method is made anew whenever it is read off its object."""
    if isinstance(program, types.MethodType):
        return id(program.__self__), id(program.__func__)
    return id(program)
