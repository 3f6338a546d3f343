"""A checkpoint written beside the training: the state of its moment, in order, with its errors."""

from __future__ import annotations

import os
import threading

import pytest
import torch

import pyro_vae
from pyro_vae.errors import TrainingError
from pyro_vae.runs.folder import RunFolder
from pyro_vae.runs.saving import Saver


class Slow:
    """In the place of a run directory: what it is given it looks at when it may."""

    def __init__(self):
        self.may, self.written, self.error = threading.Event(), [], None

    def save(self, weights, training, best):
        assert self.may.wait(30)
        if self.error:
            raise self.error
        epochs = [row["epoch"] for row in training["progress"]["history"]]
        self.written.append((weights["w"].tolist(), training["optimizer"]["state"][0]["m"].tolist(), epochs, best))


@pytest.fixture
def slow(monkeypatch):
    """States that are all large, so that a thread writes them."""
    monkeypatch.setattr("pyro_vae.runs.saving.SMALL", 0)
    return Slow()


def test_a_small_state_is_written_at_once(slow, monkeypatch):
    monkeypatch.setattr("pyro_vae.runs.saving.SMALL", 100)
    weight, moment = torch.ones(2), torch.ones(3)
    slow.may.set()
    with Saver(slow) as saver:
        saver.copy([weight, moment])
        saver.save(*state(weight, moment, [{"epoch": 1}]), True)
        assert slow.written == [([1.0, 1.0], [1.0] * 3, [1], True)]
        slow.error = TrainingError("the disk is full", "make room")
        with pytest.raises(TrainingError, match="full"):
            saver.save(*state(weight, moment, [{"epoch": 1}]), True)


def state(weight, moment, history):
    return {"w": weight}, {"optimizer": {"state": {0: {"m": moment}}}, "progress": {"epoch": 1, "history": history}}


@pytest.mark.parametrize("ahead", [True, False])
def test_what_changes_meanwhile_is_written_as_it_was(slow, ahead):
    weight, moment, history = torch.ones(2), torch.arange(6.0).view(2, 3).t(), [{"epoch": 1}]
    with Saver(slow) as saver:
        if ahead:
            saver.copy([weight, moment])
        saver.save(*state(weight, moment, history), True)
        weight.zero_(), moment.zero_(), history.append({"epoch": 2})
        saver.check()  # nothing is wrong so far
        slow.may.set()
        saver.wait()
        saver.save(*state(weight, moment, history), False)  # what was copied was of the one before
    old, new = slow.written
    assert old == ([1.0, 1.0], [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]], [1], True)
    assert new == ([0.0, 0.0], [[0.0, 0.0]] * 3, [1, 2], False)


def test_a_copy_waits_for_the_checkpoint_before_it_and_takes_its_memory(slow):
    weight, moment = torch.ones(2), torch.ones(3)
    with Saver(slow) as saver:
        saver.copy([weight, moment])
        saver.save(*state(weight, moment, []), True)
        memory = {place: tensor.data_ptr() for place, tensor in saver._memory.items()}
        weight += 1
        saver.copy([weight, moment])
        threading.Timer(0.05, slow.may.set).start()
        saver.save(*state(weight, moment, []), True)
        assert {place: tensor.data_ptr() for place, tensor in saver._memory.items()} == memory
    assert [weights for weights, *_ in slow.written] == [[1.0, 1.0], [2.0, 2.0]]


def test_an_error_is_raised_where_training_goes_on(slow):
    slow.error = TrainingError("the disk is full", "make room")
    slow.may.set()
    with Saver(slow) as saver:
        saver.save(*state(torch.ones(2), torch.ones(3), []), True)
        with pytest.raises(TrainingError, match="the disk is full"):
            saver.wait()
        saver.check()  # it was said once
        slow.error = None
        saver.save(*state(torch.ones(2), torch.ones(3), []), True)
    assert len(slow.written) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_process_that_was_forked_waits_for_nobody(slow):
    with Saver(slow) as saver:
        saver.copy([weight := torch.ones(2)])
        saver.save(*state(weight, weight, []), True)
        child = os.fork()
        if child == 0:
            saver.wait(), saver._folder.may.set()
            saver.save(*state(weight, weight, []), True), saver.wait()
            os._exit(len(slow.written))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
        slow.may.set()


def test_training_ends_with_the_error_of_a_checkpoint_at_its_next_step(tmp_path, monkeypatch):
    real = RunFolder.save

    def fails(folder, weights, training, best):
        if training["progress"]["epoch"] == 2:
            raise TrainingError("no room for epoch 2", "make some")
        real(folder, weights, training, best)

    monkeypatch.setattr(RunFolder, "save", fails)
    settings = {"data": "toy", "labels": "none", "batch_size": 100, "hidden": (4,), "latent_dim": 2, "compile": "off"}
    with pytest.raises(TrainingError, match="no room for epoch 2"):
        pyro_vae.fit("vae", epochs=50, out=tmp_path / "run", display=False, **settings)
    found = pyro_vae.load(tmp_path / "run", checkpoint="last")
    assert found.history["epoch"].tolist() == [1]
    assert found.folder.evaluation["findings"][0]["found"] == "no room for epoch 2"
