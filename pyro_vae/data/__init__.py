"""Named data sets, files and folders of images, as tensors in memory; binarization, label splits, batches."""

from pyro_vae.data.arrays import from_arrays
from pyro_vae.data.augmentation import random_affine
from pyro_vae.data.base import DATA
from pyro_vae.data.batches import Batch, Batches, Rows
from pyro_vae.data.binarization import (
    Binarization,
    binarize,
    binarize_once,
    check_range,
    describe_pixels,
    fitting_likelihood,
)
from pyro_vae.data.facts import IN_MEMORY, DataFacts, check_same, facts_of, load_same_data
from pyro_vae.data.images import Dataset, Images, PixelKind
from pyro_vae.data.labels import Labels, labelled_rows
from pyro_vae.data.sources import load_data
from pyro_vae.registry import import_siblings

import_siblings(__name__, __path__)

__all__ = [
    "DATA",
    "IN_MEMORY",
    "Batch",
    "Batches",
    "Binarization",
    "DataFacts",
    "Dataset",
    "Images",
    "Labels",
    "PixelKind",
    "Rows",
    "binarize",
    "binarize_once",
    "check_range",
    "check_same",
    "describe_pixels",
    "facts_of",
    "fitting_likelihood",
    "from_arrays",
    "labelled_rows",
    "load_data",
    "load_same_data",
    "random_affine",
]
