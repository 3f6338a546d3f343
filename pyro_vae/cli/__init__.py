"""The commands, each a thin layer over a call from Python."""

from pyro_vae.cli import completion, criticism, draw, export, fit, listing, new, sweep
from pyro_vae.cli.app import main

__all__ = ["completion", "criticism", "draw", "export", "fit", "listing", "main", "new", "sweep"]
