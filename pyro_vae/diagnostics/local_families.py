r"""The variational family of a guide with free parameters for each datum.

``Offsets`` is the guide's own family.  An amortized guide computes the parameters of q(z | x_n) by linear layers; give
the output of each a free offset of its own for every datum,

    h_n = W f_n + b + o_n,

and the guide can put any member of its family that its last layers reach on each datum, whatever its encoder makes of
x_n.  Zero offsets are the guide itself.  Where labels are enumerated, every label has its own.

``LocalNormal`` stands in for guides that compute nothing by linear layers: a normal for each datum over the flat,
unconstrained latents of ``posterior.target``, diagonal where the guide factorizes and of full rank where it does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pyro_vae.pairs.draws import Draws, draw
from pyro_vae.pairs.structure import Structure
from pyro_vae.pairs.vectorized import draws_lie
from pyro_vae.posterior.target import Target
from pyro_vae.shapes import Float

DIAGONAL = "diagonal normal on the unconstrained latents"
FULL_RANK = "full-rank normal on the unconstrained latents"
OWN_FAMILY = "the guide's own"
MOMENTS = 10, 50  # runs, and draws per run, of the guide that a normal takes its moments from


class LocalFamily(Protocol):
    """Distributions over the latents of N data, each datum with parameters of its own.

    Attributes:
        name: for a person.
        start: the parameters that are, or come near, the guide.
    """

    name: str
    start: list[Tensor]

    def bound(self, parameters: Sequence[Tensor], num_samples: int) -> Float[Tensor, "N"]:
        """The ELBO, nats, shape (N,), by fresh draws; its gradient in the parameters is that of the exact one."""

    def estimates(
        self, parameters: Sequence[Tensor], num_samples: int
    ) -> tuple[Float[Tensor, "N"], Float[Tensor, "S N"]]:
        """The ELBO, shape (N,), and log importance weights, labels summed out, shape (S, N), by fresh draws."""


class Offsets:
    r"""The guide's own family: offsets on the outputs of its linear layers.

    Args:
        target: the posteriors of N data.
    """

    name = OWN_FAMILY

    def __init__(self, target: Target) -> None:
        self.target = target
        draws_lie(target.probed, target.x, target.y)  # for the guide itself, before anybody meets its linear maps
        watch = _Watch(target.probed, target.num_data)
        with torch.no_grad(), torch.random.fork_rng():
            self._run(watch, 2)  # two draws: no layer takes draws for data
        self._places = [place for place, shape in enumerate(watch.shapes) if shape is not None]
        self.start = [target.x.new_zeros(shape) for shape in watch.shapes if shape is not None]

    def bound(self, parameters: Sequence[Tensor], num_samples: int) -> Float[Tensor, "N"]:
        draws = self._draw(parameters, num_samples)
        bound = draws.terms.elbo
        if self.target.probed.score_function:
            score = _score(draws)
            bound = bound + score - score.detach()
        return bound

    def estimates(
        self, parameters: Sequence[Tensor], num_samples: int
    ) -> tuple[Float[Tensor, "N"], Float[Tensor, "S N"]]:
        with torch.no_grad():
            terms = self._draw(parameters, num_samples).terms
        return terms.elbo, terms.log_weights

    def _draw(self, parameters: Sequence[Tensor], num_samples: int) -> Draws:
        return self._run(_Add(dict(zip(self._places, parameters, strict=True))), num_samples)

    def _run(self, linear: _Linear, num_samples: int) -> Draws:
        """Draws of the same pair, parameters and all, with something done to the linear maps of its guide."""
        pair, x, y = self.target.pair, self.target.x, self.target.y

        def guide(*arguments: Any) -> Any:
            with linear:
                return pair.guide(*arguments)

        probed = replace(self.target.probed, pair=pair.with_guide(guide))
        return draw(probed, x, y, num_samples, scaled=False)


class LocalNormal:
    """A normal for each datum over its unconstrained latents, started at the guide's moments.

    Args:
        target: the posteriors of N data.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.diagonal = target.probed.factorized
        self.name = DIAGONAL if self.diagonal else FULL_RANK
        with torch.random.fork_rng():
            runs, draws = MOMENTS
            u = torch.cat([target.draw(draws).u for _ in range(runs)])
        log_scale = u.std(0).clamp(min=1e-6).log()
        self.start = [u.mean(0), log_scale]
        if not self.diagonal:
            centred = ((u - u.mean(0)) / log_scale.exp()).movedim(1, 0)
            ridge = 1e-4 * torch.eye(target.size, dtype=u.dtype, device=u.device)
            factor = torch.linalg.cholesky(centred.mT @ centred / len(u) + ridge)
            diagonal = factor.diagonal(dim1=-2, dim2=-1)
            self.start = [u.mean(0), log_scale + diagonal.log(), factor.tril(-1) / diagonal.unsqueeze(-1)]

    def bound(self, parameters: Sequence[Tensor], num_samples: int) -> Float[Tensor, "N"]:
        return self._log_weights(parameters, num_samples).mean(0)

    def estimates(
        self, parameters: Sequence[Tensor], num_samples: int
    ) -> tuple[Float[Tensor, "N"], Float[Tensor, "S N"]]:
        with torch.no_grad():
            log_weights = self._log_weights(parameters, num_samples)
        return log_weights.mean(0), log_weights

    def _log_weights(self, parameters: Sequence[Tensor], num_samples: int) -> Float[Tensor, "S N"]:
        """Log f(u) - log q(u), with u = loc + diag(scale) (I + lower) e and e standard normal."""
        loc, log_scale = parameters[:2]
        e = torch.randn(num_samples, *loc.shape, dtype=loc.dtype, device=loc.device)
        bent = e if self.diagonal else e + (parameters[2].tril(-1) @ e.unsqueeze(-1)).squeeze(-1)
        log_q = -(e.square() / 2 + log_scale + math.log(2 * math.pi) / 2).sum(-1)
        return self.target.log_density(loc + log_scale.exp() * bent) - log_q


def local_family(target: Target) -> LocalFamily:
    """The family to refine a guide in: its own, or normals where it has no linear layers that know the data.

    Args:
        target: the posteriors of N data.

    Raises:
        InputError: if there are no such layers and a latent site is discrete and not enumerated.
    """
    if target.probed.data_dim is not None:
        offsets = Offsets(target)
        if offsets.start:
            return offsets
    return LocalNormal(target)


class _Linear(TorchFunctionMode):
    """Meets the output of every linear map, in the order of the calls."""

    def __enter__(self) -> Self:
        self._calls = 0
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is not nn.functional.linear:
            return result
        self._calls += 1
        return self.meet(self._calls - 1, result)

    def meet(self, call: int, output: Tensor) -> Tensor:
        """What the layer is to put out."""
        raise NotImplementedError


class _Watch(_Linear):
    """Learns the shapes of offsets, None for outputs that have no dimension of data."""

    def __init__(self, structure: Structure, num_data: int) -> None:
        super().__init__()
        self.structure, self.num_data = structure, num_data
        self.shapes: list[tuple[int, ...] | None] = []

    def meet(self, call: int, output: Tensor) -> Tensor:
        self.shapes.append(self._shape(output))
        return output

    def _shape(self, output: Tensor) -> tuple[int, ...] | None:
        """The shape of the offsets of an output, (labels…, S, plates…, F), but for the draws, which share an offset."""
        batch, shape = output.dim() - 1, list(output.shape)
        data = batch + (self.structure.data_dim or 0)
        draws = batch - 1 - self.structure.nesting
        if not 0 <= data < batch or shape[data] != self.num_data:
            return None
        if draws >= 0:
            shape[draws] = 1
        return tuple(shape)


class _Add(_Linear):
    """Adds offsets, by call."""

    def __init__(self, offsets: dict[int, Tensor]) -> None:
        super().__init__()
        self.offsets = offsets

    def meet(self, call: int, output: Tensor) -> Tensor:
        return output + self.offsets[call] if call in self.offsets else output


def _score(draws: Draws) -> Tensor:
    """What has the score-function gradient of the ELBO, shape (N,), with the other draws' mean as a baseline."""
    terms = draws.terms
    reward = (terms.observed + terms.prior - terms.sampled - terms.enumerated).detach()
    weights = terms.probabilities.detach()
    expected = (weights * reward).sum(0)
    others = (expected.sum(0) - expected) / max(len(expected) - 1, 1)
    log_q = torch.stack([draws.at(draws.q, name) for name in draws.structure.score_function]).sum(0)
    return (weights * (reward - others) * log_q).sum(0).mean(0)
