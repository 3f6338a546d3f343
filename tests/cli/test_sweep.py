"""The command that fits many settings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import pyro_vae
from pyro_vae.runs import fitting, sweep
from pyro_vae.runs.display import Silent
from tests.cli.test_commands import assert_refused
from tests.conftest import toy

SMALL = ["--labels", "none", "--hidden", "8", "--batch-size", "40", "--epochs", "2"]


@pytest.fixture
def data(tmp_path) -> str:
    np.save(tmp_path / "x.npy", toy()[0])
    return str(tmp_path / "x.npy")


@pytest.fixture
def swept(command, data):
    def run(*words):
        return command("sweep", "--data", data, *SMALL, "--out", "swept", *words)

    return run


@pytest.mark.exhaustive
def test_a_sweep_has_a_run_per_combination_and_seed_and_goes_on(swept, tmp_path, monkeypatch):
    done = swept("--set", "beta=0.5;1", "--seeds", "2", "--latent-dim", "2", "--json")
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)["runs"]
    assert [(row["beta"], row["seed"]) for row in rows] == [("0.5", "0"), ("0.5", "1"), ("1", "0"), ("1", "1")]
    table = pd.read_csv(tmp_path / "swept" / sweep.TABLE)
    for row, number in zip(table.to_dict("records"), table["elbo"], strict=True):
        run = pyro_vae.load(row["run"])
        assert (run.config.beta, run.config.seed) == (row["beta"], row["seed"])
        assert run.folder.evaluation["elbo"] == pytest.approx(number)
    alone = fitting.fit(data=str(tmp_path / "x.npy"), labels="none", hidden=(8,), batch_size=40, epochs=2,
                        latent_dim=2, beta=0.5, seed=1, display=False)  # fmt: skip
    assert (
        alone.history["validation_elbo"].iloc[-1] == pyro_vae.load(rows[1]["run"]).history["validation_elbo"].iloc[-1]
    )

    fitted = []
    monkeypatch.setattr(fitting, "fit", lambda **given: fitted.append(given["out"]) or alone)
    monkeypatch.setattr(sweep, "_is_done", lambda path: True)
    swept("--set", "beta=0.5;1;2", "--seeds", "2", "--latent-dim", "2")
    assert [Path(path).name for path in fitted] == ["beta=2,seed=0", "beta=2,seed=1"]


class Cut(Silent):
    """Ends a fit after its first epoch, as a kill does."""

    def epoch(self, row):
        raise MemoryError


def test_a_run_that_was_cut_off_is_resumed_and_one_that_is_done_is_left(swept, data, tmp_path):
    layers = [{"labels": "none", "hidden": (8,), "batch_size": 40, "latent_dim": 2, "data": data, "epochs": 3}]
    (planned,) = sweep.plan(tmp_path / "swept", layers, {"beta": ["1"]}, 1)
    settings = planned.config.model_dump()
    whole = pyro_vae.fit(**settings, display=False).history
    with pytest.raises(MemoryError):
        pyro_vae.fit(**settings, out=planned.path, display=Cut())
    assert len(pyro_vae.load(planned.path).history) == 1
    words = ("--set", "beta=1", "--latent-dim", "2", "--epochs", "3")
    assert swept(*words).exit_code == 0
    pd.testing.assert_frame_equal(pyro_vae.load(planned.path).history, whole)
    before = {path: path.stat().st_mtime_ns for path in planned.path.rglob("*")}
    assert swept(*words).exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in planned.path.rglob("*")} == before


def test_fits_that_fail_are_named_and_the_others_count(swept):
    done = swept("--set", "latent_dim=2", "--set", "network=mlp;mlp:nothing=1")
    assert done.exit_code == 1
    assert "expected an option of the network 'mlp'; got 'nothing'" in done.stderr
    assert "1 of 2" in done.stderr
    assert "elbo" in done.stdout


def test_means_and_deviations_over_seeds():
    table = pd.DataFrame(
        {
            "beta": ["1", "1", "2", "2"],
            "seed": ["0", "1", "0", "1"],
            "elbo": [-1.0, -3.0, -2.0, None],
            "failed": [None, None, None, "so"],
        }
    )
    assert sweep.summary_of(table, ["beta"]) == [
        {"beta": "1", "runs": "2", "elbo": "-2 ± 1.41", "failed": ""},
        {"beta": "2", "runs": "2", "elbo": "-2", "failed": "1"},
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "beta"], "expected a setting and its values, --set NAME=VALUE,VALUE; got 'beta'"),
        (["--set", "betta=1"], "expected a setting that exists; got 'betta'; did you mean 'beta'?"),
        (["--set", "beta=1,-2"], "expected beta to be"),
        (["--set", "beta=1,1"], "expected every combination of settings once; got beta=1,seed=0 twice"),
        (["--set", "beta=1", "--set", "beta=2"], "expected --set beta once; got twice"),
        (["--set", "seed=1,2"], "expected --seeds for several seeds"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_fitted(swept, words, said, tmp_path):
    assert_refused(swept(*words), said)
    assert not (tmp_path / "swept").exists()


def test_another_sweep_in_the_same_place_is_refused(swept):
    assert swept("--set", "beta=1", "--latent-dim", "2").exit_code == 0
    assert_refused(swept("--set", "beta=1", "--latent-dim", "3"), "expected a run with latent dim 3 at")


@pytest.mark.exhaustive
def test_fits_in_processes_are_those_of_one(swept):
    rows = {}
    for jobs, out in ((1, "one"), (2, "two")):
        done = swept("--set", "beta=0.5;1", "--latent-dim", "2", "--jobs", str(jobs), "--json", "--out", out)
        rows[jobs] = [row["elbo"] for row in json.loads(done.stdout)["runs"]]
    assert rows[1] == pytest.approx(rows[2], rel=1e-4)
