"""From names to parts: the programs of a configuration, and what ``auto`` means for given data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from pyro.distributions import constraints
from pyro.infer.autoguide import AutoGuide
from torch import Tensor

from pyro_vae.columns import MOST_CATEGORIES, Column
from pyro_vae.config import DataConfig, FitConfig, ProgramConfig, TrainingConfig
from pyro_vae.data import AUGMENTATIONS, Augment, Binarization, Dataset, PixelKind, fitting_likelihood
from pyro_vae.data.arguments import Argument, OfColumns
from pyro_vae.errors import InputError
from pyro_vae.guides import GUIDES, amortize
from pyro_vae.likelihoods import LIKELIHOODS, Mixed, Standardized
from pyro_vae.models import MODELS, Model
from pyro_vae.networks import NETWORKS, Network
from pyro_vae.objectives import OBJECTIVES
from pyro_vae.option_types import shown
from pyro_vae.pairs import Pair, Structure
from pyro_vae.pairs.declarations import looking
from pyro_vae.pairs.probing import run_program
from pyro_vae.priors import PRIORS, follow
from pyro_vae.registry import Registry, parse_choice
from pyro_vae.training import OPTIMIZERS, RESAMPLINGS, Resampling, parse_schedule

AUTO = "auto"
NO_CHANGE = "none"
CLASSIFIER_DROPOUT = 0.3
CLASSIFIERS = {"small": "conv:pool=2", "images": "conv", "vectors": "mlp"}
ROWS_AT_ONCE = 1000
SMALL_IMAGE = 8  # pixels on a side up to which the network conv halves nothing
NameOrProgram = str | Callable[..., Any]


def check_names(config: FitConfig, model: NameOrProgram = "", guide: NameOrProgram = "") -> None:
    """Look every part up, so that a typing error is said before anything is loaded.

    Raises:
        InputError: if a name or an option is unknown, or a part is chosen that another part has no use for.
    """
    NETWORKS.check(config.network)
    programs: dict[str, Any] = {"model": model, "guide": guide}
    for role, program in programs.items():
        _check_program(role, program)
    if isinstance(model, str):
        _check_is_not_own("model", model, MODELS)
        MODELS.check(model)
    _check_columns(config, model)
    if isinstance(model, str):
        parts: tuple[tuple[str, Registry[Any]], ...] = (("prior", PRIORS), ("likelihood", LIKELIHOODS))
        for kind, registry in parts:
            choice = getattr(config, kind)
            if choice != AUTO:
                registry.check(choice)
                _check_taken(MODELS.takes(model, kind), kind, choice, f"the model {model!r}, which has its own")
    if isinstance(guide, str):
        _check_is_not_own("guide", guide, GUIDES)
        GUIDES.check(guide)
    if config.classifier != AUTO:
        NETWORKS.check(config.classifier)
    if config.hidden is not None:
        takes = NETWORKS.takes(config.network, "hidden")
        _check_taken(takes, "hidden", shown(config.hidden), f"the network {config.network!r}, which has none")
    _check_standardizable(config, model)
    OBJECTIVES.check(config.objective)
    OPTIMIZERS.check(config.optimizer)
    if config.augmentation != AUTO:
        AUGMENTATIONS.check(config.augmentation)
    if config.resampling != AUTO:
        RESAMPLINGS.check(config.resampling)
    if config.beta != AUTO:
        parse_schedule(config.beta)


def _check_program(role: str, program: Any) -> None:
    """Refuse what is neither a name nor a program, such as the class of one."""
    got, mend = repr(program), 'use "vae", for example'
    if isinstance(program, type):
        made = f"{program.__name__}({'model' if issubclass(program, AutoGuide) else '…'})"
        got, mend = f"the class {program.__name__}", f"make one: {role}={made}"
    elif isinstance(program, torch.nn.Module) and _has_no_forward(program):
        own = f"{role}=vae.{role}, where vae is that module" if hasattr(program, role) else "write its forward"
        got, mend = f"a {type(program).__name__} without forward", own
    elif isinstance(program, str) or callable(program):
        return
    elif role == "guide":
        mend = "leave it out for one by name, or write lambda x: None where nothing is to be sampled"
    raise InputError(f"a {role} by name, or a program that can be called", got, mend)


def _has_no_forward(module: torch.nn.Module) -> bool:
    return getattr(module.forward, "__func__", None) is torch.nn.Module.forward


def _check_standardizable(config: FitConfig, model: NameOrProgram) -> None:
    """Look at what is to be standardized."""
    if not config.standardize:
        return
    if not takes_likelihood(model):
        raise InputError(
            "a model by name whose likelihood can be chosen, for --standardize",
            repr(model) if isinstance(model, str) else "a program of your own, which is handed x as it is",
            "standardize x before fit, or use --model vae",
        )
    if config.binarization not in (AUTO, "none"):
        raise InputError(
            "numbers for --standardize", f"--binarization {config.binarization}", "leave out one of the two"
        )


def standardize(pair: Pair, dataset: Dataset) -> None:
    """Take means and standard deviations of the training rows, where a likelihood of the model has them.

    Raises:
        InputError: if a column or pixel has no value in any of them.
    """
    count = sum(not column.is_covariate for column in dataset.columns)
    for part in pair.all_modules().values():
        for module in part.modules():
            if isinstance(module, Standardized):
                rows = (chunk.values() for chunk in dataset.train.chunks(ROWS_AT_ONCE))
                module.learn(values[:, :count] if count else values for values in rows)


def _check_columns(config: FitConfig, model: NameOrProgram) -> None:
    """Look at what is said about columns of a table."""
    asked = "covariates" if config.covariates else "columns"
    if (config.covariates or config.columns) and not takes_likelihood(model):
        raise InputError(
            f"a model by name whose likelihood can be chosen, for {asked}",
            repr(model) if isinstance(model, str) else "a program of your own, which is handed all of x",
            f"leave out {asked}, or use --model vae",
        )
    if config.covariates:
        assert isinstance(model, str)
        taken = MODELS.takes(model, "covariates")
        _check_taken(taken, "covariates", ",".join(config.covariates), f"the model {model!r}, which takes none")
    for column, choice in config.columns.items():
        if choice == "drop":
            continue
        name, _ = LIKELIHOODS.check(choice)
        if name == "mixed" or parse_choice(config.likelihood)[0] != "mixed":
            raise InputError(
                f"the likelihood mixed, whose columns have others, for the column {column!r}",
                f"--likelihood {config.likelihood}, and {choice} for the column",
                "use --likelihood mixed, and for columns another than mixed",
            )


class Described(Protocol):
    """What programs have to know of data: a data set, or what a run remembers of one."""

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of a datum."""

    @property
    def num_classes(self) -> int | None:
        """The number of classes; None where there are no labels."""

    @property
    def has_missing(self) -> bool:
        """Whether values may be missing."""

    @property
    def columns(self) -> Sequence[Column]:
        """What the columns of a table are; none of other data."""

    @property
    def arguments(self) -> Sequence[Argument]:
        """What a program is called with, where that is several arrays."""


@dataclass(frozen=True)
class OfShape:
    """Data of which the shape and the classes are known alone."""

    event_shape: tuple[int, ...]
    num_classes: int | None = None
    has_missing: bool = False
    columns: tuple[Column, ...] = ()
    arguments: tuple[Argument, ...] = ()


def build_pair(
    config: ProgramConfig, data: Described, model: NameOrProgram, guide: NameOrProgram, rows: Tensor | None = None
) -> Pair:
    r"""The programs of a configuration for some data; programs that are given as such are taken as they are.

    Args:
        config: what is chosen by name.
        data: what they are for.
        model: a name, or a program.
        guide: a name, or a program.
        rows: some data, shape (N, \*event_shape), which a guide by name for a program of one's own is made with.

    Raises:
        InputError: if a part is unknown or lacks something, or there is no guide by name for a model.
    """
    network = NETWORKS.build(config.network, hidden=config.hidden)
    if data.arguments:
        model, guide = (_of_columns(program, data.arguments) for program in (model, guide))
    if isinstance(model, str):
        model = _named_model(config, data, model, network)
    if data.has_missing and isinstance(model, Model):
        model.mask_missing()
    if isinstance(guide, str):
        guide = _named_guide(config, data, guide, model, network, rows)
    return Pair(model, guide)


def _of_columns(program: NameOrProgram, arguments: Sequence[Argument]) -> NameOrProgram:
    return program if isinstance(program, str) else OfColumns(program, arguments)


def _named_model(config: ProgramConfig, data: Described, name: str, network: Network) -> Model:
    _check_is_not_own("model", name, MODELS)
    own = [column for column in data.columns if not column.is_covariate]
    observed = (len(own),) if data.columns else data.event_shape
    prior, likelihood = config.prior, None
    if config.likelihood != AUTO:
        likelihood = LIKELIHOODS.build(config.likelihood, event_shape=observed, columns=own or None)
        if config.standardize and not isinstance(likelihood, Mixed):  # whose columns are standardized inside
            likelihood = Standardized(likelihood)
    return MODELS.build(
        name,
        event_shape=data.event_shape,
        num_classes=data.num_classes,
        latent_dim=config.latent_dim,
        prior=None if prior == AUTO else PRIORS.build(prior, latent_dim=config.latent_dim),
        likelihood=likelihood,
        covariates=[column for column in data.columns if column.is_covariate] or None,
        network=network,
    )


def _named_guide(
    config: ProgramConfig,
    data: Described,
    name: str,
    model: Callable[..., Any],
    network: Network,
    rows: Tensor | None,
) -> torch.nn.Module:
    _check_is_not_own("guide", name, GUIDES)
    choice = config.classifier
    if choice == AUTO:  # of runs that were written before auto was resolved
        choice = CLASSIFIERS["images" if _are_images(data.event_shape) else "vectors"]
    classifier = NETWORKS.build(choice, hidden=config.hidden, dropout=CLASSIFIER_DROPOUT)
    if isinstance(model, Model):
        guide = GUIDES.build(name, model=model, network=network, classifier=classifier)
        follow(model, guide)
        return guide
    example = torch.zeros(2, *data.event_shape) if rows is None else rows
    if data.has_missing:  # whether or not there are any among these rows
        example = torch.cat([example, torch.full_like(example[:1], torch.nan)])
    with looking(model):
        run_program("model", model, (example,))  # whose mistakes are said as such
    return amortize(model, name, example, rows_first=True, network=network, classifier=classifier)


def _check_is_not_own(role: str, name: str, known: Registry[Any]) -> None:
    """Runs of programs that came as such remember them by module and name only."""
    if "." in parse_choice(name)[0] and name not in known:
        raise InputError(
            f"the {role} {name} itself, a program of your own",
            "its name alone",
            f"pass it from Python, as {role}=…, to load or resume",
        )


def _check_taken(taken: bool, flag: str, choice: str, got: str) -> None:
    if not taken:
        raise InputError(f"something that takes a {flag}, for --{flag} {choice}", got, f"leave out --{flag}")


def resolve_resampling(config: TrainingConfig, pair: Pair) -> Resampling:
    """``auto`` as the model wants it; a program of the user's own wants ``uniform``."""
    wanted = getattr(pair.model, "resampling", "uniform")
    return RESAMPLINGS.build(wanted if config.resampling == AUTO else config.resampling)


def takes_likelihood(model: NameOrProgram) -> bool:
    """Whether a likelihood can be chosen for a model: those by name but for the few that have their own."""
    return isinstance(model, str) and MODELS.takes(model, "likelihood")


def resolve_likelihood(config: FitConfig, dataset: Dataset, model: NameOrProgram) -> FitConfig:
    """``auto`` as the data want it, for a model that takes a likelihood, and categories as many as there are.

    Raises:
        InputError: if there are too many.
    """
    likelihood = config.likelihood
    if likelihood == AUTO and takes_likelihood(model):
        likelihood = fitting_likelihood(dataset)
    if likelihood == "categorical":
        largest = max(part.extent()[1] for part in dataset.splits) / dataset.train.scale
        if not largest < MOST_CATEGORIES:
            raise InputError(
                f"codes of at most {MOST_CATEGORIES:,} categories, 0, 1, 2, …, in {dataset.name}",
                f"{largest:g}",
                "number the categories from 0, or use another --likelihood",
            )
        likelihood = f"categorical:values={max(2, int(largest) + 1)}"
    if config.standardize and likelihood == "mixed" and not any(_is_real(column) for column in dataset.columns):
        raise InputError(
            f"a column of real numbers in {dataset.name}, for --standardize", "none", "leave out --standardize"
        )
    return config.model_copy(update={"likelihood": likelihood})


def _is_real(column: Column) -> bool:
    return not column.is_covariate and parse_choice(column.likelihood)[0] in ("gaussian", "laplace")


def resolve_reading(config: FitConfig, dataset: Dataset) -> FitConfig:
    """``auto`` as arrays were read, so that they are read alike when the run is opened; others leave it as it is.

    Raises:
        InputError: if values are missing and that is refused, or a way to read arrays is asked for without arrays.
    """
    if dataset.has_missing and config.missing == "refuse":
        raise InputError(
            f"every value of {dataset.name}", "some that are missing (NaN)", "use --missing mask, or fill them"
        )
    if (config.covariates or config.columns) and not dataset.columns:
        flag = "--covariates" if config.covariates else "--columns"
        raise InputError(f"a table, whose columns have names, for {flag}", dataset.name, f"leave out {flag}")
    if not dataset.has_missing:  # programs need not look for any
        config = config.model_copy(update={"missing": "refuse"})
    if not dataset.reading:
        asked = [name for name in ("scale", "channels", "label_column") if getattr(config, name) != AUTO]
        if asked:
            flag = f"--{asked[0].replace('_', '-')}"
            raise InputError(
                f"arrays, a file or a table for {flag}", f"{dataset.name}, which says it itself", f"leave out {flag}"
            )
        return config
    channels = "last" if dataset.channels_last else "first"
    return config.model_copy(update={"scale": dataset.train.scale, "channels": channels})


def resolve_classifier(config: FitConfig, dataset: Dataset, model: NameOrProgram, guide: NameOrProgram) -> FitConfig:
    """``auto`` as the shape of the data wants it, for a guide by name and a model that may have a label site.

    The maximum of 2 by 2 entries of a map is the same for an image and a slightly moved one: on the digits a fifth
    fewer mistakes, in less time.  Where strides have halved the maps it loses too much (MNIST: twice the mistakes).
    """
    has_label = not isinstance(model, str) or MODELS.takes(model, "num_classes")
    if config.classifier != AUTO or not isinstance(guide, str) or not has_label:
        return config
    kind = "vectors"
    if _are_images(dataset.event_shape):
        kind = "small" if max(dataset.event_shape[1:]) <= SMALL_IMAGE else "images"
    return config.model_copy(update={"classifier": CLASSIFIERS[kind]})


def resolve_binarization(config: DataConfig, structure: Structure, kind: PixelKind = "intensities") -> Binarization:
    """``auto`` as the likelihood wants it: dynamic where x is to be 0 or 1 and is not yet, none for any other."""
    if config.binarization == "auto":
        return "dynamic" if _is_of_bits(structure) and kind != "binary" else "none"
    return config.binarization


def _is_of_bits(structure: Structure) -> bool:
    """Whether x itself is to be 0 or 1, and not what a program computes of it."""
    return structure.support is constraints.boolean and not structure.units


def resolve_augmentation(config: DataConfig, event_shape: tuple[int, ...]) -> Augment | None:
    """How images are changed; None for not at all.  ``auto`` is affine for images, and none for vectors.

    Raises:
        InputError: if vectors are to be turned and moved.
    """
    choice = config.augmentation
    if choice == AUTO:
        choice = "affine" if _are_images(event_shape) else NO_CHANGE
    if choice != NO_CHANGE and not _are_images(event_shape):
        raise InputError(
            f"images of shape (C, H, W) for --augmentation {choice}", f"shape {event_shape}", "use --augmentation none"
        )
    return None if choice == NO_CHANGE else AUGMENTATIONS.build(choice)


def _are_images(event_shape: tuple[int, ...]) -> bool:
    return len(event_shape) == 3
