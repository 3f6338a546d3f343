r"""How much a latent site of a model counts, and what says so: masks and scales around it.

Where a model counts log p(z) with a weight w, a guide has to count log q(z) with the same, else what is optimized is no
bound of anything.  A mask over rows and steps says which of them there are, as in sequences of unequal length; a scale
anneals, or averages over rows.  Both come from what the model is called with, so which argument a weight follows is
found by changing one argument after another and looking whether the weight follows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import MaskedDistribution
from torch import Tensor
from torch.distributions import Distribution, Independent

from pyro_vae.errors import InputError
from pyro_vae.pairs.structure import vectorized_frames
from pyro_vae.pairs.traces import distribution_at, value_at

Traced = Callable[[Mapping[str, Any]], poutine.Trace]
SHIFTS = (0, 1, -1)  # of the entry of an argument that belongs to a step
EXAMPLES = 3  # of values of an argument, all of which a weight has to follow
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Presence:
    """Which rows have a step, as an argument of the model says.

    Args:
        argument: its name.
        kind: ``mask``, of 0 and 1 for each row and step; ``length``, the number of steps of each row; ``row``, 0 or 1
            for each row; ``known``, a step of data that is not NaN.
        shift: the entry that belongs to the first step.
    """

    argument: str
    kind: str
    shift: int = 0

    def __call__(self, arguments: Mapping[str, Tensor], step: int) -> Tensor:
        """Whether each row has a step, shape (N,).

        Args:
            arguments: of the model, rows in their first dimension.
            step: of which the first is 0.
        """
        value, entry = arguments[self.argument], step + self.shift
        if self.kind == "row":
            return value.bool()
        if self.kind == "length":
            return entry < value
        entry = min(max(entry, 0), value.shape[1] - 1)
        if self.kind == "mask":
            return value[:, entry].bool()
        return ~value[:, entry].flatten(1).isnan().any(1) if value.dim() > 2 else ~value[:, entry].isnan()


@dataclass(frozen=True)
class Weight:
    """How much the density of a site, or of those of a series, counts.

    Args:
        presence: which rows have it; None for all.
        scale: the argument of the model that its log-probability is multiplied by, if any.
    """

    presence: Presence | None = None
    scale: str | None = None


def find_weights(
    run: Traced, arguments: Mapping[str, Any], sites: Mapping[str, Sequence[str]], data_dim: int | None
) -> dict[str, Weight]:
    """The weights of some sites that have one other than 1.

    Args:
        run: the model on arguments by name, rows in the first dimension of tensors.
        arguments: what it was called with.
        sites: by any key the site, or those of a series in the order of its steps.
        data_dim: the dimension of the plate over rows; None without one.

    Raises:
        InputError: if a mask or a scale follows no argument.
    """
    trace, weights = run(arguments), {}
    for key, names in sites.items():
        masked = _masks(trace, names, data_dim) is not None
        presence = _presence(run, arguments, names, data_dim) if masked else None
        weight = Weight(presence, _scale_argument(run, arguments, names[0], _scale(trace, names[0])))
        if weight != Weight():
            weights[key] = weight
    return weights


def _presence(run: Traced, arguments: Mapping[str, Any], names: Sequence[str], data_dim: int | None) -> Presence:
    for name, kind, examples in _candidates(arguments, len(names)):
        traces = [_attempt(run, {**arguments, name: example}) for example in examples]
        for shift in SHIFTS if kind != "row" else (0,):
            found = Presence(name, kind, shift)
            if all(
                trace is not None and _follows(_masks(trace, names, data_dim), found, {name: example})
                for trace, example in zip(traces, examples, strict=True)
            ):
                return found
    raise InputError(
        f"a mask of the latent site {names[0]!r} that an argument of the model says",
        "one that follows none of them",
        "hand over which rows and steps there are: def model(x, mask), or their lengths",
    )


def _attempt(run: Traced, arguments: Mapping[str, Any]) -> poutine.Trace | None:
    try:
        return run(arguments)
    except Exception:  # of whatever kind: a program need not bear any value of its arguments
        return None


def _follows(masks: Sequence[Tensor] | None, presence: Presence, arguments: Mapping[str, Tensor]) -> bool:
    return masks is not None and all(torch.equal(mask, presence(arguments, step)) for step, mask in enumerate(masks))


def _candidates(arguments: Mapping[str, Any], steps: int) -> Iterator[tuple[str, str, list[Tensor]]]:
    """Arguments that may say which rows and steps there are, how, and values to try."""
    random = torch.Generator().manual_seed(0)
    for name, value in arguments.items():
        if not isinstance(value, Tensor) or not value.dim():
            continue
        lengths = [torch.randint(1, steps + 1, (len(value),), generator=random) for _ in range(EXAMPLES)]
        if value.dim() == 1:
            yield name, "length", [length.to(value) for length in lengths]
            yield name, "row", [(length % 2).to(value) for length in lengths]
            continue
        there = [torch.arange(value.shape[1]) < length.unsqueeze(1) for length in lengths]
        if value.dim() == 2:
            yield name, "mask", [one.to(value) for one in there]
        if value.is_floating_point():
            shaped = [one.reshape(*one.shape, *[1] * (value.dim() - 2)) for one in there]
            yield name, "known", [torch.where(one, value, torch.nan) for one in shaped]


def _masks(trace: poutine.Trace, names: Sequence[str], data_dim: int | None) -> list[Tensor] | None:
    """The masks of sites over their rows, shape (N,); None where none of them has any."""
    found = [_mask(trace, name, data_dim) for name in names]
    like = next((mask for mask in found if mask is not None), None)
    return None if like is None else [torch.ones_like(like) if mask is None else mask for mask in found]


def _mask(trace: poutine.Trace, name: str, data_dim: int | None) -> Tensor | None:
    d, value = distribution_at(trace, name), value_at(trace, name)
    masks = [*_masks_of(d, name), trace.nodes[name]["mask"]]
    masks = [mask for mask in masks if mask is not None and mask is not True]
    if not masks:
        return None
    batch = value.shape[: value.dim() - d.event_dim]
    whole = torch.ones(batch, dtype=torch.bool)
    for mask in masks:
        whole = whole & torch.as_tensor(mask).bool()
    if data_dim is None or whole.dim() < -data_dim:
        raise _entries_masked(name)
    return _alike(whole.movedim(data_dim, 0).flatten(1) if whole.dim() > 1 else whole.unsqueeze(1), name)


def _masks_of(d: Distribution, name: str) -> Iterator[Tensor | bool]:
    """The masks inside of a distribution, over its batch."""
    if isinstance(d, MaskedDistribution):
        yield d._mask
        yield from _masks_of(d.base_dist, name)
    elif isinstance(d, Independent):
        for mask in _masks_of(d.base_dist, name):
            events = d.reinterpreted_batch_ndims if isinstance(mask, Tensor) else 0
            yield _alike(mask.flatten(-events), name) if events and isinstance(mask, Tensor) else mask


def _alike(mask: Tensor, name: str) -> Tensor:
    """A mask whose last dimension has equal entries, without that dimension."""
    if not torch.equal(mask, mask[..., :1].expand_as(mask)):
        raise _entries_masked(name)
    return mask[..., 0]


def _entries_masked(name: str) -> InputError:
    return InputError(
        "masks of whole rows around latent sites",
        f"one of some entries of {name!r}",
        "mask what is observed alone, or sample the entries as rows of a plate of their own",
    )


def _scale(trace: poutine.Trace, name: str) -> float:
    """What the log-probability of a site is multiplied by, apart from subsampled plates."""
    scale = float(torch.as_tensor(trace.nodes[name]["scale"]).mean())
    for frame in vectorized_frames(trace.nodes[name]):
        scale *= frame.size / (frame.full_size or frame.size)
    return round(scale, 9)


def _scale_argument(run: Traced, arguments: Mapping[str, Any], name: str, scale: float) -> str | None:
    """Which argument the scale of a site is; None where there is no scale."""
    for argument, value in arguments.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        other = 0.5 * value + 0.125
        trace = _attempt(run, {**arguments, argument: other})
        if trace is None or name not in trace.nodes:
            continue
        if abs(_scale(trace, name) - other) < TOLERANCE and abs(scale - value) < TOLERANCE:
            return argument
        if abs(_scale(trace, name) - scale) > TOLERANCE:
            raise _scaled(name, f"one that depends on {argument!r} in another way")
    if abs(scale - 1) > TOLERANCE:
        raise _scaled(name, f"{scale:.6g}, which no argument is")
    return None


def _scaled(name: str, got: str) -> InputError:
    return InputError(
        f"a scale of 1 at the latent site {name!r}, or one that is an argument of the model",
        got,
        "leave it out and give fit a beta, or hand it over: def model(x, scale=1.0)",
    )
