"""Published data sets through torchvision: the MNIST family, Omniglot, CelebA.

torchvision fetches and checks the files; the splits are the published ones, or are cut from them as each says.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from pyro_vae.data.arrays import split_at_random
from pyro_vae.data.base import DATA, data_folder
from pyro_vae.data.cache import cached, fingerprint_of
from pyro_vae.data.decoding import Pixels, decode_all
from pyro_vae.data.images import Dataset, Images
from pyro_vae.data.pixels import Array
from pyro_vae.errors import InputError, nearest
from pyro_vae.option_types import NameOrNone, Whole, WholeOrNone

ATTRIBUTES = tuple(
    """5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair Blond_Hair
    Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup High_Cheekbones Male
    Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks
    Sideburns Smiling Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace
    Wearing_Necktie Young""".split()
)  # of CelebA


@DATA.register("mnist")
def mnist(download: bool = False, size: WholeOrNone = None) -> Dataset:
    """Handwritten digits, 28x28, 70,000 images."""
    return _mnist_like("mnist", "MNIST", download, size)


@DATA.register("fashion_mnist")
def fashion_mnist(download: bool = False, size: WholeOrNone = None) -> Dataset:
    """Articles of clothing, 28x28, 70,000 images."""
    return _mnist_like("fashion_mnist", "FashionMNIST", download, size)


@DATA.register("kmnist")
def kmnist(download: bool = False, size: WholeOrNone = None) -> Dataset:
    """Cursive Japanese characters, 28x28, 70,000 images."""
    return _mnist_like("kmnist", "KMNIST", download, size)


@DATA.register("omniglot")
def omniglot(download: bool = False, size: Whole = 28) -> Dataset:
    """Handwritten characters of 50 alphabets, 32,460 images, ink 1; no labels, for the test characters are others.

    The background set of 30 alphabets trains and, a tenth of it drawn by a fixed permutation, validates; the evaluation
    set of 20 alphabets tests.
    """
    root = data_folder() / "omniglot-py"
    folders = (root / "images_background", root / "images_evaluation")
    for folder in folders:
        _open("omniglot", "Omniglot", folder, download, background=folder == folders[0])
    background, evaluation = (Images(torch.from_numpy(_characters(folder, size)), scale=255.0) for folder in folders)
    data = split_at_random("omniglot", background, validation=len(background) // 10, test=0, kind="intensities")
    split = (
        f"{len(data.train)} train, {len(data.validation)} validation (a fixed permutation of the background set), "
        f"{len(evaluation)} test (the evaluation set)"
    )
    return replace(data, test=evaluation, split=split)


@DATA.register("celeba")
def celeba(download: bool = False, size: Whole = 64, attribute: NameOrNone = None) -> Dataset:
    """Faces of celebrities, 202,599 color images, their centre squares; with an attribute such as Male, two classes."""
    if attribute is not None and attribute not in ATTRIBUTES:
        raise InputError("an attribute of CelebA", repr(attribute), nearest(attribute, ATTRIBUTES))
    root = data_folder() / "celeba"
    folder = root / "img_align_celeba"
    if download or not folder.is_dir():
        _open("celeba", "CelebA", folder, download, split="all")
    files = sorted(root.glob("*.txt")) + sorted(folder.glob("*.jpg"))
    origin = f"{os.path.realpath(root)} size={size}"
    arrays = cached("celeba", origin, fingerprint_of(root, files), lambda: _faces(root, size))
    labels: Tensor | None = None
    class_names: tuple[str, ...] = ()
    if attribute is not None:
        labels = torch.from_numpy(arrays["attributes"][:, ATTRIBUTES.index(attribute)]).long()
        class_names = (f"not {attribute.replace('_', ' ')}", attribute.replace("_", " "))
    rows = Images(torch.from_numpy(arrays["x"]), labels, scale=255.0)
    train, validation, test = arrays["num_data"].tolist()
    return Dataset(
        "celeba",
        rows[slice(0, train)],
        rows[slice(train, train + validation)],
        rows[slice(train + validation, None)],
        class_names,
        f"{train} train, {validation} validation and {test} test, as published",
    )


def _mnist_like(name: str, class_name: str, download: bool, size: int | None) -> Dataset:
    """A set of the MNIST family: 55,000 train, 5,000 validation (the last of the published train rows), 10,000 test."""
    raw = data_folder() / class_name / "raw"

    def read(train: bool) -> Images:
        source = _open(name, class_name, raw, download, train=train)
        return Images(resized(source.data.unsqueeze(1), size), source.targets.long(), scale=255.0)

    rows, test = read(train=True), read(train=False)
    classes = _datasets(class_name).classes
    names = tuple(str(c).split(" - ")[0] for c in classes)
    train, validation = rows[slice(None, -5000)], rows[slice(-5000, None)]
    split = f"{len(train)} train, {len(validation)} validation (the end of the published train set), {len(test)} test"
    return Dataset(name, train, validation, test, names, split, "intensities")


def resized(pixels: Tensor, size: int | None) -> Tensor:
    """Square images of another size, by antialiased bilinear resampling, rounded.

    Args:
        pixels: uint8 of shape (N, C, H, W).
        size: the side; None leaves them as they are.
    """
    if size is None or pixels.shape[-2:] == (size, size):
        return pixels
    out = torch.empty(*pixels.shape[:2], size, size, dtype=torch.uint8)
    for start in range(0, len(pixels), 1000):  # as float, a chunk at a time
        chunk = pixels[start : start + 1000].float()
        out[start : start + 1000] = interpolate(chunk, (size, size), mode="bilinear", antialias=True).round().byte()
    return out


def _characters(folder: Path, size: int) -> Array:
    """The characters of one part of Omniglot, uint8 of shape (N, 1, size, size), white on black."""
    files = sorted(folder.glob("*/*/*.png"))

    def make() -> dict[str, Array]:
        return {"x": 255 - _decoded("omniglot", folder, files, size)}

    origin = f"{os.path.realpath(folder)} size={size}"
    return cached(f"omniglot-{folder.name}", origin, fingerprint_of(folder, files), make)["x"]


def _faces(root: Path, size: int) -> dict[str, Array]:
    """CelebA in the order of its splits: x, the attributes of shape (N, 40), and the three numbers of rows."""
    folder = root / "img_align_celeba"
    sources = [_open("celeba", "CelebA", folder, download=False, split=split) for split in ("train", "valid", "test")]
    files = [folder / name for source in sources for name in source.filename]
    return {
        "x": _decoded("celeba", root, files, size),
        "attributes": np.concatenate([source.attr.numpy() for source in sources]).astype(np.uint8),
        "num_data": np.array([len(source) for source in sources]),
    }


def _decoded(name: str, root: Path, files: list[Path], size: int) -> Pixels:
    """Decode every file of a published set; none may be missing, for the splits are by number."""
    decoded = decode_all(root, files, (size, size))
    if decoded.unreadable:
        raise InputError(
            f"the {name} images under {root}",
            f"{len(decoded.unreadable)} of {len(files):,} that cannot be read, the first: {decoded.unreadable[0]}",
            "delete the folder and fetch it again with --download",
        )
    return decoded.pixels


def _open(name: str, class_name: str, folder: Path, download: bool, **options: Any) -> Any:
    """A data set of torchvision, its files checked, and fetched if that is allowed.

    Raises:
        InputError: if they are not there; an empty folder that a failed download leaves behind is removed.
    """
    constructor = _datasets(class_name)
    try:
        return constructor(str(data_folder()), download=download, **options)
    except Exception as error:  # torchvision raises whatever the missing, cut or unreachable file raised
        for empty in (folder, folder.parent):
            if empty.is_dir() and not any(empty.iterdir()):
                empty.rmdir()
        reason = str(error).partition("\n")[0].partition(". You can use download=True")[0].rstrip(":. ")
        fetch = "check the connection and try again" if download else "fetch it once with --download"
        raise InputError(
            f"the {name} files under {folder}",
            f"{type(error).__name__}: {reason}",
            f"set PYRO_VAE_DATA to the folder that holds {folder.relative_to(data_folder())}, or {fetch}",
        ) from error


def _datasets(class_name: str) -> Any:
    try:
        from torchvision import datasets
    except (ImportError, RuntimeError) as error:  # a torchvision built for another torch fails with a RuntimeError
        raise InputError(
            "a torchvision that fits this torch",
            f"an import error ({error})",
            "install both from the same place: pip install --force-reinstall torch torchvision",
        ) from error
    return getattr(datasets, class_name)
