"""What can be trained on without being in memory: which kind of file or folder a path is, and how its rows come to lie.

| path | rows |
|---|---|
| an ``.npy`` file | mapped where it lies, if its rows lie together |
| a folder of ``.npy`` shards, an ``.npz`` file | written to one file in the cache, block by block |
| a Zarr store | read chunk by chunk into one file in the cache |
| a parquet file, a folder of such | read by batches of rows into one file in the cache |
| a folder of images, or of class folders of them | decoded into one file in the cache |
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pyro_vae.data.decoding import is_image
from pyro_vae.data.folders import folder_options, open_large_folder
from pyro_vae.data.large_files import LargeFile, open_large, shards_of
from pyro_vae.data.parquet_files import SUFFIXES, open_large_parquet, tables_in
from pyro_vae.data.pixels import Reading
from pyro_vae.data.zarr_files import is_zarr, open_large_zarr
from pyro_vae.errors import InputError
from pyro_vae.registry import read_options


def large_source(path: Path, options: dict[str, str], reading: Reading, strict: bool) -> Callable[[], LargeFile]:
    """What gives the rows of a path as one file.

    Args:
        path: a file or a folder that is there.
        options: what was typed after it.
        reading: how it is to be read, with the memory allowed, in bytes.
        strict: whether an image that cannot be read is refused.

    Raises:
        InputError: if it takes no such options.
    """
    memory = reading.memory or 0
    is_folder = path.is_dir()
    if is_folder and not (is_zarr(path) or shards_of(path) or tables_in(path)):
        _check_has_images(path)
        taken = folder_options(path, options)
        return lambda: open_large_folder(path, strict, memory, **taken)
    read_options(f"the {'folder' if is_folder else 'file'} {path}", {}, options)
    if is_folder and is_zarr(path):
        return lambda: open_large_zarr(path, memory)
    if path.suffix.lower() in SUFFIXES or (is_folder and not shards_of(path)):
        return lambda: open_large_parquet(path, reading, str(path))
    return lambda: open_large(path, memory)


def check_not_large(path: Path) -> None:
    """Refuse a folder of what is read with a limit on memory alone.

    Raises:
        InputError: if there are shards or a Zarr store in it, and no images.
    """
    try:
        children = [child for child in path.iterdir() if not child.name.startswith(".")]
    except OSError:
        return  # which is said where it is read
    is_large = is_zarr(path) or ((shards_of(path) or tables_in(path)) and not any(child.is_dir() for child in children))
    if is_large and not any(map(is_image, children)):
        found = "a Zarr store" if is_zarr(path) else "one of shards"
        raise InputError(f"a folder of images at {path}, without --memory", found, "use --memory 1GB, for example")


def _check_has_images(path: Path) -> None:
    """Refuse a folder that has nothing in it, or beside it, that could be rows."""
    children = [child for child in path.iterdir() if not child.name.startswith(".")]
    if not any(child.is_dir() or is_image(child) for child in children):
        expected = f"a folder of .npy or .parquet shards, of a Zarr store, or of images, for --memory, at {path}"
        kinds = sorted({child.suffix for child in children})
        raise InputError(expected, f"one of {', '.join(kinds) or 'nothing'}", "check the path")
