"""What the encoders of a guide see of the arguments of a model.

Each tensor with as many rows as the data, in its first dimension or else in another, is an input, a number per row as a
vector of one.  Those of numbers beyond [-1, 1] are standardized, column by column, by the mean and standard deviation
of the data that the guide was made with, so that years and amounts train like anything else.  One with NaN among them
is seen with an indicator of what is missing.

Where the model has sites at each step of the data, a tensor of shape (N, T, …) is a *sequence*, of any length: its
moments are those of all steps, and a step of it a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vae.data.arguments import OfColumns
from pyro_vae.errors import InputError
from pyro_vae.networks import Shape, indicator_shape, with_indicator
from pyro_vae.pairs.declarations import Declarations
from pyro_vae.pairs.reach import signature_of


class Inputs(nn.Module):
    """The arguments of a model, as its encoders see them.

    Args:
        model: a Pyro program.

    Attributes:
        shapes: the event shape of each input, by the name of the argument.
        sequences: the size of a step of each input that is a sequence.

    Raises:
        InputError: if Python cannot tell what the model is called with.
    """

    def __init__(self, model: Callable[..., Any]) -> None:
        super().__init__()
        try:
            self._signature = signature_of(model)
        except (TypeError, ValueError) as error:
            raise InputError(
                "a model whose arguments Python can name", str(error), "wrap it: def model(x): return …"
            ) from error
        self._names: list[tuple[str, str, int]] = []  # of the argument, of its buffers, and where its rows lie
        self._missing: set[str] = set()
        self._trailing = 0  # plates inside of that over data
        self._clock: tuple[str, int] | None = None  # whose second dimension are the steps, and how many more sites
        self._steps = 0
        self._columns = model if isinstance(model, OfColumns) else None  # which hold the arguments side by side
        self.shapes: dict[str, Shape] = {}
        self.sequences: dict[str, int] = {}

    def bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a call by name; those inside lists and dictionaries by path."""
        try:
            given = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise InputError(
                f"what the model takes, {self._signature}", str(error), "call it with what it is called with"
            ) from error
        given.apply_defaults()
        if self._columns is not None:
            (x,) = given.arguments.values()
            return self._columns.parts(x)
        return dict(_flat("", given.arguments))

    def check_example(self, arguments: Mapping[str, Any]) -> None:
        """Refuse arguments of which none is a tensor; a model may have none at all.

        Raises:
            InputError: if they are of other types alone.
        """
        if arguments and not any(isinstance(value, Tensor) for value in arguments.values()):
            name, value = next(iter(arguments.items()))
            mend = (
                f"give torch.as_tensor({name})" if hasattr(value, "__array__") else "give the data, or a part of them"
            )
            raise InputError("an example of the data, a tensor of some rows", f"{name}: {type(value).__name__}", mend)

    def call(self, args: tuple[Any, ...], arguments: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What the model is called with, like some arguments of a call but for the values of those by name.

        Args:
            args: of a call.
            arguments: by name and path, rows in the first dimension of inputs.
        """
        axes = self._axes()
        flat = {k: v.movedim(0, axes[k]) if k in axes else v for k, v in arguments.items()}
        if self._columns is not None:
            return (self._columns.whole(flat),), {}
        given = self._signature.bind(*args)
        given.apply_defaults()
        for name, value in given.arguments.items():
            given.arguments[name] = _filled(name, value, flat)
        return given.args, given.kwargs

    def by_row(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments by name, rows in the first dimension of inputs."""
        axes = self._axes()
        return {k: v.movedim(axes[k], 0) if k in axes else v for k, v in arguments.items()}

    def sizes(self, arguments: Mapping[str, Any]) -> tuple[int, ...]:
        """The shape of the first tensor among the arguments; () without one."""
        return next((tuple(value.shape) for value in arguments.values() if _is_data(value)), ())

    def rows(self, arguments: Mapping[str, Any]) -> int | None:
        """How many rows the first input has; None without one."""
        return next((arguments[name].shape[axis] for name, _, axis in self._names), None)

    def _axes(self) -> dict[str, int]:
        """In which dimension of each input the rows lie."""
        return {name: axis for name, _, axis in self._names}

    def num_entries(self, arguments: Mapping[str, Any]) -> int:
        """How many steps the sequences among these arguments have, rows in their first dimension."""
        return arguments[self._clock[0]].shape[1] if self._clock else 0

    def num_steps(self, arguments: Mapping[str, Any]) -> int:
        """How many sites a series has for these arguments, rows in their first dimension."""
        return self.num_entries(arguments) + (self._clock[1] if self._clock else 0)

    def look(self, arguments: Mapping[str, Any], latents: set[str], sites: Declarations) -> None:
        """Note which arguments there are, and what values they have.

        Args:
            arguments: of a call, by name.
            latents: the names of the latent sites, which an argument of that name observes.
            sites: those of the model.
        """
        self._trailing = 0 if sites.data_dim is None else -sites.data_dim - 1
        for name, value in arguments.items():
            axis = _row_axis(value, sites.rows)
            if name in latents or axis is None:
                continue
            key = f"{len(self._names)}_{name}".replace(".", "_")
            self._names.append((name, key, axis))
            seen = _as_numbers(value, axis)
            if seen.isnan().any():
                self._missing.add(name)
            if sites.chain is not None and self._is_sequence(seen, name, sites.chain.series[0].length):
                seen = _in_steps(seen)
                self.sequences[name] = seen.shape[2] * (2 if name in self._missing else 1)
                seen = seen.flatten(0, 1)
            else:
                shape = tuple(seen.shape[1:])
                self.shapes[name] = indicator_shape(shape) if name in self._missing else shape
            mean, spread = _moments(seen)
            self.register_buffer(f"mean_{key}", mean)
            self.register_buffer(f"spread_{key}", spread)

    def _is_sequence(self, seen: Tensor, name: str, length: int) -> bool:
        """Whether a tensor has as many entries in its second dimension as the first one that has one for each site."""
        if seen.dim() < 2 or (seen.dim() == 2 and seen.shape[1] == 1):
            return False
        if self._clock is None and abs(seen.shape[1] - length) <= 1:
            self._clock, self._steps = (name, length - seen.shape[1]), seen.shape[1]
        return self._clock is not None and seen.shape[1] == self._steps

    def forward(self, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
        r"""What the encoders see by name, of shape (N, 1, …, \*event_shape), with a dimension for each inner plate.

        Sequences have shape (N, T, D).
        """
        values = {}
        for name, key, axis in self._names:
            value = _as_numbers(arguments[name], axis)
            if name in self.sequences:
                value = (_in_steps(value) - getattr(self, f"mean_{key}")) / getattr(self, f"spread_{key}")
                values[name] = with_indicator(value, 1) if name in self._missing else value
                continue
            value = (value - getattr(self, f"mean_{key}")) / getattr(self, f"spread_{key}")
            event_dim = value.dim() - 1
            value = with_indicator(value, event_dim) if name in self._missing else value
            values[name] = value.reshape(value.shape[0], *[1] * self._trailing, *value.shape[1:])
        return values


def _flat(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        entries: Any = value.items()
    elif isinstance(value, (list, tuple)):
        entries = enumerate(value)
    else:
        yield path, value
        return
    for key, entry in entries:
        yield from _flat(f"{path}.{key}" if path else str(key), entry)


def _filled(path: str, value: Any, flat: Mapping[str, Any]) -> Any:
    """A value as it is, its entries replaced by those of their path."""
    if isinstance(value, Mapping):
        return {key: _filled(f"{path}.{key}", entry, flat) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        entries = [_filled(f"{path}.{i}", entry, flat) for i, entry in enumerate(value)]
        return tuple(entries) if isinstance(value, tuple) else entries
    return flat.get(path, value)


def _is_data(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0


def _row_axis(value: Any, rows: int | None) -> int | None:
    """Which dimension of an argument has as many entries as there are rows: the first, or the only one."""
    if not _is_data(value) or rows is None:
        return None
    axes = [axis for axis, size in enumerate(value.shape) if size == rows]
    return axes[0] if len(axes) == 1 or 0 in axes else None


def _as_numbers(value: Tensor, axis: int) -> Tensor:
    value = value.to(torch.get_default_dtype()).movedim(axis, 0)
    return value.unsqueeze(-1) if value.dim() == 1 else value


def _in_steps(value: Tensor) -> Tensor:
    """A sequence as a vector for each step, shape (N, T, D)."""
    return value.flatten(2) if value.dim() > 2 else value.unsqueeze(-1)


def _moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """The mean and spread of each column; 0 and 1 where all values lie in [-1, 1], as those of pictures do."""
    known = torch.where(values.isfinite(), values, torch.nan)
    mean = known.nanmean(0)
    spread = (known - mean).square().nanmean(0).sqrt()
    usual = not bool((known.abs() > 1).any())
    plain = usual | ~(spread > 0)
    return torch.where(plain & usual | mean.isnan(), 0.0, mean), torch.where(plain, 1.0, spread)
