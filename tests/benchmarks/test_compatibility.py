"""The matrix of Pyro's programs: what it calls wrong, eager or compiled, and that it finds a planted fault."""

from __future__ import annotations

import json
import textwrap

import pytest
from click.testing import CliRunner

from benchmarks import pyro_examples
from benchmarks.compatibility import notebooks, programs
from benchmarks.compatibility.verdicts import first_compiled, judge, largest_difference


def run(losses, graphs=0, end="finished", whole=2.0, **changes):
    count = len(losses)
    found = {
        "losses": losses,
        "seconds": [0.1] * count,
        "starts": [0.5 * i for i in range(count)],
        "graphs": [0, 0] + [graphs] * (count - 2) if graphs else [0] * count,
        "compiled": {"pair": graphs},
        "said": [],
        "whole": whole,
        "end": end,
        "problem": "",
    }
    return {**found, **changes}


def test_equal_losses_and_a_graph_are_compiled():
    found = judge("p", run([3.0, 2.0, 1.0]), run([3.0, 2.0, 1.0], graphs=1, whole=1.0))
    assert (found.status, found.difference, found.graphs, found.whole) == ("compiled", 0.0, 1, 0.5)
    assert found.first == pytest.approx(1.1)


def test_another_loss_is_wrong_and_a_word_is_the_reason():
    said = [["NotCompiled", "Trace_ELBO runs eagerly: a choice"], ["Recompiled", "anew"]]
    found = judge("p", run([3.0, 2.0, 1.0]), run([3.0, 2.0, 1.1], said=said))
    assert found.status == "wrong"
    assert found.difference == pytest.approx(0.1 / 3)
    assert (found.why, found.notes) == ("Trace_ELBO runs eagerly: a choice", ["anew"])
    assert judge("p", run([3.0, 2.0, 1.0]), run([3.0, 2.0, 1.0], said=said)).status == "eager"


def test_an_error_of_ours_alone_is_a_crash_and_one_of_both_is_none():
    failed = {"end": "failed", "problem": "ValueError: no"}
    assert judge("p", run([1.0, 2.0]), run([1.0], **failed)).status == "crashed"
    assert judge("p", run([1.0, 2.0], **failed), run([1.0, 2.0], **failed)).status == "eager"
    assert judge("p", run([], **failed), run([], **failed)).status == "not run"
    assert judge("p", run([1.0, 2.0]), run([])).status == "wrong"
    late = judge("p", run([1.0, 2.0]), run([], end="time"))
    assert (late.status, late.why) == ("not run", "no call within the time limit")


def test_losses_that_are_no_numbers_agree_with_each_other_alone():
    nan = float("nan")
    assert largest_difference([1.0, nan], [1.0, nan]) == 0
    assert largest_difference([1.0, nan], [1.0, 2.0]) == float("inf")
    assert largest_difference([float("inf"), 2.0], [float("inf"), 2.0]) == 0
    assert first_compiled(run([1.0, 2.0])) is None


def test_a_notebook_is_its_code_without_what_speaks_to_ipython(tmp_path):
    cells = [
        {"cell_type": "markdown", "source": ["# no code"]},
        {"cell_type": "code", "source": ["%matplotlib inline\n", "x = 1\n", "for i in range(3):\n", "    x += i"]},
        {"cell_type": "code", "source": ["!pip list\n", "y = x % 3"]},
    ]
    notebook = tmp_path / "a.ipynb"
    notebook.write_text(json.dumps({"cells": cells}))
    found = {}
    exec(notebooks.script(notebook), found)
    assert (found["x"], found["y"]) == (4, 1)


def test_programs_have_names_of_their_own():
    names = [(program.name, program.few) for program in programs.PROGRAMS]
    assert len(set(names)) == len(names)


SCRIPT = """
    import torch, pyro, pyro.distributions as dist
    from pyro.infer import SVI, Trace_ELBO
    import {own}

    def model(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0).expand([len(x)]).to_event(1), obs=x)

    def guide(x):
        pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.3)), 1.0))

    svi = SVI(model, guide, pyro.optim.Adam({{"lr": 0.1}}), Trace_ELBO())
    for step in range(20):
        svi.step(torch.ones(4) if step < 12 or "Compiled" not in {own}.kind(svi) else torch.zeros(4))
"""


@pytest.mark.slow
def test_a_checkout_is_run_and_a_planted_fault_is_found(tmp_path, monkeypatch):
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples/right.py").write_text(textwrap.dedent(SCRIPT.format(own="honest")))
    (tmp_path / "examples/wrong.py").write_text(textwrap.dedent(SCRIPT.format(own="sly")))
    (tmp_path / "examples/missing.py").write_text("import not_installed")
    (tmp_path / "honest.py").write_text("kind = lambda svi: ''")
    (tmp_path / "sly.py").write_text("kind = lambda svi: ''.join(map(str, type(svi.loss.__self__).__mro__))")
    found = [programs.Program(f"examples/{name}.py") for name in ("right", "wrong", "missing", "absent")]
    monkeypatch.setattr(pyro_examples, "PROGRAMS", found)
    table = tmp_path / "table.md"
    done = CliRunner().invoke(
        pyro_examples.main, ["--pyro", str(tmp_path), "--replay", "--markdown", str(table)], catch_exceptions=False
    )
    assert done.exit_code == 0
    rows = {line.split(" | ")[0][2:]: line.split(" | ")[1] for line in table.read_text().splitlines()[2:]}
    assert rows == {"right.py": "compiled", "wrong.py": "wrong", "missing.py": "not run", "absent.py": "not run"}
    assert "No module named 'not_installed'" in table.read_text()
