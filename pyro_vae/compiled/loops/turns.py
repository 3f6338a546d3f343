"""Which pieces of a graph can be done together, and when."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import fx

from pyro_vae.compiled.forms import Form
from pyro_vae.compiled.loops.together import rule_of
from pyro_vae.compiled.loops.units import Unit, Units

aten = torch.ops.aten
LOOK_BACK = 3  # operations that lead to one and tell what it is like
FEWEST_TURNS = 3
MOST_BYTES = 2**16  # of a result, above which handing an operation over costs little beside doing it


def turns(units: Units) -> Iterator[list[Unit]]:
    """The pieces of a graph, those that can be done together as one list; each after what it waits for."""
    ranked = _Ranked(units, units.all)
    ranked = _Ranked(units, _parted(units, ranked))
    return _scheduled(units, ranked)


class _Ranked:
    """Pieces with their kinds and ranks.

    Args:
        units: the graph.
        pieces: what it does, in order.
    """

    def __init__(self, units: Units, pieces: Sequence[Unit]) -> None:
        self.pieces = pieces
        kinds = _kinds(units, pieces)
        counts = Counter(kinds.values())
        columns = {kind: i for i, kind in enumerate(kind for kind, count in counts.items() if count >= FEWEST_TURNS)}
        self._columns = {node: columns[kind] for node, kind in kinds.items() if kind in columns}
        self._rows: dict[fx.Node, np.ndarray] = {}
        none = np.zeros(len(columns), np.int32)
        for unit in pieces:
            known = [self._rows[source] for source in units.waits_for(unit) if source in self._rows]
            row = np.maximum.reduce(known) if len(known) > 1 else known[0] if known else none
            if unit.node in self._columns:
                row = row.copy()
                row[self._columns[unit.node]] += 1
            self._rows[unit.node] = row

    def waits_for_its_like(self, unit: Unit) -> bool:
        """Whether some of its kind have to be done before it."""
        return unit.node in self._columns and self._rows[unit.node][self._columns[unit.node]] > 1

    def is_free_of(self, node: fx.Node, unit: Unit) -> bool:
        """Whether a result waits for none of the kind of a piece."""
        return node not in self._rows or not self._rows[node][self._columns[unit.node]]

    def groups(self) -> list[list[Unit]]:
        """Pieces of one kind and rank, those that stand alone too."""
        found: dict[Hashable, list[Unit]] = {}
        for unit in self.pieces:
            column = self._columns.get(unit.node)
            key: Hashable = unit.node if column is None else (column, int(self._rows[unit.node][column]))
            found.setdefault(key, []).append(unit)
        return list(found.values())


def _parted(units: Units, ranked: _Ranked) -> list[Unit]:
    """The pieces, each sum that waits for its like parted into what waits and what does not.

    So the gradient of a state, the sum of what comes back through the next state and of what log-densities add to it,
    keeps one addition for each state, and the others are done for all states at once.
    """
    scratch, found = fx.Graph(), list[Unit]()
    for unit in ranked.pieces:
        if unit.summands and ranked.waits_for_its_like(unit):
            free = [each for each in unit.summands if ranked.is_free_of(each[0], unit)]
            if 2 <= len(free) < len(unit.summands) and not free[0][1]:
                part = scratch.call_function(aten.add.Tensor)
                part.meta["form"] = unit.node.meta["form"]
                rest = tuple(each for each in unit.summands if each not in free)
                found.append(Unit(part, tuple(free)))
                unit = Unit(unit.node, ((part, False), *rest))
        found.append(unit)
    return found


def _kinds(units: Units, pieces: Sequence[Unit]) -> dict[fx.Node, int]:
    """A number for each piece that can be done with others; those that share it are alike."""
    numbers: dict[Hashable, int] = {}

    def numbered(key: Hashable) -> int:
        return numbers.setdefault(key, len(numbers))

    given = {unit.node: units.given(unit) for unit in pieces}
    colors = {unit.node: numbered((unit.node.target, len(unit.summands), _form(unit.node))) for unit in pieces}
    for _ in range(LOOK_BACK):
        before = dict(colors)
        for node, sources in given.items():
            colors[node] = numbered((before[node], *(before.get(source, source) for source in sources)))
    return {unit.node: numbered((colors[unit.node], _frame(unit))) for unit in pieces if _can_join(units, unit)}


def _frame(unit: Unit) -> Hashable:
    """What an operation is handed beside tensors, and the form of these."""

    def frame(value: Any) -> Hashable:
        if isinstance(value, fx.Node):
            return _form(value)
        if isinstance(value, (list, tuple)):
            return tuple(map(frame, value))
        return type(value), repr(value)

    if unit.summands:
        return tuple(is_taken for _, is_taken in unit.summands)
    return frame(unit.node.args), tuple((name, frame(value)) for name, value in unit.node.kwargs.items())


def _form(node: fx.Node) -> Hashable:
    form = node.meta.get("form")
    return (form.shape, form.dtype) if isinstance(form, Form) else None


def _can_join(units: Units, unit: Unit) -> bool:
    """Whether a piece can be done together with others."""
    node = unit.node
    if units.is_fixed(node) or node in units.known.leaving or node.meta["form"].num_bytes > MOST_BYTES:
        return False
    if unit.summands:
        return True
    if rule_of(node.target) is None or any(isinstance(value, fx.Node) for value in node.kwargs.values()):
        return False
    sources = units.given(unit)
    forms = [form for source in sources if isinstance(form := source.meta.get("form"), Form)]
    if not forms or len(forms) < len(sources):
        return False
    mixed = forms[1:] if node.target is aten.where.self else forms
    return len({form.dtype for form in mixed}) < 2  # a single number of another type counts less than a stack of them


def _scheduled(units: Units, ranked: _Ranked) -> Iterator[list[Unit]]:
    """The pieces, a group at once when all of it can be done; what stands alone as soon as it can be."""
    groups = ranked.groups()
    group_of = {unit.node: i for i, group in enumerate(groups) for unit in group}
    position = {unit.node: i for i, unit in enumerate(ranked.pieces)}
    waiting, next_ones = dict[fx.Node, int](), dict[fx.Node, list[Unit]]()
    for unit in ranked.pieces:
        needs = [source for source in units.waits_for(unit) if source in group_of]
        waiting[unit.node] = len(needs)
        for source in needs:
            next_ones.setdefault(source, []).append(unit)
    ready: list[list[Unit]] = [[] for _ in groups]
    left = [len(group) for group in groups]
    whole: list[tuple[bool, int, int]] = []  # groups all of which can be done, single pieces first
    begun: set[int] = set()

    def is_ready(unit: Unit) -> None:
        i = group_of[unit.node]
        ready[i].append(unit)
        begun.add(i)
        if len(ready[i]) == left[i]:
            heapq.heappush(whole, (left[i] > 1, position[unit.node], i))

    for unit in ranked.pieces:
        if not waiting[unit.node]:
            is_ready(unit)
    while begun:  # where groups wait for one another, the fullest is done in parts
        i = heapq.heappop(whole)[2] if whole else max(begun, key=lambda i: (len(ready[i]), -i))
        done, ready[i] = sorted(ready[i], key=lambda unit: position[unit.node]), []
        left[i] -= len(done)
        begun.discard(i)
        yield done
        for unit in done:
            for each in next_ones.get(unit.node, ()):
                waiting[each.node] -= 1
                if not waiting[each.node]:
                    is_ready(each)
