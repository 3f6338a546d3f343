"""The validation rows, measured after every epoch: with the same noise each time, in chunks of one shape."""

from __future__ import annotations

from collections import defaultdict

import pyro
import torch
from torch import Tensor

from pyro_vae.compiled.replay import Replay
from pyro_vae.data.images import Images
from pyro_vae.distributed import ALONE, Part, World
from pyro_vae.objectives import Objective
from pyro_vae.pairs.draws import draw_terms
from pyro_vae.pairs.labels import LABEL_DRAWS, label_distribution
from pyro_vae.pairs.pair import ProbedPair
from pyro_vae.pairs.seeding import seeded
from pyro_vae.pairs.vectorized import draws_lie

Row = dict[str, float]
SEED = 0
CHUNK = 500
FEW = 0.1  # trained numbers per training row


def score(row: Row, beta: float) -> float:
    """What the best epoch is chosen by: the objective on validation rows, nats per datum, higher is better.

    Args:
        row: a row of the history.
        beta: where the run's beta ends.
    """
    return row.get("validation_objective", row["validation_elbo"] + (1 - beta) * row.get("validation_kl", 0.0))


def keeps_last(probed: ProbedPair, num_rows: int) -> bool:
    """Whether a run keeps its last epoch, whatever validation rows say on the way.

    Where all rows share latents, their posterior given the training rows is what the objective leads to, and not what
    other rows would choose.  Where a program weighs its latents itself, the objective on validation rows, which has no
    scales, is another one.  And p trained numbers fit N rows by about p / N nats per row better than they fit others
    (Akaike 1974): where these are few, the choice of an epoch is the noise of the rows that choose.

    Args:
        probed: the model and the guide, with what ``pair.probe`` said of them.
        num_rows: N.
    """
    sizes = {id(p): p.numel() for p in probed.pair.parameters().values() if p.requires_grad}  # some have two names
    return bool(probed.shared_latents) or probed.reweighted or sum(sizes.values()) < FEW * num_rows


class Validation:
    """What a run says of rows that it does not train on.

    Args:
        probed: the model and the guide, with what ``pair.probe`` said of them.
        images: the rows, binarized for good.
        objective: what is trained; a metric of its own where it is not an ELBO.
        beta: where its beta ends.
        world: the processes that share each chunk of the rows.
    """

    def __init__(
        self, probed: ProbedPair, images: Images, objective: Objective, beta: float, world: World = ALONE
    ) -> None:
        self.probed, self.images = probed, images
        self._world, self._noise = world, world.new_noise()
        self.objective, self.beta = objective, beta
        self._replay: Replay | None = None
        labelled = images.labelled()
        self._rows_per_label = len(images) / len(labelled) if labelled is not None else 0.0  # of a mean over all rows

    @property
    def num_full_chunks(self) -> int:
        """How many chunks of an evaluation have the same shape."""
        return len(self.images) // CHUNK

    @property
    def is_recorded(self) -> bool:
        """Whether full chunks are replayed."""
        return self._replay is not None

    def record(self) -> Replay:
        """The measures of a full chunk, recorded."""
        self.probed.pair.train(False)
        chunk = next(self.images.chunks(CHUNK))
        draws_lie(self.probed, chunk.x(), None)  # found before the recording, not in it
        mine, part = self._own(chunk)
        with self.probed.pair.scope():
            return Replay(lambda: self._measures(mine, part), mine.tensors())

    def use(self, replay: Replay | None) -> None:
        """Measure full chunks by this from now on; None: as they are."""
        self._replay = replay

    def __call__(self) -> Row:
        """The measures, averaged over the rows."""
        self.probed.pair.train(False)
        totals: defaultdict[str, list[Tensor]] = defaultdict(list)
        self._noise.learn(self._try)
        with seeded(SEED), torch.no_grad(), pyro.validation_enabled(False):
            for chunk in self.images.chunks(CHUNK):
                for name, value in self._measure(chunk).items():
                    totals[name].append(value)
        own = {name: torch.stack(values).double().sum().item() for name, values in totals.items()}
        sums = self._world.total(own)
        return {f"validation_{name}": value / len(self.images) for name, value in sums.items()}

    def _measure(self, images: Images) -> dict[str, Tensor]:
        """Sums over this process's rows of a chunk, scalars; nothing where it has none."""
        mine, part = self._own(images)
        if self._replay is not None and len(images) == CHUNK:
            return self._replay(mine.tensors())
        return self._measures(mine, part) if len(part) else {}

    def _own(self, images: Images) -> tuple[Images, Part]:
        part = self._world.part(len(images))
        return images[part.rows], part

    def _try(self, part: Part) -> Tensor:
        """The first measure of a few rows, to see how their noise is drawn."""
        rows = torch.arange(part.start, part.stop, device=self.images.pixels.device) % len(self.images)
        with seeded(SEED), torch.no_grad(), pyro.validation_enabled(False):
            return self._measures(self.images[rows], part)["elbo"] * part.size / part.total

    def _measures(self, images: Images, part: Part) -> dict[str, Tensor]:
        with self._noise.of("validation", part):
            return self._sums(images)

    def _sums(self, images: Images) -> dict[str, Tensor]:
        """Sums over the rows, scalars."""
        if self.probed.data_dim is None:  # rows that do not come apart: sites outside the plate over data
            return {"elbo": -self.objective(images.x()) * len(images)}
        terms = draw_terms(self.probed, images.x())
        row = {"elbo": terms.elbo.sum(), "log_likelihood": terms.log_likelihood.sum(), "kl": terms.kl.sum()}
        if not self.objective.is_elbo:
            row["objective"] = -self.objective(images.x(), beta=self.beta) * len(images)
        if self.probed.has_label and images.labels is not None and self._rows_per_label:
            guess = label_distribution(self.probed.pair, images.values(), LABEL_DRAWS).probs.argmax(-1)
            right = (guess == images.labels).sum()
            row["accuracy"] = right if self._rows_per_label == 1 else right * self._rows_per_label
        return row
