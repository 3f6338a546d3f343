r"""Bounds on log p(x) by annealing between prior and posterior.

With f_t the density of ``posterior.target`` at temperature t, 0 = t_0 < … < t_K = 1, and T_k a transition that leaves
f_{t_k} invariant, annealed importance sampling (Neal, *Annealed Importance Sampling*, 2001) draws u_0 from the prior,
moves u_k by T_k from u_{k-1}, and forms

    log w = sum_k log f_{t_k}(u_{k-1}) - log f_{t_{k-1}}(u_{k-1}),    E[w] = p(x).

So the log-mean-exp over chains is a *lower* bound of log p(x) in expectation.  Where a draw from the exact posterior is
at hand, the same transitions in reverse order start from it, and E[w'] = 1 / p(x) makes minus the log-mean-exp an
*upper* bound (Grosse, Ghahramani and Adams, *Sandwiching the marginal likelihood using bidirectional Monte Carlo*,
2015).  Data simulated from the model come with such a draw: the latents that made them.

Transitions are Hamiltonian, for all chains and data at once.  Step sizes are those of each datum at each temperature,
found by chains of a pilot run, aiming at an acceptance of 0.65; in the runs that count they are fixed, so that both
bounds hold exactly, whatever the pilot found.  Temperatures are equally spaced under a sigmoid, as in Wu, Burda,
Salakhutdinov and Grosse, *On the Quantitative Analysis of Decoder-Based Generative Models*, 2017.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.posterior.target import Target
from pyro_vae.shapes import Float

SHARPNESS = 4.0  # the sigmoid is cut at plus and minus this
ACCEPTANCE = 0.65
GAIN = 0.5  # of the logarithm of a step size, by what acceptance is off
WARM_UP = 20  # transitions at the prior, before the pilot leaves it
PILOT = 4  # the pilot has a quarter of the temperatures
JITTER = 0.2  # of a step size, either way: no trajectory returns to where it began for all chains


@dataclass(frozen=True)
class Annealing:
    """The settings of annealed importance sampling.

    Args:
        num_chains: S, chains per datum.
        num_temperatures: K, transitions per chain.
        num_leapfrog: leapfrog steps a transition.

    Raises:
        InputError: if one of them is below 1.

    Example:
        >>> from pyro_vae.posterior import Annealing
        >>> Annealing(num_temperatures=2).temperatures
        [0.0, 0.5, 1.0]
        >>> [round(t, 1) for t in Annealing(num_temperatures=4).temperatures]  # close together at both ends
        [0.0, 0.1, 0.5, 0.9, 1.0]
    """

    num_chains: int = 16
    num_temperatures: int = 500
    num_leapfrog: int = 10

    def __post_init__(self) -> None:
        numbers = (self.num_chains, self.num_temperatures, self.num_leapfrog)
        if min(numbers) < 1:
            got = "{} chains, {} temperatures and {} leapfrog steps".format(*numbers)
            raise InputError("at least one of each to anneal", got, "use Annealing(16, 500, 10)")

    @property
    def temperatures(self) -> list[float]:
        """The temperatures t_0 = 0, …, t_K = 1."""
        last = math.tanh(SHARPNESS / 2)  # of sigmoid(s) = (1 + tanh(s / 2)) / 2
        places = (2 * k / self.num_temperatures - 1 for k in range(self.num_temperatures + 1))
        return [(math.tanh(SHARPNESS / 2 * place) / last + 1) / 2 for place in places]


@dataclass(frozen=True)
class AnnealedBound:
    """A stochastic bound on log p(x), per datum; the tensors have shape (N,).

    Args:
        log_likelihood: the bound, nats.
        standard_error: its standard error by the spread of the chains' weights, nats; NaN for one chain.  Those of an
            upper bound share their start, so for these it is on the small side.
        effective_sample_size: the effective sample size of the S weights, from 1 to S.
        acceptance: the acceptance of the transitions.
        upper: whether it is an upper bound.
    """

    log_likelihood: Float[Tensor, "N"]
    standard_error: Float[Tensor, "N"]
    effective_sample_size: Float[Tensor, "N"]
    acceptance: Float[Tensor, "N"]
    upper: bool

    @classmethod
    def from_weights(
        cls, log_weight: Float[Tensor, "S N"], acceptance: Float[Tensor, "N"], upper: bool
    ) -> AnnealedBound:
        """The bound from log weights of shape (S, N)."""
        num_chains = len(log_weight)
        total = log_weight.logsumexp(0)
        ess = (2 * total - (2 * log_weight).logsumexp(0)).exp()
        bound = total - math.log(num_chains)
        error = (num_chains / ess - 1).clamp(min=0).div(num_chains - 1).sqrt() if num_chains > 1 else bound * math.nan
        return cls(-bound if upper else bound, error, ess, acceptance, upper)


@dataclass(frozen=True)
class Bracket:
    """log p(x) of simulated data from both sides, nats per datum.

    Args:
        lower: from the prior.
        upper: from the true latents.
    """

    lower: AnnealedBound
    upper: AnnealedBound

    @property
    def gap(self) -> Float[Tensor, "N"]:
        """Upper minus lower, shape (N,): how far either can be off, in expectation."""
        return self.upper.log_likelihood - self.lower.log_likelihood

    def as_dict(self) -> dict[str, float | int | None]:
        """Means over the data as plain numbers; the standard error of the gap is None for a single datum."""
        error = self.gap.std().item() / math.sqrt(len(self.gap)) if len(self.gap) > 1 else None
        return {
            "num_data": len(self.gap),
            "lower": self.lower.log_likelihood.mean().item(),
            "upper": self.upper.log_likelihood.mean().item(),
            "gap": self.gap.mean().item(),
            "gap_standard_error": error,
            "acceptance": torch.cat([self.lower.acceptance, self.upper.acceptance]).mean().item(),
        }


def annealed_bound(target: Target, annealing: Annealing | None = None, seed: int = 0) -> AnnealedBound:
    """A stochastic lower bound on the log p(x) of each datum, labels summed out.

    Args:
        target: the posteriors of N data.
        annealing: the temperatures and chains; default: ``Annealing()``.
        seed: the seed of the chains.

    Example:
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import LinearGaussian
        >>> from pyro_vae.pairs import Pair
        >>> from pyro_vae.posterior import Annealing, Target, annealed_bound
        >>> model, x = LinearGaussian((3,), latent_dim=2), torch.randn(4, 3)
        >>> target = Target(Pair(model, MeanField(model)).probe(x), x)
        >>> bound = annealed_bound(target, Annealing(num_chains=500, num_temperatures=4, num_leapfrog=2))
        >>> torch.allclose(bound.log_likelihood.float(), model.evidence(x), atol=0.2)
        True
    """
    with target.pair.looked_at(seed, gradients=True):
        chains = _Chains(target, annealing or Annealing(), 1)
        return chains.lower()


def annealed_bracket(
    target: Target,
    latents: Float[Tensor, "... N D"],
    annealing: Annealing | None = None,
    seed: int = 0,
) -> Bracket:
    """A lower and an upper bound on the log p(x) of each simulated datum, labels summed out.

    Args:
        target: the posteriors of N data that were drawn from the model.
        latents: what they were drawn from, unconstrained, shape (N, D); ``simulation.simulate`` gives both.
        annealing: the temperatures and chains; default: ``Annealing()``.
        seed: the seed of the chains.

    Raises:
        InputError: if the latents are of another shape.

    Example:
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import LinearGaussian
        >>> from pyro_vae.pairs import Pair
        >>> from pyro_vae.posterior import Annealing, Target, annealed_bracket
        >>> model, z = LinearGaussian((3,), latent_dim=1, sigma="fixed"), torch.randn(4, 1)
        >>> x = (model.decoder(z) + torch.randn(4, 3)).detach()
        >>> bracket = annealed_bracket(Target(Pair(model, MeanField(model)).probe(x), x), z, Annealing(64, 12, 2))
        >>> bracket.gap.abs() < 0.5
        tensor([True, True, True, True])
    """
    if latents.shape != (target.num_data, target.size):
        raise InputError(
            f"true latents of shape ({target.num_data}, {target.size})",
            f"shape {tuple(latents.shape)}",
            "draw latents and data together from the model, and pass the latents",
        )
    with target.pair.looked_at(seed, gradients=True):
        chains = _Chains(target, annealing or Annealing(), 2)
        return Bracket(chains.lower(), chains.upper(latents))


@dataclass
class _State:
    """Where chains are: u, shape (S, N, D), log f_t and its gradient at one temperature."""

    u: Float[Tensor, "S N D"]
    value: Float[Tensor, "S N"]
    gradient: Float[Tensor, "S N D"]


class _Chains:
    """Annealed runs with step sizes in common, from a pilot run made at once.

    Args:
        target: the posteriors.
        annealing: the settings.
        runs: how many will be made, for the choice to compile.
    """

    def __init__(self, target: Target, annealing: Annealing, runs: int) -> None:
        self.target, self.annealing = target, annealing
        self.temperatures = annealing.temperatures
        transitions = (runs + 1 / PILOT) * annealing.num_temperatures + WARM_UP
        calls = int(transitions * (annealing.num_leapfrog + 1))
        self._density: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
        self._density = target.compiled(annealing.num_chains, calls)
        self._steps = self._pilot()

    def lower(self) -> AnnealedBound:
        """From the prior to the posterior."""
        state = self._at(self.target.draw_prior(self.annealing.num_chains), 0.0)
        total, accepted = self._zero(), self._zero()
        for k, temperature in enumerate(self.temperatures[1:], 1):
            total += self._heat(state, temperature)
            accepted += self._move(state, temperature, self._steps[k])
        return AnnealedBound.from_weights(total, accepted.mean(0) / self.annealing.num_temperatures, upper=False)

    def upper(self, latents: Float[Tensor, "... N D"]) -> AnnealedBound:
        """From draws of the posterior, shape (N, D), to the prior."""
        state = self._at(latents.expand(self.annealing.num_chains, *latents.shape).contiguous(), 1.0)
        total, accepted = self._zero(), self._zero()
        for k in range(self.annealing.num_temperatures, 0, -1):
            accepted += self._move(state, self.temperatures[k], self._steps[k])
            total += self._heat(state, self.temperatures[k - 1])
        return AnnealedBound.from_weights(total, accepted.mean(0) / self.annealing.num_temperatures, upper=True)

    def _pilot(self) -> Sequence[Tensor]:
        """Step sizes of each datum, shape (N,), for every temperature."""
        log_step = torch.full((self.target.num_data,), -0.25 * math.log(max(self.target.size, 1)))
        log_step = log_step.to(self.target.x.device)
        state = self._at(self.target.draw_prior(self.annealing.num_chains), 0.0)
        for _ in range(WARM_UP):
            log_step += GAIN * (self._move(state, 0.0, log_step.exp()).mean(0) - ACCEPTANCE)
        steps = [log_step.exp()]
        for k, temperature in enumerate(self.temperatures[1:], 1):
            if k % PILOT == 0 or k == self.annealing.num_temperatures:
                self._heat(state, temperature)
                log_step += GAIN * (self._move(state, temperature, log_step.exp()).mean(0) - ACCEPTANCE)
            steps.append(log_step.exp())
        return steps

    def _at(self, u: Float[Tensor, "S N D"], temperature: float) -> _State:
        return _State(u, *self._evaluate(u, temperature))

    def _evaluate(
        self, u: Float[Tensor, "S N D"], temperature: float
    ) -> tuple[Float[Tensor, "S N"], Float[Tensor, "S N D"]]:
        return self._density(u, torch.tensor(temperature, device=u.device))

    def _zero(self) -> Float[Tensor, "S N"]:
        shape = self.annealing.num_chains, self.target.num_data
        return torch.zeros(shape, dtype=torch.float64, device=self.target.x.device)

    def _heat(self, state: _State, temperature: float) -> Float[Tensor, "S N"]:
        """Go to another temperature; the log of the weight that this brings, shape (S, N)."""
        before = state.value
        state.value, state.gradient = self._evaluate(state.u, temperature)
        return (state.value - before).double().nan_to_num(nan=-math.inf)

    def _move(self, state: _State, temperature: float, step: Tensor) -> Tensor:
        """One Hamiltonian transition, in place; the probabilities of acceptance, shape (S, N)."""
        step = (step * (1 + JITTER * (2 * torch.rand_like(state.value) - 1))).unsqueeze(-1)
        p = torch.randn_like(state.u)
        before = state.value - p.square().sum(-1) / 2
        u, value, gradient = state.u, state.value, state.gradient
        p = p + step / 2 * gradient
        for last in range(self.annealing.num_leapfrog - 1, -1, -1):
            u = u + step * p
            value, gradient = self._evaluate(u, temperature)
            p = p + (step if last else step / 2) * gradient
        after = value - p.square().sum(-1) / 2
        probability = (after - before).nan_to_num(nan=-math.inf).clamp(max=0).exp()
        accept = torch.rand_like(probability) < probability
        state.u = torch.where(accept.unsqueeze(-1), u, state.u)
        state.gradient = torch.where(accept.unsqueeze(-1), gradient, state.gradient)
        state.value = torch.where(accept, value, state.value)
        return probability
