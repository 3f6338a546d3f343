"""What a recorded graph computes on the CPU, in the form that is fastest there.

Large float32 matrix products go to oneDNN where the processor has AVX-512 and is not Intel's: torch's own go to MKL,
which leaves half of such a processor's arithmetic idle, but is the faster one on Intel's own.  MKL adds to a matrix
that is there, so torch fills the result with the bias first, and the product reads it again; there the bias is added
later, by the compiler, where it reads the result anyway.

Images are laid out with their channels last, which oneDNN's convolutions are written for; some convolutions are written
otherwise (see ``convolutions``), and so are Bernoulli log-likelihoods (see ``bernoulli``).
"""

from __future__ import annotations

import math
import platform
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from pyro_vae.compiled.bernoulli import rewrite_bernoulli
from pyro_vae.compiled.convolutions import rewrite_convolution
from pyro_vae.compiled.forms import describe
from pyro_vae.compiled.inlining import copied_as, inline, is_view

SMALLEST_PRODUCT = 2**20  # multiplications; below, a call costs more than is gained

aten = torch.ops.aten
_library = torch.library.Library("pyro_vae", "DEF")
_library.define("mm(Tensor a, Tensor b) -> Tensor")
_library.define("addmm(Tensor bias, Tensor a, Tensor b) -> Tensor")


def _mm(a: Tensor, b: Tensor) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(a, _dense(b).t(), None, "none", [], "")
    return product


def _addmm(bias: Tensor, a: Tensor, b: Tensor) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(a, _dense(b).t(), bias, "none", [], "")
    return product


def _dense(b: Tensor) -> Tensor:
    """A matrix without gaps between its rows: with them, as in a slice of time, oneDNN is hundreds of times slower."""
    return b if b.is_contiguous() or b.t().is_contiguous() else b.contiguous()


_library.impl("mm", _mm, "CPU")
_library.impl("addmm", _addmm, "CPU")
_library.impl("mm", lambda a, b: a.new_empty(a.shape[0], b.shape[1]), "Meta")
_library.impl("addmm", lambda bias, a, b: a.new_empty(a.shape[0], b.shape[1]), "Meta")


def suit_cpu(graph: fx.GraphModule) -> None:
    """Rewrite a recorded graph in place; operations on other devices stay as they are."""
    describe(graph.graph)
    for node in list(graph.graph.nodes):
        if node.op == "call_function" and _on_cpu(node):
            rewrite_convolution(graph.graph, node)
            rewrite_bernoulli(graph.graph, node)
    fast = uses_onednn()
    copies: dict[tuple[fx.Node, torch.memory_format], fx.Node] = {}
    for node in list(graph.graph.nodes):
        if node.target in _CONVOLUTIONS and _on_cpu(node):
            _lay_out(graph.graph, node, range(_CONVOLUTIONS[node.target]), torch.channels_last, copies)
            _lay_back(graph.graph, node)
        elif fast and node.target is aten.mm.default and _is_large(*node.args):
            node.target = torch.ops.pyro_vae.mm.default
            _lay_out(graph.graph, node, [0], torch.contiguous_format, copies)
        elif node.target is aten.addmm.default and _is_large(*node.args[1:]) and _has_plain_bias(node):
            if fast:
                node.target = torch.ops.pyro_vae.addmm.default
                _lay_out(graph.graph, node, [1], torch.contiguous_format, copies)
            else:
                node.replace_all_uses_with(inline(graph.graph, node, _add_later, *node.args))
                graph.graph.erase_node(node)
    _share_copies(graph.graph)
    graph.recompile()


_CONVOLUTIONS = {aten.convolution.default: 2, aten.convolution_backward.default: 3}  # and how many images and weights


def uses_onednn() -> bool:
    """Whether large float32 matrix products go to oneDNN."""
    has_avx512 = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return torch.backends.mkldnn.is_available() and has_avx512 and not _is_intel()


@cache
def _is_intel() -> bool:
    try:
        return "GenuineIntel" in Path("/proc/cpuinfo").read_text()
    except OSError:  # no Linux
        return "Intel" in platform.processor()


def _add_later(bias: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """A product and its bias; in one call torch would write the bias into the whole result first."""
    return ((a @ b).unsqueeze(0) + bias).squeeze(0)  # in a shape that the compiler does not know as one call


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
    else:  # the gradients of the image and of the weights
        asked_for = [user for user in node.users if user.users and user.args[1] in (0, 1)]
        results = {user: user.meta["val"] for user in asked_for}
    for result, value in results.items():
        users = list(result.users)
        copy = copied_as(graph, result, value)
        for user in users:
            user.replace_input_with(result, copy)


def _share_copies(graph: fx.Graph) -> None:
    """Make each copy of a result once; the compiler would write, and read, every one of them."""
    seen: dict[tuple[Any, Any], fx.Node] = {}
    for node in list(graph.nodes):
        if node.target is not aten.clone.default or _changes(node.args[0]):
            continue
        key = (node.args[0], node.kwargs.get("memory_format"))
        if key not in seen:
            seen[key] = node
        elif not any(_changes(copy) for copy in (node, seen[key])):
            node.replace_all_uses_with(seen[key])
            graph.erase_node(node)


def _changes(node: Any) -> bool:
    """Whether a tensor may change after it was made: an input, or one that is changed in place, by whatever view."""
    while is_view(node):
        node = node.args[0]
    ahead = [node]
    while ahead:
        users = ahead.pop().users
        if any(getattr(getattr(user.target, "_schema", None), "is_mutable", False) for user in users):
            return True
        ahead.extend(user for user in users if is_view(user))
    return bool(node.op != "call_function")


def _on_cpu(node: fx.Node) -> bool:
    values = [argument.meta.get("val") for argument in node.args[:2] if isinstance(argument, fx.Node)]
    return all(isinstance(value, Tensor) and value.device.type == "cpu" for value in values)


def _is_large(a: fx.Node, b: fx.Node) -> bool:
    left, right = a.meta["val"], b.meta["val"]
    fits = all(value.dtype == torch.float32 and value.device.type == "cpu" for value in (left, right))
    return fits and math.prod(left.shape) * right.shape[1] >= SMALLEST_PRODUCT


def _has_plain_bias(node: fx.Node) -> bool:
    return not node.kwargs and node.args[0].meta["val"].dim() == 1  # type: ignore[union-attr]
