"""What a fitted pair makes of images, latent points and classes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import pandas as pd
import torch
from numpy.typing import ArrayLike
from pyro import poutine
from torch import Tensor

from pyro_vae.data.columns import table_of
from pyro_vae.data.tables import is_table
from pyro_vae.errors import InputError
from pyro_vae.pairs.classes import LABEL_SITE
from pyro_vae.pairs.draws import draw_means
from pyro_vae.pairs.handlers import unconditioned
from pyro_vae.pairs.labels import LABEL_DRAWS, label_distribution
from pyro_vae.pairs.memory import at_once
from pyro_vae.pairs.observations import assemble, check_generates
from pyro_vae.pairs.pair import Pair, ProbedPair
from pyro_vae.pairs.structure import Structure
from pyro_vae.pairs.traces import distribution_at, mean_at, value_at
from pyro_vae.posterior.importance_resampling import draw_resampled
from pyro_vae.posterior.predictive import draw_marginal
from pyro_vae.runs.data_facts import DataFacts
from pyro_vae.runs.inputs import Classes, read_classes, read_count, read_images, read_points, read_seed
from pyro_vae.runs.table_rows import check_columns, check_given, covariates_of, supports_of, with_codes

PROPOSALS = 20
SHARED_DRAWS = 100
SEED_OFFSET = 104_729  # from the seed of training: its first normals may be the parameters that z is compared with


class Generator:
    r"""A fitted pair, run forwards: encode, decode, sample, complete, reconstruct, classify.

    Wherever images are asked for, x is an array of shape (N, \*event_shape), N at least 1, in any form that data come
    in: numbers as the model sees them, in [0, 1] for pictures, or whole numbers on the data's own scale.

    Args:
        probed: the fitted programs, with what ``Pair.probe`` said of them.
        facts: what their data looked like.
        name: the model's, for errors.
    """

    def __init__(self, probed: ProbedPair, facts: DataFacts, name: str) -> None:
        self.probed, self.facts, self.name = probed, facts, name

    @property
    def pair(self) -> Pair:
        """The model and the guide."""
        return self.probed.pair

    @property
    def structure(self) -> Structure:
        """The structure of the programs, as ``Pair.probe`` read it."""
        return self.probed

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
    def generates(self) -> bool:
        """Whether the model makes all of x by itself, or completes it, and has means to show."""
        try:
            return self.conditional or len(self.sample(1)) == 1
        except InputError:
            return False

    @cached_property
    def class_matters(self) -> bool:
        """Whether the model generates other images for another class."""
        if not (self.structure.has_label and len(self.facts.class_names) > 1 and self.generates):
            return False
        images = []
        template = self._template(2)
        for label in (0, 1):
            with self._quiet():
                images.append(self.generate(template, self._label_values([label] * 2), mean=True))
        return not torch.equal(*images)

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return next((p.device for p in self.pair.parameters().values()), torch.device("cpu"))

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
        self._check_labels("to classify")
        with self._quiet():
            return label_distribution(self.pair, self._values(x), LABEL_DRAWS).probs

    def encode(self, x: ArrayLike | Tensor, site: str | None = None, num_samples: int = 1) -> Tensor:
        """The posterior mean E_q[z | x] of each image, shape (N, latent_dim); labels averaged over q(y | x).

        Args:
            x: images.
            site: the latent site, for models with several; default: the last continuous one.
            num_samples: the draws to average where the guide does not know its mean, as flows and mixtures do not;
                at least 100 where the mean depends on latents that all rows share.

        Raises:
            InputError: if there is no such site.
        """
        site = self.latent_site(site)
        with self._quiet():
            count = read_count(num_samples, "draw", "use num_samples=1")
            draws = max(count, SHARED_DRAWS) if self.structure.shared_latents else count
            return draw_means(self.probed.by_row, self._values(x), draws)[site]

    def decode(
        self,
        z: ArrayLike | Tensor,
        site: str | None = None,
        y: Classes | None = None,
        seed: int = 0,
        x: Any = None,
    ) -> Any:
        r"""The images of latent points, E[x | z], shape (N, \*event_shape).

        Args:
            z: points of shape (N, latent_dim).
            site: the latent site that they belong to, for models with several; default: the last continuous one.
                The others are drawn from the model, given z.
            y: the class, by its index or name, or one a point, for models with labels; default: drawn from p(y).
            seed: the seed of these draws.
            x: for conditional models, the image whose visible part they read, shape (1, \*event_shape), or one a point;
                for models with covariates, rows that have them, as ``sample`` takes them.

        Returns:
            Images; of a run on a table, a table.

        Raises:
            InputError: if there is no such site, z is of another dimension or outside its support, or there is no such
                class.
        """
        site = self.latent_site(site)
        values = read_points(z, self.structure.continuous[site], site).to(self.device)
        given = {site: values} | self._given_class(y, len(values))
        template = self._template(len(values), x, seed)
        with self._quiet(seed):
            return self._made(self.generate(template, given, mean=True))

    def latent_site(self, site: str | None = None) -> str:
        """The name of a continuous latent site; default: the last one, which a hierarchy has at its top.

        Raises:
            InputError: if there is no such site.
        """
        known = list(self.structure.continuous)
        if not known and self.structure.shared_latents:
            got, mend = "a model whose latents all rows share", "their draws are in run.to_arviz()"
            raise InputError("a continuous latent site for each datum", got, mend)
        if not known:
            raise InputError("a continuous latent site for each datum", "a model without", "fit another --model")
        if site is not None and site not in known:
            raise InputError("a continuous latent site", repr(site), f"choose one of: {', '.join(known)}")
        return site or known[-1]

    def sample(
        self,
        num_samples: int = 64,
        y: Classes | None = None,
        seed: int = 0,
        mean: bool | None = None,
        x: Any = None,
    ) -> Any:
        r"""Images from the model, shape (num_samples, \*event_shape); of a run on a table, rows, as a table.

        Args:
            num_samples: how many.
            y: the class to generate, by its index or name, or one per image, for models with labels; default: drawn
                from p(y).
            seed: the seed of the draws.
            mean: whether to return E[x | z], which is what pictures show, instead of a draw of x itself; default: for
                pictures, not for rows of tables.
            x: for models with covariates, rows that have them: one, or ``num_samples``, a table of these columns at
                least.  Default: rows of the training data, drawn.
        """
        num_samples = read_count(num_samples, "image", "use --num 64")
        given = self._given_class(y, num_samples)
        template = self._template(num_samples, x, seed)
        mean = not self.facts.columns if mean is None else mean
        with self._quiet(seed):
            return self._made(self.generate(template, given, mean))

    def complete(
        self,
        x: ArrayLike | Tensor,
        num_samples: int = 1,
        seed: int = 0,
        mean: bool = True,
        num_proposals: int = PROPOSALS,
    ) -> Any:
        r"""Images filled in by the model, shape (num_samples, N, \*event_shape): imputation.

        A table of a run on tables comes back as one, its columns in their own units and categories by their names;
        several completions lie under each other, numbered by the first level of the index.

        A conditional model fills in its hidden part, from z drawn from p(z | visible part).  Any other fills in what
        is missing, NaN or masked, of a run that was fitted with ``missing="mask"``, from z drawn from p(z | what is
        there) as nearly as importance weights make it so; what is there stays as it is.  The mean of many completions
        is the best guess in squared error.

        Args:
            x: images; a conditional model reads their visible part alone.
            num_samples: how many times to fill in each, z drawn anew.
            seed: the seed of the draws.
            mean: whether to fill in E[x | z] instead of a draw of x itself.
            num_proposals: the draws from q(z | what is there) of which each z is one, kept by its weight.

        Raises:
            InputError: if x is not as the run's data were.
        """
        num_samples = read_count(num_samples, "completion", "use num_samples=1")
        num_proposals = read_count(num_proposals, "proposal", "use num_proposals=1")
        with self._quiet(seed):
            values = self._values(x)
            if self.conditional:
                return torch.stack([self.generate(values, {}, mean) for _ in range(num_samples)])
            there, missing = values.cpu(), values.isnan().cpu()
            filled = [there] * num_samples
            if missing.any():
                made = (self._filled_in(values, mean, num_proposals) for _ in range(num_samples))
                filled = [torch.where(missing, each, there) for each in made]
        if not self._comes_as_table(x):
            return torch.stack(filled)
        tables = [self._made(each, x) for each in filled]
        return tables[0] if num_samples == 1 else pd.concat(tables, keys=range(num_samples), names=["completion"])

    def _filled_in(self, values: Tensor, mean: bool, num_proposals: int) -> Tensor:
        """What the model makes of rows with values missing, a few rows at a time."""
        if self.structure.computed:
            raise InputError(
                "a model that observes x as it is, to fill in what is missing",
                f"the site {self.structure.computed[0]!r}, which observes what is computed of x",
                "observe x, with the distribution that it has: LogNormal in the place of a Normal of x.log()",
            )
        comes_apart = self.structure.data_dim is not None
        size = at_once(self.structure.widest(values) * num_proposals) if comes_apart else len(values)
        filled = []
        for x in values.split(size):
            latent = draw_resampled(self.probed, x, num_proposals)
            filled.append(self.generate(x, latent | draw_marginal(self.probed, x, latent), mean, whole=False))
        return torch.cat(filled)

    def reconstruct(self, x: ArrayLike | Tensor, seed: int = 0, mean: bool = True) -> Any:
        r"""E[x | z] with z drawn from q(z | x), shape (N, \*event_shape); a table of a run on tables comes back as one.

        Sites that the model sums out are drawn from p(e | z, x).  Entries of x that the model reads without observing
        them stay as they are.

        Args:
            x: images.
            seed: the seed of the draws.
            mean: whether to return E[x | z] instead of a draw of x itself.

        Raises:
            InputError: if the model observes something else than x, or its distribution has no mean.
        """
        with self._quiet(seed):
            values = self._values(x)
            made = self.generate(values, self._latent(values), mean, whole=False)
        return self._made(made, x) if self._comes_as_table(x) else made

    def _comes_as_table(self, x: Any) -> bool:
        return bool(self.facts.columns) and is_table(x)

    def _made(self, values: Tensor, x: Any = None) -> Any:
        """What was made, as a table where the run is of one, with the index of the table that it was made of."""
        return table_of(values, self.facts.columns, getattr(x, "index", None)) if self.facts.columns else values

    def _template(self, num_rows: int, x: Any = None, seed: int = 0) -> Tensor:
        """The rows that a model reads its part of: what is visible, covariates; of zeros where it reads nothing.

        Raises:
            InputError: if there are not as many.
        """
        if self._has_covariates:
            if x is None:
                return self._values(self._given_rows(num_rows, torch.Generator().manual_seed(read_seed(seed))))
            rows = covariates_of(x, self.facts.columns) if is_table(x) else self._values(x)
        else:
            rows = torch.zeros(1, *self.facts.event_shape) if x is None else self._values(x)
        if len(rows) not in (1, num_rows):
            raise InputError(f"one row of x, or {num_rows} as are to be made", f"{len(rows)}", "give x[:1]")
        return rows.expand(num_rows, *self.facts.event_shape)

    @property
    def _has_covariates(self) -> bool:
        return any(column.is_covariate for column in self.facts.columns)

    def _given_rows(self, num_rows: int, generator: torch.Generator) -> Any:
        """Some rows whose covariates are used where none are given, drawn with replacement."""
        raise InputError("rows of x with covariates", "none", "give them: x=…")

    def _latent(self, values: Tensor) -> dict[str, Tensor]:
        """A draw of every latent site, from the guide, or from p(e | z, x) where the model sums it out."""
        q = poutine.trace(self.pair.guide).get_trace(*self.pair.arguments(values, None))
        latent = {name: value_at(q, name) for name in self.structure.latent}
        return latent | draw_marginal(self.probed, values, latent)

    def generate(self, template: Tensor, latent: dict[str, Tensor], mean: bool, whole: bool = True) -> Tensor:
        """Run the model forwards on the rows of a template, some of its sites given.

        Latents that all rows share are drawn from the guide, which knows the training data.
        """
        template = template.to(self.device)
        whole = whole and not (self.conditional or self._has_covariates)
        check_generates(self.structure, template[0].numel(), whole)
        arguments = self.pair.arguments(template, None)
        if any(name in self.structure.latent and name not in latent for name in self.structure.shared):
            q = poutine.trace(self.pair.guide).get_trace(*arguments)
            latent = {n: value_at(q, n) for n in self.structure.shared if n in q.stochastic_nodes} | latent
        program = poutine.condition(unconditioned(self.pair.model), data=latent)
        trace = poutine.trace(program).get_trace(*arguments)

        def values(name: str) -> tuple[Tensor, int]:
            d = distribution_at(trace, name)
            return mean_at(trace, name) if mean else value_at(trace, name), d.event_dim

        return assemble(self.structure, template, values).cpu()

    @contextmanager
    def _quiet(self, seed: int = 0) -> Iterator[None]:
        """Evaluation mode, no gradients, a random state of its own."""
        with self.pair.looked_at(SEED_OFFSET + read_seed(seed)):
            yield

    def _values(self, x: Any) -> Tensor:
        """Images as the programs take them, checked."""
        values = read_images(x, self.facts)
        if self.facts.columns:
            check_columns([values], self.facts.columns, supports_of(self.model, self.facts.columns), "x")
            check_given(values, self.facts.columns)
        else:
            values = with_codes(values, self.model, self.facts.has_missing)
        return values.to(self.device)

    def _given_class(self, y: Classes | None, num_rows: int) -> dict[str, Tensor]:
        """The label site of ``num_rows`` rows, checked; empty where no class is asked for."""
        if y is None:
            return {}
        self._check_labels("to choose a class")
        labels = read_classes(y, self.facts.class_names, num_rows)
        if not self.class_matters:
            raise InputError(
                "a model whose images depend on the class",
                f"{self.name!r}, whose class is read off them",
                "leave out the class, or fit one that generates by class: --model ss_vae",
            )
        return self._label_values(labels)

    def _label_values(self, labels: list[int]) -> dict[str, Tensor]:
        """The label site at some classes."""
        assert self.structure.classes is not None
        return {LABEL_SITE: self.structure.classes.to(self.device)[labels]}

    def _check_labels(self, purpose: str) -> None:
        if not self.structure.has_label:
            raise InputError(
                f"a model with class labels {purpose}", repr(self.name), "fit one that has them: --model ss_vae"
            )
