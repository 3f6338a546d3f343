"""The commands that draw pictures."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pyro_vae.cli.app import main
from pyro_vae.cli.options import (
    UserPath,
    checkpoint_option,
    data_option,
    device_option,
    json_option,
    open_run,
    out_option,
    run_argument,
    seed_option,
    site_option,
    split_option,
)
from pyro_vae.cli.terminal import print_json
from pyro_vae.errors import InputError, nearest

if TYPE_CHECKING:
    import pandas as pd

    from pyro_vae.runs.run import Run


@main.command(
    epilog="""\b
Examples:
  python cli.py sample runs/digits
  python cli.py sample runs/digits --label 7 --num 100 --out sevens.png
"""
)
@run_argument
@click.option("--num", type=int, default=64, show_default=True, help="how many images, or rows of a table")
@click.option("--label", help="the class to generate, by name")
@click.option("--given", type=UserPath(), help="a table of covariates, one row or --num  [default: the data's]")
@checkpoint_option
@data_option
@device_option
@seed_option
@out_option
@json_option
def sample(
    run: Path,
    num: int,
    label: str | None,
    given: Path | None,
    checkpoint: str,
    data: str | None,
    device: str,
    seed: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Draw images from the model into a PNG, or rows of a table into a CSV file."""
    from pyro_vae.runs import report

    opened = open_run(run, checkpoint, device, data)
    if opened.facts.columns:
        from pyro_vae.data.tables import read_table_file

        rows = None if given is None else read_table_file(given)
        made = opened.sample(num, y=_class_index(opened, label), seed=seed, x=rows)
        _save_table(opened, made, out, _file_name(opened, "samples", label), as_json)
        return
    if given is not None:
        raise InputError("a run on a table, for --given", "one without columns", "leave out --given")
    figure = report.samples_figure(opened, num, _class_index(opened, label), seed)
    _save(opened, figure, out, _file_name(opened, "samples", label), as_json)


@main.command(
    epilog="""\b
Examples:
  python cli.py reconstruct runs/digits
  python cli.py reconstruct runs/digits --split train --num 10
"""
)
@run_argument
@click.option("--num", type=click.IntRange(min=1), default=30, show_default=True, help="how many images")
@split_option
@checkpoint_option
@data_option
@device_option
@out_option
@json_option
def reconstruct(
    run: Path, num: int, split: str, checkpoint: str, data: str | None, device: str, out: Path | None, as_json: bool
) -> None:
    """Put images beside their reconstructions into a PNG, or rows of a table into a CSV file."""
    from pyro_vae.runs import report

    opened = open_run(run, checkpoint, device, data)
    if opened.facts.columns:
        _save_table(opened, report.reconstructions_table(opened, num, split), out, "reconstructions", as_json)
        return
    _save(opened, report.reconstructions_figure(opened, num, split), out, "reconstructions", as_json)


@main.command(
    epilog="""\b
Examples:
  python cli.py traverse runs/digits
  python cli.py traverse runs/digits --dims 5 --span 2
"""
)
@run_argument
@site_option
@click.option(
    "--num", type=click.IntRange(min=2), help="the side of the grid, or the images per row  [default: 20, or 11]"
)
@click.option(
    "--dims", type=click.IntRange(min=1), help="rows of the most active dimensions  [default: 10; a plane is a grid]"
)
@click.option(
    "--span",
    type=click.FloatRange(min=0, min_open=True),
    help="rows from -span to span standard deviations  [default: 3]",
)
@click.option("--label", help="the class to hold, by name")
@checkpoint_option
@data_option
@device_option
@seed_option
@out_option
@json_option
def traverse(
    run: Path,
    site: str | None,
    num: int | None,
    dims: int | None,
    span: float | None,
    label: str | None,
    checkpoint: str,
    data: str | None,
    device: str,
    seed: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Walk through the latent space: a grid over a plane, or a row per dimension."""
    from pyro_vae.runs import report

    opened = open_run(run, checkpoint, device, data)
    figure = report.traverse_figure(opened, site, num, dims, span, _class_index(opened, label), seed)
    _save(opened, figure, out, _file_name(opened, "traverse", label), as_json)


@main.command(
    epilog="""\b
Examples:
  python cli.py interpolate runs/digits
  python cli.py interpolate runs/digits --between 3,7 --num 12
"""
)
@run_argument
@click.option("--between", metavar="I,J", help="the rows of two images in the split  [default: five pairs, drawn]")
@split_option
@site_option
@click.option("--num", type=click.IntRange(min=2), default=9, show_default=True, help="how many points on each line")
@click.option("--label", help="the class to hold, by name  [default: the nearer image's]")
@checkpoint_option
@data_option
@device_option
@seed_option
@out_option
@json_option
def interpolate(
    run: Path,
    between: str | None,
    split: str,
    site: str | None,
    num: int,
    label: str | None,
    checkpoint: str,
    data: str | None,
    device: str,
    seed: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Lead from one image to another: what the model makes of the line between their latents."""
    from pyro_vae.runs import report

    images = None if between is None else _two_rows(between)
    opened = open_run(run, checkpoint, device, data)
    figure = report.interpolation_figure(opened, images, site, num, _class_index(opened, label), split, seed)
    name = "interpolate" if images is None else f"interpolate-{images[0]}-{images[1]}"
    _save(opened, figure, out, _file_name(opened, name, label), as_json)


@main.command(
    epilog="""\b
Examples:
  python cli.py latent runs/digits
  python cli.py latent runs/digits --method tsne --split train --num 1000
"""
)
@run_argument
@split_option
@site_option
@click.option("--num", type=click.IntRange(min=2), default=2000, show_default=True, help="how many images at most")
@click.option(
    "--method", default="pca", show_default=True, metavar="NAME", help="pca, tsne or umap, of three dimensions and more"
)
@checkpoint_option
@data_option
@device_option
@out_option
@json_option
def latent(
    run: Path,
    split: str,
    site: str | None,
    num: int,
    method: str,
    checkpoint: str,
    data: str | None,
    device: str,
    out: Path | None,
    as_json: bool,
) -> None:
    """Map where the images lie in the latent space, coloured by class."""
    from pyro_vae.runs import report

    opened = open_run(run, checkpoint, device, data)
    name = "latent" if method == "pca" else f"latent-{method}"
    _save(opened, report.latent_figure(opened, split, site, num, method), out, name, as_json)


@main.command(
    epilog="""\b
Examples:
  python cli.py animate runs/digits
  python cli.py animate runs/digits --fps 5 --out training.mp4
"""
)
@run_argument
@click.option("--fps", type=click.IntRange(1, 50), default=10, show_default=True, help="frames per second")
@click.option(
    "--out",
    type=UserPath(),
    help="a .gif or, where ffmpeg is installed, .mp4 file  [default: training.gif in the run's figures]",
)
@json_option
def animate(run: Path, fps: int, out: Path | None, as_json: bool) -> None:
    """Show the training as a GIF or MP4: the same latent points, epoch after epoch."""
    from pyro_vae.runs import animation
    from pyro_vae.runs.folder import RunFolder

    folder = RunFolder.open(run)
    frames = animation.read_frames(folder)
    path = out or folder.figures / "training.gif"
    animation.write_moving(frames, path, fps)
    _say_written(run, path, as_json)


@main.command(
    epilog="""\b
Examples:
  python cli.py report runs/digits                  # runs/digits/report.html
  python cli.py report runs/vae runs/hvae --out both.html
"""
)
@click.argument("runs", nargs=-1, required=True, type=UserPath(), metavar="RUN [RUN …]")
@checkpoint_option
@data_option
@device_option
@click.option(
    "--out", type=UserPath(), help="the HTML file  [default: report.html, or comparison.html, in the first run]"
)
@json_option
def report(
    runs: tuple[Path, ...], checkpoint: str, data: str | None, device: str, out: Path | None, as_json: bool
) -> None:
    """Show a run, or several side by side, on one page: an HTML file that needs nothing else.

    Settings and how to make the run again, curves, samples, reconstructions, the latent space, the criticism that
    diagnose left with what to do about each verdict, accuracy and calibration.  What cannot be shown is named, with the
    reason; nothing is measured that takes long.
    """
    from pyro_vae.page import write_page

    path = write_page([open_run(run, checkpoint, device, data) for run in runs], out)
    if as_json:
        print_json({"runs": [str(run) for run in runs], "page": str(path)})
    else:
        click.echo(f"Wrote {path}")


def _two_rows(between: str) -> tuple[int, int]:
    """The two rows of ``--between``."""
    if not re.fullmatch(r"\s*\d{1,18}\s*,\s*\d{1,18}\s*", between, re.ASCII):
        raise InputError("two rows, for --between", repr(between), "write them as in --between 3,7")
    first, second = map(int, between.split(","))
    return first, second


def _class_index(run: Run, label: str | None) -> int | None:
    names = run.facts.class_names
    if label is None or label not in names:
        if label is not None and names:
            raise InputError("a class of this run", repr(label), nearest(label, names))
        return None if label is None else 0  # without classes, Run.sample says that the model has no labels
    return names.index(label)


def _file_name(run: Run, name: str, label: str | None) -> str:
    """The name of a figure of a class: with the class's own where that can be part of a file's, else its index."""
    if label is None:
        return name
    is_plain = re.fullmatch(r"[A-Za-z0-9][\w.-]{0,63}", label, re.ASCII)
    return f"{name}-{label if is_plain else f'class-{run.facts.class_names.index(label)}'}"


def _save(run: Run, figure: Any, out: Path | None, name: str, as_json: bool) -> None:
    from pyro_vae.figures.saving import save_figure

    assert run.folder is not None
    path = out or run.folder.figures / f"{name}.png"
    save_figure(figure, path)
    _say_written(run.folder.path, path, as_json)


def _save_table(run: Run, made: pd.DataFrame, out: Path | None, name: str, as_json: bool) -> None:
    from pyro_vae.files.whole import write_picture

    assert run.folder is not None
    path = out or run.folder.figures / f"{name}.csv"
    write_picture(path, lambda aside: made.to_csv(aside, index=False), "a table")
    _say_written(run.folder.path, path, as_json)


def _say_written(run: Path, path: Path, as_json: bool) -> None:
    if as_json:
        print_json({"run": str(run), "figure": str(path)})
    else:
        click.echo(f"Wrote {path}")
