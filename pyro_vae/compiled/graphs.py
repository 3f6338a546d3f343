"""The graphs of one pair of programs, under one estimator.

A call runs in one of three ways.  The first of its kind runs as it is, eagerly; the second is recorded as it runs, and
the recording compiled; from the third on the graph runs.  Each way is one evaluation of the estimator that draws the
same noise, so that a sequence of calls gives what stock Pyro gives.

The *kind* of a call is what its graph depends on: shapes, dtypes and devices of the tensors among the arguments, the
plain values among them, torch's own switches, and the state of the programs (see ``program_state``).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import pyro
import torch
import torch.utils._pytree as pytree
from pyro import poutine
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.trace_messenger import TraceMessenger
from torch import Tensor

from pyro_vae.compiled.lowering import Flat, compile_recording
from pyro_vae.compiled.parameters import Parameter, announce, find, used
from pyro_vae.compiled.payoff import reason
from pyro_vae.compiled.program_state import Watch
from pyro_vae.compiled.snapshot import Snapshot
from pyro_vae.compiled.tracing import Recording, Untraceable, record

Program = Callable[..., Any]
Key = tuple[Hashable, int]  # the kind of the arguments, and the number of the programs' state
MAX_GRAPHS = 16  # of one pair; further kinds of calls run eagerly
_PATIENCE = 3  # calls in a row that change their own programs, until these run eagerly for good
_COMPARED = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, Enum, slice, range)


class NotCompiled(UserWarning):
    """A program runs eagerly; the text says why.

    Example:
        >>> import warnings
        >>> import pyro
        >>> from pyro_vae.compiled import CompiledTrace_ELBO
        >>> def program():
        ...     pyro.sample("z", pyro.distributions.Normal(0.0, 1.0))
        >>> with warnings.catch_warnings(record=True, action="always") as said, pyro.poutine.scale(scale=0.1):
        ...     loss = CompiledTrace_ELBO().loss(program, program)
        >>> print(said[0].category.__name__, said[0].message)
        NotCompiled Trace_ELBO runs eagerly: an effect handler stands around the call (ScaleMessenger)
    """


class Recompiled(UserWarning):
    """A program has changed, and a graph was compiled anew; the text says what has changed.

    Example:
        >>> import warnings
        >>> from pyro_vae.compiled import CompiledTrace_ELBO, Recompiled
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import VAE
        >>> model, x, elbo = VAE((1, 8, 8), latent_dim=2), torch.rand(3, 1, 8, 8).round(), CompiledTrace_ELBO()
        >>> with warnings.catch_warnings(action="error", category=Recompiled):  # a switch that flips is a fault here
        ...     loss = elbo.loss(model, MeanField(model), x)
        >>> loss > 0
        True
    """


@dataclass(frozen=True)
class Call:
    """One call of an estimator: its programs, what they are called with, and how the estimator is set."""

    method: str
    model: Program
    guide: Program
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    settings: Hashable = ()

    def tensors(self) -> list[Tensor]:
        return [leaf for leaf in pytree.tree_leaves((self.args, self.kwargs)) if isinstance(leaf, Tensor)]

    def kind(self) -> Hashable:
        """What a graph depends on, of the arguments and of torch's own switches.

        Raises:
            TypeError: if an argument cannot be compared with that of another call.
        """
        leaves, layout = pytree.tree_flatten((self.args, self.kwargs))
        for leaf in leaves:
            if not isinstance(leaf, (Tensor, *_COMPARED)):
                name = type(leaf).__name__
                raise TypeError(
                    f"an argument is of type {name}; hand over tensors, plain values and containers of them"
                )
        described = tuple(_describe(leaf) if isinstance(leaf, Tensor) else (type(leaf), leaf) for leaf in leaves)
        switches = (
            torch.get_default_dtype(),
            torch.get_default_device(),
            torch.is_autocast_enabled("cpu"),
            torch.is_autocast_enabled("cuda"),
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
        )
        return (self.method, self.settings, str(layout), described, switches)


@dataclass(frozen=True)
class _Graph:
    """A compiled run.

    Args:
        run: a function of the parameters and of the tensors among the arguments.
        held: further tensors that it reads, each with its description when it was compiled.
        leaves: those with a gradient that are none of its inputs.
        has_gradient: of the inputs that can be differentiated, then of the leaves, which have a gradient.
    """

    run: Flat
    held: list[tuple[Tensor, Hashable]]
    leaves: list[Tensor]
    has_gradient: list[bool]

    def fits(self) -> bool:
        return all(_describe(tensor) == description for tensor, description in self.held)


@dataclass(frozen=True)
class Outcome:
    """A loss, and the gradients of the tensors that have one."""

    loss: Tensor
    tensors: list[Tensor]
    gradients: list[Tensor]

    def accumulate(self) -> None:
        """Add the gradients to those that the tensors have, as ``backward`` does."""
        taken: set[int] = set()
        for tensor, gradient in zip(self.tensors, self.gradients, strict=True):
            place = gradient.data_ptr()
            fresh = place not in taken and gradient.stride() == tensor.stride()
            taken.add(place)
            hooked = tensor._backward_hooks or tensor._post_accumulate_grad_hooks
            if fresh and tensor.is_leaf and tensor.grad is None and not hooked:
                tensor.grad = gradient
            else:
                torch.autograd.backward(tensor, gradient)


class CompiledPair:
    """One pair of programs under one estimator.

    Args:
        name: of the estimator, for a person.
        run_stock: makes a call as Pyro's own estimator does.
    """

    def __init__(self, name: str, run_stock: Callable[[Call], Any]) -> None:
        self._name, self._run_stock = name, run_stock
        self.graphs: dict[Hashable, _Graph] = {}
        self._watch = Watch()
        self._started = False
        self._parameters: dict[Key, list[Parameter]] = {}
        self._states: dict[Hashable, int] = {}  # that of the last graph of a kind
        self._unsettled = 0
        self._reason = ""
        self._said: set[str] = set()

    def evaluate(self, call: Call) -> Outcome | Any:
        """An outcome, or what the stock estimator returned where it ran."""
        key = self._key(call) if self._started else None
        names = None if key is None else self._parameters.get(key)
        parameters = None if names is None else find(names)
        if key is None or names is None or parameters is None:
            return self._run(key, call)
        inputs = [*parameters, *call.tensors()]
        identities = list(map(id, inputs))
        same = tuple(map(identities.index, identities)), tuple(map(self._watch.position, inputs))
        whole = (key, tuple(map(_describe, parameters)), same)
        graph = self.graphs.get(whole)
        if graph is None or not graph.fits():
            return self._record(key, whole, inputs, call)
        loss, *gradients = graph.run(inputs)
        announce(names)
        return Outcome(loss, _chosen([*_differentiable(inputs), *graph.leaves], graph.has_gradient), gradients)

    def _run(self, key: Key | None, call: Call) -> Any:
        with poutine.trace(param_only=True) as seen:
            result = self._run_stock(call)
        if not self._started:  # now the programs have made what they make at their first call
            self._started = True
            key = self._key(call)
        if key is None:
            return result
        self._has_settled(key, call)
        if key in self._parameters or len(self._parameters) < MAX_GRAPHS:
            self._parameters[key] = used(seen.trace)
        else:
            self._say_too_many(key)
        return result

    def _record(self, key: Key, whole: Hashable, inputs: list[Tensor], call: Call) -> Outcome | Any:
        differentiable = _differentiable(inputs)
        before = Snapshot(tensor for tensor in self._watch.tensors.values() if not tensor.requires_grad)
        try:
            with poutine.block(), pyro.validation_enabled(False):
                recording = record(lambda: (_with_gradients(self._run_stock(call)),), inputs, differentiable)
            self._check_reached(recording)
        except Exception as error:  # of any kind: what cannot be recorded still runs
            before.restore()
            self._give_up(reason(error))
            return self._run(key, call)
        announce(self._parameters[key])
        has_gradient = [gradient is not None for gradient in recording.gradients]
        if self._has_settled(key, call):
            self._say_changes(key)
            try:
                run = compile_recording(recording, inputs)
            except Exception as error:
                self._give_up(reason(error))
            else:
                held = [(tensor, _describe(tensor)) for tensor in recording.held]
                self.graphs[whole] = _Graph(run, held, recording.leaves, has_gradient)
        found = [gradient for gradient in recording.gradients if gradient is not None]
        return Outcome(recording.results[0], _chosen([*differentiable, *recording.leaves], has_gradient), found)

    def _check_reached(self, recording: Recording) -> None:
        """A tensor that the programs do not hold, out of an iterator say, may be another one at the next call."""
        reached = {_storage(tensor) for tensor in self._watch.tensors.values()}
        for tensor in recording.held:
            if _storage(tensor) not in reached:
                shape = tuple(tensor.shape)
                raise Untraceable(f"a tensor of shape {shape} is none that the programs hold; hand it over as argument")

    def _has_settled(self, key: Key, call: Call) -> bool:
        """Whether a run has left the programs as they were; gives up if one after another does not."""
        state, after = key[1], self._read(call)
        self._unsettled = 0 if after == state else self._unsettled + 1
        if self._unsettled >= _PATIENCE:
            changes = "" if after is None else ", ".join(self._watch.difference(state, after))
            self._give_up(f"the program changes itself at each call ({changes})")
        return after == state

    def _say_changes(self, key: Key) -> None:
        """Say what is another now than at the last graph, but for what tells training from evaluation."""
        kind, state = key
        before = self._states.get(kind, state)
        self._states[kind] = state
        changes = [text for text in self._watch.difference(before, state) if ".training: " not in text]
        if changes:
            text = f"compiled anew, because the program has changed: {', '.join(changes)}"
            warnings.warn(text, Recompiled, stacklevel=2)

    def _key(self, call: Call) -> Key | None:
        """What tells one graph from another; None where there is to be none."""
        if self._reason:
            return None
        around = [handler for handler in _PYRO_STACK if not _only_looks(handler)]
        if around:
            self._say(f"an effect handler stands around the call ({type(around[-1]).__name__})")
            return None
        try:
            kind = call.kind()
        except TypeError as error:
            self._give_up(str(error))
            return None
        state = self._read(call)
        return None if state is None else (kind, state)

    def _read(self, call: Call) -> int | None:
        return self._watch.read((("model", call.model), ("guide", call.guide)))

    def _say_too_many(self, key: Key) -> None:
        others = [state for kind, state in self._parameters if kind == key[0]]
        changes = ", ".join(self._watch.difference(others[-1], key[1])) if others else "the arguments"
        self._say(
            f"calls of more than {MAX_GRAPHS} kinds; hand over as tensors what changes from call to call ({changes})"
        )

    def _give_up(self, why: str) -> None:
        self._reason = why
        self._say(why)

    def _say(self, reason: str) -> None:
        if reason not in self._said:
            self._said.add(reason)
            warnings.warn(f"{self._name} runs eagerly: {reason}", NotCompiled, stacklevel=2)


def _with_gradients(loss: Any) -> Any:
    if isinstance(loss, Tensor) and loss.requires_grad:
        loss.backward()
    return loss


def _only_looks(handler: Any) -> bool:
    return isinstance(handler, TraceMessenger) and bool(handler.param_only)


def _differentiable(tensors: Sequence[Tensor]) -> list[Tensor]:
    return list({id(tensor): tensor for tensor in tensors if tensor.requires_grad}.values())


def _chosen(tensors: Sequence[Tensor], chosen: Sequence[bool]) -> list[Tensor]:
    return [tensor for tensor, choice in zip(tensors, chosen, strict=True) if choice]


def _describe(tensor: Tensor) -> Hashable:
    return (tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device, tensor.requires_grad)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
