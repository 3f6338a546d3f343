"""The registry of named data sets, and the folder where their files lie.

A source is a function that returns a ``Dataset``.  It names the ingredients that it wants, ``download`` and ``strict``,
and its other arguments are its options, typed after its name: ``mnist:size=32``.
"""

from __future__ import annotations

import os
from pathlib import Path

from pyro_vae.data.images import Dataset
from pyro_vae.errors import InputError
from pyro_vae.registry import Registry

DATA: Registry[Dataset] = Registry("data set", ("download", "strict"))


def data_folder() -> Path:
    """The folder of downloaded and of decoded data: ``PYRO_VAE_DATA``, or a cache in the home folder."""
    named = os.environ.get("PYRO_VAE_DATA")
    try:
        return Path(named) if named else Path.home() / ".cache" / "pyro_vae"
    except RuntimeError:
        raise InputError("a folder for data", "none, for there is no home folder", "set PYRO_VAE_DATA to one") from None
