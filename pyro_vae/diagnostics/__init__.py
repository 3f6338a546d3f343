"""Criticism of a fitted pair: likelihoods, active units, calibration."""

from pyro_vae.diagnostics.calibration import accuracy, expected_calibration_error
from pyro_vae.diagnostics.evaluation import Evaluation, evaluate

__all__ = ["Evaluation", "accuracy", "evaluate", "expected_calibration_error"]
