"""Kinds of Pyro programs with exact answers, and what pyro_vae says of each.

``kinds`` says what a kind is; the files beside it enter kinds; ``asking`` asks for everything and holds the answers
against the exact ones; ``benchmarks/programs.py`` prints the table.
"""

from benchmarks.programs import discrete, families, forms, gaussian, mistakes, named, shared
from benchmarks.programs.asking import OPERATIONS, Cell, ask
from benchmarks.programs.kinds import KINDS, Kind

__all__ = [
    "KINDS",
    "OPERATIONS",
    "Cell",
    "Kind",
    "ask",
    "discrete",
    "families",
    "forms",
    "gaussian",
    "mistakes",
    "named",
    "shared",
]
