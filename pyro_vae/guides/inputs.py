"""What the encoders of a guide see of the arguments of a model.

Each tensor with as many rows as the data, in its first dimension or else in another, is an input, a number per row as a
vector of one.  Those of numbers beyond [-1, 1] are standardized, column by column, by the mean and standard deviation
of the data that the guide was made with, so that years and amounts train like anything else.  One with NaN among them
is seen with an indicator of what is missing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vae.errors import InputError
from pyro_vae.networks import Shape, indicator_shape, with_indicator


class Inputs(nn.Module):
    """The arguments of a model, as its encoders see them.

    Args:
        model: a Pyro program.

    Attributes:
        shapes: the event shape of each input, by the name of the argument.

    Raises:
        InputError: if Python cannot tell what the model is called with.
    """

    def __init__(self, model: Callable[..., Any]) -> None:
        super().__init__()
        try:
            self._signature = inspect.signature(model.forward if isinstance(model, nn.Module) else model)
        except (TypeError, ValueError) as error:
            raise InputError(
                "a model whose arguments Python can name", str(error), "wrap it: def model(x): return …"
            ) from error
        self._names: list[tuple[str, str, int]] = []  # of the argument, of its buffers, and where its rows lie
        self._missing: set[str] = set()
        self._trailing = 0  # plates inside of that over data
        self.shapes: dict[str, Shape] = {}

    def bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a call by name; those inside lists and dictionaries by path."""
        try:
            given = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise InputError(
                f"what the model takes, {self._signature}", str(error), "call it with what it is called with"
            ) from error
        return dict(_flat("", given.arguments))

    def sizes(self, arguments: Mapping[str, Any]) -> tuple[int, ...]:
        """The shape of the first tensor among the arguments; () without one."""
        return next((tuple(value.shape) for value in arguments.values() if _is_data(value)), ())

    def rows(self, arguments: Mapping[str, Any]) -> int | None:
        """How many rows the first input has; None without one."""
        return next((arguments[name].shape[axis] for name, _, axis in self._names), None)

    def look(self, arguments: Mapping[str, Any], latents: set[str], rows: int | None, data_dim: int | None) -> None:
        """Note which arguments there are, and what values they have.

        Args:
            arguments: of a call, by name.
            latents: the names of the latent sites, which an argument of that name observes.
            rows: how many there are.
            data_dim: the dimension of the plate over data.
        """
        self._trailing = 0 if data_dim is None else -data_dim - 1
        for name, value in arguments.items():
            axis = _row_axis(value, rows)
            if name in latents or axis is None:
                continue
            key = f"{len(self._names)}_{name}".replace(".", "_")
            self._names.append((name, key, axis))
            seen = _as_numbers(value, axis)
            shape = tuple(seen.shape[1:])
            if seen.isnan().any():
                self._missing.add(name)
            self.shapes[name] = indicator_shape(shape) if name in self._missing else shape
            mean, spread = _moments(seen)
            self.register_buffer(f"mean_{key}", mean)
            self.register_buffer(f"spread_{key}", spread)

    def forward(self, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
        r"""What the encoders see by name, of shape (N, 1, …, \*event_shape), with a dimension for each inner plate."""
        values = {}
        for name, key, axis in self._names:
            value = _as_numbers(arguments[name], axis)
            value = (value - getattr(self, f"mean_{key}")) / getattr(self, f"spread_{key}")
            event_dim = value.dim() - 1
            value = with_indicator(value, event_dim) if name in self._missing else value
            values[name] = value.reshape(len(value), *[1] * self._trailing, *value.shape[1:])
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


def _moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """The mean and spread of each column; 0 and 1 where all values lie in [-1, 1], as those of pictures do."""
    known = torch.where(values.isfinite(), values, torch.nan)
    mean = known.nanmean(0)
    spread = (known - mean).square().nanmean(0).sqrt()
    usual = not bool((known.abs() > 1).any())
    plain = usual | ~(spread > 0)
    return torch.where(plain & usual | mean.isnan(), 0.0, mean), torch.where(plain, 1.0, spread)
