r"""Residual networks: stages of x + f(x) blocks, each stage at half the size of the one before.

He, Zhang, Ren and Sun, *Identity Mappings in Deep Residual Networks*, 2016: a block is activation, convolution,
activation, convolution, and its input on top.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from pyro_vae.errors import InputError
from pyro_vae.networks.base import NETWORKS, Network, Shape
from pyro_vae.networks.images import MapsDecoder, MapsEncoder, check_images
from pyro_vae.networks.mlp import MLP
from pyro_vae.option_types import Share, Whole, Wholes


class Block(nn.Module):
    """x + f(x), f of two 3x3 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.f = nn.Sequential(
            nn.ELU(), nn.Conv2d(channels, channels, 3, padding=1), nn.ELU(), nn.Conv2d(channels, channels, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.f(x)


@NETWORKS.register("resnet")
@dataclass(frozen=True)
class ResNet(Network):
    """Residual blocks, halving the image once a stage, and a dense layer.

    Args:
        channels: the channels of each stage, from the data to the latents (a decoder runs them backwards).
        blocks: residual blocks a stage.
        dense: the width of the dense layer; 0 for none.
        dropout: the share of an encoder's features dropped before and after the dense layer while training.

    Example:
        >>> from pyro_vae.errors import InputError
        >>> from pyro_vae.networks import ResNet
        >>> ResNet(channels=(4, 8)).map_shape((1, 28, 28))
        (8, 7, 7)
        >>> try:
        ...     ResNet(channels=(4, 8, 16)).map_shape((1, 28, 28))
        ... except InputError as error:
        ...     print(error)
        expected image sides that can be halved 3 times for the network 'resnet'; got 28x28; use --network conv, ...
    """

    channels: Wholes = (16, 32)
    blocks: Whole = 1
    dense: Annotated[int, Field(ge=0)] = 128
    dropout: Share = 0.0

    def map_shape(self, event_shape: Shape) -> Shape:
        """The shape of the maps after the last stage.

        Raises:
            InputError: if the data are not images, or cannot be halved so often.
        """
        check_images(event_shape, "resnet")
        factor, (_, height, width) = 2 ** len(self.channels), event_shape
        if height % factor or width % factor:
            raise InputError(
                f"image sides that can be halved {len(self.channels)} times for the network 'resnet'",
                f"{height}x{width}",
                "use --network conv, which takes any size, or fewer stages, as in resnet:channels=32",
            )
        return self.channels[-1], height // factor, width // factor

    def for_vectors(self) -> MLP:
        return MLP(hidden=(self.dense,)) if self.dense else MLP()

    def encoder(self, shapes: Sequence[Shape]) -> MapsEncoder:
        map_shape = self.map_shape(shapes[0])
        layers: list[nn.Module] = []
        for before, after in zip((shapes[0][0], *self.channels), self.channels, strict=False):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), *self._stage(after)]
        return MapsEncoder(shapes, nn.Sequential(*layers, nn.ELU()), map_shape, self.dense, self.dropout)

    def decoder(self, sizes: Sequence[int], event_shape: Shape) -> MapsDecoder:
        map_shape, channels = self.map_shape(event_shape), (*self.channels[::-1], event_shape[0])
        layers: list[nn.Module] = []
        for before, after in pairwise(channels):
            layers += [*self._stage(before), nn.ELU(), nn.ConvTranspose2d(before, after, 4, stride=2, padding=1)]
        return MapsDecoder(sizes, map_shape, nn.Sequential(*layers), self.dense)

    def _stage(self, channels: int) -> list[nn.Module]:
        return [Block(channels) for _ in range(self.blocks)]
