"""Operations of a recorded graph: what they are, and replacing them by what a function does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

aten = torch.ops.aten


def inline(graph: fx.Graph, before: fx.Node, function: Callable[..., Any], *arguments: Any) -> Any:
    """Write what a function of tensors does into a graph.

    Args:
        graph: the graph.
        before: the node before which it is written.
        function: what is done.
        *arguments: nodes of the graph.

    Returns:
        The node of the result; a list of nodes for a tuple.
    """
    from torch.fx.experimental.proxy_tensor import make_fx  # late: half a second, which only compiling needs

    examples = [_like(argument.meta["val"]) for argument in arguments]
    with torch.no_grad():
        done = make_fx(function)(*examples).graph
    nodes = dict(zip((node for node in done.nodes if node.op == "placeholder"), arguments, strict=True))
    with graph.inserting_before(before):
        for node in done.nodes:
            if node.op == "call_function":
                nodes[node] = graph.node_copy(node, nodes.__getitem__)
    (result,) = next(node for node in done.nodes if node.op == "output").args
    return nodes[result] if isinstance(result, fx.Node) else [nodes[part] for part in result]


def copied_as(graph: fx.Graph, node: fx.Node, value: Tensor) -> fx.Node:
    """A copy of a result, written behind it, that lies as what was recorded did: views of that were recorded, too.

    Args:
        graph: the graph.
        node: the node of the result.
        value: what was recorded, contiguous or with its channels last.
    """
    is_plain = value.is_contiguous() or not value.is_contiguous(memory_format=torch.channels_last)
    layout = torch.contiguous_format if is_plain else torch.channels_last
    with graph.inserting_after(node):
        copy = graph.call_function(aten.clone.default, (node,), {"memory_format": layout})
    copy.meta["val"] = value.contiguous(memory_format=layout)
    return copy


def lie_alike(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors of a shape lie alike in memory."""
    strides = zip(a.shape, a.stride(), b.stride(), strict=True)
    return all(first == second for size, first, second in strides if size != 1)


def is_view(node: fx.Node) -> bool:
    """Whether an operation looks at its input in another way, and moves nothing."""
    returned = [value.alias_info for value in getattr(getattr(node.target, "_schema", None), "returns", ())]
    return any(alias is not None and not alias.is_write for alias in returned)


def _like(value: Tensor) -> Tensor:
    return torch.zeros_like(torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=value.device))
