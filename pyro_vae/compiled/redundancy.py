"""Operations of a recorded graph that a replay need not repeat: a fifth to a third of those of Pyro's examples.

Pyro builds the same constants at each step, torch's backward pass computes parts of the forward pass again, and
autograd leaves an alias wherever it kept a value.  What reads memory that the graph writes to is the same as another
operation where nothing is written between the two.  Nothing that leaves the graph is shared: whoever gets a gradient
may write to it.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from pyro_vae.compiled.forms import Form
from pyro_vae.compiled.inlining import is_view
from pyro_vae.compiled.snapshot import written

aten = torch.ops.aten
_THE_SAME = (aten.alias.default, aten.detach.default)  # of their input, where nothing is differentiated
MOST_BYTES = 2**20  # of a constant that is kept
MOST_WRITTEN_OUT = 16  # numbers of a constant that is told from others by them
_RESHAPING = tuple("squeeze_ unsqueeze_ t_ transpose_ swap resize set_ as_strided_ rename_".split())
_SHARED_UNSAID = ("unsafe_", "_unsafe_", "lift", "set_")  # how names of operations begin whose results are views unsaid
_OF_FORM = tuple(  # what these give depends on the form of their first argument, and not on its values
    getattr(aten, name).default for name in "new_zeros new_ones new_full zeros_like ones_like full_like".split()
)
_UNFILLED = ("empty", "new_empty")  # how the names of operations begin whose results are not defined
_AMONG_PROCESSES = ("c10d", "_c10d_functional", "pyro_vae_distributed")  # namespaces of operations that others wait for


class Redundancy:
    """What of a graph's operations is known before it runs.

    Args:
        graph: of operations alone.
        memory: for each of its inputs what stands for its memory; None where any may be views of one another.

    Attributes:
        constants: the values of operations that depend on no input.
        same_as: operations that give what an earlier one gave.
        in_place: the operations whose results lie in memory that is written to, each with one that stands for all that
            may share this memory.
        unsettled: the operations that write, or read what is written to later.
        leaving: the operations whose memory leaves the graph.
    """

    def __init__(self, graph: fx.GraphModule, memory: Sequence[Hashable] | None = None) -> None:
        self.constants: dict[fx.Node, Any] = {}
        self.same_as: dict[fx.Node, fx.Node] = {}
        nodes = list(graph.graph.nodes)
        self.leaving, self.in_place = _leaving(nodes), _in_place(nodes, memory)
        self.unsettled = _unsettled(nodes, self.in_place)
        self._first = dict[Hashable, fx.Node]()
        self._writes = Counter[fx.Node]()  # so far, to each memory
        with torch.no_grad():
            for node in nodes:
                changed = writes(node)
                if node.op == "get_attr" and node not in self.in_place:
                    self.constants[node] = getattr(graph, str(node.target))
                elif node.op == "call_function" and not changed and node not in self.leaving and not is_made_anew(node):
                    self._look(node)
                self._writes.update(self.in_place[each] for each in changed)

    def stands_for(self, node: fx.Node) -> fx.Node:
        """The operation whose result is to be taken."""
        return self.same_as.get(node, node)

    def _look(self, node: fx.Node) -> None:
        if node.target in _THE_SAME:
            if not _is_reshaped(node):
                self.same_as[node] = self.stands_for(node.args[0])  # type: ignore[arg-type]
        elif node in self.in_place:
            if is_view(node):
                self._compare(node)
        elif not self._keep(node):
            self._compare(node)

    def _keep(self, node: fx.Node) -> bool:
        """Keep a result that depends on nothing that a run is given, if it is small; says whether it is kept."""
        if _is_of_form(node):
            value = self._of_form(node)
        elif all(self.stands_for(source) in self.constants for source in node.all_input_nodes):
            value = self._value(node)
        else:
            return False
        if isinstance(value, Tensor) and value.untyped_storage().nbytes() > MOST_BYTES:
            return False
        same = self._first.setdefault(_written_out(value), node) if _is_small(value) else node
        if same is node:
            self.constants[node] = value
        else:
            self.same_as[node] = same
        return True

    def _compare(self, node: fx.Node) -> None:
        if any(user.target is operator.getitem for user in node.users):
            return  # the first of two may not have given all parts of its result
        read = tuple(self._writes[self.in_place[each]] for each in node.all_input_nodes if each in self.in_place)
        key = (node.target, self._key(node.args), self._key(node.kwargs), read)
        found = self._first.setdefault(key, node)
        if found is not node:
            self.same_as[node] = found

    def _value(self, node: fx.Node) -> Any:
        def known(source: fx.Node) -> Any:
            return self.constants[self.stands_for(source)]

        args, kwargs = fx.map_arg((node.args, node.kwargs), known)
        return node.target(*args, **kwargs)  # type: ignore[operator]

    def _of_form(self, node: fx.Node) -> Any:
        shape, strides, dtype, device = node.args[0].meta["form"]  # type: ignore[union-attr]
        like = torch.empty_strided(shape, strides, dtype=dtype, device=device)
        return node.target(like, *node.args[1:], **node.kwargs)  # type: ignore[operator]

    def _key(self, value: Any) -> Hashable:
        if isinstance(value, fx.Node):
            return self.stands_for(value)
        if isinstance(value, (list, tuple)):
            return tuple(map(self._key, value))
        if isinstance(value, dict):
            return tuple((name, self._key(entry)) for name, entry in value.items())
        return type(value), repr(value)  # 1, 1.0 and True are not the same


def _is_reshaped(alias: fx.Node) -> bool:
    """Whether a tensor, or what is an alias of it, changes its shape in place, which the other does not see."""
    users = [*alias.users, *alias.args[0].users]  # type: ignore[union-attr]
    return any(getattr(user.target, "_opname", "").startswith(_RESHAPING) for user in users)


def _is_small(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout is torch.strided and value.numel() <= MOST_WRITTEN_OUT


def _written_out(value: Tensor) -> Hashable:
    """A constant by its numbers, to the bit."""
    dense = value.resolve_conj().resolve_neg().clone(memory_format=torch.contiguous_format)
    numbers = dense.reshape(-1).view(torch.uint8)
    return value.shape, value.stride(), value.dtype, value.device, bytes(numbers.tolist())


def _leaving(nodes: Sequence[fx.Node]) -> set[fx.Node]:
    """The operations whose memory leaves the graph: its outputs, and what they are views of."""
    ahead = [source for node in nodes if node.op == "output" for source in node.all_input_nodes]
    found: set[fx.Node] = set()
    while ahead:
        node = ahead.pop()
        if node not in found:
            found.add(node)
            if _may_share(node):
                ahead.extend(node.all_input_nodes)
    return found


def _in_place(nodes: Sequence[fx.Node], memory: Sequence[Hashable] | None) -> dict[fx.Node, fx.Node]:
    """The operations whose results lie in memory that some operation writes to, before or after them.

    Where nothing is said of the inputs they may be views of one another: a write to one of them counts as one to all.
    """
    owner: dict[fx.Node, fx.Node] = {}
    first_in: dict[Hashable, fx.Node] = {}

    def whose(node: fx.Node) -> fx.Node:
        while node in owner:
            node = owner[node]
        return node

    def share(node: fx.Node, other: fx.Node) -> None:
        if (first := whose(node)) is not (second := whose(other)):
            owner[first] = second

    if memory is None:
        outside = [node for node in nodes if node.op in ("placeholder", "get_attr")]
        memory = [None] * len(outside)
    else:
        outside = [node for node in nodes if node.op == "placeholder"]
    for node, place in zip(outside, memory, strict=True):
        share(node, first_in.setdefault(place, node))
    changed: list[fx.Node] = []
    for node in nodes:
        if node.op == "call_function":
            written_to = writes(node)
            changed.extend(written_to)
            for source in node.all_input_nodes if _may_share(node) else written_to:
                share(node, source)
    roots = {whose(node) for node in changed}
    return {node: root for node in nodes if (root := whose(node)) in roots}


def _unsettled(nodes: Sequence[fx.Node], in_place: Mapping[fx.Node, fx.Node]) -> set[fx.Node]:
    """The operations that are to stay in order with others on the same memory."""
    found, open_memory = set[fx.Node](), set[fx.Node]()
    for node in reversed(nodes):
        open_memory.update(in_place[written] for written in writes(node))
        if any(in_place.get(each) in open_memory for each in (node, *node.all_input_nodes)):
            found.add(node)
    return found


def writes(node: fx.Node) -> list[fx.Node]:
    """What an operation writes to."""
    if not hasattr(node.target, "_schema"):
        return []
    return [value for value in written(node.target, node.args, node.kwargs) if isinstance(value, fx.Node)]


def _may_share(node: fx.Node) -> bool:
    """Whether the result may lie in the memory of an input."""
    unsaid = getattr(node.target, "_opname", "").startswith(_SHARED_UNSAID)
    return is_view(node) or unsaid or not hasattr(node.target, "_schema")


def _is_of_form(node: fx.Node) -> bool:
    """Whether the result depends on nothing but the form of an input, which is small."""
    if node.target not in _OF_FORM or len(node.all_input_nodes) > 1:
        return False
    form, made = node.all_input_nodes[0].meta.get("form"), node.meta.get("form")
    return isinstance(form, Form) and isinstance(made, Form) and max(form.num_bytes, made.num_bytes) <= MOST_BYTES


def is_made_anew(node: fx.Node) -> bool:
    """Whether each run has to make it: its results are drawn, are not defined, or are waited for by other processes."""
    name = getattr(node.target, "_opname", "")
    if getattr(node.target, "namespace", "") in _AMONG_PROCESSES:
        return True
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()) or name.startswith(_UNFILLED)
