"""Compiled training, validation and evaluation against the eager ones, at the same noise."""

from __future__ import annotations

import math
import os
import signal
import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_vae
from pyro_vae import diagnostics
from pyro_vae.compiled import lowering, payoff
from pyro_vae.compiled.lowering import compile_recording
from pyro_vae.compiled.payoff import CompileEstimate, compile_if_it_pays
from pyro_vae.compiled.tracing import record
from pyro_vae.config import TrainingConfig
from pyro_vae.data import Batches, Images
from pyro_vae.errors import TrainingError
from pyro_vae.guides import MeanField
from pyro_vae.models import VAE
from pyro_vae.networks import Conv
from pyro_vae.pairs import Pair
from pyro_vae.runs.display import Silent, listening
from pyro_vae.training import Trainer
from pyro_vae.training.validation_rows import CHUNK, Validation
from tests.conftest import compiled_too, make_pair
from tests.runs.checkpoint_files import weights


class Listening(Silent):
    """Keeps what is said, and may stop at a step."""

    def __init__(self, stop_at: tuple[int, int] | None = None) -> None:
        self.lines: list[str] = []
        self.stop_at = stop_at

    def say(self, line: str) -> None:
        self.lines.append(line)

    def step(self, progress) -> None:
        if (progress.epoch, progress.step) == self.stop_at:
            os.kill(os.getpid(), signal.SIGINT)


def trainer_for(pair, x, y=None, **settings) -> Trainer:
    probed = pair.probe(x)
    images = Images(x, y)
    labelled = torch.arange(0 if y is None else len(x) // 2)
    config = TrainingConfig(**({"epochs": 3, "lr": 0.01, "batch_size": 3} | settings))
    return Trainer(probed, Batches(images, labelled, config.batch_size, "none", seed=0), images, config)


def train(pair, x, y=None, notes=None, **settings):
    trainer = trainer_for(pair, x, y, **settings)
    torch.manual_seed(9)
    with warnings.catch_warnings(), listening((notes if notes is not None else []).append):
        warnings.simplefilter("error")
        rows = list(trainer.epochs())
    return trainer, rows


@pytest.mark.usefixtures("graph")
@pytest.mark.parametrize(
    ("model", "guide", "settings"),
    [
        ("ss_vae", "mean_field", {"marginal_weight": 30.0}),
        ("vae", "iaf", {"beta": "linear:0:1:2", "lr_schedule": "cosine", "clip_norm": 0.5}),
        ("hvae", "mean_field", {"objective": "iwae:num_samples=3", "beta": 0.5}),
        ("vae", "mean_field", {"objective": "capacity:epochs=2"}),
        ("vae", "full_rank", {"objective": "stl", "weight_decay": 2.0}),
        ("vae", "mean_field", {"optimizer": "adamax", "weight_decay": 2.0, "lr_warmup": 4, "skip_norm": 30.0}),
        ("vae", "mixture:num_components=3,shared=true", {}),
        ("vae", "mean_field", {"prior": "realnvp:num_blocks=2,hidden=8"}),
    ],
)
def test_training_is_that_of_eager_steps(model, guide, settings, x, y):
    check_training(model, guide, settings, x, y)


@compiled_too
def test_plain_training_is_that_of_eager_steps(graph, x):
    check_training("vae", "mean_field", {}, x)


@pytest.mark.parametrize("model", ["vae", "ss_vae"])
def test_replayed_training_is_that_of_eager_steps(model, x, y, monkeypatch):
    """As recorded, where compiling does not pay."""
    monkeypatch.setattr(payoff, "FEWEST_RUNS", 0)
    monkeypatch.setattr(CompileEstimate, "pays", False)
    check_training(model, "mean_field", {}, x, y, way="replayed")


def check_training(model, guide, settings, x, y=None, way="compiled"):
    """Same batches, same noise: every figure of the history and every weight, but for rounding."""
    labels, settings = y if model == "ss_vae" else None, dict(settings)
    prior = {"prior": settings.pop("prior")} if "prior" in settings else {}
    eager, compiled = (make_pair(model, guide, **prior) for _ in range(2))
    _, expected = train(eager, x, labels, compile="off", **settings)
    notes = []
    asked = "on" if way == "compiled" else "auto"
    trainer, rows = train(compiled, x, labels, compile=asked, notes=notes, **settings)
    assert trainer.way == way
    assert trainer.step is not trainer.eager
    assert [note for note in notes if "eagerly" in note] == []
    for row, other in zip(rows, expected, strict=True):
        assert row == pytest.approx(other, rel=1e-4, abs=1e-5)
    for name, value in eager.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[name], value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("compile", ["off", pytest.param("on", marks=pytest.mark.exhaustive)])
def test_weight_decay_takes_a_share_off_before_adam(x, compile):
    """The same gradients with and without, so the first step differs by lr x weight decay x parameter, to rounding."""
    first = {}
    for decay in (0.0, 3.0):
        pair = make_pair()
        trainer = trainer_for(pair, x, compile=compile, weight_decay=decay)
        before = {name: value.clone() for name, value in pair.state_dict().items()}
        torch.manual_seed(9)
        trainer.step(next(trainer.batches.indices()), 0.01, 1.0, 0.0)
        first[decay] = pair.state_dict()
    for name, value in before.items():
        torch.testing.assert_close(first[0.0][name] - first[3.0][name], 0.01 * 3.0 * value, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("graph")
def test_a_schedule_never_compiles_anew(x, monkeypatch):
    calls, compile_recording = [], lowering.compile_recording
    monkeypatch.setattr(
        "pyro_vae.compiled.lowering.compile_recording",
        lambda *arguments: calls.append(1) or compile_recording(*arguments),
    )
    train(make_pair(), x, compile="on", epochs=5, beta="cyclical:0:1:4:2", lr_schedule="cosine")
    assert len(calls) == 1


def test_recording_leaves_state_and_noise_as_they_were(x):
    """So that a resumed run, which records at another step, goes on to the bit: batch norm, moments, generators."""
    pair = make_pair()
    trainer = trainer_for(pair, x, compile="on")
    rows = next(trainer.batches.indices())
    trainer.step(rows, 0.01, 1.0, 0.0)
    before = {name: value.clone() for name, value in pair.state_dict().items()}
    moments = [value.clone() for state in trainer.eager.optimizer.state.values() for value in state.values()]
    noise = torch.get_rng_state()
    trainer._record_step(rows, 1.0)
    assert trainer.way == "compiled"
    assert torch.equal(noise, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in pair.state_dict().items())
    now = [value for state in trainer.eager.optimizer.state.values() for value in state.values()]
    assert all(torch.equal(a, b) for a, b in zip(moments, now, strict=True))


@pytest.mark.usefixtures("graph")
@pytest.mark.parametrize(
    ("model", "labels"), [("vae", "none"), pytest.param("ss_vae", 6, marks=pytest.mark.exhaustive)]
)
def test_stopped_and_resumed_is_the_run_in_one(model, labels, toy_npz, tmp_path):
    """A compiled run, stopped in the middle of its third epoch: the same bits as one that never stopped."""
    settings = {"batch_size": 20, "hidden": (8,), "latent_dim": 2, "compile": "on", "epochs": 4, "labels": labels}
    whole = pyro_vae.fit(model, data=toy_npz, out=tmp_path / "whole", display=False, **settings)
    with pytest.raises(pyro_vae.Interrupted):
        pyro_vae.fit(model, data=toy_npz, out=tmp_path / "parts", display=Listening(stop_at=(2, 1)), **settings)
    listening = Listening()
    resumed = pyro_vae.resume(tmp_path / "parts", display=listening)
    assert any(line.startswith("compiling the step") for line in listening.lines)
    assert not any("runs eagerly" in line for line in listening.lines if "step" in line)
    assert (whole.path / "history.csv").read_bytes() == (resumed.path / "history.csv").read_bytes()
    first, second = (weights(run.path, "last") for run in (whole, resumed))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.usefixtures("uncompiled")
def test_an_eager_run_is_resumed_eagerly(toy_npz, tmp_path, monkeypatch):
    """Even where more epochs would make compiling pay: the choice is part of the run."""
    settings = {"batch_size": 20, "hidden": (8,), "latent_dim": 2, "epochs": 2}
    pyro_vae.fit("vae", data=toy_npz, out=tmp_path / "run", display=False, **settings)
    monkeypatch.setattr(payoff, "FEWEST_RUNS", 0)
    monkeypatch.setattr(CompileEstimate, "pays", True)
    listening = Listening()
    pyro_vae.resume(tmp_path / "run", epochs=4, display=listening)
    assert not any("compiling the step" in line for line in listening.lines)


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("chosen", ["compiled", "replayed", "eager"])
def test_the_choice_for_the_validation_is_part_of_the_run(x, monkeypatch, chosen):
    """It may have been another than for the step, and more epochs must not change it."""
    monkeypatch.setattr(Validation, "num_full_chunks", 1)
    monkeypatch.setattr("pyro_vae.training.validation_rows.CHUNK", len(x))
    begun, resumed, notes = trainer_for(make_pair(), x), trainer_for(make_pair(), x, epochs=1), []
    begun.way, begun.validation_way = "compiled", chosen
    resumed.load_state_dict(begun.state_dict())
    with listening(notes.append):
        list(resumed.epochs())
    assert resumed.way == "compiled"
    assert resumed.validation_way == chosen
    assert resumed.validation.is_recorded == (chosen != "eager")
    assert any("compiling the validation" in note for note in notes) == (chosen == "compiled")
    assert any("the validation is replayed" in note for note in notes) == (chosen == "replayed")


def test_a_choice_by_a_value_trains_eagerly_and_says_why(x):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            sign = 1.0 if z.sum() > 0 else -1.0
            loc = (sign * z)[..., None, None, None].expand(z.shape + x.shape[1:])
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(3), obs=x)

    def guide(x):
        loc = pyro.param("loc", torch.tensor(0.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1.0))

    notes = []
    trainer, rows = train(Pair(model, guide), x, compile="on", notes=notes)
    assert trainer.way == "eager"
    assert len(rows) == 3
    (note,) = notes
    assert note.startswith("the step runs eagerly: a choice in Python depends on the value of a tensor")
    assert "test_recorded_step.py, line" in note


def test_a_recording_that_fails_leaves_no_marks(x):
    """The program counts its runs before it asks for a value; noise and count are those of an eager run."""

    class Counting(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("runs", torch.zeros(()))

        def forward(self, x):
            self.runs += 1
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                loc = (z if z.sum() > 0 else -z)[..., None, None, None].expand(z.shape + x.shape[1:])
                pyro.sample("x", dist.Normal(loc, 1.0).to_event(3), obs=x)

    def guide(x):
        loc = pyro.param("loc", torch.tensor(0.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1.0))

    recorded, eager = Pair(Counting(), guide), Pair(Counting(), guide)
    trainer, rows = train(recorded, x, compile="on")
    assert trainer.way == "eager"
    assert rows == train(eager, x, compile="off")[1]
    assert recorded.model.runs == eager.model.runs


def test_without_a_compiler_the_recording_is_replayed_and_that_is_said(x, monkeypatch):
    from torch._inductor.exc import InvalidCxxCompiler

    def compiler(*arguments):
        raise InvalidCxxCompiler

    monkeypatch.setattr("pyro_vae.compiled.lowering.compile_recording", compiler)
    notes, pair, eager = [], make_pair(), make_pair()
    trainer, rows = train(pair, x, compile="on", notes=notes)
    assert trainer.way == "replayed"
    assert "the step is replayed as recorded: no C++ compiler was found; install g++ or clang, or set CXX" in notes
    for row, other in zip(rows, train(eager, x, compile="off")[1], strict=True):
        assert row == pytest.approx(other, rel=1e-4, abs=1e-5)


def test_what_the_compiler_refuses_is_replayed_as_it_was_recorded(monkeypatch):
    """The compiler has rewritten the graph by then, here the decoder's last convolution."""
    from torch._inductor import compile_fx

    def compiler(*arguments, **options):
        raise RuntimeError("an operation that is not known")

    monkeypatch.setattr(compile_fx, "compile_fx", compiler)
    losses = {}
    for compile in ("on", "off"):
        torch.manual_seed(0)
        images, model = torch.rand(12, 2, 8, 8).round(), VAE((2, 8, 8), latent_dim=2, network=Conv((4,), dense=8))
        trainer, rows = train(Pair(model, MeanField(model)), images, compile=compile)
        losses[trainer.way] = [row["train_loss"] for row in rows]
    assert losses["replayed"] == pytest.approx(losses["eager"], rel=1e-5)


def test_a_loss_that_is_no_number_names_its_step(x):
    """Compiled as eager: the images of one batch are infinite, and the message names the step that saw them."""
    pair = make_pair()
    x = x.clone()
    trainer = trainer_for(pair, x, compile="on", epochs=2)
    steps = []

    def poison(progress):
        steps.append((progress.epoch, progress.step))
        if len(steps) == 4:
            trainer.batches.images.pixels.fill_(math.inf)

    with pytest.raises(TrainingError, match=r"in epoch 2, step 2: the data"):
        list(trainer.epochs(poison))
    assert trainer.way == "compiled"


def test_few_steps_are_not_worth_it_and_that_is_said(x):
    notes = []
    trainer, _ = train(make_pair(), x, notes=notes)
    assert trainer.way == "eager"
    assert notes == ["the step runs eagerly: 9 runs are too few to gain from recording it"]
    train(make_pair(), x, notes=notes, compile="off")
    assert len(notes) == 1


def test_what_pays_is_worked_out_from_the_graph():
    """Half a GiB out of one operation, 500 times: 500 (1.5 us + 2^29 / 8e9 s) against 3.025 s."""
    estimate = CompileEstimate(operations=1, traffic=2**29, runs=500)
    assert estimate.gain == pytest.approx(500 * (1.5e-6 + 2**29 / 8e9))
    assert estimate.cost == pytest.approx(3.025)
    assert estimate.pays
    assert not CompileEstimate(1, 2**29, 10).pays
    assert str(estimate) == "compiling takes about 3 s and would save about 34 s in 500 runs"
    a = torch.ones(4, 8)
    measured = CompileEstimate.from_recording(record(lambda: ((a * 2).sum(0),), [a]), runs=7)
    assert measured == CompileEstimate(operations=2, traffic=4 * (32 + 8), runs=7)


def test_any_trouble_is_said_and_nothing_is_compiled():
    def make():
        raise RuntimeError("first line\nsecond line")

    notes = []
    with listening(notes.append):
        assert compile_if_it_pays("thing", make, 1000, "compiled") == (None, "eager")
    assert notes == ["the thing runs eagerly: RuntimeError: first line"]


@pytest.mark.usefixtures("graph")
def test_compiled_validation_is_the_eager_one():
    """Full chunks replayed, the last short one eager; the same noise, so the same figures."""
    torch.manual_seed(3)
    images = Images((torch.rand(2 * CHUNK + 30, 1, 4, 4) < 0.5).float(), torch.arange(2 * CHUNK + 30) % 3)
    pair = make_pair("ss_vae")
    trainer = trainer_for(pair, images.pixels[:10], images.labels[:10])
    validation = Validation(trainer.probed, images, trainer.loss.objective, 1.0)
    expected = validation()
    replay = validation.record()
    replay.compile()
    validation.use(replay)
    assert validation() == pytest.approx(expected, rel=1e-5)
    assert validation() == validation()
    with torch.no_grad():
        next(pair.guide.parameters()).add_(0.5)
    assert validation()["validation_elbo"] != pytest.approx(expected["validation_elbo"], rel=1e-5)  # not frozen


@pytest.mark.usefixtures("graph")
def test_compiled_evaluation_is_the_eager_one(monkeypatch):
    monkeypatch.setattr(payoff, "FEWEST_RUNS", 0)
    monkeypatch.setattr(CompileEstimate, "pays", True)
    monkeypatch.setattr("pyro_vae.pairs.memory.NUMBERS_AT_ONCE", 512 * 3 * 40)
    pair = make_pair("ss_vae")
    images = Images((torch.rand(15, 1, 4, 4) < 0.5).float(), torch.arange(15) % 3)
    probed = pair.probe(images.pixels)
    notes = []
    with listening(notes.append):
        ours = diagnostics.evaluate(probed, images, num_samples=25)
    eager = diagnostics.evaluate(probed, images, num_samples=25, compiled=False)
    assert notes[0].startswith("compiling the evaluation")
    assert len(notes) == 1
    assert ours.as_dict() == pytest.approx(eager.as_dict(), rel=1e-5)


def test_what_is_compiled_may_be_changed_in_place(x):
    """Data are read by reference, not baked in: uint8 pixels, gathered in the graph."""
    pixels = torch.randint(0, 256, (7, 4), dtype=torch.uint8)
    rows = torch.tensor([1, 3])
    run = compile_recording(record(lambda: (pixels[rows].float().sum(),), [rows]), [rows])
    assert run([rows])[0] == pixels[rows].float().sum()
    pixels.zero_()
    assert run([torch.tensor([0, 2])])[0] == 0


@pytest.mark.usefixtures("graph")
def test_images_of_numpy_train_compiled_end_to_end(tmp_path):
    """uint8 images and dynamic binarization, through ``fit``: every dynamic draw is made inside the graph."""
    images = np.random.default_rng(0).integers(0, 256, (200, 6, 6), dtype=np.uint8)
    settings = {"hidden": (8,), "latent_dim": 2, "epochs": 2, "binarization": "dynamic"}
    listening = Listening()
    compiled = pyro_vae.fit("vae", data=images, compile="on", display=listening, **settings)
    eager = pyro_vae.fit("vae", data=images, compile="off", display=False, **settings)
    assert any(line.startswith("compiling the step") for line in listening.lines)
    np.testing.assert_allclose(compiled.history, eager.history, rtol=1e-4)
