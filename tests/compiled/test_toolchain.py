"""The head start chooses what Inductor would choose, and nothing depends on it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from pyro_vae.compiled import toolchain
from pyro_vae.compiled.lowering import compile_recording
from pyro_vae.compiled.tracing import record

CHOOSE = """
from torch._inductor.cpu_vec_isa import pick_vec_isa
{first}
chosen = pick_vec_isa()
print(chosen, chosen.build_arch_flags())
"""
OURS = "from pyro_vae.compiled.toolchain import _choose_instructions; _choose_instructions()"


def chosen(first: str) -> str:
    command = [sys.executable, "-W", "ignore", "-c", CHOOSE.format(first=first)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
def test_the_instructions_are_those_that_inductor_finds_by_compiling_for_each():
    assert chosen(OURS) == chosen("") != ""


@pytest.mark.parametrize(("flags", "taken"), [("-O2", True), ("-mno-such-instructions", False)])
def test_the_compiler_is_asked_whether_it_takes_the_flags(flags, taken):
    class Instructions:
        def build_arch_flags(self):
            return flags

    assert toolchain._takes_flags(Instructions(), "") is taken


@pytest.mark.parametrize("step", ["_choose_instructions", "_compile_header"])
def test_a_head_start_that_fails_is_no_failure(monkeypatch, step):
    tried = []

    def fail() -> None:
        tried.append(step)
        raise OSError("no such thing in this torch")

    monkeypatch.setattr(toolchain, step, fail)
    x = torch.randn(3)
    (found,) = compile_recording(record(lambda: [x.sin() + 1], [x]), [x])([x])
    assert tried
    assert torch.allclose(found, x.sin() + 1)
