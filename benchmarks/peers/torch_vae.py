"""The VAE by hand in PyTorch, compiled, and its bare matrix products.

What is fair about the VAE: ``torch.compile`` makes one graph each of the loss and of its gradient (as fast as one
graph of both, and faster in bfloat16), the KL is in closed form, Adam is the fused one, and the loss is not read before
a turn is over.  In bfloat16 autocast also halves what the products move.

The products are what no step can do without: forward, and backward but for the gradient of the pixels, which nobody
needs.  ``torch.mm`` is MKL's in float32, which is slow on some processors; the same products through oneDNN say by how
much.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.peers import settings
from benchmarks.peers.batches import batches
from benchmarks.timing import Here, Work, repeat

LAYERS = (
    (settings.NUM_PIXELS, settings.HIDDEN),
    (settings.HIDDEN, settings.LATENT_DIM),
    (settings.HIDDEN, settings.LATENT_DIM),
    (settings.LATENT_DIM, settings.HIDDEN),
    (settings.HIDDEN, settings.NUM_PIXELS),
)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class VAE(nn.Module):
    """784-400-50 and back."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.loc, self.log_scale, self.decode, self.logits = (nn.Linear(*sizes) for sizes in LAYERS)

    def forward(self, x: Tensor) -> Tensor:
        """The negative bound of binary x, shape (N, 784), in nats per datum."""
        features = self.encode(x).relu()
        loc, log_scale = self.loc(features).float(), self.log_scale(features).float()
        scale = log_scale.exp()
        logits = self.logits(self.decode(loc + scale * torch.randn_like(loc)).relu()).float()
        kl = 0.5 * (loc.square() + scale.square() - 1).sum() - log_scale.sum()
        return (functional.binary_cross_entropy_with_logits(logits, x, reduction="sum") + kl) / len(x)


def torch_vae(dtype: str = "float32") -> Here:
    """The compiled VAE; in ``bfloat16`` by autocast."""
    return Here(f"torch.compile, {dtype}", lambda: build(dtype))


def build(dtype: str) -> Work:
    """The work, compiled at the first step."""
    vae = VAE()
    optimizer = torch.optim.Adam(vae.parameters(), lr=settings.LEARNING_RATE, fused=True)
    stream = batches(settings.BATCH_SIZE)

    @torch.compile(dynamic=False)
    def loss(x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            value: Tensor = vae(x)
        return value

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        value = loss(next(stream))
        value.backward()
        optimizer.step()
        return value.detach()

    return repeat(step)


def products(dtype: str = "float32", library: str = "torch.mm") -> Here:
    """The bare products; ``library`` is ``torch.mm`` or ``oneDNN``."""
    return Here(f"{library}, {dtype}", lambda: build_products(DTYPES[dtype], MULTIPLY[library]))


def build_products(dtype: torch.dtype, multiply: Callable[[Tensor, Tensor], Tensor]) -> Work:
    """The work: nine products in a step of the four layers, one of which has two heads."""
    draw = torch.Generator().manual_seed(0)

    def matrix(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw).to(dtype)

    size = settings.BATCH_SIZE
    layers = [(matrix(size, inputs), matrix(outputs, inputs), matrix(size, outputs)) for inputs, outputs in LAYERS]

    def step() -> None:
        for x, weight, _ in layers:
            multiply(x, weight.t())
        for index, (x, weight, gradient) in enumerate(layers):
            multiply(gradient.t(), x)
            if index:
                multiply(gradient, weight)

    return repeat(step)


def one_dnn(a: Tensor, b: Tensor) -> Tensor:
    """The product of two matrices by oneDNN."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(a, b.t(), None, "none", [], "")
    return product


MULTIPLY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"torch.mm": torch.mm, "oneDNN": one_dnn}
