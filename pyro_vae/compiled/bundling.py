"""All kernels of a graph by one or two runs of the C++ compiler.

Inductor compiles a file for each kernel.  Nearly all of the second that one takes is what every file does anew: read
the header, instantiate its templates, link.  Here kernels share a file, each with Inductor's own bindings in a
namespace of its own: thirteen kernels of a small program take 1.6 s of a processor in the place of twelve.

Kernels of a form that is not known here, and those of a file that does not compile, are compiled one by one as ever.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

logger = logging.getLogger(__name__)

PER_FILE = 8  # kernels for which a further file, and a further processor, pay
_HEADERS = "#include <Python.h>\n#include <sstream>\n#include <cstdlib>\n#include <cerrno>\n"
_FIRST_LINE = re.compile(r"\s*(#include <torch/csrc/inductor/cpp_prefix\.h>)\n")
_DIRECTIVE = re.compile(r"^\s*#(?!\s*pragma)", re.MULTILINE)
_SIGNATURE = re.compile(r'extern "C"\s+void\s+kernel\(')


class Kernel(NamedTuple):
    """The types of a kernel's arguments, and its source."""

    argtypes: Sequence[str]
    source: str

    @property
    def is_known(self) -> bool:
        """Whether it is one function after one header, which can lie in a namespace."""
        alone = len(_DIRECTIVE.findall(self.source)) == self.source.count('extern "C"') == 1
        return alone and bool(_FIRST_LINE.match(self.source) and _SIGNATURE.search(self.source))


@contextmanager
def bundled() -> Iterator[None]:
    """A context in which Inductor compiles the kernels of a graph together."""
    try:
        from torch._inductor.async_compile import AsyncCompile, get_compile_threads
        from torch._inductor.codecache import LambdaFuture

        alone = AsyncCompile.cpp_pybinding
    except (ImportError, AttributeError):  # another torch
        yield
        return

    def cpp_pybinding(self: Any, argtypes: Sequence[str], source_code: str) -> Any:
        kernel = Kernel(tuple(argtypes), source_code)
        if get_compile_threads() <= 1 or not kernel.is_known:
            return alone(self, list(argtypes), source_code)
        bundle = vars(self).get("_bundle")
        if bundle is None or bundle.is_compiled:
            bundle = self._bundle = Bundle(self.submit, get_compile_threads())
        return LambdaFuture(bundle.add(kernel))

    with mock.patch.object(AsyncCompile, "cpp_pybinding", cpp_pybinding):
        yield


class Bundle:
    """The kernels of a graph, compiled when the first of them is wanted.

    Args:
        submit: runs a function beside this thread.
        num_compilers: how many run at once.
    """

    def __init__(self, submit: Callable[..., Any], num_compilers: int) -> None:
        self._submit, self._num_compilers = submit, num_compilers
        self._kernels: list[Kernel] = []
        self._functions: list[Any] | None = None

    @property
    def is_compiled(self) -> bool:
        """Whether it can take no more in."""
        return self._functions is not None

    def add(self, kernel: Kernel) -> Callable[[], Any]:
        """Take a kernel in; gives what waits for its function."""
        self._kernels.append(kernel)
        return partial(self._function, len(self._kernels) - 1)

    def _function(self, place: int) -> Any:
        if self._functions is None:
            try:
                self._functions = self._together()
            except Exception as error:  # of any kind: one by one they may do
                logger.info(f"kernels are compiled one by one: {type(error).__name__}")
                self._functions = self._alone()
        return self._functions[place]

    def _together(self) -> list[Any]:
        num_files = min(self._num_compilers, math.ceil(len(self._kernels) / PER_FILE))
        files = [self._kernels[first::num_files] for first in range(num_files)]
        waiting = [load_together(kernels, self._submit) for kernels in files]
        found = [functions() for functions in waiting]
        return [found[i % num_files][i // num_files] for i in range(len(self._kernels))]

    def _alone(self) -> list[Any]:
        from torch._inductor.codecache import CppPythonBindingsCodeCache as Alone

        waiting = [Alone.load_pybinding_async(*kernel, submit_fn=self._submit) for kernel in self._kernels]
        return [function() for function in waiting]


def load_together(kernels: Sequence[Kernel], submit: Callable[..., Any]) -> Callable[[], list[Any]]:
    """Begin to compile kernels from one file; gives what waits for their functions.

    Args:
        kernels: known ones.
        submit: runs a function beside this thread.
    """
    from torch._inductor.codecache import CppPythonBindingsCodeCache as Alone

    names = [f"kernel_{i}" for i in range(len(kernels))]
    entries: list[Any] = [type(name, (Alone,), {"entry_function": name}) for name in names]

    class Together(Alone):
        @classmethod
        def _load_library_inner(cls, path: str, key: str) -> Any:
            modules = [entry._load_library_inner(path, key) for entry in entries]
            return SimpleNamespace(functions=[getattr(m, name) for m, name in zip(modules, names, strict=True)])

    load = Together.load_async(_one_file(kernels, names, Alone), "cpu", submit_fn=submit)
    return lambda: list(load().functions)


def _one_file(kernels: Sequence[Kernel], names: Sequence[str], alone: Any) -> str:
    """The source of kernels with their bindings, the name of whose module and function is given."""
    header = _FIRST_LINE.match(kernels[0].source)
    assert header is not None
    parts = [f"#define PY_SSIZE_T_CLEAN\n{header[1]}\n{_HEADERS}"]
    for name, kernel in zip(names, kernels, strict=True):
        arguments = (f"parse_arg<{kind.replace('const ', '')}>(args, {n})" for n, kind in enumerate(kernel.argtypes))
        bindings = alone.suffix_template.format(
            arg_len=len(kernel.argtypes),
            call_entry_func=alone.call_entry_function.format(", ".join(arguments)),
            entry_func=name,
            extra_parse_arg="",
        )
        source = _SIGNATURE.sub("void kernel(", _FIRST_LINE.sub("", kernel.source, 1))
        parts.append(f"namespace of_{name} {{\n{source}\n{bindings}\n}}\n")
    return "".join(parts)
