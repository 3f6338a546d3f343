"""The forms that programs come in, with the Gaussian answers, and the modules that they reach."""

from __future__ import annotations

from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule, PyroParam
from torch import Tensor, nn

from benchmarks.programs.gaussian import GAIN, SPREAD, S, W, answers, guide, kind, model, sample_z, shift, to
from benchmarks.programs.kinds import Program, trained


def exact_encoder(*before: nn.Module) -> nn.Sequential:
    """Layers that the exact posterior means come out of, whatever comes before is the identity once it is trained."""
    linear = nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        linear.weight.copy_(GAIN.T)
    return nn.Sequential(*before, linear).requires_grad_(False)


class Both(nn.Module):
    """The style of the tutorials: model and guide are methods."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = exact_encoder()

    def model(self, x: Tensor) -> None:
        model(x)

    def guide(self, x: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            sample_z(self.encoder(x) + shift())


def _methods() -> tuple[Program, Program]:
    both = Both()
    return both.model, both.guide


kind("methods of a module", _methods)


def _closures() -> tuple[Program, Program]:
    encoder = exact_encoder()

    def closing_guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            sample_z(encoder(x) + shift())

    return lambda x: model(x), closing_guide


kind("closures", _closures)


def _partials() -> tuple[Program, Program]:
    def general_guide(encoder: nn.Module, x: Tensor, offset: float = 0.0) -> None:
        with pyro.plate("data", len(x)):
            sample_z(encoder(x) + shift() + offset)

    return partial(model), partial(general_guide, exact_encoder(), offset=0.0)


kind("functools.partial", _partials)


class Caller:
    """An object that can be called, and keeps its modules in a list."""

    def __init__(self) -> None:
        self.parts: list[nn.Module] = [exact_encoder(), nn.BatchNorm1d(2, affine=False)]

    def __call__(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            sample_z(self.parts[0](x) + 0 * self.parts[1](self.parts[0](x)) + shift())


kind("callable object with a list of modules", lambda: (model, Caller()))


class Shifted(PyroModule):
    """A Pyro module with a parameter of its own."""

    offset: Tensor
    width: Tensor

    def __init__(self) -> None:
        super().__init__()
        setattr(self, "offset", PyroParam(0.5 * torch.ones(2)))  # noqa: B010  # a tensor, once it is read
        setattr(self, "width", PyroParam(to(2 * SPREAD), dist.constraints.positive))  # noqa: B010

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x @ to(GAIN) + self.offset, self.width).to_event(1))


offset = trained("guide.offset_unconstrained")
kind("PyroModule with PyroParam", lambda: (model, Shifted()), answers=answers(fit=offset))


class Normalizing(nn.Module):
    """Batch normalization whose running moments are part of what is learned: they scale the guide's means."""

    counted: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3, affine=False, momentum=0.1)
        self.dropout = nn.Dropout(0.5)
        self.linear = nn.Linear(3, 2)
        self.register_buffer("counted", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.counted += 1
        return self.linear(self.dropout(self.norm(x)))


def _learned(encoder: nn.Module, role: str) -> tuple[Program, Program]:
    """The trained module itself says what the means of its guide are, in evaluation mode."""

    def learned_guide(x: Tensor) -> None:
        pyro.module(role, encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(encoder(x), to(2 * SPREAD)).to_event(1))

    return model, learned_guide


def learns(run: Any) -> float:
    """0 where training brought anything, 1 where it did not."""
    bounds = run.history["validation_elbo"]
    return float(bounds.iloc[-1] <= bounds.iloc[0])


inexact: dict[str, Any] = {"answers": answers(mean=None, reconstruction=None, fit=learns), "exact": False}
kind("batch normalization and dropout in the guide", lambda: _learned(Normalizing(), "encoder"), **inexact)


class Sequence(nn.Module):
    """An LSTM that reads a row as a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(1, 4, batch_first=True)
        self.linear = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.lstm(x.unsqueeze(-1))
        return self.linear(states[:, -1])


kind("LSTM in the guide", lambda: _learned(Sequence(), "encoder"), **inexact)


def _lstm_decoder() -> tuple[Program, Program]:
    lstm = nn.LSTM(2, 3, batch_first=True).requires_grad_(False)
    for value in lstm.parameters():
        value.zero_()

    def unrolling_model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            states, _ = lstm(z.unsqueeze(1))
            pyro.sample("x", dist.Normal(z @ to(W) + states[:, 0], S).to_event(1), obs=x)

    return unrolling_model, guide


kind("LSTM in the model", _lstm_decoder)


def _normalized_decoder() -> tuple[Program, Program]:
    norm = nn.BatchNorm1d(2, affine=False, momentum=0.0)  # whose moments stay 0 and 1: the identity once evaluated

    def normalizing_model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal((z + 0 * norm(z)) @ to(W), S).to_event(1), obs=x)

    return normalizing_model, guide


kind("batch normalization in the model", _normalized_decoder)

ENCODER = exact_encoder()


def _global() -> tuple[Program, Program]:
    def global_guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            sample_z(ENCODER(x) + shift())

    return model, global_guide


kind("module among the globals", _global)
