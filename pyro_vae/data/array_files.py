"""Files of arrays: ``.npz`` with arrays x, y and missing, ``.npy`` with x, whose labels lie beside it, and tables."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from pyro_vae.data import tables
from pyro_vae.data.arrays import READ, from_data
from pyro_vae.data.containers import MAY_HOLD
from pyro_vae.data.images import Dataset
from pyro_vae.data.large_files import labels_beside, read_labels
from pyro_vae.data.pixels import Array, Reading
from pyro_vae.errors import InputError
from pyro_vae.files.bounded import check_ordinary, first_line

SUFFIXES = (".npz", ".npy", *tables.SUFFIXES)
MAX_UNPACKED = 64 << 30  # bytes of the arrays in an archive, however small it is packed
_BEGIN = {".npz": b"PK", ".npy": b"\x93NUMPY"}
_MENDS = {
    ".npz": "write one with numpy.savez(path, x=images, y=labels)",
    ".npy": "write one with numpy.save(path, images)",
}


def load_file(path: Path, reading: Reading = READ) -> Dataset:
    """Read an ``.npz`` file with an array ``x`` and perhaps ``y`` and ``missing``, an ``.npy`` file of ``x``, a table.

    The labels of ``x.npy`` are those in ``x.labels.npy``, where there is such a file.

    See ``from_arrays`` for their shapes and what becomes of them.

    Raises:
        InputError: if the file is missing or not of that format, holds objects that would run code, or x or y are not
            as ``from_arrays`` takes them.
    """
    suffix = path.suffix.lower()
    if suffix in tables.SUFFIXES:
        return from_data(tables.read_table_file(path), str(path), reading)
    mend = _MENDS[suffix]
    what = f"an {suffix} file with {'an array x' if suffix == '.npz' else 'one array'} at {path}"
    try:
        arrays, found = _read(path)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(what, "no such file", mend) from None
    except Exception as error:  # of any kind, from zip, zlib, the parser of headers and numpy itself
        raise InputError(what, f"a file that numpy refuses ({first_line(error)})", mend) from error
    if "x" not in arrays:
        raise InputError(what, f"a file with {found}", mend)
    return from_data(arrays, str(path), reading)


def _read(path: Path) -> tuple[dict[str, Array], str]:
    """The arrays of a file that may be data, and what there is in it, in words."""
    check_ordinary(path)
    with path.open("rb") as file:
        _check_begin(file.read(len(_BEGIN[".npy"])))
        file.seek(0)
        content = np.load(file, allow_pickle=False)
        is_archive = isinstance(content, np.lib.npyio.NpzFile)
        if is_archive != (path.suffix.lower() == ".npz"):
            raise ValueError(f"it is an {'.npz' if is_archive else '.npy'} file by another name")
        if not is_archive:
            beside = labels_beside(path)
            return {"x": content} | ({"y": read_labels(beside)} if beside else {}), "x"
        with content as archive:
            _check_unpacked(archive)
            arrays = {key: archive[key] for key in archive.files if key in MAY_HOLD}
            return arrays, ", ".join(archive.files) or "nothing"


def _check_begin(content: bytes) -> None:
    """Refuse what numpy would take for a pickle, and say how it could be made to run."""
    if not content.startswith(tuple(_BEGIN.values())):
        raise ValueError("it does not begin as an .npz or .npy file does")


def _check_unpacked(archive: np.lib.npyio.NpzFile) -> None:
    """Refuse an archive whose arrays are larger than it says, or than any data set."""
    assert archive.zip is not None
    sizes = {entry.filename.removesuffix(".npy"): entry.file_size for entry in archive.zip.infolist()}
    total = sum(sizes.values())
    if total > MAX_UNPACKED:
        raise ValueError(f"it unpacks to {total:,} bytes, of which at most {MAX_UNPACKED:,} are read")
    for name in archive.files:
        if name not in MAY_HOLD:
            continue
        with archive.zip.open(f"{name}.npy") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
        if dtype.hasobject:
            raise ValueError(f"{name} holds Python objects, which may run code: save numbers, or text, '' for no label")
        if math.prod(shape) * dtype.itemsize > sizes[name]:
            raise ValueError(f"the array {name} of shape {shape} is larger than its {sizes[name]:,} bytes")
