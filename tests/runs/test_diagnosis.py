"""The criticism of a run: its command, its files, and what it refuses."""

import functools
import json
import math
import shutil

import arviz
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray as xr
from click.testing import CliRunner
from pyro.infer.autoguide import AutoNormal

import pyro_vae
from pyro_vae.arviz_bridge.versions import as_arviz
from pyro_vae.cli import main
from pyro_vae.diagnostics import effort
from pyro_vae.diagnostics.effort import Effort
from pyro_vae.errors import InputError
from pyro_vae.runs.diagnosis import diagnose
from tests.runs.checkpoint_files import change_weights

QUICK = ["--num-data", "24", "--samples", "60", "--simulated", "30", "--split-gap", "0"]


SETTINGS = {"latent_dim": 3, "hidden": (32,), "likelihood": "bernoulli", "beta": 1.0, "display": False}


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A labelled run, hardly trained."""
    path = tmp_path_factory.mktemp("runs") / "labelled"
    pyro_vae.fit("ss_vae", out=path, epochs=2, **SETTINGS)
    return path


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "plain"
    pyro_vae.fit("vae", out=path, epochs=8, labels="none", **SETTINGS)
    return path


def run(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.mark.draws
@pytest.mark.parametrize("nuts", [0, pytest.param(2, marks=pytest.mark.exhaustive)])
def test_one_json_object_and_every_file_it_names(labelled, tmp_path, nuts, monkeypatch):
    monkeypatch.setattr(effort, "Effort", functools.partial(Effort, nuts_samples=60))
    path = tmp_path / "run"
    shutil.copytree(labelled, path)
    done = run("diagnose", path, *QUICK, "--nuts", nuts, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout, parse_constant=pytest.fail)
    names = [check["name"] for check in found["checks"]]
    assert names == [
        "importance weights",
        "Pareto k-hat",
        "inference gap",
        "moments",
        "calibration (SBC)",
        *["NUTS"] * bool(nuts),
        "latent units",
        "aggregate posterior",
        "convergence (SVI)",
        "labels",
    ]
    assert found["verdict"] in ("trust", "trust with care", "do not trust")
    assert found["num_data"] == 24
    k_hat = [each["k_hat"] for each in found["worst"]]
    assert k_hat == sorted(k_hat, reverse=True)
    assert json.loads((path / "diagnosis.json").read_text())["checks"] == found["checks"]
    pictures = {p.stem for p in (path / "figures/diagnosis").glob("*.png")}
    assert pictures == {"k_hat", "worst", "ranks", "coverage", "latents", "aggregate", "reliability", "confusion"}
    assert all((path / "figures/diagnosis" / f"{name}.png").stat().st_size > 5000 for name in pictures)
    assert (path / "posterior_nuts.nc").exists() is bool(nuts)
    if nuts:
        with xr.open_datatree(path / "posterior_nuts.nc", engine="h5netcdf") as tree:
            sizes = dict(tree["posterior"].sizes)
        assert sizes | {"chain": 4, "draw": 60, "datum": 2} == sizes


def test_the_posterior_is_read_by_xarray_and_by_arviz(labelled):
    """The same numbers as ``run.to_arviz`` gives, whoever reads the file."""
    assert run("diagnose", labelled, *QUICK, "--check", "latents").exit_code == 0
    with xr.open_datatree(labelled / "posterior.nc", engine="h5netcdf") as tree:
        read = tree.load()
    made = pyro_vae.load(labelled).to_arviz(24, 500)
    assert read["posterior"].sizes == made["posterior"].sizes
    np.testing.assert_array_equal(read["posterior"]["z"], made["posterior"]["z"])
    assert {"posterior", "prior", "observed_data", "sample_stats", "training"} <= set(read.children)
    assert "log_weight" in read["sample_stats"]
    table = arviz.summary(as_arviz(read), var_names=["z"], kind="stats")
    assert table["mean"].astype(float).iloc[0] == pytest.approx(
        float(made["posterior"]["z"].mean(("chain", "draw")).values.ravel()[0]), abs=0.02
    )


def test_the_table_has_a_verdict_a_check_and_one_on_the_whole(plain):
    done = run("diagnose", plain, *QUICK)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert "vae + mean_field on digits, 24 of test" in lines
    assert any(line.startswith("Pareto k-hat") for line in lines)
    assert any(line.startswith("Verdict: ") for line in lines)
    assert "Worst data by k-hat: " in done.stdout
    assert "labels" not in [line.split()[0] for line in lines if line.strip()]


def test_a_collapsed_posterior_is_reported(labelled):
    """After two epochs z says nothing of x."""
    done = run("diagnose", labelled, *QUICK, "--check", "latents", "--json")
    (check,) = (check for check in json.loads(done.stdout)["checks"] if check["name"] == "latent units")
    assert check["verdict"] == "trust with care"
    assert "posterior collapse" in check["finding"]


def test_chosen_checks_alone_are_made(plain):
    found = diagnose(pyro_vae.load(plain), 60, Effort(100, 30, only=("calibration",))).criticism
    assert found.calibration is not None
    assert found.aggregate is None
    names = [check.name for check in found.checks]
    assert names == ["importance weights", "Pareto k-hat", "inference gap", "moments", "calibration (SBC)"]


def test_iterates_are_those_of_the_training(plain):
    run = pyro_vae.load(plain, checkpoint="last")
    iterates, names = run.iterates
    assert iterates.shape[1] == len(names) == 200
    assert len(iterates) >= 8 * 10  # ten an epoch, or a few more
    trained = run.pair.trained()
    places = [name.removesuffix("]").rsplit("[", 1) for name in names]
    last = torch.stack([trained[name].detach().flatten()[int(i)] for name, i in places])
    assert torch.equal(iterates[-1], last)
    assert (iterates[0] != last).double().mean() > 0.5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--samples", "0"], "expected at least one sample per datum; got 0; use --samples 1000"),
        (["--num-data", "0"], "expected at least one datum to look at; got 0; use --num-data 1000"),
        (["--nuts", "-1"], "expected a number of data, 0 or more, for nuts; got -1"),
        (["--check", "label"], "expected a known check; got 'label'; did you mean 'labels'?"),
        (["--check", "labels"], "expected a model with class labels, and labels of the data, for the check 'labels'"),
        (["--check", "nuts"], "expected data to draw for, for the check 'nuts'; got none, or too few; leave it out"),
        (["--split", "tests"], "expected a split: train, validation or test"),
    ],
)
def test_bad_calls_are_refused_in_one_line(plain, words, message):
    before = sorted(plain.rglob("*"))
    done = run("diagnose", plain, *words)
    assert done.exit_code == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert sorted(plain.rglob("*")) == before


def test_a_run_without_its_data_is_refused(tmp_path):
    x = np.random.default_rng(0).random((60, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "mine.npz", x=x)
    pyro_vae.fit("vae", data=str(tmp_path / "mine.npz"), out=tmp_path / "run", epochs=1, hidden=(8,), display=False)
    (tmp_path / "mine.npz").unlink()
    done = run("diagnose", tmp_path / "run")
    assert done.exit_code == 2
    assert "mine.npz" in done.stderr
    assert not (tmp_path / "run/diagnosis.json").exists()


def test_weights_that_are_no_numbers_are_said(plain, tmp_path):
    """A run whose decoder has a NaN in it: everything is counted, and JSON stays JSON."""
    broken = tmp_path / "broken"
    shutil.copytree(plain, broken)
    (broken / "posterior.nc").unlink(missing_ok=True)

    def poison(weights):
        name = next(name for name in weights if name.startswith("model.decoder") and name.endswith("bias"))
        weights[name][0] = math.nan

    change_weights(broken, poison)
    done = run("diagnose", broken, *QUICK, "--check", "latents", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout, parse_constant=pytest.fail)
    assert found["verdict"] == "do not trust"
    assert found["checks"][0]["num_bad"] == 24 * 60
    assert "posterior.nc was not written: the programs make no data" in done.stderr
    assert not (broken / "posterior.nc").exists()


@pytest.mark.exhaustive
def test_chains_of_shared_latents_are_saved_with_all_rows_of_the_data(tmp_path):
    def model(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mu, 1.0).expand([3]).to_event(1), obs=x)

    guide = AutoNormal(model)
    run = pyro_vae.fit(model, guide, data=np.zeros((40, 3)), out=tmp_path / "run", epochs=1, display=False)
    found = diagnose(run, 20, Effort(samples=20, nuts=4, nuts_samples=4, only=("nuts",)), split="train")
    found.save()
    rows = len(run.split("train"))
    nuts, own = (xr.open_datatree(tmp_path / "run" / name) for name in ("posterior_nuts.nc", "posterior.nc"))
    assert nuts["observed_data"]["x"].shape[-2:] == own["observed_data"]["x"].shape[-2:] == (rows, 3)


def test_a_run_in_memory_has_no_files():
    run = pyro_vae.fit("vae", epochs=1, latent_dim=2, hidden=(8,), labels="none", display=False)
    found = diagnose(run, 30, Effort(50, 0, only=("latents",)))
    assert found.as_dict()["num_data"] == 30
    with pytest.raises(InputError, match="a run with a directory"):
        found.save()


def test_the_same_seed_finds_the_same(plain):
    run = pyro_vae.load(plain)
    first, second = (diagnose(run, 40, Effort(50, 30, only=("calibration",)), seed=3).as_dict() for _ in range(2))
    assert first | {"seconds": 0} == second | {"seconds": 0}
