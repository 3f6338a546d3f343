"""Operations as they are done for many operands of one shape at once, stacked along a new first dimension.

What ``torch.vmap`` does to a function is done here to one operation of a recorded graph: the operands that differ come
as one tensor of shape (G, ...), those that are the same for all as they are, and the result has shape (G, ...).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import fx

from pyro_vae.compiled.forms import Form

aten = torch.ops.aten


class Operand(NamedTuple):
    """What an operation is given in the place of a tensor.

    Args:
        node: the tensor, or the stack of them.
        form: of one of them.
        is_stacked: whether it is a stack.
    """

    node: fx.Node
    form: Form
    is_stacked: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one of them."""
        return tuple(self.form.shape)


class Writer:
    """Writes operations on stacks into a graph.

    Args:
        graph: the graph.
        count: how many are stacked.
    """

    def __init__(self, graph: fx.Graph, count: int) -> None:
        self.graph, self.count = graph, count

    def __call__(self, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        """Write one operation."""
        return self.graph.call_function(target, args, kwargs)

    def stacked(self, operand: Operand) -> fx.Node:
        """The operand as a stack, repeated without a copy where it is the same for all."""
        if operand.is_stacked:
            return operand.node
        return self(aten.expand.default, operand.node, [self.count, *operand.shape])

    def aligned(self, operand: Operand, num_dims: int) -> fx.Node:
        """The operand so that it broadcasts against stacks of so many dimensions each."""
        missing = num_dims - len(operand.shape)
        if not operand.is_stacked or not missing:
            return operand.node
        return self(aten.reshape.default, operand.node, [self.count, *[1] * missing, *operand.shape])


Rule = Callable[..., fx.Node]
_RULES: dict[Any, Rule] = {}
_UNTAGGED = (aten.softplus_backward.default, aten.elu_backward.default, aten.leaky_relu_backward.default)


def rule_of(target: Any) -> Rule | None:
    """How an operation is done for many at once: a function of a writer, a form and the arguments; None if unknown.

    The form is that of a single result; operands stand where the arguments have tensors.
    """
    if target in _RULES:
        return _RULES[target]
    return functools.partial(_elementwise, target) if _is_elementwise(target) else None


@functools.cache
def _is_elementwise(target: Any) -> bool:
    schema = getattr(target, "_schema", None)
    if schema is None or schema.is_mutable or not (torch.Tag.pointwise in target.tags or target in _UNTAGGED):
        return False
    return [str(value.type) for value in schema.returns] == ["Tensor"] and schema.returns[0].alias_info is None


def _rule(*targets: Any) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        _RULES.update(dict.fromkeys(targets, rule))
        return rule

    return register


def _elementwise(target: Any, write: Writer, form: Form, *args: Any, **kwargs: Any) -> fx.Node:
    given = [write.aligned(each, len(form.shape)) if isinstance(each, Operand) else each for each in args]
    return write(target, *given, **kwargs)


@_rule(aten.mm.default)
def _mm(write: Writer, form: Form, a: Operand, b: Operand) -> fx.Node:
    if b.is_stacked:
        return write(aten.bmm.default, write.stacked(a), b.node)
    rows, inner = a.shape
    flat = write(aten.reshape.default, a.node, [write.count * rows, inner])
    return write(aten.reshape.default, write(aten.mm.default, flat, b.node), [write.count, rows, form.shape[1]])


@_rule(aten.addmm.default)
def _addmm(write: Writer, form: Form, bias: Operand, a: Operand, b: Operand) -> fx.Node:
    if bias.is_stacked or b.is_stacked or len(bias.shape) != 1:
        return write(aten.add.Tensor, _mm(write, form, a, b), write.aligned(bias, 2))
    rows, inner = a.shape
    flat = write(aten.reshape.default, a.node, [write.count * rows, inner])
    flat = write(aten.addmm.default, bias.node, flat, b.node)
    return write(aten.reshape.default, flat, [write.count, rows, form.shape[1]])


@_rule(aten.t.default)
def _t(write: Writer, form: Form, x: Operand) -> fx.Node:
    return write(aten.transpose.int, x.node, 1, 2) if len(form.shape) == 2 else x.node


@_rule(aten.view.default, aten._unsafe_view.default, aten.reshape.default)
def _view(write: Writer, form: Form, x: Operand, shape: Sequence[int]) -> fx.Node:
    return write(aten.reshape.default, x.node, [write.count, *form.shape])


@_rule(aten.expand.default)
def _expand(write: Writer, form: Form, x: Operand, shape: Sequence[int], **_: Any) -> fx.Node:
    return write(aten.expand.default, write.aligned(x, len(form.shape)), [write.count, *form.shape])


@_rule(aten.permute.default)
def _permute(write: Writer, form: Form, x: Operand, dims: Sequence[int]) -> fx.Node:
    return write(aten.permute.default, x.node, [0, *(dim % len(form.shape) + 1 for dim in dims)])


@_rule(aten.transpose.int)
def _transpose(write: Writer, form: Form, x: Operand, one: int, other: int) -> fx.Node:
    if not form.shape:
        return x.node
    return write(aten.transpose.int, x.node, one % len(form.shape) + 1, other % len(form.shape) + 1)


@_rule(aten.unsqueeze.default, aten.squeeze.dim, aten.squeeze.dims)
def _reshaped(write: Writer, form: Form, x: Operand, dims: Any) -> fx.Node:
    return write(aten.reshape.default, x.node, [write.count, *form.shape])


@_rule(aten.select.int)
def _select(write: Writer, form: Form, x: Operand, dim: int, index: int) -> fx.Node:
    return write(aten.select.int, x.node, dim % len(x.shape) + 1, index)


@_rule(aten.slice.Tensor)
def _slice(write: Writer, form: Form, x: Operand, dim: int = 0, *bounds: Any) -> fx.Node:
    return write(aten.slice.Tensor, x.node, dim % len(x.shape) + 1, *bounds)


@_rule(aten.cat.default)
def _cat(write: Writer, form: Form, parts: Sequence[Operand], dim: int = 0) -> fx.Node:
    return write(aten.cat.default, [*map(write.stacked, parts)], dim % len(form.shape) + 1)


@_rule(aten.clone.default, aten.contiguous.default)
def _clone(write: Writer, form: Form, x: Operand, **_: Any) -> fx.Node:
    return write(aten.clone.default, x.node)


@_rule(aten._to_copy.default)
def _to_copy(write: Writer, form: Form, x: Operand, **_: Any) -> fx.Node:
    return write(aten._to_copy.default, x.node, dtype=form.dtype, device=form.device)


@_rule(aten.alias.default, aten.detach.default)
def _the_same(write: Writer, form: Form, x: Operand) -> fx.Node:
    return x.node


@_rule(aten.sum.dim_IntList)
def _sum_along(
    write: Writer, form: Form, x: Operand, dims: Sequence[int] | None, keepdim: bool = False, **kwargs: Any
) -> fx.Node:
    num_dims = len(x.shape)
    if dims is None or not list(dims):
        dims = range(num_dims)
    if not num_dims:
        return x.node
    return write(aten.sum.dim_IntList, x.node, [dim % num_dims + 1 for dim in dims], keepdim, **kwargs)


@_rule(aten.mean.dim)
def _mean_along(
    write: Writer, form: Form, x: Operand, dims: Sequence[int] | None, keepdim: bool = False, **kwargs: Any
) -> fx.Node:
    total = _sum_along(write, form, x, dims, keepdim, **kwargs)
    return write(aten.div.Scalar, total, math.prod(x.shape) // max(math.prod(form.shape), 1))


@_rule(aten.sum.default)
def _sum(write: Writer, form: Form, x: Operand, **kwargs: Any) -> fx.Node:
    return write(aten.sum.dim_IntList, _flat(write, x), [1], False, **kwargs)


@_rule(aten._is_all_true.default, aten.all.default)
def _all(write: Writer, form: Form, x: Operand) -> fx.Node:
    return write(aten.all.dim, _flat(write, x), 1)


@_rule(aten.any.default, aten._is_any_true.default)
def _any(write: Writer, form: Form, x: Operand) -> fx.Node:
    return write(aten.any.dim, _flat(write, x), 1)


def _flat(write: Writer, x: Operand) -> fx.Node:
    return write(aten.reshape.default, x.node, [write.count, math.prod(x.shape)])
