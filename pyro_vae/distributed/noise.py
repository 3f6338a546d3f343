"""The noise of some rows of a batch, to the bit as one process would draw it for the whole batch.

Every process has the same generator, in the same state.  Where a program draws a number per row of its own part, it is
given those rows of what is drawn for all rows of the batch; what all rows share is drawn as it is.  Which dimension is
that of the rows shows in two runs of a computation, one of which has a row more, and whether that is right in three
others, of a small batch as a whole and of its halves.

Drawing for all rows costs every process the noise of the whole batch, a few in a thousand of a step.  Where the halves
do not make up the whole, each process draws from a generator of its own and takes its rows as a batch of their own:
because how many numbers a generator gives for one row depends on others (gamma, Poisson and binomial draws,
permutations of the rows), or because the loss is not a mean over rows (free bits, normalization over a batch).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pyro_vae.distributed.world import Noise, Part

_BY_ELEMENT = {"rand", "randn", "randint", "rand_like", "randn_like", "randint_like", "normal_", "uniform_"} | {
    *("exponential_", "log_normal_", "cauchy_", "geometric_", "bernoulli", "bernoulli_", "normal", "native_dropout"),
    *("multinomial", "random_"),
}
PADDING = 0.5  # in the place of other rows' parameters: a probability, a weight, a width
Place = tuple[int, int]  # the dimension of the rows in a draw, and the entries of each row there
Places = list[Place | None]
FEWER, MORE, WHOLE = Part(0, 2, 6, 2), Part(0, 3, 6, 2), Part(0, 6, 6)
HALVES = Part(0, 3, 6, 2), Part(3, 6, 6, 2)
TOLERANCE = 1e-4  # relative


@dataclass(frozen=True)
class _Drawn:
    """What one operation drew: its name, the shape, and how many rows there were."""

    name: str
    shape: tuple[int, ...]
    rows: int
    is_dense: bool


class RowNoise(Noise):
    """The noise of a process's rows among all.

    Attributes:
        is_exact: whether all computations seen draw what one process would.

    Example:
        >>> from pyro_vae.distributed import Part, RowNoise
        >>> noise = RowNoise()
        >>> def draw(part):
        ...     _ = torch.manual_seed(0)  # as two processes with one seed
        ...     with noise.of("training", part):
        ...         return torch.randn(len(part), 4)
        >>> noise.learn(lambda part: part.weight * draw(part).mean())
        >>> drawn = [draw(part) for part in (Part(0, 2, 3, 2), Part(2, 3, 3, 2))]
        >>> _ = torch.manual_seed(0)
        >>> torch.equal(torch.cat(drawn), torch.randn(3, 4))
        True
    """

    def __init__(self) -> None:
        self._places: dict[str, Places] = {}
        self._seen: dict[str, list[_Drawn]] | None = None
        self._is_plain = self._has_learned = False

    def learn(self, run: Callable[[Part], Tensor]) -> None:
        if self._has_learned:
            return
        self._has_learned = True
        runs: list[dict[str, list[_Drawn]]] = []
        for part in (FEWER, FEWER, MORE):  # the first run may find out what later ones know
            self._seen = {}
            try:
                run(part)
                runs.append(self._seen)
            finally:
                self._seen = None
        fewer, more = runs[1:]
        for what in fewer.keys() | more.keys():
            places = _places(fewer.get(what, []), more.get(what, []))
            if places is None:
                self.is_exact = False
                return
            self._places[what] = places
        self._is_plain = True
        whole = run(WHOLE)
        self._is_plain = False
        halves = torch.stack([run(part) for part in HALVES]).mean()
        self.is_exact = torch.allclose(halves, whole, rtol=TOLERANCE, atol=0.0, equal_nan=True)

    def of(self, what: str, *parts: Part) -> AbstractContextManager[object]:
        if self._seen is not None:
            return _Seeing(self._seen.setdefault(what, []), sum(map(len, parts)))
        if self._is_plain or not self.is_exact:
            return nullcontext()
        return _Drawing(self._places.get(what, []), parts)


class _Seeing(TorchDispatchMode):
    """Notes what is drawn."""

    def __init__(self, seen: list[_Drawn], rows: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._noted, self._rows = seen, rows

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if _draws(func, kwargs):
            first = result[0] if isinstance(result, tuple) else result
            self._noted.append(_Drawn(_name(func), tuple(first.shape), self._rows, first.is_contiguous()))
        return result


class _Drawing(TorchDispatchMode):
    """Draws for all rows, and hands on those of some parts."""

    def __init__(self, places: Places, parts: Sequence[Part]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._places, self._parts = iter(places), parts

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        place = next(self._places, None) if _draws(func, kwargs) else None
        if place is None:
            return func(*args, **(kwargs or {}))
        return self._drawn_for_all(func, args, kwargs or {}, place)

    def _drawn_for_all(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], place: Place) -> Any:
        dim, entries = place
        size = next((value for value in args if isinstance(value, (list, tuple, torch.Size))), None)
        if size is not None:
            total = entries * sum(part.total for part in self._parts)
            whole = [total if i == dim else length for i, length in enumerate(size)]
            return self._own(func(*(whole if value is size else value for value in args), **kwargs), place)
        largest = max(value.dim() for value in args if isinstance(value, Tensor))
        padded = [self._padded(v, dim - largest, entries) if isinstance(v, Tensor) else v for v in args]
        result = func(*padded, **kwargs)
        if _name(func).endswith("_"):
            return args[0].copy_(self._own(result, place))
        if isinstance(result, tuple):
            return tuple(self._own(each, place) for each in result)
        return self._own(result, place)

    def _padded(self, values: Tensor, dim: int, entries: int) -> Tensor:
        """A tensor of the rows among all, where it has entries per row; ``dim`` counts from the right."""
        if -dim > values.dim() or values.shape[dim] != entries * sum(map(len, self._parts)):
            return values
        shape = list(values.shape)
        pieces, before = [], 0
        for part in self._parts:
            for is_own, rows in ((False, part.start), (True, len(part)), (False, part.total - part.stop)):
                shape[dim] = entries * rows
                pieces.append(values.narrow(dim, before, shape[dim]) if is_own else values.new_full(shape, PADDING))
            before += entries * len(part)
        return torch.cat(pieces, dim)

    def _own(self, values: Tensor, place: Place) -> Tensor:
        """The rows of the parts, of what was drawn for all."""
        dim, entries = place
        pieces, before = [], 0
        for part in self._parts:
            pieces.append(values.narrow(dim, entries * (before + part.start), entries * len(part)))
            before += part.total
        return torch.cat(pieces, dim) if len(pieces) > 1 else pieces[0].contiguous()


def _draws(func: Any, kwargs: dict[str, Any] | None) -> bool:
    """Whether an operation draws from torch's own generator."""
    return torch.Tag.nondeterministic_seeded in func.tags and (kwargs or {}).get("generator") is None


def _name(func: Any) -> str:
    return str(func._schema.name.split("::")[-1])


def _places(fewer: list[_Drawn], more: list[_Drawn]) -> Places | None:
    """Where the rows are in each draw, None where all rows share it; None if that cannot be told."""
    if [drawn.name for drawn in fewer] != [drawn.name for drawn in more]:
        return None
    places: Places = []
    for one, other in zip(fewer, more, strict=True):
        if one.shape == other.shape:
            places.append(None)
            continue
        place = _grown(one, other)
        if place is None or one.name not in _BY_ELEMENT or not one.is_dense:
            return None
        places.append(place)
    return places


def _grown(one: _Drawn, other: _Drawn) -> Place | None:
    """The dimension that grows with the rows: one entry per row, or several in a draw of one dimension."""
    grown = [dim for dim, lengths in enumerate(zip(one.shape, other.shape, strict=False)) if lengths[0] != lengths[1]]
    if len(one.shape) != len(other.shape) or len(grown) != 1:
        return None
    (dim,) = grown
    entries, left = divmod(one.shape[dim], one.rows)
    fits = not left and other.shape[dim] == entries * other.rows and (entries == 1 or len(one.shape) == 1)
    return (dim, entries) if fits else None
