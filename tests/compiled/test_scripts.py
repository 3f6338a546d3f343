"""Scripts in the style of notebooks, with loops at top level, do with a compiled estimator what they did without.

Each script in ``scripts`` is one of stock Pyro and leaves its numbers in ``losses``.  It is run twice, as it stands and
with the compiled estimator in the place of ``Trace_ELBO``, as the main module of a notebook would be: its globals are
those that its loops bind anew.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pyro
import pytest
import torch

from pyro_vae.compiled import graphs

FOLDER = Path(__file__).parent / "scripts"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py"))
QUICK = {
    "annealed_attribute",
    "annealed_global",
    "data_bound_anew",
    "dataclass_and_namespace",
    "exceptions_on_purpose",
    "frozen_by_requires_grad",
    "loop_named_like_sites",
    "short_last_batch",
    "store_cleared_and_loaded",
}
PER_PAIR = {"norms_and_dropout": 4}  # training and evaluation of two ways to run
IMPORT = "from pyro.infer import SVI, Trace_ELBO\n"


def run(name: str, compiled: bool) -> dict[str, Any]:
    """Run a script; gives its globals, with the parameters that it left."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    source = (FOLDER / f"{name}.py").read_text()
    if compiled:
        assert "Trace_ELBO()" in source or "Trace_ELBO(num" in source
        source = source.replace("Trace_ELBO(", "CompiledTrace_ELBO(")
    space: dict[str, Any] = {"__name__": "__main__"}
    if compiled:
        exec("from pyro_vae.compiled import CompiledTrace_ELBO", space)
    with pyro.validation_enabled(True):
        exec(compile(source, name, "exec"), space)
    space["parameters"] = {name: value.detach().clone() for name, value in pyro.get_param_store().items()}
    space["noise"] = torch.rand(3)
    return space


@pytest.fixture
def pairs(monkeypatch) -> list[graphs.CompiledPair]:
    """The pairs that are made."""
    found: list[graphs.CompiledPair] = []
    make = graphs.CompiledPair.__init__

    def note(pair, *arguments):
        make(pair, *arguments)
        found.append(pair)

    monkeypatch.setattr(graphs.CompiledPair, "__init__", note)
    return found


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.exhaustive) for name in SCRIPTS]
)
def test_a_script_does_what_it_did(name, pairs):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* was not registered in the param store", UserWarning)
        stock, ours = run(name, compiled=False), run(name, compiled=True)
    assert ours["losses"] == pytest.approx(stock["losses"], rel=1e-5, abs=1e-6, nan_ok=True)
    torch.testing.assert_close(ours["parameters"], stock["parameters"], rtol=1e-4, atol=1e-6, equal_nan=True)
    assert torch.equal(ours["noise"], stock["noise"])
    assert pairs
    for pair in pairs:
        assert 1 <= pair.num_graphs <= PER_PAIR.get(name, 2), name
        assert not pair._said
