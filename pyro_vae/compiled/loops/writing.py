"""A graph written anew, what can be done together as operations on stacks."""

from __future__ import annotations

import itertools
import operator
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, fx
from torch.fx._lazy_graph_module import _make_graph_module, _use_lazy_graph_module

from pyro_vae.compiled.forms import Form
from pyro_vae.compiled.loops.together import Operand, Writer, rule_of
from pyro_vae.compiled.loops.turns import FEWEST_TURNS, turns
from pyro_vae.compiled.loops.units import FEWEST_SUMMANDS, Unit, Units
from pyro_vae.compiled.refusals import Untraceable

aten = torch.ops.aten
_HANDED_OVER = 2.5  # microseconds for an operation
_STACKED = 0.2  # for an entry of a stack, beside the copy
_BYTES = 8e3  # copied in a microsecond
_CACHE = 2**20  # bytes


class _Stack(NamedTuple):
    """Several results as one tensor: its node, and their number."""

    node: fx.Node
    size: int


def done_at_once(graph: fx.GraphModule, memory: Sequence[Hashable] | None = None) -> fx.GraphModule:
    """The graph with the turns of its loops done at once, as far as they can be and as that pays.

    Args:
        graph: of operations alone, with a tuple of tensors as its output; it stays as it is.
        memory: for each of its inputs what stands for its memory; None where any may be views of one another.

    Raises:
        Untraceable: if an operation in it depends on how tensors lie in memory, which becomes another.
    """
    by_memory = [node for node in graph.graph.nodes if getattr(node.target, "_opname", "").startswith("as_strided")]
    for node in by_memory:
        if node.meta["form"].shape:  # a single number lies where it lies
            raise Untraceable(f"{node.target} depends on how a tensor lies in memory")
    return _Rewriting(graph, memory).write()


class _Rewriting:
    def __init__(self, graph: fx.GraphModule, memory: Sequence[Hashable] | None) -> None:
        self._old, self._units = graph, Units(graph, memory)
        self._known = self._units.known
        self._graph, self._constants = fx.Graph(), dict[str, Tensor]()
        self._single: dict[fx.Node, fx.Node] = {}  # what stands for a result in the new graph
        self._places: dict[fx.Node, dict[_Stack, int]] = {}  # the stacks that hold a result, and where
        self._parts: dict[_Stack, list[tuple[fx.Node, int]]] = {}  # what is read of a stack, one by one
        self._slices: dict[Hashable, _Stack] = {}
        self._selections = Counter(_whole(unit.node) for unit in self._units.all if self._is_selection(unit.node))

    def write(self) -> fx.GraphModule:
        """The rewritten graph."""
        for node in self._old.graph.nodes:
            if node.op == "placeholder":
                self._single[node] = self._graph.placeholder(str(node.target))
                self._single[node].meta["form"] = node.meta.get("form")
        for pieces in turns(self._units):
            if len(pieces) < FEWEST_TURNS or not self._write_together(pieces):
                for unit in pieces:
                    self._write_alone(unit)
        self._graph.output(fx.map_arg(self._units.output.args[0], self._value))
        self._take_apart()
        self._graph.eliminate_dead_code()
        with _use_lazy_graph_module(True):  # its Python is written when it is called, which it never is
            return _make_graph_module(self._constants, self._graph)

    def _made(self, target: Any, args: tuple[Any, ...], form: Any) -> fx.Node:
        node = self._graph.call_function(target, args)
        node.meta["form"] = form
        return node

    def _constant(self, value: Any, form: Any) -> fx.Node:
        name = f"constant_{len(self._constants)}"
        self._constants[name] = value
        node = self._graph.get_attr(name)
        node.meta["form"] = form
        return node

    # One by one

    def _value(self, node: fx.Node) -> fx.Node:
        """What stands for a result in the new graph."""
        node = self._known.stands_for(node)
        if node not in self._single:
            form = node.meta.get("form")
            if node in self._places:
                stack, index = next(iter(self._places[node].items()))
                self._single[node] = self._made(aten.select.int, (stack.node, 0, index), form)
                self._parts.setdefault(stack, []).append((self._single[node], index))
            elif node in self._known.constants:
                self._single[node] = self._constant(self._known.constants[node], form)
            else:
                self._single[node] = self._constant(getattr(self._old, str(node.target)), form)
        return self._single[node]

    def _take_apart(self) -> None:
        """Take a stack apart at once where several of its entries are read."""
        for stack, parts in self._parts.items():
            if len(parts) < FEWEST_TURNS:
                continue
            form = parts[0][0].meta["form"]
            with self._graph.inserting_after(stack.node):
                whole = self._made(aten.unbind.int, (stack.node,), [form] * stack.size)
            for node, index in parts:
                with self._graph.inserting_before(node):
                    part = self._made(operator.getitem, (whole, index), form)
                node.replace_all_uses_with(part)
                self._graph.erase_node(node)

    def _write_alone(self, unit: Unit) -> None:
        node = unit.node
        if unit.summands:
            self._single[node] = self._total(unit)
        elif self._is_selection(node) and self._selections[_whole(node)] >= FEWEST_TURNS:
            self._places.setdefault(node, {})[self._slices_of(node)] = node.args[2]  # type: ignore[assignment]
        else:
            args, kwargs = fx.map_arg((node.args, node.kwargs), self._value)
            lies_still = not self._units.is_fixed(node) and node not in self._known.leaving
            target = aten.reshape.default if node.target is aten.view.default and lies_still else node.target
            self._single[node] = self._graph.call_function(target, args, kwargs)  # type: ignore[arg-type]
            self._single[node].meta["form"] = node.meta.get("form")

    def _is_selection(self, node: fx.Node) -> bool:
        """Whether an operation takes one slice of a tensor that lies still."""
        if node.target is not aten.select.int or node.args[2] < 0:  # type: ignore[operator]
            return False
        return not self._units.is_fixed(node) and node not in self._known.leaving

    def _slices_of(self, node: fx.Node) -> _Stack:
        """All slices of what a selection takes one of."""
        key = _whole(node)
        if key not in self._slices:
            source, dim = self._known.stands_for(node.args[0]), node.args[1]  # type: ignore[arg-type]
            form, whole = source.meta["form"], self._value(source)
            dims = list(range(len(form.shape)))
            dims.insert(0, dims.pop(dim))  # type: ignore[arg-type]
            if dims[0]:
                whole = self._made(aten.permute.default, (whole, dims), form)
            self._slices[key] = _Stack(whole, form.shape[dim])
        return self._slices[key]

    # Sums

    def _total(self, unit: Unit) -> fx.Node:
        form = unit.node.meta["form"]
        added, taken = ([node for node, is_taken in unit.summands if is_taken is away] for away in (False, True))
        total, less = self._sum(added, form), self._sum(taken, form)
        assert total is not None  # the first summand is never taken away
        return total if less is None else self._made(aten.sub.Tensor, (total, less), form)

    def _sum(self, summands: Sequence[fx.Node], form: Form) -> fx.Node | None:
        """The sum of some results, those that are in one stack at once; None for the sum of nothing."""
        slices = [node for node in summands if node.target is aten.select_backward.default]
        left, terms = list(summands), list[fx.Node]()
        if len(slices) >= FEWEST_SUMMANDS and (whole := self._put_together(slices, form)) is not None:
            terms.append(whole)
            left = [node for node in left if node not in slices]
        while left:
            within, stack = self._stacked_with_first(left, form)
            terms.append(
                self._value(left[0]) if stack is None else self._made(aten.sum.dim_IntList, (stack, [0]), form)
            )
            left = [node for i, node in enumerate(left) if i and node not in within]
        total = terms[0] if terms else None
        for term in terms[1:]:
            total = self._made(aten.add.Tensor, (total, term), form)
        return total

    def _stacked_with_first(self, nodes: Sequence[fx.Node], form: Form) -> tuple[set[fx.Node], fx.Node | None]:
        """Those of some results that one stack holds together with the first, and a stack of them."""
        counts = Counter(nodes)
        for stack in self._places.get(nodes[0], ()):
            within = {node: self._places[node][stack] for node in nodes if stack in self._places.get(node, ())}
            if len(within) >= FEWEST_SUMMANDS and all(counts[node] == 1 for node in within):
                return set(within), self._some_of(stack, sorted(within.values()), form)
        return set(), None

    def _put_together(self, slices: Sequence[fx.Node], form: Form) -> fx.Node | None:
        """The sum of what has values in one slice each and zeros elsewhere; None unless each slice is there once."""
        shape, dim = slices[0].args[1:3]
        placed = {node.args[3]: self._known.stands_for(node.args[0]) for node in slices}  # type: ignore[arg-type]
        is_whole = sorted(placed) == list(range(shape[dim])) and len(placed) == len(slices)  # type: ignore
        if not is_whole or any(node.args[1:3] != (shape, dim) for node in slices):
            return None
        return self._made(aten.stack.default, ([self._value(placed[i]) for i in range(len(placed))], dim), form)

    # Together

    def _write_together(self, pieces: list[Unit]) -> bool:
        """Write several pieces as one, if that pays; says whether it does."""
        pieces = self._arranged(pieces)
        positions = [*zip(*map(self._units.given, pieces), strict=True)]
        write, form = Writer(self._graph, len(pieces)), pieces[0].node.meta["form"]
        if self._gain(positions, form.num_bytes) < 0 or all(len(set(nodes)) == 1 for nodes in positions):
            return False
        operands = [self._operand(nodes) for nodes in positions]
        if pieces[0].summands:
            whole = write.stacked(operands[0])
            for each, (_, is_taken) in zip(operands[1:], pieces[0].summands[1:], strict=True):
                target = aten.sub.Tensor if is_taken else aten.add.Tensor
                whole = write(target, whole, write.aligned(each, len(form.shape)))
        else:
            whole = self._called(write, pieces[0].node, operands)
        for node in itertools.takewhile(lambda node: "form" not in node.meta, reversed(self._graph.nodes)):
            node.meta["form"] = form
        self._hold(whole, [unit.node for unit in pieces])
        return True

    def _called(self, write: Writer, node: fx.Node, operands: Sequence[Operand]) -> fx.Node:
        left = iter(operands)

        def put(value: Any) -> Any:
            if isinstance(value, fx.Node):
                return next(left)
            return [*map(put, value)] if isinstance(value, (list, tuple)) else value

        rule = rule_of(node.target)
        assert rule is not None
        return rule(write, node.meta["form"], *map(put, node.args), **node.kwargs)

    def _gain(self, positions: Sequence[tuple[fx.Node, ...]], num_bytes: int) -> float:
        """Microseconds saved by doing pieces together: those for handing them over, less those for stacking.

        Args:
            positions: what the pieces are given, argument by argument.
            num_bytes: of one result; those of all may not fit into the processor's cache, where single ones do.
        """
        gain, whole = _HANDED_OVER * (len(positions[0]) - 1), num_bytes * len(positions[0])
        if whole > _CACHE:
            gain -= 3 * whole / _BYTES  # two operands and the result
        for nodes in positions:
            if len(set(nodes)) > 1 and self._found(nodes) is None:
                copied = sum(node.meta["form"].num_bytes for node in nodes)
                gain -= _HANDED_OVER + _STACKED * len(nodes) + copied / _BYTES
        return gain

    def _arranged(self, pieces: list[Unit]) -> list[Unit]:
        """Pieces in the order in which a stack holds what they are given, so that it can be taken as it is."""
        for nodes in zip(*map(self._units.given, pieces), strict=True):
            found = self._found(nodes)
            if found is not None and len(set(found[1])) == len(nodes):
                return [pieces[i] for i in np.argsort(found[1])]
        return pieces

    def _found(self, nodes: Sequence[fx.Node]) -> tuple[_Stack, list[int]] | None:
        """A stack that holds some results, and where."""
        for stack in self._places.get(nodes[0], ()):
            indices = [self._places.get(node, {}).get(stack, -1) for node in nodes]
            if min(indices) >= 0:
                return stack, indices
        return None

    def _operand(self, nodes: Sequence[fx.Node]) -> Operand:
        form = nodes[0].meta["form"]
        if len(set(nodes)) == 1:
            return Operand(self._value(nodes[0]), form, False)
        found = self._found(nodes)
        if found is not None:
            return Operand(self._some_of(*found, form), form, True)
        stack = self._made(aten.stack.default, ([*map(self._value, nodes)],), form)
        self._hold(stack, nodes)
        return Operand(stack, form, True)

    def _some_of(self, stack: _Stack, indices: list[int], form: Form) -> fx.Node:
        """A stack of some entries of another."""
        if indices == list(range(stack.size)):
            return stack.node
        steps = {after - before for before, after in itertools.pairwise(indices)}
        if len(steps) == 1 and (step := steps.pop()) > 0:
            return self._made(aten.slice.Tensor, (stack.node, 0, indices[0], indices[-1] + 1, step), form)
        chosen = torch.tensor(indices, device=form.device)
        return self._made(aten.index_select.default, (stack.node, 0, self._constant(chosen, form)), form)

    def _hold(self, whole: fx.Node, nodes: Sequence[fx.Node]) -> None:
        """Note that a node of the new graph is a stack of some results, unless these may still change."""
        if any(node in self._known.in_place for node in nodes):
            return
        stack = _Stack(whole, len(nodes))
        for i, node in enumerate(nodes):
            self._places.setdefault(node, {}).setdefault(stack, i)


def _whole(selection: fx.Node) -> Hashable:
    """What a selection takes one slice of: a tensor, and the dimension along which."""
    return selection.args[:2]
