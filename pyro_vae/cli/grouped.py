"""The help of a command with many flags: the five that matter first, then the others by what they are about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
from pydantic import BaseModel

from pyro_vae.config import DataConfig, ProgramConfig, TrainingConfig

FIRST = ("model", "data", "labels", "epochs", "out")
GROUPS: dict[str, type[BaseModel]] = {"Data": DataConfig, "Model and guide": ProgramConfig, "Training": TrainingConfig}
OTHERS = "The run"


class Grouped(click.Command):
    """A command that fits: its flags by group, those that matter first on top.

    Args:
        first: the names of these.
    """

    def __init__(self, *args: Any, first: Sequence[str] = FIRST, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._first = first

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the flags, a section per group."""
        sections: dict[str, list[tuple[str, str]]] = {}
        parameters = [(param, param.get_help_record(ctx)) for param in self.get_params(ctx)]
        by_name = {str(param.name): record for param, record in parameters if record is not None}
        sections["First"] = [by_name[name] for name in self._first]
        for title in (*GROUPS, OTHERS):
            names = [name for name in by_name if name not in self._first and group_of(name) == title]
            sections[title] = [by_name[name] for name in names]
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl(rows)


def group_of(name: str) -> str:
    """The group of a flag: that whose settings it is among."""
    return next((title for title, settings in GROUPS.items() if name in settings.model_fields), OTHERS)
