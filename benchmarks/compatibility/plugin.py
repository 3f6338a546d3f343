"""A plugin of pytest that runs Pyro's tests with the compiled estimators in the place of the stock ones.

Most tests call an estimator once, which would run eagerly.  So each of the first calls of a pair of programs is made
three times, at the same noise and from the same gradients: the first runs eagerly, the second is recorded, the third
runs the graph.  The three must agree, in loss and gradients, and the test goes on with what the third gave.

Environment: ``PYRO_VAE_TESTS_WAY`` is ``stock``, ``compiled`` or ``replayed``; ``PYRO_VAE_TESTS_OUT`` the file for the
outcomes, a line of JSON for each test.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import ELBO
from torch import Tensor

from benchmarks.compatibility import patching

TIMES = 3
FIRST = 2  # calls of a pair that are made three times
RELATIVE, ABSOLUTE = 1e-3, 1e-4

WAY = os.environ["PYRO_VAE_TESTS_WAY"]


class Disagreement(AssertionError):
    """Two of three calls that should give the same do not."""


def thrice(kind: type[ELBO]) -> type[ELBO]:
    """A class like an estimator's whose first calls are made three times."""

    def repeated(method: str) -> Any:
        original: Callable[..., Any] = getattr(kind, method)

        def call(self: Any, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Any:
            if getattr(self, "_inside", False):
                return original(self, model, guide, *args, **kwargs)
            self._inside = True
            try:
                return _repeat(self, method, model, guide, lambda: original(self, model, guide, *args, **kwargs))
            finally:
                self._inside = False

        return call

    return type(kind.__name__, (kind,), {method: repeated(method) for method in patching.METHODS})


def _repeat(estimator: Any, method: str, model: Any, guide: Any, call: Callable[[], Any]) -> Any:
    seen = estimator.__dict__.setdefault("_seen", {})
    key = (method, getattr(model, "__code__", model), getattr(guide, "__code__", guide))
    seen[key] = seen.get(key, 0) + 1
    if seen[key] > FIRST:
        return call()
    noise, values, gradients = pyro.util.get_rng_state(), _values(), _gradients()
    found = []
    for i in range(TIMES):
        if i:
            pyro.util.set_rng_state(noise)
            _put_back(values, gradients)
        result = call()
        found.append((result, _gradients()))
    for i, (result, after) in enumerate(found[1:], start=2):
        _agree(f"the loss of call {i}", found[0][0], result)
        for name, gradient in found[0][1].items():
            _agree(f"the gradient of {name} at call {i}", gradient, after.get(name))
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
    if WAY == "stock":
        return
    ours = patching.choices(WAY, lambda kind: thrice(kind) if kind.__module__.startswith("pyro_vae") else kind)
    patching.replace(ours)
    if WAY == "replayed":
        patching.interpret_recordings()


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
