"""The graphs of one pair of programs, under one estimator.

A call runs in one of three ways.  The first of its kind runs as it is, eagerly; the second is recorded as it runs, and
the recording compiled; from the third on the graph runs.  Each way is one evaluation of the estimator that draws the
same noise, so that a sequence of calls gives what stock Pyro gives.

The *kind* of a call is what its graph depends on: shapes, dtypes and devices of the tensors among the arguments, the
plain values among them, torch's own switches, and the state of the programs (see ``watching``).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import pyro
import torch
import torch.utils._pytree as pytree
from pyro import poutine
from pyro.infer import ELBO
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.trace_messenger import TraceMessenger
from torch import Tensor

from pyro_vae.inference.compiled.lowering import Flat, compile_recording
from pyro_vae.inference.compiled.tracing import Untraceable, record
from pyro_vae.inference.compiled.watching import Watch

Program = Callable[..., Any]
MAX_GRAPHS = 16  # of one pair; further kinds of calls run eagerly


class NotCompiled(UserWarning):
    """A program runs eagerly; the text says why."""


class Recompiled(UserWarning):
    """A program has changed, and a graph was compiled anew; the text says what has changed."""


@dataclass(frozen=True)
class Call:
    """One call of an estimator: its programs, and what they are called with."""

    method: str
    model: Program
    guide: Program
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def run(self, stock: ELBO) -> Any:
        return getattr(stock, self.method)(self.model, self.guide, *self.args, **self.kwargs)

    def tensors(self) -> list[Tensor]:
        return [leaf for leaf in pytree.tree_leaves((self.args, self.kwargs)) if isinstance(leaf, Tensor)]

    def kind(self) -> Hashable:
        """What a graph depends on, of the arguments and of torch's own switches.

        Raises:
            TypeError: if an argument cannot be compared with that of another call.
        """
        leaves, layout = pytree.tree_flatten((self.args, self.kwargs))
        described = [_describe(leaf) if isinstance(leaf, Tensor) else (type(leaf), leaf) for leaf in leaves]
        identities = [id(leaf) for leaf in leaves if isinstance(leaf, Tensor)]
        repeated = tuple(identities.index(identity) for identity in identities)
        switches = (
            torch.get_default_dtype(),
            torch.is_autocast_enabled("cpu"),
            torch.is_autocast_enabled("cuda"),
            torch.is_grad_enabled(),
        )
        kind = (self.method, str(layout), tuple(described), repeated, switches)
        hash(kind)
        return kind


@dataclass(frozen=True)
class _Graph:
    """A compiled run: a function of the parameters and of the tensors among the arguments."""

    run: Flat
    has_gradient: list[bool]


@dataclass(frozen=True)
class Outcome:
    """A loss, and the gradients of the tensors that have one."""

    loss: Tensor
    tensors: list[Tensor]
    gradients: list[Tensor]


class CompiledPair:
    """One pair of programs under one estimator."""

    def __init__(self, stock: ELBO) -> None:
        self.stock = stock
        self.graphs: dict[Hashable, _Graph] = {}
        self._watch: Watch | None = None
        self._names: dict[Hashable, list[str]] = {}
        self._states: dict[Hashable, tuple[Hashable, ...]] = {}
        self._reason = ""
        self._said: set[str] = set()

    def evaluate(self, call: Call) -> Outcome | Any:
        """An outcome, or what the stock estimator returned where it ran."""
        key = self._key(call)
        names = None if key is None else self._names.get(key)
        parameters = None if names is None else _parameters(names)
        if names is None or parameters is None:
            return self._run(key, call)
        key = (key, tuple(map(_describe, parameters)))
        if key in self.graphs:
            return self._replay(self.graphs[key], names, parameters, call)
        return self._record(key, names, parameters, call)

    def _run(self, key: Hashable, call: Call) -> Any:
        with poutine.trace(param_only=True) as seen:
            result = call.run(self.stock)
        if self._watch is None:
            self._watch = Watch({"model": call.model, "guide": call.guide})
            key = self._key(call)
        if key is not None and (key in self._names or len(self._names) < MAX_GRAPHS):
            self._names[key] = [name for name, site in seen.trace.nodes.items() if site["type"] == "param"]
        elif key is not None:
            self._say(f"calls of more than {MAX_GRAPHS} kinds; hand over as tensors what changes from call to call")
        return result

    def _replay(self, graph: _Graph, names: list[str], parameters: list[Tensor], call: Call) -> Outcome:
        tensors = call.tensors()
        loss, *gradients = graph.run([*parameters, *tensors])
        _announce(names)
        return Outcome(loss, _chosen(_differentiable(parameters, tensors), graph.has_gradient), gradients)

    def _record(self, key: Hashable, names: list[str], parameters: list[Tensor], call: Call) -> Outcome | Any:
        tensors = call.tensors()
        inputs, differentiable = [*parameters, *tensors], _differentiable(parameters, tensors)
        noise = torch.get_rng_state()
        try:
            with poutine.block(), pyro.validation_enabled(False):
                recording = record(lambda: (_with_gradients(call.run(self.stock)),), inputs, differentiable)
        except Exception as error:  # of any kind: what cannot be recorded still runs
            torch.set_rng_state(noise)
            self._give_up(_first_line(error))
            return self._run(key, call)
        has_gradient = [gradient is not None for gradient in recording.gradients]
        try:
            self.graphs[key] = _Graph(compile_recording(recording, inputs), has_gradient)
        except Exception as error:
            self._give_up(_first_line(error))
        _announce(names)
        found = [gradient for gradient in recording.gradients if gradient is not None]
        return Outcome(recording.results[0], _chosen(differentiable, has_gradient), found)

    def _key(self, call: Call) -> Hashable:
        """What tells one graph from another; None where there is to be none."""
        if self._watch is None or self._reason:
            return None
        try:
            kind = call.kind()
        except TypeError as error:
            self._give_up(f"an argument cannot be compared with that of another call ({error})")
            return None
        if any(not (isinstance(handler, TraceMessenger) and handler.param_only) for handler in _PYRO_STACK):
            return None  # an effect handler around the call may change what the programs do
        state = self._watch.read()
        self._notice(kind, state)
        return None if self._reason else (kind, state)

    def _notice(self, kind: Hashable, state: tuple[Hashable, ...]) -> None:
        """Say it where the programs' own state has changed in another way than between training and evaluation."""
        assert self._watch is not None
        before = self._states.get(kind)
        self._states[kind] = state
        if before is None or before == state or (kind, state) in self._names:
            return
        changes = [text for text in self._watch.difference(before, state) if ".training: " not in text]
        if changes and len(self._names) < MAX_GRAPHS:
            warnings.warn(f"compiled anew, because the program has changed: {', '.join(changes)}", Recompiled, 2)

    def _give_up(self, reason: str) -> None:
        self._reason = reason
        self._say(reason)

    def _say(self, reason: str) -> None:
        if reason not in self._said:
            self._said.add(reason)
            warnings.warn(f"{type(self.stock).__name__} runs eagerly: {reason}", NotCompiled, stacklevel=2)


def _with_gradients(loss: Any) -> Any:
    if isinstance(loss, Tensor) and loss.requires_grad:
        loss.backward()
    return loss


def _parameters(names: list[str]) -> list[Tensor] | None:
    """The unconstrained parameters of the current parameter store; None if it was cleared."""
    store = dict(pyro.get_param_store().named_parameters())
    return [store[name] for name in names] if all(name in store for name in names) else None


def _announce(names: list[str]) -> None:
    """Tell the handlers around the call, ``SVI.step`` above all, which parameters were used."""
    if _PYRO_STACK:
        for name in names:
            pyro.param(name)


def _differentiable(parameters: list[Tensor], tensors: list[Tensor]) -> list[Tensor]:
    unique = {id(tensor): tensor for tensor in (*parameters, *tensors) if tensor.requires_grad}
    return list(unique.values())


def _chosen(tensors: list[Tensor], chosen: Sequence[bool]) -> list[Tensor]:
    return [tensor for tensor, choice in zip(tensors, chosen, strict=True) if choice]


def _describe(tensor: Tensor) -> Hashable:
    return (tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device, tensor.requires_grad)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines and not isinstance(error, Untraceable) else str(error)
