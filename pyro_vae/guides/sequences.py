r"""The part of a guide for sites that are there at each step of a sequence, one conditional for all steps.

    q(z_1, …, z_T | x) = prod_t q(z_t | z_{t-1}, h_t),        h = GRU(x) from both ends

is the faithful inverse of a Markov chain p(z_1) p(z_t | z_{t-1}) p(x_t | z_t); Krishnan, Shalit, Sontag, *Structured
Inference Networks for Nonlinear State Space Models* (2017).  Where the model is not a Markov chain, a second GRU over
the z before t stands in the place of z_{t-1}.  Steps that a row does not have are passed over: its summaries, and
so its posterior, are the same however far it is padded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vae.conditionals import Conditional
from pyro_vae.networks.mlp import MLPEncoder

STATE = 64  # numbers in each direction
WIDTH = 2 * STATE  # of the layer that joins a step's summary to what was drawn before
SUMMARY, STEP, BEFORE = "_summary", "_step", "_before"


class Summaries(nn.Module):
    """What a GRU makes of sequences from each of their ends.

    Args:
        sizes: of a step of each sequence, by name.

    Attributes:
        size: how many numbers the summary of a step has.

    Example:
        >>> import torch
        >>> from pyro_vae.guides.sequences import Summaries
        >>> summaries = Summaries({"x": 2})
        >>> x, there = torch.rand(3, 5, 2), torch.arange(5) < torch.tensor([[5], [3], [4]])
        >>> summaries({"x": x}, there).shape
        torch.Size([3, 5, 128])
        >>> padded = torch.nn.functional.pad(x, (0, 0, 0, 4))
        >>> longer = summaries({"x": padded}, torch.nn.functional.pad(there, (0, 4)))
        >>> torch.allclose(longer[:, :5], summaries({"x": x}, there), atol=1e-6)
        True
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        super().__init__()
        self._names, self.size = tuple(sizes), 2 * STATE
        self.forwards = nn.GRU(sum(sizes.values()), STATE, batch_first=True)
        self.backwards = nn.GRU(sum(sizes.values()), STATE, batch_first=True)

    def forward(self, values: Mapping[str, Tensor], there: Tensor | None = None) -> Tensor:
        """The summary of each step, shape (N, T, size).

        Args:
            values: the sequences, each of shape (N, T, D).
            there: which steps a row has, shape (N, T); None for all.
        """
        x = torch.cat([values[name] for name in self._names], -1)
        backwards = _summaries(self.backwards, x.flip(1), None if there is None else there.flip(1)).flip(1)
        return torch.cat([_summaries(self.forwards, x, there), backwards], -1)


def _summaries(gru: nn.GRU, x: Tensor, there: Tensor | None) -> Tensor:
    """The states of a GRU over the steps that there are; at the others the state before."""
    if there is None:
        return gru(x)[0]
    first = torch.sort((~there).to(torch.int8), dim=1, stable=True).indices  # the steps of a row without gaps
    packed = x.gather(1, first.unsqueeze(-1).expand_as(x))
    states = gru(packed)[0]
    states = nn.functional.pad(states, (0, 0, 1, 0))  # before its first step the state is 0
    index = there.cumsum(1).unsqueeze(-1).expand(-1, -1, states.shape[-1])
    return states.gather(1, index)


class InSteps:
    r"""A conditional at one step after another; what its encoder makes of values known for all steps is made once.

    Args:
        conditional: the conditional.
        names: of the values that it is given, in order.
        known: the values of all steps by name, of shape (..., T, \*event_shape), or (..., 1, \*event_shape) where they
            are the same at each.  An encoder that is no sum of maps first has no use for them.

    Example:
        >>> import torch
        >>> from pyro_vae.conditionals import Conditional, DiagonalNormal
        >>> from pyro_vae.guides.sequences import InSteps
        >>> from pyro_vae.networks import MLP
        >>> q = Conditional(MLP(hidden=(16,)).encoder([(3,), (2,)]), DiagonalNormal(16, 2))
        >>> x, z = torch.rand(5, 7, 3), torch.rand(5, 2)
        >>> at = InSteps(q, ["x", "z"], {"x": x})
        >>> torch.allclose(at(6, {"x": x[:, 6], "z": z}).mean, q(x[:, 6], z).mean, atol=1e-6)
        True
    """

    def __init__(self, conditional: Conditional, names: Sequence[str], known: Mapping[str, Tensor]) -> None:
        self._conditional, self._names, self._known = conditional, names, known
        encoder = conditional.encoder
        self._encoder = encoder if isinstance(encoder, MLPEncoder) else None
        self._begun = self._encoder.first(*map(known.get, names)) if self._encoder else None

    def __call__(self, step: int, values: Mapping[str, Tensor]) -> Any:
        """The distribution at a step, from all values there."""
        if self._encoder is None or self._begun is None:
            return self._conditional(*(values[name] for name in self._names))
        rest = self._encoder.first(*(None if name in self._known else values[name] for name in self._names))
        begun = self._begun[..., step if self._begun.shape[-2] > 1 else 0, :]
        return self._conditional.family(self._encoder.rest(begun + rest))


class Before(nn.Module):
    """What the conditional of a step is given of the steps before it.

    Args:
        sizes: how many numbers a value of each series has, by its key.
        markov: whether the last step is enough.

    Attributes:
        size: how many numbers it is.
    """

    def __init__(self, sizes: Mapping[str, int], markov: bool) -> None:
        super().__init__()
        self._keys = tuple(sizes)
        width = sum(sizes.values())
        self.size = width if markov else STATE
        self.start = nn.Parameter(torch.zeros(self.size))
        self.cell = None if markov else nn.GRUCell(width, STATE)

    def after(self, before: Tensor, values: Mapping[str, Tensor]) -> Tensor:
        """What the next step is given.

        Args:
            before: what this step was given.
            values: of this step, each of shape (..., size).
        """
        value = torch.cat([values[key] for key in self._keys], -1)
        if self.cell is None:
            return value
        batch = value.shape[:-1]
        state: Tensor = self.cell(value.flatten(0, -2), before.expand(*batch, self.size).flatten(0, -2))
        return state.reshape(*batch, self.size)
