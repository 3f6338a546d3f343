"""``config.json``: the settings of a run, what its data looked like, its format and its name."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pyro_vae.config import FitConfig
from pyro_vae.diagnostics.verdicts import plain
from pyro_vae.errors import InputError, PyroVAEError
from pyro_vae.files.bounded import as_text, first_line, read_json_object
from pyro_vae.files.whole import unreadable
from pyro_vae.runs.checkpoint import DamagedError, checksum
from pyro_vae.runs.data_facts import DataFacts

CONFIG = "config.json"
FORMAT_VERSION = 2
CHANGEABLE = {"epochs", "patience", "lr", "clip_norm", "device"}  # what a resumed run may change
RECORDED = ("lr", "clip_norm", "patience")  # and what of it the history keeps
MAX_TEXT = 2000  # characters of a finding
Content = dict[str, Any]


def new_content(run: str, config: FitConfig, facts: DataFacts) -> Content:
    """The content of the file of a new run."""
    return {"format_version": FORMAT_VERSION, "run": run, "config": config.model_dump(), "data": asdict(facts)}


def changed_content(content: Content, run: str, config: FitConfig) -> Content:
    """The content in today's format, with what may change as a configuration has it, and all else as it was."""
    settings = content["config"] | config.model_dump(include=CHANGEABLE)
    return content | {"format_version": FORMAT_VERSION, "run": run, "config": settings}


def read_content(folder: Path) -> Content:
    """The content of the file in a folder.

    Raises:
        InputError: if a newer version of this package wrote it.
        ValueError: if it is damaged.
        OSError: if it cannot be read.
    """
    content = read_json_object(folder / CONFIG, ("format_version", "config", "data"))
    version = content["format_version"]
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        raise InputError(
            f"a run of format {FORMAT_VERSION} or older at {folder}",
            f"format {as_text(repr(version), 40)}",
            "install a newer pyro-vae to read it",
        )
    if not isinstance(content["config"], dict) or not isinstance(content["data"], dict):
        raise ValueError("config and data are not objects")
    if version > 1 and not isinstance(content.get("run"), str):
        raise ValueError("without run")
    return content


def fixed(content: Content) -> int:
    """The checksum of what cannot change in a configuration; where data lie can, and they know their own."""
    config = {name: value for name, value in content["config"].items() if name not in CHANGEABLE | {"data"}}
    return checksum(json.dumps([config, content["data"]], sort_keys=True).encode())


def check_together(content: Content, run: str, settings: int) -> None:
    """Refuse a configuration that is not the one that the checkpoints beside it were made with.

    Raises:
        ValueError: if the name of the run, which format 1 has not, or the checksum of what cannot change is another.
    """
    if "run" in content:
        if run != content["run"]:
            raise ValueError("its checkpoints are those of another run")
        if settings != fixed(content):
            raise ValueError("settings that cannot change are others than those that the run was made with")


def recorded(config: FitConfig, name: str) -> float:
    """A setting as the history keeps it: a number."""
    value = getattr(config, name)
    return math.inf if value == "none" else float(value)


def read_evaluation(path: Path) -> Content | None:
    """The content of ``evaluation.json``, if there is one.

    Raises:
        InputError: if it is not as it was written; another evaluation mends that.
    """
    try:
        return checked_evaluation(read_json_object(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise broken(path, error, f"write it anew: python cli.py evaluate {path.parent}") from None


def checked_evaluation(content: Content) -> Content:
    """The content of ``evaluation.json``: numbers and texts by name, and findings.

    Raises:
        ValueError: if it is something else.
    """
    findings = content.get("findings", [])
    metrics = [value for name, value in content.items() if name != "findings"]
    if not (
        isinstance(findings, list)
        and all(isinstance(each, dict) and set(each) == {"kind", "found", "mend"} for each in findings)
        and all(isinstance(value, str) for each in findings for value in each.values())
        and all(value is None or isinstance(value, str | int | float) for value in metrics)
    ):
        raise ValueError("not an evaluation")
    texts = [{name: as_text(value, MAX_TEXT) for name, value in each.items()} for each in findings]
    return content | ({"findings": texts} if "findings" in content else {})


def to_bytes(content: Content) -> bytes:
    """Content as JSON; a number that is not finite is null."""
    return (json.dumps(plain(content), indent=2, allow_nan=False) + "\n").encode()


def broken(path: Path, error: Exception, mend: str = "restore it, or fit again with --overwrite") -> PyroVAEError:
    """The refusal of a file that fit wrote and that is not as it wrote it, or cannot be read."""
    expected = "a file that fit wrote at {}"
    if isinstance(error, OSError):
        path = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else path
        if isinstance(error, FileNotFoundError):
            return DamagedError(path, "no such file")
        return unreadable(path, error, expected.format(path), mend)
    return InputError(expected.format(path), first_line(error), mend)
