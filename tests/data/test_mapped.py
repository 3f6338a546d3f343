"""Data larger than memory: each row once an epoch, some blocks at a time, read by the rule of all arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import pyro_vae
from pyro_vae.data import Reading, from_arrays, load_data
from pyro_vae.data.batches import Batches
from pyro_vae.data.mapped import BLOCKS, check_mapped
from pyro_vae.errors import InputError
from pyro_vae.runs.display import Silent

ROW = 16  # bytes
TINY = {"labels": "none", "hidden": (4,), "latent_dim": 2, "batch_size": 50, "display": False, "compile": "off"}


@pytest.fixture
def x(tmp_path, monkeypatch):
    monkeypatch.setenv("PYRO_VAE_DATA", str(tmp_path / "kept"))
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).integers(0, 256, size=(2000, 4, 4)).astype(np.uint8)
    x[:, 0, 0], x[:, 0, 1] = np.arange(2000) % 256, np.arange(2000) // 256  # no two rows are alike
    np.save("x.npy", x)
    return x


def mapped(rows: int, path="x.npy", **reading):
    return load_data(path, reading=Reading(memory=2 * rows * ROW, **reading))


def test_each_row_is_in_one_split_and_as_it_is_in_the_file(x):
    data = mapped(400)
    assert [len(part) for part in data.splits] == [1900, 50, 50]
    assert data.event_shape == (1, 4, 4)
    everything = torch.cat([part[:].pixels for part in data.splits]).flatten(1)
    assert torch.equal(everything.unique(dim=0), torch.from_numpy(x.reshape(2000, 16)).unique(dim=0))
    assert torch.equal(data.train[torch.tensor([7, 0])].pixels[1], torch.from_numpy(x)[data.train.at[0], None])


def test_an_epoch_has_each_row_once_and_few_blocks_at_a_time(x):
    train = mapped(5 * BLOCKS).train
    batches = Batches(train, torch.arange(0), 20, "none", seed=3)
    steps = [indices.unlabelled for indices in batches.indices()]
    assert torch.equal(torch.cat(steps).sort().values, train.at)
    for first in range(0, len(steps) - 16, 16):  # the steps of the rows in hand
        blocks = torch.searchsorted(train.at, torch.cat(steps[first : first + 16])) // 5
        assert len(blocks.unique()) <= BLOCKS
    again = Batches(train, torch.arange(0), 20, "none", seed=3)
    assert all(map(torch.equal, steps[7:], (each.unlabelled for each in again.indices(start=7))))
    values = batches.batch(next(Batches(train, torch.arange(0), 20, "none", seed=3).indices())).unlabelled.pixels
    assert torch.equal(values, torch.from_numpy(x)[steps[0], None] / 255)
    assert (torch.cat(steps).diff().abs() > 500).double().mean() > 0.3  # rows from all over the file


@pytest.mark.parametrize(
    ("values", "reading"),
    [
        ("bytes", {}),
        ("bytes", {"scale": 1.0}),
        ("shares", {}),
        ("halves", {}),
        ("bits", {}),
        ("float bytes", {}),
        ("counts", {"scale": 16.0}),
        ("ends", {"scale": 255.0}),
    ],
)
def test_numbers_are_read_by_the_rule_of_arrays(x, values, reading):
    made = {
        "bytes": x,
        "shares": x.astype(np.float32) / 256,
        "halves": x.astype(np.float32) - 0.5,
        "bits": x % 2,
        "float bytes": x.astype(np.float32),
        "counts": x % 17,
        "ends": x % 2 * np.uint8(255),
    }[values]
    np.save("x.npy", made)
    found, expected = mapped(4 * 400, **reading), from_arrays(made, reading=Reading(**reading))
    assert (found.kind, found.train.scale, found.event_shape) == (
        expected.kind,
        expected.train.scale,
        expected.event_shape,
    )
    assert found.reading == f"{expected.reading}, from a mapped file"
    assert found.train[:].values().max() == torch.from_numpy(made)[found.train.at].max() / found.train.scale


def test_a_folder_of_shards_is_one_file(x):
    (folder := Path("shards")).mkdir()
    for i in range(4):
        np.save(folder / f"{i}.npy", x[500 * i : 500 * (i + 1)])
    whole, joined = mapped(400), mapped(400, "shards")
    assert torch.equal(joined.train.pixels, whole.train.pixels)
    np.save(folder / "3.npy", x[:300])
    assert len(mapped(400, "shards").train.pixels) == 1800
    np.save(folder / "2.npy", x[:300, :2])
    with pytest.raises(InputError, match=r"uint8 rows of shape \(4, 4\); got uint8 rows of shape \(2, 4\) in 2.npy"):
        mapped(400, "shards")
    content = (folder / "1.npy").read_bytes()
    (folder / "1.npy").write_bytes(content[:-1])
    with pytest.raises(InputError, match=r"1\.npy; got one that cannot be mapped \(it is cut off"):
        mapped(400, "shards")


def test_what_cannot_be_mapped_is_refused_in_one_line(x):
    for broken, message in (
        (x.astype(np.int64), "bytes or float32"),
        (x[0, 0], "bytes or float32"),
        (np.where(x == 7, np.float32("nan"), x).astype(np.float32), "missing"),
        (np.asfortranarray(x), "its columns lie together"),
    ):
        np.save("x.npy", broken)
        with pytest.raises(InputError, match=message):
            mapped(400)
    np.savez("x.npz", x=x)
    with pytest.raises(InputError, match=r"an \.npy file or a folder of such"):
        mapped(400, "x.npz")
    with pytest.raises(InputError, match=r"an \.npy file or a folder of such"):
        mapped(400, "digits")
    np.save("x.npy", x)
    with pytest.raises(InputError, match="memory for a row"):
        mapped(0)
    train = mapped(400).train
    check_mapped(train, 400, False)
    with pytest.raises(InputError, match="a batch of 401 rows; got room for 400"):
        check_mapped(train, 401, False)
    with pytest.raises(InputError, match="rows drawn uniformly"):
        check_mapped(train, 400, True)
    with pytest.raises(InputError, match="leave out --memory"):
        train.values()


class Stopping(Silent):
    """A display that ends the training in the middle of its second epoch."""

    def start(self, trainer):
        self.trainer = trainer

    def step(self, progress):
        self.trainer.stop_requested |= progress.epoch == 1 and progress.step == 17


@pytest.mark.exhaustive
def test_a_run_of_them_resumes_to_the_bit_and_refuses_other_data(x):
    whole = pyro_vae.fit("vae", data="x.npy", memory="4KB", epochs=3, out="whole", **TINY)
    with pytest.raises(pyro_vae.Interrupted):
        pyro_vae.fit("vae", data="x.npy", memory="4KB", epochs=3, out="run", **TINY | {"display": Stopping()})
    run = pyro_vae.resume("run", display=False)
    assert run.history.equals(whole.history)
    for name, value in whole.pair.state_dict().items():
        assert torch.equal(value, run.pair.state_dict()[name])
    x[1000] += 1
    np.save("x.npy", x)
    with pytest.raises(InputError, match="the data that the run was fitted on"):
        pyro_vae.resume("run", epochs=4, display=False)
    with pytest.raises(InputError, match=r"of an \.npy file for memory"):
        pyro_vae.fit("vae", data=x, memory="4KB", **TINY)


@pytest.mark.exhaustive
def test_a_compiled_step_sees_the_same_rows(x):
    runs = [
        pyro_vae.fit("vae", data="x.npy", memory="4KB", epochs=2, **TINY | {"compile": how}) for how in ("on", "off")
    ]
    losses = [run.history["train_loss"].tolist() for run in runs]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
