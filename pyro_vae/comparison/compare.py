r"""Guides against NUTS and, where it is known, the exact posterior.

The model is held fixed and each guide is fitted to the same few data (see ``guide_fits``), so that the families are
compared.  The reference is the exact posterior where the model has a method ``posterior(x)``, else NUTS where its
chains have mixed without divergences, else there is none and the metrics that need one are left out.  What each metric
is, and how it is found, stands with ``Comparison.rows`` and in ``methods``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vae.comparison.guide_fits import fit_guide
from pyro_vae.comparison.methods import Method, of_exact, of_guide, of_nuts, with_divergences
from pyro_vae.errors import InputError, nearest
from pyro_vae.guides import GUIDES
from pyro_vae.likelihoods import Gaussian
from pyro_vae.models import MODELS, Model
from pyro_vae.networks import MLP
from pyro_vae.pairs.pair import Pair, Program
from pyro_vae.pairs.seeding import seeded
from pyro_vae.posterior.mcmc import Chains, Sampling, nuts
from pyro_vae.posterior.target import Target
from pyro_vae.registry import parse_choice

logger = logging.getLogger(__name__)

TOY_CLASSES = 3
TOY_NETWORK = MLP(hidden=(64, 64))
SIGNAL = 2.0  # of a generated model, in units of the noise
ACCEPTANCE = 0.98  # small steps, for bent ridges: at 0.9 one in 700 transitions diverged on one, here none of 8,000
DRAWS = Sampling(2000)


@dataclass(frozen=True)
class Comparison:
    """Several methods on the same posteriors.

    Args:
        model: its name.
        names: the names of the D coordinates.
        methods: guides, then NUTS, then the exact posterior where it is known.
        reference: the name of the method that the others are compared with, or None.
        reasons: why NUTS is not a reference; empty where it is one.
        chains: the NUTS run.

    Example:
        >>> from pyro_vae.comparison import compare_mcmc
        >>> from pyro_vae.posterior import Sampling
        >>> short = Sampling(num_samples=4, num_warmup=4, num_chains=1)
        >>> found = compare_mcmc("linear_gaussian", ["mean_field"], latent_dim=2, sampling=short, num_steps=5)
        >>> found.method("exact").correlation.shape
        torch.Size([2, 2, 2])
        >>> found.table()[-1]["mean err"], found.table()[-1]["KL"]  # the exact posterior beside itself
        ('0.000', '0.000')
    """

    model: str
    names: tuple[str, ...]
    methods: tuple[Method, ...]
    reference: str | None
    reasons: tuple[str, ...]
    chains: Chains

    def method(self, name: str) -> Method:
        """The method of a name.

        Raises:
            InputError: if there is none.
        """
        found = {method.name: method for method in self.methods}
        if name not in found:
            raise InputError("a method of this comparison", repr(name), nearest(name, found))
        return found[name]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row per method, of plain numbers; what is not known is None.

        ``mean_error`` is the largest distance of a mean from the reference's, in reference standard deviations, over
        coordinates and data; ``sd_ratio`` the standard deviation over the reference's, where it is farthest from 1 on
        the log scale; ``kl_to_reference`` and ``elbo`` are means over the data, nats; ``k_hat`` is the worst datum's.
        Guides' means and standard deviations are exact where the guide is normal, else of draws.
        """
        return [self._row(method) for method in self.methods]

    @property
    def correlation_errors(self) -> dict[str, float | None]:
        """By method, the largest distance of a correlation from the reference's."""
        if self.reference is None:
            return dict.fromkeys((method.name for method in self.methods), None)
        known = self.method(self.reference).correlation
        return {method.name: (method.correlation - known).abs().max().item() for method in self.methods}

    def table(self) -> list[dict[str, str]]:
        """The rows for a person, under short headings and with the correlations; a dash for what is not known."""
        found = []
        for row in self.rows:
            metrics = {
                "mean err": row["mean_error"],
                "sd ratio": row["sd_ratio"],
                "corr err": self.correlation_errors[row["method"]],
                "KL": row["kl_to_reference"],
                "k-hat": row["k_hat"],
                "ELBO": row["elbo"],
            }
            shown = {key: "-" if value is None else f"{value:.3f}" for key, value in metrics.items()}
            found.append({"method": row["method"]} | shown | {"s": f"{row['seconds']:.1f}"})
        return found

    def as_dict(self) -> dict[str, Any]:
        """``{"model", "reference", "rows", "reasons"}``, of plain values."""
        return {"model": self.model, "reference": self.reference, "rows": self.rows, "reasons": list(self.reasons)}

    def _row(self, method: Method) -> dict[str, Any]:
        row: dict[str, Any] = {"method": method.name, "mean_error": None, "sd_ratio": None}
        if self.reference is not None:
            known = self.method(self.reference)
            row["mean_error"] = ((method.mean - known.mean).abs() / known.stddev).max().item()
            ratio = (method.stddev / known.stddev).flatten()
            row["sd_ratio"] = ratio[ratio.log().abs().argmax()].item()
        return row | {
            "kl_to_reference": None if method.kl is None else method.kl.mean().item(),
            "k_hat": None if method.k_hat is None else method.k_hat.max().item(),
            "elbo": None if method.elbo is None else method.elbo.mean().item(),
            "seconds": method.seconds,
        }


def compare_mcmc(
    model: str | Program = "linear_gaussian",
    guides: Sequence[str] | Mapping[str, Program] = ("mean_field", "full_rank", "iaf"),
    x: Tensor | None = None,
    *,
    latent_dim: int = 10,
    num_data: int = 2,
    sampling: Sampling = DRAWS,
    num_steps: int = 2000,
    seed: int = 0,
) -> Comparison:
    r"""Fit guides to a fixed model, draw from its posteriors by NUTS, and put them beside the exact ones if known.

    Args:
        model: a name, for which a model with seeded parameters is generated; or a program, taken as it is.
        guides: names of guides; or guide programs by name.
        x: data of shape (N, \*event_shape); default: drawn from the model.
        latent_dim: the dimension of the generated model's latents.
        num_data: how many data are drawn from it.
        sampling: how long the chains of NUTS are, and how many; default: four of 2,000 draws.
        num_steps: training steps of each guide; 0 takes guide programs as they are.
        seed: the seed of parameters, data, fits and draws.

    Raises:
        InputError: if a name is unknown, there is no guide or no datum, or NUTS cannot draw from this model.
        TrainingError: if the fit of a guide fails.

    Example:
        >>> from pyro_vae.comparison import compare_mcmc
        >>> from pyro_vae.posterior import Sampling
        >>> short = Sampling(num_samples=4, num_warmup=4, num_chains=1)
        >>> found = compare_mcmc("linear_gaussian", ["mean_field"], latent_dim=2, sampling=short, num_steps=20)
        >>> [row["method"] for row in found.rows], found.reference
        (['mean_field', 'nuts', 'exact'], 'exact')
    """
    if not guides:
        raise InputError("at least one guide", "none", "use --guides mean_field")
    for name, value, least in (("latent_dim", latent_dim, 1), ("num_data", num_data, 1), ("num_steps", num_steps, 0)):
        if value < least:
            raise InputError(f"{name} of at least {least}", str(value), f"use {name}=10")
    with seeded(seed), torch.no_grad():
        program = _program(model, x, latent_dim)
        if x is None:
            x = torch.cat([program() for _ in range(num_data)])
        pairs = {name: Pair(program, guide) for name, guide in _guides(guides, program).items()}
    targets, seconds = _fitted(pairs, x, num_steps, seed)
    first = next(iter(targets.values()))
    chains = nuts(first, **vars(sampling), seed=seed, target_acceptance=ACCEPTANCE)
    return _compare(_name(model), targets, seconds, chains, seed)


def _compare(
    model: str, targets: dict[str, Target], seconds: dict[str, float], chains: Chains, seed: int
) -> Comparison:
    first = next(iter(targets.values()))
    with seeded(seed), torch.no_grad():
        methods = [of_guide(name, target, seconds[name]) for name, target in targets.items()]
        from_nuts, exact = of_nuts(chains), of_exact(first)
        reference = exact or (from_nuts if chains.is_reference else None)
        methods += [from_nuts] if exact is None else [from_nuts, exact]
        if reference is not None:
            methods = with_divergences(methods, reference, first, chains, seed)
    name = None if reference is None else reference.name
    return Comparison(model, first.names, tuple(methods), name, chains.reasons, chains)


def _fitted(
    pairs: Mapping[str, Pair], x: Tensor, num_steps: int, seed: int
) -> tuple[dict[str, Target], dict[str, float]]:
    """The posteriors with their fitted guides, and the seconds that each fit took."""
    targets, seconds = {}, {}
    for name, pair in pairs.items():
        start = time.perf_counter()
        probed = pair.probe(x)
        if num_steps:
            fit_guide(probed, x, num_steps, seed=seed)
        pair.train(False)
        targets[name], seconds[name] = Target(probed, x), time.perf_counter() - start
        logger.info(f"{name}: fitted in {seconds[name]:.0f} s")
    return targets, seconds


def _program(model: str | Program, x: Tensor | None, latent_dim: int) -> Program:
    """The model: generated where it is a name; one of one's own needs data, unless it is a ``Model``."""
    if isinstance(model, str):
        return _generate(model, None if x is None else tuple(x.shape[1:]), latent_dim)
    if x is None and not isinstance(model, Model):
        raise InputError("data for a program of your own", "none", "pass x=…")
    return model


def _generate(choice: str, event_shape: tuple[int, ...] | None, latent_dim: int) -> Model:
    """A model by name, whose linear maps are drawn anew so that x has twice as much signal as noise."""
    event_shape = event_shape or (latent_dim + 2,)
    model = MODELS.build(
        choice, event_shape=event_shape, num_classes=TOY_CLASSES, latent_dim=latent_dim, network=TOY_NETWORK
    )
    likelihood = model.likelihood
    noise = likelihood.log_scale.exp() if isinstance(likelihood, Gaussian) else torch.ones(())
    maps = [module for module in model.modules() if isinstance(module, nn.Linear)]
    for linear in maps:
        linear.weight.normal_(0, SIGNAL / linear.in_features**0.5)
    maps[-1].weight.mul_(noise)
    return model


def _guides(guides: Sequence[str] | Mapping[str, Program], model: Program) -> dict[str, Program]:
    if isinstance(guides, Mapping):
        return dict(guides)
    for guide in guides:
        GUIDES.check(guide)
    if not isinstance(model, Model):
        raise InputError(
            "guide programs for a model program", f"the name {guides[0]!r}", "pass guides={'mine': my_guide}"
        )
    return {guide: GUIDES.build(guide, model=model, network=TOY_NETWORK) for guide in guides}


def _name(model: str | Program) -> str:
    if isinstance(model, str):
        return parse_choice(model)[0]
    return type(model).__name__ if isinstance(model, nn.Module) else getattr(model, "__name__", "model")
