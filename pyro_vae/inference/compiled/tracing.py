"""One run of a function of tensors, recorded as a graph.

``record`` runs a function once on real tensors and writes down every tensor operation, those of its backward pass too.
Python itself leaves no trace: effect handlers, traces and distributions are gone from the graph, and so is any choice
that Python made on the way.  A choice that depends on the *value* of a tensor would therefore be frozen, so a program
that makes one is refused, with its reason.  Three things make Pyro's own estimators, unchanged, pass:

- ``x.item()`` of a traced number gives the number as a tensor, without gradient;
- ``loss.backward()`` collects the gradients instead of writing them to the parameters;
- the two questions that Pyro's own code asks of values have an answer that is right whatever the values are.

Tensors are inputs by identity: whatever the function reaches them through, a module, the parameter store or a closure,
operations on the very objects that ``record`` was given are operations on its inputs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

import torch
from pyro import util as pyro_util
from pyro.infer.util import Dice
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import (
    disable_proxy_modes_tracing,
    get_proxy_mode,
    get_proxy_slot,
    make_fx,
)
from torch.overrides import TorchFunctionMode

# Pyro warns of values that are no numbers; a caller of a compiled graph looks at what comes out.  Dice leaves out terms
# of probability 0 where there are any: leaving them out, by a mask, is right where there are none, too.
_ANSWERS: dict[CodeType, bool] = {pyro_util.warn_if_nan.__code__: False, Dice.compute_expectation.__code__: False}
_VALUES = {
    Tensor.__bool__: "a choice",
    Tensor.__int__: "a whole number",
    Tensor.__index__: "an index or a size",
    Tensor.__float__: "a number",
    Tensor.__contains__: "a choice",
    Tensor.tolist: "a list",
    Tensor.numpy: "an array",
    Tensor.__array__: "an array",
}
_LITERALS = (torch.ops.aten.lift_fresh_copy.default, torch.ops.aten.lift_fresh.default)


class Untraceable(Exception):
    """A function cannot be recorded; the text says why."""


@dataclass(frozen=True)
class Recording:
    """What a run did to tensors.

    Args:
        graph: a module that takes the inputs and the held tensors, flat, and returns the outputs, a flat tuple.
        held: tensors that the function met and that are none of its inputs, by reference.
        results: what the function itself returned.
        gradients: of the tensors asked for, None for one that the result does not depend on; in the graph's outputs
            those that are there follow the results.
    """

    graph: fx.GraphModule
    held: list[Tensor]
    results: list[Tensor]
    gradients: list[Tensor | None]


def record(
    function: Callable[[], Sequence[Tensor]], inputs: Sequence[Tensor], differentiate: Sequence[Tensor] = ()
) -> Recording:
    """Run a function once and record what it did.

    The run is real: noise is drawn, what is changed in place stays changed, and the results are there to be used.

    Args:
        function: takes no arguments, reads the inputs by identity, and returns tensors.
        inputs: the tensors whose values may differ in later runs.
        differentiate: of these, what ``backward`` inside the function collects the gradients of.

    Raises:
        Untraceable: if Python asked for the value of a tensor, or the shape of one depends on values.
    """
    mode = _Recording(list(differentiate))
    results: list[Tensor] = []

    def run(*_: Tensor) -> tuple[Tensor, ...]:
        with mode:
            results.extend(torch.as_tensor(result).detach() for result in function())
        return (*results, *(gradient for gradient in mode.gradients if gradient is not None))

    graph = make_fx(run)(*inputs)
    _refuse_varying_shapes(graph)
    return Recording(graph, _lift(graph), results, mode.gradients)


class _Recording(TorchFunctionMode):
    """Answers what cannot be recorded."""

    def __init__(self, differentiate: list[Tensor]) -> None:
        super().__init__()
        self.differentiate = differentiate
        self.gradients: list[Tensor | None] = [None] * len(differentiate)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.item:
            return args[0].detach() if _varies(args[0]) else _constant(func, args, kwargs)
        if func is Tensor.backward:
            return self._collect(*args, **kwargs)
        if (
            func is Tensor.register_hook
            and getattr(args[1], "__code__", None) in pyro_util.warn_if_nan.__code__.co_consts
        ):
            return None  # the same look at values, on gradients
        if func is Tensor.masked_select and _asking().f_code in _ANSWERS:
            value, mask = args
            return torch.where(mask, value, value.new_zeros(()))
        if func is nn.functional.one_hot and _num_classes(*args, **kwargs) > 0:
            return _one_hot(args[0], _num_classes(*args, **kwargs))
        if func in _VALUES:
            return _value(func, args, kwargs, _asking())
        return func(*args, **kwargs)

    def _collect(self, loss: Tensor, gradient: Tensor | None = None, **options: Any) -> None:
        retain_graph = options.get("retain_graph")
        found = torch.autograd.grad(loss, self.differentiate, gradient, retain_graph, allow_unused=True)
        for i, (old, new) in enumerate(zip(self.gradients, found, strict=True)):
            if new is not None:
                self.gradients[i] = new if old is None else old + new


def _asking() -> FrameType:
    """The frame whose code calls torch, behind this mode and any other."""
    frame = sys._getframe(2)
    while frame.f_code.co_name == "__torch_function__" and frame.f_back is not None:
        frame = frame.f_back
    return frame


def _num_classes(labels: Tensor, num_classes: int = -1) -> int:
    return num_classes


def _one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """An indicator vector, of nothing for a label that is no class, where torch's own would look at every label."""
    return (labels.unsqueeze(-1) == torch.arange(num_classes, device=labels.device)).long()


def _value(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], asking: FrameType) -> Any:
    if asking.f_code in _ANSWERS:
        return _ANSWERS[asking.f_code]
    if any(isinstance(arg, Tensor) and _varies(arg) for arg in args):
        place = f"{asking.f_code.co_filename.rsplit('/', 1)[-1]}, line {asking.f_lineno}"
        raise Untraceable(f"{_VALUES[func]} in Python depends on the value of a tensor ({place})")
    return _constant(func, args, kwargs)


def _constant(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    with disable_proxy_modes_tracing():
        return func(*args, **kwargs)


def _varies(tensor: Tensor) -> bool:
    """Whether the value of a tensor can differ from run to run: all but what was made of constants alone."""
    mode = get_proxy_mode()
    slot = None if mode is None else get_proxy_slot(tensor, mode.tracer, None)
    if slot is None:
        return True
    seen: set[fx.Node] = set()
    ahead = [slot.proxy.node]
    while ahead:
        node = ahead.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.op in ("placeholder", "get_attr") and not _is_literal(node):
            return True
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            return True
        ahead.extend(node.all_input_nodes)
    return False


def _is_literal(node: fx.Node) -> bool:
    """Whether a tensor that the graph holds was written out in the program, ``torch.tensor(0.5)`` say."""
    return node.op == "get_attr" and all(user.target in _LITERALS for user in node.users)


def _refuse_varying_shapes(graph: fx.GraphModule) -> None:
    for node in graph.graph.nodes:
        if torch.Tag.dynamic_output_shape not in getattr(node.target, "tags", ()):
            continue
        if node.target in (torch.ops.aten.index.Tensor, torch.ops.aten.index_put.default):
            indices = [index for index in node.args[1] if isinstance(index, fx.Node)]
            if not any(_dtype(index) in (torch.bool, torch.uint8) for index in indices):
                continue
        raise Untraceable(f"the shape of what {node.target} returns depends on values")


def _dtype(node: fx.Node) -> torch.dtype | None:
    value = node.meta.get("val")
    return None if value is None else value.dtype


def _lift(graph: fx.GraphModule) -> list[Tensor]:
    """Make the tensors that the graph holds inputs of it, at the end, so that it always sees them as they are."""
    held: list[Tensor] = []
    places: dict[str, fx.Node] = {}
    last = [node for node in graph.graph.nodes if node.op == "placeholder"][-1:]
    for node in list(graph.graph.nodes):
        if node.op != "get_attr" or _is_literal(node):
            continue
        if node.target not in places:
            with graph.graph.inserting_after(last[0]) if last else graph.graph.inserting_before():
                places[node.target] = graph.graph.placeholder(f"held_{len(held)}")
            last = [places[node.target]]
            held.append(getattr(graph, node.target))
            places[node.target].meta["val"] = held[-1].detach()
        node.replace_all_uses_with(places[node.target])
        graph.graph.erase_node(node)
    graph.graph.lint()
    graph.recompile()
    return held
