from __future__ import annotations

import pytest

from pyro_vae.compiled import lowering, recorded_graph

collect_ignore = ["scripts"]  # run by test_scripts, each as a script of its own
compile_recording = lowering.compile_recording


@pytest.fixture
def compiled(uncompiled, at_once, monkeypatch):
    """Recordings are compiled after all, and at once."""
    for module in (recorded_graph, lowering):
        monkeypatch.setattr(module, "compile_recording", compile_recording)
