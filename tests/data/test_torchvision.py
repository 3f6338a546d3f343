from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pyro_vae.data import decoding, load_data
from pyro_vae.data.torchvision import ATTRIBUTES, resized
from pyro_vae.errors import InputError


@pytest.fixture
def store(tmp_path, monkeypatch) -> Path:
    """A folder of data, whose files torchvision takes for the published ones if they are there."""
    monkeypatch.setenv("PYRO_VAE_DATA", str(tmp_path))
    for module in ("celeba", "omniglot"):
        exists = lambda path, md5=None: Path(path).is_file()  # noqa: E731
        monkeypatch.setattr(f"torchvision.datasets.{module}.check_integrity", exists)
    return tmp_path


@pytest.fixture
def omniglot(store) -> Path:
    """Two alphabets of two characters, twelve images each, to train on, and one character to test on; ink is black."""
    root = store / "omniglot-py"
    for part, alphabets, characters in (("background", ("Greek", "Latin"), 2), ("evaluation", ("Ogham",), 1)):
        (root / f"images_{part}.zip").parent.mkdir(exist_ok=True)
        (root / f"images_{part}.zip").write_bytes(b"")
        for alphabet in alphabets:
            for character in range(characters):
                folder = root / f"images_{part}" / alphabet / f"character{character:02}"
                folder.mkdir(parents=True)
                for i in range(12):
                    pixels = np.ones((105, 105), bool)
                    pixels[15 * character : 15 * (character + 1)] = False
                    Image.fromarray(pixels).save(folder / f"{character:04}_{i:02}.png")
    return root


def test_omniglot(omniglot):
    data = load_data("omniglot")
    assert data.event_shape == (1, 28, 28)
    assert (len(data.train), len(data.validation), len(data.test)) == (44, 4, 12)
    assert data.train.labels is None
    assert data.class_names == ()
    assert data.train.scale == 255
    rows = data.test.values()[:, 0].mean(2)
    assert (rows[:, :3] == 1).all()  # the ink, at the top
    assert (rows[:, 6:] == 0).all()
    first_rows = torch.cat([data.train.pixels, data.validation.pixels])[:, 0, 0, 0]
    assert sorted(first_rows.tolist()) == [0] * 24 + [255] * 24


def test_omniglot_is_decoded_once_a_size(omniglot, monkeypatch):
    first = load_data("omniglot:size=32")
    assert first.event_shape == (1, 32, 32)
    monkeypatch.setattr(decoding, "decode", lambda *a: pytest.fail("decoded an image again"))
    assert torch.equal(load_data("omniglot:size=32").train.pixels, first.train.pixels)
    with pytest.raises(pytest.fail.Exception):
        load_data("omniglot")


def test_a_damaged_image_of_a_published_set_is_refused(omniglot):
    (omniglot / "images_evaluation/Ogham/character00/0000_03.png").write_bytes(b"")
    with pytest.raises(
        InputError, match=r"the omniglot images under .*; got 1 of 12 that cannot be read, .*0000_03.png"
    ):
        load_data("omniglot")


PARTITION = [i % 3 if i < 12 else 0 for i in range(18)]  # of eighteen images: ten train, four validate, four test


@pytest.fixture
def celeba(store) -> Path:
    """Eighteen images of 178x218, the i-th of the color (10 i, 10 i, 0) with red above and below its centre square."""
    root = store / "celeba"
    (root / "img_align_celeba").mkdir(parents=True)
    names = [f"{i + 1:06}.jpg" for i in range(18)]
    for i, name in enumerate(names):
        pixels = np.zeros((218, 178, 3), np.uint8)
        pixels[:] = (255, 0, 0)
        pixels[20:198] = (10 * i, 10 * i, 0)
        Image.fromarray(pixels).save(root / "img_align_celeba" / name, quality=95)
    male = ATTRIBUTES.index("Male")
    attributes = [[1 if a == male and i >= 9 else -1 for a in range(40)] for i in range(18)]

    def table(name: str, columns: int | list[list[int]], *header: str) -> None:
        rows = columns if isinstance(columns, list) else [[1] * columns for _ in names]
        lines = [f"{image} {' '.join(map(str, row))}" for image, row in zip(names, rows, strict=True)]
        (root / name).write_text("\n".join([*header, *lines]) + "\n")

    table("list_eval_partition.txt", [[part] for part in PARTITION])
    table("identity_CelebA.txt", 1)
    table("list_bbox_celeba.txt", 4, "18", "image_id x_1 y_1 width height")
    table("list_landmarks_align_celeba.txt", 10, "18", " ".join("abcdefghij"))
    table("list_attr_celeba.txt", attributes, "18", " ".join(ATTRIBUTES) + " ")
    return root


def test_celeba_has_its_published_splits_and_centre_squares(celeba):
    data = load_data("celeba")
    assert data.event_shape == (3, 64, 64)
    assert data.class_names == ()
    assert data.train.labels is None
    for part, images in enumerate((data.train, data.validation, data.test)):
        expected = torch.tensor([10.0 * i for i in range(18) if PARTITION[i] == part])
        centre = images.pixels[:, :, 8:-8, 8:-8].float().mean((2, 3))
        torch.testing.assert_close(centre[:, :2], expected[:, None].expand(-1, 2), atol=3, rtol=0)
        assert centre[:, 2].max() < 6
        edge = images.pixels[:, :, 0].float().mean(2)  # JPEG's blocks let a little red in
        assert (edge[:, 0] - edge[:, 1]).max() < 60


def test_an_attribute_of_celeba_is_a_label(celeba, monkeypatch):
    load_data("celeba:size=16")
    monkeypatch.setattr(decoding, "decode", lambda *a: pytest.fail("decoded an image again"))
    data = load_data("celeba:size=16,attribute=Male")
    assert data.name == "celeba:size=16,attribute=Male"
    assert data.event_shape == (3, 16, 16)
    assert data.class_names == ("not Male", "Male")
    for part, images in enumerate((data.train, data.validation, data.test)):
        assert images.labels.tolist() == [int(i >= 9) for i in range(18) if PARTITION[i] == part]
    assert load_data("celeba:size=16,attribute=Wearing_Hat").class_names == ("not Wearing Hat", "Wearing Hat")
    assert load_data("celeba:size=16,attribute=none").train.labels is None


def test_the_attributes_are_in_the_order_of_the_file(celeba):
    from torchvision.datasets import CelebA

    assert tuple(CelebA(str(celeba.parent)).attr_names[:40]) == ATTRIBUTES
    assert len(ATTRIBUTES) == 40


def test_an_unknown_attribute_suggests_the_near_miss(store):
    with pytest.raises(InputError, match=r"an attribute of CelebA; got 'male'; did you mean 'Male'\?"):
        load_data("celeba:attribute=male")


@pytest.mark.parametrize(
    ("name", "folder"), [("celeba", "celeba.img_align_celeba"), ("omniglot", "omniglot-py.images_background")]
)
def test_missing_sets_name_the_folder_and_the_flag(store, name, folder):
    with pytest.raises(
        InputError, match=rf"the {name} files under .*{folder}; got .* or fetch it once with --download"
    ):
        load_data(name)
    assert not list(store.iterdir())


def test_a_face_that_is_missing_is_refused(celeba):
    (celeba / "img_align_celeba/000004.jpg").unlink()
    with pytest.raises(InputError, match=r"got 1 of 18 that cannot be read, the first: img_align_celeba/000004.jpg"):
        load_data("celeba")


@pytest.mark.parametrize("size", [14, 20, 32])
def test_resized_is_the_antialiased_bilinear_filter(size):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (1003, 28, 28), dtype=np.uint8)
    ours = resized(torch.from_numpy(images).unsqueeze(1), size)
    assert ours.dtype == torch.uint8
    assert ours.shape == (1003, 1, size, size)
    for i in (0, 500, 999, 1000, 1002):
        theirs = np.asarray(Image.fromarray(images[i]).resize((size, size), Image.Resampling.BILINEAR))
        assert np.abs(ours[i, 0].numpy().astype(int) - theirs).max() <= 1


def test_the_size_as_published_is_left_alone():
    pixels = torch.zeros(3, 1, 28, 28, dtype=torch.uint8)
    assert resized(pixels, None) is pixels
    assert resized(pixels, 28) is pixels


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (
            "mnist:size=0",
            "size of the data set 'mnist' to be at least 1; got '0'; leave it out or use size=none, for example",
        ),
        ("kmnist:size=big", "size of the data set 'kmnist' to be a whole number; got 'big'"),
        ("fashion_mnist:side=3", "an option of the data set 'fashion_mnist'; got 'side'; it takes size=none"),
        ("celeba:size=none", "size of the data set 'celeba' to be a whole number; got 'none'"),
        ("digits:size=3", "got 'size'; it takes none"),
    ],
)
def test_options_that_do_not_fit_are_refused(choice, message):
    with pytest.raises(InputError, match=message):
        load_data(choice)
