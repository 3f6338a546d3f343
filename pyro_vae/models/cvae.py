r"""The conditional variational autoencoder, p(z | v) p(h | z, v): the hidden part h of an image given the visible v.

Sohn, Lee and Yan, *Learning Structured Output Representation using Deep Conditional Generative Models*, 2015, on the
quadrants of Pyro's example.  The prior depends on what is visible, the guide q(z | v, h) sees the whole image, and only
hidden pixels have a likelihood: the evidence is log p(h | v).

Where values are missing, v is what is there of the visible part, and what is missing of it is hidden like h, without a
likelihood.  So that the decoder learns to make such pixels too, a row in training is shown without the visible pixels
that the row before it in the batch lacks, and those that it has count as hidden ones: as in *Variational Autoencoder
with Arbitrary Conditioning* (Ivanov et al., 2019), with the patterns of the data.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, cast

import pyro
import pyro.distributions as dist
import torch
from pydantic import Field
from torch import Tensor

from pyro_vae.conditionals import DiagonalNormal
from pyro_vae.errors import InputError
from pyro_vae.likelihoods import Likelihood
from pyro_vae.models.base import MODELS, Latent, Model
from pyro_vae.networks import MLP, Network
from pyro_vae.shapes import Bool, Shaped


class Completed(dist.MaskedDistribution):
    """A distribution over pixels of which only some are random; the others have the values that are known.

    Args:
        base: the distribution of independent pixels, of batch shape (..., C, H, W).
        hidden: which pixels are random, of a shape that broadcasts.
        known: the values of the others, of a shape that broadcasts.
    """

    def __init__(self, base: dist.TorchDistribution, hidden: Tensor, known: Tensor) -> None:
        self.known = known
        self.hidden = hidden
        super().__init__(base, hidden)  # type: ignore[no-untyped-call]

    def expand(self, batch_shape: Any, _instance: Any = None) -> Completed:
        return Completed(self.base_dist.expand(batch_shape), self.hidden, self.known)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self._fill(self.base_dist.rsample(torch.Size(sample_shape)))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return self._fill(self.base_dist.sample(torch.Size(sample_shape)))

    @property
    def mean(self) -> Tensor:
        return self._fill(self.base_dist.mean)

    def _fill(self, value: Tensor) -> Tensor:
        return torch.where(self.hidden, value, self.known)


@MODELS.register("cvae")
class CVAE(Model):
    """Conditional VAE: fills in the hidden quadrants of an image.

    Args:
        event_shape: the shape of one image, (C, H, W).
        latent_dim: the dimension of z.
        quadrants: how many are visible: 1, the lower left; 2, the left half; 3, all but the upper right.
        likelihood: p(h | z, v); default: Bernoulli.
        network: makes the encoder of what is visible and the decoder; default: an MLP.

    Example:
        >>> from pyro import poutine
        >>> from pyro_vae.models import CVAE
        >>> model, x = CVAE((1, 4, 4), latent_dim=2), torch.ones(1, 1, 4, 4)
        >>> model.visible(x, blank=0.0)[0, 0]
        tensor([[0., 0., 0., 0.],
                [0., 0., 0., 0.],
                [1., 1., 0., 0.],
                [1., 1., 0., 0.]])
        >>> filled_in = poutine.uncondition(model)(x)
        >>> filled_in[0, 0, 2:, :2]  # what was visible stays
        tensor([[1., 1.],
                [1., 1.]])
    """

    conditional: ClassVar[bool] = True
    hidden: Tensor

    def __init__(
        self,
        event_shape: tuple[int, ...],
        latent_dim: int = 32,
        quadrants: Annotated[int, Field(ge=1, le=3)] = 1,
        *,
        likelihood: Likelihood | None = None,
        network: Network | None = None,
    ) -> None:
        if len(event_shape) != 3 or min(event_shape[1:]) < 2:
            raise InputError(
                "images of shape (C, H, W) with quadrants for the model 'cvae'",
                f"shape {event_shape}",
                "use --model vae",
            )
        super().__init__(event_shape, (Latent("z", latent_dim),), likelihood)
        self.network = network or MLP()
        self._see()
        features = cast(int, self.encoder.num_features)
        self.prior = DiagonalNormal(features, latent_dim)
        self.decoder = self.network.decoder([latent_dim, features], self.likelihood.params_shape)
        self.register_buffer("hidden", hidden_quadrants(self.event_shape, quadrants), persistent=False)

    def forward(
        self, x: Shaped[Tensor, "N *event"] | None = None, y: Shaped[Tensor, "N"] | None = None
    ) -> Shaped[Tensor, "... *event"]:
        whole = self.hidden.new_zeros((1, *self.event_shape), dtype=torch.get_default_dtype()) if x is None else x
        hidden, visible = self._parts(whole)
        with pyro.plate("data", whole.shape[0]):
            features = self.encoder(self.view_of_visible(visible))
            z = pyro.sample("z", self.prior(features))
            pixels = cast(dist.Independent, self.likelihood(self.decoder(z, features))).base_dist
            completed = dist.Independent(Completed(pixels, hidden, whole), len(self.event_shape))
            return pyro.sample("x", completed, obs=x)

    def mask_missing(self) -> None:
        if not self.missing:
            super().mask_missing()
            self._see()

    def _see(self) -> None:
        """Make the encoder of what is visible, beside an indicator of what is missing of it where that is masked."""
        self.view_of_visible = self.view()
        self.encoder = self.network.encoder([self.inputs["x"]])

    def _parts(self, whole: Tensor) -> tuple[Tensor, Tensor]:
        """Which pixels are hidden, of a shape that broadcasts, and images as the encoder sees them."""
        blank = whole.masked_fill(self.hidden, 0.0)
        if not self.missing:
            return self.hidden, blank
        lacking = whole.isnan()
        lacking = lacking | lacking.roll(1, 0) if self.training else lacking
        return self.hidden | lacking, blank.masked_fill(lacking & ~self.hidden, torch.nan)

    def visible(self, x: Shaped[Tensor, "N *event"], blank: float = 0.5) -> Tensor:
        r"""Images of shape (N, \*event_shape) with the hidden pixels blank, as pictures show them."""
        return x.masked_fill(self.hidden.to(x.device), blank)


def hidden_quadrants(event_shape: tuple[int, ...], visible: int) -> Bool[Tensor, "*event"]:
    """Which pixels are hidden, shape (1, H, W), with that many quadrants visible."""
    _, height, width = event_shape
    hidden = torch.zeros(1, height, width, dtype=torch.bool)
    hidden[:, : height // 2, width // 2 :] = True
    if visible <= 2:
        hidden[:, height // 2 :, width // 2 :] = True
    if visible == 1:
        hidden[:, : height // 2, :] = True
    return hidden
