"""Which data are meant by a text: a registered name, a file of arrays, or a folder of images."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

from pyro_vae.data.array_files import SUFFIXES, load_file
from pyro_vae.data.arrays import READ
from pyro_vae.data.base import DATA
from pyro_vae.data.folders import folder_options, load_folder
from pyro_vae.data.images import Dataset
from pyro_vae.data.large_sources import check_not_large, large_source
from pyro_vae.data.mapped import load_mapped
from pyro_vae.data.pixels import Reading
from pyro_vae.errors import InputError, nearest
from pyro_vae.registry import parse_choice, read_options


def load_data(
    name: str | os.PathLike[str], *, download: bool = False, strict: bool = False, reading: Reading = READ
) -> Dataset:
    """Load a data set by its registered name, or from a path.

    A registered name wins over a folder of that name, which is reached as ``./NAME``.

    Args:
        name: one of ``DATA``, with options if it takes any (``mnist:size=32``); a path that ends in ``.npz``, ``.npy``,
            ``.csv``, ``.tsv`` or ``.parquet``; or the path of a folder of images (``photos``, ``photos:size=64``,
            ``photos:size=56x46``).  ``~`` is the home folder.
        download: whether a source may fetch what is not in ``data_folder()``.
        strict: whether an image that cannot be read is refused instead of left out.
        reading: how the arrays of a file are to be read, where it is not to be found out.

    Raises:
        InputError: if the name is unknown, the data are not there, or are not what they should be.

    Example:
        >>> from pyro_vae.data import load_data
        >>> data = load_data("digits")
        >>> data.event_shape, data.num_classes, len(data.train)
        ((1, 8, 8), 10, 1197)
        >>> try:
        ...     load_data("digit")
        ... except ValueError as error:
        ...     print(error)
        expected a known data set, a file of arrays or a table, or a folder of images; got 'digit';
        did you mean 'digits'?
    """
    is_text = isinstance(name, str)
    name = os.fspath(name)
    if is_text and parse_choice(name)[0] in DATA:
        if reading.memory is not None:
            raise InputError("the path of a file or folder for --memory", repr(name), "leave out --memory")
        return replace(DATA.build(name, download=download, strict=strict), name=name)
    return _load_path(name, strict, reading)


def _load_path(name: str, strict: bool, reading: Reading) -> Dataset:
    path, options = _path_and_options(name)
    if reading.memory is not None and os.path.exists(path):
        return load_mapped(large_source(path, options, reading, strict), reading, name)
    if path.suffix.lower() in SUFFIXES and not os.path.isdir(path):
        read_options(f"the file {path}", {}, options)
        return replace(load_file(path, reading), name=name)
    if os.path.isdir(path):  # os.path, for it answers for names that no file can have, too
        check_not_large(path)
        return load_folder(path, strict, name, **folder_options(path, options))
    if os.sep in name or os.path.exists(path):
        found = "a file of another kind" if os.path.exists(path) else "no such folder"
        mend = f"give one of {', '.join(SUFFIXES)}" if os.path.exists(path) else "check the path"
        raise InputError(f"a folder of images, or a file of arrays or a table, at {path}", found, mend)
    expected = "a known data set, a file of arrays or a table, or a folder of images"
    raise InputError(expected, repr(name), nearest(parse_choice(name)[0], DATA))


def _path_and_options(name: str) -> tuple[Path, dict[str, str]]:
    """Take ``PATH:OPTION=VALUE`` apart; a path that is there may hold a colon itself."""
    name = os.path.expanduser(name)
    if os.path.exists(name) or not (match := re.fullmatch(r"(.+):(\w+=.*)", name)):
        return Path(name), {}
    return Path(match[1]), parse_choice(f"folder:{match[2]}")[1]
