"""A fitted run: its programs, its history, and what can be asked of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyro
import torch
from numpy.typing import ArrayLike
from pyro import poutine
from torch import Tensor

from pyro_vae import diagnostics
from pyro_vae.config import FitConfig
from pyro_vae.data import Binarization, Dataset, Images, binarize_once
from pyro_vae.diagnostics.evaluation import default_samples
from pyro_vae.diagnostics.findings import Finding, judge_classifier, judge_curve, judge_latents
from pyro_vae.diagnostics.latent_units import latent_use
from pyro_vae.errors import InputError
from pyro_vae.pairs.draws import draw_means
from pyro_vae.pairs.labels import label_distribution
from pyro_vae.pairs.pair import Pair
from pyro_vae.pairs.structure import LABEL_SITE, OBSERVED_SITE, Structure
from pyro_vae.pairs.traces import distribution_at, value_at
from pyro_vae.runs.assembly import resolve_binarization
from pyro_vae.runs.data_facts import DataFacts, load_same_data
from pyro_vae.runs.folder import RunFolder
from pyro_vae.training.schedules import parse_schedule
from pyro_vae.training.validation_rows import score

if TYPE_CHECKING:
    import xarray as xr

    from pyro_vae.diagnostics.evaluation import Track

NUM_JUDGED = 500  # validation data that findings are read off
APART = 104_729  # from the seed of training: its first normals may be the parameters that z is compared with


class Run:
    r"""A model and a guide that were fitted together.

    ``pyro_vae.fit`` and ``pyro_vae.load`` make runs.  Wherever images are asked for, x is an array or tensor of shape
    (N, \*event_shape): floats as the model sees them, in [0, 1] for pictures, or uint8 pixels on the data's own scale.

    Args:
        config: what the run was made from.
        facts: what its data looked like.
        pair: the fitted programs.
        structure: what a probe said of them.
        dataset: the data, or None to load them by name when needed.
        folder: the run directory, or None for a run that lives in memory alone.
        history: one row an epoch.
        stopped: why training ended early, or empty.
        iterates: some parameters along the training, and their names; read from the folder unless given.
    """

    def __init__(
        self,
        config: FitConfig,
        facts: DataFacts,
        pair: Pair,
        structure: Structure,
        *,
        dataset: Dataset | None,
        folder: RunFolder | None,
        history: pd.DataFrame,
        stopped: str = "",
        iterates: tuple[Tensor, tuple[str, ...]] | None = None,
    ) -> None:
        self.config, self.facts, self.history, self.stopped = config, facts, history, stopped
        self.pair, self.structure = pair, structure
        self.folder = folder
        self._iterates = iterates
        self._dataset = dataset

    def __repr__(self) -> str:
        where = f", path={str(self.path)!r}" if self.path else ""
        config = self.config
        return f"Run({config.model} + {config.guide} on {config.data}, {len(self.history)} epochs{where})"

    @property
    def path(self) -> Path | None:
        """The run directory, or None."""
        return self.folder.path if self.folder else None

    @property
    def model(self) -> Any:
        """The generative program p."""
        return self.pair.model

    @property
    def guide(self) -> Any:
        """The amortized program q."""
        return self.pair.guide

    @property
    def conditional(self) -> bool:
        """Whether the model reads part of x instead of generating it."""
        return bool(getattr(self.model, "conditional", False))

    @cached_property
    def class_matters(self) -> bool:
        """Whether the model generates other images for another class."""
        if not (self.structure.has_label and len(self.facts.class_names) > 1):
            return False
        images = []
        for label in (0, 1):
            with self._quiet():
                given = {LABEL_SITE: torch.full((2,), label, device=self.device)}
                images.append(self._generate(torch.zeros(2, *self.facts.event_shape), given, mean=True))
        return not torch.equal(*images)

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return next((p.device for p in self.pair.parameters().values()), torch.device("cpu"))

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
            self._dataset = load_same_data(self.config.data, self.facts)
        return self._dataset

    @property
    def binarization(self) -> Binarization:
        """How pixels become what the model sees; ``auto`` resolved by the likelihood."""
        return resolve_binarization(self.config, self.structure)

    def part(self, split: str) -> Images:
        """The train, validation or test rows as an evaluation sees them: binarized for good, on the run's device.

        Raises:
            InputError: if there is no such split.
        """
        if split not in ("train", "validation", "test"):
            raise InputError("a split: train, validation or test", repr(split), "use --split test")
        return binarize_once(self.data.part(split), self.binarization).to(self.device)

    def evaluate(
        self,
        split: str = "test",
        num_samples: int | None = None,
        seed: int = 0,
        note: Callable[[str], None] = lambda line: None,
        track: Track = lambda chunks, total: chunks,
    ) -> dict[str, Any]:
        """The figures of the run on a split, in nats per datum; see ``diagnostics.Evaluation``.

        Args:
            split: train, validation or test.
            num_samples: importance samples per datum; default: what 500 runs of the decoder give, 500 or, where
                labels are summed over, fewer.
            seed: of the samples.
            note: takes what a person should know of how it runs.
            track: shows how far it is; see ``diagnostics.evaluate``.
        """
        begin = time.perf_counter()
        figures = diagnostics.evaluate(
            self.pair,
            self.structure,
            self.part(split),
            default_samples(self.structure) if num_samples is None else num_samples,
            seed,
            compiled=self.config.compile != "off",
            note=note,
            track=track,
        ).as_dict()
        names = {"model": self.config.model, "guide": self.config.guide, "data": self.config.data, "split": split}
        return names | figures | {"seconds": round(time.perf_counter() - begin, 3)}

    @cached_property
    def findings(self) -> list[Finding]:
        """What is wrong with the run, by its history and its first validation data; empty where nothing was found."""
        found: list[Finding] = []
        images = self.part("validation")[slice(0, NUM_JUDGED)]
        if self.structure.continuous and len(images) > 1:
            found += judge_latents(latent_use(self.pair, self.structure, images.x(), num_draws=8))
        beta = parse_schedule(self.config.beta)
        rows = self.history.to_dict("records")
        found += judge_curve([score(row, beta.final) for row in rows], beta.length, len(rows) < self.config.num_epochs)
        if self.structure.has_label and images.labels is not None:
            found += judge_classifier(self.class_probabilities(images.values()), images.labels)
        return found

    def classify(self, x: ArrayLike | Tensor) -> Tensor:
        """The most probable class of each image under q(y | x), shape (N,), as an index into the class names.

        Raises:
            InputError: if the model has no labels.
        """
        return self.class_probabilities(x).argmax(-1)

    def class_probabilities(self, x: ArrayLike | Tensor) -> Tensor:
        """q(y | x), shape (N, K).

        Raises:
            InputError: if the model has no labels.
        """
        self._need_labels("to classify")
        with self._quiet():
            return label_distribution(self.pair, self._values(x)).probs

    def encode(self, x: ArrayLike | Tensor, site: str | None = None, num_samples: int = 1) -> Tensor:
        """The posterior mean E_q[z | x] of each image, shape (N, latent_dim); labels averaged over q(y | x).

        Args:
            x: images.
            site: the latent site, for models with several; the last continuous one unless given.
            num_samples: the draws to average where the guide does not know its mean, as flows and mixtures do not.

        Raises:
            InputError: if there is no such site.
        """
        site = self.latent_site(site)
        with self._quiet():
            return draw_means(self.pair, self.structure, self._values(x), num_samples)[site]

    def decode(
        self,
        z: ArrayLike | Tensor,
        site: str | None = None,
        y: int | None = None,
        seed: int = 0,
        x: ArrayLike | Tensor | None = None,
    ) -> Tensor:
        r"""The images of latent points, E[x | z], shape (N, \*event_shape).

        Args:
            z: points of shape (N, latent_dim).
            site: the latent site that they belong to, for models with several; the last continuous one unless given.
                The others are drawn from the model, given z.
            y: the class index, for models with labels; drawn from p(y) unless given.
            seed: of these draws.
            x: for conditional models, the image whose visible part they read, shape (1, \*event_shape), or one a point.

        Raises:
            InputError: if there is no such site, z is of another dimension or outside its support, or there is no such
                class.
        """
        site = self.latent_site(site)
        values = self._points(z, site)
        given = {site: values} | self._given_class(y, len(values))
        template = torch.zeros(1, *self.facts.event_shape) if x is None else self._values(x)
        with self._quiet(seed):
            return self._generate(template.expand(len(values), *self.facts.event_shape), given, mean=True)

    def latent_site(self, site: str | None = None) -> str:
        """The name of a continuous latent site: the last one, which a hierarchy has at its top, unless given.

        Raises:
            InputError: if there is no such site.
        """
        known = list(self.structure.continuous)
        if not known:
            raise InputError("a continuous latent site for each datum", "a model without", "fit another --model")
        if site is not None and site not in known:
            raise InputError("a continuous latent site", repr(site), f"choose one of: {', '.join(known)}")
        return site or known[-1]

    def sample(self, num_samples: int = 64, y: int | None = None, seed: int = 0, mean: bool = True) -> Tensor:
        r"""Images from the model, shape (num_samples, \*event_shape).

        Args:
            num_samples: how many.
            y: the class index to generate, for models with labels; drawn from p(y) unless given.
            seed: of the draws.
            mean: whether to return E[x | z], which is what pictures show, instead of a draw of x itself.
        """
        if num_samples < 1:
            raise InputError("at least one image", str(num_samples), "use --num 64")
        given = self._given_class(y, num_samples)
        with self._quiet(seed):
            return self._generate(torch.zeros(num_samples, *self.facts.event_shape), given, mean)

    def complete(self, x: ArrayLike | Tensor, num_samples: int = 1, seed: int = 0, mean: bool = True) -> Tensor:
        r"""Images filled in by the model from their visible part, shape (num_samples, N, \*event_shape).

        Args:
            x: images; a conditional model reads their visible part alone.
            num_samples: how many times to fill in each, z drawn anew from p(z | visible part).
            seed: of the draws.
            mean: whether to return E[x | z] instead of a draw of x itself.

        Raises:
            InputError: if the model is not conditional.
        """
        if not self.conditional:
            raise InputError(
                "a conditional model to fill images in", repr(self.config.model), "fit one that is: --model cvae"
            )
        with self._quiet(seed):
            values = self._values(x)
            return torch.stack([self._generate(values, {}, mean) for _ in range(num_samples)])

    def reconstruct(self, x: ArrayLike | Tensor, seed: int = 0) -> Tensor:
        r"""E[x | z] with z drawn from q(z | x), shape (N, \*event_shape)."""
        with self._quiet(seed):
            values = self._values(x)
            q = poutine.trace(self.pair.guide).get_trace(*self.pair.arguments(values, None))
            latent = {name: value_at(q, name) for name in self.structure.latent}
            return self._generate(values, latent, mean=True)

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
            seed: of the draws.
            num_predictive: the draws that data are generated for, the first 50 unless given.

        Raises:
            InputError: if there is no such split, or nothing is asked for.
        """
        from pyro_vae.arviz_bridge.restarts import to_datatree  # xarray loads when it is needed

        return to_datatree(self, num_data, num_draws, split, seed, num_predictive)

    def _generate(self, template: Tensor, latent: dict[str, Tensor], mean: bool) -> Tensor:
        """Run the model forwards on so many rows, some of its sites given."""
        program = poutine.condition(poutine.uncondition(self.pair.model), data=latent)
        arguments = self.pair.arguments(template.to(self.device), None)
        trace = poutine.trace(program).get_trace(*arguments)
        return (distribution_at(trace, OBSERVED_SITE).mean if mean else value_at(trace, OBSERVED_SITE)).cpu()

    @contextmanager
    def _quiet(self, seed: int = 0) -> Iterator[None]:
        """Evaluation mode, no gradients, a random state of its own."""
        self.pair.train(False)
        with self.pair.scope(), torch.no_grad(), torch.random.fork_rng(), pyro.validation_enabled(False):
            torch.manual_seed(APART + seed)
            yield

    def _values(self, x: ArrayLike | Tensor) -> Tensor:
        """Images as the programs take them, checked."""
        array = x if isinstance(x, Tensor) else torch.as_tensor(np.asarray(x))
        shape = self.facts.event_shape
        if array.shape[1:] != shape and array.shape[1:] == shape[1:]:
            array = array.unsqueeze(1)  # (N, H, W) for one channel
        if array.shape[1:] != shape or array.dim() != 1 + len(shape):
            raise InputError(
                f"x of shape (N, {', '.join(map(str, shape))})", f"shape {tuple(array.shape)}", "reshape the images"
            )
        scale = self.facts.scale if array.dtype == torch.uint8 else 1.0
        return Images(array, scale=scale).values().to(self.device)

    def _points(self, z: ArrayLike | Tensor, name: str) -> Tensor:
        """Latent points as the site takes them, checked."""
        site = self.structure.continuous[name]
        points = torch.as_tensor(z if isinstance(z, Tensor) else np.asarray(z)).float().to(self.device)
        if points.dim() != 2 or points.shape[1] != site.size or not len(points):
            raise InputError(
                f"z of shape (N, {site.size}) for the latent site {name!r}",
                f"shape {tuple(points.shape)}",
                "give one row a point",
            )
        values = points.reshape(len(points), *site.shape)
        if not (points.isfinite().all() and (site.support is None or site.support.check(values).all())):
            raise InputError(
                f"finite z in the support of the latent site {name!r}, {site.support}",
                f"values from {points.min().item():g} to {points.max().item():g}",
                "choose other points",
            )
        return values

    def _given_class(self, y: int | None, num_rows: int) -> dict[str, Tensor]:
        """The label site of so many rows, checked; empty where no class is asked for."""
        if y is None:
            return {}
        self._need_labels("to choose a class")
        if not 0 <= y < len(self.facts.class_names):
            last = len(self.facts.class_names) - 1
            raise InputError(f"a class index from 0 to {last}", str(y), f"choose one of: 0 to {last}")
        if not self.class_matters:
            raise InputError(
                "a model whose images depend on the class",
                f"{self.config.model!r}, whose class is read off them",
                "leave out the class, or fit one that generates by class: --model ss_vae",
            )
        return {LABEL_SITE: torch.full((num_rows,), y, device=self.device)}

    def _need_labels(self, purpose: str) -> None:
        if not self.structure.has_label:
            raise InputError(
                f"a model with class labels {purpose}", repr(self.config.model), "fit one that has them: --model ss_vae"
            )
