"""What a kind of program is: programs, data, and the exact answers to what a run can be asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pyro_vae import Run

Program = Callable[..., Any]
Of = Callable[[Tensor], Tensor]
NUM_ROWS = 300


def trained(name: str, optimum: float | Tensor = 0.0) -> Callable[[Run], float]:
    """How far a parameter, unconstrained, was from its optimum when training ended; the best epoch may be another."""

    def distance(run: Run) -> float:
        iterates, names = run.iterates
        places = [i for i, entry in enumerate(names) if entry.rsplit("[", 1)[0] in (name, f"param.{name}")]
        return float((iterates[-1, places] - torch.as_tensor(optimum)).abs().max())

    return distance


@dataclass(frozen=True)
class Answers:
    """The exact answers, where there are any.

    Args:
        x: the data, shape (N, D).
        nll: minus the log-likelihood of each row, nats, shape (N,).
        mean: the posterior mean of a latent of each row, shape (N, K).
        reconstruction: the mean of x given the posterior of its latents, shape (N, D).
        data: the mean and the standard deviation of x under the model, shape (D,) each.
        shared: the posterior mean and standard deviation of what all rows share, given the training rows, by site.
        fit: how far training is from where it should end.
        tolerance: of all of them, beside the noise of what is averaged over draws.
    """

    x: Tensor
    nll: Of
    mean: Of | None = None
    reconstruction: Of | None = None
    data: tuple[Tensor, Tensor] | None = None
    shared: Callable[[Tensor], dict[str, tuple[Tensor, Tensor]]] | None = None
    fit: Callable[[Run], float] = field(default_factory=lambda: trained("shift"))
    tolerance: float = 0.05


@dataclass(frozen=True)
class Kind:
    """A kind of program.

    Args:
        name: what it is, in a few words.
        programs: makes the model and the guide anew; a guide may be a name.
        answers: the exact answers.
        site: the latent site of ``mean``.
        settings: further settings of ``fit``.
        refused: by operation, words of the one line that refuses it.
        exact: whether the guide is the exact posterior once it is trained.
        float64: whether doubles are torch's default dtype.
    """

    name: str
    programs: Callable[[], tuple[Program, Program | str]]
    answers: Callable[[], Answers]
    site: str | None = "z"
    settings: dict[str, Any] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    exact: bool = True
    float64: bool = False


KINDS: dict[str, Kind] = {}


def register(kind: Kind) -> Kind:
    """Enter a kind among the others."""
    assert kind.name not in KINDS
    KINDS[kind.name] = kind
    return kind
