"""The checks of a posterior that can be chosen, beside the importance weights, which are always looked at."""

CHECKS = {
    "gap": "the inference gap, split into approximation and amortization",
    "calibration": "ranks and coverage on data that the model makes",
    "nuts": "the guide's moments against those of an independent sampler",
    "latents": "active units, divergences, posterior collapse",
    "aggregate": "the latents of all data against the prior",
    "convergence": "of the optimization, from iterates of its parameters",
    "labels": "accuracy and calibration of q(y | x)",
}
