"""The command line: one function per command, no logic of its own.

Flags are made from the fields of ``FitConfig``.  torch and Pyro load inside the commands, so that ``--help`` is quick.
Exit status: 0 done, 1 a run that failed, 2 bad usage or bad input, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import click

from pyro_vae import __version__
from pyro_vae.cli.terminal import OneLineErrors
from pyro_vae.cli.verbose import with_verbose


@click.group(cls=OneLineErrors, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="pyro-vae")
def main() -> None:
    """Variational autoencoders as ordinary Pyro programs, fast, and checked."""


with_verbose(main)
