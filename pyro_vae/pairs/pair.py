"""A model and its guide, run together: their calls, their structure, their parameters.

Any two callables that run under ``pyro.infer.SVI`` make a pair.  Everything the engine needs to know of them it reads
off their traces, so nothing else in the package asks which model it has.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor, nn

from pyro_vae.errors import InputError
from pyro_vae.pairs import turns
from pyro_vae.pairs.structure import Structure, read_structure
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
        self._takes_label = all(_takes_label(program) for program in (model, guide))

    @classmethod
    def of_trained(cls, model: Program, guide: Program) -> Pair:
        """Programs with the parameters that the global store has now, as ``pyro.infer.SVI`` left them."""
        pair = cls(model, guide)
        pair._scope = _Scope(pyro.get_param_store().get_state())
        return pair

    def with_guide(self, guide: Program) -> Pair:
        """The same model with another program for a guide, on the same parameters."""
        pair = Pair(self.model, guide)
        pair._scope, pair._takes_label = self._scope, self._takes_label
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
        """What both programs are called with: (x, y), or (x) where there is no label or it is not taken."""
        return (x, y) if y is not None and self._takes_label else (x,)

    def probe(self, x: Tensor, y: Shaped[Tensor, "N"] | None = None) -> ProbedPair:
        """Run the pair once, leaving no trace in the random state, and read its structure off.

        Parameters that the programs make at their first call are made now.
        """
        arguments = self.arguments(x, y)
        with self.scope(), self.evaluating(), torch.no_grad(), torch.random.fork_rng(), poutine.block():
            q = poutine.trace(self.guide).get_trace(*arguments)
            p = poutine.trace(poutine.replay(self.model, q)).get_trace(*arguments)
        structure = read_structure(prune_subsample_sites(p), prune_subsample_sites(q))
        return ProbedPair(pair=self, **vars(structure))

    def modules(self) -> dict[str, nn.Module]:
        """The programs that are torch modules, by role."""
        roles = {"model": self.model, "guide": self.guide}
        return {role: program for role, program in roles.items() if isinstance(program, nn.Module)}

    def train(self, mode: bool = True) -> None:
        """Switch both programs between training and evaluation."""
        for module in self.modules().values():
            module.train(mode)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode for a while; every module then goes back to the mode it was in."""
        modes = {module: module.training for program in self.modules().values() for module in program.modules()}
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
        with self.scope(), self.evaluating(), torch.random.fork_rng(), torch.set_grad_enabled(gradients):
            with pyro.validation_enabled(False):  # what is not a number is counted by whoever looks
                torch.manual_seed(seed)
                yield

    def parameters(self) -> dict[str, Tensor]:
        """The unconstrained parameters that the programs have used so far, by name."""
        return dict(self._scope.store["params"])

    def trained(self) -> dict[str, Tensor]:
        """What is trained, unconstrained, by names that do not change from process to process, as in ``state_dict``."""
        parameters, seen = {}, set()
        for role, module in self.modules().items():
            for name, value in module.named_parameters():
                if value.requires_grad and id(value) not in seen:  # a shared parameter goes by its first name
                    seen.add(id(value))
                    parameters[f"{role}.{name}"] = value
        return parameters | {f"param.{name}": value for name, value in self._bare_parameters().items()}

    def state_dict(self) -> dict[str, Tensor]:
        """Everything learned: ``model.*`` and ``guide.*`` of the modules, ``param.*`` of bare ``pyro.param``."""
        state, seen = {}, set()
        for role, module in self.modules().items():
            for name, value in module.state_dict(keep_vars=True).items():
                if id(value) not in seen:  # a shared parameter goes by its first name
                    seen.add(id(value))
                    state[f"{role}.{name}"] = value.detach()
        return state | {f"param.{name}": value.detach() for name, value in self._bare_parameters().items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Put back what ``state_dict`` gave, in place, into a pair that has run at least once.

        Raises:
            InputError: if the state is not of these programs.
        """
        mine = self.state_dict()
        wrong = sorted(mine.keys() ^ state.keys()) or [k for k in mine if mine[k].shape != state[k].shape]
        if wrong:
            raise InputError(
                "weights of this model and guide",
                f"{len(wrong)} entries that do not fit, {wrong[0]!r} first",
                "load them into the programs that they were saved from",
            )
        with torch.no_grad():
            for name, value in mine.items():
                value.copy_(state[name])

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
    """A pair, and what one run of it has shown; ``Pair.probe`` makes it.

    Args:
        pair: the model and the guide.

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


def _takes_label(program: Program) -> bool:
    call = program.forward if isinstance(program, nn.Module) else program
    parameters = inspect.signature(call).parameters.values()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len(positional) >= 2 or any(p.kind is p.VAR_POSITIONAL for p in parameters)
