"""The file of a posterior: one netCDF file a tree, written by h5netcdf, whole or absent."""

from __future__ import annotations

from pathlib import Path

import h5py
import xarray as xr

from pyro_vae.errors import InputError
from pyro_vae.files.bounded import check_ordinary, first_line
from pyro_vae.files.whole import unwritable, write_whole

MAX_UNPACKED = 16 << 30  # bytes of the variables of a tree, however small they are packed


def save_posterior(tree: xr.DataTree, path: str | Path) -> None:
    """Write a tree as one netCDF file, whole or not at all: it is written aside and renamed.

    Raises:
        InputError: if the place cannot be written.
        StorageError: if the disk is full or fails.

    Example:
        >>> import xarray as xr
        >>> from pyro_vae.arviz_bridge import open_posterior, save_posterior
        >>> posterior = xr.Dataset({"mu": (("chain", "draw"), torch.randn(2, 50).numpy())})
        >>> tree = xr.DataTree.from_dict({"posterior": posterior})
        >>> save_posterior(tree, "posterior.nc")
        >>> open_posterior("posterior.nc").identical(tree)
        True
    """
    path = Path(path)
    encoding = {
        node.path: {str(name): {"zlib": True, "complevel": 4} for name in node.data_vars} for node in tree.subtree
    }
    content = tree.to_netcdf(engine="h5netcdf", encoding=encoding)  # HDF5 crashes where a disk is full
    try:
        write_whole(path, content)
    except OSError as error:
        raise unwritable(path, error, f"a place that can be written at {path}", "choose another") from None


def open_posterior(path: str | Path) -> xr.DataTree:
    """Read a tree that ``save_posterior`` wrote, into memory; ``xarray.open_datatree`` reads it as well.

    Raises:
        InputError: if there is no such file, or it is not a tree.

    Example:
        >>> import xarray as xr
        >>> from pyro_vae.arviz_bridge import open_posterior, save_posterior
        >>> posterior = xr.Dataset({"mu": (("chain", "draw"), torch.randn(2, 50).numpy())})
        >>> save_posterior(xr.DataTree.from_dict({"posterior": posterior}), "posterior.nc")
        >>> open_posterior("posterior.nc")["posterior"]["mu"].shape
        (2, 50)
        >>> open_posterior("prior.nc")
        Traceback (most recent call last):
            ...
        pyro_vae.errors.InputError: expected a posterior in a netCDF file at prior.nc; got no such file; ...
    """
    try:
        check_ordinary(Path(path))
        with h5py.File(path) as file:
            file.attrs.get("_nc3_strict")  # which h5netcdf asks first, and says more than an error where it is damaged
        with xr.open_datatree(path, engine="h5netcdf") as tree:
            if tree.nbytes > MAX_UNPACKED:
                raise ValueError(f"it unpacks to {tree.nbytes:,} bytes, of which at most {MAX_UNPACKED:,} are read")
            return tree.load()
    except Exception as error:  # of any kind, from HDF5 and the readers above it
        reason = "no such file" if isinstance(error, FileNotFoundError) else first_line(error)
        raise InputError(f"a posterior in a netCDF file at {path}", reason, "write one: save_posterior") from None
