"""From a recorded graph to one compiled function, by TorchInductor.

The recording holds forward and backward pass alike, so the whole of it is one graph without gradients of its own: what
the backward pass needs is kept or computed again as suits, and elementwise work is fused across both.

Two choices are made here.  Noise comes from torch's own generator on the CPU, in the order in which Pyro draws it: a
compiled program sees the very draws that the eager one would, and torch's vectorized generator is the faster one, too.
And large float32 matrix products go to oneDNN where the processor has AVX-512: torch's own go to MKL, which leaves half
of such a processor's arithmetic idle where it is not Intel's.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from pyro_vae.inference.compiled.tracing import Recording

Flat = Callable[[Sequence[Tensor]], tuple[Tensor, ...]]
SMALLEST_PRODUCT = 2**20  # multiplications; below, a call costs more than is gained

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


def compile_recording(recording: Recording, inputs: Sequence[Tensor]) -> Flat:
    """Compile a recording for inputs of these shapes.

    Args:
        recording: what ``tracing.record`` gave.
        inputs: the inputs that it was recorded with.

    Returns:
        A function of the inputs alone, which reads the held tensors as they are at each call.

    Raises:
        Exception: whatever the compiler raises; without a C++ compiler, torch's ``InvalidCxxCompiler``.
    """
    graph, held = recording.graph, recording.held
    if uses_onednn():
        _use_onednn(graph)
    on_cpu = all(tensor.device.type == "cpu" for tensor in (*inputs, *held))
    context = TracingContext(FakeTensorMode(shape_env=ShapeEnv()))  # without one, Inductor's cache is passed over
    with torch.no_grad(), _quiet(), tracing(context):
        from torch._inductor.compile_fx import compile_fx  # late: a second to import

        compiled: Any = compile_fx(graph, [*inputs, *held], config_patches={"fallback_random": on_cpu})

    def run(values: Sequence[Tensor]) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return tuple(compiled(*values, *held))

    return run


def uses_onednn() -> bool:
    """Whether float32 matrix products go to oneDNN."""
    return torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512"


def _use_onednn(graph: fx.GraphModule) -> None:
    aten, own = torch.ops.aten, torch.ops.pyro_vae
    for node in list(graph.graph.nodes):
        if node.target is aten.mm.default and _is_large(*node.args):
            node.target = own.mm.default
        elif node.target is aten.addmm.default and not node.kwargs and _is_large(*node.args[1:]):
            if node.args[0].meta["val"].dim() != 1:
                continue
            node.target = own.addmm.default
        else:
            continue
        *bias, left, right = node.args
        if not left.meta["val"].is_contiguous():  # oneDNN would copy it, on one core; the compiler's own copy is fused
            with graph.graph.inserting_before(node):
                copy = graph.graph.call_function(
                    aten.clone.default, (left,), {"memory_format": torch.contiguous_format}
                )
            copy.meta["val"] = left.meta["val"].contiguous()
            node.args = (*bias, copy, right)
    graph.recompile()


def _is_large(a: fx.Node, b: fx.Node) -> bool:
    left, right = a.meta["val"], b.meta["val"]
    fits = all(value.dtype == torch.float32 and value.device.type == "cpu" for value in (left, right))
    return fits and math.prod(left.shape) * right.shape[1] >= SMALLEST_PRODUCT


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the compiler's remarks on its own code, and that a torch built for CUDA sees no GPU."""
    logger = logging.getLogger("torch.utils.cpp_extension")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
