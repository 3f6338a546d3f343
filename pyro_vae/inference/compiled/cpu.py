"""What a recorded graph computes on the CPU, in the form that is fastest there.

Large float32 matrix products go to oneDNN where the processor has AVX-512: torch's own go to MKL, which leaves half of
such a processor's arithmetic idle where it is not Intel's.  Images are laid out with their channels last, which
oneDNN's convolutions are written for, and the backward pass of a transposed convolution is written as what it is,

    dL/dx = conv(dL/dy, w),        dL/dw = that of the convolution which takes dL/dy to x,

two ordinary convolutions, which torch would otherwise compute by unfolding the image into a matrix.

A Bernoulli log-likelihood with logits l is -max(l, 0) + l x - log(1 + exp(-|l|)).  Where a pixel is almost surely black
exp(-|l|) is subnormal, and a processor takes thirty times as long for it; |l| is therefore taken to be at most 80, which
changes the result by less than 2e-35.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import torch
from torch import Tensor, fx

SMALLEST_PRODUCT = 2**20  # multiplications; below, a call costs more than is gained

LARGEST_LOGIT = 80.0

aten = torch.ops.aten
_library = torch.library.Library("pyro_vae", "DEF")
_library.define("mm(Tensor a, Tensor b) -> Tensor")
_library.define("addmm(Tensor bias, Tensor a, Tensor b) -> Tensor")


def _mm(a: Tensor, b: Tensor) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(a, b.t(), None, "none", [], "")
    return product


def _addmm(bias: Tensor, a: Tensor, b: Tensor) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(a, b.t(), bias, "none", [], "")
    return product


_library.impl("mm", _mm, "CPU")
_library.impl("addmm", _addmm, "CPU")
_library.impl("mm", lambda a, b: a.new_empty(a.shape[0], b.shape[1]), "Meta")
_library.impl("addmm", lambda bias, a, b: a.new_empty(a.shape[0], b.shape[1]), "Meta")


def suit_cpu(graph: fx.GraphModule) -> None:
    """Rewrite a recorded graph in place; operations on other devices stay as they are."""
    for node in list(graph.graph.nodes):
        if node.target is aten.convolution_backward.default and _on_cpu(node) and node.args[7]:
            _split_transposed_backward(graph.graph, node)
        elif node.target is aten.binary_cross_entropy_with_logits.default and _on_cpu(node):
            _avoid_subnormals(graph.graph, node)
    fast = uses_onednn()
    copies: dict[tuple[fx.Node, torch.memory_format], fx.Node] = {}
    for node in list(graph.graph.nodes):
        if node.target in _CONVOLUTIONS and _on_cpu(node):
            _lay_out(graph.graph, node, range(_CONVOLUTIONS[node.target]), torch.channels_last, copies)
            _lay_back(graph.graph, node)
        elif fast and node.target is aten.mm.default and _is_large(*node.args):
            node.target = torch.ops.pyro_vae.mm.default
            _lay_out(graph.graph, node, [0], torch.contiguous_format, copies)
        elif fast and node.target is aten.addmm.default and _is_large(*node.args[1:]) and _has_plain_bias(node):
            node.target = torch.ops.pyro_vae.addmm.default
            _lay_out(graph.graph, node, [1], torch.contiguous_format, copies)
    graph.recompile()


_CONVOLUTIONS = {aten.convolution.default: 2, aten.convolution_backward.default: 3}  # and how many images and weights


def uses_onednn() -> bool:
    """Whether large float32 matrix products go to oneDNN."""
    return torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512"


def _split_transposed_backward(graph: fx.Graph, node: fx.Node) -> None:
    gradient, x, weight, _, stride, padding, dilation, _, _, groups, _ = node.args
    ordinary = (stride, padding, dilation, False, [0] * len(stride), groups)  # type: ignore[arg-type]
    backward = aten.convolution_backward.default
    for user in list(node.users):
        with graph.inserting_before(user):
            if user.args[1] == 0:
                part = graph.call_function(aten.convolution.default, (gradient, weight, None, *ordinary))
            elif user.args[1] == 1:
                both = (x, gradient, weight, None, *ordinary, [False, True, False])
                part = graph.call_function(operator.getitem, (graph.call_function(backward, both), 1))
            else:
                others = [dim for dim in range(gradient.meta["val"].dim()) if dim != 1]  # type: ignore[union-attr]
                part = graph.call_function(aten.sum.dim_IntList, (gradient, others))
        part.meta.update(user.meta)
        user.replace_all_uses_with(part)
        graph.erase_node(user)
    graph.erase_node(node)


def _avoid_subnormals(graph: fx.Graph, node: fx.Node) -> None:
    logits, x, *options = node.args
    if any(option is not None for option in options[:2]) or (options[2:] or [1])[0] != 0:
        return  # weighted, or summed up

    def call(operation: Any, *arguments: Any) -> fx.Node:
        return graph.call_function(operation, arguments)

    with graph.inserting_before(node):
        size = call(aten.clamp_max.default, call(aten.abs.default, logits), LARGEST_LOGIT)
        rest = call(aten.log1p.default, call(aten.exp.default, call(aten.neg.default, size)))
        linear = call(aten.sub.Tensor, call(aten.clamp_min.default, logits, 0), call(aten.mul.Tensor, logits, x))
        entropy = call(aten.add.Tensor, linear, rest)
    entropy.meta.update(node.meta)
    node.replace_all_uses_with(entropy)
    graph.erase_node(node)


def _lay_out(
    graph: fx.Graph,
    node: fx.Node,
    places: list[int] | range,
    layout: torch.memory_format,
    copies: dict[tuple[fx.Node, torch.memory_format], fx.Node],
) -> None:
    """Copy arguments into a layout: here, so that the compiler makes them so where it computes them."""
    arguments = list(node.args)
    for place in places:
        source = arguments[place]
        assert isinstance(source, fx.Node)
        value = source.meta["val"]
        if layout == torch.channels_last and value.dim() != 4:
            continue
        if layout == torch.contiguous_format and value.is_contiguous():
            continue
        if (source, layout) not in copies:
            with graph.inserting_after(source):
                copy = graph.call_function(aten.clone.default, (source,), {"memory_format": layout})
            copy.meta["val"] = value.contiguous(memory_format=layout)
            copies[source, layout] = copy
        arguments[place] = copies[source, layout]
    node.args = tuple(arguments)


def _lay_back(graph: fx.Graph, node: fx.Node) -> None:
    """Give what comes out the layout that the rest of the graph was recorded with; the compiler copies nothing here."""
    if node.target is aten.convolution.default:
        results = {node: node.meta["val"]}
    else:  # the gradients of the image and of the weights, as these are
        tensors: Any = node.args[1:3]
        results = {user: tensors[user.args[1]].meta["val"] for user in node.users if user.args[1] in (0, 1)}
    for result, value in results.items():
        users = list(result.users)
        if not users:  # of a gradient that was not asked for
            continue
        with graph.inserting_after(result):
            copy = graph.call_function(aten.clone.default, (result,), {"memory_format": torch.contiguous_format})
        copy.meta["val"] = value.contiguous()
        for user in users:
            user.replace_input_with(result, copy)


def _on_cpu(node: fx.Node) -> bool:
    return all(arg.meta["val"].device.type == "cpu" for arg in node.args[:2] if isinstance(arg, fx.Node))


def _is_large(a: fx.Node, b: fx.Node) -> bool:
    left, right = a.meta["val"], b.meta["val"]
    fits = all(value.dtype == torch.float32 and value.device.type == "cpu" for value in (left, right))
    return fits and math.prod(left.shape) * right.shape[1] >= SMALLEST_PRODUCT


def _has_plain_bias(node: fx.Node) -> bool:
    return not node.kwargs and node.args[0].meta["val"].dim() == 1  # type: ignore[union-attr]
