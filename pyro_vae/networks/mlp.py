r"""Fully connected networks: linear layers, each followed by a batch normalization if wanted and a nonlinearity.

The ``gated`` nonlinearity makes a layer h = (W x + b) * sigmoid(V x + c), the gated linear unit of Dauphin, Fan, Auli
and Grangier, *Language Modeling with Gated Convolutional Networks*, 2017, which Tomczak and Welling's VampPrior uses.
Batch normalization is Ioffe and Szegedy's, 2015; dropout is Srivastava, Hinton, Krizhevsky, Sutskever and
Salakhutdinov's, 2014.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from pyro_vae.networks.base import NETWORKS, JointLinear, Network, Shape
from pyro_vae.networks.images import Dropout
from pyro_vae.option_types import Share, Wholes

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "tanh": nn.Tanh,
    "softplus": nn.Softplus,
    "gated": nn.GLU,
}


class BatchNorm(nn.BatchNorm1d):
    """Batch normalization of features of shape (..., F), over all dimensions but the last."""

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features.flatten(0, -2)).view_as(features)


class MLPEncoder(nn.Module):
    """Fully connected layers over one or several inputs."""

    def __init__(self, shapes: Sequence[Shape], hidden: Sequence[int], recipe: MLP) -> None:
        super().__init__()
        self.num_features = hidden[-1]
        outputs = [width * (2 if recipe.activation == "gated" else 1) for width in hidden]
        self.first = JointLinear(shapes, outputs[0])
        layers: list[nn.Module] = []
        for i, size in enumerate(outputs):
            if i:
                layers.append(nn.Linear(hidden[i - 1], size))
            if recipe.batch_norm:
                layers.append(BatchNorm(size))
            layers.append(ACTIVATIONS[recipe.activation]())
            if recipe.dropout:
                layers.append(Dropout(recipe.dropout))
        self.rest = nn.Sequential(*layers)

    def forward(self, *inputs: Tensor) -> Tensor:
        features: Tensor = self.rest(self.first(*inputs))
        return features


class MLPDecoder(nn.Module):
    """The mirror image: vectors to a tensor of the event shape."""

    def __init__(self, sizes: Sequence[int], hidden: Sequence[int], recipe: MLP, event_shape: Shape) -> None:
        super().__init__()
        self.event_shape = event_shape
        self.body = MLPEncoder([(size,) for size in sizes], hidden, recipe)
        self.last = nn.Linear(hidden[-1], math.prod(event_shape))

    def forward(self, *inputs: Tensor) -> Tensor:
        flat: Tensor = self.last(self.body(*inputs))
        return flat.unflatten(-1, self.event_shape)


@NETWORKS.register("mlp")
@dataclass(frozen=True)
class MLP(Network):
    """Fully connected layers.

    Args:
        hidden: the widths of the hidden layers, from the data to the latents (a decoder runs them backwards).
        activation: ``relu``, ``elu``, ``tanh``, ``softplus`` or ``gated``.
        batch_norm: whether to normalize every layer over the batch.
        dropout: the share of every layer's entries that are dropped while training.

    Example:
        >>> from pyro_vae.networks import MLP
        >>> network = MLP(hidden=(32, 16), activation="tanh")
        >>> network.encoder([(1, 8, 8)])(torch.rand(3, 1, 8, 8)).shape
        torch.Size([3, 16])
        >>> network.decoder([2], (1, 8, 8))(torch.rand(3, 2)).shape
        torch.Size([3, 1, 8, 8])
    """

    hidden: Wholes = (256, 256)
    activation: Literal["relu", "elu", "tanh", "softplus", "gated"] = "relu"
    batch_norm: bool = False
    dropout: Share = 0.0

    def encoder(self, shapes: Sequence[Shape]) -> MLPEncoder:
        return MLPEncoder(shapes, self.hidden, self)

    def decoder(self, sizes: Sequence[int], event_shape: Shape) -> MLPDecoder:
        return MLPDecoder(sizes, self.hidden[::-1], self, event_shape)
