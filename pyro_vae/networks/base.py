r"""What every network here has in common.

A *network* is a small frozen recipe (depth, width, activation).  ``network.encoder(shapes)`` makes a module that maps
inputs of those shapes to features, and ``network.decoder(sizes, event_shape)`` one that maps latent vectors to the
parameters of p(x | z), of shape (..., \*event_shape).

Several inputs enter by the sum of one linear map each, W_1 x_1 + W_2 x_2 + b, which is the linear map of their
concatenation.  Because the sum broadcasts, the part of x is computed once per image even where a label is enumerated:
x of shape (N, D) and y of shape (K, 1, K) give features of shape (K, N, F).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pyro_vae.registry import Registry

Shape = tuple[int, ...]
START = 0.1


@dataclass(frozen=True)
class Network:
    """Base of the networks.

    A new one subclasses this as a frozen dataclass in a file of its own, registers itself, and writes ``encoder`` and
    ``decoder``.  The fields of the dataclass are its options.

    Example:
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import VAE
        >>> from pyro_vae.networks import JointLinear, Network
        >>> class Linear(Network):
        ...     def encoder(self, shapes):
        ...         encoder = JointLinear(shapes, 8)
        ...         encoder.num_features = 8
        ...         return encoder
        >>> MeanField(VAE((4,), latent_dim=2), network=Linear()).posterior(torch.rand(3, 4)).mean.shape
        torch.Size([3, 2])
    """

    def encoder(self, shapes: Sequence[Shape]) -> nn.Module:
        """A module from inputs of these event shapes to features; its ``num_features`` says how many."""
        raise NotImplementedError

    def decoder(self, sizes: Sequence[int], event_shape: Shape) -> nn.Module:
        """A module from vectors of these sizes to a tensor of ``event_shape``."""
        raise NotImplementedError

    def for_vectors(self) -> Network:
        """The network to use between latent vectors, where a model has several of them: this one, if it can."""
        return self


NETWORKS: Registry[Network] = Registry("network")


def start_near_identity(module: nn.Module) -> None:
    """Scale the initial weights of a module down: a chain of random transforms would drown the signal of x.

    Example:
        >>> from pyro_vae.networks import START, start_near_identity
        >>> layer = torch.nn.Linear(2, 2)
        >>> weight = layer.weight.clone()
        >>> start_near_identity(layer)
        >>> START, torch.equal(layer.weight, START * weight)
        (0.1, True)
    """
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(START)


class JointLinear(nn.Module):
    """The linear map of several inputs: the sum of one map each, broadcast over the batch dimensions.

    Example:
        >>> from pyro_vae.networks import JointLinear
        >>> joint, x, y = JointLinear([(1, 8, 8), (10,)], 6), torch.rand(3, 1, 8, 8), torch.eye(10)
        >>> joint(x, y[:3]).shape
        torch.Size([3, 6])
        >>> joint(x, y.unsqueeze(1)).shape  # each of ten labels with each of three images
        torch.Size([10, 3, 6])
    """

    def __init__(self, shapes: Sequence[Shape], out_features: int) -> None:
        super().__init__()
        self.event_dims = [len(shape) for shape in shapes]
        sizes = [math.prod(shape) for shape in shapes]
        self.maps = nn.ModuleList(nn.Linear(size, out_features, bias=i == 0) for i, size in enumerate(sizes))
        bound = sum(sizes) ** -0.5  # torch's default for the concatenated input
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, *inputs: Tensor | None) -> Tensor:
        """The sum over inputs; an input that is None is left out of it, for another call to add."""
        terms = [
            linear(value.flatten(-event_dim))
            for linear, value, event_dim in zip(self.maps, inputs, self.event_dims, strict=True)
            if value is not None
        ]
        return sum(terms[1:], start=terms[0])


def one_hot(label: Tensor, num_classes: int) -> Tensor:
    """Labels of shape (...) as float indicator vectors of shape (..., num_classes).

    Example:
        >>> from pyro_vae.networks import one_hot
        >>> one_hot(torch.tensor([0, 2]), 3)
        tensor([[1., 0., 0.],
                [0., 0., 1.]])
    """
    return nn.functional.one_hot(label.long(), num_classes).to(torch.get_default_dtype())
