"""Names for things: one registry per kind, filled where the thing is defined.

A registered class is built from *ingredients*: whatever the data and the configuration have to offer (``event_shape``,
``latent_dim``, ``prior``, …).  It receives those that its constructor names, so a new entry is one file and no caller
learns about it.  Other packages register through the entry-point group ``pyro_vae.<kind>s``.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from pyro_vae.errors import InputError, nearest

T = TypeVar("T")
C = TypeVar("C", bound=Callable[..., Any])


class Registry(Mapping[str, Callable[..., T]], Generic[T]):
    """A mapping from names to constructors of one kind of thing.

    Args:
        kind: what is registered, in the singular ("model"); errors and the entry-point group use it.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Callable[..., T]] = {}
        self._external_loaded = False

    def register(self, name: str) -> Callable[[C], C]:
        """Decorator that enters a constructor under ``name``; a name is given once."""

        def enter(constructor: C) -> C:
            if name in self._entries:
                raise ValueError(f"the {self.kind} {name!r} is registered already, by {self._entries[name]!r}")
            self._entries[name] = constructor
            return constructor

        return enter

    def __getitem__(self, name: str) -> Callable[..., T]:
        self._load_external()
        try:
            return self._entries[name]
        except KeyError:
            raise InputError(f"a known {self.kind}", repr(name), nearest(name, self._entries)) from None

    def __contains__(self, name: object) -> bool:
        self._load_external()
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        self._load_external()
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        self._load_external()
        return len(self._entries)

    def describe(self, name: str) -> str:
        """The first sentence of the entry's documentation."""
        return (inspect.getdoc(self[name]) or "").split("\n")[0].rstrip(".")

    def build(self, name: str, **ingredients: Any) -> T:
        """Build an entry from the ingredients that its constructor names.

        Raises:
            InputError: if the name is unknown, or the entry needs an ingredient that is missing or None.
        """
        constructor = self[name]
        taken = {}
        for parameter in inspect.signature(constructor).parameters.values():
            if ingredients.get(parameter.name) is not None:
                taken[parameter.name] = ingredients[parameter.name]
            elif parameter.default is inspect.Parameter.empty:
                raise InputError(
                    f"{parameter.name} for the {self.kind} {name!r}",
                    "none",
                    _MISSING.get(parameter.name, f"give {parameter.name}"),
                )
        return constructor(**taken)

    def _load_external(self) -> None:
        if not self._external_loaded:
            self._external_loaded = True
            for point in entry_points(group=f"pyro_vae.{self.kind}s"):
                self._entries.setdefault(point.name, point.load())


_MISSING = {"num_classes": "use data with class labels, or a model without them, such as --model vae"}


def import_siblings(package: str, path: list[str]) -> None:
    """Import every module of a package, so that each enters itself into its registry."""
    for module in pkgutil.iter_modules(path):
        importlib.import_module(f"{package}.{module.name}")
