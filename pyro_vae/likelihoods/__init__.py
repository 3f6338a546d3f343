"""Likelihoods p(x | z), one kind of values per file."""

from pyro_vae.likelihoods.base import LIKELIHOODS, Likelihood
from pyro_vae.likelihoods.categories import Categorical, Codes
from pyro_vae.likelihoods.counts import NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial
from pyro_vae.likelihoods.located import Gaussian, Laplace
from pyro_vae.likelihoods.mixed import Columns, ColumnSupports, Mixed
from pyro_vae.likelihoods.seen_pixels import KnowsMissing, SeenPixels, leave_out_missing
from pyro_vae.likelihoods.shares import Bernoulli, Binomial, BinomialShare, ContinuousBernoulli, Shares
from pyro_vae.likelihoods.standardized import InUnits, Standardized
from pyro_vae.registry import import_siblings

import_siblings(__name__, __path__)

__all__ = [
    "LIKELIHOODS",
    "Bernoulli",
    "Binomial",
    "BinomialShare",
    "Categorical",
    "Codes",
    "ColumnSupports",
    "Columns",
    "ContinuousBernoulli",
    "Gaussian",
    "InUnits",
    "KnowsMissing",
    "Laplace",
    "Likelihood",
    "Mixed",
    "NegativeBinomial",
    "Poisson",
    "SeenPixels",
    "Shares",
    "Standardized",
    "ZeroInflatedNegativeBinomial",
    "leave_out_missing",
]
