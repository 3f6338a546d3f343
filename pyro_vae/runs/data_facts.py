"""What a run remembers of its data, to rebuild its programs and to know the same data again."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from typing import Any

from pyro_vae.columns import Column
from pyro_vae.config import FitConfig
from pyro_vae.data.arguments import TYPES, Argument, parameters_in
from pyro_vae.data.array_files import SUFFIXES
from pyro_vae.data.images import CHUNK, Dataset
from pyro_vae.data.pixels import Reading
from pyro_vae.data.sources import load_data
from pyro_vae.data.survey import Survey
from pyro_vae.errors import InputError
from pyro_vae.figures.pictures import is_picture
from pyro_vae.registry import parse_choice

MAX_NUMBERS = 1 << 40
IN_MEMORY = "arrays"  # the name of data that came as such


@dataclass(frozen=True)
class DataFacts:
    """What a data set looks like.

    Args:
        event_shape: the shape of one datum.
        class_names: the classes, empty where there are none.
        num_data: rows of train, validation and test.
        scale: the value of a whole-number pixel that means 1.
        split: one line that says where the splits come from.
        digest: a fingerprint of all pixels and labels.
        low: the smallest value that the programs see; None where it is not known, as of older runs.
        high: the largest.
        channels_last: whether the channels of the arrays were last.
        has_missing: whether any value is missing.
        kind: what the pixels are, as ``Dataset`` has it; empty where it is not known.
        columns: what the columns of a table are, as ``Dataset`` has them.
        arguments: what a program is called with, as ``Dataset`` has them.
    """

    event_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    num_data: tuple[int, int, int]
    scale: float
    split: str
    digest: str
    low: float | None = None
    high: float | None = None
    channels_last: bool = False
    has_missing: bool = False
    kind: str = ""
    columns: tuple[Column, ...] = ()
    arguments: tuple[Argument, ...] = ()

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> DataFacts:
        """The facts that ``dataclasses.asdict`` made a dictionary of, and JSON may have been in between.

        Raises:
            ValueError, KeyError, TypeError: if something is missing, or of another type.
        """
        lists: dict[str, tuple[Any, ...]] = {
            name: tuple(content[name]) for name in ("event_shape", "class_names", "num_data")
        }
        lists["columns"] = tuple(map(_column, content.get("columns", ())))
        lists["arguments"] = tuple(map(_argument, content.get("arguments", ())))
        facts = cls(**(content | lists))  # which refuses names that are missing, or that nobody knows
        sizes = (*facts.event_shape, *facts.num_data)
        texts = (facts.split, facts.digest, *facts.class_names)
        if not (
            all(type(size) is int and 0 <= size < MAX_NUMBERS for size in sizes)
            and 0 < math.prod(facts.event_shape) < MAX_NUMBERS
            and len(facts.num_data) == 3
            and all(isinstance(text, str) for text in texts)
            and isinstance(facts.scale, int | float)
            and 0 < facts.scale < math.inf
            and all(isinstance(bound, int | float | None) for bound in (facts.low, facts.high))
            and (not facts.columns or facts.event_shape == (len(facts.columns),))
            and (not facts.arguments or facts.event_shape == (sum(each.size for each in facts.arguments),))
        ):
            raise ValueError("the data are not described as fit does it")
        return facts

    @property
    def num_classes(self) -> int | None:
        """The number of classes, or None where there are no labels."""
        return len(self.class_names) or None

    @property
    def are_pictures(self) -> bool:
        """Whether the data can be drawn: images, or vectors that may be, but no rows of a table."""
        return is_picture(self.event_shape) and not self.columns


def _column(content: dict[str, Any]) -> Column:
    column = Column(**(content | {"categories": tuple(content["categories"])}))
    if not (
        all(isinstance(text, str) for text in (column.name, column.likelihood, column.kind))
        and all(isinstance(number, int | float) for number in (column.location, column.spread))
        and 0 < column.spread < math.inf
        and all(isinstance(category, str | int | float) for category in column.categories)
    ):
        raise ValueError("a column is not described as fit does it")
    return column


def _argument(content: dict[str, Any]) -> Argument:
    argument = Argument(**(content | {"shape": tuple(content["shape"])}))
    sizes_fit = all(type(size) is int and 0 <= size < MAX_NUMBERS for size in argument.shape)
    if not (isinstance(argument.name, str) and sizes_fit and argument.dtype in TYPES):
        raise ValueError("an argument is not described as fit does it")
    return argument


def reading_of(
    config: FitConfig, pictures: bool = True, takes_likelihood: bool = True, one_channel: bool = True
) -> Reading:
    """How a configuration has arrays read.

    Args:
        config: the configuration.
        pictures: whether anything but bytes is a picture, as ``Reading`` has it.
        takes_likelihood: whether a likelihood can be chosen for the model.
        one_channel: whether rows of shape (H, W) are given their one channel.
    """
    return Reading(
        None if config.scale == "auto" else config.scale,
        config.channels,
        config.label_column,
        config.missing,
        pictures,
        parse_choice(config.likelihood)[0] if takes_likelihood else "none",
        config.columns,
        config.covariates,
        one_channel=one_channel,
        memory=config.memory_bytes,
    )


def reading_again(config: FitConfig, facts: DataFacts) -> Reading:
    """How the data of a run are read again, by what is known of their columns and their shape."""
    reading = replace(reading_of(config), known=facts.columns, likelihood=_chosen(config, facts))
    reading = replace(reading, parameters=parameters_in(facts.arguments))
    if len(facts.event_shape) in (1, 3):
        return reading
    return replace(reading, channels="auto", one_channel=False)  # of a shape that no picture has


def _chosen(config: FitConfig, facts: DataFacts) -> str:
    """The likelihood by which a table was read, of runs too that chose none."""
    return parse_choice(config.likelihood)[0] if facts.columns or config.likelihood != "auto" else "none"


def facts_of(dataset: Dataset) -> DataFacts:
    """The facts of a data set."""
    digest = dataset.train.digested()
    for images in dataset.splits:
        if images is not dataset.train:
            for chunk in images.chunks(CHUNK):
                digest.update(chunk.pixels.cpu().contiguous().numpy().data)
        for tensor in (images.labels, images.missing):
            if tensor is not None:
                digest.update(tensor.cpu().contiguous().numpy().data)
    low, high = dataset.train.extent()
    sizes = (len(dataset.train), len(dataset.validation), len(dataset.test))
    scale = dataset.train.scale
    return DataFacts(
        dataset.event_shape,
        dataset.class_names,
        sizes,
        scale,
        dataset.split,
        digest.hexdigest(),
        low=low / scale,
        high=high / scale,
        channels_last=dataset.channels_last,
        has_missing=dataset.has_missing,
        kind=dataset.kind,
        columns=dataset.columns,
        arguments=dataset.arguments,
    )


def check_same(dataset: Dataset, facts: DataFacts) -> None:
    """Refuse data that are not those of a run.

    Raises:
        InputError: if they differ in a single pixel or label.
    """
    now = facts_of(dataset)
    if now.digest != facts.digest:
        raise InputError(
            f"the data that the run was fitted on, {facts.num_data} rows of shape {facts.event_shape}",
            f"other data under that name, {now.num_data} rows of shape {now.event_shape}",
            "put the old data back, or start a new run",
        )


def load_same_data(config: FitConfig, facts: DataFacts, known: Survey | None = None) -> Dataset:
    """Load the data of a run again.

    Args:
        config: the configuration of the run.
        facts: what its data looked like.
        known: what another process has found in a file that is mapped.

    Raises:
        InputError: if they are gone, or are others now.
    """
    if config.data == IN_MEMORY:
        raise InputError(
            "the data of the run, which was fitted on arrays",
            "none",
            "open it with pyro_vae.load(path, data=…), or pyro_vae.resume(path, data=…) to go on, or save them to a "
            "file and use --data FILE",
        )
    _check_is_seen(config.data)
    dataset = load_data(config.data, reading=replace(reading_again(config, facts), survey=known))
    check_same(dataset, facts)
    return dataset


def _check_is_seen(name: str) -> None:
    """Refuse a relative path that leads nowhere from here, as it may from where the run was started."""
    is_path = os.sep in name or os.path.splitext(name)[1].lower() in (*SUFFIXES, ".zarr")
    if is_path and not os.path.isabs(os.path.expanduser(name)) and not os.path.exists(name.partition(":")[0]):
        raise InputError(
            f"the data of the run at {name}, seen from the folder that it was started in",
            f"nothing there, seen from {os.getcwd()}",
            "go to that folder, or use --data PATH (in Python data=…)",
        )
