"""From metrics to plain words: whether a posterior can be believed, check by check.

Each check looks at one result and gives a verdict with the metrics that it rests on.  The thresholds are those of the
literature where there are any:

- k-hat up to min(1 - 1 / log10 S, 0.7) is usable (Vehtari et al. 2024); the guide is believed where nine data in ten
  are, and refused where half are not.
- The gap log p(x) - ELBO = KL(q(z | x) || p(z | x)) is looked at per latent dimension in use.  For a normal, 0.02 nats
  are a standard deviation that is off by 15 % or a mean by 0.2 of it, 0.25 nats one that is half as large as it should
  be, or a mean that is off by 0.7.
- Moments are believed up to 10 % of the standard deviation and 0.2 of it for the mean, and refused beyond 30 % and 0.5.
- A test's p-value says that something is wrong, with many data however little; its size is judged by the coverage.

Checks of the group "posterior" make the verdict on the whole.  The others, on the model and on its labels, warn.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal

from torch import Tensor

from pyro_vae.arviz_bridge.pareto import GOOD_K_HAT
from pyro_vae.diagnostics.aggregate import AggregatePosterior
from pyro_vae.diagnostics.classifier import Reliability
from pyro_vae.diagnostics.convergence import LARGEST_ITERATE_R_HAT, Convergence
from pyro_vae.diagnostics.gaps import InferenceGap
from pyro_vae.diagnostics.importance import Importance
from pyro_vae.diagnostics.latent_units import LatentUse
from pyro_vae.diagnostics.sbc import SBC
from pyro_vae.posterior.mcmc import Chains
from pyro_vae.shapes import Float

Subject = Literal["posterior", "model", "labels"]

FEW_BAD, MANY_BAD = 0.1, 0.5  # shares of data with a k-hat above the limit
SMALL_GAP, LARGE_GAP = 0.02, 0.25  # nats per latent dimension in use
CLOSE_SD, FAR_SD = 1.1, 1.3  # factors
CLOSE_MEAN, FAR_MEAN = 0.2, 0.5  # standard deviations
SMALLEST_P = 0.002  # a false alarm in 500 checks
CLOSE_COVERAGE = 0.05
LARGEST_ECE = 0.05
MOST_AT_REST = 0.9  # the share of parameters
CLOSE_AGGREGATE = 0.01  # of the relative energy distance


class Verdict(StrEnum):
    """What to do with a result; the members are in order, the worst last."""

    TRUST = "trust"
    CARE = "trust with care"
    REFUSE = "do not trust"

    @classmethod
    def worst(cls, verdicts: Iterable[Verdict]) -> Verdict:
        """The last of some verdicts in that order."""
        return max(verdicts, key=list(cls).index, default=cls.CARE)


@dataclass(frozen=True)
class Check:
    """One question, and what was found.

    Args:
        name: the name of the check.
        verdict: what follows from it; None where it could not be made.
        finding: the metrics that the verdict rests on, in a sentence.
        metrics: all its metrics, by name.
        group: what it is about.
    """

    name: str
    verdict: Verdict | None
    finding: str
    metrics: dict[str, Any] = field(default_factory=dict)
    group: Subject = "posterior"

    def as_dict(self) -> dict[str, Any]:
        """Everything, plain."""
        verdict = None if self.verdict is None else self.verdict.value
        return {"name": self.name, "group": self.group, "verdict": verdict, "finding": self.finding} | self.metrics


def judge_weights(found: Importance) -> Check:
    """Whether the importance weights are numbers."""
    bad, total = int(found.num_bad.sum()), found.log_weights.numel()
    data = int((found.num_bad > 0).sum())
    finding = f"{bad:,} of {total:,} are NaN or infinite, for {data:,} data" if bad else f"all {total:,} are finite"
    return Check("importance weights", _graded(bad > 0, bad > 0), finding, {"num_bad": bad, "num_weights": total})


def judge_k_hat(found: Importance) -> Check:
    """Whether the guide's tails cover the posterior's, datum by datum."""
    k_hat, limit = found.k_hat, found.k_limit
    share, middling = _share(k_hat > limit), _share(k_hat > GOOD_K_HAT)
    verdict = _graded(share > FEW_BAD, share > MANY_BAD)
    finding = f"{100 * (1 - share):.0f} % of data up to {limit:.2f}; median {_number(k_hat.median())}, "
    finding += f"largest {_number(k_hat.max())}"
    metrics = {"limit": limit, "share_above_limit": share, "share_above_half": middling}
    return Check("Pareto k-hat", verdict, finding, metrics | _spread(k_hat))


def judge_gap(found: Importance, dimensions: int) -> Check:
    """How many nats the guide is away from the posterior, by importance weights: a lower bound of that distance.

    Args:
        found: the weights.
        dimensions: the latent dimensions in use.
    """
    gap = found.log_likelihood.mean().item() - found.elbo.mean().item()
    each = gap / max(1, dimensions)
    finding = f"log p(x) {found.log_likelihood.mean():.2f}, ELBO {found.elbo.mean():.2f}: a gap of {gap:.2f} nats "
    finding += f"over {dimensions} {'dimension' if dimensions == 1 else 'dimensions'} in use"
    error = found.standard_error.square().mean().sqrt().item() / math.sqrt(len(found.k_hat))
    metrics = {
        "log_likelihood": found.log_likelihood.mean().item(),
        "log_likelihood_standard_error": error,
        "elbo": found.elbo.mean().item(),
        "gap": gap,
        "gap_per_dimension": each,
        "ess": found.ess.median().item(),
    }
    wrong = not math.isfinite(each)
    return Check("inference gap", _graded(wrong or each > SMALL_GAP, wrong or each > LARGE_GAP), finding, metrics)


def judge_split(found: InferenceGap, dimensions: int) -> Check:
    """The inference gap and its parts, by a tighter estimate of log p(x) than the guide's weights give.

    Args:
        found: the gap.
        dimensions: the latent dimensions in use.
    """
    whole = found.inference_gap.mean
    parts = f"{found.approximation_gap.mean:.2f} by its family ({found.family}), "
    parts += f"{found.amortization_gap.mean:.2f} by amortization"
    each = whole / max(1, dimensions)
    finding = f"{whole:.2f} nats from the posterior: {parts}"
    wrong = not math.isfinite(each)
    verdict = _graded(wrong or each > SMALL_GAP, wrong or each > LARGE_GAP)
    return Check("gap, split", verdict, finding, found.as_dict())


def judge_moments(found: Importance) -> Check:
    """The guide's means and standard deviations beside those of its weighted draws, where these can be relied on."""
    if not found.names:
        return Check("moments", None, "no latent that is continuous")
    usable = found.k_hat <= found.k_limit
    if not usable.any():
        return Check("moments", None, "no datum has weights that tell the posterior's moments")
    noise = 1 / found.ess[usable]  # of each mean in units of its standard deviation, squared
    error = (found.mean_error[usable].square() - noise).clamp(min=0).sqrt().median().item()
    ratio = found.sd_ratio[usable].median().item()
    return _moments("moments", error, ratio, f"{int(usable.sum()):,} data", {"num_data": int(usable.sum())})


def judge_chains(mean_error: Float[Tensor, "N"], sd_ratio: Float[Tensor, "N"], chains: Chains) -> Check:
    """The guide's moments beside those of NUTS, of the data whose chains have mixed if these are half of them.

    Args:
        mean_error: per datum, in standard deviations of the reference, shape (N,).
        sd_ratio: per datum, the guide's over the reference's, shape (N,).
        chains: the chains of the same data.
    """
    usable = chains.usable.cpu()
    num_usable = int(usable.sum())
    metrics = chains.as_dict() | {"num_usable": num_usable}
    if 2 * num_usable < len(usable):
        return Check("NUTS", None, f"no reference: {'; '.join(chains.reasons)}", metrics)
    error, ratio = mean_error[usable].median().item(), sd_ratio[usable].median().item()
    check = _moments("NUTS", error, ratio, f"{num_usable} data", metrics)
    left = len(usable) - num_usable
    return replace(check, finding=f"{check.finding}; no reference for {left} more") if left else check


def judge_calibration(found: SBC) -> Check:
    """Whether the guide's posteriors hold the truth as often as they say, on data that the model makes."""
    off = max(abs(each.observed.mean().item() - each.nominal) for each in found.coverage)
    widest = found.coverage[1]
    wrong = found.p_value <= SMALLEST_P
    finding = f"p = {found.p_value:.3f}; {100 * widest.nominal:.0f} % intervals hold "
    finding += f"{100 * widest.observed.mean().item():.0f} % of truths"
    directions = [direction for direction in found.directions if direction]
    if wrong and directions:
        finding += f"; most often {max(set(directions), key=directions.count)}"
    metrics = found.as_dict() | {"largest_coverage_error": off}
    return Check("calibration (SBC)", _graded(wrong, wrong and off > CLOSE_COVERAGE), finding, metrics)


def judge_latent_units(found: LatentUse) -> Check:
    """Whether the latents say anything of the data."""
    finding = found.warning or f"{found.num_active} of {found.num_units} units are active, KL {found.kl:.2f} nats"
    return Check("latent units", _graded(bool(found.warning), False), finding, found.as_dict(), "model")


def judge_convergence(found: Convergence) -> Check:
    """Whether the optimization had come to rest, from the iterates of its parameters."""
    share = _share(found.r_hat <= LARGEST_ITERATE_R_HAT)
    finding = f"{100 * share:.0f} % of {len(found.r_hat)} parameters have R-hat up to {LARGEST_ITERATE_R_HAT} "
    finding += f"over the last {found.num_steps} iterates; median {_number(found.r_hat.median())}"
    return Check("convergence (SVI)", _graded(share < MOST_AT_REST, False), finding, found.as_dict(), "model")


def judge_aggregate(found: AggregatePosterior) -> Check:
    """Whether the latents of the data are spread as the prior says."""
    relative, metrics = found.test.relative, found.as_dict()
    finding = f"relative energy distance {relative:.3f}, p = {found.p_value:.3f}"
    differs = found.p_value <= SMALLEST_P and relative > CLOSE_AGGREGATE
    if differs:
        worst = found.worst[0]
        shift, spread = found.shift[worst].item(), found.spread[worst].item()
        finding += f"; most of all {found.names[worst]}, shifted by {shift:.2f} sd, {spread:.2f} as wide"
    return Check("aggregate posterior", _graded(differs, False), finding, metrics, "model")


def judge_labels(accuracy: float, found: Reliability) -> Check:
    """Whether q(y | x) is as sure as it is right."""
    error = found.expected_error
    finding = f"accuracy {100 * accuracy:.1f} %, calibration error {100 * error:.1f} %"
    metrics = {"accuracy": accuracy, "ece": error}
    return Check("labels", _graded(error > LARGEST_ECE, False), finding, metrics, "labels")


def plain(value: Any) -> Any:
    """Metrics as JSON has them: None for a number that is NaN or infinite."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _moments(name: str, error: float, ratio: float, of: str, metrics: dict[str, Any]) -> Check:
    off = max(ratio, 1 / ratio) if ratio > 0 else math.inf
    care, refuse = off > CLOSE_SD or error > CLOSE_MEAN, off > FAR_SD or error > FAR_MEAN
    word = "too narrow" if ratio < 1 / CLOSE_SD else "too wide" if ratio > CLOSE_SD else "as wide as the posterior"
    finding = f"{word}: sd ratio {ratio:.2f}; means off by {error:.2f} sd (medians of {of})"
    return Check(name, _graded(care, refuse), finding, {"mean_error": error, "sd_ratio": ratio} | metrics)


def _graded(care: bool, refuse: bool) -> Verdict:
    return Verdict.REFUSE if refuse else Verdict.CARE if care else Verdict.TRUST


def _share(of: Tensor) -> float:
    return of.double().mean().item()


def _spread(values: Tensor) -> dict[str, float]:
    return {"median": values.median().item(), "largest": values.max().item()}


def _number(value: Tensor) -> str:
    return "infinite" if value.isinf() else f"{value.item():.2f}"
