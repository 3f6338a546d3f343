"""Which names a piece of code reads and writes, by the instructions that do so.

A name in a program may be four things: a global, a variable of an enclosing function, an attribute, or a mere word,
such as the name of a site.  Only the instruction tells them apart, and only what is loaded can make a difference to a
run: ``x`` in ``pyro.sample("x", ...)`` is not the global ``x``, and neither is the attribute in ``batch.x``.
"""

from __future__ import annotations

import dis
import functools
import re
import types
from collections.abc import Iterable
from dataclasses import dataclass

_GLOBALS = {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}
_ATTRIBUTES = {"LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR", "LOAD_SUPER_METHOD", "IMPORT_FROM"}
_REFERENCES = {"LOAD_CLOSURE", "COPY_FREE_VARS", "MAKE_CELL"}  # handed on to a nested function, which is looked at
_GLOBALS_BY_WORD = {"eval", "exec", "globals", "vars"}
_BY_ANY_NAME = {"__dict__", "__getattribute__", "locals", *_GLOBALS_BY_WORD}
_PUT_TOGETHER = {"BUILD_STRING", "FORMAT_VALUE", "FORMAT_SIMPLE", "FORMAT_WITH_SPEC"}  # a string, out of parts
_BY_WORD = {"getattr", "hasattr", "attrgetter", "methodcaller", "get_buffer", "get_parameter", "get_submodule"}

_KINDS, _NUMBERS = {"isinstance", "type"}, {"int", "float", "bool", "complex", "Number", "Real", "Integral"}

Names = frozenset[str]


@dataclass(frozen=True)
class Reads:
    """What some code, and the functions written inside it, load and store.

    Args:
        globals: names of globals that are loaded.
        cells: variables of enclosing functions that are loaded.
        attributes: attributes that are loaded, of whatever object.
        stored_globals: names of globals that are stored.
        stored_cells: variables of enclosing functions that are stored.
        stored_attributes: attributes that are stored, of whatever object.
        any_name: whether it can load an attribute by a name that is not written in it.
        by_word: whether it loads attributes by words, which may be held elsewhere.
        modules: names of modules that are imported.
    """

    globals: Names = frozenset()
    cells: Names = frozenset()
    attributes: Names = frozenset()
    stored_globals: Names = frozenset()
    stored_cells: Names = frozenset()
    stored_attributes: Names = frozenset()
    any_name: bool = False
    by_word: bool = False
    modules: Names = frozenset()

    @property
    def tells_numbers(self) -> bool:
        """Whether it may ask if something is a number of Python's own, which a tensor in its place is not."""
        return not (_KINDS.isdisjoint(self.globals) or _NUMBERS.isdisjoint(self.globals | self.attributes))

    def __or__(self, other: Reads) -> Reads:
        """What either of them loads and stores."""
        return Reads(
            self.globals | other.globals,
            self.cells | other.cells,
            self.attributes | other.attributes,
            self.stored_globals | other.stored_globals,
            self.stored_cells | other.stored_cells,
            self.stored_attributes | other.stored_attributes,
            self.any_name or other.any_name,
            self.by_word or other.by_word,
            self.modules | other.modules,
        )


@functools.lru_cache(maxsize=8192)
def reads(code: types.CodeType) -> Reads:
    """What a piece of code reads and writes; a name in a string counts as an attribute where it is looked up by one.

    Example:
        >>> def program(x):
        ...     y = scale * x.loc
        ...     return y, "z"
        >>> found = reads(program.__code__)
        >>> sorted(found.globals), sorted(found.attributes)
        (['scale'], ['loc'])
    """
    found = _own(code)
    inside: set[str] = set()
    stored: set[str] = set()
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            nested = reads(constant)
            inside |= nested.cells
            stored |= nested.stored_cells
            found |= Reads(
                nested.globals,
                frozenset(),
                nested.attributes,
                nested.stored_globals,
                frozenset(),
                nested.stored_attributes,
                nested.any_name,
                nested.by_word,
                nested.modules,
            )
    free = frozenset(code.co_freevars)
    found |= Reads(cells=free & inside, stored_cells=free & stored)
    called = found.globals | found.attributes
    by_word = bool(called & _BY_WORD)
    put_together = by_word and any(instruction.opname in _PUT_TOGETHER for instruction in dis.get_instructions(code))
    words = frozenset(_words(code.co_consts)) if called & (_BY_WORD | _GLOBALS_BY_WORD) else frozenset()
    return found | Reads(
        globals=words if called & _GLOBALS_BY_WORD else frozenset(),
        attributes=words if by_word else frozenset(),
        any_name=put_together or bool(called & _BY_ANY_NAME),
        by_word=by_word,
    )


def _own(code: types.CodeType) -> Reads:
    """What the code itself reads and writes, without the functions inside it."""
    loaded: dict[str, set[str]] = {kind: set() for kind in ("globals", "cells", "attributes", "modules")}
    stored: dict[str, set[str]] = {kind: set() for kind in ("globals", "cells", "attributes")}
    free = set(code.co_freevars)
    for instruction in dis.get_instructions(code):
        name, operation = instruction.argval, instruction.opname
        if operation in _REFERENCES or not isinstance(name, str):
            continue
        if operation == "IMPORT_NAME":
            loaded["modules"].add(name)
            continue
        into = stored if operation.startswith(("STORE", "DELETE")) else loaded
        if instruction.opcode in dis.hasfree:
            if name in free:
                into["cells"].add(name)
        elif instruction.opcode in dis.hasname:
            if "ATTR" in operation or operation in _ATTRIBUTES:
                into["attributes"].add(name)
            elif operation in _GLOBALS or into is stored:
                into["globals"].add(name)
            else:  # an instruction of a Python to come
                into["globals"].add(name)
                into["attributes"].add(name)
    return Reads(
        frozenset(loaded["globals"]),
        frozenset(loaded["cells"]),
        frozenset(loaded["attributes"]),
        frozenset(stored["globals"]),
        frozenset(stored["cells"]),
        frozenset(stored["attributes"]),
        modules=frozenset(loaded["modules"]),
    )


def _words(constants: Iterable[object]) -> Iterable[str]:
    """The strings among some constants, at any depth; the names in one, too."""
    for constant in constants:
        if isinstance(constant, str):
            yield constant
            yield from re.findall(r"[^\W\d]\w*", constant)
        elif isinstance(constant, (tuple, frozenset)):
            yield from _words(constant)
        elif isinstance(constant, types.CodeType):
            yield from _words(constant.co_consts)
