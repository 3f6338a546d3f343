"""From runs to one HTML file: everything is in it, and what users wrote is text in it, never markup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from pyro_vae.errors import InputError
from pyro_vae.figures.training import compare_curves
from pyro_vae.files.whole import make_folders, remove_empty, unwritable, write_whole
from pyro_vae.page.plots import Plot, as_svg
from pyro_vae.page.view import View, labels_sentence, view_of
from pyro_vae.runs.run import Run

SINGLE, SEVERAL = "report.html", "comparison.html"
COLUMNS = {  # of a comparison, with their headings
    "nll": "NLL",
    "elbo": "ELBO",
    "kl": "KL",
    "active_units": "active units",
    "accuracy": "accuracy",
    "ece": "calibration error",
}
SIDE_BY_SIDE = ("columns", "samples", "reconstructions", "traversal", "latent", "reliability")


@dataclass(frozen=True)
class Cell:
    """A number of the table that can be sorted.

    Args:
        text: as it is read.
        value: as it is sorted; None comes last.
    """

    text: str
    value: float | None


def write_page(runs: Sequence[Run], out: str | Path | None = None) -> Path:
    """Write the page of a run, or of several side by side, whole or not at all.

    Args:
        runs: each with a directory.
        out: the file; default: ``report.html``, or ``comparison.html``, in the directory of the first.

    Returns:
        The file.

    Raises:
        InputError: if there is no run, one of them has no directory, or the file cannot be written.

    Example:
        >>> import pyro_vae
        >>> from pyro_vae.page import write_page
        >>> settings = {"latent_dim": 2, "hidden": (4,), "epochs": 1, "batch_size": 800, "display": False}
        >>> run = pyro_vae.fit(data="toy", labels="none", out="run", **settings)
        >>> print(write_page([run]))
        run/report.html
    """
    folders = [run.folder for run in runs]
    if not folders or None in folders:
        got = "a run in memory" if folders else "none"
        raise InputError("runs with a directory, for a page", got, "fit with out=…, and give the run or a list of them")
    assert folders[0] is not None
    path = Path(out) if out is not None else folders[0].path / (SINGLE if len(runs) == 1 else SEVERAL)
    if path.is_dir():
        raise InputError(f"a file for a page at {path}", "a folder", f"use {path / SINGLE}")
    html = page(runs).encode()
    try:
        made = make_folders(path.parent)
        try:
            write_whole(path, html)
        except BaseException:
            remove_empty(made)
            raise
    except OSError as error:
        raise unwritable(path, error, f"a place for a page at {path}", "choose another --out") from None
    return path


def page(runs: Sequence[Run]) -> str:
    """The HTML of a run, or of several side by side."""
    views = [view_of(run, f"r{index}") for index, run in enumerate(runs)]
    if len(views) == 1:
        return _environment().get_template("run.html").render(view=views[0], labels=labels_sentence(runs[0]))
    return (
        _environment()
        .get_template("comparison.html")
        .render(
            views=views,
            columns=list(COLUMNS.values()),
            cells=[[_cell(view, name) for name in COLUMNS] for view in views],
            cautions=cautions(runs, [view.measured_on for view in views if view.measured]),
            curves=_curves(runs),
            differing=_differing(views),
            checks=list(dict.fromkeys(check.name for view in views for check in view.criticism.checks)),
            sections=_sections(views),
        )
    )


def _sections(views: Sequence[View]) -> dict[str, str]:
    """The figures that some run has, by name, with their headings."""
    drawn = [{name: plot.name for name, plot in view.plots.items() if not plot.reason} for view in views]
    return {
        name: next(each[name] for each in drawn if name in each)
        for name in SIDE_BY_SIDE
        if any(name in each for each in drawn)
    }


def cautions(runs: Sequence[Run], measured_on: Sequence[str]) -> list[str]:
    """What forbids to compare the nats of runs, in sentences.

    Args:
        runs: the runs.
        measured_on: the rows and samples of each evaluation.
    """
    found = []
    if len({run.facts.digest for run in runs}) > 1:
        found.append("These runs saw different data: their nats do not compare.")
    elif len({run.binarization for run in runs}) > 1:
        found.append("These runs see different pixels, binarized or not: their nats do not compare.")
    elif len({str(run.structure.support) for run in runs}) > 1:
        found.append("Some of these runs have densities and some have probabilities: their nats do not compare.")
    if len(set(measured_on)) > 1:
        found.append(
            f"The evaluations differ ({'; '.join(dict.fromkeys(measured_on))}): "
            "run python cli.py evaluate RUN for each, with the same --split and --samples."
        )
    return found


def _cell(view: View, name: str) -> Cell:
    value = view.numbers[name]
    if value is None:
        return Cell("–", None)  # noqa: RUF001
    if name in ("accuracy", "ece"):
        return Cell(f"{100 * value:.1f} %", value)
    if name == "active_units":
        return Cell(f"{value:.0f}", value)
    error = view.numbers["nll_standard_error"] if name == "nll" else None
    return Cell(f"{value:.2f}" + (f" ± {error:.2f}" if error is not None else ""), value)


def _curves(runs: Sequence[Run]) -> Plot:
    text = "Validation ELBO of each run over the epochs"
    names = [f"{index + 1} {run.folder.path.name if run.folder else ''}" for index, run in enumerate(runs)]
    figure = compare_curves({name: run.history for name, run in zip(names, runs, strict=True)})
    return Plot("Training", text, as_svg(figure, "curves", text))


def _differing(views: Sequence[View]) -> list[tuple[str, list[str]]]:
    """The settings in which runs differ: the name, and the value of each run."""
    rows = zip(*(view.settings for view in views), strict=True)
    return [(row[0][0], [value for _, value, _ in row]) for row in rows if len({value for _, value, _ in row}) > 1]


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pyro_vae.page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["style"] = _raw("style.css")
    environment.globals["sorting"] = _raw("sorting.js")
    return environment


def _raw(name: str) -> Any:
    """A file of ours that goes into the page as it is."""
    return Markup((Path(__file__).parent / "templates" / name).read_text())
