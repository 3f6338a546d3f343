"""fit, resume and load, over Python."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoDiagonalNormal

import pyro_vae
from pyro_vae.config import FitConfig
from pyro_vae.data import from_arrays, load_data
from pyro_vae.errors import InputError, TrainingError
from pyro_vae.guides import GUIDES, MeanField
from pyro_vae.models import MODELS, VAE
from pyro_vae.networks import MLP
from pyro_vae.objectives import OBJECTIVES
from pyro_vae.pairs import draw_terms
from pyro_vae.runs import fitting
from pyro_vae.runs.display import Silent
from pyro_vae.training import automatic
from tests.conftest import FAST, combinations
from tests.guides.programs import PROGRAMS
from tests.runs.checkpoint_files import training_file, weights, weights_file


def quietly(**settings):
    return pyro_vae.fit(display=False, **(FAST | settings))


@pytest.mark.parametrize(("model", "guide"), combinations(MODELS, GUIDES, colours=[2]))
def test_fit_save_load_evaluate_is_identical(model, guide, toy_npz, tmp_path):
    run = quietly(model=model, guide=guide, data=toy_npz, out=tmp_path / "run", epochs=1)
    loaded = pyro_vae.load(tmp_path / "run")
    for split in ("validation", "test"):
        before, after = run.evaluate(split, num_samples=7), loaded.evaluate(split, num_samples=7)
        assert before.pop("seconds") >= 0
        assert after.pop("seconds") >= 0
        assert before == after
    assert loaded.config == run.config
    assert loaded.history.equals(run.history)
    assert torch.equal(loaded.sample(5), run.sample(5))
    x = run.data.test.values()
    assert torch.equal(loaded.encode(x), run.encode(x))
    assert torch.equal(loaded.reconstruct(x), run.reconstruct(x))


@pytest.mark.draws
def test_the_run_directory_holds_what_it_should(toy_npz, tmp_path):
    run = quietly(model="ss_vae", data=toy_npz, out=tmp_path / "run")
    found = {str(path.relative_to(run.path)) for path in run.path.rglob("*") if path.is_file()}
    files = {weights_file(run.path, name) for name in ("best", "last")}
    assert found == {
        "config.json",
        "history.csv",
        "evaluation.json",
        "checkpoints/current.json",
        *(str(path.relative_to(run.path)) for path in (*files, training_file(run.path))),
        "figures/elbo.png",
        "figures/samples.png",
        "figures/reconstructions.png",
        "figures/classes.png",
        "figures/latent.png",
        "figures/traverse.png",
        "frames/0000.png",
        "frames/0001.png",
        "frames/0002.png",
    }
    assert min(path.stat().st_size for path in run.folder.figures.iterdir()) > 5000, "not a pixel each"
    content = json.loads((run.path / "config.json").read_text())
    assert content["format_version"] == 2
    assert content["data"]["num_data"] == [48, 6, 6]
    assert FitConfig.from_settings(**content["config"]) == run.config
    assert list(run.history["epoch"]) == [1, 2]
    assert {"beta", "train_loss", "validation_elbo", "validation_kl", "validation_accuracy"} <= set(run.history)
    assert not list(tmp_path.glob(".*"))


def test_best_and_last_are_what_they_say(toy_npz, tmp_path):
    run = quietly(data=toy_npz, out=tmp_path / "run", epochs=6, lr=0.5, lr_schedule="constant", beta=1)
    best_epoch = int(run.history["validation_elbo"].idxmax()) + 1
    assert best_epoch < 6, "the learning rate should be far too large for the last epoch to be the best"
    again = quietly(data=toy_npz, epochs=best_epoch, lr=0.5, lr_schedule="constant", beta=1)
    best, last = (pyro_vae.load(run.path, checkpoint=name) for name in ("best", "last"))
    for name, value in again.pair.state_dict().items():
        assert torch.equal(best.pair.state_dict()[name], value)
        assert torch.equal(run.pair.state_dict()[name], value)
    assert any(not torch.equal(last.pair.state_dict()[name], value) for name, value in best.pair.state_dict().items())


def test_seeds_decide_everything_and_leak_nowhere(toy_npz):
    torch.manual_seed(123)
    before = torch.get_rng_state()
    first = quietly(data=toy_npz, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    second, third = quietly(data=toy_npz, seed=1), quietly(data=toy_npz, seed=2)
    assert first.history.equals(second.history)
    assert not first.history.equals(third.history)
    assert not pyro.get_param_store().keys()


def test_labels_reach_the_classifier(toy_npz):
    run = quietly(model="ss_vae", data=toy_npz, epochs=30, lr=0.01, labels=12)
    test = run.data.test
    assert run.evaluate()["accuracy"] == 1.0
    assert torch.equal(run.classify(test.values()), test.labels)
    assert run.class_probabilities(test.values()).sum(-1).allclose(torch.ones(6))


def test_labels_change_nothing_for_a_model_without_them(toy_npz):
    assert quietly(data=toy_npz, labels=6).history.equals(quietly(data=toy_npz, labels="none").history)


def test_an_unlabelled_file_fits_a_model_without_labels(toy_arrays):
    run = quietly(data=toy_arrays[0], labels=100)
    assert run.facts.class_names == ()
    with pytest.raises(InputError, match="expected num_classes for the model 'ss_vae'; got none"):
        quietly(model="ss_vae", data=toy_arrays[0])


def test_class_conditional_samples_share_their_style(toy_npz):
    run = quietly(model="ss_vae", data=toy_npz, epochs=25, lr=0.02, hidden=(32,), likelihood="bernoulli")
    samples = torch.stack([run.sample(4, y=label) for label in range(3)])
    assert torch.equal(samples[0], run.sample(4, y=0))
    guesses = run.classify(samples.flatten(0, 1)).reshape(3, 4)
    assert (guesses == torch.arange(3).unsqueeze(1)).all()
    draws = run.sample(50, mean=False)
    assert set(draws.unique().tolist()) <= {0.0, 1.0}


def gray(top):
    return np.random.default_rng(0).uniform(size=(40, 9)) * top


@pytest.mark.parametrize(
    ("data", "likelihood", "binarization", "said"),
    [
        ("digits", "binomial:trials=16", "none", "pixels that count from 0 to 16; likelihood binomial:trials=16"),
        (gray(2).astype(np.int64).clip(0, 1), "bernoulli", "none", "pixels that are 0 or 1; likelihood bernoulli"),
        ((gray(2) > 1).astype(np.uint8), "bernoulli", "none", "pixels that are 0 or 1; likelihood bernoulli"),
        (gray(256).astype(np.uint8), "gaussian", "none", "divided by 255; likelihood gaussian"),
        (gray(1).astype(np.float32), "gaussian", "none", "as they are; likelihood gaussian"),
        (gray(9) - 4, "gaussian", "none", "as they are; likelihood gaussian"),
    ],
)
def test_the_likelihood_follows_the_pixels_and_is_said_first(data, likelihood, binarization, said, tmp_path, capsys):
    run = pyro_vae.fit(data=data, labels="none", epochs=1, hidden=(8,), latent_dim=2, out=tmp_path / "run")
    assert said in capsys.readouterr().err.splitlines()[0]
    loaded = pyro_vae.load(run.path)
    for config in (run.config, loaded.config):
        assert (config.likelihood, config.binarization) == (likelihood, binarization)
        assert (config.epochs, config.beta, config.patience) == (1, 1.0, 5)
    x = torch.zeros(3, *run.facts.event_shape)
    assert torch.equal(loaded.decode(torch.ones(3, 2)), run.decode(torch.ones(3, 2)))
    assert loaded.encode(x).shape == (3, 2)


def test_gray_pixels_that_the_literature_binarizes_are_drawn(toy_arrays):
    data = dataclasses.replace(from_arrays(toy_arrays[0]), kind="intensities")
    run = quietly(data=data, labels="none", epochs=1)
    assert (run.config.likelihood, run.config.binarization) == ("bernoulli", "dynamic")
    assert set(run.split("test").x().unique().tolist()) == {0, 1}


def test_what_auto_became_is_resumed(toy_npz, tmp_path, monkeypatch):
    monkeypatch.setattr(automatic, "STEPS", (6, 6))
    run = quietly(data=toy_npz, epochs="auto", out=tmp_path / "run", batch_size=100)
    assert run.config.epochs == len(run.history) == 6
    monkeypatch.setattr(automatic, "STEPS", (9, 9))  # a later version
    with pytest.raises(InputError, match="more epochs than the 6"):
        pyro_vae.resume(run.path, epochs="auto", display=False)
    assert pyro_vae.resume(run.path, epochs=8, display=False).config.beta == run.config.beta


def test_early_stopping_says_why(toy_npz, capsys):
    run = pyro_vae.fit(
        **(FAST | {"data": toy_npz, "epochs": 50, "lr": 0.5, "lr_schedule": "constant", "beta": 1, "patience": 2})
    )
    assert len(run.history) < 50
    best = int(run.history["validation_elbo"].idxmax()) + 1
    assert len(run.history) == best + 2
    assert run.stopped.startswith(f"stopped early after epoch {best + 2}: ")
    assert run.stopped in capsys.readouterr().err


def test_a_run_that_stopped_early_is_not_trained_on_unasked(toy_npz, tmp_path):
    settings = {"epochs": 50, "lr": 0.5, "lr_schedule": "constant", "beta": 1, "patience": 2}
    run = quietly(data=toy_npz, out=tmp_path / "run", **settings)
    before = (tmp_path / "run" / "history.csv").read_bytes()
    for unchanged in ({}, {"epochs": 50}, {"lr": 0.1}):
        with pytest.raises(InputError, match=r"has not ended; got one that stopped early .*; use --patience none"):
            pyro_vae.resume(run.path, display=False, **unchanged)
    assert (tmp_path / "run" / "history.csv").read_bytes() == before
    longer = pyro_vae.resume(run.path, display=False, patience=len(run.history))
    assert len(longer.history) > len(run.history)


def test_early_stopping_waits_for_the_warm_up(toy_npz):
    settings = {"epochs": 12, "lr": 0.5, "lr_schedule": "constant", "patience": 1, "beta": "linear:0:1:10"}
    assert len(quietly(data=toy_npz, **settings).history) >= 11


def test_beta_schedule_is_recorded(toy_npz):
    run = quietly(data=toy_npz, epochs=4, beta="linear:0:2:2")
    assert list(run.history["beta"]) == [1, 2, 2, 2]


REALNVP = "realnvp:num_blocks=2,hidden=8"  # begins from the first batch, which a resumed run must not look at again


@pytest.mark.parametrize(
    ("model", "number", "settings"),
    [("vae", signal.SIGINT, {}), ("ss_vae", signal.SIGTERM, {}), ("hvae", signal.SIGINT, {"prior": REALNVP})],
)
def test_resumed_in_two_parts_is_the_run_in_one(model, number, settings, toy_npz, tmp_path):
    """Stopped by a signal in the middle of an epoch, and resumed."""
    whole = quietly(model=model, data=toy_npz, out=tmp_path / "whole", epochs=4, **settings)

    class StopAt(Silent):
        def start(self, trainer):
            self.trainer = trainer

        def step(self, progress):
            if (progress.epoch, progress.step) == (2, 1):
                os.kill(os.getpid(), number)

    before = signal.getsignal(number)  # Ctrl-C is ignored where the tests run in the background of a shell
    changed = settings | {"model": model, "data": toy_npz, "epochs": 4}
    with pytest.raises(pyro_vae.Interrupted) as caught:
        pyro_vae.fit(**(FAST | changed), out=tmp_path / "parts", display=StopAt())
    assert len(caught.value.run.history) == 2
    assert caught.value.exit_status == 128 + number
    assert signal.getsignal(number) is before
    resumed = pyro_vae.resume(tmp_path / "parts", display=False)
    assert_same_run(whole.path, resumed.path)


def test_a_prior_that_begins_from_data_does_so_once(toy_npz, tmp_path):
    """Before the first step and not at a later look; what it began from is saved.  Over 20 rows and draws a standard
    deviation is off by its sixth part or so: half of it is three of those."""
    run = quietly(data=toy_npz, out=tmp_path / "run", epochs=1, prior=REALNVP, lr=1e-9)
    model, guide = run.probed.pair.model, run.probed.pair.guide
    scale = model.prior.norms[0].log_scale.exp().detach()
    assert (scale - 1).abs().min() > 1e-4
    z = guide.posterior(run.data.train.values()).sample((200,)).flatten(0, 1)
    torch.testing.assert_close(scale, z.std(0), rtol=0.5, atol=0)
    again = pyro_vae.load(run.path).probed.pair.model.prior.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.prior.state_dict().items())


def assert_same_run(first, second):
    assert (first / "history.csv").read_bytes() == (second / "history.csv").read_bytes()
    for name in ("best", "last"):
        ours, theirs = (weights(path, name) for path in (first, second))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.exhaustive
def test_killed_in_mid_epoch_and_resumed_ends_bit_equal(toy_npz, tmp_path):
    """SIGKILL in a process of its own, at a step in the middle of the third epoch."""
    script = textwrap.dedent(
        """
        import os, signal, sys, torch, pyro_vae
        from pyro_vae.runs.display import Silent
        torch.set_num_threads(1)

        class Killer(Silent):
            def step(self, progress):
                if (progress.epoch, progress.step) == (2, 1):
                    os.kill(os.getpid(), signal.SIGKILL)

        settings = dict(epochs=5, batch_size=20, hidden=(8,), latent_dim=2, labels=6)
        pyro_vae.fit("ss_vae", data=sys.argv[1], out=sys.argv[2], display=Killer(), **settings)
        """
    )
    process = subprocess.run([sys.executable, "-c", script, toy_npz, str(tmp_path / "killed")], capture_output=True)
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()
    assert len((tmp_path / "killed" / "history.csv").read_text().splitlines()) == 3
    resumed = pyro_vae.resume(tmp_path / "killed", display=False)
    whole = quietly(model="ss_vae", data=toy_npz, out=tmp_path / "whole", epochs=5)
    assert_same_run(whole.path, resumed.path)
    assert resumed.evaluate() | {"seconds": 0} == whole.evaluate() | {"seconds": 0}


def test_resume_with_more_epochs_appends_to_the_history(toy_npz, tmp_path):
    first = quietly(data=toy_npz, out=tmp_path / "run")
    more = pyro_vae.resume(tmp_path / "run", epochs=5, display=False)
    assert list(more.history["epoch"]) == [1, 2, 3, 4, 5]
    assert more.history.iloc[:2].equals(first.history)
    assert pyro_vae.load(tmp_path / "run").config.epochs == 5


def test_resume_refuses_another_model_other_data_and_nothing_to_do(toy_npz, tmp_path, toy_arrays):
    quietly(data=toy_npz, out=tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=r"expected model 'vae', as the run .* got 'ss_vae'; leave out --model"):
        pyro_vae.resume(tmp_path / "run", model="ss_vae", epochs=9)
    with pytest.raises(InputError, match=r"the data that the run was fitted on, .*; got other data under that name"):
        pyro_vae.resume(tmp_path / "run", data="digits", epochs=9)
    with pytest.raises(InputError, match="expected seed"):
        pyro_vae.resume(tmp_path / "run", seed=1, epochs=9)
    with pytest.raises(InputError, match=r"expected more epochs than the 2 .*; got 2; use --epochs 4"):
        pyro_vae.resume(tmp_path / "run")
    np.savez(toy_npz, x=toy_arrays[0][::-1], y=toy_arrays[1])
    with pytest.raises(InputError, match="expected the data that the run was fitted on"):
        pyro_vae.resume(tmp_path / "run", epochs=9)
    with pytest.raises(InputError, match="expected the data that the run was fitted on"):
        pyro_vae.load(tmp_path / "run").evaluate()
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_last_good_epoch(tmp_path, toy_arrays):
    class Poisoned(VAE):
        steps = 0

        def forward(self, x=None, y=None):
            self.steps += self.training
            return super().forward(x if self.steps <= 4 else x * float("nan"), y)

    model = Poisoned((1, 6, 6), 2, network=MLP((8,)))
    with pytest.raises(TrainingError, match=r"nan .*in epoch 2, step 2: the model's site 'x' .* 20 rows") as caught:
        quietly(model=model, data=toy_arrays[0], out=tmp_path / "run", epochs=9)
    loaded = pyro_vae.load(tmp_path / "run", model=VAE((1, 6, 6), 2, network=MLP((8,))), checkpoint="last")
    assert all(value.isfinite().all() for value in loaded.pair.state_dict().values())
    assert len(loaded.history) == 1
    (finding,) = loaded.folder.evaluation["findings"]
    assert f"{finding['found']}; {finding['mend']}" == str(caught.value)
    assert "the state after epoch 1 is kept; try a smaller --lr" in str(caught.value)


@pytest.mark.parametrize("scale", [1e6, 1e20])
def test_numbers_that_are_not_scaled_are_refused_with_the_flag_that_scales_them(scale):
    x = np.random.default_rng(0).normal(size=(60, 4)) * scale + 100 * scale
    with pytest.raises(TrainingError, match=r"in epoch 1, step 1: the guide's site 'z' .* rows") as caught:
        quietly(data=x, labels="none", likelihood="gaussian")
    mend = re.search(r"--scale (\S+) or --standardize$", str(caught.value))
    assert mend is not None, caught.value
    assert quietly(data=x, labels="none", likelihood="gaussian", scale=float(mend[1])).history.notna().all(axis=None)


def test_fractions_of_bytes_are_refused_with_the_scale_of_bytes_where_they_fail():
    x = 255 * np.random.default_rng(0).random((60, 1, 8, 8)) ** 0.1
    with pytest.raises(
        TrainingError, match=r"which go up to 25\d\.\d+, by --scale 255 or --standardize, or try a smaller --lr"
    ):
        quietly(data=x, labels="none", likelihood="gaussian", lr=1e6)


def test_counts_that_fail_are_not_to_be_divided():
    x = np.random.default_rng(0).poisson(40, (60, 4))
    with pytest.raises(TrainingError, match=r"; try a smaller --lr, such as 250000, or look at those rows$"):
        quietly(data=x, labels="none", likelihood="poisson", lr=1e6)


def test_any_pyro_program_fits_saves_and_loads(tmp_path):
    """Plain functions with pyro.param: a Poisson regression of counts, whose answer is known."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Gamma(2.0, 1.0))
            pyro.sample("x", dist.Poisson(z.unsqueeze(-1)).to_event(1), obs=x)

    def guide(x):
        rate = pyro.param("rate", torch.tensor(1.0), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Gamma(2.0 + x.squeeze(-1), rate))

    counts = torch.distributions.Poisson(torch.distributions.Gamma(2.0, 1.0).sample((400, 1))).sample().numpy()
    settings = {"epochs": 40, "lr": 0.1, "batch_size": 50}
    run = quietly(model=model, guide=guide, data=counts, out=tmp_path / "run", **settings)
    fitted = run.pair.parameters()["rate"].exp().item()
    assert fitted == pytest.approx(2.0, abs=0.2)  # conjugacy: p(z | x) = Gamma(2 + x, 2)
    loaded = pyro_vae.load(tmp_path / "run", model=model, guide=guide)
    assert torch.equal(loaded.pair.state_dict()["param.rate"], run.pair.state_dict()["param.rate"])
    assert run.evaluate(num_samples=50)["nll"] == pytest.approx(-run.evaluate(num_samples=50)["elbo"], abs=0.02)
    with pytest.raises(
        InputError, match=r"which was fitted on arrays; got none; open it with pyro_vae.load\(path, data="
    ):
        loaded.evaluate()
    with pytest.raises(InputError, match=r"expected the model .*model itself, .* pass it from Python, as model="):
        pyro_vae.load(tmp_path / "run")
    assert not pyro.get_param_store().keys()


def test_an_autoguide_over_global_sites_fits(tmp_path):
    """Sites outside the plate have no terms per datum; the bound is still there."""

    def model(x):
        loc = pyro.sample("loc", dist.Normal(0.0, 10.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(loc, 1.0).expand([1]).to_event(1), obs=x)

    x = np.random.default_rng(0).normal(3.0, 1.0, (100, 1)).astype(np.float32)
    guide = AutoDiagonalNormal(model)
    run = quietly(model=model, guide=guide, data=x, epochs=100, lr=0.3, batch_size=80, out=tmp_path / "run")
    last = pyro_vae.load(run.path, checkpoint="last", model=model, guide=AutoDiagonalNormal(model))
    exact = run.data.train.values().sum().item() / (80 + 1 / 100)
    assert last.guide.loc.item() == pytest.approx(exact, abs=0.1)
    assert run.history["validation_elbo"].iloc[-1] > run.history["validation_elbo"].iloc[0]


def test_a_guide_by_name_for_a_program_of_ones_own(tmp_path):
    """It is made anew for what is loaded and resumed, and its weights are put back."""
    x = np.random.default_rng(0).normal(size=(120, 4)).astype(np.float32)
    settings = {"data": x, "labels": "none", "hidden": (16,)}
    run = quietly(model=PROGRAMS["linear"].model, guide="iaf:num_transforms=1", out=tmp_path / "run", **settings)
    assert run.config.guide == "iaf:num_transforms=1"
    again = pyro_vae.load(run.path, model=PROGRAMS["linear"].model)
    assert torch.equal(again.encode(x[:5]), run.encode(x[:5]))
    longer = pyro_vae.resume(run.path, model=PROGRAMS["linear"].model, data=x, epochs=4, display=False)
    assert longer.history["epoch"].tolist() == [1, 2, 3, 4]
    assert longer.history["train_loss"].tolist()[:2] == run.history["train_loss"].tolist()


def test_a_guide_by_name_needs_a_model_with_latent_sites():
    with pytest.raises(InputError, match="expected a model with a latent site; got one that samples nothing"):
        quietly(model=lambda x: None, data=np.zeros((20, 4)))


class _Parts(torch.nn.Module):
    def model(self, x):
        pyro.sample("x", dist.Normal(torch.zeros(3), 1.0).to_event(1), obs=x)


@pytest.mark.parametrize(
    ("programs", "message"),
    [
        ({"model": PROGRAMS["linear"].model, "guide": None}, "got None; leave it out for one by name, or write lambda"),
        ({"model": None}, 'got None; use "vae"'),
        ({"model": _Parts()}, "got a _Parts without forward; model=vae.model"),
        ({"model": torch.nn.Module()}, "got a Module without forward; write its forward"),
        ({"model": _Parts}, r"got the class _Parts; make one: model=_Parts\(…\)"),
        ({"model": lambda x: None, "guide": AutoDiagonalNormal}, r"make one: guide=AutoDiagonalNormal\(model\)"),
        ({"model": lambda x: x.no_such_thing}, r"a model that runs on data of shape \(16, 4\); got AttributeError"),
    ],
)
def test_what_is_no_program_is_refused(programs, message):
    with pytest.raises(InputError, match=message):
        quietly(data=np.zeros((20, 4)), labels="none", **programs)


def test_a_model_object_takes_a_guide_by_name(toy_npz):
    model = VAE((1, 6, 6), 2, network=MLP((8,)))
    run = quietly(model=model, data=toy_npz)
    assert run.model is model
    assert run.config.model == "pyro_vae.models.vae.VAE"


@pytest.mark.parametrize("likelihood", ["gaussian", "laplace", "continuous_bernoulli"])
def test_other_likelihoods_take_gray_pixels(toy_npz, likelihood):
    run = quietly(data=toy_npz, likelihood=likelihood, epochs=30)
    assert run.binarization == "none"
    assert run.history["validation_elbo"].iloc[-1] > run.history["validation_elbo"].iloc[0]


def test_images_are_checked(toy_npz):
    run = quietly(data=toy_npz)
    assert run.encode(np.zeros((3, 6, 6))).shape == (3, 2)
    with pytest.raises(InputError, match=r"expected x of shape \(N, 1, 6, 6\); got shape \(3, 5, 5\)"):
        run.encode(np.zeros((3, 5, 5)))
    with pytest.raises(InputError, match="a continuous latent site; got 'w'; choose one of: z"):
        run.encode(np.zeros((3, 6, 6)), site="w")
    with pytest.raises(InputError, match="a model with class labels to classify; got 'vae'"):
        run.classify(np.zeros((3, 6, 6)))
    with pytest.raises(InputError, match="a split: train, validation or test"):
        run.evaluate("tset")
    with pytest.raises(InputError, match="a split: train, validation or test; got ndarray"):
        run.evaluate(np.zeros((3, 6, 6)))


def test_bytes_and_fractions_are_the_same_images():
    data = load_data("digits")
    run = quietly(data=data, labels="none", epochs=1, batch_size=400)
    pixels = data.test.pixels[:4]
    assert torch.equal(run.encode(pixels), run.encode(pixels.float() / 16))


def test_figures_need_no_display_and_leave_no_global_state(toy_npz, tmp_path):
    quietly(data=toy_npz, out=tmp_path / "run")
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


def test_check_names_is_quick_to_say(monkeypatch):
    monkeypatch.setattr(fitting, "load_data", lambda *a, **k: pytest.fail("loaded data before looking names up"))
    with pytest.raises(InputError, match="did you mean 'mean_field'"):
        quietly(guide="meanfield", data="mnist")


def test_the_best_epoch_is_chosen_by_the_objective(toy_npz):
    """At a capacity that only the last epochs reach, the ELBO would choose an early one with little KL."""
    run = quietly(data=toy_npz, objective="capacity:nats=6,epochs=10", beta=100, epochs=30, lr=0.01, labels="none")
    best = run.history["validation_objective"].idxmax()
    beta_elbo = run.history["validation_log_likelihood"] - 100 * run.history["validation_kl"]
    assert beta_elbo.idxmax() != best
    assert run.history["validation_kl"][best] > 3
    loss = OBJECTIVES.build("capacity:nats=6,epochs=10", probed=run.probed)
    run.pair.train(False)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        x = run.split("validation").x()
        draw_terms(run.probed, x)  # which the validation looks at first
        score = -loss(x, beta=100).item()
    assert score == pytest.approx(run.history["validation_objective"][best], rel=1e-4)
    plain = quietly(data=toy_npz, labels="none")
    assert "validation_objective" not in plain.history


def test_parameters_held_fixed_stay_and_warn_nobody(toy_npz):
    torch.manual_seed(0)
    model = VAE((1, 6, 6), 2, network=MLP(hidden=(8,)))
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    guide = MeanField(model, network=MLP(hidden=(8,)))
    run = quietly(model=model, guide=guide, data=toy_npz, labels="none")
    assert all(torch.equal(value, before[name]) for name, value in run.model.state_dict().items())
    assert run.history["validation_elbo"].iloc[-1] != run.history["validation_elbo"].iloc[0]
