r"""Objectives: what turns a model, a guide and a batch into a loss, in nats per datum.

The loss of a batch is minus a bound on the evidence, averaged over its rows.  For the evidence lower bound it is

    -1/B sum_n E_q[log p(x_n, z_n) - log q(z_n | x_n)],

with every latent term multiplied by beta (see ``handlers.temper``).  An objective hands this to one of Pyro's own
ELBOs, or forms a bound of its own from ``draws.Draws``.

Latents w that all N rows of the set share have one term log p(w) - log q(w) for all of them, of which a row bears the
N-th part: so a batch of any size is an unbiased estimate of the bound on the whole set, per row, and what is learned is
the posterior given all rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, ClassVar, TypeVar

import torch
from pyro.infer import ELBO, TraceEnum_ELBO
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.pairs.draws import Draws, draw
from pyro_vae.pairs.handlers import Number, temper, weigh
from pyro_vae.pairs.pair import ProbedPair
from pyro_vae.pairs.structure import Structure
from pyro_vae.pairs.vectorized import check_data_plate
from pyro_vae.registry import Registry
from pyro_vae.shapes import Float, Shaped

S = TypeVar("S", bound=Structure)


class Objective:
    """Base of the objectives.

    To write one, subclass ``PyroObjective`` and write ``estimator``, or subclass ``SampledObjective`` and write
    ``bound``, or this and write ``prepare`` and ``loss``; in a file of its own, entered with
    ``@OBJECTIVES.register("name")``.  Further arguments of ``__init__`` are its options.  An instance serves one pair.

    In a compiled step ``beta`` (where it changes) and ``epoch`` are tensors: compute with them, as ``capacity`` does;
    an ``if`` on their value makes training eager, which is said.

    Args:
        probed: the model and the guide, with what ``Pair.probe`` said of them without labels.

    Attributes:
        is_elbo: whether its value is the ELBO with the KL term times beta, whatever its gradient is; the best epoch of
            any other is chosen by the objective itself.

    Example:
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import VAE
        >>> from pyro_vae.objectives import Objective
        >>> from pyro_vae.pairs import Pair, draw
        >>> class AverageOfFive(Objective):
        ...     def prepare(self, probed):
        ...         return probed
        ...     def loss(self, prepared, x, y, beta, epoch):
        ...         return -draw(prepared, x, y, num_samples=5).terms.elbo.mean()
        >>> model, x = VAE((1, 8, 8)), torch.rand(3, 1, 8, 8).round()
        >>> AverageOfFive(Pair(model, MeanField(model)).probe(x))(x).shape
        torch.Size([])
    """

    is_elbo: ClassVar[bool] = False

    def __init__(self, probed: ProbedPair) -> None:
        self.pair, self.num_rows = probed.pair, probed.num_rows
        self._prepared: dict[bool, Any] = {False: self.prepare(probed)}

    def prepare(self, probed: ProbedPair) -> Any:
        """The facts that ``loss`` needs of these programs, probed with the labels given or latent.

        Raises:
            InputError: if it cannot bound the evidence of such programs.
        """
        raise NotImplementedError

    def loss(
        self, prepared: Any, x: Shaped[Tensor, "N *event"], y: Shaped[Tensor, "N"] | None, beta: Number, epoch: Number
    ) -> Float[Tensor, ""]:
        """The differentiable loss, a scalar in nats per datum; arguments as for a call."""
        raise NotImplementedError

    def __call__(
        self,
        x: Shaped[Tensor, "N *event"],
        y: Shaped[Tensor, "N"] | None = None,
        beta: Number = 1.0,
        epoch: Number = math.inf,
    ) -> Float[Tensor, ""]:
        r"""The differentiable loss of a batch, a scalar in nats per datum.

        Args:
            x: data of shape (B, \*event_shape).
            y: class labels of shape (B,), or None to leave the label site latent.
            beta: the weight of the latent terms.
            epoch: how far training is, for an objective that changes on the way; the default is its end.
        """
        labelled = y is not None
        if labelled not in self._prepared:
            self._prepared[labelled] = self.prepare(self.pair.probe(x, y, self.num_rows))
        with self.pair.scope():
            return self.loss(self._prepared[labelled], x, y, beta, epoch)


OBJECTIVES: Registry[Objective] = Registry("objective", ("probed", "num_data"))


class PyroObjective(Objective):
    """An objective that one of Pyro's ELBOs estimates; these objects remember the programs they first met.

    Example:
        >>> from pyro.infer import Trace_ELBO
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import VAE
        >>> from pyro_vae.objectives import PyroObjective
        >>> from pyro_vae.pairs import Pair
        >>> class TwoParticles(PyroObjective):
        ...     def estimator(self, structure):
        ...         return Trace_ELBO(num_particles=2, max_plate_nesting=structure.nesting)
        >>> model, x = VAE((4,), latent_dim=2), torch.ones(3, 4)
        >>> TwoParticles(Pair(model, MeanField(model)).probe(x))(x).shape
        torch.Size([])
    """

    is_elbo: ClassVar[bool] = True

    def estimator(self, structure: Structure) -> ELBO:
        """The Pyro ELBO for programs of this structure.

        Raises:
            InputError: if it cannot estimate the bound of such programs.
        """
        raise NotImplementedError

    def prepare(self, probed: ProbedPair) -> Any:
        return self.estimator(probed), probed

    def loss(
        self, prepared: Any, x: Shaped[Tensor, "N *event"], y: Shaped[Tensor, "N"] | None, beta: Number, epoch: Number
    ) -> Float[Tensor, ""]:
        estimator, structure = prepared
        programs = [self.pair.model, self.pair.guide]
        if not (isinstance(beta, float) and beta == 1.0):
            programs = [_within(program, lambda: temper(beta)) for program in programs]
        rows, share = share_of(structure, x)
        if share != 1:
            programs = [_within(program, lambda: weigh(structure.shared, share)) for program in programs]
        arguments = self.pair.arguments(x, y)
        if isinstance(estimator, TraceEnum_ELBO) and not torch.is_grad_enabled():
            return x.new_tensor(estimator.loss(*programs, *arguments)) / rows  # the other one asks for a gradient
        total: Tensor = estimator.differentiable_loss(*programs, *arguments)
        return total / rows


class ReparameterizedObjective(Objective):
    """An objective that needs log-probabilities per datum, differentiable in the draws.

    Args:
        probed: the model and the guide, with what ``Pair.probe`` said of them without labels.
        num_samples: draws per datum.
    """

    def __init__(self, probed: ProbedPair, num_samples: int = 1) -> None:
        self.num_samples = num_samples
        super().__init__(probed)

    def prepare(self, probed: ProbedPair) -> ProbedPair:
        return check_reparameterized(probed)


class SampledObjective(ReparameterizedObjective):
    """An objective that is a function of these log-probabilities.

    Example:
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import VAE
        >>> from pyro_vae.objectives import SampledObjective
        >>> from pyro_vae.pairs import Pair
        >>> class Reconstruction(SampledObjective):
        ...     def bound(self, draws):
        ...         return draws.terms.log_likelihood
        >>> model, x = VAE((4,), latent_dim=2), torch.ones(3, 4)
        >>> Reconstruction(Pair(model, MeanField(model)).probe(x))(x).item() > 0
        True
    """

    def bound(self, draws: Draws) -> Float[Tensor, "N"]:
        """The bound on the evidence per datum, nats, shape (N,)."""
        raise NotImplementedError

    def loss(
        self, prepared: Any, x: Shaped[Tensor, "N *event"], y: Shaped[Tensor, "N"] | None, beta: Number, epoch: Number
    ) -> Float[Tensor, ""]:
        with temper(beta):
            draws = draw(prepared, x, y, self.num_samples)
        return -self.bound(draws).mean()


def check_reparameterized(structure: S) -> S:
    """Refuse programs whose log-probabilities are not all per datum and differentiable in the draws.

    Raises:
        InputError: if a site lies outside the plate "data", a sampled one cannot be reparameterized, or an enumerated
            one depends on a sampled one.
    """
    check_data_plate(structure)
    if structure.sequential:
        raise InputError(
            "enumeration in parallel",
            "a site of the guide that is enumerated one value at a time",
            'write infer={"enumerate": "parallel"}, or use --objective elbo',
        )
    if structure.score_function:
        raise InputError(
            "latent sites that can be reparameterized",
            f"the site {structure.score_function[0]!r}",
            'enumerate it with infer={"enumerate": "parallel"}, or use --objective elbo',
        )
    first = structure.latent[: len(structure.enumerated)]
    if set(first) != set(structure.enumerated):
        raise InputError(
            "a guide that visits its enumerated sites first",
            f"the order {', '.join(structure.latent)}",
            "draw the labels before z, or use --objective elbo",
        )
    return structure


def share_of(probed: ProbedPair, x: Tensor) -> tuple[int, float]:
    """The rows that the sum over some rows of data stands for, and the part of the shared latents' terms due to them.

    A plate that says how many rows its own are drawn from scales their terms up to these, and has all of the shared
    ones.  A discrete shared latent that is summed out has no part: its rows are taken for the whole set.
    """
    if probed.plate_size is not None:
        return probed.plate_size, 1.0
    summed = {*probed.enumerated, *probed.marginal} & {*probed.shared}
    if not probed.shared or probed.num_rows is None or summed:
        return len(x), 1.0
    return len(x), len(x) / probed.num_rows


def _within(program: Callable[..., Any], handler: Callable[[], AbstractContextManager[Any]]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        with handler():
            return program(*args, **kwargs)

    return run
