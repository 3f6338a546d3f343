"""Names for things: one registry per kind, filled where the thing is defined.

A thing is *chosen* by text: its name, and options if there are any, ``iaf`` or ``mlp:hidden=400,400,activation=tanh``.
A registered class is built from *ingredients*, whatever the data and the configuration have to offer (``event_shape``,
``latent_dim``, ``prior``, …), of which it receives those that its constructor names.  The constructor's other arguments
are its options.  So a new entry is one file and no caller learns about it.  Other packages register through the
entry-point group ``pyro_vae.<kind>s``.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from pyro_vae.errors import InputError, nearest
from pyro_vae.option_types import shown, wanted

T = TypeVar("T")
C = TypeVar("C", bound=Callable[..., Any])


class Registry(Mapping[str, Callable[..., T]], Generic[T]):
    """A mapping from names to constructors of one kind of thing.

    Args:
        kind: what is registered, in the singular ("model"); errors and the entry-point group use it.
        ingredients: the constructor arguments that callers of ``build`` supply; all others are options.

    Example:
        >>> from pyro_vae.registry import Registry
        >>> shapes = Registry("shape", ingredients=("side",))
        >>> @shapes.register("square")
        ... class Square:
        ...     def __init__(self, side: float, color: str = "blue") -> None:
        ...         self.side, self.color = side, color
        >>> square = shapes.build("square:color=red", side=2.0)
        >>> square.side, square.color, shapes.options("square")
        (2.0, 'red', {'color': 'blue'})
    """

    def __init__(self, kind: str, ingredients: tuple[str, ...] = ()) -> None:
        self.kind = kind
        self.ingredients = ingredients
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

    def options(self, name: str) -> dict[str, Any]:
        """The options of an entry and their defaults."""
        return {key: p.default for key, p in self._parameters(name).items() if key not in self.ingredients}

    def takes(self, choice: str, ingredient: str) -> bool:
        """Whether the entry that is chosen names an ingredient."""
        return ingredient in self._parameters(parse_choice(choice)[0])

    def check(self, choice: str) -> tuple[str, dict[str, Any]]:
        """The name and the validated options of a choice.

        Raises:
            InputError: if the name or an option is unknown, or the value of an option is not what it should be.
        """
        name, given = parse_choice(choice)
        parameters = self._parameters(name)
        options = {key: parameters[key] for key in self.options(name)}
        return name, read_options(f"the {self.kind} {name!r}", options, given)

    def build(self, choice: str, **ingredients: Any) -> T:
        """Build an entry from the ingredients that its constructor names and the options that are chosen.

        Raises:
            InputError: if ``check`` refuses the choice, or the entry needs an ingredient that is missing or None.
        """
        name, options = self.check(choice)
        taken = {}
        for key, parameter in self._parameters(name).items():
            if ingredients.get(key) is not None:
                taken[key] = ingredients[key]
            elif parameter.default is inspect.Parameter.empty:
                raise InputError(f"{key} for the {self.kind} {name!r}", "none", _MISSING.get(key, f"give {key}"))
        return self[name](**(taken | options))

    def _parameters(self, name: str) -> dict[str, inspect.Parameter]:
        return dict(inspect.signature(self[name], eval_str=True).parameters)

    def _load_external(self) -> None:
        if not self._external_loaded:
            self._external_loaded = True
            for point in entry_points(group=f"pyro_vae.{self.kind}s"):
                self._entries.setdefault(point.name, point.load())


def parse_choice(text: str) -> tuple[str, dict[str, str]]:
    """Take ``NAME:OPTION=VALUE,OPTION=VALUE`` apart; a value may hold commas, as in ``mlp:hidden=400,400``.

    Example:
        >>> from pyro_vae.registry import parse_choice
        >>> parse_choice("mlp:hidden=400,400,activation=tanh")
        ('mlp', {'hidden': '400,400', 'activation': 'tanh'})
        >>> parse_choice("iaf")
        ('iaf', {})
    """
    name, colon, rest = text.partition(":")
    if not colon or not re.match(r"\w+=", rest):
        return text, {}
    pairs = (pair.partition("=") for pair in re.split(r",(?=\w+=)", rest))
    return name, {key: value for key, _, value in pairs}


def split_choices(text: str) -> tuple[str, ...]:
    """Take several choices apart at their commas; those before another option, as in ``a:x=1,y=2,b``, stay.

    Example:
        >>> from pyro_vae.registry import split_choices
        >>> split_choices("mean_field,iaf:num_transforms=4,full_rank")
        ('mean_field', 'iaf:num_transforms=4', 'full_rank')
    """
    return tuple(choice for choice in re.split(r",(?!\w+=|\d)", text) if choice)


def read_options(what: str, options: Mapping[str, inspect.Parameter], given: Mapping[str, str]) -> dict[str, Any]:
    """The values of options that are given as text, each read by its parameter's type.

    Args:
        what: the thing that takes the options, for errors.
        options: the parameters that may be given; each has a default.
        given: the options as they were typed.

    Raises:
        InputError: if an option is unknown, or its value is not what it should be.

    Example:
        >>> import inspect
        >>> from pyro_vae.registry import read_options
        >>> def resize(size: int = 28, gray: bool = False): ...
        >>> options = inspect.signature(resize, eval_str=True).parameters
        >>> read_options("the folder", options, {"size": "64", "gray": "true"})
        {'size': 64, 'gray': True}
    """
    taken = {}
    for key, text in given.items():
        if key not in options:
            known = ", ".join(f"{k}={shown(p.default)}" for k, p in options.items())
            raise InputError(f"an option of {what}", repr(key), f"it takes {known}" if known else "it takes none")
        try:
            taken[key] = TypeAdapter(options[key].annotation).validate_python(text)
        except ValidationError as error:
            raise InputError(
                f"{key} of {what} to be {wanted(error.errors())}",
                repr(text),
                f"leave it out or use {key}={shown(options[key].default)}, for example",
            ) from None
    return taken


_MISSING = {"num_classes": "use data with class labels, or a model without them, such as --model vae"}


def import_siblings(package: str, path: list[str]) -> None:
    """Import every module of a package, so that each enters itself into its registry.

    Example:
        >>> from pyro_vae import guides
        >>> from pyro_vae.registry import import_siblings
        >>> import_siblings("pyro_vae.guides", guides.__path__)
        >>> "mean_field" in guides.GUIDES
        True
    """
    for module in pkgutil.iter_modules(path):
        importlib.import_module(f"{package}.{module.name}")
