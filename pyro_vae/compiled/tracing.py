"""One run of a function of tensors, recorded as a graph.

``record`` runs a function once on real tensors and writes down every tensor operation, those of its backward pass too.
Python itself leaves no trace: effect handlers, traces and distributions are gone from the graph, and so is any choice
that Python made on the way.  A choice that depends on the *value* of a tensor would therefore be frozen, so a program
that makes one is refused, with its reason.  Three things make Pyro's own estimators, unchanged, pass:

- ``x.item()`` of a traced number gives the number as a tensor, without gradient;
- ``loss.backward()`` collects the gradients instead of writing them to the parameters;
- what Pyro's own code asks of values, in three places, has an answer that is right whatever the values are.

Tensors are inputs by identity: whatever the function reaches them through, a module, the parameter store or a closure,
operations on the very objects that ``record`` was given are operations on its inputs.
"""

from __future__ import annotations

import copy
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Literal
from unittest import mock

import numpy as np
import torch
import torch.utils._pytree as pytree
from pyro import util as pyro_util
from pyro.distributions.transforms.spline import _monotonic_rational_spline
from pyro.infer.util import Dice
from pyro.ops.provenance import detach_provenance
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes

from pyro_vae.compiled.gradients import leaves_behind, next_function
from pyro_vae.compiled.indexing import entries, has_number
from pyro_vae.compiled.refusals import MAX_NODES, TooLarge, Untraceable
from pyro_vae.compiled.substitutes import (
    is_mask,
    is_one_number,
    masked,
    num_classes,
    one_hot,
    without_hooks,
    without_onednn,
)
from pyro_vae.compiled.tape import Refused, Tape, ValueNeeded, undisturbed
from pyro_vae.compiled.validation import VALIDATION, all_valid, equal_scales, is_check

# Operations of a run and its backward pass, for each before that: 1.46 to 1.67 in eight of Pyro's examples.
WITH_BACKWARD = 1.5

# Pyro warns of values that are not numbers; a caller of a compiled graph looks at what comes out.  Dice leaves out
# terms of probability 0 where there are any: leaving them out, by a mask, is right where there are none, too.  What
# validation asks the graph says itself (see ``validation``), or the first run saw.
_ANSWERS: dict[CodeType, bool] = {
    pyro_util.warn_if_nan.__code__: False,
    Dice.compute_expectation.__code__: False,
    **dict.fromkeys(VALIDATION, True),
}
# A spline leaves what is outside its interval as it is, elements of a mask at a time.
_MASKED: CodeType = _monotonic_rational_spline.__code__
_VALUES = {
    Tensor.__bool__: "a choice",
    Tensor.__int__: "a whole number",
    Tensor.__index__: "an index or a size",
    Tensor.__float__: "a number",
    Tensor.__contains__: "a choice",
    Tensor.tolist: "a list",
    Tensor.numpy: "an array",
    Tensor.__array__: "an array",
    Tensor.__repr__: "a text",
    Tensor.__format__: "a text",
}
# An array may be written to, and a tensor in the place of a number does not look like one.
_UNLIKE = (Tensor.numpy, Tensor.__array__, Tensor.__repr__)
_GRADIENT: Any = Tensor.grad
_VERSION: Any = Tensor._version
_COPIES = (torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor, Tensor.new)
_OURS = ("torch", "pyro", "pyro_vae")
_SPLITS = (torch.tensor_split, Tensor.tensor_split, torch.narrow, Tensor.narrow)
# Of numbers these raise where there is no result; of tensors they give one that is not finite.
_PARTIAL = {"__rdiv__", "div", "__floordiv__", "__rfloordiv__", "remainder", "__rmod__", "pow", "__rpow__"}
Checks = Literal["none", "needed", "all"]


@dataclass(frozen=True)
class Recording:
    """What a run did to tensors.

    Args:
        graph: a module that takes the inputs and the held tensors, flat, and returns the outputs, a flat tuple.
        held: tensors that the function met and that are none of its inputs, by reference.
        results: what the function itself returned.
        gradients: the gradients of the tensors asked for, then of further leaves, None for one that the result does not
            depend on; in the graph's outputs those that are there follow the results.
        leaves: tensors with a gradient that the function met and that were not asked for.
        kept: further outputs, after these: what the function left behind.
        valid: whether all values were valid, the last output; None if nothing was to be checked.
        gave_numbers: whether the program's own code was given a tensor for a number, which it may take for another.
        guarded: what depends on values that the last output says to be the same again, in words; empty for nothing.
    """

    graph: fx.GraphModule
    held: list[Tensor]
    results: list[Tensor]
    gradients: list[Tensor | None]
    leaves: list[Tensor]
    kept: Sequence[Tensor] = ()
    valid: Tensor | None = None
    gave_numbers: bool = False
    guarded: str = ""

    def copy(self) -> Recording:
        """The same with a graph of its own, to be rewritten."""
        return replace(self, graph=copy.deepcopy(self.graph))


def record(
    function: Callable[[], Sequence[Tensor]],
    inputs: Sequence[Tensor],
    differentiate: Sequence[Tensor] = (),
    left: Callable[[], Sequence[Tensor]] = tuple,
    max_nodes: int = MAX_NODES,
    check: Checks = "none",
    numbers: bool = False,
    tells_numbers: bool = False,
) -> Recording:
    """Run a function once and record what it did.

    The run is real: noise is drawn, what is changed in place stays changed, and the results are there to be used.

    Args:
        function: takes no arguments, reads the inputs by identity, and returns tensors.
        inputs: the tensors whose values may differ in later runs.
        differentiate: of these, what ``backward`` inside the function collects the gradients of.
        left: gives the tensors that the function left behind, once it has run.
        max_nodes: how many operations are recorded, at most.
        check: what the graph is to say of values, as its last output: nothing; whether what Pyro must know of numbers
            holds, if it asks; or that, and whether all values are valid where torch's validation asks.  If it says
            anything, and no inputs stand for numbers, choices and shapes may depend on whole numbers and truths of
            tensors: it says whether these are the same again.
        numbers: whether some inputs stand for numbers of Python, which are not to be divided by zero.
        tells_numbers: whether the function may tell numbers of Python from tensors, which are not to stand for them.

    Raises:
        Untraceable: if Python asked for the value of a tensor, or the shape of one depends on values.
        TooLarge: if there are more operations.
    """
    tape = Tape(inputs, guarding=check != "none" and not numbers)
    mode = _Recording(tape, list(differentiate), max_nodes, check != "none", numbers, tells_numbers)
    noise = _foreign_noise()
    with undisturbed(), tape:
        with mode, mode.looked_up():
            results = [torch.as_tensor(result).detach() for result in function()]
            if mode.refused is not None:  # and the function went on without it
                raise mode.refused
            kept = [detach_provenance(tensor).detach() for tensor in left()]
        gradients = [gradient for gradient in mode.gradients if gradient is not None]
        valid = mode.valid(check, results)
    if _foreign_noise() != noise:
        raise Untraceable("random numbers of Python or NumPy are drawn; draw them with torch")
    graph = tape.finish([*results, *gradients, *kept, *valid])
    leaves = mode.differentiate[len(differentiate) :]
    checked = valid[0] if valid else None
    told = mode.gave_numbers, mode.guarded
    return Recording(graph, tape.held, results, mode.gradients, leaves, kept, checked, *told)


class _Recording(TorchFunctionMode):
    """Answers what cannot be recorded."""

    def __init__(
        self, tape: Tape, differentiate: list[Tensor], max_nodes: int, checks: bool, numbers: bool, tells_numbers: bool
    ) -> None:
        super().__init__()
        self._tape, self.differentiate, self._max_nodes = tape, differentiate, max_nodes
        self._checks, self._numbers, self._tells_numbers = checks, numbers, tells_numbers
        self.gradients: list[Tensor | None] = [None] * len(differentiate)
        self.refused: Untraceable | None = None
        self.gave_numbers, self.guarded = False, ""
        self._since = next_function()
        self.checks: list[Tensor] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        try:
            return self._record(func, args, kwargs or {}, _asking(sys._getframe(1)))
        except Untraceable as error:
            self.refused = error
            raise

    def _record(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], asking: FrameType
    ) -> Any:
        name = getattr(func, "__name__", str(func))
        try:
            result = self._answer(func, args, kwargs, asking)
        except ValueNeeded as error:
            raise Untraceable(f"{name} depends on the value of a tensor ({_place(asking)})") from error
        except Refused as error:
            raise Untraceable(f"{error} ({_place(asking)})") from error
        self._note_guards(asking)
        if self._numbers and name in _PARTIAL and not (result.dim() or result.requires_grad):
            self.checks.append(torch.isfinite(detach_provenance(result)))
        if len(self._tape.graph.nodes) > self._max_nodes:
            raise TooLarge(self._max_nodes, len(self._tape.graph.nodes))
        return result

    def _answer(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], asking: FrameType
    ) -> Any:
        if (kwargs or {}).get("generator") is not None:
            raise Untraceable(f"a generator of random numbers of its own is drawn from ({_place(asking)})")
        varies = self._tape.varies
        if func is Tensor.item:
            value = detach_provenance(args[0])
            if varies(value) and _root(asking) not in _OURS:
                if self._tells_numbers:
                    raise Untraceable(f"a number in Python depends on the value of a tensor ({_place(asking)})")
                self.gave_numbers = True
            return value.detach().reshape(()) if varies(value) else _constant(func, args, kwargs)
        if func is Tensor.backward:
            return self._collect(*args, **kwargs)
        if getattr(func, "__self__", None) is _GRADIENT and _root(asking) not in ("torch", "pyro"):
            raise Untraceable(f"it reads a gradient of before ({_place(asking)})")
        if getattr(func, "__self__", None) is _VERSION and _root(asking) not in _OURS:
            raise Untraceable(f"it asks how often a tensor was written to ({_place(asking)})")
        if func is torch.lstm:
            with without_onednn():
                return func(*args, **kwargs)
        if func is torch.tensor and isinstance(args[0], Tensor) and not kwargs.get("requires_grad"):
            given = args[0].detach().clone()
            return given.to(kwargs.get("device") or given.device, kwargs.get("dtype") or given.dtype)
        if func is Tensor.register_hook and asking.f_code in _ANSWERS:
            return None  # it would ask the same of the gradient
        if func is Tensor.masked_select and asking.f_code in _ANSWERS:
            value, mask = args
            return torch.where(mask, value, value.new_zeros(()))
        if func is nn.functional.one_hot and num_classes(*args, **kwargs) > 0:
            return one_hot(args[0], num_classes(*args, **kwargs))
        if func in (Tensor.__getitem__, Tensor.__setitem__) and is_mask(args[1]):
            if asking.f_code is _MASKED or (len(args) == 3 and is_one_number(args[2])):
                return masked(*args)
        if func is Tensor.__getitem__ and has_number(args[1], varies):
            return entries(*args)
        if func in _COPIES and any(varies(leaf) for leaf in _listed(*args, **kwargs)):
            raise Untraceable(f"a tensor is made of the values of others; use torch.stack ({_place(asking)})")
        if func is Tensor.__bool__ and is_check(asking) and varies(args[0]):
            self.checks.append(detach_provenance(args[0]).detach())
        if func is Tensor.__float__ and self._checks and (equal := equal_scales(asking, args[0])) is not None:
            self.checks.extend(equal)
            return _constant(func, args, kwargs)
        if func in _VALUES:
            return self._value(func, args, kwargs, asking)
        if func in _SPLITS and any(isinstance(arg, Tensor) and varies(arg) for arg in (*args[1:], *kwargs.values())):
            raise Untraceable(f"{func.__name__} reads the values of a tensor in C++ ({_place(asking)})")
        return func(*args, **kwargs)

    def _value(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], asking: FrameType) -> Any:
        if asking.f_code in _ANSWERS:
            return _ANSWERS[asking.f_code]
        asked = [detach_provenance(arg) for arg in args if isinstance(arg, Tensor)]
        why = f"{_VALUES[func]} in Python depends on the value of a tensor"
        unlike = func in _UNLIKE and any(map(self._tape.varies, asked))
        if unlike or not self._tape.knows(asked, why):
            raise Untraceable(f"{why} ({_place(asking)})")
        return _constant(func, args, kwargs)

    def _note_guards(self, asking: FrameType) -> None:
        if self._tape.guarded and not self.guarded:
            self.guarded = f"{self._tape.guarded} ({_place(asking)})"

    def valid(self, check: Checks, results: Sequence[Tensor]) -> list[Tensor]:
        """Whether what was asked holds, and what is guarded is the same, as one truth; nothing where none is wanted."""
        checks = [*self.checks, *self._tape.guards]
        if check == "none" or not (checks or check == "all"):
            return []
        return [all_valid(checks, results if check == "all" else ())]

    @contextmanager
    def looked_up(self) -> Iterator[None]:
        """Look things up by a number that varies as tables of Python's own numbers do, or refuse to."""
        usual = Tensor.__hash__

        def hashed(tensor: Tensor) -> int:
            asking = _asking(sys._getframe(1))
            is_number = type(tensor) is Tensor and tensor.dim() == 0 and _root(asking) not in _OURS
            if is_number and self._tape.varies(tensor):
                why = "a table in Python depends on the value of a tensor"
                with torch._C.DisableTorchFunction():
                    number = _constant(Tensor.item, (tensor,), {}) if self._tape.knows([tensor], why) else None
                self._note_guards(asking)
                if number is not None:
                    return hash(number)
                self.refused = Untraceable(f"{why} ({_place(asking)})")
                raise self.refused
            return usual(tensor)  # type: ignore[no-untyped-call]

        with mock.patch.object(Tensor, "__hash__", hashed):
            yield

    def _collect(self, loss: Tensor, gradient: Tensor | None = None, **options: Any) -> None:
        forward = len(self._tape.graph.nodes)
        if WITH_BACKWARD * forward > self._max_nodes:
            raise TooLarge(self._max_nodes, forward)
        retain_graph = options.get("retain_graph")
        known = set(map(id, self.differentiate))
        leaves, oldest = leaves_behind(loss, self.differentiate)
        if oldest < self._since:
            raise Untraceable("it reads a tensor that was computed outside of it, with gradients")
        self.differentiate.extend(leaf for leaf in leaves if id(leaf) not in known)
        self.gradients.extend([None] * (len(self.differentiate) - len(self.gradients)))
        with without_hooks(self.differentiate):
            found = torch.autograd.grad(loss, self.differentiate, gradient, retain_graph, allow_unused=True)
        for i, (old, new) in enumerate(zip(self.gradients, found, strict=True)):
            if new is not None:
                self.gradients[i] = new if old is None else old + new


def _listed(*args: Any, **kwargs: Any) -> list[Tensor]:
    """The tensors in the lists among some arguments."""
    lists = [value for value in (*args, *kwargs.values()) if isinstance(value, (list, tuple))]
    return [leaf for leaf in pytree.tree_leaves(lists) if isinstance(leaf, Tensor)]


def _constant(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    with _disable_current_modes():
        return func(*args, **kwargs)


def _asking(frame: FrameType) -> FrameType:
    """Who called a function of torch's, behind what hands the call on."""
    while frame.f_back is not None and (
        frame.f_globals.get("__name__") in ("torch.overrides", "torch._tensor")
        or frame.f_code.co_name == "__torch_function__"  # of another mode
    ):
        frame = frame.f_back
    return frame


def _place(asking: FrameType) -> str:
    """File and line of the program that asked, through whatever library."""
    frame: FrameType | None = asking
    while frame is not None and _root(frame) in ("torch", "pyro"):
        frame = frame.f_back
    if frame is None or frame.f_globals.get("__name__", "").startswith(__package__):
        frame = asking
    return f"{Path(frame.f_code.co_filename).name}, line {frame.f_lineno}"


def _root(frame: FrameType) -> str:
    name: str = frame.f_globals.get("__name__", "")
    return name.split(".")[0]


def _foreign_noise() -> int:
    """The state of the generators whose numbers leave no trace."""
    numpy_state = np.random.get_state(legacy=False)
    return hash((random.getstate(), str(numpy_state["state"]["pos"]), numpy_state["state"]["key"].tobytes()))
