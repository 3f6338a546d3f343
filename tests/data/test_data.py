from __future__ import annotations

import math
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributions import constraints

from pyro_vae.data import (
    AUGMENTATIONS,
    Batches,
    Images,
    binarize,
    binarize_once,
    check_range,
    from_arrays,
    labelled_rows,
    load_data,
)
from pyro_vae.errors import InputError

needs_mnist = pytest.mark.skipif(
    not os.path.isdir(os.path.join(os.environ.get("PYRO_VAE_DATA", ""), "MNIST", "raw")),
    reason="set PYRO_VAE_DATA to a folder with MNIST/raw",
)


def test_digits_have_fixed_splits():
    data = load_data("digits")
    assert (len(data.train), len(data.validation), len(data.test)) == (1197, 200, 400)
    assert data.event_shape == (1, 8, 8)
    assert data.num_classes == 10
    assert torch.equal(data.test.pixels, load_data("digits").test.pixels)
    rows = torch.cat([part.pixels.flatten(1) for part in (data.train, data.validation, data.test)])
    labels = torch.cat([part.labels for part in (data.train, data.validation, data.test)])
    from sklearn.datasets import load_digits

    source = load_digits()
    ours = sorted(zip(map(tuple, rows.tolist()), labels.tolist(), strict=True))
    theirs = sorted(zip(map(tuple, source.data.astype(int).tolist()), source.target.tolist(), strict=True))
    assert ours == theirs


def test_images_are_kept_as_bytes():
    data = load_data("digits")
    assert data.train.pixels.dtype == torch.uint8
    values = data.train.values()
    assert values.dtype == torch.float32
    assert (values.min(), values.max()) == (0, 1)


@needs_mnist
def test_mnist_of_another_size():
    data, smaller = load_data("mnist"), load_data("mnist:size=14")
    assert smaller.event_shape == (1, 14, 14)
    assert smaller.train.pixels.dtype == torch.uint8
    assert smaller.name == "mnist:size=14"
    assert torch.equal(smaller.test.labels, data.test.labels)
    assert smaller.test.values().mean().item() == pytest.approx(data.test.values().mean().item(), abs=2e-3)


@needs_mnist
def test_mnist_splits():
    data = load_data("mnist")
    assert (len(data.train), len(data.validation), len(data.test)) == (55_000, 5_000, 10_000)
    assert data.train.pixels.dtype == torch.uint8
    assert data.test.labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_missing_download_names_the_folder_and_the_flag(tmp_path, monkeypatch):
    monkeypatch.setenv("PYRO_VAE_DATA", str(tmp_path))
    with pytest.raises(InputError, match=r"MNIST.raw; got .*; set PYRO_VAE_DATA .* or fetch it once with --download"):
        load_data("mnist")
    assert not list(tmp_path.iterdir())


def test_a_failed_download_leaves_nothing_behind(tmp_path, monkeypatch):
    from torchvision import datasets

    def unreachable(self):
        os.makedirs(self.raw_folder)
        raise RuntimeError("Error downloading train-images-idx3-ubyte.gz:\nno route to host")

    monkeypatch.setenv("PYRO_VAE_DATA", str(tmp_path))
    monkeypatch.setattr(datasets.KMNIST, "download", unreachable)
    with pytest.raises(InputError, match=r"RuntimeError: Error downloading .*\.gz; .* or check the connection"):
        load_data("kmnist", download=True)
    assert not list(tmp_path.iterdir())


def test_unknown_data_suggests_the_near_miss():
    with pytest.raises(InputError, match="did you mean 'digits'"):
        load_data("digit")


def test_npz_round_trip(toy_npz, toy_arrays):
    data = load_data(toy_npz)
    assert data.event_shape == (1, 6, 6)
    assert data.class_names == ("0", "1", "2")
    assert (len(data.train), len(data.validation), len(data.test)) == (48, 6, 6)
    pixels = torch.cat([part.pixels for part in (data.train, data.validation, data.test)]).squeeze(1)
    assert sorted(map(tuple, pixels.flatten(1).tolist())) == sorted(map(tuple, toy_arrays[0].reshape(60, -1).tolist()))


def test_npy_is_x_alone(tmp_path, toy_arrays):
    np.save(tmp_path / "x.npy", toy_arrays[0])
    data = load_data(str(tmp_path / "x.npy"))
    assert data.event_shape == (1, 6, 6)
    assert data.train.labels is None
    assert data.name == str(tmp_path / "x.npy")
    pixels = torch.cat([part.pixels for part in (data.train, data.validation, data.test)]).flatten(1)
    assert sorted(map(tuple, pixels.tolist())) == sorted(map(tuple, toy_arrays[0].reshape(60, -1).tolist()))


def test_a_file_by_the_name_of_the_other_kind_is_refused(tmp_path, toy_npz):
    Path(toy_npz).rename(tmp_path / "a.npy")
    with pytest.raises(InputError, match=r"an .npy file with one array at .*; got .* by another name\); write one"):
        load_data(str(tmp_path / "a.npy"))
    with (tmp_path / "b.npz").open("wb") as file:
        np.save(file, GOOD)
    with pytest.raises(InputError, match=r"an .npz file with an array x at .*; got .* by another name\); write one"):
        load_data(str(tmp_path / "b.npz"))


@pytest.mark.parametrize("content", [b"", b"junk", pickle.dumps(1)])
def test_files_that_are_no_npy_are_refused(tmp_path, content):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(InputError, match=r"^(?!.*allow_pickle).*an .npy file .*; got a file that numpy refuses"):
        load_data(str(tmp_path / "a.npy"))


def test_an_npy_that_would_run_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", np.array([_Bomb()] * 20))
    with pytest.raises(InputError, match="a file that numpy refuses"):
        load_data("a.npy")
    assert not (tmp_path / "exploded").exists()


def test_files_take_no_options(toy_npz):
    with pytest.raises(InputError, match=r"an option of the file .*; got 'size'; it takes none"):
        load_data(f"{toy_npz}:size=3")


def test_classes_keep_their_names():
    x = np.random.default_rng(0).uniform(size=(12, 4))
    data = from_arrays(x, np.array(["cat", "dog", "eel"] * 4))
    assert data.class_names == ("cat", "dog", "eel")
    assert data.event_shape == (4,)


class _Bomb:
    def __reduce__(self):
        return os.system, ("touch exploded",)


GOOD = np.zeros((20, 4), dtype=np.float32)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": GOOD}, "an array x at .*; got a file with images"),
        ({"x": np.full((20, 4), np.nan)}, "every value of x .*; got 80 missing .*100 % of them; use --missing mask"),
        ({"x": GOOD + np.inf}, "finite numbers in x .*; got 80 that are infinite"),
        ({"x": GOOD, "y": np.zeros(19, int)}, r"one label per row in y .*; got shape \(19,\)"),
        ({"x": GOOD, "y": np.arange(20) + 0.5}, r"class labels in y .*; got 0.5; give classes"),
        ({"x": GOOD, "y": np.zeros(20, int)}, "at least two classes in y .*; got 1"),
        ({"x": np.zeros(20)}, r"x of shape .*; got shape \(20,\)"),
        ({"x": GOOD[:3]}, r"at least 10 rows .*; got shape \(3, 4\)"),
        ({"x": GOOD.astype(complex)}, "numbers in x .*; got dtype complex128"),
        ({"x": np.array([_Bomb()] * 20)}, "a file that numpy refuses"),
    ],
)
def test_bad_npz_files_are_refused(tmp_path, monkeypatch, arrays, message):
    monkeypatch.chdir(tmp_path)
    np.savez("bad.npz", **arrays)
    with pytest.raises(InputError, match=message):
        load_data("bad.npz")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("content", [b"", b"not a zip", pickle.dumps({"x": 1}), b"PK\x03\x04broken"])
def test_files_that_are_no_npz_are_refused(tmp_path, content):
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"^(?!.*allow_pickle)expected an .npz file .*; got a file that numpy refuses"):
        load_data(str(path))


def test_a_missing_npz_says_so(tmp_path):
    with pytest.raises(InputError, match="got no such file"):
        load_data(str(tmp_path / "none.npz"))


def test_threshold_and_none():
    x = torch.tensor([0.0, 0.49, 0.5, 1.0])
    assert binarize(x, "threshold").tolist() == [0, 0, 1, 1]
    assert binarize(x, "none") is x


def test_dynamic_binarization_has_the_pixels_as_its_mean():
    """50,000 draws a pixel; 6 standard errors are 0.0135, so a false alarm has a chance below 1e-7."""
    x = torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0]).expand(50_000, 5)
    draws = binarize(x, "dynamic")
    assert set(draws.unique().tolist()) == {0, 1}
    torch.testing.assert_close(draws.mean(0), x[0], atol=0.0135, rtol=0)
    assert draws[:, 0].max() == 0
    assert draws[:, 4].min() == 1


def test_binarized_once_is_always_the_same():
    images = load_data("digits").test
    first, second = binarize_once(images, "dynamic"), binarize_once(images, "dynamic")
    assert first.binary.dtype == torch.uint8
    assert torch.equal(first.x(), second.x())
    assert torch.equal(first.values(), images.values())
    assert not torch.equal(first.x(), binarize_once(images, "dynamic", seed=1).x())


def test_range_checks():
    gray = from_arrays(np.linspace(0, 1, 80).reshape(20, 4))
    check_range(gray, "dynamic", constraints.boolean)
    for support in (constraints.real, constraints.unit_interval, None):
        check_range(gray, "none", support)
    with pytest.raises(
        InputError, match=r"that are 0 or 1, which .*; got 63 other values .*; use --binarization dynamic"
    ):
        check_range(gray, "none", constraints.boolean)
    wide = from_arrays(np.linspace(-1, 3, 80).reshape(20, 4))
    check_range(wide, "none", constraints.real)
    for how, support in (
        ("dynamic", constraints.boolean),
        ("threshold", constraints.real),
        ("none", constraints.unit_interval),
    ):
        with pytest.raises(InputError, match=r"in \[0, 1\].*; got .* other values from .*; use --likelihood gaussian"):
            check_range(wide, how, support)
    with pytest.raises(InputError, match="that are counts, 0, 1, 2"):
        check_range(wide, "none", constraints.nonnegative_integer)
    check_range(from_arrays(np.arange(80).reshape(20, 4) % 2), "none", constraints.boolean)


def labelled_images(counts: list[int]) -> Images:
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    return Images(torch.zeros(len(labels), 2), labels)


@pytest.mark.parametrize("number", [3, 7, 30, 33, 60])
def test_labels_are_spread_evenly(number):
    images = labelled_images([20, 20, 20])
    rows = labelled_rows(images, number, 3, seed=0)
    assert len(rows.unique()) == len(rows) == number
    counts = images.labels[rows].bincount(minlength=3)
    assert counts.max() - counts.min() <= 1


def test_a_rare_class_gives_all_it_has():
    images = labelled_images([40, 2, 40])
    assert images.labels[labelled_rows(images, 30, 3, seed=0)].bincount().tolist() == [14, 2, 14]


def test_labels_are_drawn_by_seed():
    images = labelled_images([50, 50])
    draw = [labelled_rows(images, 10, 2, seed).tolist() for seed in (0, 0, 1)]
    assert draw[0] == draw[1] != draw[2]


def test_all_and_none():
    images = labelled_images([5, 5])
    assert labelled_rows(images, "all", 2, 0).tolist() == list(range(10))
    assert labelled_rows(images, "none", 2, 0).numel() == 0
    assert labelled_rows(Images(torch.zeros(3, 2)), "none", None, 0).numel() == 0


@pytest.mark.parametrize("number", [1, 11])
def test_too_few_or_too_many_labels_are_refused(number):
    with pytest.raises(InputError, match=rf"--labels from 2 \(one per class\) to 10 .*; got {number}; use --labels"):
        labelled_rows(labelled_images([5, 5]), number, 2, 0)


def test_labels_of_unlabelled_data_are_refused():
    with pytest.raises(InputError, match="expected data with class labels"):
        labelled_rows(Images(torch.zeros(3, 2)), 2, None, 0)


def numbered(count: int) -> Images:
    return Images(torch.arange(count).float().unsqueeze(1), torch.arange(count) % 2)


def test_every_row_comes_once_an_epoch_and_every_batch_is_full():
    batches = Batches(numbered(10), torch.tensor([1, 4]), 3, "none", seed=0)
    seen = list(batches.epoch())
    assert len(seen) == batches.num_steps == 3
    unlabelled = torch.cat([batch.unlabelled.x.squeeze(1) for batch in seen])
    assert set(unlabelled.tolist()) == {0, 2, 3, 5, 6, 7, 8, 9}
    assert {batch.unlabelled.x.shape[0] for batch in seen} == {3}
    assert {tuple(sorted(batch.labelled.x.squeeze(1).tolist())) for batch in seen} == {(1.0, 4.0)}
    assert all(torch.equal(batch.labelled.y, batch.labelled.x.squeeze(1).long() % 2) for batch in seen)
    assert batches.labelled_fraction == 0.2


def test_epochs_differ_and_seeds_repeat():
    def orders(seed: int) -> list[list[float]]:
        batches = Batches(numbered(40), torch.empty(0, dtype=torch.int64), 8, "none", seed)
        return [torch.cat([b.unlabelled.x for b in batches.epoch()]).flatten().tolist() for _ in range(2)]

    assert orders(0) == orders(0)
    assert orders(0)[0] != orders(0)[1]
    assert orders(0) != orders(1)


def test_an_epoch_can_be_taken_up_in_the_middle():
    batches = Batches(numbered(40), torch.tensor([3]), 8, "none", 0)
    state = batches.generator.get_state()
    whole = [batch.unlabelled.x for batch in batches.epoch()]
    batches.generator.set_state(state)
    rest = [batch.unlabelled.x for batch in batches.epoch(start=3)]
    assert all(torch.equal(a, b) for a, b in zip(whole[3:], rest, strict=True))


def test_only_labelled_rows_and_only_unlabelled_ones():
    all_labelled = next(Batches(numbered(6), torch.arange(6), 4, "none", 0).epoch())
    assert all_labelled.unlabelled is None
    assert len(all_labelled.labelled.x) == 4
    none_labelled = next(Batches(numbered(6), torch.empty(0, dtype=torch.int64), 4, "none", 0).epoch())
    assert none_labelled.labelled is None


def test_affine_changes_keep_shape_range_and_most_of_the_ink():
    images = load_data("digits").train[slice(0, 100)].values()
    affine = AUGMENTATIONS.build("affine")
    changed = affine(images)
    assert changed.shape == images.shape
    assert 0 <= changed.min() <= changed.max() <= 1 + 1e-6
    assert not torch.equal(changed, images)
    assert changed.sum().item() == pytest.approx(images.sum().item(), rel=0.25)
    assert affine(torch.zeros(2, 3, 5, 5)).abs().max() == 0


@pytest.mark.parametrize("option", ["rotation", "shear", "scale", "shift"])
def test_each_affine_change_is_as_large_as_asked(option):
    still = {"rotation": 0, "shear": 0, "scale": 0, "shift": 0}
    x = torch.zeros(500, 1, 29, 29)
    x[:, :, 12:17, 20:25] = 1.0  # right of the middle, which a turn moves up and down
    at = torch.arange(29.0) - 14

    def middle(**largest):
        choice = "affine:" + ",".join(f"{name}={size}" for name, size in (still | largest).items())
        changed = AUGMENTATIONS.build(choice)(x.mT if option == "shear" else x).squeeze(1)
        ink = changed.sum((1, 2))
        return (changed.sum(1) @ at) / ink, (changed.sum(2) @ at) / ink

    torch.manual_seed(0)
    before = torch.stack(middle())
    assert before.sum(0).allclose(torch.tensor(8.0), atol=1e-4)
    after = torch.stack(middle(**{option: 20 if option == "rotation" else 0.1}))
    turned = math.radians(20)
    far = {
        "rotation": (8 * (1 - math.cos(turned)), 8 * math.sin(turned)),
        "shear": (0.8, 0.0),
        "scale": (8 / 0.9 - 8, 0.0),
        "shift": (2.9, 2.9),
    }
    for moved, expected in zip((after - before).abs().amax(1), far[option], strict=True):
        assert moved.item() == pytest.approx(expected, rel=0.05, abs=1e-3)


def test_a_binarization_that_is_none_is_refused():
    with pytest.raises(InputError, match="a binarization; got 'dynmic'; did you mean 'dynamic'"):
        binarize(torch.rand(3), "dynmic")


def test_tensors_and_lists_are_arrays_too():
    x, y = torch.rand(20, 4), ["a", "b"] * 10
    found = from_arrays(x, y)
    assert found.class_names == ("a", "b")
    assert set(map(tuple, found.train.pixels.tolist())) <= set(map(tuple, x.tolist()))
