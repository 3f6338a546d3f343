"""What the terminal shows and takes: the flags of a configuration, tables, JSON, errors in one line."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from pyro_vae.cli.streams import discard_output, flush_output, open_missing_streams, take_any_text
from pyro_vae.cli.verbose import with_verbose
from pyro_vae.config import FitConfig
from pyro_vae.distributed import ElsewhereError, is_one_of_several, may_speak
from pyro_vae.errors import InputError, PyroVAEError
from pyro_vae.files.bounded import as_text, first_line

if TYPE_CHECKING:
    from pyro_vae.diagnostics.criticism import Criticism

STOPPED = 130  # by Ctrl-C, before or after training
LONGEST = 1000  # characters of an error
WIDEST = 200  # characters of a table in a file
F = TypeVar("F", bound=Callable[..., Any])


class OneLineErrors(click.Group):
    """A group that says every error in one line on standard error, with its exit status; its commands take ``-v``."""

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        super().add_command(with_verbose(cmd), name)

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any) -> NoReturn:  # type: ignore[override]
        open_missing_streams()
        take_any_text()
        try:
            _check_process()
            super().main(args, prog_name or "pyro-vae", **(extra | {"standalone_mode": False}))
            flush_output()
            sys.exit(0)
        except ElsewhereError as error:
            sys.exit(error.exit_status)
        except PyroVAEError as error:
            _fail(str(error), error.exit_status)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message())
            sys.exit(2)
        except click.UsageError as error:
            mend = f"; try '{error.ctx.command_path} --help'" if error.ctx else ""
            _fail(error.format_message().replace("\n", " ").rstrip(".") + mend, 2)
        except click.ClickException as error:
            _fail(error.format_message(), 2)
        except (click.Abort, KeyboardInterrupt) as error:
            stopped = error.__cause__ or error  # click wraps it
            status = getattr(stopped, "exit_status", STOPPED)
            if is_one_of_several() and not _has_path(stopped):  # the process that writes the run says where it is
                sys.exit(status)
            _fail(_how_to_go_on(stopped), status, label="")
        except OSError as error:
            discard_output()
            _fail(_of_the_system(error), 2 if error.errno in _OF_A_PATH else 1)
        except Exception as error:
            if os.environ.get("PYRO_VAE_TRACEBACK"):
                raise
            _fail(_unforeseen(error), 1)


def _check_process() -> None:
    """Refuse a Python that drops docstrings, since Pyro formats one of its own when it is loaded, or is nowhere."""
    if sys.flags.optimize > 1:
        raise InputError(
            "Python as it is, or with -O", "-OO or PYTHONOPTIMIZE=2, with which Pyro does not start", "leave that out"
        )
    try:
        os.getcwd()
    except OSError:  # without one a library that torch loads ends the process
        raise InputError("a current folder", "one that was removed or may not be entered", "cd to another") from None


def config_options(command: F) -> F:
    """Give a command one flag per field of ``FitConfig``; a flag that is not given is None."""
    for name, field in reversed(FitConfig.model_fields.items()):
        default = ",".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
        variable = None if name == "data" else f"PYRO_VAE_{name.upper()}"  # PYRO_VAE_DATA is the folder of downloads
        shown = f"  [default: {default}]" if default or (default == 0 and default is not False) else ""
        flag, text = f"--{name.replace('_', '-')}", f"{field.description}{shown}"
        if isinstance(default, bool):
            option = click.option(f"{flag}/--no-{flag[2:]}", name, default=None, envvar=variable, help=text)
        else:
            option = click.option(flag, name, envvar=variable, metavar=_metavar(default), help=text)
        command = option(command)
    return command


def rows(metrics: dict[str, Any], skip: str = "") -> dict[str, str]:
    """Metrics as text for a table, without what its title says already."""
    hidden = {"model", "guide", "data", "split", "findings", skip}
    return {
        name: f"{value:.4g}" if isinstance(value, float) and name in ("accuracy", "ece") else _shown(value)
        for name, value in metrics.items()
        if name not in hidden
    }


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else as_text(value)


def table(title: str, rows: dict[str, Any]) -> None:
    """Print names and values under a title; a list is several lines, and text from elsewhere is never more than one."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    console.print(title, style="bold", soft_wrap=True, markup=False)
    table = Table(show_header=False, box=None, padding=(0, 2))
    for name, value in rows.items():
        lines = value if isinstance(value, list) else [value]
        table.add_row(Text(name), Text("\n".join(as_text(line, LONGEST) for line in lines)))
    console.print(table)
    click.echo()


def grid(title: str, rows: list[dict[str, str]]) -> None:
    """Print rows under a heading, the first column to the left and metrics to the right, and a title above."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDEST)
    console.print(title, style="bold", soft_wrap=True, markup=False)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for place, name in enumerate(rows[0]):
        table.add_column(Text(name), justify="right" if place else "left", no_wrap=place > 0)
    for row in rows:
        table.add_row(*map(Text, row.values()))
    console.print(table)
    click.echo()


def verdicts(title: str, criticism: Criticism) -> None:
    """Print every check with its verdict and what it rests on, and the verdict on the whole."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    console.print(title, style="bold", soft_wrap=True, markup=False)
    table = Table("check", "verdict", "found", box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.columns[0].no_wrap = table.columns[1].no_wrap = True
    for check in criticism.checks:
        word = "not known" if check.verdict is None else check.verdict.value
        table.add_row(check.name, f"[{_COLORS[word]}]{word}[/]", escape(check.finding))
    console.print(table)
    word = criticism.verdict.value
    console.print(f"\nVerdict: [bold {_COLORS[word]}]{word}[/]")
    click.echo()


_COLORS = {"trust": "green", "trust with care": "yellow", "do not trust": "red", "not known": "dim"}


def matrix(title: str, matrices: dict[str, dict[str, dict[str, str]]]) -> None:
    """Print what goes with what, by group, row and column, and below the table why the others do not."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    console.print(title, style="bold", markup=False)
    columns = list(next(iter(next(iter(matrices.values())).values())))
    table = Table("", *columns, box=None, padding=(0, 1, 0, 0))
    reasons: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    for name, group in matrices.items():
        table.add_row(Text(name), style="dim")
        for row, entries in group.items():
            table.add_row(Text(row), *("-" if reason else "yes" for reason in entries.values()))
            for column, reason in entries.items():
                if reason:
                    rows, where = reasons.setdefault(reason, ({}, {}))
                    rows[row], where[column] = None, None
    console.print(table)
    for reason, (rows, where) in reasons.items():
        console.print(f"\n{', '.join(rows)} with {', '.join(where)}: {reason}", markup=False)
    click.echo()


def print_json(content: dict[str, Any]) -> None:
    """Print one JSON object on standard output; a number that is not finite is null."""
    from pyro_vae.diagnostics.verdicts import plain

    click.echo(json.dumps(plain(content)))  # which escapes what is not ASCII


def _metavar(default: Any) -> str:
    if isinstance(default, float):
        return "X"
    return "N" if isinstance(default, int) or default is None else "NAME"


def _fail(message: str, status: int, label: str = "Error: ") -> NoReturn:
    with contextlib.suppress(OSError, ValueError):  # nobody may be listening
        if may_speak():
            click.echo(as_text(f"{label}{message}", LONGEST), err=True)
    with contextlib.suppress(OSError, ValueError):
        flush_output()
    sys.exit(status)


_OF_A_PATH = {
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.ENOENT, errno.ENOTDIR, errno.EISDIR),
    *(errno.EACCES, errno.EPERM, errno.EROFS),
}


def _of_the_system(error: OSError) -> str:
    """What the system refused, and of which file."""
    if error.errno == errno.EPIPE:
        return "standard output was closed before everything was said"
    where = f" ({as_text(error.filename)})" if error.filename is not None else ""
    return f"the system says: {error.strerror or error}{where}; mend that and try again"


def _unforeseen(error: Exception) -> str:
    """Memory that is not there, a number that nothing can hold, or a fault of this package, in one line."""
    reason = first_line(error)
    if isinstance(error, ImportError) and ("failed to map" in reason or "allocate" in reason):
        return f"there is not enough memory to load what is needed: {reason}; raise the limit (ulimit -v)"
    if isinstance(error, MemoryError) or "allocate" in reason or "out of memory" in reason.lower():
        return f"there is not enough memory for that: {reason}; ask for less, for example by --batch-size or --samples"
    if isinstance(error, OverflowError):
        return f"a number is too large: {reason}; use a smaller one"
    return f"unforeseen, {type(error).__name__}: {reason}; PYRO_VAE_TRACEBACK=1 shows where"


def _has_path(error: BaseException) -> bool:
    """Whether it is a training that was stopped, whose run has a directory."""
    return getattr(getattr(error, "run", None), "path", None) is not None


def _how_to_go_on(error: BaseException) -> str:
    if not _has_path(error):
        hints = [hint for hint in getattr(error, "__notes__", ()) if hint]
        return f"Stopped; {hints[0]}" if hints else "Stopped."
    run = error.run  # type: ignore[attr-defined]
    from pyro_vae.runs.run import count  # late: it imports torch, which a stopped run has

    done = count(len(run.history), "whole epoch")
    return f"Stopped after {done} and saved; go on with: python cli.py fit --resume {run.path}"
