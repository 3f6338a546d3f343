r"""Convolutions on the CPU, written as what is fastest there.

The backward pass of a transposed convolution y = conv^T(x, w) is two ordinary convolutions,

    dL/dx = conv(dL/dy, w),        dL/dw = that of the convolution which takes dL/dy to x,

which torch would otherwise compute by unfolding the image into a matrix.

A convolution to very few channels, such as the last one of a decoder, leaves oneDNN's blocks of sixteen channels empty.
As a sum over the offsets (i, j) of its kernel it is one matrix product and a sum of shifted images,

    y[b, o, p] = sum_ij (W_ij x)[b, o, p + ij - padding],
    dL/dw[o, c, ij] = sum_bp x[b, c, p] dL/dy[b, o, p - ij + padding],
    dL/dx[b, c, p] = sum_oij w[o, c, ij] dL/dy[b, o, p - ij + padding],

and both gradients are products with one matrix of shifted images.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from pyro_vae.compiled.inlining import copied_as, inline, lie_alike

FEW_CHANNELS = 4

aten = torch.ops.aten


def rewrite_convolution(graph: fx.Graph, node: fx.Node) -> None:
    """Rewrite a node in place where it is a convolution that has a faster form."""
    if node.target is aten.convolution.default and _is_narrow(node.args[1], *node.args[3:]):
        _narrow_forward(graph, node)
    elif node.target is aten.convolution_backward.default and node.args[7]:
        _split_transposed_backward(graph, node)
    elif node.target is aten.convolution_backward.default and _is_narrow(node.args[2], *node.args[4:10]):
        _narrow_backward(graph, node)


def _is_narrow(weight: Any, stride: Any, padding: Any, dilation: Any, transposed: Any, _: Any, groups: Any) -> bool:
    out, _, *kernel = weight.meta["val"].shape
    plain = not transposed and groups == 1 and len(kernel) == 2 and all(n == 1 for n in (*stride, *dilation))
    return plain and out <= FEW_CHANNELS and all(pad < size for pad, size in zip(padding, kernel, strict=True))


def _narrow_forward(graph: fx.Graph, node: fx.Node) -> None:
    arguments: Any = node.args
    x, weight, bias, _, (up, left), *_ = arguments

    def forward(x: Tensor, weight: Tensor) -> Tensor:
        (size, channels, height, width), (out, _, tall, wide) = x.shape, weight.shape
        products = weight.permute(2, 3, 0, 1).reshape(-1, channels) @ _rows(x).t()
        maps = F.pad(products.view(tall, wide, out, size, height, width), (left, left, up, up))
        height, width = height + 2 * up - tall + 1, width + 2 * left - wide + 1
        shifted = [maps[i, j, :, :, i : i + height, j : j + width] for i in range(tall) for j in range(wide)]
        total: Tensor = sum(shifted[1:], start=shifted[0])
        return total.transpose(0, 1)

    def with_bias(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return forward(x, weight) + bias.view(-1, 1, 1)

    y = inline(graph, node, forward, x, weight) if bias is None else inline(graph, node, with_bias, x, weight, bias)
    node.replace_all_uses_with(_as_recorded(graph, y, node.meta["val"]))
    graph.erase_node(node)


def _narrow_backward(graph: fx.Graph, node: fx.Node) -> None:
    arguments: Any = node.args
    gradient, x, weight, _, _, (up, left), *_ = arguments
    tall, wide = weight.meta["val"].shape[2:]
    size, _, height, width = x.meta["val"].shape

    def shift(gradient: Tensor) -> Tensor:
        down, right = tall - 1 - up, wide - 1 - left
        padded = F.pad(gradient.transpose(0, 1), (right, right, down, down))
        corners = [(tall - 1 - i, wide - 1 - j) for i in range(tall) for j in range(wide)]
        shifted = torch.stack([padded[:, :, i : i + height, j : j + width] for i, j in corners])
        return shifted.reshape(-1, size * height * width)

    def of_image(shifted: Tensor, weight: Tensor) -> Tensor:
        rows = shifted.t() @ weight.permute(2, 3, 0, 1).reshape(len(shifted), -1)
        return rows.view(size, height, width, -1).permute(0, 3, 1, 2)

    def of_weight(shifted: Tensor, x: Tensor) -> Tensor:
        products = shifted @ _rows(x)
        return products.view(tall, wide, -1, x.shape[1]).permute(2, 3, 0, 1)

    shifted = inline(graph, node, shift, gradient)
    _replace(graph, node, 0, lambda user: inline(graph, user, of_image, shifted, weight))
    _replace(graph, node, 1, lambda user: inline(graph, user, of_weight, shifted, x))
    _replace(graph, node, 2, lambda user: inline(graph, user, _of_bias, gradient))
    graph.erase_node(node)


def _split_transposed_backward(graph: fx.Graph, node: fx.Node) -> None:
    arguments: Any = node.args
    gradient, x, weight, _, stride, padding, dilation, _, _, groups, _ = arguments
    ordinary = (stride, padding, dilation, False, [0] * len(stride), groups)

    def of_image(user: fx.Node) -> fx.Node:
        with graph.inserting_before(user):
            return graph.call_function(aten.convolution.default, (gradient, weight, None, *ordinary))

    def of_weight(user: fx.Node) -> fx.Node:
        with graph.inserting_before(user):
            both = (x, gradient, weight, None, *ordinary, [False, True, False])
            made = graph.call_function(aten.convolution_backward.default, both)
            return graph.call_function(operator.getitem, (made, 1))

    _replace(graph, node, 0, of_image)
    _replace(graph, node, 1, of_weight)
    _replace(graph, node, 2, lambda user: inline(graph, user, _of_bias, gradient))
    graph.erase_node(node)


def _of_bias(gradient: Tensor) -> Tensor:
    return gradient.sum([dim for dim in range(gradient.dim()) if dim != 1])


def _replace(graph: fx.Graph, node: fx.Node, index: int, make: Any) -> None:
    """Replace one of the results of a node, where it is used."""
    for user in [user for user in node.users if user.args[1] == index]:
        if user.users:
            user.replace_all_uses_with(_as_recorded(graph, make(user), user.meta["val"]))
        graph.erase_node(user)


def _as_recorded(graph: fx.Graph, result: fx.Node, value: Tensor) -> fx.Node:
    """A result that lies as what was recorded did; that of a convolution is laid back later (see ``cpu``)."""
    found = result.meta.setdefault("val", value)
    return result if lie_alike(found, value) else copied_as(graph, result, value)


def _rows(x: Tensor) -> Tensor:
    """Images of shape (N, C, H, W) as a matrix of pixels, (N H W, C)."""
    return x.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).reshape(-1, x.shape[1])
