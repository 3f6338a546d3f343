"""A compiled function of CUDA tensors, replayed as one CUDA graph.

The kernels of a small step take less time than Python takes to launch them.  Captured once, all of them are launched by
one call, which works on the memory that it was captured with: tensors that are the same at every call, parameters and
Adam's moments, are read and written where they are; the others, such as the rows of a batch, are copied into memory of
the graph's own; and what comes out is copied, since the next replay overwrites it.

Noise needs no care: at each replay torch moves its CUDA generator on by what the kernels themselves would have drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

WARM_UP = 2  # runs before the capture: they tune kernels and make the libraries' workspaces, which a capture must not


def uses_cuda(tensors: Sequence[Tensor]) -> bool:
    """Whether a program of these tensors can be captured: one on the CPU would be a constant of the graph."""
    return all(tensor.device.type == "cuda" for tensor in tensors)


class CudaReplay:
    """The replayed function.

    Args:
        run: the compiled function; it must not wait for the device.
        inputs: an example, all on one CUDA device.
        state: tensors that are the same at every call.  The runs before the capture change those that ``run`` changes.

    Raises:
        RuntimeError: if ``run`` does what cannot be captured.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Tensor]], tuple[Tensor, ...]],
        inputs: Sequence[Tensor],
        state: Collection[Tensor] = (),
    ) -> None:
        kept = set(map(id, state))
        self._places = [value if id(value) in kept else value.detach().clone() for value in inputs]
        self._graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                run(self._places)
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(self._graph, stream=stream):
            self._results = run(self._places)

    @torch.no_grad()
    def __call__(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        for place, value in zip(self._places, inputs, strict=True):
            if place is not value:
                place.copy_(value)
        self._graph.replay()
        return tuple(result.clone() for result in self._results)
