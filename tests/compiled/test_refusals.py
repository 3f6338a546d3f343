"""What cannot be compiled runs eagerly, and says why."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch._inductor.exc import InvalidCxxCompiler

from pyro_vae.compiled import NotCompiled, graphs
from tests.compiled.agreeing import agree, gaussian

pytestmark = pytest.mark.usefixtures("uncompiled")


def branch(x, z):
    return x if z > 0 else x + 1


def size(x, z):
    return x[: 1 + int(z > 0)]


def whole_number(x, z):
    return x + int(x.sum())


def masked(x, z):
    return x[x > z]


def masked_in_steps(x, z):
    return torch.masked_select(x, x > z)


def listed(x, z):
    return x + sum(x.tolist()[:2])


@pytest.mark.parametrize(
    ("structure", "reason"),
    [
        (branch, "a choice in Python depends on the value of a tensor"),
        (size, "a whole number in Python depends on the value of a tensor"),
        (whole_number, "a whole number in Python depends on the value of a tensor"),
        (masked, "the shape of what aten.index.Tensor returns depends on values"),
        (masked_in_steps, "the shape of what aten.masked_select.default returns depends on values"),
        (listed, "a list in Python depends on the value of a tensor"),
    ],
)
def test_a_structure_that_depends_on_values_runs_eagerly(structure, reason):
    def model(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        y = structure(x, z)
        pyro.sample("x", dist.Normal(z, 1.0).expand([len(y)]).to_event(1), obs=y)

    place = rf"\(test_refusals.py, line {structure.__code__.co_firstlineno + 1}\)"
    with pytest.warns(NotCompiled, match=f"Trace_ELBO runs eagerly: {reason} {place}") as said:
        assert agree(lambda: model, each=5).graphs_of_model == 0
    assert len(said) == 1


def test_what_the_compiler_refuses_runs_eagerly_and_says_so_once(monkeypatch):
    def compiler(*arguments):
        raise InvalidCxxCompiler

    monkeypatch.setattr(graphs, "compile_recording", compiler)
    with pytest.warns(NotCompiled, match="no C.. compiler was found") as said:
        assert agree(lambda: gaussian, each=5).graphs_of_model == 0
    assert len(said) == 1


@pytest.mark.exhaustive
def test_without_a_compiler_programs_run_eagerly_and_say_so_once(tmp_path):
    script = """
        import warnings, torch, pyro, pyro.distributions as dist
        from pyro.infer import Trace_ELBO
        from pyro_vae.compiled import CompiledTrace_ELBO

        def model(x):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0).expand([len(x)]).to_event(1), obs=x)

        def guide(x):
            pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.3)), 1.0))

        elbo, found = CompiledTrace_ELBO(), []
        for loss in (elbo, Trace_ELBO()):
            torch.manual_seed(0)
            found.append([loss.loss_and_grads(model, guide, torch.ones(4)) for _ in range(4)])
        assert torch.tensor(found[0]).allclose(torch.tensor(found[1])), found
        assert elbo.num_graphs(model, guide) == 0
    """
    environment = {
        **os.environ,
        "CXX": "/nowhere/c++",
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path),
        "PYTHONPATH": os.getcwd(),
    }
    command = [sys.executable, "-W", "always::UserWarning", "-c", textwrap.dedent(script)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if "NotCompiled" in line]
    assert len(said) == 1, done.stderr
    assert "no C++ compiler was found" in said[0]
