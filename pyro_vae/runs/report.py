"""What a finished run leaves for the eye: figures in its directory, and its first evaluation."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pandas as pd
import torch
from matplotlib.figure import Figure

from pyro_vae.data.columns import table_of
from pyro_vae.diagnostics.evaluation import ACTIVE_VARIANCE
from pyro_vae.errors import InputError
from pyro_vae.figures.columns import columns_compared
from pyro_vae.figures.images import class_samples, completions, image_grid, interpolation, reconstructions
from pyro_vae.figures.latent_space import latent_map, manifold, traversal
from pyro_vae.figures.pictures import ARRAYS, check_pictures
from pyro_vae.figures.saving import save_figure
from pyro_vae.figures.style import as_drawn
from pyro_vae.figures.training import elbo_curves
from pyro_vae.files.bounded import first_line
from pyro_vae.runs import latent_points
from pyro_vae.runs.run import Run

logger = logging.getLogger(__name__)

FIRST_SAMPLES = 25  # importance samples of the evaluation that ends a fit: quick, and rough
STYLES, STYLES_DRAWN = 10, 200
COMPLETED_IMAGES, COMPLETIONS = 8, 6
GRID, STEPS, MOST_ROWS = 20, 11, 10  # a manifold's side, a traversal's columns, its most rows unless asked
PAIRS, INTERPOLATED = 5, 9  # rows of an interpolation, and the points of each
SUFFIX = " (reconstructed)"  # of a column of a table
SPAN = 3.0  # standard deviations of N(0, 1)
TRAVERSED_IMAGES, MAPPED_IMAGES = 1000, 2000


def write_report(run: Run) -> None:
    """Write ``evaluation.json`` and the figures of a run that has a directory.

    A program without a plate over data has no metrics per datum, and data that are not images have no pictures.
    What cannot be measured, drawn or written is left out, and that is said: the run is done.
    """
    assert run.folder is not None
    if run.probed.by_row.data_dim is not None:
        with left_out("The evaluation"):
            run.folder.save_evaluation(run.evaluate(num_samples=FIRST_SAMPLES), run.findings)
    for name, draw in _figures(run).items():
        start = time.perf_counter()
        with left_out(f"The figure {name}.png"):
            save_figure(draw(), run.folder.figures / f"{name}.png")
        logger.debug(f"drew {name}.png in {time.perf_counter() - start:.2f} s")


def _figures(run: Run) -> dict[str, Callable[[], Figure]]:
    """What draws each figure of the report, by its name."""
    figures: dict[str, Callable[[], Figure]] = {"elbo": lambda: elbo_curves(run.history)}
    site: str | None = None
    with left_out("What lies in the latent space"):
        site = _busiest_site(run) if run.structure.continuous else None
    if site is not None and run.facts.num_data[-1] >= 2:
        figures["latent"] = lambda: latent_figure(run, site=site)
    if run.facts.columns and run.generates:
        figures["columns"] = lambda: columns_figure(run)
    if not (run.facts.are_pictures and run.generates):
        return figures
    figures["samples"] = lambda: samples_figure(run, 64)
    figures["reconstructions"] = lambda: reconstructions_figure(run, 30)
    with left_out("The figure classes.png"):
        if run.class_matters:
            figures["classes"] = lambda: classes_figure(run)
    if site is not None and run.structure.continuous[site].is_real:
        figures["traverse"] = lambda: traverse_figure(run, site)
    return figures


@contextmanager
def left_out(what: str) -> Iterator[None]:
    """Go on where something cannot be had, and say so."""
    try:
        yield
    except Exception as error:  # of any kind: a run that is trained is not lost to a picture of it
        logger.warning(f"{what} is left out: {first_line(error)}")


def check_are_pictures(run: Run, mend: str = ARRAYS) -> None:
    """Refuse a run whose data cannot be drawn.

    Raises:
        InputError: if they are rows of a table, or of another shape.
    """
    if run.facts.columns:
        raise InputError("images", f"rows of a table with {len(run.facts.columns)} columns", mend)
    check_pictures(run.facts.event_shape, mend)


def columns_figure(run: Run, split: str = "test", num_rows: int = MAPPED_IMAGES, seed: int = 0) -> Figure:
    """The columns of the first rows of a split, and of rows from the model, with the covariates of these in turn."""
    rows = run.split(split)[slice(0, num_rows)].values()
    columns = [column for column in run.facts.columns if not column.is_covariate]
    given = rows[torch.arange(num_rows) % len(rows)] if len(columns) < len(run.facts.columns) else None
    made = run.sample(num_rows, seed=seed, x=given)
    names = [column.name for column in columns]
    title = f"{len(rows):,} rows of the {split} set, and {num_rows:,} from the model"
    return columns_compared(table_of(rows, run.facts.columns)[names], made[names], title)


def samples_figure(run: Run, num_samples: int, label: int | None = None, seed: int = 0) -> Figure:
    """Means of p(x | z) for z from the prior."""
    if run.conditional:
        return completions_figure(run, seed)
    title = "Samples from the model" + _of_class(run, label)
    return image_grid(run.sample(num_samples, y=label, seed=seed), title=title)


def completions_figure(run: Run, seed: int = 0) -> Figure:
    """The completions that a conditional model makes of the visible part of the first test images."""
    images = run.split("test")[slice(0, COMPLETED_IMAGES)]
    filled = run.complete(images.x(), COMPLETIONS, seed)
    return completions(run.model.visible(images.x()), filled, images.values())


def reconstructions_figure(run: Run, num_images: int, split: str = "test") -> Figure:
    """The first images of a split as they are, as the model sees them where that differs, and as it makes them."""
    images = run.split(split)[slice(0, num_images)]
    seen = None if images.binary is None else images.x()
    return reconstructions(images.values(), run.reconstruct(images.x()), seen=seen)


def reconstructions_table(run: Run, num_rows: int, split: str = "test") -> pd.DataFrame:
    """The first rows of a split, column by column beside what the model makes of them."""
    rows = run.split(split)[slice(0, num_rows)].values()
    tables = table_of(rows, run.facts.columns), table_of(run.reconstruct(rows), run.facts.columns)
    own = [column.name for column in run.facts.columns if not column.is_covariate]
    beside = {f"{name}{suffix}": t[name] for name in own for suffix, t in zip(("", SUFFIX), tables, strict=True)}
    return pd.DataFrame(beside)


def classes_figure(run: Run) -> Figure:
    """Typical styles, of draws from the prior that differ, in every class."""
    names = run.facts.class_names
    images = torch.stack([run.sample(STYLES_DRAWN, y=label) for label in range(len(names))])
    return class_samples(images[:, latent_points.representatives(images.transpose(0, 1), STYLES)], names)


def traverse_figure(
    run: Run,
    site: str | None = None,
    num: int | None = None,
    dims: int | None = None,
    span: float | None = None,
    label: int | None = None,
    seed: int = 0,
) -> Figure:
    """A walk through the latent space: E[x | z] over a plane, or along the most active dimensions.

    A site of two dimensions makes a grid over normal quantiles.  Any other, or ``dims`` or ``span`` given, makes a row
    a dimension around the posterior mean of a test image, the dimension with the largest Var_x(E_q[z_u | x]) first.

    Args:
        run: a run of pictures.
        site: the latent site; default: the one with the most active units.
        num: the side of the grid (20), or the images per row (11).
        dims: how many rows (10, or as many as there are).
        span: the largest coordinate of a row, in standard deviations (3): of the prior N(0, 1), or of the test images'
            posterior means where those are wider, as under a learned or conditional prior.
        label: the class, for models with labels; the most probable one of the base image, or the first for a grid.
        seed: chooses the test image and draws what lies below the site.

    Raises:
        InputError: if the data are not pictures, or the site has no such dimensions.
    """
    check_are_pictures(run, "use latent, which maps data of any shape")
    site = _busiest_site(run) if site is None else run.latent_site(site)
    latent = run.structure.continuous[site]
    if not latent.is_real:
        raise InputError(
            "a latent site of real numbers", f"{site!r} with the support {latent.support}", "use run.decode"
        )
    if num is not None and num < 2:
        raise InputError("at least 2 images per row", str(num), "use --num 11")
    if latent.size == 2 and dims is None and span is None:
        return _manifold(run, site, num or GRID, label, seed)
    if dims is not None and not 1 <= dims <= latent.size:
        raise InputError(
            f"from 1 to {latent.size} dimensions of the latent site {site!r}", str(dims), f"use --dims {latent.size}"
        )
    return _traversal(
        run, site, num or STEPS, dims or min(MOST_ROWS, latent.size), SPAN if span is None else span, label, seed
    )


def interpolation_figure(
    run: Run,
    images: tuple[int, int] | None = None,
    site: str | None = None,
    num: int | None = None,
    label: int | None = None,
    split: str = "test",
    seed: int = 0,
) -> Figure:
    """The way from one image to another: E[x | z] along the straight line between their posterior means.

    What does not lie on the line, a class or the part of an image that a conditional model reads, is taken from the
    nearer image.

    Args:
        run: a run of pictures.
        images: the rows of two images in the split; default: five pairs drawn by the seed.
        site: the latent site; default: the one with the most active units.
        num: the points on each line, both ends among them (9).
        label: the class to hold; default: the most probable one of the nearer image.
        split: where the images are from.
        seed: chooses the pairs, and draws what lies below the site.

    Raises:
        InputError: if the data are not pictures, or there are no such images.
    """
    check_are_pictures(run, "use latent, which maps data of any shape")
    site = _busiest_site(run) if site is None else run.latent_site(site)
    num = INTERPOLATED if num is None else num
    rows = run.split(split)
    if num < 2 or len(rows) < 2:
        few = f"{num} points" if num < 2 else f"{len(rows)} {split} images"
        raise InputError("at least 2 points on a line between 2 images", few, "use --num 9 and --split train")
    pairs = _pairs(len(rows), seed) if images is None else torch.tensor([images])
    if not (0 <= int(pairs.min()) and int(pairs.max()) < len(rows)):
        raise InputError(f"rows from 0 to {len(rows) - 1} of the {split} set", str(images), "use --between 0,1")
    chosen = rows[pairs.flatten()]
    x = chosen.x().unflatten(0, (-1, 2))
    means = latent_points.posterior_means(run, chosen.x(), site).unflatten(0, (-1, 2))
    shares = torch.linspace(0, 1, num)
    nearer = (shares > 0.5).long()
    classes = run.classify(chosen.x()).unflatten(0, (-1, 2)) if label is None and run.class_matters else None
    between = []
    for row, (start, end) in enumerate(means):
        y = label if classes is None else classes[row][nearer]
        given = x[row][nearer] if run.conditional else None
        between.append(run.decode(torch.lerp(start, end, shares.unsqueeze(-1)), site, y, seed, given))
    shown = chosen.values().unflatten(0, (-1, 2))
    title = f"From one {split} image to another{_of_class(run, label)}, along a line in {as_drawn(site)}"
    return interpolation(shown[:, 0], torch.stack(between), shown[:, 1], title)


def _pairs(count: int, seed: int) -> torch.Tensor:
    """Pairs of different rows, drawn; shape (at most 5, 2)."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[: 2 * min(PAIRS, count // 2)].reshape(-1, 2)


def latent_figure(
    run: Run,
    split: str = "test",
    site: str | None = None,
    num_images: int = MAPPED_IMAGES,
    method: str = "pca",
) -> Figure:
    """The posterior means of the first images of a split, coloured by class.

    Raises:
        InputError: if there is no such site, split or method, or there are fewer than two images.
    """
    site = _busiest_site(run) if site is None else run.latent_site(site)
    images = run.split(split)[slice(0, max(0, num_images))]
    if len(images) < 2:
        raise InputError("at least 2 images to map", str(len(images)), "use --split train and --num 2000")
    means = latent_points.posterior_means(run, images.x(), site)
    title = f"Posterior means of {len(images):,} {split} {'rows' if run.facts.columns else 'images'}"
    return latent_map(means, images.labels, run.facts.class_names, site, title, method)


def _busiest_site(run: Run) -> str:
    """The continuous site with the most active units, the first of several: in a hierarchy the top often has few."""
    run.latent_site()  # which says what is wrong where there is none
    names = list(run.structure.continuous)
    if len(names) == 1:
        return names[0]
    x = run.split("test")[slice(0, TRAVERSED_IMAGES)].x()

    def num_active(site: str) -> int:
        return int((latent_points.activity(latent_points.posterior_means(run, x, site)) > ACTIVE_VARIANCE).sum())

    return max(names, key=num_active)


def _manifold(run: Run, site: str, num: int, label: int | None, seed: int) -> Figure:
    label = 0 if label is None and run.class_matters else label
    given = run.split("test")[:1].x() if run.conditional else None
    images = run.decode(latent_points.manifold_points(num), site, label, seed, given)
    title = f"What the model makes of the plane of {site}{_of_class(run, label)}, in equal steps of probability"
    return manifold(images, latent_points.quantiles(num), site, title)


def _traversal(run: Run, site: str, num: int, num_dims: int, span: float, label: int | None, seed: int) -> Figure:
    images = run.split("test")[slice(0, TRAVERSED_IMAGES)]
    means = latent_points.posterior_means(run, images.x(), site)
    activity = latent_points.activity(means)
    dims = activity.argsort(descending=True)[:num_dims]
    index = int(torch.randint(len(images), (), generator=torch.Generator().manual_seed(seed)))
    if label is None and run.class_matters:
        label = int(run.classify(images.values()[index : index + 1]))
    steps = torch.linspace(-span, span, num)
    middle, deviation = latent_points.spread(means)
    values = middle[dims].unsqueeze(1) + deviation[dims].unsqueeze(1) * steps
    points = latent_points.traversal_points(means[index], dims, values)
    given = images[index : index + 1].x() if run.conditional else None
    pictures = run.decode(points, site, label, seed, given).unflatten(0, (num_dims, num))
    names = [f"{site}_{u}  var {activity[u]:.2f}" for u in dims.tolist()]
    title = f"Test image {index}{_of_class(run, label)}, changed along one latent dimension per row"
    return traversal(pictures, steps, names, ((means[index] - middle) / deviation)[dims], title)


def _of_class(run: Run, label: int | None) -> str:
    return f", class {as_drawn(run.facts.class_names[label])}" if label is not None else ""
