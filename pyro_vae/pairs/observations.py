"""Which entries of a row of x each observation is of.

A program may observe x at one site or at several, whole or in parts, in its own shape or another.  What it observes is
found by where the observed values lie in memory, since ``obs=x[..., :2]`` is a view of x; of copies, by their values,
those of them that are not missing in x, whatever has been put in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from pyro.poutine import Trace
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.pairs.traces import distribution_at, rows_axis, value_at

if TYPE_CHECKING:
    from pyro_vae.pairs.structure import Structure

MAX_COMPARISONS = 2**24  # of the entries of a copy with those of x


def observed_entries(p: Trace, sites: Sequence[str], x: Tensor, plate_dim: int | None) -> dict[str, tuple[int, ...]]:
    r"""For each site that observes entries of x, which ones, as places in a flat row.

    Args:
        p: the trace of the model.
        sites: the sites that observe data.
        x: the data that it ran on, shape (N, \*event_shape).
        plate_dim: the dimension of the plate over data, or None without one: the rows come first then.

    Returns:
        The places by site.  A site that observes as many numbers as a row has, the only one, is taken to observe
        them all in their order, whatever it makes of them (as by rounding).
    """
    found: dict[str, tuple[int, ...]] = {}
    if not x.dim():
        return found
    unseen: dict[str, int] = {}  # sites of entries that no row of these has
    for name in sites:
        value = value_at(p, name)
        axis = rows_axis(value, distribution_at(p, name).event_dim, plate_dim)
        if not 0 <= axis < value.dim() or value.shape[axis] != len(x):
            continue
        places = _places_in_memory(value, x)
        if places is not None:
            rows = places.movedim(axis, 0).reshape(len(x), -1)
            first = rows[0]
            if torch.equal(rows, first + x[0].numel() * torch.arange(len(x)).unsqueeze(1)):
                found[name] = tuple(first.tolist())
            continue
        rows, of = value.movedim(axis, 0).reshape(len(x), -1), x.reshape(len(x), -1)
        copied = _places_of_copies(rows, of)
        if copied is not None:
            found[name] = copied
        elif _is_unseen(rows, of):
            unseen[name] = rows.shape[1]
        elif len(sites) == 1 and value.numel() == x.numel():
            found[name] = tuple(range(x[0].numel()))
    if not unseen:
        return found
    taken = {place for places in found.values() for place in places}
    missing = x.reshape(len(x), -1).isnan().all(0)
    left = [place for place in missing.nonzero().flatten().tolist() if place not in taken]
    if len(left) == sum(unseen.values()):
        for name, size in unseen.items():
            found[name], left = tuple(left[:size]), left[size:]
    return found


def computed_sites(p: Trace, entries: dict[str, tuple[int, ...]], x: Tensor, plate_dim: int | None) -> tuple[str, ...]:
    """The sites that observe entries of x in other units than x has: x / 255, or log x, for example.

    Args:
        p: the trace of the model.
        entries: which entries of a row each site observes, as ``observed_entries`` found.
        x: the data that it ran on.
        plate_dim: the dimension of the plate over data, or None without one.
    """
    found = []
    for name, places in entries.items():
        value = value_at(p, name)
        axis = rows_axis(value, distribution_at(p, name).event_dim, plate_dim)
        rows, given = value.movedim(axis, 0).reshape(len(x), -1), x.reshape(len(x), -1)[:, list(places)]
        if not torch.equal(rows.to(given.dtype).nan_to_num(), given.nan_to_num()):
            found.append(name)
    return tuple(found)


def check_generates(structure: Structure, size: int, whole: bool = True) -> None:
    """Refuse a model that does not say what x is.

    Args:
        structure: the structure of the pair.
        size: the entries of a row of x.
        whole: whether all of them are to be generated; else some, and the others are given.

    Raises:
        InputError: if an observation is not one of entries of x, a factor shapes the data, or the model reads entries
            that it does not generate.
    """
    if whole and structure.factors:
        raise InputError(
            "a model that generates its data",
            f"the factor {structure.factors[0]!r} in it, which a draw takes no account of",
            "say it as a distribution with obs=x",
        )
    strange = [name for name in structure.observed if name not in structure.entries]
    if strange or not structure.observed:
        raise InputError(
            "a model that observes x, or parts of it",
            f"the site {strange[0]!r}, which observes something else" if strange else "one without an observation",
            'observe what is passed in: pyro.sample("x", …, obs=x)',
        )
    missing = size - len({place for places in structure.entries.values() for place in places})
    if whole and missing:
        raise InputError(
            "a model that generates all of x",
            f"one that reads {missing} of the {size} entries of a row without observing them",
            "use reconstruct, which takes those from the x that it is given",
        )


def assemble(structure: Structure, template: Tensor, values: Callable[[str], tuple[Tensor, int]]) -> Tensor:
    r"""Rows of x from what the sites that observe it hold in a run without other draws.

    Args:
        structure: the structure of the pair, for which ``check_generates`` has no objection.
        template: shape (N, \*event_shape); its entries stay where no site observes them.
        values: from a site to its value and its event dimension.

    Raises:
        InputError: if a site's distribution is of fewer numbers than it observes.
    """
    flat = template.reshape(template.shape[0], -1)
    for name, places in structure.entries.items():
        value, event_dim = values(name)
        axis = rows_axis(value, event_dim, structure.plate_dim)
        rows = value.movedim(axis, 0).reshape(value.shape[axis], -1)
        if rows.shape[1] != len(places):
            raise InputError(
                f"a distribution of {len(places)} numbers at the site {name!r}, as many as it observes",
                f"one of {rows.shape[1]}, which is broadcast",
                f"write .expand([{len(places)}]).to_event(1), or give it parameters of that shape",
            )
        if len(places) == flat.shape[1] and places == tuple(range(len(places))):
            flat = rows
        else:
            flat = flat.to(rows.dtype).index_copy(1, torch.tensor(places, device=rows.device), rows)
    return flat.reshape(template.shape)


def _places_in_memory(value: Tensor, x: Tensor) -> Tensor | None:
    """Which entry of x each entry of a view of it is, in the shape of the view; None for what is not a view."""
    if value.untyped_storage().data_ptr() != x.untyped_storage().data_ptr() or not x.is_contiguous():
        return None
    if value.dtype != x.dtype:
        return None
    places = torch.arange(x.numel())
    return places.as_strided(value.size(), value.stride(), value.storage_offset() - x.storage_offset())


def _places_of_copies(value: Tensor, x: Tensor) -> tuple[int, ...] | None:
    """The places of copied columns, (N, k) among (N, D); None unless each has just one like it in all rows."""
    if value.shape == x.shape and torch.equal(value.to(x.dtype), x):
        return tuple(range(x.shape[1]))
    if value.shape[1] * x.numel() > MAX_COMPARISONS:
        return None
    equal = _known_alike(value, x)
    if not (equal.sum(1) == 1).all():
        return None
    return tuple(equal.long().argmax(1).tolist())


def _is_unseen(value: Tensor, x: Tensor) -> bool:
    """Whether the values in (N, k) stand in the place of columns of which no row of (N, D) has any."""
    if not x.isnan().all(0).any() or value.shape[1] * x.numel() > MAX_COMPARISONS:
        return False
    return not _known_alike(value, x).any()


def _known_alike(value: Tensor, x: Tensor) -> Tensor:
    """Which columns of (N, k) have the values of which of (N, D), those that are known, shape (k, D)."""
    known = ~x.isnan()
    alike = (value.to(x.dtype).unsqueeze(2) == x.unsqueeze(1)) | ~known.unsqueeze(1)
    return alike.all(0) & known.any(0)
