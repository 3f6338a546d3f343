r"""Bernoulli log-likelihoods on the CPU, written as what is fastest there.

With logits l a term is -max(l, 0) + l x - log(1 + e) with e = exp(-|l|).  e lies in [0, 1], where log(1 + e) = e P(e)
with a polynomial P of degree 9 to 6e-9 of its value, which takes a third of the time of a ``log1p`` that is right
everywhere.

Where a pixel is almost surely black e and the probability 1 / (1 + exp(-l)), which the gradient holds, are subnormal,
and a processor takes thirty times as long for such numbers.  |l| is therefore taken to be at most 80 in e, and -l in
the probability, which changes either by less than 2e-35.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.polynomial import Chebyshev, Polynomial
from torch import Tensor, fx

from pyro_vae.compiled.inlining import inline

LARGEST_LOGIT = 80.0
DEGREE = 9

aten = torch.ops.aten


def rewrite_bernoulli(graph: fx.Graph, node: fx.Node) -> None:
    """Rewrite a node in place where it is the cross-entropy of logits, and the probabilities of the same logits."""
    if node.target is not aten.binary_cross_entropy_with_logits.default:
        return
    logits, x, *options = node.args
    if any(option is not None for option in options[:2]) or (options[2:] or [1])[0] != 0:
        return  # weighted, or summed up
    assert isinstance(logits, fx.Node)
    if logits.meta["val"].dtype == torch.float32:
        for user in [user for user in logits.users if user.target is aten.sigmoid.default]:
            user.replace_all_uses_with(inline(graph, user, _probability, logits))
            graph.erase_node(user)
    node.replace_all_uses_with(inline(graph, node, _entropy, logits, x))
    graph.erase_node(node)


def _entropy(logits: Tensor, x: Tensor) -> Tensor:
    return logits.clamp(min=0) - logits * x + _log1p(logits.abs().clamp(max=LARGEST_LOGIT).neg().exp())


def _probability(logits: Tensor) -> Tensor:
    return 1 / (1 + logits.neg().clamp(max=LARGEST_LOGIT).exp())


def _log1p(e: Tensor) -> Tensor:
    """log(1 + e) for e in [0, 1]."""
    if e.dtype != torch.float32:
        return e.log1p()
    highest, *others = reversed(coefficients())
    value = e * highest
    for coefficient in others:
        value = (value + coefficient) * e
    return value


@cache
def coefficients() -> tuple[float, ...]:
    """The coefficients of P, of rising powers: log(1 + e) / e at the Chebyshev nodes of [0, 1]."""
    fit = Chebyshev.interpolate(lambda e: np.log1p(e) / e, DEGREE, domain=[0, 1])
    return tuple(float(c) for c in fit.convert(kind=Polynomial).coef)
