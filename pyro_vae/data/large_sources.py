"""What can be trained on without being in memory: which kind of file or folder a path is, and how its rows come to lie.

| path | rows |
|---|---|
| an ``.npy`` file | mapped where it lies, if its rows lie together |
| a folder of ``.npy`` shards, an ``.npz`` file | written to one file in the cache, block by block |
| a folder of images, or of class folders of them | decoded into one file in the cache |
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pyro_vae.data.folders import folder_options, open_large_folder
from pyro_vae.data.large_files import LargeFile, open_large, shards_of
from pyro_vae.data.pixels import Reading
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
    if path.is_dir() and not shards_of(path):
        taken = folder_options(path, options)
        return lambda: open_large_folder(path, strict, memory, **taken)
    read_options(f"the {'folder' if path.is_dir() else 'file'} {path}", {}, options)
    return lambda: open_large(path, memory)
