from __future__ import annotations

import pytest

from pyro_vae.inference.compiled import graphs, lowering


@pytest.fixture
def uncompiled(monkeypatch):
    """Recordings run as they are: for tests of what is recorded when, which are no tests of the compiler."""
    monkeypatch.setattr(graphs, "compile_recording", lambda r, _: lambda values: r.graph(*values, *r.held))


@pytest.fixture
def compiled(uncompiled, monkeypatch):
    """Recordings are compiled after all."""
    monkeypatch.setattr(graphs, "compile_recording", lowering.compile_recording)
