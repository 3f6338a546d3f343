"""A tape: the tensor operations of a run as nodes of a graph, written down as they happen.

A dispatch mode sees every operation below autograd, those of backward passes too, with the tensors that it is given and
those that it returns.  So it is enough to know which node made which tensor: a tensor that the tape has not met is one
that the program holds, and becomes an input of the graph, and one that was written out, ``torch.tensor(0.5)`` say, is
a constant of it.  Beside its own time an operation takes a tenth of what it takes under torch's ``make_fx``, which can
also follow sizes that vary, subclasses and modules.

What depends on the value of a tensor, a choice in Python or the shape of what a mask chooses, is written down for the
value that there is.  That is right for constants.  For others the tape can *guard* the value, as long as it is exact,
a whole number or a truth: an output of the graph then says whether it is the same again.
"""

from __future__ import annotations

import functools
import gc
import operator
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx
from torch.fx._lazy_graph_module import _make_graph_module, _use_lazy_graph_module
from torch.utils._python_dispatch import (
    TorchDispatchMode,
    _disable_current_modes,
    _get_current_dispatch_mode_stack,
)
from torch.utils.weak import WeakTensorKeyDictionary

from pyro_vae.compiled.forms import form_of
from pyro_vae.compiled.refusals import Untraceable
from pyro_vae.compiled.snapshot import storage
from pyro_vae.compiled.snapshot import written as written_to

aten = torch.ops.aten
# What these do depends on the values of a tensor, lengths or offsets, which they read without an operation.
_READ_ELSEWHERE = {"_pack_padded_sequence", "_pad_packed_sequence", "ctc_loss", "_ctc_loss", "segment_reduce"}
_ASKING_FOR_A_FORM = (aten.size.default, aten.stride.default, aten.storage_offset.default)
_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd
_BY_INDEX = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)


class Refused(Untraceable):
    """An operation cannot be written down; the text says why, and not yet where."""


class ValueNeeded(Refused):
    """An operation reads the value of a tensor in C++."""


class Tape(TorchDispatchMode):
    """Writes down what is done to tensors while it is entered.

    Args:
        inputs: the tensors whose values may differ in later runs.
        guarding: whether whole numbers and truths that are asked for may be guarded.

    Attributes:
        graph: what was done; its inputs are ``inputs``, then ``held``.
        held: tensors that were met and are none of the inputs, by reference.
        guards: of each guarded tensor, whether it has the value that it had, a truth.
        guarded: what depends on the first of them.
    """

    def __init__(self, inputs: Sequence[Tensor], guarding: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.graph, self.held = fx.Graph(), list[Tensor]()
        self.guards, self.guarded, self._guarding = list[Tensor](), "", guarding
        self._made = WeakTensorKeyDictionary()  # the node of each tensor
        self._varying, self._guarded = set[fx.Node](), set[fx.Node]()
        self._changed = set[int]()  # memory of constants into which something was written that varies
        self._constants = dict[str, Tensor]()
        self._last: fx.Node | None = None
        for i, tensor in enumerate(inputs):
            self._input(f"input_{i}", tensor)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if any(each.__torch_dispatch__ is not Tensor.__torch_dispatch__ for each in types):
            return NotImplemented  # a class of its own does it with tensors
        kwargs, kind = kwargs or {}, _kind(func)
        if kind.is_composite:  # in inference mode nobody has taken it apart
            with self:
                return func.decompose(*args, **kwargs)
        if func is aten.masked_select.default and args[0].shape == args[1].shape:
            func, args = aten.index.Tensor, (args[0], [args[1]])
        if func in _BY_INDEX:
            args = args[0], self._places(args[1], kind.refusal), *args[2:]
        elif kind.refusal:
            if not self.knows(_tensors((args, (*kwargs.values(),))), kind.refusal):
                raise kind.error(kind.refusal)
            return self._constants_of(func(*args, **kwargs))
        if func is aten.lift_fresh.default:  # its argument is nobody else's, and is not to change with the result
            func = aten.lift_fresh_copy.default
            self._constant(args[0])
        written = tuple(map(self._written, args)), {name: self._written(value) for name, value in kwargs.items()}
        result = func(*args, **kwargs)
        node = self.graph.create_node("call_function", func, *written, name=kind.name)
        varies = kind.is_random or not self._varying.isdisjoint(node.all_input_nodes)
        varies = varies or (bool(self._changed) and not self._changed.isdisjoint(_memory((args, (*kwargs.values(),)))))
        self._note(result, node, varies)
        if kind.writes and varies:
            self._changed |= _memory([*written_to(func, args, kwargs)])
        elif self._changed and kind.is_new and not varies:  # maybe where something was that is gone
            self._changed -= _memory(result)
        return result

    def varies(self, tensor: Tensor) -> bool:
        """Whether the value of a tensor can differ from run to run: all but what was made of constants alone."""
        node = self._made.get(tensor)
        return node is None or node in self._varying or not self._changed.isdisjoint(_memory(tensor))

    def knows(self, tensors: Iterable[Tensor], why: str) -> bool:
        """Whether later runs may rely on the values that some tensors have now; guards them where they vary.

        Args:
            tensors: what is asked of.
            why: what depends on their values, for a person.
        """
        varying = [tensor for tensor in tensors if self.varies(tensor)]
        if varying and not (self._guarding and all(map(_is_exact, varying))):
            return False
        self.guarded = self.guarded or (why if varying else "")
        for tensor in varying:
            node = self._node(tensor)
            if node in self._guarded and self._changed.isdisjoint(_memory(tensor)):
                continue
            self._guarded.add(node)
            with _disable_current_modes():
                value = tensor.detach().clone()
                self._constant(value)
                same = self.__torch_dispatch__(aten.eq.Tensor, (), (tensor, value))
                self.guards.append(self.__torch_dispatch__(aten.all.default, (), (same,)))
        return True

    def finish(self, outputs: Sequence[Tensor]) -> fx.GraphModule:
        """The graph of what was done so far, as a module.

        Args:
            outputs: what it returns.
        """
        self.graph.output(tuple(self._node(output) for output in outputs))
        with _use_lazy_graph_module(True):  # its Python is written when it is called, which most never are
            return _make_graph_module(self._constants, self.graph)

    def _input(self, name: str, tensor: Tensor) -> fx.Node:
        """A new input of the graph, behind the last one."""
        before = self.graph.inserting_before() if self._last is None else self.graph.inserting_after(self._last)
        with before:
            self._last = self.graph.placeholder(name)
        self._note(tensor, self._last, True)
        return self._last

    def _constant(self, tensor: Tensor) -> None:
        if tensor not in self._made:
            name = f"constant_{len(self._constants)}"
            self._constants[name] = tensor
            self._note(tensor, self.graph.get_attr(name), False)

    def _constants_of(self, value: Any) -> Any:
        """Copies, which a run may write to, of what is alike in every run."""
        if isinstance(value, (list, tuple)):
            return type(value)(map(self._constants_of, value))
        if isinstance(value, Tensor):
            self._constant(value)
            node = self.graph.call_function(aten.clone.default, (self._made[value],))
            value = value.clone()
            self._note(value, node, False)
        return value

    def _places(self, indices: Sequence[Tensor | None], refusal: str) -> Sequence[Tensor | None]:
        """Indices with the places that masks choose in the place of masks that are alike in every run.

        Args:
            indices: of an operation, one per dimension, or per dimensions of a mask.
            refusal: why others are refused, where the shape of its result depends on them.
        """
        masks = [index for index in indices if index is not None and index.dtype in (torch.bool, torch.uint8)]
        if not (self.knows(masks, refusal) if refusal else not any(map(self.varies, masks))):
            if refusal:
                raise Refused(refusal)
            return indices
        found: list[Tensor | None] = []
        for index in indices:
            if not any(index is mask for mask in masks):
                found.append(index)
                continue
            assert index is not None
            for places in index.nonzero().unbind(1):
                self._constant(places)
                found.append(places)
        return found

    def _node(self, tensor: Tensor) -> fx.Node:
        node = self._made.get(tensor)
        if node is None:
            self.held.append(tensor)
            node = self._input(f"held_{len(self.held) - 1}", tensor)
        return node

    def _written(self, value: Any) -> Any:
        """An argument as it stands in the graph."""
        if isinstance(value, Tensor):
            return self._node(value)
        if isinstance(value, (list, tuple)):
            return [*map(self._written, value)]
        return value

    def _note(self, value: Any, node: fx.Node, varies: bool) -> None:
        """Remember what an operation gave."""
        if varies:
            self._varying.add(node)
        node.meta["form"] = form_of(value)
        if isinstance(value, Tensor):
            self._made[value] = node
        elif isinstance(value, (list, tuple)):
            for i, part in enumerate(value):
                if isinstance(part, (Tensor, list, tuple)):
                    self._note(part, self.graph.call_function(operator.getitem, (node, i)), varies)


class _Kind(NamedTuple):
    """What is to be known of an operation before it is written down."""

    name: str
    is_composite: bool
    is_random: bool
    is_new: bool
    writes: bool
    refusal: str  # why it is none whose values can differ from run to run
    error: type[Refused]


@functools.cache
def _kind(func: Any) -> _Kind:
    refusal = ""
    asks = torch.Tag.data_dependent_output in func.tags
    if asks:
        refusal = f"{func} depends on the value of a tensor"
    elif torch.Tag.dynamic_output_shape in func.tags:
        refusal = f"the shape of what {func} returns depends on values"
    elif func._opname in _READ_ELSEWHERE:
        refusal = f"{func} reads the values of a tensor in C++"
    return _Kind(
        func._opname,
        func not in _ASKING_FOR_A_FORM and torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), _COMPOSITE),
        torch.Tag.nondeterministic_seeded in func.tags,
        not any(returned.alias_info for returned in func._schema.returns),
        any(argument.alias_info is not None and argument.alias_info.is_write for argument in func._schema.arguments),
        refusal,
        ValueNeeded if asks else Refused,
    )


def _is_exact(tensor: Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex())


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors among the arguments of an operation."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for entry in value:
            yield from _tensors(entry)


def _memory(value: Any) -> set[int]:
    """Where the tensors among something lie."""
    return {storage(tensor) for tensor in _tensors(value) if tensor.layout is torch.strided}


def is_recording() -> bool:
    """Whether what is done to tensors is written down."""
    return any(isinstance(mode, Tape) for mode in _get_current_dispatch_mode_stack())


@contextmanager
def undisturbed() -> Iterator[None]:
    """Keep Python from looking for garbage in the many objects of a recording, a fifth of a second each time.

    Autocast makes its copies of weights anew, since one that was made before is not of this run.
    """
    collects, caches = gc.isenabled(), torch.is_autocast_cache_enabled()
    gc.disable()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(caches)
        if collects:
            gc.enable()
