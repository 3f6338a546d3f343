"""Functions of libraries that a run called, since somebody may put others in their place.

What a library does is in the graph; that ``Normal.log_prob`` is another function now is not seen by looking at the
programs.  So the functions of torch and Pyro that a run called are known by where they were found, and looked up there
before the graph runs again.
"""

from __future__ import annotations

import types
from types import CodeType, FrameType
from typing import Any

import torch
from torch.nn import functional

_SPACES = (vars(torch), vars(functional))
_ROOMS = ("torch.nn", "torch.distributions", "pyro.distributions", "pyro.nn", "pyro.infer", "pyro.contrib", "pyro.ops")


class Patchable:
    """The functions that a run called, each as it was found in a class or a module."""

    def __init__(self) -> None:
        self._of_classes: dict[tuple[type, str], Any] = {}
        self._of_spaces: dict[tuple[int, str], tuple[Any, Any]] = {}
        self._seen: set[tuple[CodeType, type]] = set()

    def note(self, frame: FrameType) -> None:
        """Note the function that a frame runs, if it is one of a library."""
        code, name = frame.f_code, frame.f_code.co_name
        if name.startswith("<") or not frame.f_globals.get("__name__", "").startswith(_ROOMS):
            return
        first = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
        owner = first if isinstance(first, type) else type(first)
        if (code, owner) in self._seen:
            return
        self._seen.add((code, owner))
        found = getattr(owner, name, None)
        if found is not getattr(owner, name, None):  # it is made anew when it is read
            self._note_in(owner, name)
        elif found is not None:
            self._of_classes[owner, name] = found
        if _code(found) is code:
            return
        for space in (*map(vars, owner.__mro__), frame.f_globals):  # called by a subclass, or a function of a module
            if _code(space.get(name)) is code:
                self._of_spaces[id(space), name] = space, space[name]
                return

    def note_in_c(self, function: Any) -> None:
        """Note a function of torch's that is written in C."""
        name = function.__name__
        for space in _SPACES:
            if space.get(name) is function:
                self._of_spaces[id(space), name] = space, function

    def _note_in(self, owner: type, name: str) -> None:
        for space in map(vars, owner.__mro__):
            self._of_spaces[id(space), name] = space, space.get(name)
            if name in space:
                return

    def is_unchanged(self) -> bool:
        """Whether every function is still the one that is found there."""
        return all(getattr(owner, name, None) is it for (owner, name), it in self._of_classes.items()) and all(
            space.get(name) is it for (_, name), (space, it) in self._of_spaces.items()
        )


def _code(thing: Any) -> CodeType | None:
    """The code of a function or a property, under its decorators."""
    if isinstance(thing, property):
        thing = thing.fget
    thing = getattr(thing, "__wrapped__", thing)
    return thing.__code__ if isinstance(thing, types.FunctionType) else None
