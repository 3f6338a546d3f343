"""A plugin of pytest that runs Pyro's tests with the compiled estimators in the place of the stock ones.

Most tests call an estimator once, which would run eagerly.  So the first call of a pair of programs is made again and
again, from the same noise, parameters and gradients: as it comes, for what programs and estimator find out at their
first call; with stock Pyro's method; recorded; as it is with the graph beside it; and as a graph alone.  Of these the
second, third and fifth must agree, in loss and gradients, and the test goes on with what the graph gave.

Environment: ``PYRO_VAE_TESTS_WAY`` is ``stock``, ``at once`` or ``replayed``; ``PYRO_VAE_TESTS_OUT`` the file for the
outcomes, a line of JSON for each test.
"""

from __future__ import annotations

import functools
import json
import os
import weakref
from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import ELBO
from torch import Tensor

from benchmarks.compatibility import patching

RELATIVE, ABSOLUTE = 1e-3, 1e-4

_INSIDE: weakref.WeakSet[ELBO] = weakref.WeakSet()  # estimators at work
_SEEN: weakref.WeakKeyDictionary[ELBO, set[Any]] = weakref.WeakKeyDictionary()  # methods and programs of earlier calls
WAY = os.environ["PYRO_VAE_TESTS_WAY"]


class Disagreement(AssertionError):
    """Two calls that should give the same do not."""


def repeating(name: str, kind: type[ELBO]) -> type[ELBO]:
    """A class like an estimator's, under the name of the stock class, whose first calls are made again."""

    def repeated(method: str) -> Any:
        original: Callable[..., Any] = getattr(kind, method)
        stock: Callable[..., Any] = getattr(patching.STOCK[name.removeprefix("Jit")], method, original)

        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            if self in _INSIDE or not _is_new(self, method, *args[:2]):
                return original(self, *args, **kwargs)
            _INSIDE.add(self)
            try:
                return _repeat(*(functools.partial(run, self, *args, **kwargs) for run in (original, stock)))
            finally:
                _INSIDE.discard(self)

        return call

    return type(name, (kind,), {method: repeated(method) for method in patching.METHODS if hasattr(kind, method)})


def _is_new(estimator: Any, method: str, model: Any, guide: Any) -> bool:
    seen = _SEEN.setdefault(estimator, set())
    key = (method, getattr(model, "__code__", model), getattr(guide, "__code__", guide))
    new = key not in seen
    seen.add(key)
    return new


def _repeat(ours: Callable[[], Any], stock: Callable[[], Any]) -> Any:
    gradients, noise = _gradients(), pyro.util.get_rng_state()
    ours()
    values = _values()
    found = []
    for run in (stock, ours, ours, ours):
        pyro.util.set_rng_state(noise)
        _put_back(values, gradients)
        found.append((run(), _gradients()))
    for way, (result, after) in zip(("recorded", "third", "graph's"), found[1:], strict=True):
        _agree(f"the loss of the {way} call", found[0][0], result)
        for name, gradient in found[0][1].items():
            _agree(f"the gradient of {name} of the {way} call", gradient, after.get(name))
    return found[-1][0]


def _parameters() -> dict[str, Tensor]:
    return dict(pyro.get_param_store().named_parameters())


def _values() -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in _parameters().items()}


def _gradients() -> dict[str, Tensor | None]:
    return {name: None if p.grad is None else p.grad.detach().clone() for name, p in _parameters().items()}


def _put_back(values: dict[str, Tensor], gradients: dict[str, Tensor | None]) -> None:
    for name, parameter in _parameters().items():
        before = gradients.get(name)
        parameter.grad = None if before is None else before.clone()
        if name in values:
            with torch.no_grad():
                parameter.copy_(values[name])


def _agree(what: str, expected: Any, found: Any) -> None:
    if expected is None or found is None:
        if expected is not found:
            raise Disagreement(f"{what}: {found} in the place of {expected}")
        return
    expected, found = (torch.as_tensor(value).detach() for value in (expected, found))
    if not torch.allclose(expected.double(), found.double(), RELATIVE, ABSOLUTE, equal_nan=True):
        raise Disagreement(f"{what}: {found} in the place of {expected}")


def pytest_configure(config: pytest.Config) -> None:
    """Put the classes in place before a test is imported."""
    config.addinivalue_line("filterwarnings", "ignore:.torch.jit:FutureWarning")  # of the Jit classes, and no failure
    if WAY == "stock":
        return
    patching.replace(patching.choices(WAY, repeating))
    patching.set_way(WAY)
    for kind in ("NotCompiled", "Recompiled"):  # Pyro's settings make errors of warnings: these are no failures
        config.addinivalue_line("filterwarnings", f"ignore::pyro_vae.compiled.{kind}")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Write the outcome of a test."""
    if report.when != "call" and report.outcome == "passed":
        return
    why = "" if report.outcome == "passed" else _last_line(report)
    with open(os.environ["PYRO_VAE_TESTS_OUT"], "a", encoding="utf-8") as out:
        out.write(json.dumps([report.nodeid, report.outcome, why]) + "\n")


def _last_line(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    text = getattr(crash, "message", str(report.longrepr)).strip()
    return text.splitlines()[0][:300] if text else ""
