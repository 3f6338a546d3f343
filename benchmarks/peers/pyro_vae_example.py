"""The VAE of Pyro's examples: its programs and networks, its optimizer, trained by stock ``SVI``.

784-400-50 and back, softplus, the scale of q(z | x) as an exponential, Adam at a rate of 0.001 and 256 images a step.
What is fair about it: images lie in memory and are binarized anew for each step, as pyro_vae does, where the example
reads gray ones from a loader; validation is off, and pixels are scored from logits.  All of that is faster.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
from torch import Tensor, nn

LATENT_DIM, HIDDEN, BATCH_SIZE, LEARNING_RATE = 50, 400, 256, 1e-3


class Encoder(nn.Module):
    """Images, flat, to the mean and the scale of q(z | x), each of shape (B, 50)."""

    def __init__(self, num_pixels: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(num_pixels, HIDDEN), nn.Softplus())
        self.loc, self.log_scale = nn.Linear(HIDDEN, LATENT_DIM), nn.Linear(HIDDEN, LATENT_DIM)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.hidden(x)
        return self.loc(hidden), self.log_scale(hidden).exp()


class Example:
    """The programs.

    Args:
        num_pixels: of an image.
    """

    def __init__(self, num_pixels: int) -> None:
        self.encoder = Encoder(num_pixels)
        self.decoder = nn.Sequential(nn.Linear(LATENT_DIM, HIDDEN), nn.Softplus(), nn.Linear(HIDDEN, num_pixels))

    def model(self, x: Tensor) -> None:
        """p(z) p(x | z)."""
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(LATENT_DIM), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x.flatten(1))

    def guide(self, x: Tensor) -> None:
        """q(z | x)."""
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(*self.encoder(x.flatten(1))).to_event(1))
