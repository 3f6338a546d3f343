"""One recorded run of an estimator, and where the tensors that it reads are found again.

A graph takes what it was recorded with as inputs: the tensors among the arguments, in their order, numbers that were
handed over as tensors, and the *held* tensors, which the programs reached by themselves: parameters by their name in
Pyro's store, others by the places where they were bound (see ``places``).  Which tensor is bound there may change; that
several places are bound to one tensor may not.

What the run bound anew, such as a module's attribute that holds the last draw, is an output of the graph, and bound
again by every run of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyro
import torch
import torch.utils._pytree as pytree
from pyro.ops.provenance import detach_provenance
from torch import Tensor

from pyro_vae.compiled.exchange import exchanged
from pyro_vae.compiled.lowering import compile_recording, interpret, with_loops_at_once
from pyro_vae.compiled.outcomes import Outcome
from pyro_vae.compiled.parameters import Parameter, announce
from pyro_vae.compiled.patches import Patchable
from pyro_vae.compiled.payoff import FEWEST_OF_LOOPS, CompileEstimate
from pyro_vae.compiled.places import Place
from pyro_vae.compiled.refusals import Untraceable
from pyro_vae.compiled.tracing import Recording

Tensors = Mapping[str, Tensor]  # by path, or by name

MISSES, _MISSES_OF = 3, 10  # calls with other values that a graph is run for, at least, and then one in so many
LOOPS_AFTER = 100  # runs of a graph: doing its loops at once costs as much as some 50, and saves a third of each


@dataclass(frozen=True)
class Source:
    """Where a held tensor is found.

    Args:
        names: in the parameter store.
        paths: where the programs or the arguments hold it.
        description: what it was like when it was recorded.
    """

    names: tuple[str, ...]
    paths: tuple[str, ...]
    description: tuple[Any, ...]

    def find(self, store: Tensors, bound: Tensors) -> Tensor | None:
        """The tensor, if it is the same in all places, and like the one that was recorded."""
        found = [*map(store.get, self.names), *map(bound.get, self.paths)]
        first = found[0]
        if first is None or any(other is not first for other in found[1:]):
            return None
        shape, strides, dtype, device, trained = self.description
        same = first.shape == shape and first.requires_grad is trained and first.dtype is dtype
        return first if same and first.stride() == strides and first.device == device else None


def parameter_store() -> dict[str, Tensor]:
    """The unconstrained parameters in Pyro's store."""
    return {name: detach_provenance(tensor) for name, tensor in pyro.get_param_store().named_parameters()}


def find_sources(held: Sequence[Tensor], bound: Tensors) -> list[Source]:
    """Where some tensors are found: in the parameter store, or where they are bound.

    Raises:
        Untraceable: if one of them is nowhere.
    """
    names, paths = _by_identity(parameter_store()), _by_identity(bound)
    sources = []
    for tensor in held:
        source = Source(
            tuple(names.get(id(tensor), ())),
            tuple(paths.get(id(tensor), ())),
            (tensor.shape, tensor.stride(), tensor.dtype, tensor.device, tensor.requires_grad),
        )
        if not (source.names or source.paths):
            shape = tuple(tensor.shape)
            raise Untraceable(f"a tensor of shape {shape} is none that the programs hold; hand it over as an argument")
        sources.append(source)
    return sources


@dataclass(frozen=True)
class Rebound:
    """A place that a run binds to something made anew: a tensor, or a container of tensors and plain values.

    Args:
        place: the place.
        layout: how the container is nested.
        leaves: what is in it; None for a tensor, which is an output of the graph.
    """

    place: Place
    layout: Any
    leaves: tuple[Any, ...]

    def bind(self, outputs: Iterator[Tensor]) -> None:
        """Bind the place to what a run gave."""
        leaves = [next(outputs) if leaf is None else leaf[0] for leaf in self.leaves]
        self.place.put(pytree.tree_unflatten(leaves, self.layout))


class RecordedGraph:
    """A graph of one kind of call.

    Args:
        recording: what was recorded.
        sources: where the held tensors are found.
        parameters: the parameter statements of the run.
        rebound: the places that the run bound anew; the last outputs of the graph go there.

    Attributes:
        nodes: how many operations it has, views and all.
        is_tried: whether a run of it was compared with one of the programs.
        is_settled: whether it is compiled, or never will be.
        checks: whether its last output says if all values were valid.
        gave_numbers: whether the programs were given tensors for numbers, which they may take for others.
        guarded: what depends on values that its last output says to be the same again, in words; empty for nothing.
        called: the functions of libraries that are in it.

    Raises:
        Untraceable: if it cannot be run again.
    """

    def __init__(
        self,
        recording: Recording,
        sources: Sequence[Source],
        parameters: Sequence[Parameter],
        rebound: Sequence[Rebound],
    ) -> None:
        positions = {id(tensor): i for i, tensor in enumerate(recording.held)}
        for leaf in recording.leaves:
            if id(leaf) not in positions:
                raise Untraceable(f"a tensor of shape {tuple(leaf.shape)} has a gradient, and is none of the programs'")
        if any(g is not None and g.layout is not torch.strided for g in recording.gradients):
            raise Untraceable("a gradient is sparse")
        self._leaves = [positions[id(leaf)] for leaf in recording.leaves]
        self._has_gradient = [gradient is not None for gradient in recording.gradients]
        self._sources, self._parameters, self._rebound = list(sources), parameters, list(rebound)
        self._recording = replace(recording, held=[], results=[], gradients=[], leaves=[], valid=None)
        self._run = interpret(self._recording)
        self._estimate = CompileEstimate.from_recording(recording, 0)
        self.nodes = len(recording.graph.graph.nodes)
        self.checks, self.gave_numbers = recording.valid is not None, recording.gave_numbers
        self.guarded, self._misses = recording.guarded, 0
        self.is_tried = self.is_settled = False
        self.called = Patchable()

    def find(self, bound: Tensors) -> list[Tensor] | None:
        """The held tensors as they are now; None if this graph is of other ones."""
        if not self.called.is_unchanged():
            return None
        store = parameter_store()
        found = []
        for source in self._sources:
            tensor = source.find(store, bound)
            if tensor is None:
                return None
            found.append(tensor)
        return found

    def run(self, inputs: Sequence[Tensor], held: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The outputs: loss, gradients, what is bound anew, and whether all values were valid if it checks that."""
        values = [*inputs, *held]
        if self._estimate.runs == LOOPS_AFTER and self.nodes >= FEWEST_OF_LOOPS and not self.is_settled:
            self._run = with_loops_at_once(self._run, self._recording, values)
        return self._run(values)

    def misses(self) -> bool:
        """Count a call whose values were others; whether these are too many to go on with this graph."""
        self._misses += 1
        return self._misses >= MISSES and _MISSES_OF * self._misses > self._estimate.runs

    def outcome(self, outputs: Sequence[Tensor], differentiable: Sequence[Tensor], held: Sequence[Tensor]) -> Outcome:
        """A loss with its gradients; what the run binds anew is bound.

        Args:
            outputs: of a run.
            differentiable: the inputs that have a gradient.
            held: the held tensors of the run.
        """
        announce(self._parameters)
        tensors = self.trained(differentiable, held)
        left = iter(outputs[1 + len(tensors) :])
        for rebound in self._rebound:
            rebound.bind(left)
        return Outcome(outputs[0], tensors, list(outputs[1 : 1 + len(tensors)]))

    def trained(self, differentiable: Sequence[Tensor], held: Sequence[Tensor]) -> list[Tensor]:
        """The tensors that get a gradient."""
        tensors = [*differentiable, *(held[i] for i in self._leaves)]
        return [tensor for tensor, has in zip(tensors, self._has_gradient, strict=True) if has]

    def counted(self) -> CompileEstimate | None:
        """Count a run; gives the estimate once compiling is due."""
        self._estimate = replace(self._estimate, runs=self._estimate.runs + 1)
        return self._estimate if not self.is_settled and self._estimate.is_due else None

    def compile(self, inputs: Sequence[Tensor], held: Sequence[Tensor]) -> None:
        """Compile it and run it once, beside its replay, on these tensors, which are left as they were.

        Raises:
            Exception: whatever the compiler raises, or the compiled graph; and if the two do not agree.  It goes on
                as it was recorded then.
        """
        self.is_settled = True
        values = [*inputs, *held]
        self._run = exchanged(self._run, lambda: compile_recording(self._recording, values), values)


def _by_identity(tensors: Tensors) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for name, tensor in tensors.items():
        found.setdefault(id(tensor), []).append(name)
    return found
