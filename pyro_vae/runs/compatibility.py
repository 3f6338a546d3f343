"""Which parts go together, found out by putting every two of them together on a few small images."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from pyro_vae.config import FitConfig
from pyro_vae.errors import InputError
from pyro_vae.guides import GUIDES
from pyro_vae.models import MODELS
from pyro_vae.objectives import OBJECTIVES
from pyro_vae.pairs import Pair
from pyro_vae.priors import PRIORS
from pyro_vae.runs.assembly import AUTO, OfShape, build_pair

Reasons = dict[str, dict[str, str]]  # by row and column: why not, or empty
IMAGES = OfShape((1, 8, 8), num_classes=3)


def build(model: str, guide: str = "mean_field", prior: str = AUTO) -> Pair:
    """A small pair of registered programs.

    Raises:
        InputError: if they do not go together.
    """
    if prior != AUTO and not MODELS.takes(model, "prior"):
        raise InputError("a model that takes a prior", "one that has its own", "leave out --prior")
    config = FitConfig.from_settings(model=model, guide=guide, prior=prior, latent_dim=2, classifier="mlp", hidden=(8,))
    return build_pair(config, IMAGES, model, guide)


def with_models() -> dict[str, Reasons]:
    """Guides, priors and objectives, each against every model."""
    return {
        "guides": _matrix(GUIDES, MODELS, lambda guide, model: _try(build(model, guide))),
        "priors": _matrix(PRIORS, MODELS, lambda prior, model: _try(build(model, prior=prior))),
        "objectives": _matrix(OBJECTIVES, MODELS, lambda objective, model: _try(build(model), objective)),
    }


def with_guides() -> dict[str, Reasons]:
    """Priors and objectives, each against every guide of the model ``vae``."""
    return {
        "priors": _matrix(PRIORS, GUIDES, lambda prior, guide: _try(build("vae", guide, prior))),
        "objectives": _matrix(OBJECTIVES, GUIDES, lambda objective, guide: _try(build("vae", guide), objective)),
    }


def _try(pair: Pair, objective: str = "elbo") -> None:
    with torch.random.fork_rng():
        OBJECTIVES.build(objective, probed=pair.probe(torch.zeros(2, *IMAGES.event_shape)))


def _matrix(rows: Iterable[str], columns: Iterable[str], attempt: Callable[[str, str], None]) -> Reasons:
    found: Reasons = {}
    for row in rows:
        found[row] = {}
        for column in columns:
            try:
                attempt(row, column)
            except InputError as error:
                found[row][column] = str(error)
            else:
                found[row][column] = ""
    return found
