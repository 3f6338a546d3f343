from __future__ import annotations

import pytest

from pyro_vae.compiled import graphs, lowering

compile_recording = lowering.compile_recording


@pytest.fixture
def compiled(uncompiled, monkeypatch):
    """Recordings are compiled after all."""
    for module in (graphs, lowering):
        monkeypatch.setattr(module, "compile_recording", compile_recording)
