"""What a finished run leaves for the eye: figures in its directory, and its first evaluation."""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib.figure import Figure

from pyro_vae import plots
from pyro_vae.errors import InputError
from pyro_vae.run import Run

FIRST_SAMPLES = 25  # importance samples of the evaluation that ends a fit: quick, and rough
STYLES = 10


def write_report(run: Run) -> None:
    """Write ``evaluation.json`` and the figures of a run that has a directory.

    A program with sites outside the plate over data has no figures per datum, and data that are no images have no
    pictures.
    """
    assert run.folder is not None
    save_figure(plots.elbo_curves(run.history), run.folder.figures / "elbo.png")
    if run.structure.data_dim is not None:
        run.folder.save_evaluation(run.evaluate(num_samples=FIRST_SAMPLES))
    if not plots.is_picture(run.facts.event_shape):
        return
    save_figure(samples_figure(run, 64), run.folder.figures / "samples.png")
    save_figure(reconstructions_figure(run, 30), run.folder.figures / "reconstructions.png")
    if run.structure.has_label:
        save_figure(classes_figure(run), run.folder.figures / "classes.png")


def samples_figure(run: Run, num_samples: int, label: int | None = None, seed: int = 0) -> Figure:
    """Means of p(x | z) for z from the prior."""
    title = "Samples from the model" + (f", class {run.facts.class_names[label]}" if label is not None else "")
    return plots.image_grid(run.sample(num_samples, y=label, seed=seed), title=title)


def reconstructions_figure(run: Run, num_images: int, split: str = "test") -> Figure:
    """The first images of a split above their reconstructions."""
    images = run.part(split)[slice(0, num_images)]
    return plots.reconstructions(images.x(), run.reconstruct(images.x()))


def classes_figure(run: Run) -> Figure:
    """The same styles in every class."""
    names = run.facts.class_names
    return plots.class_samples(torch.stack([run.sample(STYLES, y=label) for label in range(len(names))]), names)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all.

    Raises:
        InputError: if the place cannot be written.
    """
    aside = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(aside, format="png", dpi=150, bbox_inches="tight")
        aside.replace(path)
    except OSError as error:
        raise InputError(f"a place for a picture at {path}", str(error), "choose another --out") from None
