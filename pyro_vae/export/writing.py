"""A run's parts as files: recorded, read again, compared with the run, and only then left in place."""

from __future__ import annotations

import contextlib
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from pyro_vae import __version__
from pyro_vae.errors import InputError, nearest
from pyro_vae.export.formats import FORMATS, RECORDED_ROWS, Format
from pyro_vae.export.parts import PARTS, Part
from pyro_vae.files.whole import make_folders, remove_empty, unwritable, whole_file, write_new
from pyro_vae.pairs import turns
from pyro_vae.runs.run import Run

BATCHES = (1, 2, 16)  # rows that a file is tried on: other numbers than it was recorded with
RTOL, ATOL = 1e-3, 1e-4  # of what a file and the run may differ by, in float32


@turns.looking()
def export_run(
    run: Run,
    out: str | Path | None = None,
    to: Literal["torch", "onnx"] = "torch",
    parts: Sequence[str] | None = None,
) -> list[Path]:
    r"""Write encoder, decoder and classifier of a run as programs that need neither Pyro nor this package.

    Each file is read again and compared with the run, on other numbers of rows than it was made with, before anything
    is written.  A JSON file beside them says what inputs and outputs are.  Nothing in the files is random: a latent is
    at the mean of its distribution, labels are averaged over q(y | x).

    Args:
        run: the run; ``pyro_vae.load`` gives one of programs of your own, too.
        out: the folder to write to; default: ``export`` in the run's.
        to: ``torch``, for ``torch.export.load``, or ``onnx``.
        parts: of ``encoder``, ``decoder`` and ``classifier``; default: all that the run has.

    Returns:
        The files, the JSON file last.

    Raises:
        InputError: if a part cannot be exported, with the reason, its file answers other than the run, a package is
            missing, or the place cannot be written.  Nothing is written then.

    Example:
        >>> import pyro_vae
        >>> from pyro_vae.export import export_run
        >>> settings = {"latent_dim": 2, "hidden": (4,), "epochs": 1, "batch_size": 800, "display": False}
        >>> run = pyro_vae.fit(data="toy", labels="none", **settings)
        >>> try:
        ...     export_run(run, "parts", parts=["classifier"])
        ... except ValueError as error:
        ...     print(error)
        expected a model with class labels, for a classifier; got 'vae'; export another --part
    """
    if to not in FORMATS:
        raise InputError("a format to export to", repr(to), nearest(to, FORMATS))
    form = FORMATS[to]
    _check_installed(to, form)
    folder = _folder(run, out)
    with run.pair.looked_at(0):
        rows, of = _rows(run)
        recorded = {name: _recorded(name, run, rows, form) for name in _chosen(run, parts)}
    files = {f"{name}{form.suffix}": content for name, (content, _) in recorded.items()}
    said = {name: {"file": f"{name}{form.suffix}", **about} for name, (_, about) in recorded.items()}
    about = _about(run) | {"format": to, "checked_on": of, "parts": said}
    files[f"{to}.json"] = (json.dumps(about, indent=2, ensure_ascii=False) + "\n").encode()
    return _written(folder, files)


def _recorded(name: str, run: Run, rows: Tensor, form: Format) -> tuple[bytes, dict[str, Any]]:
    """The file of a part, which was read again and compared, and what is said of it."""
    part = PARTS[name](run, rows)
    part.eval()
    content = form.record(part)
    return content, {**_described(part), "largest_difference": _checked(name, part, form, content)}


def _check_installed(to: str, form: Format) -> None:
    missing = [name for name in form.needs if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"the packages {', '.join(form.needs)}, for --to {to}",
            f"no {missing[0]}",
            f"pip install 'pyro-vae[{to}]'",
        )


def _folder(run: Run, out: str | Path | None) -> Path:
    if out is None and run.path is None:
        raise InputError("a folder to export to", "a run in memory, which has none", "give out=…")
    folder = Path(out) if out is not None else Path(str(run.path)) / "export"
    if folder.exists() and not folder.is_dir():
        raise InputError(f"a folder to export to at {folder}", "a file", "choose another --out")
    return folder


def _chosen(run: Run, parts: Sequence[str] | None) -> list[str]:
    if parts is None:
        return [name for name in PARTS if name != "classifier" or run.probed.has_label]
    chosen = list(dict.fromkeys([parts] if isinstance(parts, str) else parts))
    for name in chosen:
        if name not in PARTS:
            raise InputError("a part to export", repr(name), nearest(name, PARTS))
    if not chosen:
        raise InputError(f"parts to export, of {', '.join(PARTS)}", "none", "leave parts out to export all")
    return chosen


def _rows(run: Run) -> tuple[Tensor, str]:
    """Rows to record and to try programs with, and what they are."""
    count = max(*BATCHES, RECORDED_ROWS)
    try:
        found, of = run.split("test")[slice(0, count)].x(), "rows of the test split"
    except InputError:  # the data came as arrays, and are not here
        noise = torch.rand(count, *run.facts.event_shape, generator=torch.Generator().manual_seed(0))
        found, of = noise.round().to(torch.get_default_dtype()), "rows of zeros and ones, since the data are not here"
    found = found.to(run.device)
    return found[torch.arange(count, device=run.device) % len(found)], of


def _described(part: Part) -> dict[str, Any]:
    said, outputs = part.described(), part(*part.inputs.values())
    tensors = {"inputs": part.inputs, "outputs": {name: outputs[name] for name in part.outputs}}
    return {
        kind: {
            name: {"shape": ["rows", *value.shape[1:]], "dtype": str(value.dtype).split(".")[1], "is": said[name]}
            for name, value in values.items()
        }
        for kind, values in tensors.items()
    }


def _checked(name: str, part: Part, form: Format, content: bytes) -> float:
    """The largest difference between a file and the run.

    Raises:
        InputError: if they answer differently, or the file does not run on some number of rows.
    """
    largest = 0.0
    program = form.read(content, part)
    for count in BATCHES:
        inputs = tuple(value[:count].contiguous() for value in part.inputs.values())
        try:
            found = program(inputs)
        except Exception as error:  # of whatever runs the file
            raise InputError(
                f"a file of the {name} that takes any number of rows",
                f"one that does not take {count}: {type(error).__name__}",
                "export another --part, or another --to",
            ) from error
        wanted = part(*inputs) | part.answers(inputs)
        for key, value in wanted.items():
            there, here = found[key].cpu().double(), value.detach().cpu().double()
            if there.shape != here.shape or not torch.allclose(there, here, RTOL, ATOL, equal_nan=True):
                raise InputError(
                    f"a file of the {name} that answers as the run does",
                    f"one whose {key!r} differs by up to {_difference(there, here):.3g}",
                    "export another --part, or another --to",
                )
            largest = max(largest, _difference(there, here))
    return largest


def _difference(there: Tensor, here: Tensor) -> float:
    if there.shape != here.shape:
        return float("inf")
    return float((there - here).abs().nan_to_num().max()) if there.numel() else 0.0


def _about(run: Run) -> dict[str, Any]:
    """What a user of the files has to know of the run."""
    facts = run.facts
    return {
        "pyro_vae": __version__,
        "torch": torch.__version__,
        "model": run.config.model,
        "guide": run.config.guide,
        "likelihood": run.config.likelihood,
        "event_shape": list(facts.event_shape),
        "divide_whole_numbers_by": facts.scale,
        "binarization": run.binarization,
        "class_names": list(facts.class_names),
        "columns": [column.name for column in facts.columns],
    }


def _written(folder: Path, files: dict[str, bytes]) -> list[Path]:
    try:
        made = make_folders(folder)
        try:
            with contextlib.ExitStack() as together:  # all are on the disk before the first is in its place
                for name, content in reversed(files.items()):
                    write_new(together.enter_context(whole_file(folder / name)), content)
        except BaseException:
            remove_empty(made)
            raise
    except OSError as error:
        raise unwritable(folder, error, f"a folder to export to at {folder}", "choose another --out") from None
    return [folder / name for name in files]
