"""Data larger than memory: one ``.npy`` file, mapped, of which the training sees some blocks at a time.

The rows that validate and test are chosen by one fixed permutation, as of every file, and copied into memory; they are
a tenth each, but no more than an eighth of the memory allowed.  The others stay in the file.  An epoch goes through
their blocks, runs of rows that lie together, in a random order, with as many blocks in hand as half of the memory
holds, whose rows it shuffles among each other: each row once an epoch, and no row before those in hand are used up.
While it uses some blocks the system is asked to read the next ones, and it is told to forget those that are done with,
so that never more than the memory allowed is in use.

A folder of ``.npy`` shards becomes one such file in the cache, block by block; it is made anew when a shard changes.
"""

from __future__ import annotations

import contextlib
import math
import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae.data.base import data_folder
from pyro_vae.data.cache import fingerprint_of
from pyro_vae.data.images import Dataset, Images
from pyro_vae.data.pixels import Array, Reading, read_pixels
from pyro_vae.errors import InputError
from pyro_vae.files.bounded import check_ordinary, first_line
from pyro_vae.files.whole import unwritable, whole_file

BLOCKS = 64  # in hand at a time, where there are so many
MIN_ROWS = 10
SCANNED = 16 << 20  # bytes that are looked at together
SUFFIX = ".npy"


@dataclass(frozen=True)
class MappedRows(Images):
    """Rows of a file that is mapped into memory; those that are asked for are copied.

    Args:
        at: the places of the rows in the file, int64 of shape (N,), ascending.
        map: the memory that ``pixels``, all rows of the file, lie in.
        in_hand: how many rows may be in memory at a time.
    """

    at: Tensor = field(default_factory=lambda: torch.arange(0))
    map: mmap.mmap | None = None
    in_hand: int = 1

    def __len__(self) -> int:
        return len(self.at)

    def __getitem__(self, rows: Tensor | slice) -> Images:
        found = Images(self.pixels[self.at[rows]], scale=self.scale)
        self._advise("MADV_DONTNEED", 0, len(self.pixels))
        return found

    def to(self, device: torch.device | str) -> Images:
        """These rows, for the CPU alone."""
        if torch.device(device).type != "cpu":
            raise InputError("rows in memory for a GPU", "a mapped file (--memory)", "use --device cpu, or no --memory")
        return self

    def values(self) -> Tensor:
        """Refused: they would be all in memory."""
        raise InputError("rows that are all in memory", "a mapped file (--memory)", "leave out --memory")

    def with_holes(self) -> Images:
        """These rows: none of their values is missing."""
        return self

    @property
    def stored(self) -> tuple[Images, Tensor | None]:
        """All rows of the file, and the places of these among them."""
        return Images(self.pixels, scale=self.scale), self.at

    def order(self, generator: torch.Generator) -> Tensor:
        """A pass over the rows, shuffled by blocks: their indices, int64 of shape (N,)."""
        size = max(1, self.in_hand // BLOCKS)
        blocks = torch.randperm(math.ceil(len(self) / size), generator=generator)
        inside = torch.arange(size)
        rows = (blocks[:, None] * size + inside).flatten()
        rows = rows[rows < len(self)]
        hands = rows.split(size * BLOCKS)
        return torch.cat([hand[torch.randperm(len(hand), generator=generator)] for hand in hands])

    def following(self, steps: Tensor) -> Iterator[Tensor]:
        """The places of each step, shape (B,), with the next ones read ahead and those before forgotten.

        Args:
            steps: all places of a pass, shape (T, B).
        """
        hand = max(1, self.in_hand // steps.shape[1])  # steps
        for step, places in enumerate(steps):
            if step % hand == 0:
                self._advise("MADV_DONTNEED", 0, len(self.pixels))
                for each in (steps[step : step + hand], steps[step + hand : step + 2 * hand]):
                    self._read_ahead(each)
            yield places
        self._advise("MADV_DONTNEED", 0, len(self.pixels))

    def _read_ahead(self, places: Tensor) -> None:
        if not places.numel():
            return
        ordered = places.flatten().sort().values
        gaps = (ordered.diff() > BLOCKS).nonzero().flatten() + 1
        for run in torch.tensor_split(ordered, gaps):
            self._advise("MADV_WILLNEED", int(run[0]), int(run[-1]) + 1)

    def _advise(self, what: str, begin: int, end: int) -> None:
        """Tell the system about rows, where it can be told."""
        advice = getattr(mmap, what, None)
        if self.map is None or advice is None:
            return
        row = self.pixels[0].nbytes
        offset = len(self.map) - len(self.pixels) * row
        start = (offset + begin * row) // mmap.PAGESIZE * mmap.PAGESIZE
        with contextlib.suppress(OSError, ValueError):
            self.map.madvise(advice, start, min(len(self.map), offset + end * row) - start)


def load_mapped(path: Path, reading: Reading, name: str) -> Dataset:
    """A data set of an ``.npy`` file, or of a folder of such, that is larger than the memory that it may take.

    Args:
        path: the file or the folder.
        reading: how it is to be read, with the memory allowed, in bytes.
        name: what to call it.

    Raises:
        InputError: if it is something else, is damaged, holds missing values, or the memory is too small for it.
    """
    if path.is_dir():
        path = _joined(path)
    if path.suffix.lower() != SUFFIX:
        raise InputError(f"an {SUFFIX} file or a folder of such for --memory", str(path), "leave out --memory")
    assert reading.memory is not None
    x, memory = _opened(path)
    dims = range(2, 5) if reading.one_channel else range(2, 9)
    if x.ndim not in dims or len(x) < MIN_ROWS or 0 in x.shape or x.dtype not in (np.uint8, np.float32):
        raise InputError(
            f"x of shape (N, D), (N, H, W) or (N, C, H, W) of bytes or float32, {MIN_ROWS} rows or more, in {name}",
            f"{x.dtype} of shape {x.shape}",
            "save it so, or leave out --memory",
        )
    if reading.likelihood == "mixed" or reading.covariates or reading.columns:
        raise InputError(f"a table, whose columns have names, in the place of {name}", SUFFIX, "leave out --memory")
    looks = read_pixels(_alike(x, name), None, name, reading)  # the rule, by values that decide it
    if looks.channels_last:
        raise InputError(f"images of shape (N, C, H, W) in {name}", f"{x.shape}", "save them so for --memory")
    x = x.reshape(len(x), *looks.values.shape[1:])
    row = x[0].nbytes
    in_hand = reading.memory // 2 // row
    held = min(len(x) // 10, max(1, reading.memory // 16 // row))
    if in_hand < 1:
        raise InputError(f"memory for a row of {name}", f"--memory {reading.memory}", f"use --memory {4 * row} or more")
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    pixels = torch.from_numpy(x)
    at = order[: len(x) - 2 * held].sort().values
    train = MappedRows(pixels, scale=looks.scale, at=at, map=memory, in_hand=in_hand)
    apart = (pixels[rows.sort().values] for rows in order[-2 * held :].split(held))
    validation, test = (Images(values, scale=looks.scale) for values in apart)
    train._advise("MADV_DONTNEED", 0, len(x))
    split = f"{len(at)} train, {held} validation and {held} test rows of one fixed permutation, by blocks from {path}"
    return Dataset(name, train, validation, test, (), split, looks.kind, f"{looks.said}, from a mapped file")


def check_mapped(images: Images, batch_size: int, is_resampled: bool) -> None:
    """Refuse a training that rows which are not in memory cannot have.

    Raises:
        InputError: if a batch is larger than the memory allowed, or rows are drawn by weights.
    """
    if not isinstance(images, MappedRows):
        return
    if images.in_hand < batch_size:
        least = -(-2 * batch_size * images.pixels[0].nbytes // 1_000_000)
        raise InputError(
            f"--memory for a batch of {batch_size} rows",
            f"room for {images.in_hand}",
            f"use --memory {least}MB or more, or a smaller --batch-size",
        )
    if is_resampled:
        raise InputError("rows drawn uniformly for --memory", "weights", "use --resampling uniform, or no --memory")


def _opened(path: Path) -> tuple[Array, mmap.mmap]:
    """The array in a file and the memory that it is mapped to, which is never written to the file.

    Raises:
        InputError: if it is no such file, or is cut off.
    """
    mend = "write one with numpy.save(path, x)"
    try:
        check_ordinary(path)
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, is_fortran, dtype = read(file)
            if dtype.hasobject or is_fortran:
                raise ValueError("it holds Python objects" if dtype.hasobject else "its columns lie together, not rows")
            begin, needed = file.tell(), math.prod(shape) * dtype.itemsize
            file.seek(0, 2)
            if file.tell() < begin + needed:
                raise ValueError(f"it is cut off: {file.tell():,} bytes of {begin + needed:,}")
            memory = mmap.mmap(file.fileno(), begin + needed, access=mmap.ACCESS_COPY)
    except FileNotFoundError:
        raise InputError(f"an {SUFFIX} file at {path}", "no such file", mend) from None
    except Exception as error:  # of any kind, from the parser of headers
        found = f"one that cannot be mapped ({first_line(error)})"
        raise InputError(f"an {SUFFIX} file at {path}", found, mend) from None
    return np.frombuffer(memory, dtype, math.prod(shape), begin).reshape(shape), memory


def _alike(x: Array, name: str) -> Array:
    """Some rows of the shape and type of an array, of values that the rule for reading it takes them all by.

    Raises:
        InputError: if a number is missing or infinite.
    """
    low, high, marks = math.inf, -math.inf, dict[Any, Any]()
    step = max(1, SCANNED // max(1, x[0].nbytes))
    for start in range(0, len(x), step):
        part = np.array(x[start : start + step])
        low, high = min(low, float(part.min())), max(high, float(part.max()))
        if not math.isfinite(low + high):
            found = "one that is missing (NaN) or infinite"
            raise InputError(f"finite numbers in {name} for --memory", found, "fill them, or leave out --memory")
        if "fraction" not in marks and (odd := part[part != np.rint(part)]).size:
            marks["fraction"] = odd[0]
        for most in (1, 255):
            if most not in marks and (other := part[(part != 0) & (part != most)]).size:
                marks[most] = other[0]
    values = [low, high, *marks.values()]
    size = math.prod(x.shape[1:])
    count = max(2, -(-len(values) // size))
    return np.resize(np.array(values, x.dtype), (count, *x.shape[1:]))


def _joined(folder: Path) -> Path:
    """The shards of a folder as one file in the cache."""
    shards = sorted(folder.glob(f"*{SUFFIX}"))
    if not shards:
        raise InputError(f"a folder of {SUFFIX} files for --memory", f"none in {folder}", "leave out --memory")
    path = data_folder() / "cache" / f"{folder.name[:64]}-{fingerprint_of(folder, shards)}{SUFFIX}"
    if path.exists():
        return path
    arrays = [_opened(shard)[0] for shard in shards]
    for shard, array in zip(shards, arrays, strict=True):
        if (array.shape[1:], array.dtype) != (arrays[0].shape[1:], arrays[0].dtype):
            raise InputError(
                f"shards of one shape and type in {folder}, {arrays[0].dtype} rows of shape {arrays[0].shape[1:]}",
                f"{array.dtype} rows of shape {array.shape[1:]} in {shard.name}",
                "save them alike",
            )
    shape = (sum(map(len, arrays)), *arrays[0].shape[1:])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as aside, aside.open("wb") as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": np.lib.format.dtype_to_descr(arrays[0].dtype), "fortran_order": False, "shape": shape}
            )
            for array in arrays:
                step = max(1, SCANNED // array[0].nbytes)
                for start in range(0, len(array), step):
                    file.write(array[start : start + step].data)
    except OSError as error:
        raise unwritable(path, error, f"a place for the joined shards at {path}", "set PYRO_VAE_DATA") from None
    return path
