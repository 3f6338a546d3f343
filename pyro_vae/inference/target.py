r"""The posterior that a guide approximates, as an unnormalized density over one flat, unconstrained vector a datum.

For chosen data the continuous latents of a datum, site after site, make a vector u of R^D: each site's value z is
T(u), T the bijection from R^k onto the site's support.  Enumerated sites e are summed out.  At temperature t

    log f_t(u) = log sum_e p(z, e) p(x | z, e)^t + log |dT/du|,

so f_0 is the prior, which integrates to 1, and f_1 is p(x, z), which integrates to the evidence p(x).  Hamiltonian
Monte Carlo, annealed importance sampling and fits of simple families all work on this one function.

A program with a latent site outside the plate over data has one posterior for all data together.  It is treated as one
datum: N is 1.

Draws run side by side, in a plate of their own.  A program with shared latents that was not written for that, with
``x @ weights`` say, is run for one draw at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import Categorical, MixtureSameFamily, TorchDistribution, constraints
from pyro.poutine import Trace
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor
from torch.distributions import biject_to
from torch.distributions.transforms import Transform

from pyro_vae.errors import InputError
from pyro_vae.inference.compiled.choice import Note, compile_if_it_pays
from pyro_vae.inference.compiled.replay import Replay
from pyro_vae.inference.handlers import Number
from pyro_vae.inference.pair import Pair, Structure
from pyro_vae.inference.traces import distribution_at, log_prob_at, unscaled_log_prob_at, value_at


@dataclass(frozen=True)
class TargetSite:
    """A continuous latent site as a part of the flat vector.

    Args:
        name: the sample site.
        transform: T, from unconstrained values onto the support.
        plates: the sizes of the plate dimensions, the plate over data among them.
        event_shape: of a value.
        columns: where its unconstrained numbers lie in the vector.
    """

    name: str
    transform: Transform
    plates: tuple[int, ...]
    event_shape: tuple[int, ...]
    columns: slice

    @property
    def free_shape(self) -> tuple[int, ...]:
        """The shape of an unconstrained value, plates left out."""
        return tuple(self.transform.inverse_shape(torch.Size(self.event_shape)))


@dataclass(frozen=True)
class PosteriorDraws:
    """Draws from a guide, S for each of N data.

    Args:
        u: the unconstrained latents, shape (S, N, D); where labels are enumerated, those of one drawn from q(e | x).
        log_weight: log p(x, z, e) - log q(z, e | x) of the draws, shape (S, N).
        log_evidence_weight: the same with the labels summed out exactly, shape (S, N): the mean of its exponential
            estimates p(x).
        enumerated: the drawn values of the enumerated sites, shape (S, N).
    """

    u: Tensor
    log_weight: Tensor
    log_evidence_weight: Tensor
    enumerated: dict[str, Tensor]

    @classmethod
    def together(cls, parts: Sequence[PosteriorDraws]) -> PosteriorDraws:
        """Several sets of draws as one."""
        return cls(
            torch.cat([part.u for part in parts]),
            torch.cat([part.log_weight for part in parts]),
            torch.cat([part.log_evidence_weight for part in parts]),
            {name: torch.cat([part.enumerated[name] for part in parts]) for name in parts[0].enumerated},
        )


class Target:
    r"""The posterior of some data under a pair's model, and draws from its guide.

    Args:
        pair: the model and the guide.
        structure: what ``pair.probe`` said of them, given what is given here.
        x: data of shape (N, \*event_shape).
        y: class labels of shape (N,), or None to sum over the label site.

    Attributes:
        side_by_side: whether the programs run for many draws at once.

    Raises:
        InputError: if a latent site is discrete and not enumerated.
    """

    def __init__(self, pair: Pair, structure: Structure, x: Tensor, y: Tensor | None = None) -> None:
        self.pair, self.structure, self.x, self.y = pair, structure, x, y
        self.num_data = 1 if structure.data_dim is None else len(x)
        self.side_by_side = True
        try:
            self._prepare()
            self.side_by_side = structure.data_dim is not None or self._runs_alike()
        except (RuntimeError, ValueError, IndexError) as error:
            if isinstance(error, InputError):
                raise
            self.side_by_side = False
        if not self.side_by_side:
            self._prepare()

    def _prepare(self) -> None:
        self._templates: dict[int, Trace] = {}
        guided = self._template(1)
        values = [value_at(guided, name) for name in self.structure.enumerated]
        labels = torch.broadcast_shapes(*(value.shape for value in values))
        self._label_shape = labels[: len(labels) - 1 - self.structure.nesting]
        self.sites = self._find_sites(guided)
        self.size = max((site.columns.stop for site in self.sites), default=0)

    def _runs_alike(self) -> bool:
        """Whether two draws side by side have the densities that each has alone; a program may mix them up."""
        with torch.random.fork_rng(), torch.no_grad():
            u = self.draw(2).u
            together = self.log_density(u)
            self.side_by_side = False
            self._prepare()
            alone = self.log_density(u)
            self.side_by_side = True
            self._prepare()
        return torch.allclose(together, alone, rtol=1e-4, atol=1e-4, equal_nan=True)

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each of the D numbers: ``z[3]``, or ``mu`` for a site of one."""
        widths = ((site.name, site.columns.stop - site.columns.start) for site in self.sites)
        return tuple(f"{name}[{i}]" if width > 1 else name for name, width in widths for i in range(width))

    def log_density(self, u: Tensor, temperature: Number = 1.0) -> Tensor:
        """Log f_t(u), nats, shape (S, N), differentiable in u.

        Args:
            u: shape (S, N, D).
            temperature: t, a number or a tensor that broadcasts against (S, N).
        """
        if not self.side_by_side and len(u) > 1:
            at = torch.as_tensor(temperature, device=u.device).expand(u.shape[:2])
            return torch.cat([self.log_density(*one) for one in zip(u.split(1), at.split(1), strict=True)])
        values, log_jacobian = self._constrain(u)
        guided = self._template(len(u)).copy()
        for name, value in values.items():
            value = value if self.side_by_side else value.reshape(value_at(guided, name).shape)
            guided.nodes[name] = guided.nodes[name] | {"value": value}
        p = self._score(guided, len(u))
        prior = self._total(p, p.stochastic_nodes, log_prob_at, len(u))
        observed = self._total(p, p.observation_nodes, log_prob_at, len(u))
        return (prior + temperature * observed).logsumexp(0) + log_jacobian

    def value_and_gradient(self, u: Tensor, temperature: Number = 1.0) -> tuple[Tensor, Tensor]:
        """Log f_t(u), shape (S, N), and its gradient, shape (S, N, D); both without gradients of their own."""
        u = u.detach().requires_grad_()
        with torch.enable_grad():
            value = self.log_density(u, temperature)
            (gradient,) = torch.autograd.grad(value.sum(), u)
        return value.detach(), gradient

    def compiled(
        self, num_samples: int, runs: int, note: Note = lambda line: None
    ) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """``value_and_gradient`` for tensors of one shape, as a compiled graph where that pays.

        Args:
            num_samples: S.
            runs: how often it will be called, about.
            note: takes what a person should know of the choice.

        Returns:
            A function of u, shape (S, N, D), and of the temperature, a tensor of shape () or (S, N).
        """
        u = torch.zeros(num_samples, self.num_data, self.size, device=self.x.device)
        temperature = torch.ones((), device=self.x.device)

        def figures() -> dict[str, Tensor]:
            with torch.enable_grad():
                leaf = u.detach().requires_grad_()
                value = self.log_density(leaf, temperature)
                (gradient,) = torch.autograd.grad(value.sum(), leaf)
            return {"value": value, "gradient": gradient}

        self._template(num_samples)  # drawn before the recording, not in it
        replay = compile_if_it_pays("posterior", lambda: Replay(figures, [u, temperature]), runs, False, note)
        if replay is None:
            return self.value_and_gradient

        def run(u: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor]:
            found = replay([u, temperature])
            return found["value"], found["gradient"]

        return run

    def draw(self, num_samples: int) -> PosteriorDraws:
        """Draws from the guide, scored under the model, without gradients.

        Args:
            num_samples: S.
        """
        if not self.side_by_side and num_samples > 1:
            return PosteriorDraws.together([self.draw(1) for _ in range(num_samples)])
        with torch.no_grad():
            q = self._guide(num_samples)
            q.compute_log_prob()
            p = self._score(q, num_samples)
            of_p = self._total(p, [*p.observation_nodes, *p.stochastic_nodes], log_prob_at, num_samples)
            of_z = self._total(q, self.structure.sampled, log_prob_at, num_samples)
            of_e = self._total(q, self.structure.enumerated, unscaled_log_prob_at, num_samples)
            of_p, of_z, of_e = torch.broadcast_tensors(of_p, of_z, of_e)
            label = Categorical(logits=of_e.movedim(0, -1)).sample()  # (S, N)
            ratio = of_p - of_z
            free = [self._free(q, site, num_samples) for site in self.sites]
            enumerated = {n: self._flat(value_at(q, n), 0, num_samples) for n in self.structure.enumerated}
        return PosteriorDraws(
            _pick(torch.cat(free, -1) if free else ratio.new_zeros((*ratio.shape, 0)), label),
            _pick((ratio - of_e).unsqueeze(-1), label).squeeze(-1),
            ratio.logsumexp(0),
            {name: _pick(value, label).squeeze(-1) for name, value in enumerated.items()},
        )

    def draw_prior(self, num_samples: int) -> Tensor:
        """Unconstrained draws from the model's prior, shape (S, N, D), without gradients.

        Args:
            num_samples: S.
        """
        if not self.side_by_side and num_samples > 1:
            return torch.cat([self.draw_prior(1) for _ in range(num_samples)])
        with torch.no_grad(), poutine.block(), self.pair.scope(), self._samples(num_samples):
            p = poutine.trace(self.pair.model).get_trace(*self._arguments())
            free = [self._free(p, site, num_samples) for site in self.sites]
        return torch.cat(free, -1)[0]

    def values(self, u: Tensor) -> dict[str, Tensor]:
        r"""The latents by site, shape (S, N, \*shape), of unconstrained vectors of shape (S, N, D)."""
        found = {}
        for name, value in self._constrain(u)[0].items():
            (site,) = (site for site in self.sites if site.name == name)
            if self.structure.data_dim is None:
                value = value.unsqueeze(1)
            else:
                value = value.movedim(1 + self.structure.nesting + self.structure.data_dim, 1)
            sizes = [size for size in self._others(site.plates) if size > 1]
            found[name] = value.reshape(len(u), self.num_data, *sizes, *site.event_shape)
        return found

    def _arguments(self) -> tuple[Tensor, ...]:
        return self.pair.arguments(self.x, self.y)

    def _samples(self, num_samples: int) -> Any:
        if not self.side_by_side:
            return nullcontext()
        return pyro.plate("_samples", num_samples, dim=-self.structure.nesting - 1)

    def _guide(self, num_samples: int) -> Trace:
        enumeration = poutine.enum(first_available_dim=-self.structure.nesting - 2)
        with (
            torch.no_grad(),
            poutine.block(),
            self.pair.scope(),
            self._samples(num_samples),
            poutine.trace() as guided,
            enumeration,
        ):
            self.pair.guide(*self._arguments())
        return prune_subsample_sites(guided.trace)

    def _template(self, num_samples: int) -> Trace:
        """A run of the guide whose values of the continuous sites are to be replaced."""
        if num_samples not in self._templates:
            with torch.random.fork_rng():
                self._templates = {num_samples: self._guide(num_samples)}
        return self._templates[num_samples]

    def _score(self, guided: Trace, num_samples: int) -> Trace:
        with (
            poutine.block(),
            self.pair.scope(),
            self._samples(num_samples),
            poutine.trace() as generated,
            poutine.replay(trace=guided),
        ):
            self.pair.model(*self._arguments())
        p = prune_subsample_sites(generated.trace)
        p.compute_log_prob()
        return p

    def _find_sites(self, guided: Trace) -> tuple[TargetSite, ...]:
        with torch.no_grad():
            p = self._score(guided, 1)
        nesting, sites, start = self.structure.nesting, [], 0
        for name in (name for name in self.structure.sampled if name in p.nodes):
            d = distribution_at(p, name)
            transform, event_shape = biject_to(_support(name, d)), tuple(d.event_shape)
            batch = (1,) * nesting + tuple(value_at(guided, name).shape[: value_at(guided, name).dim() - d.event_dim])
            plates = batch[len(batch) - nesting :]
            width = math.prod(transform.inverse_shape(torch.Size(event_shape))) * math.prod(self._others(plates))
            sites.append(TargetSite(name, transform, plates, event_shape, slice(start, start + width)))
            start += width
        return tuple(sites)

    def _others(self, plates: tuple[int, ...]) -> list[int]:
        """The sizes of the plates but the data's."""
        data = len(plates) + (self.structure.data_dim or -len(plates) - 1)
        return [size for plate, size in enumerate(plates) if plate != data]

    def _constrain(self, u: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The values of the sites as the programs have them, and log |dT/du|, shape (S, N)."""
        values: dict[str, Tensor] = {}
        log_jacobian = u.new_zeros(u.shape[:2])
        for site in self.sites:
            free = u[..., site.columns].reshape(*u.shape[:2], *self._others(site.plates), *site.free_shape)
            if self.structure.data_dim is None:
                free = free.squeeze(1)
            else:
                free = free.movedim(1, 1 + self.structure.nesting + self.structure.data_dim)
            values[site.name] = site.transform(free)
            jacobian = site.transform.log_abs_det_jacobian(free, values[site.name])
            plates = free.shape[1 : 1 + self.structure.nesting]
            log_jacobian = log_jacobian + self._per_datum(jacobian.reshape(len(u), *plates, -1).sum(-1))
        return values, log_jacobian

    def _per_datum(self, log_prob: Tensor) -> Tensor:
        """The sum over every plate but the data's, (…, plates…) to (…, N)."""
        nesting = self.structure.nesting
        if not nesting:
            return log_prob.unsqueeze(-1)
        for dim in range(-nesting, 0):
            if dim != self.structure.data_dim:
                log_prob = log_prob.sum(dim, keepdim=True)
        return log_prob.flatten(-nesting)

    def _total(
        self, trace: Trace, names: Iterable[str], log_prob: Callable[[Trace, str], Tensor], num_samples: int
    ) -> Tensor:
        """The sum of log-probabilities over sites, shape (E or 1, S, N)."""
        labels = len(self.structure.enumerated)
        total = self.x.new_zeros((1,) * labels + (num_samples, self.num_data))
        for name in names:
            found = log_prob(trace, name)
            padded = found.reshape((1,) * (labels + 1 + self.structure.nesting - found.dim()) + found.shape)
            total = total + self._per_datum(padded)
        return total.flatten(0, -3) if labels else total.unsqueeze(0)

    def _free(self, trace: Trace, site: TargetSite, num_samples: int) -> Tensor:
        """The unconstrained values of a site, (E or 1, S, N, k)."""
        value = site.transform.inv(value_at(trace, site.name))
        return self._flat(value, len(site.free_shape), num_samples)

    def _flat(self, value: Tensor, event_dim: int, num_samples: int) -> Tensor:
        """Values of a site as (E or 1, S, N, k)."""
        nesting, labels = self.structure.nesting, len(self.structure.enumerated)
        batch = value.dim() - event_dim
        value = value.reshape((1,) * (labels + 1 + nesting - batch) + value.shape)
        if self.structure.data_dim is None:
            value = value.unsqueeze(labels + 1)
        else:
            value = value.movedim(labels + 1 + nesting + self.structure.data_dim, labels + 1)
        value = value.reshape(*value.shape[: labels + 2], -1)
        value = value.expand(*self._label_shape, num_samples, self.num_data, -1)
        return value.flatten(0, labels - 1) if labels else value.unsqueeze(0)


def _pick(value: Tensor, label: Tensor) -> Tensor:
    """Of values for every label, shape (E, S, N, k), those of one label each, shape (S, N, k)."""
    index = label.expand(1, *label.shape).unsqueeze(-1).expand(1, *value.shape[1:])
    return value.gather(0, index).squeeze(0)


def _support(name: str, d: TorchDistribution) -> constraints.Constraint:
    if isinstance(d, MixtureSameFamily):  # its own constraint has no bijection in torch
        return _support(name, d.component_distribution)
    support = d.support
    assert support is not None
    if support.is_discrete:
        raise InputError(
            "continuous latent sites, or discrete ones that are enumerated",
            f"the discrete site {name!r}, which is sampled",
            'enumerate it in the guide: pyro.sample(…, infer={"enumerate": "parallel"})',
        )
    return support
