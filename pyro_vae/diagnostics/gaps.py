r"""The inference gap, split into approximation and amortization.

With L[q] the ELBO of the guide on a datum and L[q*] that of the best member q* of its family for this very datum,

    log p(x) - L[q] = (log p(x) - L[q*]) + (L[q*] - L[q]),

the first part is what the *family* costs and the second what computing q from x by one network for all data costs.
Cremer, Li and Duvenaud, *Inference Suboptimality in Variational Autoencoders*, 2018, found 1.43 and 1.34 nats on MNIST
with diagonal normals.

Every term is estimated by draws of its own.  The ELBOs are means over draws that neither the search for q* nor the
choice between q and q* has seen, so the best of two does not look better than it is; both use the same noise, so that
their difference is precise.  log p(x) stands in by the largest of its lower bounds, on average over the data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pyro_vae.diagnostics.local_families import local_family
from pyro_vae.diagnostics.refinement import Refined, Refinement, refine
from pyro_vae.errors import InputError
from pyro_vae.pairs.draws import draw
from pyro_vae.pairs.memory import at_once
from pyro_vae.pairs.seeding import begin_noise
from pyro_vae.posterior.annealing import Annealing, annealed_bound
from pyro_vae.posterior.target import Target
from pyro_vae.shapes import Bool, Float

CHOOSING = 200  # draws per datum for the choice between q and q*
BY_REFINED = "importance weights of the refined guide"
BY_GUIDE = "importance weights of the guide"
BY_ANNEALING = "annealed importance sampling"
Estimates = Callable[[int], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Gap:
    """A mean over the data, nats.

    Args:
        mean: over the data.
        standard_error: the standard error of the mean, over data drawn like these; NaN for a single one.
    """

    mean: float
    standard_error: float

    @classmethod
    def from_values(cls, per_datum: Float[Tensor, "N"]) -> Gap:
        """The mean and its error from numbers of shape (N,)."""
        error = per_datum.std().item() / math.sqrt(len(per_datum)) if len(per_datum) > 1 else math.nan
        return cls(per_datum.mean().item(), error)


@dataclass(frozen=True)
class InferenceGap:
    """The inference gap of N data and its parts; the tensors have shape (N,), nats.

    Args:
        elbo: L[q], of the guide.
        refined_elbo: L[q*], of the best member of the family for each datum, or of the guide where none better was
            found.
        log_likelihood: the estimate of log p(x), a lower bound in expectation.
        refined: whether a better member was found, bool.
        family: the family that q* is from; the guide's own, if it could be searched.
        source: where the estimate of log p(x) comes from.
        num_samples: draws per datum and estimate.
        steps: the steps of the search.
        converged: whether the mean ELBO had stopped rising when it ended.
        trace: the mean ELBO of each round of the search.

    Example:
        >>> from pyro_vae.diagnostics import inference_gap
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import LinearGaussian
        >>> from pyro_vae.networks import MLP
        >>> from pyro_vae.pairs import Pair
        >>> from pyro_vae.posterior import Target
        >>> model, x = LinearGaussian((3,), latent_dim=1, scale=0.5), torch.randn(2, 3)
        >>> pair = Pair(model, MeanField(model, network=MLP(hidden=(8,))))
        >>> gap = inference_gap(Target(pair.probe(x), x), num_samples=100)
        >>> gap.family, gap.refined.tolist()  # its best normals are better than those of a network without training
        ("the guide's own", [True, True])
    """

    elbo: Float[Tensor, "N"]
    refined_elbo: Float[Tensor, "N"]
    log_likelihood: Float[Tensor, "N"]
    refined: Bool[Tensor, "N"]
    family: str
    source: str
    num_samples: int
    steps: int
    converged: bool
    trace: tuple[float, ...]

    @property
    def inference_gap(self) -> Gap:
        """The inference gap, log p(x) - L[q]: the sum of the other two."""
        return self._gap(self.log_likelihood, self.elbo)

    @property
    def approximation_gap(self) -> Gap:
        """The approximation gap, log p(x) - L[q*]: what the family costs."""
        return self._gap(self.log_likelihood, self.refined_elbo)

    @property
    def amortization_gap(self) -> Gap:
        """The amortization gap, L[q*] - L[q]: what one network for all data costs."""
        return self._gap(self.refined_elbo, self.elbo)

    @property
    def num_excluded(self) -> int:
        """The data with a number that is not finite; no mean of theirs has them in it."""
        return int((~self._finite).sum())

    @property
    def _finite(self) -> Bool[Tensor, "N"]:
        return self.elbo.isfinite() & self.refined_elbo.isfinite() & self.log_likelihood.isfinite()

    def _gap(self, above: Float[Tensor, "N"], below: Float[Tensor, "N"]) -> Gap:
        return Gap.from_values((above - below)[self._finite])

    def as_dict(self) -> dict[str, Any]:
        """Means and their standard errors as plain numbers, None where one is not known."""
        metrics: dict[str, Any] = {"num_data": len(self.elbo), "num_excluded": self.num_excluded}
        for name in ("elbo", "refined_elbo", "log_likelihood"):
            metrics[name] = _plain(getattr(self, name)[self._finite].mean().item())
        for name in ("inference_gap", "approximation_gap", "amortization_gap"):
            gap: Gap = getattr(self, name)
            metrics |= {name: _plain(gap.mean), f"{name}_standard_error": _plain(gap.standard_error)}
        names = ("family", "source", "num_samples", "steps", "converged")
        return metrics | {name: getattr(self, name) for name in names}


def inference_gap(
    target: Target,
    *,
    num_samples: int = 2000,
    refinement: Refinement | None = None,
    annealing: Annealing | None = None,
    seed: int = 0,
) -> InferenceGap:
    """Split the inference gap of some data.

    Args:
        target: the posterior of N data.
        num_samples: draws per datum for the ELBOs and the importance weights.
        refinement: how q* is searched; default: ``Refinement()``.
        annealing: how log p(x) is annealed; None leaves it to the importance weights.
        seed: the seed of the draws.

    Raises:
        InputError: if there are no draws to take, or the guide has nothing to refine and samples a discrete site.

    Example:
        >>> from pyro_vae.diagnostics import inference_gap
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import LinearGaussian
        >>> from pyro_vae.networks import MLP
        >>> from pyro_vae.pairs import Pair
        >>> from pyro_vae.posterior import Target
        >>> model, x = LinearGaussian((3,), latent_dim=1, scale=0.5), torch.randn(2, 3)  # its posteriors are normal
        >>> pair = Pair(model, MeanField(model, network=MLP(hidden=(8,))))
        >>> gap = inference_gap(Target(pair.probe(x), x), num_samples=100)
        >>> gap.approximation_gap.mean < gap.amortization_gap.mean  # the network is at fault: it is not trained
        True
    """
    if num_samples < 1:
        raise InputError("at least one draw per datum", str(num_samples), "use num_samples=2000")
    sizes = num_samples, at_once(len(target.x) * target.probed.widest(target.x)), seed
    with target.pair.looked_at(seed, gradients=True):
        family = local_family(target)
        search = refine(family, refinement or Refinement())
        best = _Better(_guide(target), partial(family.estimates, search.parameters), sizes)
    candidates = {BY_REFINED: best.log_likelihood, BY_GUIDE: best.guide_log_likelihood}
    if annealing is not None:
        bound = annealed_bound(target, annealing, seed)
        candidates[BY_ANNEALING] = bound.log_likelihood.cpu()
    return _split(best, candidates, family.name, num_samples, search)


def _split(
    best: _Better, candidates: Mapping[str, Tensor], family: str, num_samples: int, search: Refined
) -> InferenceGap:
    """The gap, with the largest of the estimates of log p(x), each of which is a lower bound in expectation."""
    source = max(candidates, key=lambda name: candidates[name].nan_to_num(-math.inf).mean().item())
    return InferenceGap(
        elbo=best.guide_elbo,
        refined_elbo=best.elbo,
        log_likelihood=candidates[source],
        refined=best.refined,
        family=family,
        source=source,
        num_samples=num_samples,
        steps=search.steps,
        converged=search.converged,
        trace=search.trace,
    )


class _Better:
    """The better of the guide and the refined guide for each datum, chosen and estimated by different draws."""

    def __init__(self, guide: Estimates, refined: Estimates, sizes: tuple[int, int, int]) -> None:
        num_samples, size, seed = sizes
        first, second = (_estimate(q, CHOOSING, size, seed + 1)[0] for q in (guide, refined))
        self.refined = second.nan_to_num(-math.inf) > first.nan_to_num(-math.inf)
        self.guide_elbo, self.guide_log_likelihood = _estimate(guide, num_samples, size, seed + 2)
        elbo, log_likelihood = _estimate(refined, num_samples, size, seed + 2)
        self.elbo = torch.where(self.refined, elbo, self.guide_elbo)
        self.log_likelihood = torch.where(self.refined, log_likelihood, self.guide_log_likelihood)


def _guide(target: Target) -> Estimates:
    """The ELBO, shape (N,), and log importance weights, shape (S, N), of S draws from the guide."""
    if target.probed.data_dim is None:

        def of_all(num_samples: int) -> tuple[Float[Tensor, "N"], Float[Tensor, "S N"]]:
            draws = target.draw(num_samples)
            return draws.log_weight.mean(0), draws.log_evidence_weight

        return of_all

    def of_each(num_samples: int) -> tuple[Float[Tensor, "N"], Float[Tensor, "S N"]]:
        with torch.no_grad():
            terms = draw(target.probed, target.x, target.y, num_samples, scaled=False).terms
        return terms.elbo, terms.log_weights

    return of_each


def _estimate(
    estimates: Estimates, num_samples: int, size: int, seed: int
) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
    """The ELBO and the importance-weighted log-likelihood, shape (N,), a few draws at a time."""
    begin_noise(seed)
    elbo, totals = torch.zeros((), dtype=torch.float64), []
    for start in range(0, num_samples, size):
        count = min(size, num_samples - start)
        found, log_weights = estimates(count)
        elbo = elbo + found.double().cpu() * (count / num_samples)
        totals.append(log_weights.double().cpu().logsumexp(0))
    return elbo, torch.stack(totals).logsumexp(0) - math.log(num_samples)


def _plain(number: float) -> float | None:
    return number if math.isfinite(number) else None
