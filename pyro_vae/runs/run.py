"""A fitted run: its programs, its history, and what can be asked of them."""

from __future__ import annotations

import time
import warnings
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from pyro_vae import diagnostics
from pyro_vae.config import FitConfig
from pyro_vae.data import Binarization, Dataset, Images, binarize_once
from pyro_vae.diagnostics.evaluation import default_samples
from pyro_vae.diagnostics.findings import Finding, judge_classifier, judge_curve, judge_latents
from pyro_vae.diagnostics.latent_units import latent_use
from pyro_vae.distributed import ALONE, World
from pyro_vae.errors import InputError
from pyro_vae.pairs import turns
from pyro_vae.pairs.pair import ProbedPair
from pyro_vae.runs.assembly import resolve_binarization
from pyro_vae.runs.data_facts import DataFacts, load_same_data
from pyro_vae.runs.folder import RunFolder
from pyro_vae.runs.generator import Generator
from pyro_vae.runs.inputs import read_count, read_seed
from pyro_vae.training.schedules import parse_schedule
from pyro_vae.training.validation_rows import keeps_last, score

if TYPE_CHECKING:
    import xarray as xr

    from pyro_vae.diagnostics.evaluation import Track

SAMPLES = ("sample per datum", "use --samples 100")
DATA, DRAWS = ("datum", "use num_data=100"), ("draw", "use num_draws=500")
NUM_JUDGED = 500  # validation data that findings are read off


class Run(Generator):
    """A model and a guide that were fitted together; ``pyro_vae.fit`` and ``pyro_vae.load`` make runs.

    Args:
        config: what the run was made from.
        facts: what its data looked like.
        probed: the fitted programs, with what ``Pair.probe`` said of them.
        dataset: the data, or None to load them by name when needed.
        folder: the run directory, or None for a run that lives in memory alone.
        history: one row per epoch.
        stopped: why training ended early, or empty.
        iterates: some parameters along the training, and their names; default: read from the folder.

    Example:
        >>> import pyro_vae
        >>> x = torch.rand(40, 1, 8, 8).round()
        >>> run = pyro_vae.fit(data=x, latent_dim=2, epochs=1, display=False)
        >>> run.reconstruct(x[:3]).shape
        torch.Size([3, 1, 8, 8])
        >>> figures = run.evaluate("test", num_samples=10)
        >>> figures["num_data"], figures["elbo"] <= -figures["nll"]  # a tenth of the data; the bound lies below
        (4, True)
    """

    def __init__(
        self,
        config: FitConfig,
        facts: DataFacts,
        probed: ProbedPair,
        *,
        dataset: Dataset | None,
        folder: RunFolder | None,
        history: pd.DataFrame,
        stopped: str = "",
        iterates: tuple[Tensor, tuple[str, ...]] | None = None,
    ) -> None:
        super().__init__(probed, facts, config.model)
        self.config, self.history, self.stopped, self.folder = config, history, stopped, folder
        self._iterates = iterates
        self._split: tuple[str, Images] | None = None  # the last one that was asked for
        self._dataset = dataset

    def __repr__(self) -> str:
        where = f", path={str(self.path)!r}" if self.path else ""
        config = self.config
        return f"Run({config.model} + {config.guide} on {config.data}, {count(len(self.history), 'epoch')}{where})"

    @property
    def path(self) -> Path | None:
        """The run directory, or None."""
        return self.folder.path if self.folder else None

    @property
    def iterates(self) -> tuple[Tensor, tuple[str, ...]]:
        """Some parameters, single numbers of them, as they were along the training, shape (T, K), and their names.

        ``diagnostics.convergence`` says what they show.
        """
        if self._iterates is None:
            state = self.folder.training() if self.folder else {}
            self._iterates = (state.get("iterates", torch.zeros(0, 0)), tuple(state.get("iterate_names", ())))
        return self._iterates

    @property
    def data(self) -> Dataset:
        """The data of the run, loaded when first asked for and known again by their fingerprint."""
        if self._dataset is None:
            self._dataset = load_same_data(self.config, self.facts)
        return self._dataset

    def _given_rows(self, num_rows: int, generator: torch.Generator) -> Tensor:
        train = self.data.train
        return train[torch.randint(len(train), (num_rows,), generator=generator).to(train.pixels.device)].values()

    @property
    def binarization(self) -> Binarization:
        """How pixels become what the model sees; ``auto`` resolved by the likelihood."""
        return resolve_binarization(self.config, self.structure)

    def forget_data(self) -> None:
        """Let go of the data, so that a copy of the run is as small as its programs; they are loaded when asked for."""
        self._dataset = self._split = None

    def split(self, name: str) -> Images:
        """The train, validation or test rows as an evaluation sees them: binarized for good, on the run's device.

        Raises:
            InputError: if there is no such split.
        """
        if not isinstance(name, str) or name not in ("train", "validation", "test"):
            got = repr(name) if isinstance(name, str) else type(name).__name__
            raise InputError("a split: train, validation or test", got, "use --split test")
        if self._split is None or self._split[0] != name:
            self._split = name, binarize_once(self.data.of_split(name), self.binarization).to(self.device)
        return self._split[1]

    def part(self, name: str) -> Images:
        """The old name of ``split``."""
        warnings.warn("run.part is run.split", DeprecationWarning, stacklevel=2)
        return self.split(name)

    @turns.looking()
    def evaluate(
        self,
        split: str = "test",
        num_samples: int | None = None,
        seed: int = 0,
        track: Track = lambda chunks, total: chunks,
        world: World = ALONE,
    ) -> dict[str, Any]:
        """The metrics of the run on a split, in nats per datum; see ``diagnostics.Evaluation``.

        Densities are in the units of the data, or, of a program that observes what is computed of x, in those that
        ``units`` names: add the logarithm of the Jacobian for those of x.

        Args:
            split: train, validation or test.
            num_samples: importance samples per datum; default: what 500 runs of the decoder give, 500 or, where
                labels are summed over, fewer.
            seed: the seed of the samples.
            track: shows how far it is; see ``diagnostics.evaluate``.
            world: the processes that share the split, each of which has opened the run.
        """
        begin = time.perf_counter()
        metrics = diagnostics.evaluate(
            self.probed,
            self.split(split),
            default_samples(self.structure) if num_samples is None else read_count(num_samples, *SAMPLES),
            read_seed(seed),
            compiled=self.config.compile != "off",
            track=track,
            world=world,
        ).as_dict()
        names = {"model": self.config.model, "guide": self.config.guide, "data": self.config.data, "split": split}
        units = {"units": self.structure.units} if self.structure.units else {}
        return names | metrics | units | {"seconds": round(time.perf_counter() - begin, 3)}

    @cached_property
    def findings(self) -> list[Finding]:
        """The faults of the run, by its history and its first validation data; empty where nothing was found."""
        found: list[Finding] = []
        images = self.split("validation")[slice(0, NUM_JUDGED)]
        if self.structure.continuous and self.structure.data_dim is not None and len(images) > 1:
            found += judge_latents(latent_use(self.probed, images.x(), num_draws=8))
        beta = parse_schedule(self.config.beta)
        rows = self.history.to_dict("records")
        scores, stopped = [score(row, beta.final) for row in rows], len(rows) < self.config.num_epochs
        found += judge_curve(scores, beta.length, stopped, keeps_last(self.probed, self.facts.num_data[0]))
        labelled = images.labelled() if self.structure.has_label else None
        if labelled is not None:
            assert labelled.labels is not None
            found += judge_classifier(self.class_probabilities(labelled.values()), labelled.labels)
        return found

    def to_arviz(
        self,
        num_data: int = 100,
        num_draws: int = 500,
        split: str = "test",
        seed: int = 0,
        num_predictive: int | None = None,
    ) -> xr.DataTree:
        """The posterior of the first data of a split in ArviZ's groups, with the training trace.

        ``arviz_bridge.save_posterior`` writes it; ``arviz_bridge.to_datatree`` makes one of several restarts.

        Args:
            num_data: how many data.
            num_draws: draws of each latent.
            split: train, validation or test.
            seed: the seed of the draws.
            num_predictive: the draws that data are generated for; default: the first 50.

        Raises:
            InputError: if there is no such split, or nothing is asked for.
        """
        from pyro_vae.arviz_bridge.restarts import to_datatree  # xarray loads when it is needed

        num_data, num_draws = read_count(num_data, *DATA), read_count(num_draws, *DRAWS)
        predictive = None if num_predictive is None else read_count(num_predictive, "prediction", "leave it out")
        return to_datatree(self, num_data, num_draws, split, read_seed(seed), predictive)


def count(number: int, what: str) -> str:
    """A number of things, in words: ``1 epoch``, ``2 epochs``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
