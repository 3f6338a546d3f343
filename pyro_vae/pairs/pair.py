"""A model and its guide, run together: their calls, their structure, their parameters.

Any two callables that run under ``pyro.infer.SVI`` make a pair.  Everything the engine needs to know of them it reads
off their traces, so nothing else in the package asks which model it has.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import pyro
import torch
from pyro import poutine
from torch import Tensor, nn

from pyro_vae.compiled.replay import Repetition
from pyro_vae.errors import InputError
from pyro_vae.pairs import turns
from pyro_vae.pairs.classes import labels_by_value
from pyro_vae.pairs.probing import probe
from pyro_vae.pairs.reach import modules_of, signature_of
from pyro_vae.pairs.seeding import seeded
from pyro_vae.pairs.structure import Structure
from pyro_vae.shapes import Shaped

Program = Callable[..., Any]


class Pair:
    """A model and a guide with the parameters of both.

    Parameters live in a scope of the pair's own, so that two pairs never share a value by having a name in common, and
    the caller's global parameter store is left alone.

    Args:
        model: the Pyro program p, called with (x) or (x, y).
        guide: the Pyro program q, called the same way.

    Example:
        >>> import pyro
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import LinearGaussian
        >>> from pyro_vae.pairs import Pair
        >>> model = LinearGaussian((3,), latent_dim=2)
        >>> pair = Pair(model, MeanField(model))
        >>> pair.probe(torch.randn(4, 3)).latent
        ('z',)
        >>> [name for name in pair.trained() if name.startswith("model")], len(pyro.get_param_store())
        (['model.likelihood.log_scale', 'model.decoder.weight', 'model.decoder.bias'], 0)
    """

    def __init__(self, model: Program, guide: Program) -> None:
        self.model = model
        self.guide = guide
        self._scope = _Scope({"params": {}, "constraints": {}})
        self.takes_label = all(_takes_label(program) for program in (model, guide))
        self._classes: Tensor | None = None  # the values of the label site, where programs take labels as these
        self.draws_lie: dict[bool, Literal["beside", "rows", "alone"]] = {}  # by whether labels are given
        self._repetitions: dict[str, Repetition] = {}
        self._modules: dict[str, nn.Module] = {}
        self._find_modules()
        parts = [part for module in self._modules.values() for part in module.modules()]
        some_train = any(part.training for part in parts)
        self._held = {part for part in parts if some_train and not part.training}

    @classmethod
    def of_trained(cls, model: Program, guide: Program) -> Pair:
        """Programs with the parameters that the global store has now, as ``pyro.infer.SVI`` left them."""
        pair = cls(model, guide)
        pair._scope = _Scope(pyro.get_param_store().get_state())
        return pair

    def with_guide(self, guide: Program) -> Pair:
        """A pair of this model and another form of the guide, with the same parameters and the same place for draws."""
        pair = copy.copy(self)
        pair.guide = guide
        pair._repetitions = {}
        return pair

    def repetition(self, name: str) -> Repetition:
        """The calls of one name that this pair repeats, with what was recorded of them."""
        return self._repetitions.setdefault(name, Repetition(name))

    def apart(self, guide: Program, parameters: Mapping[str, Tensor]) -> Pair:
        """A pair of this model and another form of the guide, with parameters of its own.

        Args:
            guide: the guide.
            parameters: unconstrained, by the names of this pair's.
        """
        pair = self.with_guide(guide)
        pair._scope = _Scope({"params": dict(parameters), "constraints": self._scope.store["constraints"]})
        return pair

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Run programs on this pair's parameters."""
        with turns.looking():
            if self._scope.entered:
                yield
                return
            self._scope.entered = True
            try:
                with pyro.get_param_store().scope(self._scope.store):
                    yield
            finally:
                self._scope.entered = False

    def arguments(self, x: Tensor, y: Shaped[Tensor, "N"] | None) -> tuple[Tensor, ...]:
        """The arguments of both programs: (x, y), or (x) where there is no label or it is not taken.

        Programs are given class indices, or the values of their label site where they do not run on indices.
        """
        if y is None or not self.takes_label:
            return (x,)
        return x, y if self._classes is None else self._classes.to(y.device)[y]

    def probe(self, x: Tensor, y: Shaped[Tensor, "N"] | None = None, num_rows: int | None = None) -> ProbedPair:
        r"""Run the pair, leaving no trace in the random state, and read its structure off.

        Parameters that the programs make at their first call are made now.

        Args:
            x: data of shape (N, \*event_shape).
            y: class labels of shape (N,), or None to leave the label site latent.
            num_rows: the rows of the whole set that shared latents are learned from, where x is a part of it.

        Raises:
            InputError: if a program stops with an error, or samples a site that the other has not.
        """
        structure = probe(self, x, y)
        if y is None:
            self._classes = self._taken(x, structure.classes)
        self._find_modules()  # those, too, that a program made at its first call
        return ProbedPair(pair=self, num_rows=num_rows, **vars(structure))

    def modules(self) -> dict[str, nn.Module]:
        """The programs that are torch modules, by role."""
        roles = {"model": self.model, "guide": self.guide}
        return {role: program for role, program in roles.items() if isinstance(program, nn.Module)}

    def all_modules(self) -> dict[str, nn.Module]:
        """The modules that the programs are or use, by role and path; see ``reach.modules_of``."""
        return dict(self._modules)

    def train(self, mode: bool = True) -> None:
        """Switch the modules of both programs between training and evaluation.

        Those that were in evaluation mode when the others were not, such as frozen parts, stay in it.
        """
        for module in self._modules.values():
            for part in module.modules():
                part.training = mode and part not in self._held

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode for a while; every module then goes back to the mode it was in."""
        modes = {part: part.training for module in self._modules.values() for part in module.modules()}
        self.train(False)
        try:
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode

    @contextmanager
    def looked_at(self, seed: int, gradients: bool = False) -> Iterator[None]:
        """Evaluation mode, on the pair's parameters, with noise of its own, for a while; nothing else notices.

        Args:
            seed: the seed of the noise.
            gradients: whether gradients are recorded.
        """
        with self.scope(), self.evaluating(), seeded(seed), torch.set_grad_enabled(gradients):
            with pyro.validation_enabled(False):  # what is not a number is counted by whoever looks
                yield

    def parameters(self) -> dict[str, Tensor]:
        """The unconstrained parameters that the programs have used so far, by name; ``values`` has them constrained."""
        return dict(self._scope.store["params"])

    def values(self) -> dict[str, Tensor]:
        """The parameters that the programs have used so far, as ``pyro.param`` gives them: within their constraints.

        Example:
            >>> import pyro
            >>> from pyro_vae.pairs import Pair
            >>> from torch.distributions import constraints
            >>> def model(x):
            ...     scale = pyro.param("scale", torch.tensor(2.0), constraint=constraints.positive)
            ...     with pyro.plate("data", len(x)):
            ...         pyro.sample("x", pyro.distributions.Normal(0.0, scale).expand([1]).to_event(1), obs=x)
            >>> pair = Pair(model, lambda x: None)
            >>> probed = pair.probe(torch.randn(4, 1))
            >>> pair.values(), pair.parameters()["scale"].exp()
            ({'scale': tensor(2.)}, tensor(2., grad_fn=<ExpBackward0>))
        """
        with self.scope():
            return {name: value.detach().clone() for name, value in pyro.get_param_store().items()}

    def trained(self) -> dict[str, Tensor]:
        """The trained parameters, unconstrained, by names that no process changes, as in ``state_dict``."""
        parameters, seen = {}, set()
        for role, module in self.modules().items():
            for name, value in module.named_parameters():
                if value.requires_grad and id(value) not in seen:  # a shared parameter goes by its first name
                    seen.add(id(value))
                    parameters[f"{role}.{name}"] = value
        return parameters | {f"param.{name}": value for name, value in self._bare_parameters().items()}

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that the programs hold: ``model.*`` and ``guide.*`` of modules, ``param.*`` of ``pyro.param``.

        Of modules that a program reaches without being one, ``param.*`` are the parameters that it stated to Pyro, and
        ``model.*`` or ``guide.*``, with the path to the module, what is left: buffers, and what is not trained.
        """
        seen: set[int] = set()
        state = _entries(self.modules(), seen)
        for name, value in self._bare_parameters().items():
            state[f"param.{name}"] = value.detach()
            seen.add(id(value))
        return state | _entries(self._modules, seen)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Put back what ``state_dict`` gave, in place, into a pair that has run at least once.

        Raises:
            InputError: if the state is not of these programs.
        """
        mine, own = self.state_dict(), _entries(self.modules(), set())
        later = {name for name in mine if name not in own and not name.startswith("param.")}
        missing = mine.keys() - state.keys() - later  # earlier versions wrote no buffers of what is reached
        wrong = sorted(missing | (state.keys() - mine.keys()))
        wrong = wrong or [k for k in mine if k in state and mine[k].shape != state[k].shape]
        if wrong:
            raise InputError(
                "weights of this model and guide",
                f"{len(wrong)} entries that do not fit, {wrong[0]!r} first",
                "load them into the programs that they were saved from",
            )
        with torch.no_grad():
            for name in mine.keys() & state.keys():
                mine[name].copy_(state[name])

    def untrained(self) -> list[str]:
        """The modules with parameters that no run has stated to Pyro, so that nothing trains them, by path."""
        used = {id(value) for value in self._scope.store["params"].values()}
        return [
            path
            for path, module in self._modules.items()
            if any(value.requires_grad and id(value) not in used for value in module.parameters())
        ]

    def _taken(self, x: Tensor, classes: Tensor | None) -> Tensor | None:
        """The values that programs take as labels in the place of class indices; None where they take these."""
        with self.scope(), self.evaluating(), torch.no_grad(), torch.random.fork_rng(), poutine.block():
            return classes if labels_by_value(self, x, classes) else None

    def _find_modules(self) -> None:
        found: dict[str, nn.Module] = {}
        for role, program in {"model": self.model, "guide": self.guide}.items():
            for path, module in modules_of(program).items():
                if not any(module is part for other in found.values() for part in other.modules()):
                    found[f"{role}.{path}" if path else role] = module
        self._modules = found

    def _bare_parameters(self) -> dict[str, Tensor]:
        owned = {id(p) for module in self.modules().values() for p in module.parameters()}
        return {name: value for name, value in self._scope.store["params"].items() if id(value) not in owned}


@dataclass
class _Scope:
    """The parameters of a pair, as the parameter store holds them, and whether programs run on them now."""

    store: Any
    entered: bool = False


@dataclass(frozen=True, kw_only=True)
class ProbedPair(Structure):
    """A pair together with its structure; ``Pair.probe`` makes it.

    Args:
        pair: the model and the guide.
        num_rows: the rows of the whole set that shared latents are learned from; None: those of each call.

    Example:
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import HVAE
        >>> from pyro_vae.pairs import Pair
        >>> model, x = HVAE((1, 8, 8), latent_dim=2), torch.rand(3, 1, 8, 8).round()
        >>> probed = Pair(model, MeanField(model)).probe(x)
        >>> probed.pair.model is model, probed.latent, probed.continuous["z1"].size
        (True, ('z1', 'z2'), 2)
    """

    pair: Pair
    num_rows: int | None = None

    @property
    def by_row(self) -> ProbedPair:
        """The pair as each row sees it, given the latents that all rows share.

        A draw of these is a draw for all rows, so that a mean over draws of what a row is like given them is one over
        their posterior.
        """
        summed = [name for name in (*self.enumerated, *self.marginal) if name in self.shared]
        return self if summed else replace(self, data_dim=self.plate_dim)


def _entries(modules: dict[str, nn.Module], seen: set[int]) -> dict[str, Tensor]:
    """The state of modules by path; what was seen goes by its first name alone."""
    state = {}
    for path, module in modules.items():
        for name, value in module.state_dict(keep_vars=True).items():
            if id(value) not in seen:
                seen.add(id(value))
                state[f"{path}.{name}"] = value.detach()
    return state


def _takes_label(program: Program) -> bool:
    parameters = signature_of(program).parameters.values()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len(positional) >= 2 or any(p.kind is p.VAR_POSITIONAL for p in parameters)
