"""Trackers: what they are told and when; one that raises costs nothing, and TensorBoard goes on where it was."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import pyro_vae
from pyro_vae.errors import InputError
from pyro_vae.trackers import TensorBoard

SETTINGS = {"labels": "none", "latent_dim": 2, "hidden": (4,), "batch_size": 40, "display": False, "compile": "off"}


class Recording:
    def __init__(self, fails_at: int | None = None) -> None:
        self.starts, self.rows, self.fails_at = [], [], fails_at

    def begin(self, start):
        self.starts.append(start)

    def epoch(self, number, metrics):
        self.rows.append((number, metrics))
        metrics["train_loss"] = math.nan  # a copy, so that it is nobody else's
        if number == self.fails_at:
            raise RuntimeError("the server\nis gone")


class Meddling(Recording):
    """A tracker that leaves the state of torch another than it was."""

    def epoch(self, number, metrics):
        super().epoch(number, metrics)
        torch.manual_seed(number)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)


class Said(list):
    """A display that keeps what is said, and draws noise of its own."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def start(self, trainer):
        torch.randn(3)

    step = epoch = start

    def say(self, line):
        self.append(line)


@pytest.fixture
def x():
    return torch.randn(40, 3, generator=torch.Generator().manual_seed(0))


def test_a_tracker_is_told_the_history_and_where_a_run_goes_on(x, tmp_path):
    first, second = Recording(), Recording()
    run = pyro_vae.fit(data=x, epochs=2, out=tmp_path / "run", trackers=[first], **SETTINGS)
    assert [(s.epoch, s.path, s.settings["epochs"]) for s in first.starts] == [(1, tmp_path / "run", 2)]
    assert [number for number, _ in first.rows] == [1, 2]
    assert [row["validation_elbo"] for _, row in first.rows] == run.history["validation_elbo"].tolist()
    assert "epoch" not in first.rows[0][1]
    pyro_vae.resume(tmp_path / "run", data=x, epochs=3, display=False, trackers=[second])
    assert (second.starts[0].epoch, [number for number, _ in second.rows]) == (3, [3])


def test_one_that_raises_or_meddles_costs_nothing_and_is_said_once(x):
    faulty, other, said = Recording(fails_at=1), Meddling(), Said()
    plain = pyro_vae.fit(data=x, epochs=3, **SETTINGS)
    run = pyro_vae.fit(data=x, epochs=3, trackers=[faulty, other], **(SETTINGS | {"display": said}))
    assert run.history["train_loss"].tolist() == plain.history["train_loss"].tolist()  # to the bit
    assert [number for number, _ in faulty.rows] == [1]
    assert [number for number, _ in other.rows] == [1, 2, 3]
    lines = [line for line in said if "tracker" in line]
    assert lines == ["The tracker Recording is left out from here on, RuntimeError: the server"]


@pytest.mark.parametrize(
    ("trackers", "said"),
    [
        ([object()], r"expected trackers with the methods begin\(start\) and epoch\(number, metrics\); got object"),
        ([Recording], r"got the class Recording; make one: Recording\(\)"),
    ],
)
def test_what_is_no_tracker_is_refused_before_anything_is_written(trackers, said, x, tmp_path):
    with pytest.raises(InputError, match=said):
        pyro_vae.fit(data=x, epochs=1, out=tmp_path / "run", trackers=trackers, **SETTINGS)
    assert not (tmp_path / "run").exists()


def test_without_its_package_tensorboard_says_what_to_install(monkeypatch, command, toy_npz, tmp_path):
    monkeypatch.setattr("pyro_vae.trackers.following.importlib.util.find_spec", lambda name: None)
    result = command("fit", "--data", toy_npz, "--log", "tensorboard", "--out", "run")
    assert (result.exit_code, (tmp_path / "run").exists()) == (2, False)
    assert "pip install 'pyro-vae[tensorboard]'" in result.stderr
    assert command("fit", "--data", toy_npz, "--log", "tensorbord", "--out", "run").exit_code == 2


@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_holds_each_epoch_once_after_a_resume(x, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    pyro_vae.fit(data=x, epochs=3, out=tmp_path / "run", trackers=[TensorBoard()], **SETTINGS)
    board = TensorBoard()
    run = pyro_vae.resume(tmp_path / "run", data=x, epochs=5, display=False, trackers=[board])
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    scalars = events.Scalars("validation/elbo")
    assert [event.step for event in scalars] == [1, 2, 3, 4, 5]
    np.testing.assert_allclose([event.value for event in scalars], run.history["validation_elbo"], rtol=1e-6)
