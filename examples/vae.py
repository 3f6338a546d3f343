"""A variational autoencoder as people write it in Pyro, of which only the model is written.

    python -m examples.vae

Beside the encoder by one word stands the one by hand that every tutorial has: a network of the same size that ends in a
mean and a scale.  What is compared is the bound on test images that neither has seen, in nats per image.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import pyro_vae

PIXELS, LATENTS, HIDDEN = 64, 8, 128


class VAE(nn.Module):
    """A decoder of digits, and, for comparison, an encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.Sequential(nn.Linear(LATENTS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, PIXELS))
        self.encoder = nn.Sequential(nn.Linear(PIXELS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2 * LATENTS))

    def model(self, x: Tensor) -> None:
        """Images of shape (N, 64), of 0 and 1."""
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("latent", dist.Normal(torch.zeros(LATENTS), 1.0).to_event(1))
            pyro.sample("obs", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        """The guide by hand."""
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            loc, log_scale = self.encoder(x).chunk(2, -1)
            pyro.sample("latent", dist.Normal(loc, log_scale.exp()).to_event(1))


def main() -> dict[str, float]:
    """Fit the model with both guides, and print and return the bound of each."""
    x = (load_digits().data > 7).astype("float32")
    bounds = {}
    for name in ("by hand", "mean_field", "iaf"):
        torch.manual_seed(0)
        vae = VAE()
        guide = vae.guide if name == "by hand" else name
        run = pyro_vae.fit(vae.model, guide, data=x, hidden=(HIDDEN,), epochs=40, display=False)
        bounds[name] = run.evaluate(num_samples=100)["elbo"]
        print(f"{name:10} ELBO {bounds[name]:.2f} nats per image")
    return bounds


if __name__ == "__main__":
    main()
