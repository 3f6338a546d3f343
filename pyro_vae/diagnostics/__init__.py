"""Criticism of a fitted pair: likelihoods, calibration, gaps, the latent space, and a verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyro_vae import lazy

if TYPE_CHECKING:
    from pyro_vae.diagnostics.aggregate import AggregatePosterior, aggregate_posterior
    from pyro_vae.diagnostics.classifier import (
        Reliability,
        accuracy,
        confusion_matrix,
        expected_calibration_error,
        reliability,
    )
    from pyro_vae.diagnostics.criticism import Criticism, criticise, criticise_pair
    from pyro_vae.diagnostics.effort import Effort
    from pyro_vae.diagnostics.evaluation import Evaluation, evaluate, nll_per_datum
    from pyro_vae.diagnostics.factor_scores import Disentanglement, disentanglement
    from pyro_vae.diagnostics.gaps import InferenceGap, inference_gap
    from pyro_vae.diagnostics.importance import Importance, importance_sample
    from pyro_vae.diagnostics.latent_units import LatentUse, latent_use
    from pyro_vae.diagnostics.refinement import Refinement
    from pyro_vae.diagnostics.sbc import SBC, simulation_based_calibration

__all__ = [
    "SBC",
    "AggregatePosterior",
    "Criticism",
    "Disentanglement",
    "Effort",
    "Evaluation",
    "Importance",
    "InferenceGap",
    "LatentUse",
    "Refinement",
    "Reliability",
    "accuracy",
    "aggregate_posterior",
    "confusion_matrix",
    "criticise",
    "criticise_pair",
    "disentanglement",
    "evaluate",
    "expected_calibration_error",
    "importance_sample",
    "inference_gap",
    "latent_use",
    "nll_per_datum",
    "reliability",
    "simulation_based_calibration",
]

__getattr__, __dir__ = lazy.attach(
    __name__,
    {
        "AggregatePosterior": "aggregate",
        "aggregate_posterior": "aggregate",
        "Reliability": "classifier",
        "accuracy": "classifier",
        "confusion_matrix": "classifier",
        "expected_calibration_error": "classifier",
        "reliability": "classifier",
        "Criticism": "criticism",
        "criticise": "criticism",
        "criticise_pair": "criticism",
        "Disentanglement": "factor_scores",
        "disentanglement": "factor_scores",
        "Effort": "effort",
        "Evaluation": "evaluation",
        "evaluate": "evaluation",
        "nll_per_datum": "evaluation",
        "InferenceGap": "gaps",
        "inference_gap": "gaps",
        "Importance": "importance",
        "importance_sample": "importance",
        "Refinement": "refinement",
        "LatentUse": "latent_units",
        "latent_use": "latent_units",
        "SBC": "sbc",
        "simulation_based_calibration": "sbc",
    },
)
