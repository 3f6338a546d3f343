"""The commands, each a thin layer over a call from Python."""

from pyro_vae.cli import criticism, draw, export, fit, listing, sweep
from pyro_vae.cli.app import main

__all__ = ["criticism", "draw", "export", "fit", "listing", "main", "sweep"]
