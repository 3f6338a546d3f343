"""The commands, each a thin layer over a call from Python."""

from pyro_vae.cli import criticism, draw, fit, listing
from pyro_vae.cli.app import main

__all__ = ["criticism", "draw", "fit", "listing", "main"]
