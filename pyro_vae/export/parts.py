r"""The parts of a fitted pair as modules of tensors alone: encoder, decoder, classifier.

Each runs the programs themselves, without noise (see ``pairs.centres``), so that whatever pair trains has its parts.

    encoder     x -> E[z | x] of each continuous site, and the standard deviations where q knows them
    decoder     the latents that x depends on, and x where the model reads part of it -> E[x | latents]
    classifier  x -> q(y | x)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from torch import Tensor, nn

from pyro_vae.errors import InputError
from pyro_vae.pairs.centres import centres, class_probabilities, expected, shared_centres
from pyro_vae.pairs.draws import draw_means
from pyro_vae.pairs.labels import label_distribution
from pyro_vae.pairs.observations import check_generates
from pyro_vae.pairs.pair import ProbedPair
from pyro_vae.pairs.traces import distribution_at, rows_axis, value_at
from pyro_vae.runs.run import Run

SEEDS = (1, 2)  # two answers of the run that differ were drawn, and are nobody's to compare with


class Part(nn.Module, ABC):
    r"""One part of a run, called with tensors of N rows each.

    Args:
        run: the run.
        x: rows as the programs see them, shape (N, \*event_shape), at least 2.

    Attributes:
        inputs: by name, rows to call it with.
        outputs: the names of what it returns, in order.
    """

    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]

    def __init__(self, run: Run, x: Tensor) -> None:
        super().__init__()
        self._run = (run,)  # in a tuple, so that what this part does not use is not part of it
        self._look(x)

    @property
    def run(self) -> Run:
        """The run."""
        return self._run[0]

    @property
    def probed(self) -> ProbedPair:
        """Its programs."""
        return self.run.probed

    @abstractmethod
    def _look(self, x: Tensor) -> None:
        """Find inputs and outputs."""

    @abstractmethod
    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """The outputs by name."""

    @abstractmethod
    def described(self) -> dict[str, str]:
        """What inputs and outputs are, by name."""

    @abstractmethod
    def answers(self, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """What the run itself says, by a way of its own; without the outputs that it draws."""


class Encoder(Part):
    """The centre of q(z | x) of each continuous site, and its standard deviations."""

    def _look(self, x: Tensor) -> None:
        if not self.probed.continuous:
            raise InputError("a continuous latent site of each datum, for an encoder", "a pair without", _ONLY)
        self.inputs = {"x": x}
        self.outputs = tuple(self(x))

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        found = {}
        for name, moments in centres(self.probed, inputs[0]).items():
            if name in self.probed.continuous:
                found[name] = moments.mean
                if moments.sd is not None:
                    found[f"{name}_sd"] = moments.sd
        return found

    def described(self) -> dict[str, str]:
        said = {"x": _X}
        for name in self.outputs:
            site = name.removesuffix("_sd")
            is_sd = name not in self.probed.continuous
            said[name] = f"standard deviations of q({site} | x)" if is_sd else self._of_centre(name)
        return said

    def _of_centre(self, name: str) -> str:
        exact = f"E[{name} | x], labels averaged over q(y | x)" if self.probed.enumerated else f"E[{name} | x]"
        drawn = name not in self.answers((self.inputs["x"],))
        return f"the centre of q({name} | x), from the centres of what is drawn before it" if drawn else exact

    def answers(self, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
        return _of_both(lambda: draw_means(self.probed.by_row, inputs[0], 1), self.run, self.probed.continuous)


class Classifier(Part):
    """q(y | x)."""

    def _look(self, x: Tensor) -> None:
        if not self.probed.has_label:
            raise InputError("a model with class labels, for a classifier", repr(self.run.name), _ONLY)
        self.inputs, self.outputs = {"x": x}, ("probabilities",)

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        return {"probabilities": class_probabilities(self.probed, inputs[0])}

    def described(self) -> dict[str, str]:
        return {"x": _X, "probabilities": "q(y | x), in the order of the class names"}

    def answers(self, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
        return _of_both(
            lambda: {"probabilities": label_distribution(self.probed.pair, inputs[0]).probs}, self.run, self.outputs
        )


@dataclass(frozen=True)
class _Site:
    """A latent site that a decoder is called with.

    Args:
        name: the site.
        axis: the dimension in which its rows lie.
        cardinality: the number of its values; None for a continuous one.
    """

    name: str
    axis: int
    cardinality: int | None


class Decoder(Part):
    """E[x | latents], of the latents that x depends on."""

    def _look(self, x: Tensor) -> None:
        check_generates(self.probed, x[0].numel(), whole=False)
        self._shared = shared_centres(self.probed, x)
        values = self._drawn(x)
        self._sites: tuple[_Site, ...] = ()
        self._reads = True
        reference = self._at(values, x)
        sites = [site for site in self._known if not torch.equal(self._at(_changed(values, site), x), reference)]
        self._sites = tuple(sorted(sites, key=lambda site: site.cardinality is not None))
        self._reads = not torch.equal(self._at(values, x.flip(0)), reference)
        if not self._sites:
            raise InputError("a model whose x depends on a latent of each datum", "one whose x does not", _ONLY)
        self.inputs = {site.name: values[site.name].movedim(site.axis, 0) for site in self._sites}
        if self._reads:
            self.inputs["x"] = x
        self.outputs = ("mean",)

    def _drawn(self, x: Tensor) -> dict[str, Tensor]:
        """A draw of every latent of each datum, and what is known of these sites."""
        with poutine.block():
            q = poutine.trace(self.probed.pair.guide).get_trace(*self.probed.pair.arguments(x, None))
            p = poutine.trace(poutine.replay(self.probed.pair.model, trace=q)).get_trace(
                *self.probed.pair.arguments(x, None)
            )
        values, known = {}, []
        for name in (*self.probed.latent, *self.probed.marginal):
            trace = p if name in p.nodes else q
            d, value = distribution_at(trace, name), value_at(trace, name)
            if name in self.probed.shared or self.probed.plate_dim is None:
                continue
            axis = rows_axis(value, d.event_dim, self.probed.plate_dim)
            values[name] = value
            known.append(_Site(name, axis, len(d.enumerate_support(False)) if d.has_enumerate_support else None))
        self._known = known
        return values

    def _at(self, values: dict[str, Tensor], x: Tensor) -> Tensor:
        return expected(self.probed, x, self._shared | values)

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        latent = {site.name: value.movedim(0, site.axis) for site, value in zip(self._sites, inputs, strict=False)}
        shape = self.run.facts.event_shape
        template = inputs[-1] if self._reads else inputs[0].new_zeros((inputs[0].shape[0], *shape), dtype=torch.float32)
        return {"mean": self._at(latent, template.to(torch.get_default_dtype()))}

    def described(self) -> dict[str, str]:
        said = {
            site.name: "the latent, one row per datum"
            if site.cardinality is None
            else f"a class from 0 to {site.cardinality - 1} per datum"
            for site in self._sites
        }
        read = {"x": "rows of which the model reads what it does not generate"} if self._reads else {}
        return said | read | {"mean": "E[x | latents], as the model sees x"}

    def answers(self, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
        latent = {site.name: value.movedim(0, site.axis) for site, value in zip(self._sites, inputs, strict=False)}
        template = inputs[-1] if self._reads else torch.zeros(len(inputs[0]), *self.run.facts.event_shape)
        given = self._shared | latent
        return _of_both(
            lambda: {"mean": self.run.generate(template, given, mean=True, whole=False)}, self.run, self.outputs
        )


def _changed(values: dict[str, Tensor], site: _Site) -> dict[str, Tensor]:
    """The same values, those of one site those of another row, or the next class."""
    value = values[site.name]
    other = value.flip(site.axis) if site.cardinality is None else (value + 1) % site.cardinality
    return values | {site.name: other}


def _of_both(answer: Callable[[], dict[str, Tensor]], run: Run, names: Any) -> dict[str, Tensor]:
    """The answers that do not depend on the seed."""
    found = []
    for seed in SEEDS:
        with run.pair.looked_at(seed):
            found.append(answer())
    return {name: found[0][name] for name in names if torch.equal(found[0][name], found[1][name])}


_X = "rows as the model sees them"
_ONLY = "export another --part"
PARTS: dict[str, type[Part]] = {"encoder": Encoder, "decoder": Decoder, "classifier": Classifier}
