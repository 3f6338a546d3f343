"""What the page says of one run: read from its directory, measured anew where that is quick, never written there."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from pyro_vae import __version__
from pyro_vae.config import FitConfig
from pyro_vae.diagnostics.classifier import accuracy, confusion_matrix, expected_calibration_error, reliability
from pyro_vae.errors import InputError
from pyro_vae.figures.classifier import confusion, reliability_diagram
from pyro_vae.figures.training import elbo_curves
from pyro_vae.files.bounded import as_text, first_line, read_json_object
from pyro_vae.option_types import shown
from pyro_vae.page.advice import advice
from pyro_vae.page.plots import Plot, as_image, as_svg
from pyro_vae.runs import report
from pyro_vae.runs.current import CHECKPOINTS, CURRENT
from pyro_vae.runs.data_facts import IN_MEMORY
from pyro_vae.runs.folder import DIAGNOSIS
from pyro_vae.runs.run import Run, count

logger = logging.getLogger(__name__)

NUM_SAMPLES, NUM_RECONSTRUCTED = 64, 30
MAX_PNG = 2_000_000  # bytes of one figure of a diagnosis
WORDS = {"trust": "trust", "trust with care": "care", "do not trust": "refuse"}  # verdicts, as the style has them
MEASURES = {  # of an evaluation, in the order of the page
    "nll": ("NLL", "minus the importance-weighted log p(x), nats per datum; lower is better"),
    "elbo": ("ELBO", "the evidence lower bound, nats per datum; higher is better"),
    "log_likelihood": ("E[log p(x|z)]", "its reconstruction term, nats per datum"),
    "kl": ("KL", "KL(q(z|x) || p(z)), nats per datum"),
    "active_units": ("active units", "latent dimensions that carry information about x"),
    "effective_samples": ("effective samples", "of the importance weights, the median over the data"),
    "accuracy": ("accuracy", "the share of labels that q(y|x) gets right"),
    "ece": ("calibration error", "the expected calibration error of q(y|x)"),
}
DIAGNOSED = {  # figures of a diagnosis, and what is seen in them
    "k_hat": "Pareto k-hat of each datum's importance weights",
    "worst": "The data with the largest k-hat",
    "ranks": "Ranks of the truth among posterior draws of simulated data, which are uniform where calibrated",
    "coverage": "How often intervals hold the truth, beside how often they should",
    "latents": "What each latent unit carries",
    "aggregate": "The latents of all data beside the prior",
}


@dataclass(frozen=True)
class Check:
    """One check of a diagnosis, as the page shows it.

    Args:
        name: of the check.
        verdict: in words.
        style: the class of the verdict's style.
        finding: what it rests on.
        advice: what to do about it; empty where there is nothing.
    """

    name: str
    verdict: str
    style: str
    finding: str
    advice: str


@dataclass(frozen=True)
class Criticism:
    """The saved diagnosis of a run, or why there is none.

    Args:
        checks: in their order.
        verdict: on the whole, in words; empty where there is none.
        style: the class of its style.
        about: what was looked at.
        note: what is missing or out of date, in a sentence; empty where nothing is.
        command: the command that makes it.
    """

    checks: tuple[Check, ...] = ()
    verdict: str = ""
    style: str = "unknown"
    about: str = ""
    note: str = ""
    command: str = ""


@dataclass(frozen=True)
class View:
    """One run, ready for the page.

    Args:
        key: letters and digits that no other run of the page has.
        path: of the run, as it was given.
        title: model, guide and data.
        facts: names and values.
        settings: name, value, and whether it is not the default.
        commands: which make the run again.
        measured: the evaluation: name, value, meaning.
        measured_on: which rows it is of, in words.
        findings: what the run found wrong with itself: what, and what would mend it.
        numbers: metrics for comparing, by name.
        criticism: the diagnosis.
        plots: the figures, by name.
        diagnosed: the figures of the diagnosis.
        notes: what is missing, in sentences with the command that makes it.
    """

    key: str
    path: str
    title: str
    facts: dict[str, str]
    settings: list[tuple[str, str, bool]]
    commands: list[str]
    measured: list[tuple[str, str, str]]
    measured_on: str
    findings: list[tuple[str, str]]
    numbers: dict[str, float | None]
    criticism: Criticism
    plots: dict[str, Plot]
    diagnosed: list[Plot]
    notes: list[tuple[str, str]] = field(default_factory=list)


def view_of(run: Run, key: str) -> View:
    """Read and draw everything that the page shows of a run."""
    assert run.folder is not None
    config, path = run.config, str(run.folder.path)
    evaluation, notes = _evaluation(run)
    rows = run.facts.num_data
    facts = {
        "Run": path,
        "Data": f"{config.data}: {run.facts.split}" if run.facts.split else config.data,
        "One datum": " x ".join(map(str, run.facts.event_shape)),
        "Rows": f"{rows[0]:,} train, {rows[1]:,} validation, {rows[2]:,} test",
        "Classes": ", ".join(run.facts.class_names) or "none",
        "Training": f"{count(len(run.history), 'epoch')} of {config.epochs}, seed {config.seed}",
        "Parameters": f"{sum(p.numel() for p in run.pair.parameters().values()):,}",
        "Shown with": f"pyro_vae {__version__}",
    }
    findings = evaluation.get("findings", [])
    return View(
        key,
        path,
        f"{config.model} + {config.guide} on {config.data}",
        facts,
        _settings(config),
        commands(config, path),
        [
            (word, _number(name, evaluation[name]), what)
            for name, (word, what) in MEASURES.items()
            if name in evaluation
        ],
        _measured_on(evaluation),
        [(each["found"], each["mend"]) for each in findings],
        {name: _finite(evaluation.get(name)) for name in (*MEASURES, "nll_standard_error")},
        criticism_of(run),
        _plots(run, key),
        _diagnosed(run),
        notes,
    )


def commands(config: FitConfig, path: str) -> list[str]:
    """What makes a run again: the command with every setting that is not the default, and the one that reads them all.

    Example:
        >>> from pyro_vae import FitConfig
        >>> from pyro_vae.page.view import commands
        >>> commands(FitConfig(model="hvae", epochs=5), "runs/mine")[0]
        'python cli.py fit --model hvae --epochs 5'
    """
    if config.data == IN_MEMORY or "." in config.model.partition(":")[0] or "." in config.guide.partition(":")[0]:
        settings = [f"{name}={getattr(config, name)!r}" for name in _changed(config, "model", "guide", "data")]
        programs = ["model" if "." in config.model else repr(config.model)]
        programs.append("guide" if "." in config.guide else repr(config.guide))
        data = "data=data" if config.data == IN_MEMORY else f"data={config.data!r}"
        return [f"pyro_vae.fit({', '.join([*programs, data, *settings])})"]
    words = ["python cli.py fit"]
    words += [f"--{name.replace('_', '-')} {shlex.quote(_typed(getattr(config, name)))}" for name in _changed(config)]
    return [" ".join(words), f"python cli.py fit --config {shlex.quote(f'{path}/config.json')}"]


def _changed(config: FitConfig, *but: str) -> list[str]:
    """The settings that are not the default."""
    defaults = {name: each.get_default() for name, each in FitConfig.model_fields.items()}
    return [name for name, default in defaults.items() if name not in but and getattr(config, name) != default]


def _settings(config: FitConfig) -> list[tuple[str, str, bool]]:
    changed = _changed(config)
    return [(name, _typed(value), name in changed) for name, value in config]


def _typed(value: Any) -> str:
    """A setting as it is typed after its flag."""
    if isinstance(value, Mapping):
        return ";".join(f"{name}={each}" for name, each in value.items())
    return "none" if value is None else shown(value)


def _evaluation(run: Run) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """What was measured, and what is missing of it."""
    assert run.folder is not None
    command = f"python cli.py evaluate {shlex.quote(str(run.folder.path))}"
    try:
        found = run.folder.evaluation
    except InputError as error:
        return {}, [(f"The evaluation cannot be read: {first_line(error)}", command)]
    if found is None or "elbo" not in found:
        return found or {}, [("The run has not been evaluated.", command)]
    return found, []


def _measured_on(evaluation: Mapping[str, Any]) -> str:
    rows, split, samples = (as_text(evaluation.get(name, "?")) for name in ("num_data", "split", "num_samples"))
    return f"{rows} rows of {split}, {samples} importance samples each"


def criticism_of(run: Run) -> Criticism:
    """The diagnosis that lies in a run's directory."""
    assert run.folder is not None
    folder = run.folder.path
    command = f"python cli.py diagnose {shlex.quote(str(folder))}"
    try:
        content = read_json_object(folder / DIAGNOSIS)
        checks = tuple(_check(each) for each in content["checks"])
    except FileNotFoundError:
        return Criticism(note="The posterior of this run has not been criticised.", command=command)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return Criticism(note=f"{DIAGNOSIS} cannot be read: {first_line(error)}", command=command)
    verdict = as_text(content.get("verdict") or "not known")
    about = f"{as_text(content.get('num_data'))} data of {as_text(content.get('split'))}, "
    about += f"{as_text(content.get('num_samples'))} importance samples each"
    note = "The run was trained on after this diagnosis." if _is_older(folder) else ""
    return Criticism(checks, verdict, WORDS.get(verdict, "unknown"), about, note, command if note else "")


def _check(content: Mapping[str, Any]) -> Check:
    word = as_text(content["verdict"] or "not known")
    style = WORDS.get(word, "unknown")
    return Check(as_text(content["name"]), word, style, as_text(content["finding"], 400), advice(content))


def _is_older(folder: Path) -> bool:
    try:
        return (folder / DIAGNOSIS).stat().st_mtime < (folder / CHECKPOINTS / CURRENT).stat().st_mtime
    except OSError:
        return False


def _plots(run: Run, key: str) -> dict[str, Plot]:
    """The figures of a run, drawn; a reason in the place of each that cannot be."""
    figures: dict[str, tuple[str, str, Callable[[], Figure]]] = {
        "curves": ("Training", "Bound, KL and accuracy over the epochs", lambda: elbo_curves(run.history)),
        "samples": (
            "Samples",
            "Images drawn from the model",
            lambda: _pictures(run, report.samples_figure, NUM_SAMPLES),
        ),
        "classes": ("Classes", "Images by class and style", lambda: _by_class(run)),
        "reconstructions": (
            "Reconstructions",
            "Images and what the model makes of them",
            lambda: _pictures(run, report.reconstructions_figure, NUM_RECONSTRUCTED),
        ),
        "traversal": ("Traversal", "Images along latent dimensions", lambda: report.traverse_figure(run)),
        "latent": ("Latent map", "Where test data lie in the latent space", lambda: report.latent_figure(run)),
        "reliability": ("Calibration", "Accuracy beside confidence", lambda: reliability_diagram(_reliability(run))),
        "confusion": ("Confusion", "Labels beside the classes that were found", lambda: _confusion(run)),
    }
    if run.facts.columns:
        text = "The columns of test rows and of rows from the model"
        figures["columns"] = ("Columns", text, lambda: report.columns_figure(run))
    return {name: _plot(f"{key}{name}", *each) for name, each in figures.items()}


def _pictures(run: Run, draw: Callable[[Run, int], Figure], num: int) -> Figure:
    report.check_are_pictures(run)
    return draw(run, num)


def _plot(key: str, name: str, text: str, draw: Callable[[], Figure]) -> Plot:
    try:
        return Plot(name, text, as_svg(draw(), key, text))
    except Exception as error:  # of any kind: the page shows all that can be shown, and says what cannot
        logger.info(f"{name}: {first_line(error)}")
        return Plot(name, text, reason=first_line(error))


def _by_class(run: Run) -> Figure:
    if not run.class_matters:
        raise InputError("a model that generates by class", f"{run.config.model!r}", "fit one: --model ss_vae")
    return report.classes_figure(run)


def _classified(run: Run) -> tuple[Any, Any]:
    """q(y | x) of the test rows that have a label, and the labels."""
    if not run.structure.has_label:
        raise InputError("a model with class labels", f"{run.config.model!r}", "fit one: --model ss_vae")
    labelled = run.split("test").labelled()
    if labelled is None:
        raise InputError("test rows with a label", "none", "label some of the data")
    return run.class_probabilities(labelled.values()), labelled.labels


def _reliability(run: Run) -> Any:
    return reliability(*_classified(run))


def _confusion(run: Run) -> Figure:
    return confusion(confusion_matrix(*_classified(run)), run.facts.class_names)


def labels_sentence(run: Run) -> str:
    """Accuracy and calibration on the test rows that have a label, in a sentence; empty where there are none."""
    try:
        probabilities, labels = _classified(run)
    except InputError:
        return ""
    right, error = accuracy(probabilities, labels), expected_calibration_error(probabilities, labels)
    found = f"{100 * right:.1f} % of {len(labels):,} labelled test rows are classified rightly"
    return f"{found}; the expected calibration error is {100 * error:.1f} %."


def _diagnosed(run: Run) -> list[Plot]:
    """The figures that a diagnosis left."""
    assert run.folder is not None
    plots = []
    for name, text in DIAGNOSED.items():
        path = run.folder.figures / "diagnosis" / f"{name}.png"
        try:
            if path.is_file() and path.stat().st_size <= MAX_PNG:
                plots.append(Plot(name, text, as_image(path.read_bytes(), text)))
        except OSError as error:
            plots.append(Plot(name, text, reason=first_line(error)))
    return plots


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _number(name: str, value: Any) -> str:
    if value is None:
        return "not a number"
    if name in ("accuracy", "ece"):
        return f"{100 * float(value):.1f} %"
    return f"{value:,}" if isinstance(value, int) else f"{value:.2f}" if isinstance(value, float) else as_text(value)
