"""Pyro's estimators of the evidence lower bound, each as one compiled graph.

    svi = pyro.infer.SVI(model, guide, optimizer, loss=CompiledTrace_ELBO())

is stock Pyro otherwise.  The estimator is Pyro's own: its ``loss`` or its ``loss_and_grads`` is recorded on one run
(see ``tracing``), the second time that programs meet arguments of the same kind, and later compiled (see ``lowering``).
The first time they run as they are, with Pyro's validation if it is on; that makes parameters which a program makes at
its first call, and shows a mistake in a program as stock Pyro would.

A graph serves one pair of programs, one set of shapes, dtypes, devices and plain values among the arguments, and one
state of the programs' own switches (see ``readings``).  Tensors are never part of that: their values may change from
call to call.  What cannot be recorded runs eagerly, and says why, once.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any, Self, cast

import torch
from pyro.infer import (
    ELBO,
    RenyiELBO,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
    TraceTMC_ELBO,
)
from pyro.util import warn_if_nan
from torch import Tensor

from pyro_vae.compiled.graphs import CompiledPair
from pyro_vae.compiled.libraries import is_library
from pyro_vae.compiled.outcomes import Outcome
from pyro_vae.compiled.program_state import identity
from pyro_vae.compiled.readings import Call, Program
from pyro_vae.compiled.snapshot import torch_noise

_PLAIN = (bool, int, float, str, type(None))
_OWN = ("_pairs", "_running", "_nesting_was_found")


@dataclass
class _Known:
    """What is known of a pair of programs.

    Args:
        pair: its graphs.
        owners: of the programs; what is known is forgotten with them.
        nesting: how deep its plates are nested, where a run has found that.
    """

    pair: CompiledPair
    owners: list[weakref.ref[Any]]
    nesting: float = float("inf")


class CompiledELBO(ELBO):
    """Base of the compiled estimators; a new one derives from this class and from the stock class that it compiles.

    It is an estimator of that class, with its arguments and attributes; what is set later has effect.  One object
    serves any number of programs.

    Example:
        >>> from pyro.infer import TraceTailAdaptive_ELBO
        >>> from pyro_vae.compiled import CompiledELBO
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import VAE
        >>> class CompiledTraceTailAdaptive_ELBO(CompiledELBO, TraceTailAdaptive_ELBO):
        ...     pass
        >>> model, x = VAE((1, 8, 8), latent_dim=2), torch.rand(3, 1, 8, 8).round()
        >>> elbo = CompiledTraceTailAdaptive_ELBO(num_particles=4, vectorize_particles=True, max_plate_nesting=1)
        >>> elbo.loss_and_grads(model, MeanField(model), x) > 0
        True
    """

    _pairs: dict[Hashable, _Known]
    _running: bool
    _nesting_was_found: bool

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        new = super().__new__(cls)  # also of a copy: it has no graphs yet
        new._pairs, new._running, new._nesting_was_found = {}, False, False
        return new

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
        """The loss, nats, as a tensor that can be differentiated."""
        before = torch_noise()  # a graph draws from no other generator
        outcome = self._evaluate("differentiable_loss", model, guide, args, kwargs)
        if not isinstance(outcome, Outcome):
            return cast(Tensor, outcome)
        warn_if_nan(outcome.loss, "loss")

        def run_again() -> Tensor:
            self._known(model, guide).pair.refuse("its gradients are differentiated once more")
            now = torch_noise()
            before()
            try:
                return cast(Tensor, self._run_stock(Call("differentiable_loss", model, guide, args, kwargs)))
            finally:
                now()

        loss: Tensor = _Differentiable.apply(outcome, run_again, *outcome.tensors)
        return loss

    def num_graphs(self, model: Program, guide: Program) -> int:
        """The number of graphs that were recorded for a pair of programs so far."""
        return self._known(model, guide).pair.num_graphs

    def _evaluate(
        self, method: str, model: Program, guide: Program, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Outcome | Any:
        call = Call(method, model, guide, args, kwargs, self._settings(), not _is_of_libraries(type(self)))
        if self._running:
            return self._run_stock(call)
        self._restore_nesting(model, guide)
        return self._known(model, guide).pair.evaluate(call)

    def _run_stock(self, call: Call) -> Any:
        """A call of the stock estimator, which may call itself by another of its methods."""
        before, self._running = self._running, True
        try:
            return getattr(super(), call.method)(call.model, call.guide, *call.args, **call.kwargs)
        finally:
            self._running = before

    def _settings(self) -> Hashable:
        """The attributes of the estimator, on which a graph depends; a nesting that was found follows from programs."""
        found = self._nesting_was_found
        return tuple(
            (name, (type(value), value) if isinstance(value, _PLAIN) else id(value))
            for name, value in vars(self).items()
            if name not in _OWN and not (found and name == "max_plate_nesting")
        )

    def _known(self, model: Program, guide: Program) -> _Known:
        key = identity(model), identity(guide)
        if key not in self._pairs:
            here = weakref.ref(self)
            forget = functools.partial(_forget, here, key)  # an identity is given anew once its owner is gone
            owners = [weakref.ref(getattr(program, "__self__", program), forget) for program in (model, guide)]
            self._pairs[key] = _Known(CompiledPair(self._stock_name(), functools.partial(_run_stock, here)), owners)
        return self._pairs[key]

    def _stock_name(self) -> str:
        classes = type(self).__mro__
        return classes[classes.index(CompiledELBO) + 1].__name__

    def _get_traces(self, model: Program, guide: Program, args: Any, kwargs: Any) -> Iterator[Any]:
        self._restore_nesting(model, guide)
        yield from super()._get_traces(model, guide, args, kwargs)  # type: ignore[no-untyped-call]

    def _guess_max_plate_nesting(self, model: Program, guide: Program, args: Any, kwargs: Any) -> None:
        super()._guess_max_plate_nesting(model, guide, args, kwargs)  # type: ignore[no-untyped-call]
        self._known(model, guide).nesting = self.max_plate_nesting
        self._find_nesting(self.max_plate_nesting)

    def _restore_nesting(self, model: Program, guide: Program) -> None:
        if self._nesting_was_found:  # it may be that of other programs
            self._find_nesting(self._known(model, guide).nesting)

    def _find_nesting(self, nesting: float) -> None:
        self.max_plate_nesting = nesting
        self._nesting_was_found = True

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "max_plate_nesting":  # it is given now
            self._nesting_was_found = False

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in _OWN}  # graphs are not copied


class CompiledTrace_ELBO(CompiledELBO, Trace_ELBO):
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


class CompiledTraceMeanField_ELBO(CompiledTrace_ELBO, TraceMeanField_ELBO):
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


class CompiledTraceEnum_ELBO(CompiledELBO, TraceEnum_ELBO):
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


class CompiledTraceGraph_ELBO(CompiledELBO, TraceGraph_ELBO):
    """Pyro's ``TraceGraph_ELBO``, compiled: score-function terms of what lies downstream alone, with baselines.

    Example:
        >>> import pyro
        >>> import pyro.distributions as dist
        >>> from pyro.infer import TraceGraph_ELBO
        >>> from pyro_vae.compiled import CompiledTraceGraph_ELBO
        >>> def model(x):
        ...     rate = 1.0 + pyro.sample("z", dist.Poisson(2.0))
        ...     pyro.sample("x", dist.Poisson(rate).expand([len(x)]).to_event(1), obs=x)
        >>> def guide(x):
        ...     rate = pyro.param("rate", torch.tensor(3.0))
        ...     pyro.sample("z", dist.Poisson(rate), infer={"baseline": {"use_decaying_avg_baseline": True}})
        >>> x = torch.tensor([1.0, 4.0, 2.0])
        >>> with torch.random.fork_rng():
        ...     stock = TraceGraph_ELBO().loss(model, guide, x)
        >>> CompiledTraceGraph_ELBO().loss(model, guide, x) == stock
        True
    """


class CompiledTraceTMC_ELBO(CompiledELBO, TraceTMC_ELBO):
    """Pyro's ``TraceTMC_ELBO``, compiled: tensor Monte Carlo, several draws of each site in all combinations.

    Example:
        >>> import pyro
        >>> import pyro.distributions as dist
        >>> from pyro.infer import config_enumerate
        >>> from pyro_vae.compiled import CompiledTraceTMC_ELBO
        >>> @config_enumerate(default="parallel", expand=False, num_samples=100, tmc="diagonal")
        ... def model(x):
        ...     z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...     pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def guide(x):
        ...     pass
        >>> loss = CompiledTraceTMC_ELBO(max_plate_nesting=0).loss(model, guide, torch.tensor(0.5))
        >>> abs(loss + dist.Normal(0.0, 2**0.5).log_prob(torch.tensor(0.5)).item()) < 0.1  # the evidence itself
        True
    """


class CompiledRenyiELBO(CompiledELBO, RenyiELBO):
    """Pyro's ``RenyiELBO``, compiled; at alpha = 0, the default, the importance-weighted bound.

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


class _Differentiable(torch.autograd.Function):
    """A loss whose gradients are known already; for those of the gradients the programs are run again, as they are."""

    @staticmethod
    def forward(ctx: Any, outcome: Outcome, run_again: Callable[[], Tensor], *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*outcome.gradients)
        ctx.run_again, ctx.tensors = run_again, outcome.tensors
        return outcome.loss.clone()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        gradients = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradients are to have a graph
            gradients = torch.autograd.grad(ctx.run_again(), ctx.tensors, create_graph=True, allow_unused=True)
        return (None, None, *(None if gradient is None else upstream * gradient for gradient in gradients))


@functools.cache
def _is_of_libraries(kind: type) -> bool:
    """Whether all of an estimator is Pyro's, which only hands the arguments on."""
    return all(is_library(base) for base in kind.__mro__)


def _number(outcome: Outcome | Any) -> float:
    if not isinstance(outcome, Outcome):
        return cast(float, outcome)
    warn_if_nan(outcome.loss, "loss")
    return outcome.loss.item()


def _run_stock(owner: weakref.ref[CompiledELBO], call: Call) -> Any:
    elbo = owner()
    assert elbo is not None  # it makes the call
    return elbo._run_stock(call)


def _forget(owner: weakref.ref[CompiledELBO], key: Hashable, _: weakref.ref[Any]) -> None:
    elbo = owner()
    if elbo is not None:
        elbo._pairs.pop(key, None)
