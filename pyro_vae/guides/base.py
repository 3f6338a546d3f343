r"""What every amortized guide here has in common.

A guide is the Pyro program q(latents | x), factorized as the model declares it: each latent site has an encoder over
what q conditions it on, and a conditional distribution over the features that the encoder puts out,

    q(z_1, …, z_L | x) = prod_l q_l(z_l | encoder_l(given_l)).

The factorization belongs to the model, the conditional distribution to the *family*; so a new family is one small
class and pairs with every model, and a new model gets every family.  Sites that are given the same share one encoder.
A discrete site is always a categorical, the classifier q(y | x), and asks Pyro to enumerate it in parallel:
``TraceEnum_ELBO`` then sums over the labels, and ``Trace_ELBO`` samples them with the score-function term.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, cast

import pyro
import pyro.distributions as dist
from torch import Tensor, nn

from pyro_vae.conditionals import Categorical, Conditional
from pyro_vae.models.base import Declares, Model, NamedModule
from pyro_vae.networks import MLP, Network, Shape, one_hot
from pyro_vae.registry import Registry
from pyro_vae.shapes import Shaped

Family = Callable[[int, int], nn.Module]


class Guide(NamedModule):
    """Base of the guides, and a guide itself for any family: ``Guide(model, MyFamily)``.

    A family is what makes q(z | features): called with the number of features F and the size D of the site, it gives a
    module whose ``forward(features)`` takes features of shape (..., F) and returns a distribution of batch shape (...)
    and event shape (D,).  To give one a name:

    1. write it in a file of its own under ``pyro_vae/guides``;
    2. subclass this there, enter it with ``@GUIDES.register("name")``, and in ``__init__`` hand the family on.

    Args:
        model: the model whose latent sites this guide samples; only their declaration is read.
        family: makes the conditional distribution of a continuous site.
        network: makes the encoders; default: an MLP.
        classifier: makes the encoder of a discrete site, q(y | x), if no other site shares it; ``network`` unless
            given.

    Example:
        >>> import pyro.distributions as dist
        >>> from pyro_vae.guides import Guide
        >>> from pyro_vae.models import VAE
        >>> class UnitLaplace(torch.nn.Linear):
        ...     def forward(self, features):
        ...         return dist.Laplace(super().forward(features), 1.0).to_event(1)
        >>> Guide(VAE((4,), latent_dim=2), UnitLaplace).posterior(torch.rand(3, 4)).mean.shape
        torch.Size([3, 2])
    """

    fewest: ClassVar[int] = 1  # numbers of a continuous site that a guide is made for by ``amortize``

    def __init__(
        self, model: Declares, family: Family, *, network: Network | None = None, classifier: Network | None = None
    ) -> None:
        super().__init__()
        self.latents, inputs = model.latents, dict(model.inputs)
        network = network or MLP()
        self.view: nn.Module = model.view() if isinstance(model, Model) else nn.Identity()
        self._prior_site = model.prior_site if isinstance(model, Model) else self.latents[-1].name
        self._shapes = inputs | {latent.name: latent.event_shape for latent in self.latents}
        encoders: dict[tuple[str, ...], nn.Module] = {}
        self.conditionals = nn.ModuleDict()
        for latent in self.latents:
            if latent.given not in encoders:
                alone = all(other.discrete for other in self.latents if other.given == latent.given)
                maker = (classifier or network) if alone else network
                maker = maker if inputs.keys() & set(latent.given) else maker.for_vectors()
                encoders[latent.given] = maker.encoder([self._shapes[name] for name in latent.given])
            encoder, kind = encoders[latent.given], latent.conditional or (Categorical if latent.discrete else family)
            self.conditionals[latent.name] = Conditional(encoder, kind(cast(int, encoder.num_features), latent.size))

    def prior_factor(self) -> tuple[Conditional, dict[str, Shape]]:
        """The conditional of the site that the model's prior is of, and the shapes of what it is given, in order."""
        latent = next(latent for latent in self.latents if latent.name == self._prior_site)
        return cast(Conditional, self.conditionals[latent.name]), {name: self._shapes[name] for name in latent.given}

    def forward(self, x: Shaped[Tensor, "N *event"], y: Shaped[Tensor, "N"] | None = None) -> None:
        r"""Sample the latent sites.

        Args:
            x: data of shape (N, \*event_shape).
            y: class labels of shape (N,): observed, so not sampled; None samples them from q(y | x).
        """
        with pyro.plate("data", x.shape[0]):
            self._visit(pyro.sample, x, y)

    def posterior(self, x: Shaped[Tensor, "N *event"], y: Shaped[Tensor, "N"] | None = None) -> dist.TorchDistribution:
        r"""The last site's q(z | x[, y]) as a distribution, outside of any inference.

        Args:
            x: data of shape (N, \*event_shape).
            y: class labels of shape (N,); where the model has a label site and none are given, the most probable.

        Returns:
            A distribution of batch shape (N,) and event shape (latent_dim,).
        """
        found: dict[str, dist.TorchDistribution] = {}

        def most_probable(name: str, q: dist.TorchDistribution, **_: Any) -> Tensor:
            found[name] = q
            if isinstance(q, dist.Categorical):
                return q.probs.argmax(-1)
            try:
                return q.mean
            except NotImplementedError:  # of a flow or a mixture
                return q.sample()

        self._visit(most_probable, x, y)
        return found[self.latents[-1].name]

    def _visit(
        self, sample: Callable[..., Tensor], x: Shaped[Tensor, "N *event"], y: Shaped[Tensor, "N"] | None
    ) -> None:
        """Walk the latent sites in order, giving each conditional the values before it."""
        values = {"x": self.view(x)}
        conditionals = self.conditionals  # read once: each read states all its parameters to Pyro
        for latent in self.latents:
            if latent.discrete and y is not None:
                value = y
            else:
                q = conditionals[latent.name](*(values[name] for name in latent.given))
                infer = {"enumerate": "parallel"} if latent.discrete else {}
                value = sample(latent.name, q, infer=infer)
            values[latent.name] = one_hot(value, latent.size) if latent.discrete else value


GUIDES: Registry[Guide] = Registry("guide", ("model", "network", "classifier"))
