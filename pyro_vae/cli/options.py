"""Flags and arguments that several commands have, said once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pyro_vae.option_types import LARGEST_SEED

if TYPE_CHECKING:
    from pyro_vae.runs.run import Run


class UserPath(click.Path):
    """A path as a person types it: ``~`` is the home folder, where the shell has not said so already."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path."""
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        try:
            return path.expanduser()
        except RuntimeError as error:
            self.fail(f"{error} for {path}", param, ctx)


json_option = click.option("--json", "as_json", is_flag=True, help="print one JSON object on standard output")
split_option = click.option(
    "--split", default="test", metavar="NAME", help="train, validation or test  [default: test]"
)
checkpoint_option = click.option("--checkpoint", default="best", metavar="NAME", help="best or last  [default: best]")
device_option = click.option(
    "--device", default="auto", envvar="PYRO_VAE_DEVICE", metavar="NAME", help="auto, cpu or cuda"
)
data_option = click.option(
    "--data", metavar="NAME", help="the run's data, where they came as arrays or lie elsewhere now: a name or a path"
)
seed_option = click.option(
    "--seed", type=click.IntRange(0, LARGEST_SEED), default=0, envvar="PYRO_VAE_SEED", show_default=True
)
run_argument = click.argument("run", type=UserPath())
site_option = click.option(
    "--site", metavar="NAME", help="the latent site  [default: the one with the most active units]"
)
out_option = click.option("--out", type=UserPath(), help="the PNG file  [default: in the run's figures]")


def open_run(path: Path, checkpoint: str, device: str, data: str | None = None) -> Run:
    """The run in a directory, with the weights of a checkpoint, on a device, and with its data from elsewhere."""
    from pyro_vae.runs import fitting

    return fitting.load(path, checkpoint=checkpoint, device=device, data=data)
