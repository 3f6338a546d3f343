from __future__ import annotations

import pytest

from tests.survival import alone


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that forks in a process of its own: torch refuses gradients in the child of one with threads."""
    if pyfuncitem.get_closest_marker("forks") is None:
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    alone.call(pyfuncitem.module.__name__, pyfuncitem.originalname, arguments, pyfuncitem.config.rootpath)
    return True
