"""A semi-supervised autoencoder as people write it in Pyro: a hundred digits have a label, and the model takes it.

    python -m examples.semi_supervised

The model is called with images and, for those that have one, labels.  The guide by one word samples what is not given:
the site ``y`` is enumerated where there is no label and observed where there is.  Its classifier is held against two of
scikit-learn on the same hundred.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn
from torch.nn.functional import one_hot

import pyro_vae
from pyro_vae.data import labelled_rows

PIXELS, LATENTS, HIDDEN, CLASSES = 64, 8, 128, 10
decoder = nn.Sequential(nn.Linear(LATENTS + CLASSES, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, PIXELS))


def model(x: Tensor, y: Tensor | None = None) -> None:
    """Images of shape (N, 64), of 0 and 1, and labels of shape (N,) or none."""
    pyro.module("decoder", decoder)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(LATENTS), 1.0).to_event(1))
        y = pyro.sample("y", dist.Categorical(torch.ones(CLASSES) / CLASSES), obs=y)
        style, kind = _alike(z, one_hot(y, CLASSES).to(z.dtype))
        pyro.sample("x", dist.Bernoulli(logits=decoder(torch.cat([style, kind], -1))).to_event(1), obs=x)


def _alike(z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    shape = torch.broadcast_shapes(z.shape[:-1], y.shape[:-1])
    return z.expand(*shape, -1), y.expand(*shape, -1)


def main() -> dict[str, float]:
    """Fit, and print and return the accuracies on the test images."""
    digits = load_digits()
    x = (digits.data > 7).astype("float32")
    torch.manual_seed(0)
    run = pyro_vae.fit(
        model, "mean_field", data=(x, digits.target), labels=100, hidden=(HIDDEN,), epochs=40, display=False
    )
    rows, test = run.data.train, run.data.test
    train = rows[labelled_rows(rows, 100, CLASSES, seed=run.config.seed)]
    found = {"semi-supervised": run.evaluate(num_samples=20)["accuracy"]}
    for other in (LogisticRegression(max_iter=1000), KNeighborsClassifier(1)):
        other.fit(train.values().numpy(), train.labels)
        found[type(other).__name__] = other.score(test.values().numpy(), test.labels)
    for name, accuracy in found.items():
        print(f"{name:22} {accuracy:.3f} of {len(test)} test images right, with {len(train)} labels")
    return found


if __name__ == "__main__":
    main()
