"""Encoders and decoders: plain torch modules, and the recipes that size them, one per file."""

from pyro_vae.networks.base import NETWORKS, START, JointLinear, Network, Shape, one_hot, start_near_identity
from pyro_vae.networks.conv import Conv
from pyro_vae.networks.missing import BesideIndicator, indicator_shape, with_indicator
from pyro_vae.networks.mlp import MLP
from pyro_vae.networks.resnet import ResNet
from pyro_vae.registry import import_siblings

import_siblings(__name__, __path__)

__all__ = [
    "MLP",
    "NETWORKS",
    "START",
    "BesideIndicator",
    "Conv",
    "JointLinear",
    "Network",
    "ResNet",
    "Shape",
    "indicator_shape",
    "one_hot",
    "start_near_identity",
    "with_indicator",
]
