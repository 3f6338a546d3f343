"""``-v``: what the package logs at debug level, on standard error, with the seconds since the start."""

from __future__ import annotations

import contextlib
import logging
from typing import Any

import click

from pyro_vae.distributed import may_speak
from pyro_vae.files.bounded import as_text

LONGEST = 1000  # characters of a line


def with_verbose(command: click.Command) -> click.Command:
    """Give a command the flag ``-v``."""
    taken = {name for param in command.params for name in param.opts}
    if not taken & {"-v", "--verbose"}:
        command.params.append(
            click.Option(
                ["-v", "--verbose"],
                is_flag=True,
                expose_value=False,
                is_eager=True,
                callback=_speak_up,
                help="say more: times, graphs, and why things are done as they are",
            )
        )
    return command


def _speak_up(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing or not may_speak():
        return
    logger = logging.getLogger("pyro_vae")
    handler, level = _OnStandardError(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)

    def calm() -> Any:
        logger.removeHandler(handler)
        logger.setLevel(level)

    ctx.call_on_close(calm)


class _OnStandardError(logging.Handler):
    """Writes where nothing else takes the lines; while a run is shown, its display does, bar or not."""

    def emit(self, record: logging.LogRecord) -> None:
        if logging.getLogger("pyro_vae").handlers[-1] is not self:
            return
        with contextlib.suppress(OSError, ValueError):  # nobody may be listening
            click.echo(as_text(record.getMessage(), LONGEST), err=True)
