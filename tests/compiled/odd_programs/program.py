"""What an odd program is, and what most of them have in common."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

CASES = []
NUM_CALLS = 14
X = torch.linspace(-1, 2, 6)


def base(x, offset=0.0, scale=1.0):
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(z + offset, scale).expand([len(x)]).to_event(1), obs=x)


def guide(*args, **kwargs):
    return pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.3)), 1.0))


def call(*args, **kwargs):
    return args, kwargs


@dataclass
class Program:
    """A model with its guide, and how it is trained.

    Args:
        model: the model.
        guide: the guide.
        calls: the arguments of the i-th call.
        before: what happens before it.
        optimizer: adam, sgd or None.
        read: what is read off after it.
    """

    model: Callable[..., Any]
    guide: Callable[..., Any] = guide
    calls: Callable[[int], Any] = lambda i: call(X)
    before: Callable[[int], Any] = lambda i: None
    optimizer: str | None = "adam"
    read: Callable[[], Any] | None = None


def case(reason=None, quick=False):
    """Add a function that makes a program to the cases.

    Args:
        reason: part of what is said of it, if it runs eagerly.
        quick: whether the default tests run it.
    """

    def register(make):
        marks = () if quick else pytest.mark.exhaustive
        CASES.append(pytest.param(make, reason, marks=marks, id=make.__name__))
        return make

    return register


def mapped():
    """Six numbers in a file, of which no copy is made."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "numbers.npy"
        np.save(path, np.arange(6, dtype=np.float32))
        return torch.from_numpy(np.load(path, mmap_mode="r"))
