"""Convolutional networks: strided 3x3 convolutions down, transposed ones up, for images of any size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import nn

from pyro_vae.networks.base import NETWORKS, Network, Shape
from pyro_vae.networks.images import MapsDecoder, MapsEncoder, check_images
from pyro_vae.networks.mlp import MLP
from pyro_vae.option_types import Share, Wholes


@NETWORKS.register("conv")
@dataclass(frozen=True)
class Conv(Network):
    """3x3 convolutions that halve the image while a side is over 8 pixels, and a dense layer.

    Args:
        channels: the channels of each convolution, from the data to the latents (a decoder runs them backwards).
        dense: the width of the dense layer; 0 for none.
        dropout: the share of an encoder's features dropped before and after the dense layer while training.
        pool: the side of the squares of a map of which an encoder hands on the maximum; 1 hands on every entry.
        batch_norm: whether an encoder normalizes the channels of each convolution over the batch.
        refine: whether a decoder has one more convolution at full size, with ``channels[0]`` maps going in.

    Example:
        >>> from pyro_vae.networks import Conv
        >>> network = Conv(channels=(4, 8), dense=16)
        >>> network.plan((1, 28, 28))  # the sides of the maps, and the strides
        ([(28, 28), (14, 14), (7, 7)], [2, 2])
        >>> network.encoder([(1, 28, 28)])(torch.rand(3, 1, 28, 28)).shape
        torch.Size([3, 16])
        >>> network.decoder([2], (1, 28, 28))(torch.rand(3, 2)).shape
        torch.Size([3, 1, 28, 28])
    """

    channels: Wholes = (16, 32)
    dense: Annotated[int, Field(ge=0)] = 128
    dropout: Share = 0.0
    pool: Annotated[int, Field(ge=1)] = 1
    batch_norm: bool = False
    refine: bool = False

    def plan(self, event_shape: Shape) -> tuple[list[tuple[int, int]], list[int]]:
        """The image sides before and after each convolution, and its stride.

        Raises:
            InputError: if the data are not images.
        """
        check_images(event_shape, "conv")
        sides, strides = [(event_shape[1], event_shape[2])], []
        for _ in self.channels:
            height, width = sides[-1]
            strides.append(2 if max(height, width) > 8 else 1)
            sides.append((math.ceil(height / strides[-1]), math.ceil(width / strides[-1])))
        return sides, strides

    def for_vectors(self) -> MLP:
        return MLP(hidden=(self.dense,)) if self.dense else MLP()

    def encoder(self, shapes: Sequence[Shape]) -> MapsEncoder:
        sides, strides = self.plan(shapes[0])
        layers: list[nn.Module] = []
        for before, after, stride in zip((shapes[0][0], *self.channels), self.channels, strides, strict=False):
            norm = [nn.BatchNorm2d(after)] if self.batch_norm else []
            layers += [nn.Conv2d(before, after, 3, stride, 1), *norm, nn.ReLU()]
        size = min(self.pool, *sides[-1])
        layers += [nn.MaxPool2d(size)] if size > 1 else []
        map_shape = (self.channels[-1], *(side // size for side in sides[-1]))
        return MapsEncoder(shapes, nn.Sequential(*layers), map_shape, self.dense, self.dropout)

    def decoder(self, sizes: Sequence[int], event_shape: Shape) -> MapsDecoder:
        sides, strides = self.plan(event_shape)
        last = self.channels[0] if self.refine else event_shape[0]
        channels = (*self.channels[::-1], last) if not self.refine else (self.channels[-1], *self.channels[::-1])
        layers: list[nn.Module] = []
        for i, stride in enumerate(reversed(strides)):
            small, large = sides[-1 - i], sides[-2 - i]
            extra = (large[0] - (small[0] - 1) * stride - 1, large[1] - (small[1] - 1) * stride - 1)
            layers += [nn.ConvTranspose2d(channels[i], channels[i + 1], 3, stride, 1, extra), nn.ReLU()]
        layers = [*layers, nn.Conv2d(last, event_shape[0], 3, 1, 1)] if self.refine else layers[:-1]
        return MapsDecoder(sizes, (self.channels[-1], *sides[-1]), nn.Sequential(*layers), self.dense)
