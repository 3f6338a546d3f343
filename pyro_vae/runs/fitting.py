"""From a configuration to a trained run: data, programs, trainer, run directory.

This is the one room that knows all the others.  ``fit`` starts a run, ``resume`` goes on with one, ``load`` opens one.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pyro_vae import __version__
from pyro_vae.config import FitConfig
from pyro_vae.data import Dataset, Reading, from_data, load_data
from pyro_vae.data.arguments import parameters_of
from pyro_vae.data.containers import is_path
from pyro_vae.data.survey import Survey
from pyro_vae.distributed import World, join
from pyro_vae.errors import InputError
from pyro_vae.models import Model
from pyro_vae.pairs import Pair, turns
from pyro_vae.pairs.seeding import seeded
from pyro_vae.runs import placing
from pyro_vae.runs.assembly import (
    AUTO,
    NameOrProgram,
    build_pair,
    check_names,
    resolve_classifier,
    resolve_likelihood,
    resolve_reading,
    standardize,
    takes_likelihood,
)
from pyro_vae.runs.config_file import CHANGEABLE
from pyro_vae.runs.data_facts import (
    IN_MEMORY,
    DataFacts,
    check_same,
    facts_of,
    load_same_data,
    reading_again,
    reading_of,
)
from pyro_vae.runs.display import Display, choose_display, listening
from pyro_vae.runs.folder import RunFolder
from pyro_vae.runs.run import Run
from pyro_vae.runs.session import PROBED_ROWS, Session, place
from pyro_vae.runs.stopping import hinting
from pyro_vae.runs.tracking import Followed, check_trackers
from pyro_vae.trackers import Tracker

logger = logging.getLogger(__name__)

EXAMPLE_ROWS = 509  # that a guide for a program of one's own is made with
Data = Any  # a name, a path, a Dataset, or whatever ``data.containers.unpack`` takes


@turns.fitting()
def fit(
    model: NameOrProgram = "vae",
    guide: NameOrProgram = "mean_field",
    data: Data = "digits",
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    download: bool = False,
    display: Display | bool = True,
    trackers: Sequence[Tracker] = (),
    **settings: Any,
) -> Run:
    r"""Fit a guide to a model.

    Args:
        model: a name, or any Pyro program called with (x) or (x, y).
        guide: a name, or any Pyro program called the same way; a name pairs with models of this package.
        data: a name; the path of arrays (``.npz``, ``.npy``), a table (``.csv``, ``.parquet``) or a folder of images; a
            ``Dataset``; x; (x, y); a mapping with x, y and missing; a table; a data set or loader of torch; for a
            program of several arguments their arrays, as a tuple or by name.
        out: the run directory to write; None keeps the run in memory.
        overwrite: whether ``out`` may replace a run that is there.
        download: whether a data set that is not there may be fetched.
        display: shows the progress; True: a bar on a terminal and a line elsewhere, False: nothing.
        trackers: what follows the training beside the display; see ``pyro_vae.trackers``.
        **settings: the other fields of ``FitConfig``: ``labels``, ``latent_dim``, ``beta``, ``epochs``, ``seed``, …

    Raises:
        InputError: if anything asked for does not fit; nothing was written then.
        TrainingError: if the loss became a number that is not finite; the run directory holds the last good checkpoint.
        Interrupted: after Ctrl-C or SIGTERM, with the run as far as it came.

    Example:
        >>> import pyro_vae
        >>> pyro_vae.fit("vae", "full_rank", data="toy", latent_dim=2, epochs=1, batch_size=800, display=False)
        Run(vae + full_rank on toy, 1 epoch)
    """
    check_trackers(trackers)
    config = _configured(model, guide, data, settings)
    world, device = join(config.device), _device(config.device)
    folder = world.together(lambda: _place(out, overwrite, world))
    reading, strict = _reading(config, model), config.unreadable == "refuse"
    dataset = _shared(world, lambda known: _dataset(data, replace(reading, survey=known), download, strict))
    config = _resolved(config, dataset, model, guide, world)
    with seeded(config.seed):
        under_way = Session(config, dataset, _pair(config, dataset, model, guide), device, world)
        with under_way.writing():
            if folder is not None:
                under_way.create_folder(folder, overwrite)
            return _trained(under_way, choose_display(display if world.is_writer else False), trackers)


@turns.fitting()
def resume(
    path: str | Path,
    *,
    model: Callable[..., Any] | None = None,
    guide: Callable[..., Any] | None = None,
    data: Data | None = None,
    display: Display | bool = True,
    trackers: Sequence[Tracker] = (),
    **settings: Any,
) -> Run:
    """Go on with a run from its last checkpoint, to the bit as if it had never stopped.

    Args:
        path: the run directory.
        model: the program, where it was not one of this package's.
        guide: the guide program, where it was not one of this package's.
        data: the data, where they came as arrays, or lie elsewhere now.
        display: as for ``fit``.
        trackers: as for ``fit``; they are told at which epoch the run goes on.
        **settings: ``epochs``, ``patience``, ``lr``, ``clip_norm`` or ``device`` to change, which the history keeps;
            any other must be what the run has.

    Raises:
        InputError: if there is no such run, somebody else is writing it, or it was made from another model, other data
            or other settings.

    Example:
        >>> import pyro_vae
        >>> x = torch.randn(40, 3)
        >>> run = pyro_vae.fit("linear_gaussian", data=x, latent_dim=2, epochs=1, out="run", display=False)
        >>> pyro_vae.resume("run", data=x, epochs=3, display=False).history["epoch"].tolist()
        [1, 2, 3]
    """
    check_trackers(trackers)
    world = join(str(settings.get("device", AUTO)))
    folder = world.in_turn(lambda: (RunFolder.open_to_write if world.is_writer else RunFolder.open)(Path(path)))
    shown = choose_display(display if world.is_writer else False)
    try:
        return _resumed(folder, {"model": model, "guide": guide}, data, settings, shown, world, trackers)
    finally:
        folder.release()


def _resumed(
    folder: RunFolder,
    given: dict[str, Any],
    data: Data | None,
    settings: dict[str, Any],
    display: Display,
    world: World,
    trackers: Sequence[Tracker],
) -> Run:
    """Go on with a run that this process alone may write, with the programs and data that are given, if any."""
    old, path = folder.config, folder.path
    settings = settings | {name: value for name, value in given.items() if isinstance(value, str)}
    settings = {name: value for name, value in settings.items() if value != AUTO}  # what the run has, then
    config = FitConfig.from_settings(**(old.model_dump() | settings))
    _check_unchanged(config, old, path)
    training = folder.training()
    done, epochs = training["progress"]["epoch"], config.num_epochs
    if done >= epochs:
        raise InputError(f"more epochs than the {done} that {path} has", f"{epochs}", f"use --epochs {done + epochs}")
    if (stopped := training["progress"]["stopped"]) and (epochs, config.patience) == (old.num_epochs, old.patience):
        mend = f"use --patience none to train up to epoch {epochs}, or --epochs {2 * epochs} to train for longer"
        raise InputError(f"a run at {path} that has not ended", f"one that {stopped}", mend)
    device = _device(config.device)
    is_named = data is None or (is_path(data) and os.fspath(data) == old.data)
    facts = folder.facts
    dataset = _shared(
        world, lambda known: load_same_data(config, facts, known) if is_named else _same(data, config, facts, known)
    )
    _check_alike(world, config, dataset)
    model, guide = (given[name] or getattr(old, name) for name in ("model", "guide"))
    with torch.random.fork_rng():
        pair = _pair(config, dataset, model, guide)
        under_way = Session(config, dataset, pair, device, world)
        under_way.notes += _other_programs(old, given)
        under_way.go_on(folder, training)
        return _trained(under_way, display, trackers)


@turns.looking()
def load(
    path: str | Path,
    *,
    checkpoint: str = "best",
    model: Callable[..., Any] | None = None,
    guide: Callable[..., Any] | None = None,
    data: Data | None = None,
    device: str = "auto",
) -> Run:
    """Open a run directory.

    Args:
        path: the run directory.
        checkpoint: ``best``, by the validation objective, or ``last``.
        model: the program, where it was not one of this package's; its weights are put back.
        guide: the guide program, where it was not one of this package's.
        data: the data, where they came as arrays, or lie elsewhere now; read as ``fit`` read them.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        InputError: if there is no run, it is of a newer format, its checkpoint is cut off, or the data are others.

    Example:
        >>> import pyro_vae
        >>> x = torch.randn(40, 3)
        >>> run = pyro_vae.fit("linear_gaussian", data=x, latent_dim=2, epochs=1, out="run", display=False)
        >>> again = pyro_vae.load("run")
        >>> torch.equal(again.sample(5), run.sample(5))  # the same weights, and the same seed
        True
    """
    if checkpoint not in ("best", "last"):
        raise InputError("a checkpoint: best or last", repr(checkpoint), "use --checkpoint best")
    folder = RunFolder.open(Path(path))
    config, facts = folder.config, folder.facts
    dataset = None if data is None else _same(data, config, facts)
    with torch.random.fork_rng():
        programs = model or config.model, guide or config.guide
        rows = _rows_like(facts.event_shape)
        pair = build_pair(config, facts, *programs, rows)
        probed = place(pair, rows.to(_device(device)), facts.num_data[0])
    pair.load_state_dict(folder.weights(checkpoint))
    return Run(config, facts, probed, dataset=dataset, folder=folder, history=folder.history)


def _configured(model: NameOrProgram, guide: NameOrProgram, data: Data, settings: dict[str, Any]) -> FitConfig:
    """The settings of a new run, before its data are read."""
    names = {"model": _name_of(model), "guide": _name_of(guide), "data": _name_of_data(data)}
    config = FitConfig.from_settings(**names, **settings)
    check_names(config, model, guide)
    if not isinstance(model, str) and config.beta == AUTO:
        config = config.model_copy(update={"beta": 1.0})  # a program of one's own is trained as it stands
    return config


def _place(out: str | Path | None, overwrite: bool, world: World) -> Path | None:
    """Where a run shall lie, which the process that writes it has looked at."""
    place = None if out is None else placing.spelled_out(Path(out))
    if place is not None and world.is_writer:
        placing.check_free(place, overwrite)
    return place


def _reading(config: FitConfig, model: NameOrProgram) -> Reading:
    one_channel = isinstance(model, (str, Model))
    reading = reading_of(config, isinstance(model, str), takes_likelihood(model), one_channel)
    return replace(reading, parameters=() if isinstance(model, (str, Model)) else parameters_of(model))


def _resolved(
    config: FitConfig, dataset: Dataset, model: NameOrProgram, guide: NameOrProgram, world: World
) -> FitConfig:
    """The settings with what ``auto`` means for these data, which every process has found alike."""
    _check_alike(world, config, dataset)
    config = resolve_reading(config, dataset)
    return resolve_classifier(resolve_likelihood(config, dataset, model), dataset, model, guide)


def _check_alike(world: World, config: FitConfig, dataset: Dataset) -> None:
    """Refuse processes of one training that have other versions, settings or data."""
    versions = {"version of pyro_vae": __version__, "version of torch": torch.__version__}
    settings = {name.replace("_", " "): str(value) for name, value in config}
    data = {"data (their fingerprint)": facts_of(dataset).digest} if world.size > 1 else {}
    world.check_alike(versions | settings | data, "start all of them alike")


def _pair(config: FitConfig, dataset: Dataset, model: NameOrProgram, guide: NameOrProgram) -> Pair:
    pair = build_pair(config, dataset, model, guide, dataset.train[:EXAMPLE_ROWS].values())
    if config.standardize:
        standardize(pair, dataset)
    return pair


def _other_programs(config: FitConfig, given: dict[str, Any]) -> list[str]:
    """What to say of programs that have another name than those of a run: they may be others, with weights that fit."""
    names = {kind: _name_of(program) for kind, program in given.items() if program is not None}
    return [
        f"the {kind} is {name}, and the run was made with {getattr(config, kind)}: see to it that it is the same"
        for kind, name in names.items()
        if name != getattr(config, kind)
    ]


def _rows_like(event_shape: tuple[int, ...]) -> torch.Tensor:
    """Rows to look at programs with where there are no data: of 0 and 1, which nearly any program takes."""
    noise = torch.rand(PROBED_ROWS, *event_shape, generator=torch.Generator().manual_seed(0))
    return noise.round().to(torch.get_default_dtype())


def _check_unchanged(config: FitConfig, old: FitConfig, path: str | Path) -> None:
    for name, value in config:
        if name not in CHANGEABLE and value != getattr(old, name):
            raise InputError(
                f"{name} {_shown(getattr(old, name))}, as the run at {path} has it",
                _shown(value),
                f"leave out --{name.replace('_', '-')}, or start a new run without --resume",
            )


def _trained(under_way: Session, display: Display, trackers: Sequence[Tracker]) -> Run:
    """Train to the end, say what is wrong with the run and write what there is to see of it."""
    from pyro_vae.runs.report import left_out, write_report  # late: it imports matplotlib

    path = under_way.folder.path if under_way.folder else None
    run = under_way.train(Followed(display, trackers if under_way.world.is_writer else (), path))
    if not under_way.world.is_writer:
        return run
    hint = f"the training is done and saved; go on with: python cli.py evaluate {path}" if path else ""
    with hinting(hint), listening(display.say):
        with left_out("What is wrong with the run"):
            for finding in run.findings:
                display.say(f"Note: {finding}")
        if run.folder is not None:
            write_report(run)
    return run


def _device(name: str) -> torch.device:
    if name not in ("auto", "cpu", "cuda"):
        raise InputError("a device: auto, cpu or cuda", repr(name), "use --device auto")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("a CUDA device for --device cuda", "a torch that sees none", "use --device auto or cpu")
    return torch.device(name)


def _dataset(data: Data, reading: Reading, download: bool = False, strict: bool = False) -> Dataset:
    start = time.perf_counter()
    if is_path(data):
        dataset = load_data(data, download=download, strict=strict, reading=reading)
    elif reading.memory is not None:
        raise InputError("the path of a file or folder for memory", "data in memory", "leave out memory")
    else:
        dataset = data.with_holes() if isinstance(data, Dataset) else from_data(data, IN_MEMORY, reading)
    seconds = time.perf_counter() - start
    logger.debug(f"read {dataset.name}: rows of shape {tuple(dataset.event_shape)}, in {seconds:.2f} s")
    return dataset


def _shared(world: World, read: Callable[[Survey | None], Dataset]) -> Dataset:
    """The data in every process; what the first one found in a file that is mapped the others need not look for."""
    first = world.together(lambda: read(None) if world.is_writer else None)
    found = world.gather(None if first is None else first.train.surveyed)[0]
    return world.together(lambda: read(found) if first is None else first)


def _same(data: Data, config: FitConfig, facts: DataFacts, known: Survey | None = None) -> Dataset:
    """Data that are given anew, read as the run's were, and known again."""
    dataset = _dataset(data, replace(reading_again(config, facts), survey=known))
    check_same(dataset, facts)
    return dataset


def _name_of_data(data: Data) -> str:
    return os.fspath(data) if is_path(data) else IN_MEMORY


def _name_of(program: NameOrProgram) -> str:
    if isinstance(program, str):
        return program
    kind = program if hasattr(program, "__qualname__") else type(program)
    return f"{kind.__module__}.{kind.__qualname__}"


def _shown(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else repr(value)
