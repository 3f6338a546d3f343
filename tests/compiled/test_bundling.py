"""Kernels that share a file are those that have one each."""

from __future__ import annotations

import logging
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from pyro_vae.compiled import bundling
from pyro_vae.compiled.bundling import Kernel
from pyro_vae.compiled.lowering import compile_recording
from pyro_vae.compiled.tracing import record

SOURCE = """
#include <torch/csrc/inductor/cpp_prefix.h>
extern "C"  void  kernel(const float* in_ptr0, float* out_ptr0)
{
    for (int64_t i = 0; i < 3; i++) out_ptr0[i] = FACTOR * in_ptr0[i];
}
"""
TYPES = ("const float*", "float*")


def bundle_of(*sources: str, num_compilers: int = 1):
    bundle = bundling.Bundle(ThreadPoolExecutor(2).submit, num_compilers)
    return [bundle.add(Kernel(TYPES, source)) for source in sources]


def answer(function) -> list[float]:
    x, y = torch.tensor([1.0, 2.0, 3.0]), torch.zeros(3)
    function(x, y)
    return y.tolist()


@pytest.mark.exhaustive
def test_every_kernel_is_its_own(monkeypatch):
    monkeypatch.setattr(bundling, "PER_FILE", 2)
    factors = [2.0, 3.0, 5.0, 7.0, 11.0]
    waiting = bundle_of(*(SOURCE.replace("FACTOR", f"{factor}f") for factor in factors), num_compilers=2)
    assert [answer(wait())[1] for wait in waiting] == [2 * factor for factor in factors]
    with pytest.raises(RuntimeError, match="requires 2 args"):
        waiting[0]()(torch.zeros(3))


@pytest.mark.exhaustive
def test_kernels_that_do_not_compile_together_are_compiled_alone(monkeypatch, caplog):
    monkeypatch.setattr(bundling, "_one_file", lambda *_: "this is no C++")
    with caplog.at_level(logging.INFO, logger=bundling.__name__):
        (wait,) = bundle_of(SOURCE.replace("FACTOR", "13.0f"))
        assert answer(wait()) == [13.0, 26.0, 39.0]
    assert "kernels are compiled one by one" in caplog.text


@pytest.mark.parametrize(
    ("source", "known"),
    [
        (SOURCE, True),
        (SOURCE.replace("extern", "#include <cmath>\nextern"), False),
        (SOURCE.replace("    for", "    #pragma GCC ivdep\n    for"), True),
        (SOURCE.replace("extern", "#define SEVEN 7\nextern"), False),
        (SOURCE + 'extern "C" void other() {}', False),
        (SOURCE.replace("void  kernel", "int kernel"), False),
        (re.sub("#include.*\n", "", SOURCE), False),
    ],
)
def test_kernels_of_another_form_are_left_to_inductor(source, known):
    assert Kernel(TYPES, source).is_known is known


@pytest.mark.exhaustive
def test_a_graph_computes_the_same_bits(monkeypatch):
    torch.manual_seed(0)
    x, w = torch.randn(40, 30), torch.randn(30, 30).requires_grad_()

    def run() -> tuple[Tensor, Tensor]:
        loss = (torch.softmax(torch.tanh(x @ w) @ w, -1).square().sum(0).log() * torch.rand(30)).sum()
        return loss, *torch.autograd.grad(loss, [w])

    found = []
    recording = record(run, [x, w])
    for num_bundled in range(2):
        with torch._inductor.utils.fresh_cache(), monkeypatch.context() as patched:
            if not num_bundled:
                patched.setattr(Kernel, "is_known", False)
            torch.manual_seed(1)
            found.append(compile_recording(recording, [x, w])([x, w]))
    assert all(map(torch.equal, *found))
