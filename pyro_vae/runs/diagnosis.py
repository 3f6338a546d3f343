"""The criticism of a run as its user gets it: metrics of a split of its data, files in its directory.

diagnosis.json         verdict, checks, the worst data
posterior.nc           the guide's posterior in ArviZ's groups; where NUTS was run, posterior_nuts.nc beside it
figures/diagnosis/     k-hat, the worst data, calibration, latents, aggregate posterior, labels
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyro
from matplotlib.figure import Figure

from pyro_vae.arviz_bridge.netcdf import save_posterior
from pyro_vae.arviz_bridge.tree import from_chains
from pyro_vae.data import Images
from pyro_vae.diagnostics.criticism import Criticism, criticise_pair
from pyro_vae.diagnostics.effort import Effort, TrainingFacts
from pyro_vae.diagnostics.verdicts import plain
from pyro_vae.errors import InputError
from pyro_vae.figures.classifier import confusion, reliability_diagram
from pyro_vae.figures.importance import weights, worst_data
from pyro_vae.figures.latent_use import aggregate, unit_use
from pyro_vae.figures.saving import save_figure
from pyro_vae.figures.sbc import coverage, ranks
from pyro_vae.posterior.target import Target
from pyro_vae.runs.report import left_out
from pyro_vae.runs.run import Run

logger = logging.getLogger(__name__)

NUM_WORST = 20
SAVED_DATA, SAVED_DRAWS = 100, 500


@dataclass(frozen=True)
class Diagnosis:
    """The criticism of a run on some rows of a split.

    Args:
        run: the run.
        split: the split.
        images: the rows that were looked at, the first of the split.
        criticism: what was found.
        effort: how much of each check was made.
        seconds: that it took.
    """

    run: Run
    split: str
    images: Images
    criticism: Criticism
    effort: Effort
    seconds: float

    @property
    def worst(self) -> list[dict[str, Any]]:
        """The rows with the largest k-hat, the worst first."""
        k_hat = self.criticism.importance.k_hat
        return [{"row": row, "k_hat": k_hat[row].item()} for row in self.criticism.worst[:NUM_WORST].tolist()]

    def as_dict(self) -> dict[str, Any]:
        """Everything for JSON."""
        config = self.run.config
        about: dict[str, Any] = {"model": config.model, "guide": config.guide, "data": config.data, "split": self.split}
        about |= {"num_data": len(self.images), "num_samples": self.effort.samples, "seconds": round(self.seconds, 1)}
        return about | self.criticism.as_dict() | {"worst": plain(self.worst)}

    def figures(self) -> dict[str, Figure]:
        """The figures of all checks that were made, by name."""
        found, figures = self.criticism, {"k_hat": weights(self.criticism.importance)}
        per_datum = self.run.structure.data_dim is not None
        if per_datum and self.run.facts.are_pictures:
            figures["worst"] = worst_data(self.images.x(), found.importance)
        if found.calibration is not None:
            figures["ranks"] = ranks(found.calibration)
            figures["coverage"] = coverage(found.calibration)
        if found.latents is not None:
            figures["latents"] = unit_use(found.latents)
        if found.aggregate is not None:
            figures["aggregate"] = aggregate(found.aggregate)
        if found.labels is not None:
            figures["reliability"] = reliability_diagram(found.labels.reliability)
            figures["confusion"] = confusion(found.labels.confusion, self.run.facts.class_names)
        return figures

    def save(self) -> list[Path]:
        """Write everything into the run's directory.

        Returns:
            The files: posteriors first, then JSON and figures.

        Raises:
            InputError: if the run has no directory, or it cannot be written.
        """
        folder = self.run.folder
        if folder is None:
            raise InputError("a run with a directory", "one in memory", "fit it with out=…")
        files = []
        try:
            files += self._save_posteriors(folder.path)
        except (RuntimeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            reason = str(error).splitlines()[0]
            logger.warning(f"posterior.nc was not written: the programs make no data ({reason})")
        files.append(folder.save_diagnosis(self.as_dict()))
        with left_out("Figures of the diagnosis"):
            for name, figure in self.figures().items():
                path = folder.figures / "diagnosis" / f"{name}.png"
                save_figure(figure, path)
                files.append(path)
        return files

    def _save_posteriors(self, folder: Path) -> list[Path]:
        """The guide's posterior and, if there are chains, that of NUTS."""
        files, chains = [folder / "posterior.nc"], self.criticism.chains
        with self.run.pair.evaluating(), pyro.validation_enabled(False):
            tree = self.run.to_arviz(min(len(self.images), SAVED_DATA), SAVED_DRAWS, self.split)
            save_posterior(tree, files[0])
            if chains is not None:
                files.append(folder / "posterior_nuts.nc")
                target = Target(self.run.probed, self.images.x()).first(chains.u.shape[2])
                save_posterior(from_chains(chains.u, target, attrs={"inference": "NUTS"}), files[-1])
        return files


def diagnose(
    run: Run,
    num_data: int = 1000,
    effort: Effort | None = None,
    split: str = "test",
    seed: int = 0,
) -> Diagnosis:
    """Criticise a run.

    Args:
        run: the run.
        num_data: the rows of the split to look at, the first; all of them where there are fewer.
        effort: how much of each check to make.
        split: train, validation or test.
        seed: the seed of every draw.

    Raises:
        InputError: if there is no such split, nothing is asked for, or a check that was asked for cannot be made.
    """
    if num_data < 1:
        raise InputError("at least one datum to look at", str(num_data), "use --num-data 1000")
    begin, effort = time.perf_counter(), effort or Effort(split=100)
    rows = run.split(split)
    images = rows[slice(0, num_data)] if run.structure.data_dim is not None else rows
    iterates, names = run.iterates
    probabilities, labels = None, None
    labelled = images.labelled() if run.structure.has_label else None
    if labelled is not None:
        probabilities, labels = run.class_probabilities(labelled.values()), labelled.labels
    known = TrainingFacts(probabilities, labels, iterates if len(iterates) else None, names)
    found = criticise_pair(run.probed, images.x(), effort, known=known, seed=seed)
    return Diagnosis(run, split, images, found, effort, time.perf_counter() - begin)
