"""What holds for tests and for the examples in docstrings alike.

The shapes of every call are checked, in the rooms that state theirs as types.  An example starts from seeded noise, an
empty parameter store and an empty folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import jaxtyping
import pyro
import pytest
import torch
from beartype import beartype
from jaxtyping import install_import_hook, jaxtyped

ROOMS = ("diagnostics", "guides", "models", "objectives", "pairs", "posterior")


def check_shapes(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose shapes are checked and whose other types, which are mypy's to check, are not."""
    alike = FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    alike.__kwdefaults__, alike.__annotations__ = function.__kwdefaults__, _shapes(function)
    alike.__qualname__, alike.__module__ = function.__qualname__, function.__module__
    return beartype(alike)


def _shapes(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a function that state shapes."""
    return {name: hint for name, hint in function.__annotations__.items() if "[Tensor, " in str(hint)}


def jaxtyped_where_stated(*, typechecker: Callable[..., Any]) -> Callable[[Any], Any]:
    """What the import hook decorates every function with: those that state no shape stay as they are.

    Most calls are of these, and to bind their arguments takes a twentieth of all tests' time.
    """
    checked = jaxtyped(typechecker=typechecker)

    def decorate(decorated: Any) -> Any:
        function = getattr(decorated, "fget", None) or getattr(decorated, "__func__", decorated)
        return checked(decorated) if isinstance(function, FunctionType) and _shapes(function) else decorated

    return decorate


jaxtyping.jaxtyped = jaxtyped_where_stated
install_import_hook([f"pyro_vae.{room}" for room in ROOMS], "conftest.check_shapes")
torch.set_num_threads(1)  # for tiny tensors, and as many processes as there are processors


@pytest.fixture
def doctest_namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, object]]:
    """The names that every example starts with; it must leave Pyro's global state as it was."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    validation = torch.distributions.Distribution._validate_args
    with pyro.get_param_store().scope():
        yield {"torch": torch}
    assert torch.distributions.Distribution._validate_args == validation
