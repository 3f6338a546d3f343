"""A model and its guide, run together: structure, draws, terms of the bound, effect handlers."""

from pyro_vae.pairs.draws import Draws, draw, draw_terms
from pyro_vae.pairs.handlers import temper
from pyro_vae.pairs.labels import label_distribution
from pyro_vae.pairs.pair import Pair, ProbedPair
from pyro_vae.pairs.structure import Structure
from pyro_vae.pairs.terms import Terms

__all__ = ["Draws", "Pair", "ProbedPair", "Structure", "Terms", "draw", "draw_terms", "label_distribution", "temper"]
