"""Checkpoint files: weights as safetensors and, to resume from, the state of the training.

Both hold numbers and text alone, and say in themselves of which run, epoch and step they are.  The state of the
training is read with torch's ``weights_only`` unpickler, which refuses anything that would run code.  Whoever reads a
file knows its checksum, so that a single flipped bit is told.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import warnings
import zipfile
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.files.bounded import first_line, read_bounded

MAX_BYTES = 64 << 30
MAX_HEADER = 100 << 20  # bytes, as safetensors itself has it
MAX_UNPACKED = 1.5  # of the bytes of a training state, which torch stores as they are


@dataclass(frozen=True)
class Identity:
    """Of which run and moment a checkpoint file is.

    Args:
        run: a name that no other run has.
        epoch: completed epochs.
        step: completed steps of the epoch under way.
    """

    run: str
    epoch: int
    step: int

    def __str__(self) -> str:
        return f"epoch {self.epoch}{f', step {self.step}' if self.step else ''} of run {self.run[:8]}"


class DamagedError(InputError):
    """A checkpoint file that is missing, cut off, changed, or of another run or epoch."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"a whole checkpoint file at {path}",
            f"one that cannot be read ({reason})",
            "restore the file, use the run's other checkpoint, or fit again with --overwrite",
        )


def checksum(content: bytes | memoryview, before: int = 0) -> int:
    """The CRC-32 of bytes, going on from that of those before them."""
    return zlib.crc32(content, before)


class Writable(Protocol):
    """What bytes are written to."""

    def write(self, content: bytes | memoryview, /) -> int:
        """Write a piece."""


def write_weights(weights: dict[str, Tensor], identity: Identity, file: Writable) -> None:
    """Write weights as a safetensors file, a tensor at a time, from where it lies.

    The library makes a copy of them all first, and nothing else of the process runs meanwhile.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    header: dict[str, Any] = {"__metadata__": {name: str(value) for name, value in vars(identity).items()}}
    end = 0
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    for name in names:
        begin, end = end, end + tensors[name].nbytes
        code, shape = _code(tensors[name].dtype), list(tensors[name].shape)
        header[name] = {"dtype": code, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    file.write(struct.pack("<Q", len(text)) + text)
    for name in names:
        file.write(bytes_of(tensors[name]).data)


def write_training(training: dict[str, Any], identity: Identity, file: Writable) -> None:
    """Write the state of a training as torch does."""
    torch.save({**training, "identity": vars(identity)}, file)  # type: ignore[arg-type]


def bytes_of(tensor: Tensor) -> NDArray[np.uint8]:
    """The memory of a contiguous tensor on the CPU."""
    found: NDArray[np.uint8] = tensor.detach().reshape(-1).view(torch.uint8).numpy()
    return found


@cache
def _code(dtype: torch.dtype) -> str:
    """What the safetensors library calls a type."""
    content = safetensors.torch.save({"": torch.empty(0, dtype=dtype)})
    code: str = json.loads(content[8:])[""]["dtype"]
    return code


def read_weights(path: Path, expected: int | None = None, identity: Identity | None = None) -> dict[str, Tensor]:
    """The weights in a file.

    Args:
        path: the file.
        expected: its checksum; default: not asked for.
        identity: of what they have to be; default: of anything.

    Raises:
        DamagedError: if they are missing, cut off, changed, or of something else.
        OSError: if there is no such file, or it cannot be read.
    """
    try:
        content = read_bounded(path, MAX_BYTES)
        found = _identity_of_weights(content)
        _check(path, content, expected, found, identity)
        return safetensors.torch.load(content)
    except OSError:
        raise
    except (SafetensorError, ValueError, TypeError, KeyError, RecursionError, MemoryError) as error:
        raise _damaged(path, error) from None


def read_training(path: Path, expected: int | None = None, identity: Identity | None = None) -> dict[str, Any]:
    """The state of a training in a file; arguments and errors are those of ``read_weights``."""
    try:
        content = read_bounded(path, MAX_BYTES)
        if identity is None:
            _check(path, content, expected, None, None)
        _check_unpacked(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about the pickle protocol of files that are refused anyway
            state = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
        if not isinstance(state, dict):
            raise ValueError(f"a {type(state).__name__} in the place of a state")
        _check(path, content, expected, _identity(state.pop("identity", None)), identity)
    except (OSError, DamagedError):
        raise
    except pickle.UnpicklingError:  # of which torch says how the code in it could be made to run
        raise _damaged(path, ValueError("it holds something else than numbers and text")) from None
    except _UNREADABLE as error:
        raise _damaged(path, error) from None
    return state


_UNREADABLE = (RuntimeError, EOFError, ArithmeticError, LookupError, ValueError, TypeError, AttributeError,
               AssertionError, MemoryError, pickle.UnpicklingError, zipfile.BadZipFile, struct.error)  # fmt: skip


def _damaged(path: Path, error: BaseException) -> DamagedError:
    return error if isinstance(error, DamagedError) else DamagedError(path, first_line(error))


def _check(path: Path, content: bytes, expected: int | None, found: Identity | None, wanted: Identity | None) -> None:
    if wanted is not None and found is not None and found != wanted:
        raise DamagedError(path, f"it is of {found}, in the place of {wanted}")
    if expected is not None and checksum(content) != expected:
        raise DamagedError(path, "its checksum is another: it was changed or damaged after it was written")
    if wanted is not None and found is None:
        raise DamagedError(path, "it does not say of which run it is")


def _identity_of_weights(content: bytes) -> Identity | None:
    if len(content) < 8:
        raise ValueError("it is cut off")
    (length,) = struct.unpack("<Q", content[:8])
    if length > min(MAX_HEADER, len(content) - 8):
        raise ValueError("its header is longer than the file")
    header = json.loads(content[8 : 8 + length])
    return _identity(header.get("__metadata__")) if isinstance(header, dict) else None


def _identity(found: object) -> Identity | None:
    try:
        return Identity(str(found["run"]), int(found["epoch"]), int(found["step"]))  # type: ignore[index]
    except (TypeError, KeyError, ValueError):
        return None


def _check_unpacked(content: bytes) -> None:
    """Refuse an archive that unpacks to more than it is: torch packs nothing."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > MAX_UNPACKED * len(content):
        raise ValueError(f"it unpacks to {unpacked:,} bytes, of {len(content):,}")
