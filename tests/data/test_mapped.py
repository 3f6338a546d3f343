"""Data larger than memory: each row once an epoch, some blocks at a time, read by the rule of all arrays."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import constraints

import pyro_vae
from pyro_vae.data import Reading, binarize_once, from_arrays, load_data
from pyro_vae.data.batches import Batches, draw_rows
from pyro_vae.data.mapped import IN_HAND, check_mapped
from pyro_vae.data.npy_files import NpyFile
from pyro_vae.data.read_ahead import BLOCKS
from pyro_vae.data.survey import survey
from pyro_vae.errors import InputError, TrainingError
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
    part, whole = IN_HAND
    return load_data(path, reading=Reading(memory=-(-rows * ROW * whole // part), **reading))


def test_each_row_is_in_one_split_and_as_it_is_in_the_file(x):
    data = mapped(400)
    assert [len(part) for part in data.splits] == [1868, 66, 66]
    assert data.event_shape == (1, 4, 4)
    everything = torch.cat([part[:].pixels for part in data.splits]).flatten(1)
    assert torch.equal(everything.unique(dim=0), torch.from_numpy(x.reshape(2000, 16)).unique(dim=0))
    assert torch.equal(data.train[torch.tensor([7, 0])].pixels[1], torch.from_numpy(x)[data.train.at[0], None])


def test_rows_are_read_from_anywhere_in_a_file(x):
    file, places = NpyFile.open(Path("x.npy")), np.array([1999, 3, 3, 500, 4, 0, 19, 36])
    assert np.array_equal(file.rows(places), x[places])
    assert file.rows(places[:0]).shape == (0, 4, 4)
    with open("x.npy", "r+b") as cut:
        cut.truncate(3000)
    with pytest.raises(InputError, match="cut off while it was read"):
        file.rows(places)


def steps_of(batches, start=0):
    """The rows of each step of an epoch: they are in the window until the next step alone."""
    return [batches.batch(indices).unlabelled.pixels * 255 for indices in batches.indices(start)]


def numbers(rows):
    """Which rows of the file they are."""
    return (rows[:, 0, 0, 0] + 256 * rows[:, 0, 0, 1]).round().long()


def test_an_epoch_has_each_row_once_and_few_blocks_at_a_time(x):
    train = mapped(5 * BLOCKS).train
    steps = steps_of(Batches(train, torch.arange(0), 20, "none", seed=3))
    places = torch.cat([numbers(rows) for rows in steps])
    assert torch.equal(places[: len(train)].sort().values, train.at)
    assert torch.equal(torch.cat(steps).round().byte(), torch.from_numpy(x)[places, None])
    for first in range(0, len(steps) - 16, 16):  # the steps of the rows in hand
        blocks = torch.searchsorted(train.at, places[20 * first : 20 * (first + 16)]) // 5
        assert len(blocks.unique()) <= BLOCKS + 1  # the last of the file is shorter
    again = Batches(train, torch.arange(0), 20, "none", seed=3)
    assert all(map(torch.equal, steps[7:], steps_of(again, start=7)))
    assert (places.diff().abs() > 500).double().mean() > 0.3  # rows from all over the file


@pytest.mark.parametrize("batch_size", [7, 64, 65, 300, 320])
@pytest.mark.parametrize("labelled", [0, 100, 700, 1500])
def test_the_window_holds_the_rows_of_each_step_of_two_epochs(x, batch_size, labelled, monkeypatch):
    np.save("x.labels.npy", x[:, 0, 2] % 4)
    monkeypatch.setattr("pyro_vae.data.npy_files.BLOCK", 64 * ROW)
    train = replace(mapped(400).train, in_hand=640)
    seen = torch.arange(len(train))[torch.randperm(len(train))[:labelled].sort().values]
    batches = Batches(train, seen, batch_size, "none", seed=1)
    for _ in range(2):
        steps = list(batches.epoch())
        for rows, given in ((step.labelled, torch.tensor(x[:, 0, 2] % 4).long()) for step in steps if step.labelled):
            assert torch.equal(rows.y, given[numbers(rows.pixels * 255)])
        unlabelled = torch.cat([numbers(step.unlabelled.pixels * 255) for step in steps if step.unlabelled])
        hidden = torch.ones(len(train), dtype=torch.bool)
        hidden[seen] = False
        assert torch.equal(unlabelled.unique(), train.at[hidden])
        if labelled:
            places = torch.cat([numbers(step.labelled.pixels * 255) for step in steps])
            assert torch.equal(places.unique(), train.at[seen][: len(places)])


def test_steps_are_the_same_however_much_of_a_file_is_in_hand_at_a_time(x):
    """Rows in the same order from memory and from the file: what is in hand says the order, not how it is read."""
    train = mapped(400).train
    few = replace(train, in_hand=128)
    small = Batches(few, torch.arange(0), 50, "none", seed=4)
    order = few.window(torch.arange(len(few)), 50).shuffled(torch.Generator().manual_seed(4))
    places = torch.cat([numbers(rows) for rows in steps_of(small)])
    assert torch.equal(places[: len(order)], train.at[order])


def test_rows_that_are_drawn_by_weights_are_read_for_the_steps_that_draw_them(x):
    train = replace(mapped(400).train, in_hand=128)
    batches = Batches(train, torch.arange(0), 50, "none", seed=4)
    batches.weights = torch.zeros(len(train)).index_fill(0, torch.arange(0, len(train), 10), 1.0)
    places = torch.cat([numbers(rows) for rows in steps_of(batches)])
    assert len(places) == 50 * batches.num_steps
    assert torch.equal(places.unique(), train.at[::10])


def test_a_file_that_is_cut_off_while_it_trains_is_said(x):
    train = replace(mapped(400).train, in_hand=128)
    with open("x.npy", "r+b") as cut:
        cut.truncate(20000)
    with pytest.raises(InputError, match="cut off while it was read"):
        steps_of(Batches(train, torch.arange(0), 50, "none", seed=4))


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
        ("doubles", {}),
        ("columns", {}),
        ("big-endian", {}),
        ("truth values", {}),
        ("unsigned", {}),
        ("integers", {"scale": 1.0}),
        ("channels last", {}),
        ("vectors", {}),
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
        "doubles": x / 255.0,
        "columns": np.asfortranarray(x),
        "big-endian": (x / 255).astype(">f4"),
        "truth values": x > 127,
        "unsigned": x.astype(np.uint16),
        "integers": x.astype(np.int64) - 100,
        "channels last": x.reshape(2000, 2, 2, 4),
        "vectors": x.reshape(2000, 16),
    }[values]
    np.save("x.npy", made)
    held = 16 * 200 * 8 * made[0].size  # memory enough for a tenth of the rows to validate
    found = load_data("x.npy", reading=Reading(memory=held, **reading))
    expected = from_arrays(made, reading=Reading(**reading))
    for name in ("kind", "event_shape", "channels_last"):
        assert getattr(found, name) == getattr(expected, name)
    assert found.reading == f"{expected.reading}, from a mapped file"
    assert found.train.scale == expected.train.scale
    for part, other in zip(found.splits, expected.splits, strict=True):
        rows = [values[:].values().flatten(1) for values in (part, other)]
        assert torch.equal(*(each[np.lexsort(each.T.numpy())] for each in rows))


def test_a_folder_of_shards_is_one_file(x):
    (folder := Path("shards")).mkdir()
    for i in range(4):
        np.save(folder / f"{i}.npy", x[500 * i : 500 * (i + 1)])
    whole, joined = mapped(400), mapped(400, "shards")
    assert torch.equal(joined.train.pixels, whole.train.pixels)
    np.save(folder / "3.npy", x[:300])
    assert len(mapped(400, "shards").train.pixels) == 1800
    np.save(folder / "2.npy", x[:300, :2])
    with pytest.raises(
        InputError, match=r"uint8 rows of shape \(4, 4\), as in 0.npy; got uint8 rows of shape \(2, 4\) in 2.npy"
    ):
        mapped(400, "shards")
    content = (folder / "1.npy").read_bytes()
    (folder / "1.npy").write_bytes(content[:-1])
    with pytest.raises(InputError, match=r"1\.npy; got one that cannot be mapped \(it is cut off"):
        mapped(400, "shards")


def test_labels_lie_beside_the_rows(x):
    labels = np.arange(2000) % 3 - 1
    np.save("x.labels.npy", labels)
    for data in (mapped(400), load_data("x.npy")):
        assert data.class_names == ("0", "1")
        for part in data.splits:
            numbers = part[:].pixels[:, 0, 0, 0] + 256 * part[:].pixels[:, 0, 0, 1].long()
            assert torch.equal(part.labels, torch.from_numpy(labels)[numbers])
    np.savez("x.npz", x=x, y=labels)
    assert torch.equal(mapped(400, "x.npz").train.labels, mapped(400).train.labels)
    np.save("x.labels.npy", labels[1:])
    with pytest.raises(InputError, match=r"one label per row in y of x.npy, shape \(2000,\); got shape \(1999,\)"):
        mapped(400)
    np.save("x.labels.npy", np.array([None, 1]), allow_pickle=True)
    with pytest.raises(InputError, match="numpy refuses"):
        mapped(400)


def test_labels_of_shards_lie_beside_each_or_all_of_them(x):
    (folder := Path("shards")).mkdir()
    for i in range(4):
        np.save(folder / f"{i}.npy", x[500 * i : 500 * (i + 1)])
    Path("shards/notes.txt").write_text("other files are passed over")
    np.save(folder / ".hidden.npy", x[:3])
    np.save(folder / "empty.npy", x[:0])
    np.save(folder / "labels.npy", np.arange(2000) % 2)
    assert torch.equal(mapped(400, "shards").train.labels, mapped(400, "shards").train.at % 2)
    np.save(folder / "2.labels.npy", np.array(["cat", "dog"] * 250))
    with pytest.raises(InputError, match=r"in one place; got labels.npy and 2.labels.npy"):
        mapped(400, "shards")
    (folder / "labels.npy").unlink()
    train = mapped(400, "shards").train
    there = (train.at >= 1000) & (train.at < 1500)
    assert torch.equal(train.labels, torch.where(there, train.at % 2, -1))
    np.save(folder / "3.labels.npy", np.arange(500))
    with pytest.raises(InputError, match="labels of one type"):
        mapped(400, "shards")
    for path in folder.glob("*labels.npy"):
        path.unlink()
    (folder / "3.npy").rename(folder / "10.npy")
    assert mapped(400, "shards").train.labels is None
    np.save(folder / "y.npy", np.arange(2000) % 2)
    with pytest.raises(InputError, match=r"10.npy, which sorts before 2.npy as text"):
        mapped(400, "shards")


def test_two_streams_share_the_memory_and_keep_their_labels(x):
    np.save("x.labels.npy", np.where(np.arange(2000) % 4 == 0, np.arange(2000) // 4 % 5, -1))
    train = mapped(10 * BLOCKS).train
    batches = Batches(train, (train.labels >= 0).nonzero().squeeze(1), 20, "none", seed=3)
    steps = list(batches.epoch())
    unlabelled = torch.cat([numbers(255 * each.unlabelled.pixels) for each in steps])
    assert torch.equal(unlabelled.unique(), train.at[train.labels < 0])
    places = train.at[train.labels < 0]
    for first in range(0, len(steps) - 16, 16):  # 5 rows a block, half of those that all of the memory holds
        assert len((torch.searchsorted(places, unlabelled[20 * first : 20 * first + 320]) // 5).unique()) <= BLOCKS
    for step in steps:
        labelled = numbers(255 * step.labelled.pixels)
        assert (labelled % 4 == 0).all()
        assert torch.equal(step.labelled.y, labelled // 4 % 5)


def test_rows_drawn_by_weights_are_taken_by_blocks(x, monkeypatch):
    train = mapped(5 * BLOCKS).train
    batches = Batches(train, torch.arange(0), 19, "none", seed=3)
    batches.weights = torch.where(torch.arange(len(train)) < 950, 3.0, 1.0)
    share = 3 * 950 / (3 * 950 + len(train) - 950)
    drawn = torch.cat([numbers(rows) for rows in steps_of(batches)])
    assert abs((drawn <= train.at[949]).double().mean() - share) < 0.05  # 5 standard deviations
    for first in range(0, 1900 - 320, 320):
        assert len(drawn[first : first + 320].sort().values.diff().nonzero()) < 320
        assert len((drawn[first : first + 320] // 40).unique()) <= 50
    alike = draw_rows(batches.weights, 10_000, torch.Generator().manual_seed(0))
    monkeypatch.setattr("pyro_vae.data.batches.MOST_WEIGHED", 100)
    other = draw_rows(batches.weights, 10_000, torch.Generator().manual_seed(0))
    for rows in (alike, other):
        assert abs((rows < 950).double().mean() - share) < 0.022  # 5 standard deviations
        assert abs(rows[rows < 950].double().mean() - 474.5) < 16
    assert other.max() < len(train)


def test_what_cannot_be_mapped_is_refused_in_one_line(x):
    for broken, message in (
        (x.astype(np.complex64), "numbers x of shape"),
        (x[0, 0], "numbers x of shape"),
        (np.where(x == 7, np.float32("nan"), x).astype(np.float32), "missing"),
        (1.6e9 + x, "single precision tells apart"),
        (1e300 * x, "up to 3e38"),
    ):
        np.save("x.npy", broken)
        with pytest.raises(InputError, match=message):
            mapped(4 * 400)
    with pytest.raises(InputError, match="the path of a file or folder for --memory"):
        mapped(400, "digits")
    np.save("x.npy", x)
    with pytest.raises(InputError, match="memory for a row"):
        mapped(0)
    train = mapped(400).train
    check_mapped(train, 400)
    check_mapped(train, 200, 2)
    with pytest.raises(InputError, match="a batch of 401 rows; got room for 400"):
        check_mapped(train, 401)
    with pytest.raises(InputError, match="a batch of 201 rows of either stream; got room for 200"):
        check_mapped(train, 201, 2)
    for whole in (train.values, lambda: binarize_once(train, "threshold")):
        with pytest.raises(InputError, match="or leave out --memory"):
            whole()


def test_a_damaged_copy_is_made_anew_and_an_old_one_goes(x):
    (folder := Path("shards")).mkdir()
    np.save(folder / "0.npy", x)
    whole, kept = mapped(400, "shards").train[:].pixels, Path("kept/cache")
    first = sorted(kept.iterdir())
    assert [path.suffix for path in first] == [".npy", ".npz"]
    for broken in (lambda c: c[:-1], lambda c: c[:150] + bytes([c[150] ^ 1]) + c[151:], lambda c: b""):
        for path in first:
            path.write_bytes(broken(path.read_bytes()))
            assert torch.equal(mapped(400, "shards").train[:].pixels, whole)
            assert sorted(kept.iterdir()) == first
    stat = (folder / "0.npy").stat()
    np.save(folder / "0.npy", x[::-1])
    os.utime(folder / "0.npy", ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as old and as long as the one before
    assert not torch.equal(mapped(400, "shards").train[:].pixels, whole)
    assert len(now := sorted(kept.iterdir())) == 2
    assert not set(now) & set(first)


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
    with pytest.raises(InputError, match="path of a file or folder for memory"):
        pyro_vae.fit("vae", data=x, memory="4KB", **TINY)


@pytest.mark.exhaustive
def test_a_loss_that_fails_names_rows_that_are_out_of_the_window_by_then(x):
    def model(x):
        scale = pyro.param("scale", torch.tensor(1.0), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(0, scale).expand(x.shape[1:]).to_event(x.dim() - 1), obs=x)
            row = (255 * x).round().flatten(1)
            pyro.factor("bad", torch.where(row[:, 0] + 256 * row[:, 1] == 777, torch.inf, 0.0))

    found = load_data("x.npy", reading=Reading(memory=4096, one_channel=False))
    bad = (found.train.at == 777).nonzero().item()
    message = rf"'bad' has .* for 1 of the batch's 50 rows \(training rows {bad}\)"
    settings = {"batch_size": 50, "display": False, "compile": "off", "epochs": 2}
    with pytest.raises(TrainingError, match=message):
        pyro_vae.fit(model, lambda x: None, data="x.npy", memory="4KB", **settings)


@pytest.mark.exhaustive
@pytest.mark.parametrize("model", ["ss_vae", "cvae", "db_vae"])
def test_programs_with_labels_train_on_them_as_on_arrays(x, model, monkeypatch):
    """Some rows have no label; what an epoch measures on validation rows before any step is that of arrays."""
    y = np.where(np.arange(2000) % 4 == 0, -1, x[:, 0, 1].astype(int) % 2)
    np.save("x.labels.npy", y)
    surveys = []
    monkeypatch.setattr(
        "pyro_vae.data.mapped.survey", lambda *each, found=survey: surveys.append(found(*each)) or surveys[-1]
    )
    settings = TINY | {"labels": "all", "lr": 1e-12, "epochs": 1, "seed": 1}
    run = pyro_vae.fit(model, data="x.npy", memory="10KB", **settings)
    assert len(surveys) == 1
    data = load_data("x.npy", reading=Reading(memory=10_000))
    alike = pyro_vae.fit(model, data=replace(data, train=data.train[:]), **settings)
    for name, value in alike.history.iloc[0].items():
        assert run.history.iloc[0][name] == pytest.approx(value, rel=0.02 if name == "train_loss" else 1e-5), name
    assert ("effective_rows" in run.history) == (model == "db_vae")


@pytest.mark.exhaustive
def test_a_compiled_step_sees_the_same_rows(x):
    runs = [
        pyro_vae.fit("vae", data="x.npy", memory="4KB", epochs=2, **TINY | {"compile": how}) for how in ("on", "off")
    ]
    losses = [run.history["train_loss"].tolist() for run in runs]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
