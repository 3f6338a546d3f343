"""The table of scores of disentanglement: its rows, its picture, and a quick run of all of it."""

from __future__ import annotations

import re

import pytest
import torch
from click.testing import CliRunner

import pyro_vae
from benchmarks.disentanglement import OBJECTIVES, SETTINGS, main, row, walk
from pyro_vae.config import FitConfig


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_objectives_differ_in_themselves_alone(name):
    FitConfig.from_settings(**SETTINGS | OBJECTIVES[name])
    assert set(OBJECTIVES[name]) <= {"objective", "beta"}


def test_a_row_is_of_means_and_spreads():
    scores = ("mig", "sap", "dci_disentanglement", "dci_completeness", "dci_informativeness")
    found = [dict.fromkeys(scores, value) | {"elbo": -40.0, "kl": 8.0, "active_units": 4} for value in (0.2, 0.4)]
    for each, seconds in zip(found, (30, 50), strict=True):
        each["seconds"] = seconds
    cells = ["`vae`", *["0.30 ± 0.14"] * 5, "-40.0 ± 0.0", "8.0 ± 0.0", "4.0 ± 0.0", "40"]
    assert row("vae", found) == cells


def test_a_walk_has_a_row_per_active_unit_named_by_its_factor():
    settings = SETTINGS | {"epochs": 1, "network": "mlp:hidden=8", "latent_dim": 3, "batch_size": 600}
    run = pyro_vae.fit(display=False, **settings)
    with torch.no_grad():  # the last unit says nothing
        for name, parameter in run.pair.guide.named_parameters():
            if parameter.shape[0] == 3 and "loc" in name:
                parameter[:2] *= 50
                parameter[2] = 0
    figure = walk(run, [[0.1, 0.0, 0.0, 0.0, 0.7], [0.0, 0.3, 0.0, 0.2, 0.1], [0.0] * 5], "title")
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["z_0, down 0.70", "z_1, size 0.30"]


@pytest.mark.exhaustive
def test_a_quick_run(tmp_path):
    out, picture = tmp_path / "found.jsonl", tmp_path / "walk.png"
    command = ["--quick", "--out", str(out), "--figure", str(picture)]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert re.findall(r"^\| `(\w+)`", result.output, re.MULTILINE) == list(OBJECTIVES)
    assert len(out.read_text().splitlines()) == len(OBJECTIVES)
    assert picture.read_bytes()[1:4] == b"PNG"
    assert CliRunner().invoke(main, command[:3]).output == result.output  # measured once
