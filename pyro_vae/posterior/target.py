r"""The posterior that a guide approximates, as an unnormalized density over one flat, unconstrained vector per datum.

For chosen data the continuous latents of a datum, site after site, make a vector u of R^D: each site's value z is
T(u), T the bijection from R^k onto the site's support.  Enumerated sites e are summed out.  At temperature t

    log f_t(u) = log sum_e p(z, e) p(x | z, e)^t + log |dT/du|,

so f_0 is the prior, which integrates to 1, and f_1 is p(x, z), which integrates to the evidence p(x).  Hamiltonian
Monte Carlo, annealed importance sampling and fits of simple families all work on this one function.

A program with a latent site outside the plate over data has one posterior for all data together.  It is treated as one
datum: N is 1.

Draws run side by side, in a plate of their own, or as more rows where a program was not written for that; one with
shared latents that was not, with ``x @ weights`` for example, is run for one draw at a time.  Sites that the model sums
out are summed out of f_t, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from pyro import poutine
from pyro.distributions import Categorical
from pyro.poutine import Trace
from torch import Tensor

from pyro_vae.compiled.payoff import compile_if_it_pays
from pyro_vae.compiled.replay import Named, Replay
from pyro_vae.errors import InputError
from pyro_vae.pairs.handlers import Number
from pyro_vae.pairs.layout import Layout
from pyro_vae.pairs.marginal import marginal_total
from pyro_vae.pairs.pair import ProbedPair
from pyro_vae.pairs.traces import distribution_at, log_prob_at, observations, unscaled_log_prob_at, value_at
from pyro_vae.pairs.vectorized import Placing, draws_lie, repeated, run, run_guide, run_model
from pyro_vae.posterior.draws import PosteriorDraws
from pyro_vae.posterior.unconstrained import FlatSite, FlatVector
from pyro_vae.shapes import Bool, Float, Int, Shaped


class Target:
    r"""The posterior of some data under a pair's model, and draws from its guide.

    One that is made runs nothing yet, so that a single one can stand for all data: ``target[rows]`` is the posterior of
    some of them, which runs on these alone.

    Args:
        probed: the model and the guide, with what ``pair.probe`` said of them.
        x: data of shape (N, \*event_shape).
        y: class labels of shape (N,), or None to sum over the label site.

    Raises:
        InputError: at the first use, if a latent site is discrete and not enumerated.

    Example:
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import LinearGaussian
        >>> from pyro_vae.pairs import Pair
        >>> from pyro_vae.posterior import Target
        >>> model, x = LinearGaussian((3,), latent_dim=2), torch.randn(4, 3)
        >>> target, z = Target(Pair(model, MeanField(model)).probe(x), x), torch.randn(5, 4, 2)
        >>> torch.allclose(target.log_density(z), model.evidence(x) + model.posterior(x).log_prob(z), atol=1e-4)
        True
        >>> torch.allclose(target[:2].log_density(z[:, :2]), target.log_density(z)[:, :2])
        True
    """

    def __init__(self, probed: ProbedPair, x: Tensor, y: Shaped[Tensor, "N"] | None = None) -> None:
        self.probed, self.pair, self.x, self.y = probed, probed.pair, x, y
        self.num_data = 1 if probed.data_dim is None else len(x)
        self._wide: dict[int, Target] = {}
        self._templates: dict[int, Trace] = {}

    def __getitem__(self, rows: int | slice | Int[Tensor, "n"] | Bool[Tensor, "N"]) -> Target:
        """The posterior of some of the data, n of them.

        Args:
            rows: one number, a slice, the numbers, shape (n,), or a mask, shape (N,).

        Raises:
            InputError: if all data are one datum, which no rows can be taken out of.
            IndexError: if there is no such row.
        """
        if self.probed.data_dim is None:
            raise InputError(
                "a posterior for each row of the data", "one for all of them together", "take the target as it is"
            )
        if isinstance(rows, int):
            row = range(self.num_data)[rows]  # of a posterior that still has rows, one
            rows = slice(row, row + 1)
        return Target(self.probed, self.x[rows], None if self.y is None else self.y[rows])

    def first(self, num_data: int) -> Target:
        """The posterior of the first ``num_data`` data; the whole where all data are one datum."""
        return self if self.probed.data_dim is None else self[:num_data]

    @cached_property
    def placing(self) -> Placing:
        """The place that the programs have for several draws; see ``pairs.vectorized.draws_lie``."""
        return draws_lie(self.probed, self.x, self.y)

    @cached_property
    def vector(self) -> FlatVector:
        """The vector in which the latents of a datum lie, as one draw shows it."""
        with self.pair.evaluating(), torch.no_grad():  # looking counts for no running mean
            guided = self._template(1)
            generated = self._score(guided, 1)
        return FlatVector.from_traces(self.probed, guided, generated)

    @property
    def side_by_side(self) -> bool:
        """Whether the programs run for many draws at once, in a plate of their own."""
        return self.placing == "beside"

    def on_rows(self, num_samples: int) -> Target:
        """The posterior for draws that lie among the data: one draw for each of S N rows."""
        if num_samples not in self._wide:
            y = None if self.y is None else repeated(self.y, num_samples)
            self._wide = {num_samples: Target(self.probed, repeated(self.x, num_samples), y)}
        return self._wide[num_samples]

    def log_density(self, u: Float[Tensor, "S N D"], temperature: Number = 1.0) -> Float[Tensor, "S N"]:
        """Log f_t(u), nats, shape (S, N), differentiable in u.

        Args:
            u: shape (S, N, D).
            temperature: t, a number or a tensor that broadcasts against (S, N).
        """
        if not self.side_by_side and len(u) > 1:
            at = torch.as_tensor(temperature, device=u.device).expand(u.shape[:2])
            if self.placing == "rows":
                found = self.on_rows(len(u)).log_density(u.flatten(0, 1).unsqueeze(0), at.reshape(1, -1))
                return found.reshape(u.shape[:2])
            rows = list(zip(u.split(1), at.split(1), strict=True))
            if torch.is_grad_enabled():
                return torch.cat([self.log_density(*one) for one in rows])
            alone = self.in_a_row("joint density", lambda *one: {"value": self.log_density(*one)}, rows)
            return torch.cat([one["value"] for one in alone])
        values, log_jacobian = self.vector.constrain(u)
        guided = self._template(len(u)).copy()
        for name, value in values.items():
            if not self.side_by_side:
                shape = value_at(guided, name).shape  # with the values of enumerated sites on the left
                value = value.reshape(shape[max(0, len(shape) - value.dim() + 1) :])
            guided.nodes[name] = guided.nodes[name] | {"value": value}
        p, layout = self._score(guided, len(u)), self._layout(guided, len(u))
        return self._joint(p, layout, temperature).flatten(0, -3).logsumexp(0) + log_jacobian

    def _joint(self, p: Trace, layout: Layout, temperature: Number = 1.0) -> Tensor:
        """Log p(z, e) p(x | z, e)^t, with what the model sums out summed out, shape (enumerated…, S, N)."""
        prior_sites = [name for name in p.stochastic_nodes if self._counts(name)]
        observed_sites = [name for name in observations(p) if self._counts(name)]
        if not self.probed.marginal:
            prior = layout.total(log_prob_at(p, name) for name in prior_sites)
            observed = layout.total(log_prob_at(p, name) for name in observed_sites)
            return prior + temperature * observed
        if isinstance(temperature, Tensor) and temperature.dim():
            plates = [1] * self.probed.nesting
            if self.probed.data_dim is not None:
                plates[self.probed.data_dim] = temperature.shape[-1]
            temperature = temperature.reshape(-1, *plates)
        weights = dict.fromkeys(prior_sites, 1.0) | dict.fromkeys(observed_sites, temperature)
        return marginal_total(p, layout, weights)

    def _counts(self, name: str) -> bool:
        """Whether a site belongs to the data: a factor that all rows share does not."""
        return self.probed.data_dim is None or name not in self.probed.shared

    def value_and_gradient(
        self, u: Float[Tensor, "S N D"], temperature: Number = 1.0
    ) -> tuple[Float[Tensor, "S N"], Float[Tensor, "S N D"]]:
        """Log f_t(u), shape (S, N), and its gradient, shape (S, N, D); both without gradients of their own."""
        u = u.detach().requires_grad_()
        with torch.enable_grad():
            value = self.log_density(u, temperature)
            (gradient,) = torch.autograd.grad(value.sum(), u)
        return value.detach(), gradient

    def compiled(self, num_samples: int, runs: int) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """``value_and_gradient`` for tensors of one shape, as a recorded graph, compiled where that pays.

        Args:
            num_samples: S.
            runs: how often it will be called, about.

        Returns:
            A function of u, shape (S, N, D), and of the temperature, a tensor of shape () or (S, N).
        """
        if self.placing == "alone" and num_samples > 1:
            one = self.compiled(1, runs * num_samples)
            return lambda u, temperature: _in_turn(one, u, temperature)
        u = torch.zeros(num_samples, self.num_data, self.size, device=self.x.device)
        temperature = torch.ones((), device=self.x.device)

        def value_and_gradient() -> dict[str, Tensor]:
            with torch.enable_grad():
                leaf = u.detach().requires_grad_()
                value = self.log_density(leaf, temperature)
                (gradient,) = torch.autograd.grad(value.sum(), leaf)
            return {"value": value, "gradient": gradient}

        if self.placing == "rows":
            self.on_rows(num_samples)
        else:
            self._template(num_samples)  # drawn before the recording, not in it
        replay, _ = compile_if_it_pays("posterior", lambda: Replay(value_and_gradient, [u, temperature]), runs)
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
            if self.placing == "rows":
                return self.on_rows(num_samples).draw(1).unflattened(num_samples)
            draws = self.in_a_row("draw", lambda: self.draw(1).named(), [()] * num_samples)
            return PosteriorDraws.together([PosteriorDraws.from_named(one) for one in draws])
        with torch.no_grad():
            q = self._guide(num_samples)
            q.compute_log_prob()
            p, layout = self._score(q, num_samples), self._layout(q, num_samples)
            terms = (
                self._joint(p, layout),
                layout.total(
                    log_prob_at(q, n) for n in [*self.probed.sampled, *q.observation_nodes] if self._counts(n)
                ),
                layout.total(unscaled_log_prob_at(q, name) for name in self.probed.enumerated),
            )
            of_p, of_z, of_e = (term.flatten(0, -3) for term in torch.broadcast_tensors(*terms))  # (E, S, N)
            label = Categorical(logits=of_e.movedim(0, -1)).sample()  # (S, N)
            ratio = of_p - of_z
            events = {name: distribution_at(q, name).event_shape for name in self.probed.enumerated}
            enumerated = {n: layout.features(value_at(q, n), len(event)) for n, event in events.items()}
            free = self.vector.free(q, layout)
        return PosteriorDraws(
            _pick(free, label),
            _pick((ratio - of_e).unsqueeze(-1), label).squeeze(-1),
            ratio.logsumexp(0),
            {n: _pick(value, label).reshape(*label.shape, *events[n]) for n, value in enumerated.items()},
        )

    def draw_prior(self, num_samples: int) -> Float[Tensor, "S N D"]:
        """Unconstrained draws from the model's prior, shape (S, N, D), without gradients.

        Args:
            num_samples: S.
        """
        if not self.side_by_side and num_samples > 1:
            if self.placing == "rows":
                found = self.on_rows(num_samples).draw_prior(1)
                return found.reshape(num_samples, self.num_data, -1)
            draws = self.in_a_row("draw from the prior", lambda: {"u": self.draw_prior(1)}, [()] * num_samples)
            return torch.cat([one["u"] for one in draws])
        with torch.no_grad(), poutine.block(), self.pair.scope():
            p = run(self.pair.model, self.probed, self.x, self.y, self._plated(num_samples))
        return self.free(p, num_samples)

    def in_a_row(self, name: str, one: Callable[..., Named], rows: Sequence[Sequence[Tensor]]) -> list[Named]:
        """The values of one draw after another, of programs that bear one at a time; replayed where that is the same.

        Args:
            name: what is given, for a person; another function needs another one.
            one: the function of what belongs to a draw; it reads this target's data by identity.
            rows: what belongs to each draw.
        """
        common = [value for value in (self.x, self.y) if value is not None]
        name = name if self.y is None else f"{name} with labels"
        self._template(1)  # drawn before a recording, not in it
        with torch.no_grad(), self.pair.scope():
            return self.pair.repetition(name).calls(one, common, rows)

    def free(self, trace: Trace, num_samples: int = 1) -> Float[Tensor, "S N D"]:
        """The unconstrained latents, shape (S, N, D), of a run of the model without labels in parallel.

        Args:
            trace: the run.
            num_samples: S, its draws side by side.
        """
        return self.vector.free(trace, self._layout(self._template(num_samples), num_samples))[0]

    @property
    def sites(self) -> tuple[FlatSite, ...]:
        """The continuous latent sites, in the order in which they lie in the vector."""
        return self.vector.sites

    @property
    def size(self) -> int:
        """The dimension of the vector, D."""
        return self.vector.size

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each of the D numbers: ``z[3]``, or ``mu`` for a site of one."""
        return self.vector.names

    def values(self, u: Float[Tensor, "S N D"]) -> dict[str, Float[Tensor, "S N ..."]]:
        r"""The latents by site, shape (S, N, \*shape), of unconstrained vectors of shape (S, N, D)."""
        return self.vector.values(u)

    def _layout(self, guided: Trace, num_samples: int) -> Layout:
        return Layout(self.probed, guided, num_samples, self.x)

    def _plated(self, num_samples: int) -> int | None:
        return num_samples if self.side_by_side else None

    def _guide(self, num_samples: int) -> Trace:
        with torch.no_grad(), poutine.block(), self.pair.scope():
            return run_guide(self.probed, self.x, self.y, self._plated(num_samples))

    def _template(self, num_samples: int) -> Trace:
        """A run of the guide whose values of the continuous sites are to be replaced."""
        if num_samples not in self._templates:
            with torch.random.fork_rng():
                self._templates = {num_samples: self._guide(num_samples)}
        return self._templates[num_samples]

    def _score(self, guided: Trace, num_samples: int) -> Trace:
        with poutine.block(), self.pair.scope():
            p = run_model(self.probed, self.x, self.y, self._plated(num_samples), guided)
        p.compute_log_prob()
        return p


def _in_turn(
    one: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], u: Float[Tensor, "S N D"], temperature: Tensor
) -> tuple[Float[Tensor, "S N"], Float[Tensor, "S N D"]]:
    """The value and the gradient of one draw after another."""
    temperatures = temperature.split(1) if temperature.dim() else [temperature] * len(u)
    found = [one(*each) for each in zip(u.split(1), temperatures, strict=True)]
    return torch.cat([value for value, _ in found]), torch.cat([gradient for _, gradient in found])


def _pick(value: Shaped[Tensor, "_ S N k"], label: Int[Tensor, "S N"]) -> Shaped[Tensor, "S N k"]:
    """The values of one label each, shape (S, N, k), out of those of every label, shape (E or 1, S, N, k)."""
    if len(value) == 1:
        return value[0]
    index = label.expand(1, *label.shape).unsqueeze(-1).expand(1, *value.shape[1:])
    return value.gather(0, index).squeeze(0)
