"""A recorded graph as a Python function that calls torch's kernels, one after another.

``torch.ops`` finds an operation by a chain of attributes and reads its schema at each call, which takes as long as a
small kernel.  Here each operation is bound once: common ones to what ``torch`` itself offers under their name, which
parses its arguments in half the time, and all others to the function behind the overload.  The kernels, and so the
numbers, are the same.  A value is let go after its last use, as in the program, and what is known before a run is
computed once (see ``redundancy``).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from pyro_vae.compiled.forms import Form
from pyro_vae.compiled.redundancy import Redundancy
from pyro_vae.compiled.scripting import FEWEST_OPERATIONS, Stretch, as_written

aten = torch.ops.aten
_ELEMENTWISE = "exp log log1p sqrt rsqrt neg abs sigmoid tanh relu reciprocal lgamma digamma sign sin cos"
_BINARY = "add sub mul div eq ne gt lt ge le"
_BY_NAME = {
    **{getattr(aten, name).default: getattr(torch, name) for name in _ELEMENTWISE.split()},
    **{getattr(aten, name).Tensor: getattr(torch, name) for name in _BINARY.split()},
    **{getattr(aten, name).Scalar: getattr(torch, name) for name in "eq ne gt lt ge le".split()},
    **{getattr(aten, name).default: getattr(torch, name) for name in "mm addmm bmm t maximum minimum".split()},
    **{getattr(aten, name).default: getattr(Tensor, name) for name in "expand view permute unsqueeze".split()},
    aten.pow.Tensor_Scalar: torch.pow,
    aten.select.int: torch.select,
    aten.squeeze.dim: torch.squeeze,
    aten.sum.default: torch.sum,
    aten.sum.dim_IntList: torch.sum,
    aten.transpose.int: torch.transpose,
    aten.where.self: torch.where,
}


def replay(
    graph: fx.GraphModule, memory: Sequence[Hashable] | None = None
) -> Callable[[Sequence[Tensor]], tuple[Tensor, ...]]:
    """A function of the graph's inputs that does what the graph holds.

    Args:
        graph: of operations alone, with a tuple of tensors as its output.
        memory: for each of its inputs what stands for its memory; None where any may be views of one another.
    """
    writer = _Writer(graph, memory)
    source = writer.write(graph.graph.nodes)
    space = writer.space
    exec(compile(source, f"<{len(graph.graph.nodes)} operations>", "exec"), space)
    function: Callable[[Sequence[Tensor]], tuple[Tensor, ...]] = space["run"]

    def run(values: Sequence[Tensor]) -> tuple[Tensor, ...]:
        with as_written():
            return function(values)

    return run


class _Writer:
    """Writes the function, and collects what it calls."""

    def __init__(self, graph: fx.GraphModule, memory: Sequence[Hashable] | None) -> None:
        self.space: dict[str, Any] = {}
        self._known = Redundancy(graph, memory)
        self._graph = graph
        self._names: dict[fx.Node, str] = {}
        self._lines: list[str] = []
        self._last: dict[fx.Node, fx.Node] = {}
        self._scripted = _on_cpu(graph) and not torch.is_autocast_enabled("cpu")

    def write(self, nodes: Iterable[fx.Node]) -> str:
        """The source of the function."""
        left_out = {**self._known.constants, **self._known.same_as}
        nodes = [node for node in nodes if node not in left_out]
        self._last = {source: node for node in nodes for source in self._sources(node)}
        inputs = []
        stretch = Stretch(self._value)
        for node in nodes:
            if node.op == "placeholder":
                inputs.append(self._name(node))
            elif node.op == "get_attr":
                self._names[node] = self._bound(getattr(self._graph, str(node.target)))
            elif node in stretch.nodes or node in self._names:  # a part of a result
                continue
            elif not (self._scripted and node.op == "call_function" and stretch.take(node)):
                self._write_stretch(stretch)
                stretch = Stretch(self._value)
                self._write_node(node)
        head = f"({''.join(f'{name}, ' for name in inputs)}) = values"
        body = "\n    ".join([head, *self._lines] if inputs else self._lines)
        return f"def run(values):\n    {body}\n"

    def _write_stretch(self, stretch: Stretch) -> None:
        if sum(node.target is not operator.getitem for node in stretch.nodes) < FEWEST_OPERATIONS:
            for node in stretch.nodes:
                self._write_node(node)
            return
        outputs = [node for node in stretch.made() if self._last.get(node) not in stretch.nodes]
        given = ", ".join(self._names[node] for node in stretch.inputs)
        made = "".join(f"{self._name(node)}, " for node in outputs)
        self._lines.append(f"({made}) = {self._bound(stretch.function(outputs))}({given})")
        self._let_go([*stretch.inputs, *outputs], stretch.nodes)

    def _write_node(self, node: fx.Node) -> None:
        if node.op == "output":
            self._lines.append(f"return ({''.join(f'{self._written(value)}, ' for value in node.args[0])})")  # type: ignore[union-attr]
            return
        called = self._called(node)
        self._lines.append(f"{self._name(node)} = {called}")
        self._let_go([*self._sources(node), node], (node,))

    def _let_go(self, candidates: Iterable[fx.Node], at: Collection[fx.Node]) -> None:
        """Delete what nobody reads after some nodes."""
        spent = [node for node in candidates if node not in self._last or self._last[node] in at]
        names = [name for node in spent if (name := self._names[node]) not in self.space]
        if names:
            self._lines.append(f"del {', '.join(dict.fromkeys(names))}")

    def _name(self, node: fx.Node) -> str:
        return self._names.setdefault(node, f"v{len(self._names)}")

    def _value(self, node: fx.Node) -> fx.Node | Tensor:
        """Whose value a node has, or which."""
        source = self._known.stands_for(node)
        return self._known.constants.get(source, source)

    def _sources(self, node: fx.Node) -> list[fx.Node]:
        """What an operation reads that is made in a run."""
        sources = dict.fromkeys(map(self._known.stands_for, node.all_input_nodes))
        return [source for source in sources if source not in self._known.constants]

    def _called(self, node: fx.Node) -> str:
        target: Any = node.target
        function = _BY_NAME.get(target) if isinstance(node.args[0] if node.args else None, fx.Node) else None
        if function is None:
            function = getattr(target, "_op", target)
        arguments = [self._written(value) for value in node.args]
        arguments += [f"{key}={self._written(value)}" for key, value in node.kwargs.items()]
        return f"{self._bound(function)}({', '.join(arguments)})"

    def _written(self, value: Any) -> str:
        """A value as it stands in the source."""
        if isinstance(value, fx.Node):
            source = self._known.stands_for(value)
            if source in self._known.constants and source not in self._names:
                self._names[source] = self._bound(self._known.constants[source])
            return self._names[source]
        if value is None or type(value) in (bool, int):
            return repr(value)
        if isinstance(value, (list, tuple)):
            return f"[{', '.join(map(self._written, value))}]"
        return self._bound(value)

    def _bound(self, value: Any) -> str:
        name = f"c{len(self.space)}"
        self.space[name] = value
        return name


def _on_cpu(graph: fx.GraphModule) -> bool:
    forms = [node.meta.get("form") for node in graph.graph.nodes if node.op == "placeholder"]
    return all(isinstance(form, Form) and form.device.type == "cpu" for form in forms)
