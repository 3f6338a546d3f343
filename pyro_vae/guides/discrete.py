"""How the sites of a program whose values can be counted lie in the features of a guide, and what their q is made of.

A site of few values, one number each, has a probability for each value and asks Pyro to enumerate it.  One of many
values, vectors of bits or counts without a bound, is sampled: a Bernoulli, binomial or Poisson variable for each entry.
"""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor, nn

from pyro_vae.errors import InputError
from pyro_vae.guides.site_distribution import SiteLayout, Sizes


class EnumeratedLayout(SiteLayout):
    """A site of few values, as a row of indicators.

    Args:
        batch_shape: the sizes of the site's plates.
        event_shape: of its value: (), or (K,) where a value is an indicator vector.
        support: of its value.
        data_dim: the dimension of the plate over data.
        cardinality: how many values there are, K.
    """

    conditional = nn.Linear

    def __init__(
        self,
        batch_shape: Sizes,
        event_shape: Sizes,
        support: constraints.Constraint,
        data_dim: int | None,
        cardinality: int,
    ) -> None:
        super().__init__(batch_shape, event_shape, data_dim)
        self._support, self._cardinality = support, cardinality
        self.size = self.num_entries * cardinality

    def distribution(self, q: Tensor) -> dist.TorchDistribution:
        logits = self.scatter(q, (self._cardinality,))
        if self._support is constraints.boolean:  # whose values are floats
            return dist.Bernoulli(logits=logits[..., 1] - logits[..., 0])
        return (dist.OneHotCategorical if self.event_shape else dist.Categorical)(logits=logits)

    def features(self, value: Tensor) -> Tensor:
        if self.event_shape:
            return self.gather(value, 1)
        indicators = nn.functional.one_hot(value.long(), self._cardinality)
        return self.gather(indicators.to(torch.get_default_dtype()), 1)


class CountLayout(SiteLayout):
    """A site of many values, each entry of which is a count or a bit.

    Args:
        name: of the site.
        batch_shape: the sizes of the site's plates.
        event_shape: of its value.
        support: of its value.
        data_dim: the dimension of the plate over data.

    Raises:
        InputError: if no distribution here has that support.
    """

    conditional = nn.Linear

    def __init__(
        self, name: str, batch_shape: Sizes, event_shape: Sizes, support: constraints.Constraint, data_dim: int | None
    ) -> None:
        super().__init__(batch_shape, event_shape, data_dim)
        while isinstance(support, constraints.independent):
            support = support.base_constraint
        self._support = support
        counts = isinstance(support, (type(constraints.nonnegative_integer), constraints.integer_interval))
        if not (counts or support is constraints.boolean) or getattr(support, "lower_bound", 0) != 0:
            raise InputError(
                f"counts, bits or a few values at the discrete site {name!r}",
                f"values of {support}",
                "sum it out in the model: pyro.infer.config_enumerate(model)",
            )

    def distribution(self, q: Tensor) -> dist.TorchDistribution:
        entries = self.scatter(q, self.event_shape)
        q_entries: Any
        if self._support is constraints.boolean:
            q_entries = dist.Bernoulli(logits=entries)
        elif isinstance(self._support, constraints.integer_interval):
            q_entries = dist.Binomial(self._support.upper_bound, logits=entries)
        else:
            q_entries = dist.Poisson(entries.exp())
        entries_of_event: dist.TorchDistribution = q_entries.to_event(len(self.event_shape))
        return entries_of_event

    def features(self, value: Tensor) -> Tensor:
        return self.gather(value.to(torch.get_default_dtype()).log1p(), len(self.event_shape))
