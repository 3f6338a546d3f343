"""From names to parts: the programs of a configuration, and what ``auto`` means for given data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro.distributions import constraints

from pyro_vae.config import DataConfig, FitConfig, ProgramConfig
from pyro_vae.data import Binarization
from pyro_vae.errors import InputError
from pyro_vae.guides import GUIDES
from pyro_vae.inference import OBJECTIVES, Pair, Structure, parse_schedule
from pyro_vae.likelihoods import LIKELIHOODS
from pyro_vae.models import MODELS, Model
from pyro_vae.networks import NETWORKS
from pyro_vae.priors import PRIORS

CLASSIFIER_DROPOUT = 0.3
Program = str | Callable[..., Any]


def check_names(config: FitConfig, model: Program = "", guide: Program = "") -> None:
    """Look every name up, so that a typing error is said before anything is loaded.

    Raises:
        InputError: if a name is unknown.
    """
    if isinstance(model, str):
        _ = MODELS[config.model], PRIORS[config.prior], LIKELIHOODS[config.likelihood], NETWORKS[config.network]
    if isinstance(guide, str):
        _ = GUIDES[config.guide]
    if config.classifier != "auto":
        _ = NETWORKS[config.classifier]
    _ = OBJECTIVES[config.objective]
    parse_schedule(config.beta)


def build_pair(
    config: ProgramConfig, event_shape: tuple[int, ...], num_classes: int | None, model: Program, guide: Program
) -> Pair:
    """The programs of a configuration, for data of this shape; programs that are given as such are taken as they are.

    Raises:
        InputError: if a part is unknown or lacks something, or a guide by name meets a model of unknown structure.
    """
    for role, program, known in (("model", model, MODELS), ("guide", guide, GUIDES)):
        if isinstance(program, str) and "." in program and program not in known:
            raise InputError(
                f"the {role} {program} itself, for a run that was fitted with a program of your own",
                "its name alone",
                f"pass it from Python, as {role}=…, to load or resume",
            )
    if isinstance(model, str):
        network = NETWORKS.build(config.network, hidden=config.hidden)
        model = MODELS.build(
            model,
            event_shape=event_shape,
            num_classes=num_classes,
            latent_dim=config.latent_dim,
            prior=PRIORS.build(config.prior, latent_dim=config.latent_dim),
            likelihood=LIKELIHOODS.build(config.likelihood, event_shape=event_shape),
            network=network,
        )
    if isinstance(guide, str):
        if not isinstance(model, Model):
            raise InputError(
                "a guide program for a model program",
                f"the name {guide!r}",
                "pass the guide as a callable, or make the model a pyro_vae.models.Model",
            )
        network = NETWORKS.build(config.network, hidden=config.hidden)
        name = ("conv" if _are_images(event_shape) else "mlp") if config.classifier == "auto" else config.classifier
        classifier = NETWORKS.build(name, hidden=config.hidden, dropout=CLASSIFIER_DROPOUT)
        guide = GUIDES.build(guide, model=model, network=network, classifier=classifier)
    return Pair(model, guide)


def resolve_binarization(config: DataConfig, structure: Structure) -> Binarization:
    """``auto`` as the likelihood wants it: dynamic where x is 0 or 1, none for any other."""
    if config.binarization == "auto":
        return "dynamic" if structure.support is constraints.boolean else "none"
    return config.binarization


def resolve_augmentation(config: DataConfig, event_shape: tuple[int, ...]) -> str:
    """``auto`` as the data allow it: affine for images, none for vectors.

    Raises:
        InputError: if vectors are to be turned and moved.
    """
    if config.augmentation == "auto":
        return "affine" if _are_images(event_shape) else "none"
    if config.augmentation == "affine" and not _are_images(event_shape):
        raise InputError(
            "images of shape (C, H, W) for --augmentation affine", f"shape {event_shape}", "use --augmentation none"
        )
    return config.augmentation


def _are_images(event_shape: tuple[int, ...]) -> bool:
    return len(event_shape) == 3
