"""pyro_vae's own training step, compiled, as ``fit`` runs it: gathered rows, binarization, loss, gradients, Adam."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.peers import settings
from benchmarks.peers.pyro_stock import device_of
from benchmarks.timing import Contender, Here, repeat
from pyro_vae.config import FitConfig
from pyro_vae.data import Batches, Images
from pyro_vae.data.batches import Indices
from pyro_vae.data.binarization import Binarization
from pyro_vae.objectives import OBJECTIVES
from pyro_vae.presets import preset
from pyro_vae.runs.assembly import OfShape, build_pair
from pyro_vae.training.loss import StepLoss
from pyro_vae.training.recorded_step import RecordedStep
from pyro_vae.training.step import EagerStep

EVENT_SHAPE = (1, settings.SIDE, settings.SIDE)
VAE: dict[str, Any] = {
    "latent_dim": settings.LATENT_DIM,
    "batch_size": settings.BATCH_SIZE,
    "lr": settings.LEARNING_RATE,
}
MLP = VAE | {"hidden": (settings.HIDDEN,)}
SS_VAE: dict[str, Any] = {
    "model": "ss_vae",
    "classifier": "mlp",
    "hidden": settings.M2_HIDDEN,
    "latent_dim": settings.LATENT_DIM,
    "batch_size": settings.M2_BATCH_SIZE,
    "lr": settings.LEARNING_RATE,
    "consistency_weight": 0,
}


def ours() -> dict[str, Callable[[], Contender]]:
    """The contenders, by what they train."""
    return {
        "vae": lambda: own_step("float32", **MLP),
        "vae bfloat16": lambda: own_step("bfloat16", precision="bf16", **MLP),
        "iaf": lambda: own_step("iaf", guide="iaf", **MLP),
        "conv": lambda: own_step("conv", network="conv", **VAE),
        "ss_vae": lambda: own_step("ss_vae", **SS_VAE),
        "cuda": lambda: own_step("on the GPU", device="cuda", **MLP),
        "cvae_mnist": lambda: own_step("cvae_mnist", **preset("cvae_mnist")),
    }


def own_step(name: str, compiled: bool = True, **config: Any) -> Here:
    """The contender for a configuration of ``fit``."""
    return Here(
        f"pyro_vae, {name}", lambda: repeat(build(FitConfig.from_settings(**{"device": "cpu"} | config), compiled))
    )


def build(config: FitConfig, compiled: bool) -> Callable[[], Tensor]:
    """A function that makes a step and returns its loss."""
    device = device_of(config.device)
    torch.manual_seed(0)
    images = Images(torch.from_numpy(settings.images()).view(-1, *EVENT_SHAPE), scale=255).to(device)
    pair = build_pair(config, OfShape(EVENT_SHAPE, settings.NUM_CLASSES), config.model, config.guide)
    for module in pair.modules().values():
        module.to(device)
    probed = pair.probe(torch.zeros(2, *EVENT_SHAPE, device=device))
    how: Binarization = "dynamic" if config.binarization == "auto" else config.binarization
    batches = Batches(images, torch.arange(0), config.batch_size, how, config.seed)
    objective = OBJECTIVES.build(config.objective, probed=probed, num_data=len(images))
    parameters = [parameter for parameter in pair.parameters().values() if parameter.requires_grad]
    step: Any = EagerStep(StepLoss(objective, 0.0, config), batches, parameters, config)
    pair.train()
    rows = endless(batches)
    if compiled:
        buffers = [buffer for module in pair.modules().values() for buffer in module.buffers()]
        with pair.scope():
            step = RecordedStep(step, buffers, True, next(rows), 1.0)
        step.compile()

    def run() -> Tensor:
        loss: Tensor = step(next(rows), config.lr, 1.0, 1.0)[0]
        return loss

    return run


def endless(batches: Batches) -> Iterator[Indices]:
    """The rows of one epoch after another."""
    while True:
        yield from batches.indices()
