"""What two processes make of a mapped file, and one: a whole run, and one that is stopped and goes on."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

import pyro_vae
import pyro_vae.data.mapped as mapped
from pyro_vae.data.batches import Batches
from pyro_vae.runs import report
from pyro_vae.runs.display import Silent

torch.set_num_threads(1)
SETTINGS = {
    "model": "ss_vae",
    "memory": "3KB",
    "labels": "all",
    "hidden": (8,),
    "latent_dim": 2,
    "batch_size": 25,
    "epochs": 2,
    "compile": "off",
}


class Stopping(Silent):
    """A display that ends the training in the middle of its second epoch."""

    def start(self, trainer):
        self.trainer = trainer

    def step(self, progress):
        self.trainer.stop_requested |= progress.epoch == 1 and progress.step == 7


def trained(folder: Path) -> dict[str, Any]:
    """The first pixels of the rows of each step of a run, its history, its weights, and how often the file was read."""
    rows, surveys, batch, survey = [], [], Batches.batch, mapped.survey

    def note(batches, indices, part=None):
        found = batch(batches, indices, part)
        if part is None:
            rows.append([each.pixels[:, 0, 0].tolist() for each in (found.unlabelled, found.labelled)])
        return found

    def count(*arguments):
        surveys.append(survey(*arguments))
        return surveys[-1]

    Batches.batch, mapped.survey = note, count
    try:
        run = pyro_vae.fit(data=folder / "x.npy", display=False, **SETTINGS)
    finally:
        Batches.batch, mapped.survey = batch, survey
    return {"rows": rows, "surveys": len(surveys), **facts_of(run)}


def resumed(folder: Path) -> dict[str, Any]:
    """The history and the weights of the same run, stopped in the middle of its second epoch, which goes on."""
    write, report.write_report = report.write_report, lambda run: None  # for it takes most of the time
    try:
        pyro_vae.fit(data=folder / "x.npy", out=folder / "run", display=Stopping(), **SETTINGS)
    except pyro_vae.Interrupted:
        return facts_of(pyro_vae.resume(folder / "run", display=False))
    finally:
        report.write_report = write
    raise AssertionError("it was not stopped")


def facts_of(run: pyro_vae.Run) -> dict[str, Any]:
    weights = sum(value.double().abs().sum().item() for value in run.pair.state_dict().values())
    return {"history": run.history.to_dict("list"), "weights": weights}


if __name__ == "__main__":
    place = Path(sys.argv[1])
    found = trained(place) | {"again": resumed(place)}
    (place / f"found.{os.environ['RANK']}").write_text(json.dumps(found))
