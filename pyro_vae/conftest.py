"""What the examples in docstrings start from, each of them: seeded noise and an empty parameter store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyro
import pytest
import torch

torch.set_num_threads(1)  # for tiny tensors, and as many processes as there are processors


@pytest.fixture(autouse=True)
def _fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    validation = torch.distributions.Distribution._validate_args
    with pyro.get_param_store().scope():
        yield
    assert torch.distributions.Distribution._validate_args == validation


@pytest.fixture(autouse=True)
def _names(doctest_namespace: dict[str, object]) -> None:
    doctest_namespace["torch"] = torch
