"""Making the graph of a call, and trying it: both are runs of the programs, and both can fail.

Making is a run of the programs that is recorded and answers the call.  Trying is a run of the programs as they are,
which answers the call, and one of the graph on the same noise, of which nothing is left; the two must give the same
loss and gradients, and leave the generators of random numbers in the same state.  What a program does that no recording
sees, numbers of NumPy, a seed of its own, a choice made in C, shows there, and so does a look at a clock or a word to a
terminal (see ``outside``).
"""

from __future__ import annotations

import builtins
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn
from unittest import mock

import numpy as np
import pyro
import torch
import torch.utils._pytree as pytree
from pyro import poutine
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pyro_vae.compiled import validation
from pyro_vae.compiled.exchange import check_agreement, summary
from pyro_vae.compiled.outcomes import Outcome
from pyro_vae.compiled.outside import Outside
from pyro_vae.compiled.parameters import used
from pyro_vae.compiled.places import ABSENT, PLAIN
from pyro_vae.compiled.program_state import Marks
from pyro_vae.compiled.readings import Call, Reading, Run
from pyro_vae.compiled.recorded_graph import Rebound, RecordedGraph, find_sources
from pyro_vae.compiled.refusals import Failed, Missed, TooLarge, Unsettled, Untraceable
from pyro_vae.compiled.snapshot import Writes
from pyro_vae.compiled.tracing import record


def make_graph(run: Run, reading: Reading, max_nodes: int) -> tuple[RecordedGraph, Any, Exception | None]:
    """Run a call and record it.

    Where tensors stand for numbers, a program may do something else with them.  So it is run once more, as
    it is, which is the answer, and the two must agree.

    Args:
        run: makes a call as Pyro's own estimator does.
        reading: the call.
        max_nodes: how many operations may be recorded.

    Returns:
        The graph, the answer to the call, and what is wrong with the graph, if anything is.

    Raises:
        Failed: from whatever went wrong; everything is as it was before.
    """
    try:
        marks, writes = Marks(reading.walks), Writes()
    except Exception as error:
        raise Failed from error
    try:
        graph, outcome = _make(run, reading, max_nodes, marks, writes)
    except BaseException as error:
        writes.restore()
        marks.restore()
        if isinstance(error, Exception):
            raise Failed from error
        raise
    if not (reading.lifted or graph.gave_numbers):
        return graph, outcome, None
    found, trained = summary([outcome.loss, *outcome.gradients]), outcome.tensors
    del outcome
    writes.restore()
    marks.restore()
    fresh = list(map(_is_fresh, trained))
    result = run(reading.call)
    try:
        _compare(found, result, trained, fresh)
    except Untraceable as error:
        return graph, result, error
    return graph, result, None


def answer_instead(run: Run, call: Call, error: BaseException | None) -> Any:
    """The answer to a call that could not be recorded, as the programs give it, or what they raise themselves.

    Where a recording was given up because it was too large, the operations are counted for the next one.
    """
    if not isinstance(error, TooLarge):
        return run(call)
    with _Counting() as counting:
        answer = run(call)
    error.operations = counting.operations
    return answer


class _Counting(TorchDispatchMode):
    """Counts the operations of a run, about as many as a recording of it has: 3 % more in a deep Markov model."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.operations += 1
        return func(*args, **(kwargs or {}))


def _make(run: Run, reading: Reading, max_nodes: int, marks: Marks, writes: Writes) -> tuple[RecordedGraph, Outcome]:
    tensors = [tensor.detach().requires_grad_(tensor.requires_grad) for tensor in reading.arguments.tensors]
    numbers = dict(zip(reading.lifted, reading.numbers(), strict=True))
    call = _exchanged(reading, tensors, numbers)
    bound, check = reading.bound, validation.is_on()
    looked_at = bool(numbers) or poutine.is_validation_enabled()
    rebound: list[Rebound] = []

    def left() -> list[Tensor]:
        found = list(_rebound(marks, call.method, set(map(id, numbers.values()))))
        rebound.extend(entry for entry, _ in found)
        return [tensor for _, tensors in found for tensor in tensors]

    torch.clear_autocast_cache()  # a copy made before would be a constant of the graph
    with _in_place(reading, numbers), poutine.block(), poutine.trace(param_only=True) as seen:
        with (
            pyro.validation_enabled(False),
            pyro.distributions.validation_enabled(check),
            validation.scales_looked_at() if looked_at else nullcontext(),
            _nothing_said(),
            writes,
        ):
            recording = record(
                lambda: (_with_gradients(run(call)),),
                [*tensors, *numbers.values()],
                [tensor for tensor in tensors if tensor.requires_grad],
                left,
                max_nodes,
                "all" if check else "needed",
                bool(numbers),
                reading.tells_numbers,
            )
    if recording.guarded and writes.storages():  # which a run with other values would have done in vain
        raise Untraceable(recording.guarded)
    if recording.valid is not None and not recording.valid:
        raise Unsettled("a value is outside its support")
    if marks.made_parameters():
        raise Unsettled("a run has made parameters")
    marks.restore_parameters()  # what the run put in their place is bound below
    if marks.drew():
        raise Untraceable("a generator of random numbers of its own is drawn from")
    graph = RecordedGraph(recording, find_sources(recording.held, bound), used(seen.trace), rebound)
    gradients = [gradient for gradient in recording.gradients if gradient is not None]
    outputs = [*recording.results, *gradients, *recording.kept]
    return graph, graph.outcome(outputs, reading.differentiable, recording.held)


def try_graph(graph: RecordedGraph, run: Run, reading: Reading, held: Sequence[Tensor]) -> tuple[Any, Exception | None]:
    """Run a call as it is, and its graph beside it.

    Args:
        graph: the graph.
        run: makes a call as Pyro's own estimator does.
        reading: the call.
        held: the tensors that the programs hold.

    Returns:
        What the stock estimator returned, and what went wrong with the graph, if anything did.
    """
    trained = graph.trained(reading.differentiable, held)
    error: Exception | None = None
    with Writes() as writes:
        try:
            outputs = graph.run(reading.inputs, held)
            if graph.guarded and not outputs[-1]:
                raise Missed(graph.guarded)
            found = summary(outputs[: 1 + len(trained)])
        except Exception as raised:
            error = raised
    noise = pyro.util.get_rng_state()
    writes.restore()
    fresh = list(map(_is_fresh, trained))
    with Outside() as outside:
        result = run(reading.call)
    graph.called = outside.called
    if error is None:
        try:
            _compare(found, result, trained, fresh)
            _check_noise(noise)
            if outside.found is not None:
                raise Untraceable(outside.found)
        except Untraceable as raised:
            error = raised
    return result, error


def _is_fresh(tensor: Tensor) -> bool:
    """Whether the gradient that it gets is that of one run alone."""
    return tensor.is_leaf and tensor.grad is None and not tensor._backward_hooks


def _compare(found: Sequence[Tensor], result: Any, trained: Sequence[Tensor], fresh: Sequence[bool]) -> None:
    loss, *gradients = found
    chosen = [i for i, new in enumerate(fresh) if new and trained[i].grad is not None]
    expected = [torch.as_tensor(result).detach().double().cpu(), *summary([trained[i].grad for i in chosen])]  # type: ignore[misc]
    check_agreement([loss.cpu(), *(gradients[i] for i in chosen)], expected)


def _check_noise(noise: dict[str, Any]) -> None:
    now = pyro.util.get_rng_state()
    same = torch.equal(noise["torch"], now["torch"]) and noise["random"] == now["random"]
    if not (same and all(map(np.array_equal, noise["numpy"], now["numpy"]))):
        raise Untraceable("random numbers are drawn that leave no trace, or the generator is seeded in the program")


def _exchanged(reading: Reading, tensors: list[Tensor], numbers: dict[str, Tensor]) -> Call:
    """The call with other tensors, so that an argument is told from what the programs hold."""
    call = reading.call
    args, kwargs = reading.arguments.exchanged(tensors, numbers)
    return replace(call, args=args, kwargs=kwargs)


@contextmanager
def _in_place(reading: Reading, numbers: dict[str, Tensor]) -> Iterator[None]:
    """With numbers that the programs hold bound to tensors."""
    places = [(place, number) for path, number in numbers.items() if (place := reading.place(path)) is not None]
    before = [(place, place.get()) for place, _ in places]
    try:
        for place, number in places:
            place.put(number)
        yield
    finally:
        for place, value in before:
            place.put(value)


def _rebound(marks: Marks, method: str, lifted: set[int]) -> Iterator[tuple[Rebound, list[Tensor]]]:
    """What a run has bound anew, with the tensors in it."""
    for path, place, old, new in marks.rebound():
        if id(new) in lifted:
            continue
        if new is ABSENT or (type(old) in (int, float) and isinstance(new, Tensor)):
            raise Untraceable(f"each run changes the program ({path})")
        leaves, layout = pytree.tree_flatten(new)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        strange = any(not isinstance(leaf, Tensor) and type(leaf) not in PLAIN for leaf in leaves)
        if not place.holder.is_own and (strange or not tensors):  # what a library makes anew for itself
            continue
        if strange:
            raise Untraceable(f"each run binds {path} to another object")
        if method == "differentiable_loss" and any(tensor.requires_grad for tensor in tensors):
            raise Untraceable(f"each run binds {path} to a tensor with a gradient of its own")
        if tensors:
            kept = tuple(None if isinstance(leaf, Tensor) else (leaf,) for leaf in leaves)
            yield Rebound(place, layout, kept), tensors
        else:  # one object for all runs, so that nothing has changed after the next
            yield Rebound(place, pytree.tree_structure(0), ((new,),)), []


@contextmanager
def _nothing_said() -> Iterator[None]:
    """Refuse what prints or logs: a graph would not."""
    log = logging.Logger.callHandlers

    def refuse(*arguments: Any, **options: Any) -> NoReturn:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_globals.get("__name__", "").startswith(("logging", __name__)):
            frame = frame.f_back
        place = "" if frame is None else f" ({Path(frame.f_code.co_filename).name}, line {frame.f_lineno})"
        raise Untraceable(f"it prints or logs{place}")

    def pass_on(logger: logging.Logger, entry: logging.LogRecord) -> None:
        if logger.name.split(".")[0] not in ("torch", "pyro"):
            refuse()
        log(logger, entry)

    with mock.patch.object(builtins, "print", refuse), mock.patch.object(logging.Logger, "callHandlers", pass_on):
        yield


def _with_gradients(loss: Any) -> Any:
    if isinstance(loss, Tensor) and loss.requires_grad:
        loss.backward()
    return loss
