from __future__ import annotations

import os
import pickle

import pytest
import torch

from pyro_vae.atomic_files import whole_file
from pyro_vae.errors import InputError
from pyro_vae.runs.checkpoint import load_training, load_weights, recover, save_checkpoint

WEIGHTS = {"model.w": torch.arange(6.0).view(2, 3), "guide.b": torch.tensor(1.5)}


def test_round_trip(tmp_path):
    training = {"progress": {"epoch": 3, "history": [{"elbo": -1.25}]}, "random": torch.get_rng_state()}
    save_checkpoint(tmp_path / "last", WEIGHTS, training)
    loaded = load_weights(tmp_path / "last")
    assert loaded.keys() == WEIGHTS.keys()
    assert all(torch.equal(loaded[name], value) for name, value in WEIGHTS.items())
    assert load_training(tmp_path / "last")["progress"] == training["progress"]


def test_tied_weights_are_saved_twice(tmp_path):
    tied = torch.arange(3.0)
    save_checkpoint(tmp_path / "last", {"model.a": tied, "guide.b": tied})
    assert torch.equal(load_weights(tmp_path / "last")["guide.b"], tied)


def test_replacing_leaves_one_whole_checkpoint(tmp_path):
    save_checkpoint(tmp_path / "last", WEIGHTS, {"n": 1})
    save_checkpoint(tmp_path / "last", WEIGHTS, {"n": 2})
    assert load_training(tmp_path / "last") == {"n": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


def test_killed_between_the_two_moves(tmp_path):
    save_checkpoint(tmp_path / "last", WEIGHTS, {"n": 1})
    save_checkpoint(tmp_path / "next", WEIGHTS, {"n": 2})
    (tmp_path / "last").rename(tmp_path / "last.old")
    (tmp_path / "next").rename(tmp_path / "last.new")
    recover(tmp_path / "last")
    assert load_training(tmp_path / "last") == {"n": 2}


def test_killed_while_writing(tmp_path):
    save_checkpoint(tmp_path / "last", WEIGHTS, {"n": 1})
    (tmp_path / "last.new").mkdir()
    recover(tmp_path / "last")
    assert load_training(tmp_path / "last") == {"n": 1}
    save_checkpoint(tmp_path / "last", WEIGHTS, {"n": 3})
    assert load_training(tmp_path / "last") == {"n": 3}


@pytest.mark.parametrize("keep", [0, 10, 200])
def test_truncated_files_are_refused(tmp_path, keep):
    save_checkpoint(tmp_path / "last", WEIGHTS, {"tensor": torch.zeros(100)})
    for name, load in (("weights.safetensors", load_weights), ("training.pt", load_training)):
        path = tmp_path / "last" / name
        content = path.read_bytes()
        path.write_bytes(content[: min(keep, len(content) - 1)])
        with pytest.raises(InputError, match=rf"expected a whole checkpoint file at .*{name}; got one that cannot be"):
            load(tmp_path / "last")


class Bomb:
    def __reduce__(self):
        return os.system, ("touch exploded",)


@pytest.mark.parametrize("write", [torch.save, lambda bomb, path: path.write_bytes(pickle.dumps(bomb))])
def test_a_file_that_would_run_code_is_refused_and_never_run(tmp_path, monkeypatch, write):
    monkeypatch.chdir(tmp_path)
    save_checkpoint(tmp_path / "last", WEIGHTS, {"n": 1})
    for name, load in (("weights.safetensors", load_weights), ("training.pt", load_training)):
        write(Bomb(), tmp_path / "last" / name)
        with pytest.raises(InputError, match="expected a whole checkpoint file"):
            load(tmp_path / "last")
    assert not (tmp_path / "exploded").exists()


def test_what_a_killed_write_left_is_replaced_by_the_next(tmp_path):
    """One hidden file per name, not one per process that was killed."""
    path, left = tmp_path / "history.csv", tmp_path / ".history.csv.new"
    left.write_text("half a l")
    with whole_file(path) as aside:
        assert aside == left
        aside.write_text("whole")
    assert path.read_text() == "whole"
    assert [file.name for file in tmp_path.iterdir()] == ["history.csv"]
    with pytest.raises(IsADirectoryError), whole_file(path) as aside:
        aside.write_text("half") and tmp_path.write_text("no file")
    assert path.read_text() == "whole"
    assert [file.name for file in tmp_path.iterdir()] == ["history.csv"]
