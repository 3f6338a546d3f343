"""Criticism of a fitted pair: likelihoods, active units, calibration."""

from pyro_vae.diagnostics.calibration import accuracy, expected_calibration_error
from pyro_vae.diagnostics.evaluation import Evaluation, evaluate, nll_per_datum

__all__ = ["Evaluation", "accuracy", "evaluate", "expected_calibration_error", "nll_per_datum"]
