"""A quicker start of Inductor's C++ toolchain.

Before the first kernel of a process that has nothing cached, Inductor compiles and loads a small library for each set
of vector instructions that the processor knows, one after another, and then a header of all that kernels use: about 12
s in which the second core is idle.  The libraries tell whether the compiler takes the flags; the preprocessor, run on
nothing, tells the same in 10 ms.  The header is compiled in the background while the graph is lowered.

Both are a head start only: without them, or in a torch that does these things in another way, kernels are compiled as
ever.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from unittest import mock

_EMPTY_KERNEL = '#include "torch/csrc/inductor/cpp_prefix.h"\nextern "C" void kernel(float* x) {}\n'


def head_start() -> None:
    """Make ready what all kernels need; part of it goes on in the background."""
    _try(_choose_instructions)
    threading.Thread(target=lambda: _try(_compile_header), daemon=True).start()


def _try(step: Callable[[], None]) -> None:
    with suppress(Exception):
        step()


def _choose_instructions() -> None:
    """Let Inductor choose its vector instructions, by the compiler's word on the flags; the choice is kept."""
    from torch._inductor import cpu_vec_isa

    with mock.patch.object(cpu_vec_isa.VecISA, "check_build", _takes_flags):
        cpu_vec_isa.valid_vec_isa_list()


def _takes_flags(isa: Any, code: str) -> bool:
    from torch._inductor.cpp_builder import get_cpp_compiler

    command = [get_cpp_compiler(), *isa.build_arch_flags().split(), "-x", "c++", "-E", "/dev/null"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _compile_header() -> None:
    """Ask for a kernel that does nothing: its header is that of them all, and is compiled at once."""
    from torch._inductor.codecache import CppPythonBindingsCodeCache

    CppPythonBindingsCodeCache.load_pybinding_async(["float*"], _EMPTY_KERNEL)
