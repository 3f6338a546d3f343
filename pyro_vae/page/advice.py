"""What to do about each check that does not say trust, in one sentence with the command or setting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ADVICE = {
    "importance weights": "Look at the rows that diagnosis.json names, then scale the data (--scale, --standardize), "
    "or fit with a smaller --lr.",
    "Pareto k-hat": "Fit a guide with wider tails or a richer family (--guide full_rank, --guide iaf); "
    "until then, do not rely on importance-weighted numbers of data above the limit.",
    "inference gap": "Ask whether family or encoder is to blame: python cli.py diagnose RUN --check gap.",
    "moments": "Fit a richer --guide, or take draws of NUTS for the data that matter: "
    "python cli.py diagnose RUN --nuts 16.",
    "NUTS": "Take NUTS as the reference for the data that matter, and fit a richer --guide or a larger encoder.",
    "calibration (SBC)": "Do not use the guide's intervals yet: fit a richer --guide, and train longer (--epochs).",
    "latent units": "Let beta rise (--beta linear:0:1:20), give each latent free bits (--objective free_bits), "
    "or take a weaker decoder or fewer dimensions (--latent-dim).",
    "convergence (SVI)": "Train longer (--epochs), or let the rate fall: --lr-schedule cosine.",
    "aggregate posterior": "Samples from this prior do not lie where the data do: fit a prior that learns its shape "
    "(--prior vampprior, --prior flow).",
    "labels": "Do not read the probabilities of classes as such: give more labels (--labels), "
    "or calibrate them on held-out data.",
}
FAMILY = "The family is the larger part: fit a richer one (--guide full_rank, --guide iaf)."
ENCODER = (
    "The encoder is the larger part, not the family: train longer, let the rate fall (--lr-schedule cosine), "
    "or make it larger (--hidden 400,400)."
)
UNKNOWN = "docs/diagnosis.md says what the check asks, and from which number on it says what."


def advice(check: Mapping[str, Any]) -> str:
    """What to do about a check of ``diagnosis.json``; empty where there is nothing to do.

    Example:
        >>> from pyro_vae.page.advice import advice
        >>> advice({"name": "latent units", "verdict": "trust"})
        ''
        >>> advice({"name": "convergence (SVI)", "verdict": "trust with care"})
        'Train longer (--epochs), or let the rate fall: --lr-schedule cosine.'
    """
    if check.get("verdict") in (None, "trust"):
        return ""
    name = str(check.get("name"))
    if name != "gap, split":
        return ADVICE.get(name, UNKNOWN)
    family, encoder = (_number(check.get(part)) for part in ("approximation_gap", "amortization_gap"))
    return FAMILY if family > encoder else ENCODER


def _number(value: Any) -> float:
    """A gap, which may stand as a number or as an estimate with its error."""
    value = value.get("mean") if isinstance(value, Mapping) else value
    return float(value) if isinstance(value, int | float) else 0.0
