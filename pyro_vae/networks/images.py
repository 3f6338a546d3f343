"""What the networks for images share: maps and a dense layer, wherever the maps come from."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyro_vae.errors import InputError
from pyro_vae.networks.base import JointLinear, Shape


class Dropout(nn.Dropout):
    """Dropout whose noise takes a fraction of the time of torch's own on the CPU.

    Four entries share the 64 bits of one draw, so the probability is p rounded to a multiple of 2^-16.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return input
        words = torch.randint(-(2**63), 2**63 - 1, ((input.numel() + 3) // 4,), device=input.device)
        noise = words.view(torch.int16)[: input.numel()].view(input.shape)  # uniform from -2^15 to 2^15 - 1
        kept = noise >= round(self.p * 2**16) - 2**15
        return input * (kept.to(input.dtype) / (1 - self.p))


class MapsEncoder(nn.Module):
    """Maps of an image, then a dense layer that takes the other inputs too.

    Args:
        shapes: the shapes of the inputs, the image first.
        maps: the module from images to maps.
        map_shape: the shape of its output.
        dense: the width of the dense layer; 0 hands the maps on as they are, with the other inputs beside them.
        dropout: the share of the features dropped before and after the dense layer while training.
    """

    def __init__(self, shapes: Sequence[Shape], maps: nn.Module, map_shape: Shape, dense: int, dropout: float) -> None:
        super().__init__()
        self.maps = maps
        self.drop = Dropout(dropout)
        inputs = [map_shape, *shapes[1:]]
        self.num_features = dense or sum(map(math.prod, inputs))
        self.dense = JointLinear(inputs, dense) if dense else None
        self.rest = nn.Sequential(nn.ReLU(), Dropout(dropout))

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        maps = self.drop(self.maps(x.flatten(0, -4)).unflatten(0, x.shape[:-3]))
        if self.dense is not None:
            features: Tensor = self.rest(self.dense(maps, *others))
            return features
        flat = [maps.flatten(-3), *others]
        batch = torch.broadcast_shapes(*(value.shape[:-1] for value in flat))
        return torch.cat([value.expand(*batch, -1) for value in flat], -1)


class MapsDecoder(nn.Module):
    """The mirror image: a dense layer, then the module from maps to images."""

    def __init__(self, sizes: Sequence[int], map_shape: Shape, images: nn.Module, dense: int) -> None:
        super().__init__()
        self.map_shape = map_shape
        self.first = JointLinear([(size,) for size in sizes], dense or math.prod(map_shape))
        self.dense = nn.Sequential(nn.ReLU(), nn.Linear(dense, math.prod(map_shape))) if dense else nn.Sequential()
        self.images = images

    def forward(self, *inputs: Tensor) -> Tensor:
        flat: Tensor = self.dense(self.first(*inputs))
        images: Tensor = self.images(flat.unflatten(-1, self.map_shape).flatten(0, -4).relu())
        return images.unflatten(0, flat.shape[:-1])


def check_images(event_shape: Shape, network: str) -> None:
    """Refuse data that are not images.

    Raises:
        InputError: if the shape is not (C, H, W).
    """
    if len(event_shape) != 3:
        raise InputError(
            f"images of shape (C, H, W) for the network {network!r}",
            f"shape {event_shape}",
            "use --network mlp and --classifier mlp",
        )
