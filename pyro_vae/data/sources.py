"""Where images come from: a registry of names, and ``.npz`` files by path.

A source is a function of the folder for downloaded data and of whether downloading is allowed.  Adding one is one
function with a decorator.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pyro_vae.data.arrays import from_arrays, split_at_random
from pyro_vae.data.images import Dataset, Images
from pyro_vae.errors import InputError, nearest
from pyro_vae.registry import Registry, parse_choice

DATA: Registry[Dataset] = Registry("data set", ("download",))


def data_folder() -> Path:
    """The folder of downloaded data: ``PYRO_VAE_DATA``, or a cache in the home folder."""
    return Path(os.environ.get("PYRO_VAE_DATA") or Path.home() / ".cache" / "pyro_vae")


def load_data(name: str, *, download: bool = False) -> Dataset:
    """Load a data set by its registered name, or from the path of an ``.npz`` file.

    Args:
        name: one of ``DATA``, or a path that ends in ``.npz``.
        download: whether a source may fetch what is not in ``data_folder()``.

    Raises:
        InputError: if the name is unknown, the data are not there, or the file does not hold what it should.
    """
    if name.endswith(".npz"):
        return load_npz(Path(name))
    if parse_choice(name)[0] not in DATA:
        raise InputError("a known data set or the path of an .npz file", repr(name), nearest(name, DATA))
    return DATA.build(name, download=download)


@DATA.register("digits")
def digits(download: bool = False) -> Dataset:
    """Handwritten digits, 8x8, 1,797 images that come with scikit-learn."""
    from sklearn.datasets import load_digits

    source = load_digits()
    pixels = torch.from_numpy(source.images.astype(np.uint8)).unsqueeze(1)
    images = Images(pixels, torch.from_numpy(source.target.astype(np.int64)), scale=16.0)
    return split_at_random("digits", images, validation=200, test=400, class_names=tuple("0123456789"))


@DATA.register("mnist")
def mnist(download: bool = False) -> Dataset:
    """Handwritten digits, 28x28, 70,000 images."""
    return _from_torchvision("mnist", "MNIST", download)


@DATA.register("fashion_mnist")
def fashion_mnist(download: bool = False) -> Dataset:
    """Articles of clothing, 28x28, 70,000 images."""
    return _from_torchvision("fashion_mnist", "FashionMNIST", download)


@DATA.register("kmnist")
def kmnist(download: bool = False) -> Dataset:
    """Cursive Japanese characters, 28x28, 70,000 images."""
    return _from_torchvision("kmnist", "KMNIST", download)


def _from_torchvision(name: str, class_name: str, download: bool) -> Dataset:
    """A set of the MNIST family: 55,000 train, 5,000 validation (the last of the published train rows), 10,000 test."""
    try:
        from torchvision import datasets
    except (ImportError, RuntimeError) as error:  # a torchvision built for another torch fails with a RuntimeError
        raise InputError(
            "a torchvision that fits this torch",
            f"an import error ({error})",
            "install both from the same place: pip install --force-reinstall torch torchvision",
        ) from error
    folder = data_folder()
    raw = folder / class_name / "raw"

    def read(train: bool) -> Images:
        try:
            source: Any = getattr(datasets, class_name)(str(folder), train=train, download=download)
        except Exception as error:  # torchvision raises whatever the missing, cut or unreachable file raised
            for empty in (raw, raw.parent):  # which a failed download leaves behind
                if empty.is_dir() and not any(empty.iterdir()):
                    empty.rmdir()
            reason = str(error).partition("\n")[0].rstrip(":. ")
            fetch = "check the connection and try again" if download else "fetch it once with --download"
            raise InputError(
                f"the {name} files under {raw}",
                f"{type(error).__name__}: {reason}",
                f"set PYRO_VAE_DATA to the folder that holds {class_name}/raw, or {fetch}",
            ) from error
        return Images(source.data.unsqueeze(1), source.targets.long(), scale=255.0)

    rows, test = read(train=True), read(train=False)
    names = tuple(str(c).split(" - ")[0] for c in getattr(datasets, class_name).classes)
    train, validation = rows[slice(None, -5000)], rows[slice(-5000, None)]
    split = f"{len(train)} train, {len(validation)} validation (the end of the published train set), {len(test)} test"
    return Dataset(name, train, validation, test, names, split)


def load_npz(path: Path) -> Dataset:
    """Read an ``.npz`` file with an array ``x`` of images and, if there are labels, an array ``y``.

    See ``from_arrays`` for their shapes and what becomes of them.

    Raises:
        InputError: if the file is missing or no ``.npz``, holds objects that would run code, or x or y are not as
            above.
    """
    mend = "write one with numpy.savez(path, x=images, y=labels)"
    what = f"an .npz file with an array x at {path}"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files if key in ("x", "y")}
            found = ", ".join(archive.files) or "nothing"
    except FileNotFoundError:
        raise InputError(what, "no such file", mend) from None
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:  # TypeError: a lone .npy
        raise InputError(what, f"a file that numpy refuses ({str(error).splitlines()[0]})", mend) from error
    if "x" not in arrays:
        raise InputError(what, f"a file with {found}", mend)
    return from_arrays(arrays["x"], arrays.get("y"), str(path))
