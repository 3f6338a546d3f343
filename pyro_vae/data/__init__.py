"""Named data sets, files and folders of images, as tensors in memory; binarization, label splits, batches."""

from pyro_vae.data.arrays import from_arrays, from_data
from pyro_vae.data.augmentation import AUGMENTATIONS, Augment
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
from pyro_vae.data.columns import table_of
from pyro_vae.data.images import Dataset, Images, PixelKind
from pyro_vae.data.labelled_rows import NumLabels, labelled_rows
from pyro_vae.data.pixels import Reading
from pyro_vae.data.sources import load_data
from pyro_vae.data.sprites import draw_sprites
from pyro_vae.registry import import_siblings

import_siblings(__name__, __path__)

__all__ = [
    "AUGMENTATIONS",
    "DATA",
    "Augment",
    "Batch",
    "Batches",
    "Binarization",
    "Dataset",
    "Images",
    "NumLabels",
    "PixelKind",
    "Reading",
    "Rows",
    "binarize",
    "binarize_once",
    "check_range",
    "describe_pixels",
    "draw_sprites",
    "fitting_likelihood",
    "from_arrays",
    "from_data",
    "labelled_rows",
    "load_data",
    "table_of",
]
