"""The two files of a checkpoint: what goes in comes out, and anything else is refused."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from functools import partial

import pytest
import safetensors.torch
import torch

from pyro_vae.errors import InputError
from pyro_vae.runs.checkpoint import (
    Identity,
    checksum,
    read_training,
    read_weights,
    write_training,
    write_weights,
)

WEIGHTS = {"model.w": torch.arange(6.0).view(2, 3), "guide.b": torch.tensor(1.5)}
TRAINING = {"progress": {"epoch": 3, "history": [{"elbo": -1.25}]}, "tensor": torch.zeros(100)}
HERE, ELSEWHERE, LATER = Identity("here", 3, 0), Identity("there", 3, 0), Identity("here", 4, 0)


def to_bytes(write, value, identity):
    file = io.BytesIO()
    write(value, identity, file)
    return file.getvalue()


KINDS = {
    "weights": (read_weights, partial(to_bytes, write_weights), WEIGHTS),
    "training": (read_training, partial(to_bytes, write_training), TRAINING),
}


@pytest.fixture(params=KINDS)
def kind(request, tmp_path):
    """How a file is read, its path, and its content, of an identity."""
    read, to_bytes, value = KINDS[request.param]
    path = tmp_path / "file"
    path.write_bytes(to_bytes(value, HERE))
    return read, path, lambda identity: to_bytes(value, identity)


def test_round_trip(tmp_path):
    for name, (_, to_bytes, value) in KINDS.items():
        (tmp_path / name).write_bytes(to_bytes(value, HERE))
    loaded = read_weights(tmp_path / "weights", identity=HERE)
    assert loaded.keys() == WEIGHTS.keys()
    assert all(torch.equal(loaded[name], value) for name, value in WEIGHTS.items())
    state = read_training(tmp_path / "training", identity=HERE)
    assert state.keys() == TRAINING.keys()
    assert state["progress"] == TRAINING["progress"]


def test_tied_weights_are_saved_twice(tmp_path):
    tied = torch.arange(3.0)
    (tmp_path / "w").write_bytes(to_bytes(write_weights, {"model.a": tied, "guide.b": tied}, HERE))
    assert torch.equal(read_weights(tmp_path / "w")["guide.b"], tied)


def test_the_safetensors_library_reads_weights_of_any_type_and_shape():
    """In as many bytes as it would have written, also of tensors that do not lie in a row."""
    dtypes = (torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool)
    values = {f"ä.{i}": torch.arange(6).view(2, 3).to(dtype) for i, dtype in enumerate(dtypes)}
    values |= {"scalar": torch.tensor(2.5), "empty": torch.empty(0, 4), 'a "quoted" name': torch.ones(2, 3).t()}
    content = to_bytes(write_weights, values, HERE)
    loaded = safetensors.torch.load(content)
    assert {name: (value.dtype, value.tolist()) for name, value in loaded.items()} == {
        name: (value.dtype, value.tolist()) for name, value in values.items()
    }
    metadata = {name: str(value) for name, value in vars(HERE).items()}
    assert len(content) == len(safetensors.torch.save({n: value.contiguous() for n, value in values.items()}, metadata))


def test_those_of_another_run_or_epoch_are_refused(kind):
    read, path, content = kind
    for other in (ELSEWHERE, LATER):
        path.write_bytes(content(other))
        with pytest.raises(InputError, match=f"it is of epoch .*{other.run}, in the place of epoch 3 of run here"):
            read(path, None, HERE)
        read(path, None, other)


def test_every_flipped_bit_is_told(kind):
    read, path, content = kind
    whole = content(HERE)
    for place in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="expected a whole checkpoint file"):
            read(path, checksum(whole), HERE)


@pytest.mark.parametrize("keep", [0, 10, 200])
def test_truncated_files_are_refused(kind, keep):
    read, path, content = kind
    path.write_bytes(content(HERE)[:keep])
    with pytest.raises(InputError, match=r"expected a whole checkpoint file at .*file; got one that cannot be"):
        read(path)


class Bomb:
    def __reduce__(self):
        return os.system, ("touch exploded",)


@pytest.mark.parametrize("write", [torch.save, lambda bomb, path: path.write_bytes(pickle.dumps(bomb))])
def test_a_file_that_would_run_code_is_refused_and_never_run(kind, monkeypatch, write, tmp_path):
    monkeypatch.chdir(tmp_path)
    read, path, _ = kind
    write(Bomb(), path)
    with pytest.raises(InputError, match=r"expected a whole checkpoint file(?!.*trust)"):
        read(path)
    assert not (tmp_path / "exploded").exists()


def test_an_archive_that_unpacks_to_more_than_it_is_is_refused(tmp_path):
    """Ten million zeros in ten kilobytes, where torch would look for a tensor."""
    packed = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(to_bytes(write_training, TRAINING, HERE))) as old,
        zipfile.ZipFile(packed, "w") as new,
    ):
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
        new.writestr("archive/data/9", bytes(10_000_000), zipfile.ZIP_DEFLATED)
    (tmp_path / "bomb").write_bytes(packed.getvalue())
    with pytest.raises(InputError, match="it unpacks to 10,"):
        read_training(tmp_path / "bomb")
