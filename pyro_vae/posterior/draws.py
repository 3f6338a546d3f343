"""Draws from a guide with their weights, side by side for each datum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_vae.shapes import Float, Shaped

SITE = "enumerated."  # before the names of enumerated sites


@dataclass(frozen=True)
class PosteriorDraws:
    """Draws from a guide, S for each of N data.

    Args:
        u: the unconstrained latents, shape (S, N, D); where labels are enumerated, those of one drawn from q(e | x).
        log_weight: log p(x, z, e) - log q(z, e | x) of the draws, shape (S, N).
        log_evidence_weight: the same with the labels summed out exactly, shape (S, N): the mean of its exponential
            estimates p(x).
        enumerated: the drawn values of the enumerated sites, shape (S, N, *event_shape).
    """

    u: Float[Tensor, "S N D"]
    log_weight: Float[Tensor, "S N"]
    log_evidence_weight: Float[Tensor, "S N"]
    enumerated: dict[str, Shaped[Tensor, "S N *_"]]

    @classmethod
    def together(cls, parts: Sequence[PosteriorDraws]) -> PosteriorDraws:
        """Several sets of draws as one."""
        return cls(
            torch.cat([part.u for part in parts]),
            torch.cat([part.log_weight for part in parts]),
            torch.cat([part.log_evidence_weight for part in parts]),
            {name: torch.cat([part.enumerated[name] for part in parts]) for name in parts[0].enumerated},
        )

    @classmethod
    def from_named(cls, named: dict[str, Tensor]) -> PosteriorDraws:
        """The draws of which ``named`` gave the tensors."""
        fields = {name: value for name, value in named.items() if not name.startswith(SITE)}
        return cls(**fields, enumerated={name[len(SITE) :]: named[name] for name in named if name.startswith(SITE)})

    def named(self) -> dict[str, Tensor]:
        """All tensors by name, for a recording."""
        sites = {SITE + name: value for name, value in self.enumerated.items()}
        fields = {"u": self.u, "log_weight": self.log_weight, "log_evidence_weight": self.log_evidence_weight}
        return fields | sites

    def unflattened(self, num_samples: int) -> PosteriorDraws:
        """One draw for each of S N rows, those of the first draw first, as S draws for each of N."""
        return PosteriorDraws(
            self.u.reshape(num_samples, -1, self.u.shape[-1]),
            self.log_weight.reshape(num_samples, -1),
            self.log_evidence_weight.reshape(num_samples, -1),
            {name: value.reshape(num_samples, -1, *value.shape[2:]) for name, value in self.enumerated.items()},
        )
