"""What a recorded graph does, piece by piece: its operations, and the sums that chains of additions make."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import torch
from torch import fx

from pyro_vae.compiled.forms import Form
from pyro_vae.compiled.redundancy import Redundancy, is_made_anew, writes

aten = torch.ops.aten
FEWEST_SUMMANDS = 3
_NOISE = "noise"


class Unit(NamedTuple):
    """An operation, or what some additions and subtractions add.

    Args:
        node: the operation, or the last of the additions.
        summands: what is added, and whether it is taken away instead; empty for another operation.
    """

    node: fx.Node
    summands: tuple[tuple[fx.Node, bool], ...] = ()


class Units:
    """The pieces of a graph, and in which order they may be done.

    Args:
        graph: of operations alone, with a tuple of tensors as its output.
        memory: for each of its inputs what stands for its memory; None where any may be views of one another.

    Attributes:
        known: what of the graph is known before it runs.
        all: the pieces, in the order of the graph.
        output: the node of what it returns.
    """

    def __init__(self, graph: fx.GraphModule, memory: Sequence[Hashable] | None = None) -> None:
        self.known = Redundancy(graph, memory)
        left_out = self.known.constants.keys() | self.known.same_as.keys()
        nodes = [node for node in graph.graph.nodes if node.op == "call_function" and node not in left_out]
        self.output = next(node for node in graph.graph.nodes if node.op == "output")
        stands_for = self.known.stands_for
        self._users = Counter(stands_for(source) for node in (*nodes, self.output) for source in node.all_input_nodes)
        self.all = self._found(nodes)
        self._before = self._in_order()

    def given(self, unit: Unit) -> list[fx.Node]:
        """The tensors that a piece is given, one after another."""
        if unit.summands:
            return [node for node, _ in unit.summands]
        found: list[fx.Node] = []
        fx.map_arg((unit.node.args, unit.node.kwargs), lambda node: found.append(self.known.stands_for(node)))
        return found

    def waits_for(self, unit: Unit) -> list[fx.Node]:
        """What is to be done before a piece: what makes what it is given, and what its memory and noise wait for."""
        return list(dict.fromkeys([*self.given(unit), *self._before.get(unit.node, ())]))

    def is_fixed(self, node: fx.Node) -> bool:
        """Whether an operation is to be done as it stands, when its turn comes."""
        if not isinstance(node.meta.get("form"), Form) or not hasattr(node.target, "_schema"):
            return True
        return node in self.known.in_place or is_made_anew(node) or bool(writes(node))

    def _found(self, nodes: Sequence[fx.Node]) -> list[Unit]:
        """The operations as pieces, additions of additions as one."""
        inner: set[fx.Node] = set()
        sums: dict[fx.Node, tuple[tuple[fx.Node, bool], ...]] = {}
        for node in reversed(nodes):
            if node in inner or not self._adds(node):
                continue
            within, summands = list[fx.Node](), list[tuple[fx.Node, bool]]()
            ahead = [(node, False)]
            while ahead:
                each, is_taken = ahead.pop()
                if each is node or (self._adds(each) and self._users[each] == 1 and each not in self.known.leaving):
                    within.append(each)
                    first, second = self.given(Unit(each))
                    ahead += [(second, is_taken != (each.target is aten.sub.Tensor)), (first, is_taken)]
                else:
                    summands.append((each, is_taken))
            if len(summands) >= FEWEST_SUMMANDS:
                inner.update(within[1:])
                sums[node] = tuple(summands)
        return [Unit(node, sums.get(node, ())) for node in nodes if node not in inner]

    def _adds(self, node: fx.Node) -> bool:
        """Whether an operation adds or subtracts two results of the form of its own."""
        if node.target not in (aten.add.Tensor, aten.sub.Tensor) or node.kwargs or self.is_fixed(node):
            return False
        if node in self.known.unsettled:  # what is added may be another when the last of it is
            return False
        form = node.meta["form"]
        if not form.dtype.is_floating_point:  # sums of whole numbers are of another type
            return False
        forms = [source.meta.get("form") if isinstance(source, fx.Node) else None for source in node.args]
        return all(isinstance(f, Form) and (f.shape, f.dtype) == (form.shape, form.dtype) for f in forms)

    def _in_order(self) -> dict[fx.Node, list[fx.Node]]:
        """What has to come before a piece beside what it is given: other noise, and what its memory waits for.

        A write waits for the one before it and for all that has read since, and what reads waits for the last write.
        """
        last: dict[Hashable, fx.Node] = {}
        readers: dict[Hashable, list[fx.Node]] = {}
        before: dict[fx.Node, list[fx.Node]] = {}
        in_place = self.known.in_place
        for unit in self.all:
            node, waits = unit.node, list[fx.Node]()
            if is_made_anew(node) or not (hasattr(node.target, "_schema") or node.target is operator.getitem):
                waits += [last[_NOISE]] if _NOISE in last else []
                last[_NOISE] = node
            written = {in_place[each] for each in writes(node)}
            for memory in dict.fromkeys(in_place[each] for each in (node, *self.given(unit)) if each in in_place):
                waits += [last[memory]] if memory in last else []
                if memory in written:
                    waits += readers.pop(memory, [])
                    last[memory] = node
                else:
                    readers.setdefault(memory, []).append(node)
            before[node] = waits
        return before
