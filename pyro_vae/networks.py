r"""Encoders and decoders: plain torch modules, and the factories that size them.

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
from itertools import pairwise

import torch
from torch import Tensor, nn

from pyro_vae.errors import InputError
from pyro_vae.registry import Registry

Shape = tuple[int, ...]
START = 0.1
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "elu": nn.ELU, "tanh": nn.Tanh, "softplus": nn.Softplus}


@dataclass(frozen=True)
class Network:
    """Base of the networks.

    A new one subclasses this as a frozen dataclass, registers itself, and writes ``encoder`` and ``decoder``.
    """

    def encoder(self, shapes: Sequence[Shape]) -> nn.Module:
        """A module from inputs of these event shapes to features; its ``num_features`` says how many."""
        raise NotImplementedError

    def decoder(self, sizes: Sequence[int], event_shape: Shape) -> nn.Module:
        """A module from vectors of these sizes to a tensor of ``event_shape``."""
        raise NotImplementedError


NETWORKS: Registry[Network] = Registry("network")


def start_near_identity(module: nn.Module) -> None:
    """Scale the initial weights of a flow's transforms down: a chain of random ones would drown the signal of x."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(START)


class JointLinear(nn.Module):
    """The linear map of several inputs: the sum of one map each, broadcast over the batch dimensions."""

    def __init__(self, shapes: Sequence[Shape], out_features: int) -> None:
        super().__init__()
        self.event_dims = [len(shape) for shape in shapes]
        sizes = [math.prod(shape) for shape in shapes]
        self.maps = nn.ModuleList(nn.Linear(size, out_features, bias=i == 0) for i, size in enumerate(sizes))
        bound = sum(sizes) ** -0.5  # torch's default for the concatenated input
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, *inputs: Tensor) -> Tensor:
        terms = [
            linear(value.flatten(-event_dim))
            for linear, value, event_dim in zip(self.maps, inputs, self.event_dims, strict=True)
        ]
        return sum(terms[1:], start=terms[0])


class MLPEncoder(nn.Module):
    """Fully connected layers over one or several inputs."""

    def __init__(self, shapes: Sequence[Shape], hidden: Sequence[int], activation: type[nn.Module]) -> None:
        super().__init__()
        self.num_features = hidden[-1]
        self.first = JointLinear(shapes, hidden[0])
        layers: list[nn.Module] = [activation()]
        for before, after in pairwise(hidden):
            layers += [nn.Linear(before, after), activation()]
        self.rest = nn.Sequential(*layers)

    def forward(self, *inputs: Tensor) -> Tensor:
        features: Tensor = self.rest(self.first(*inputs))
        return features


class MLPDecoder(nn.Module):
    """The mirror image: vectors to a tensor of the event shape."""

    def __init__(
        self, sizes: Sequence[int], hidden: Sequence[int], activation: type[nn.Module], event_shape: Shape
    ) -> None:
        super().__init__()
        self.event_shape = event_shape
        self.body = MLPEncoder([(size,) for size in sizes], hidden, activation)
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
        activation: ``relu``, ``elu``, ``tanh`` or ``softplus``.
    """

    hidden: tuple[int, ...] = (400, 400)
    activation: str = "relu"

    def encoder(self, shapes: Sequence[Shape]) -> MLPEncoder:
        return MLPEncoder(shapes, self.hidden, ACTIVATIONS[self.activation])

    def decoder(self, sizes: Sequence[int], event_shape: Shape) -> MLPDecoder:
        return MLPDecoder(sizes, self.hidden[::-1], ACTIVATIONS[self.activation], event_shape)


class ConvEncoder(nn.Module):
    """Convolutions over an image, then a dense layer that takes the other inputs too."""

    def __init__(self, shapes: Sequence[Shape], recipe: Conv) -> None:
        super().__init__()
        image, *others = shapes
        sides, strides = recipe.plan(image)
        self.num_features = recipe.dense
        layers: list[nn.Module] = []
        for before, after, stride in zip((image[0], *recipe.channels), recipe.channels, strides, strict=False):
            layers += [nn.Conv2d(before, after, 3, stride, 1), nn.ReLU()]
        self.image = nn.Sequential(*layers)
        self.dense = JointLinear([(recipe.channels[-1], *sides[-1]), *others], recipe.dense)
        self.rest = nn.Sequential(nn.ReLU(), nn.Dropout(recipe.dropout))
        self.drop = nn.Dropout(recipe.dropout)

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        maps = self.image(x.flatten(0, -4)).unflatten(0, x.shape[:-3])
        features: Tensor = self.rest(self.dense(self.drop(maps), *others))
        return features


class ConvDecoder(nn.Module):
    """The mirror image: a dense layer, then transposed convolutions up to the image."""

    def __init__(self, sizes: Sequence[int], event_shape: Shape, recipe: Conv) -> None:
        super().__init__()
        sides, strides = recipe.plan(event_shape)
        self.first = JointLinear([(size,) for size in sizes], recipe.dense)
        self.start = (recipe.channels[-1], *sides[-1])
        self.dense = nn.Sequential(nn.ReLU(), nn.Linear(recipe.dense, math.prod(self.start)), nn.ReLU())
        channels = (*recipe.channels[::-1], event_shape[0])
        layers: list[nn.Module] = []
        for i, stride in enumerate(reversed(strides)):
            small, large = sides[-1 - i], sides[-2 - i]
            extra = (large[0] - (small[0] - 1) * stride - 1, large[1] - (small[1] - 1) * stride - 1)
            layers += [nn.ConvTranspose2d(channels[i], channels[i + 1], 3, stride, 1, extra), nn.ReLU()]
        self.image = nn.Sequential(*layers[:-1])

    def forward(self, *inputs: Tensor) -> Tensor:
        flat: Tensor = self.dense(self.first(*inputs))
        images: Tensor = self.image(flat.unflatten(-1, self.start).flatten(0, -4))
        return images.unflatten(0, flat.shape[:-1])


@NETWORKS.register("conv")
@dataclass(frozen=True)
class Conv(Network):
    """3x3 convolutions that halve the image while a side is over 8 pixels, and a dense layer.

    Args:
        channels: of each convolution, from the data to the latents (a decoder runs them backwards).
        dense: the width of the dense layer.
        dropout: the share of an encoder's features dropped before and after the dense layer while training.
    """

    channels: tuple[int, ...] = (16, 32)
    dense: int = 128
    dropout: float = 0.0

    def plan(self, event_shape: Shape) -> tuple[list[tuple[int, int]], list[int]]:
        """The image sides before and after each convolution, and its stride.

        Raises:
            InputError: if the data are no images.
        """
        if len(event_shape) != 3:
            raise InputError(
                "images of shape (C, H, W) for the network 'conv'",
                f"shape {event_shape}",
                "use --network mlp and --classifier mlp",
            )
        sides, strides = [(event_shape[1], event_shape[2])], []
        for _ in self.channels:
            height, width = sides[-1]
            strides.append(2 if max(height, width) > 8 else 1)
            sides.append((math.ceil(height / strides[-1]), math.ceil(width / strides[-1])))
        return sides, strides

    def encoder(self, shapes: Sequence[Shape]) -> ConvEncoder:
        return ConvEncoder(shapes, self)

    def decoder(self, sizes: Sequence[int], event_shape: Shape) -> ConvDecoder:
        return ConvDecoder(sizes, event_shape, self)


def one_hot(label: Tensor, num_classes: int) -> Tensor:
    """Labels of shape (...) as float indicator vectors of shape (..., num_classes)."""
    return nn.functional.one_hot(label.long(), num_classes).to(torch.get_default_dtype())
