r"""What every generative program here has in common.

A model is the Pyro program p(x, z[, y]) = p(z) [p(y)] p(x | z[, y]).  It owns the prior, the decoder and the
likelihood, and never sees an encoder.  What a guide has to know of it is its list of latent sites, each with the
variables that q conditions on: ``Latent("z", 32, given=("x", "y"))`` reads q(z | x, y), z of dimension 32.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_vae.columns import Column, SeenColumns
from pyro_vae.errors import InputError
from pyro_vae.likelihoods import Bernoulli, Likelihood
from pyro_vae.likelihoods.seen_pixels import leave_out_missing
from pyro_vae.networks import BesideIndicator, indicator_shape
from pyro_vae.registry import Registry
from pyro_vae.shapes import Shaped


class NamedModule(PyroModule):
    """A Pyro module with a name of its own.

    Pyro keeps parameters by name in one global store.  Two modules that both call a child ``decoder`` would silently
    share its weights: the second one takes over the first one's and never trains.  So every program, a copy or an
    unpickled one too, gets a root name that nobody else in this process has ("vae", "vae_2", …).
    """

    _names: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__(self._new_name())

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._pyro_name, self._pyro_context.used = self._new_name(), False
        for name, child in self.named_children():
            if isinstance(child, PyroModule):
                child._pyro_set_supermodule(f"{self._pyro_name}.{name}", self._pyro_context)

    @classmethod
    def _new_name(cls) -> str:
        name = cls.__name__.lower()
        cls._names[name] += 1
        return name if cls._names[name] == 1 else f"{name}_{cls._names[name]}"


@dataclass(frozen=True)
class Latent:
    """A latent site, as a guide has to know it.

    Args:
        name: the sample site.
        size: the dimension of a continuous latent, or the number of classes of a discrete one.
        given: what q conditions this site on: "x", or sites that come earlier in the list.
        discrete: whether the value is a class index.
        conditional: makes q of this site from the numbers of features and of ``size``, where it is neither a vector of
            the guide's family nor a class index.

    Example:
        >>> from pyro_vae.models import SSVAE, Latent
        >>> label, style = SSVAE((1, 8, 8), num_classes=10, latent_dim=4).latents
        >>> label == Latent("y", 10, discrete=True)
        True
        >>> style == Latent("z", 4, given=("x", "y"))
        True
    """

    name: str
    size: int
    given: tuple[str, ...] = ("x",)
    discrete: bool = False
    conditional: Callable[[int, int], nn.Module] | None = None

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape in which the site's value enters a network (a label as its indicator vector)."""
        return (self.size,)


class Declares(Protocol):
    """What a guide has to know of a model: a ``Model`` says it, and so does what is read off any other program.

    Attributes:
        latents: the latent sites, each after those that it is ``given``.
        inputs: the event shapes of what an encoder can see, by name, as it sees it.
    """

    @property
    def latents(self) -> tuple[Latent, ...]: ...
    @property
    def inputs(self) -> Mapping[str, tuple[int, ...]]: ...


class BesideCovariates(nn.Module):
    """The view of rows whose last columns are covariates: the others through a module, and these."""

    def __init__(self, view: nn.Module, covariates: SeenColumns, num_covariates: int) -> None:
        super().__init__()
        self.view, self.covariates, self.num_covariates = view, covariates, num_covariates

    def forward(self, x: Tensor) -> Tensor:
        count = self.num_covariates
        return torch.cat([self.view(x[..., :-count]), self.covariates(x[..., -count:])], -1)


class Model(NamedModule):
    r"""Base of the models.

    To write one:

    1. subclass this in a file of its own under ``pyro_vae/models`` and enter it with ``@MODELS.register("name")``;
    2. take what it needs in ``__init__`` (of ``event_shape``, ``latent_dim``, ``num_classes``, ``prior``,
       ``likelihood``, ``network``), and call this constructor;
    3. write ``forward(x=None, y=None)``, the Pyro program: a plate "data" over the first dimension, the latent sites,
       and the observation "x".

    Args:
        event_shape: the shape of one datum, (C, H, W) or (D,).
        latents: the latent sites, each after those that it is ``given``.
        likelihood: p(x | z) from the decoder's output, of what is not a covariate; default: Bernoulli.
        covariates: the columns of x, its last ones, that the model is given and does not generate.

    Attributes:
        conditional: whether the program reads part of x instead of generating it, p(x, z | part of x).
        resampling: how the training rows are drawn unless the configuration says otherwise.
        missing: whether x may have missing values, NaN; see ``mask_missing``.

    Example:
        >>> import pyro
        >>> from pyro_vae.models import Latent, Model
        >>> class Plain(Model):
        ...     def forward(self, x=None, y=None):
        ...         with pyro.plate("data", 1 if x is None else x.shape[0]):
        ...             z = pyro.sample("z", pyro.distributions.Normal(torch.zeros(4), 1.0).to_event(1))
        ...             return pyro.sample("x", self.likelihood(z), obs=x)  # no decoder: z holds the logits
        >>> Plain((4,), (Latent("z", 4),))().shape
        torch.Size([1, 4])
    """

    conditional: ClassVar[bool] = False
    resampling: ClassVar[str] = "uniform"
    missing: bool = False

    def __init__(
        self,
        event_shape: tuple[int, ...],
        latents: tuple[Latent, ...],
        likelihood: Likelihood | None = None,
        covariates: Sequence[Column] = (),
    ) -> None:
        super().__init__()
        self.event_shape = tuple(event_shape)
        self.latents = latents
        self.num_covariates = len(covariates)
        self.covariates = SeenColumns(covariates)
        self.likelihood = likelihood or Bernoulli((self.event_shape[0] - len(covariates), *self.event_shape[1:]))

    @property
    def inputs(self) -> dict[str, tuple[int, ...]]:
        """The event shape of x as an encoder sees it, beside an indicator of what is missing where that is masked."""
        likelihood = self.likelihood
        seen = likelihood.seen_shape
        first, *others = indicator_shape(likelihood.event_shape, seen) if self.missing else seen
        return {"x": (first + self.covariates.size, *others)}

    @property
    def prior_site(self) -> str:
        """The latent site whose distribution the ``prior`` is."""
        return self.latents[-1].name

    @property
    def given_sizes(self) -> list[int]:
        """The sizes of what a decoder is given beside latents: of the covariates as networks see them."""
        return [self.covariates.size] if self.num_covariates else []

    def view(self) -> nn.Module:
        """The module through which an encoder sees x."""
        view = self.likelihood.view()
        view = BesideIndicator(view, len(self.event_shape)) if self.missing else view
        return BesideCovariates(view, self.covariates, self.num_covariates) if self.num_covariates else view

    def split(self, x: Tensor | None) -> tuple[Tensor | None, tuple[Tensor, ...]]:
        r"""The entries of x that are observed, and those that a decoder is given beside latents.

        Args:
            x: data of shape (N, \*event_shape), or None.

        Returns:
            x without its covariates, and these as networks see them, shape (N, C); nothing where there are none.

        Raises:
            InputError: if there are covariates and no x that says them.
        """
        if not self.num_covariates:
            return x, ()
        if x is None:
            raise InputError("rows of x, whose covariates the model is given", "none", "call the model with x")
        return x[..., : -self.num_covariates], (self.covariates(x[..., -self.num_covariates :]),)

    def mask_missing(self) -> None:
        """Take NaN in x for a missing value: no part of the likelihood, and seen as missing by guides made from now on.

        Example:
            >>> from pyro.infer import Trace_ELBO
            >>> from pyro_vae.guides import MeanField
            >>> from pyro_vae.models import VAE
            >>> model, x = VAE((4,), latent_dim=2), torch.tensor([[1.0, torch.nan, 0.0, torch.nan]])
            >>> model.mask_missing()
            >>> Trace_ELBO().loss(model, MeanField(model), x) > 0
            True
        """
        if not self.missing:
            self.missing = True
            leave_out_missing(self.likelihood)

    def forward(
        self, x: Shaped[Tensor, "N *event"] | None = None, y: Shaped[Tensor, "N"] | None = None
    ) -> Shaped[Tensor, "... *event"]:
        r"""The generative program.

        Args:
            x: data of shape (N, \*event_shape), or None to generate one datum.
            y: class labels of shape (N,), where the model has a label site; None leaves them latent.

        Returns:
            x, as observed or generated.
        """
        raise NotImplementedError


MODELS: Registry[Model] = Registry(
    "model", ("event_shape", "num_classes", "latent_dim", "prior", "likelihood", "covariates", "network")
)
