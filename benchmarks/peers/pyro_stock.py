"""Stock Pyro on pyro_vae's own programs: ``SVI``, ``Trace_ELBO`` and ``pyro.optim.Adam``.

What is fair about it: Pyro's validation is off, as its people turn it off where speed counts, and the programs are the
very ones that pyro_vae trains.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyro
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import PyroOptim
from torch import Tensor

from benchmarks.peers import settings
from benchmarks.peers.batches import batches
from benchmarks.timing import ContenderError, Here, Work, repeat
from pyro_vae.guides import GUIDES
from pyro_vae.models import VAE
from pyro_vae.networks import MLP, NETWORKS

EVENT_SHAPE = (1, settings.SIDE, settings.SIDE)


def pyro_stock(guide: str = "mean_field", network: str = "mlp", fused: bool = False, device: str = "cpu") -> Here:
    """The contender: ``vae`` with this guide and these networks, an mlp of one hidden layer of 400."""
    on = "on the GPU" if device == "cuda" else ""
    parts = (guide, "mean_field"), (network, "mlp"), ("fused Adam" if fused else "", ""), (on, "")
    name = ", ".join(["stock Pyro", *(part for part, usual in parts if part != usual)])
    return Here(name, lambda: build(guide, network, fused, device_of(device)))


def device_of(name: str) -> torch.device:
    """The device of this name.

    Raises:
        ContenderError: if it is not there.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ContenderError("needs a CUDA GPU")
    return torch.device(name)


def build(guide: str, network: str, fused: bool, device: torch.device) -> Work:
    """The work."""
    recipe = MLP(hidden=(settings.HIDDEN,)) if network == "mlp" else NETWORKS.build(network)
    model = VAE(EVENT_SHAPE, settings.LATENT_DIM, network=recipe)
    made = GUIDES.build(guide, model=model, network=recipe)
    svi = SVI(model.to(device), made.to(device), adam(fused), Trace_ELBO())
    stream = (x.to(device) for x in batches(settings.BATCH_SIZE, EVENT_SHAPE))
    return steps_of(svi, stream)


def adam(fused: bool = False) -> PyroOptim:
    """Pyro's Adam, what ``pyro.optim.Adam`` makes; ``fused`` is an option that it hands on to torch."""
    return PyroOptim(torch.optim.Adam, {"lr": settings.LEARNING_RATE} | ({"fused": True} if fused else {}))


def steps_of(svi: SVI, stream: Iterator[Tensor]) -> Work:
    """The work of stock SVI: a step on each batch, without validation."""

    def step() -> float:
        x = next(stream)
        with pyro.validation_enabled(False):
            loss: float = svi.step(x) / len(x)
        return loss

    return repeat(step)
