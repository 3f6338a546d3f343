"""Criticism of a fitted pair: likelihoods, calibration, gaps, the latent space, and a verdict."""

from pyro_vae.diagnostics.aggregate import AggregatePosterior, aggregate_posterior
from pyro_vae.diagnostics.annealing import Annealing, annealed_bound, annealed_bracket
from pyro_vae.diagnostics.calibration import (
    Reliability,
    accuracy,
    confusion_matrix,
    expected_calibration_error,
    reliability,
)
from pyro_vae.diagnostics.comparison import Comparison, compare_mcmc
from pyro_vae.diagnostics.criticism import Criticism, criticise
from pyro_vae.diagnostics.evaluation import Evaluation, evaluate, nll_per_datum
from pyro_vae.diagnostics.gaps import InferenceGap, inference_gap
from pyro_vae.diagnostics.importance import Importance, importance_sample
from pyro_vae.diagnostics.latent import LatentUse, latent_use
from pyro_vae.diagnostics.sbc import SBC, simulation_based_calibration

__all__ = [
    "SBC",
    "AggregatePosterior",
    "Annealing",
    "Comparison",
    "Criticism",
    "Evaluation",
    "Importance",
    "InferenceGap",
    "LatentUse",
    "Reliability",
    "accuracy",
    "aggregate_posterior",
    "annealed_bound",
    "annealed_bracket",
    "compare_mcmc",
    "confusion_matrix",
    "criticise",
    "evaluate",
    "expected_calibration_error",
    "importance_sample",
    "inference_gap",
    "latent_use",
    "nll_per_datum",
    "reliability",
    "simulation_based_calibration",
]
