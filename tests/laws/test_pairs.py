"""Which parts go together: the refusals are these and no others, and whatever is supported trains."""

from __future__ import annotations

import json

import pytest
import torch

from pyro_vae.guides import GUIDES
from pyro_vae.models import MODELS
from pyro_vae.objectives import OBJECTIVES
from pyro_vae.priors import PRIORS
from pyro_vae.runs import compatibility
from tests.conftest import compatible

OWN_PRIOR = {"banana", "cvae", "linear_gaussian"}
LABELLED = {"adgm", "db_vae", "sdgm", "ss_vae"}
REFUSED = {
    "guides": set(),
    "priors": {(prior, model) for prior in PRIORS for model in OWN_PRIOR},
    "objectives": {(name, model) for name in ("analytic_kl", "beta_tc") for model in {*LABELLED, "hvae"}}
    | {(name, model) for name in OBJECTIVES if name != "elbo" for model in ("adgm", "sdgm")},  # y is given a draw of a
}
REFUSED_BY_GUIDE = {
    "priors": {("vampprior", guide) for guide in ("iaf", "planar", "spline")},
    "objectives": {("dreg", "planar"), ("stl", "planar")}
    | {("beta_tc", guide) for guide in GUIDES if guide != "mean_field"},
}
WITHOUT_FLOOR = {"free_bits": "free_bits:floor=0"}  # below the floor nothing has a gradient, as it should be


@pytest.mark.exhaustive
@pytest.mark.parametrize(("columns", "expected"), [("models", REFUSED), ("guides", REFUSED_BY_GUIDE)])
def test_the_matrix(columns, expected):
    for kind, matrix in compatible()[columns].items():
        refused = {(row, column) for row, entries in matrix.items() for column, reason in entries.items() if reason}
        assert refused == expected[kind], kind
        for row, column in refused:
            assert matrix[row][column].startswith("expected ")
            assert "; got " in matrix[row][column]


def train(pair, objective: str) -> None:
    """Three steps of Adam; the bound is finite and the last is not the first."""
    x = (torch.rand(6, *compatibility.IMAGES.event_shape) < 0.5).float()
    loss = OBJECTIVES.build(objective, probed=pair.probe(x), num_data=60)
    parameters = [p for module in pair.modules().values() for p in module.parameters()]
    before = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.Adam(parameters, lr=0.01)
    for step in range(3):
        optimizer.zero_grad()
        value = loss(x, beta=0.5 * (step + 1), epoch=float(step))
        value.backward()
        assert torch.isfinite(value)
        assert all(torch.isfinite(p.grad).all() for p in parameters if p.grad is not None)
        optimizer.step()
    moved = sum(not torch.equal(p, old) for p, old in zip(parameters, before, strict=True))
    assert moved == len(parameters)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_supported_objectives_train_every_parameter_of_a_model(model, objective):
    if (objective, model) not in REFUSED["objectives"]:
        train(compatibility.build(model), WITHOUT_FLOOR.get(objective, objective))


@pytest.mark.parametrize("guide", GUIDES)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_supported_objectives_train_every_parameter_of_a_guide(guide, objective):
    if (objective, guide) not in REFUSED_BY_GUIDE["objectives"]:
        train(compatibility.build("vae", guide), WITHOUT_FLOOR.get(objective, objective))


@pytest.mark.parametrize("guide", GUIDES)
@pytest.mark.parametrize("prior", PRIORS)
def test_supported_priors_train_with_a_guide(guide, prior):
    if (prior, guide) not in REFUSED_BY_GUIDE["priors"]:
        train(compatibility.build("hvae", guide, prior), "elbo")


@pytest.mark.exhaustive
def test_list_pairs(command, monkeypatch):
    known = compatible()
    monkeypatch.setattr(compatibility, "with_models", lambda: known["models"])
    monkeypatch.setattr(compatibility, "with_guides", lambda: known["guides"])
    result = command("list", "--pairs")
    assert result.exit_code == 0, result.output
    assert "dreg, stl with planar: expected a guide whose density" in result.stdout
    found = json.loads(command("list", "--pairs", "--json").stdout)
    assert found["models"]["guides"]["iaf"] == dict.fromkeys(MODELS, "")
    assert "one that has its own" in found["models"]["priors"]["flow"]["cvae"]
    refused = command("list", "models", "--pairs")
    assert refused.exit_code == 2
    assert refused.stderr.strip() == "Error: expected list --pairs alone; got models too; leave out models"
