"""From a recorded graph to one compiled function, by TorchInductor.

The recording holds forward and backward pass alike, so the whole of it is one graph without gradients of its own: what
the backward pass needs is kept or computed again as suits, and elementwise work is fused across both.

On the CPU noise comes from torch's own generator, in the order in which Pyro draws it: a compiled program sees the very
draws that the eager one would, and torch's vectorized generator is the faster one, too.  What suits the
processor better is rewritten first (see ``cpu``).  On CUDA what runs again and again is replayed (see ``cuda``).
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch._guards import TracingContext, tracing

from pyro_vae.compiled.allocation import keep_freed_memory
from pyro_vae.compiled.bundling import bundled
from pyro_vae.compiled.cpu import suit_cpu
from pyro_vae.compiled.cuda import CudaReplay, uses_cuda
from pyro_vae.compiled.exchange import Flat, exchanged
from pyro_vae.compiled.payoff import reason
from pyro_vae.compiled.replaying import replay
from pyro_vae.compiled.snapshot import Snapshot, storage
from pyro_vae.compiled.toolchain import head_start
from pyro_vae.compiled.tracing import Recording

logger = logging.getLogger(__name__)


class CompilableRecording:
    """A recording, and what it is compiled to; a new kind records something and makes calls of ``run``.

    Args:
        recording: what was recorded.
        inputs: the inputs that it was recorded with.
        state: tensors that are the same at every run, and whatever a run changes.
    """

    def __init__(self, recording: Recording, inputs: Sequence[Tensor], state: Collection[Tensor] = ()) -> None:
        self.recording = recording
        self._example, self._kept = inputs, state
        self._run: Flat | None = None

    def compile(self) -> None:
        """Compile the recording.

        Raises:
            Exception: whatever the compiler raises.
        """
        self._run = compile_recording(self.recording, self._example)
        if uses_cuda([*self._example, *self.recording.held]):
            before = Snapshot(self._kept)
            try:
                self._run = CudaReplay(self._run, self._example, self._kept)
            except RuntimeError as error:
                logger.info(f"no CUDA graph, kernels are launched one by one: {str(error).strip().splitlines()[0]}")
            finally:
                before.restore()

    def interpret(self, loops_at_once: bool = False) -> None:
        """Replay the recording as it stands, operation by operation, in the place of compiling it.

        Args:
            loops_at_once: whether the turns of loops may be done at once, which rounds otherwise.
        """
        memory = [storage(tensor) for tensor in (*self._example, *self.recording.held)]
        self._run = interpret(self.recording, memory)
        if loops_at_once:
            self._run = with_loops_at_once(self._run, self.recording, self._example, memory)

    def run(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The outputs, once it is compiled or interpreted."""
        assert self._run is not None
        return self._run(inputs)


def interpret(recording: Recording, memory: Sequence[Hashable] | None = None) -> Flat:
    """A function of a recording's inputs that does what the recording holds, operation by operation.

    Args:
        recording: what ``tracing.record`` gave.
        memory: for each input and each held tensor what stands for its memory, if that is the same in every run.
    """
    graph, held = recording.graph, recording.held
    graph.graph.eliminate_dead_code()  # what nobody reads; noise and what is changed in place stay
    function = replay(graph, memory)
    if all(tensor.device.type == "cpu" for tensor in held):
        keep_freed_memory()

    def run(values: Sequence[Tensor]) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return function([*values, *held])

    return run


def with_loops_at_once(
    now: Flat, recording: Recording, values: Sequence[Tensor], memory: Sequence[Hashable] | None = None
) -> Flat:
    """A recording with the turns of its loops done at once, if that gives the same; what runs it now otherwise.

    Args:
        now: what runs it now.
        recording: what ``tracing.record`` gave.
        values: inputs, which are left as they are.
        memory: see ``interpret``.
    """
    from pyro_vae.compiled.loops import done_at_once  # late: few programs are that large

    def rewritten() -> Flat:
        return interpret(replace(recording, graph=done_at_once(recording.graph, memory)), memory)

    try:
        return exchanged(now, rewritten, values, recording.held)
    except Exception as error:  # of any kind: it runs as it is
        logger.info(f"the turns of its loops are replayed one after another: {reason(error)}")
        return now


_LEAN = {"size_asserts": False, "alignment_asserts": False, "scalar_asserts": False}  # what a call would look at again


def compile_recording(recording: Recording, inputs: Sequence[Tensor]) -> Flat:
    """Compile a recording for inputs of these shapes.

    Args:
        recording: what ``tracing.record`` gave, which stays as it is.
        inputs: the inputs that it was recorded with.

    Returns:
        A function of the inputs alone, which reads the held tensors as they are at each call.

    Raises:
        Exception: whatever the compiler raises; without a C++ compiler, torch's ``InvalidCxxCompiler``.
    """
    from torch._inductor.compile_fx import compile_fx  # late, like its parts: seconds to import
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    graph, held = recording.copy().graph, recording.held  # one to be rewritten
    suit_cpu(graph)
    on_cpu = all(tensor.device.type == "cpu" for tensor in (*inputs, *held))
    fake = FakeTensorMode(shape_env=ShapeEnv())  # without a shape environment Inductor's cache is passed over
    examples = [fake.from_tensor(tensor.detach(), static_shapes=True) for tensor in (*inputs, *held)]
    with torch.no_grad(), _quiet(), tracing(TracingContext(fake)):
        if on_cpu:
            keep_freed_memory()
            head_start()
        with bundled():
            compiled: Any = compile_fx(graph, examples, config_patches={"fallback_random": on_cpu} | _LEAN)

    def run(values: Sequence[Tensor]) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return tuple(compiled(*values, *held))

    return run


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
