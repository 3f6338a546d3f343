"""Stretches of a recorded graph as functions of TorchScript's interpreter.

Python takes a microsecond or two to hand an operation its arguments, as long as many of its kernels take; the
interpreter of TorchScript, which is C++, takes a third of that.  A stretch calls the overloads of the graph on the same
arguments in the same order, so it draws the same noise and gives the same numbers, to the bit: nothing is fused, moved
or left out.

What cannot be said to that interpreter ends a stretch, and is called from Python: operations of Python's own,
generators, complex numbers, and what raises errors of a kind of its own, which the interpreter would make runtime
errors.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from pyro_vae.compiled.forms import Form

FEWEST_OPERATIONS = 3  # operations that are worth a call
_APART = tuple(  # how the names of operations begin that end a stretch
    "_linalg linalg cholesky index gather take embedding nll_loss _assert item equal _local_scalar set_ resize _sparse "
    "nonzero masked_select".split()
)
_FORMATS = {torch.contiguous_format: 0, torch.preserve_format: 1, torch.channels_last: 2, torch.channels_last_3d: 3}
_TENSOR, _INT = torch._C.TensorType.get(), torch._C.IntType.get()

Known = Callable[[fx.Node], fx.Node | Tensor]


class Unsayable(Exception):
    """An operation or an argument that TorchScript does not know."""


class _Signature(NamedTuple):
    """An operation as TorchScript knows it: arguments by name, type and default, and what it may be called."""

    name: str
    arguments: list[tuple[str, str, Any]]
    returns: list[str]
    overloads: set[str]


@functools.cache
def _signature(target: Any) -> _Signature | None:
    """How an operation is called; None for one that ends a stretch."""
    schema = getattr(target, "_schema", None)
    if schema is None or target.namespace != "aten" or target._opname.startswith(_APART):
        return None
    returns = [str(each.type) for each in schema.returns]
    if returns != ["List[Tensor]"] and set(returns) != {"Tensor"}:
        return None
    arguments = [(each.name, str(each.type), each.default_value) for each in schema.arguments]
    overloads = {schema.name + suffix for suffix in _overloads(target._overloadname)}
    return _Signature(schema.name, arguments, returns, overloads)


class Stretch:
    """Operations one after another, built up by ``take``.

    Args:
        known: what the value of a node is: that of another node, or a constant.

    Attributes:
        nodes: the operations that it holds, and the parts of their results.
        inputs: what is made before it, in the order of the function's arguments.
    """

    def __init__(self, known: Known) -> None:
        self.nodes: dict[fx.Node, None] = {}
        self.inputs: list[fx.Node] = []
        self._known = known
        self._graph: Any = torch._C.Graph()  # its stubs lack constants
        self._values: dict[fx.Node, Any] = {}

    def take(self, node: fx.Node) -> bool:
        """Add an operation, if it can be said."""
        try:
            said = self._say(node)
        except (Unsayable, RuntimeError, TypeError, ValueError, LookupError):
            return False
        self.nodes |= dict.fromkeys((node, *said))
        self._values |= said
        return True

    def made(self) -> list[fx.Node]:
        """The nodes whose values it makes."""
        return [node for node in self.nodes if node in self._values]

    def function(self, outputs: Sequence[fx.Node]) -> Callable[..., tuple[Tensor, ...]]:
        """What gives the values of some of its nodes, from those of its inputs."""
        values = [self._values[node] for node in outputs]
        together = self._graph.insertNode(self._graph.create("prim::TupleConstruct", values, 1)).output()
        together.setType(torch._C.TupleType([_TENSOR] * len(values)))
        self._graph.registerOutput(together)
        function: Callable[..., tuple[Tensor, ...]] = torch._C._create_function_from_graph("stretch", self._graph)
        return function

    def _say(self, node: fx.Node) -> dict[fx.Node, Any]:
        """The values of an operation, which is inserted: of itself, or of the parts of its result."""
        signature = _signature(node.target)
        if signature is None:
            raise Unsayable
        kinds = signature.returns
        if kinds != ["Tensor"] and any(part.target is not operator.getitem for part in node.users):
            raise Unsayable
        given = dict(zip((name for name, _, _ in signature.arguments), node.args, strict=False)) | node.kwargs
        said = [self._argument(kind, given.get(name, default)) for name, kind, default in signature.arguments]
        call = self._graph.insertNode(self._graph.create(signature.name, said, len(kinds)))
        if call.schema().split("(")[0] not in signature.overloads:
            call.destroy()
            raise Unsayable
        if kinds == ["List[Tensor]"]:
            call.output().setType(torch._C.ListType(_TENSOR))
            parts = self._graph.create("prim::ListUnpack", [call.output()], len(node.meta["form"]))
            call = self._graph.insertNode(parts)
        outputs = list(call.outputs())
        for output in outputs:
            output.setType(_TENSOR)
        if kinds == ["Tensor"]:
            return {node: outputs[0]}
        return {part: outputs[part.args[1]] for part in node.users}  # type: ignore[index]

    def _argument(self, kind: str, value: Any) -> Any:
        """A value as the interpreter takes it."""
        if isinstance(value, fx.Node):
            return self._value(self._known(value))
        if kind.startswith("Optional[") and value is not None:
            return self._argument(kind[len("Optional[") : -1], value)
        if kind == "List[int]" and value and all(type(each) is int for each in _listed(value)):
            return self._graph.insertConstant(list(_listed(value)))
        if kind.startswith("List["):
            return self._list(kind[len("List[") : -1], value)
        if kind == "float":
            value = float(value)
        return self._graph.insertConstant(_FORMATS[value] if isinstance(value, torch.memory_format) else value)

    def _list(self, kind: str, value: Any) -> Any:
        types = {"int": _INT, "Tensor": _TENSOR, "Optional[Tensor]": torch._C.OptionalType(_TENSOR)}
        if kind not in types or not isinstance(value, (list, tuple)):
            raise Unsayable
        entries = [self._argument(kind, each) for each in value]
        made = self._graph.insertNode(self._graph.create("prim::ListConstruct", entries, 1)).output()
        made.setType(torch._C.ListType(types[kind]))
        return made

    def _value(self, value: fx.Node | Tensor) -> Any:
        if not isinstance(value, fx.Node):
            return self._graph.insertConstant(value)
        if value not in self._values:
            if value.op == "call_function" and not isinstance(value.meta.get("form"), Form):
                raise Unsayable
            self._values[value] = self._graph.addInput()
            self._values[value].setType(_TENSOR)
            self.inputs.append(value)
        return self._values[value]


@contextmanager
def as_written() -> Iterator[None]:
    """Let TorchScript run functions as they were written, and give errors as torch gives them to Python."""
    before = torch._C._get_graph_executor_optimize()
    torch._C._set_graph_executor_optimize(False)
    try:
        yield
    except RuntimeError as error:
        told = str(error).split("\nRuntimeError: ")
        raise (RuntimeError(told[-1].strip()) if len(told) > 1 else error) from None
    finally:
        torch._C._set_graph_executor_optimize(before)


def _overloads(name: str) -> tuple[str, ...]:
    """How the overloads may be called that do what one does; a number may stand where a tensor of one is made of it."""
    if name in ("Tensor", "Tensor_mode"):
        return f".{name}", f".{name.replace('Tensor', 'Scalar')}"
    return ("" if name == "default" else f".{name}",)


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else (value,)
