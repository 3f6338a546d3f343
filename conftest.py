"""Check the shapes of every call that a test or an example makes, in the rooms that state theirs as types."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

from beartype import beartype
from jaxtyping import install_import_hook

ROOMS = ("diagnostics", "guides", "models", "objectives", "pairs", "posterior")


def check_shapes(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose shapes are checked and whose other types, which are mypy's to check, are not."""
    shapes = {name: hint for name, hint in function.__annotations__.items() if "[Tensor, " in str(hint)}
    if not shapes or not isinstance(function, FunctionType):
        return function
    alike = FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    alike.__kwdefaults__, alike.__annotations__ = function.__kwdefaults__, shapes
    alike.__qualname__, alike.__module__ = function.__qualname__, function.__module__
    return beartype(alike)


install_import_hook([f"pyro_vae.{room}" for room in ROOMS], "conftest.check_shapes")
