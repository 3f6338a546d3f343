r"""Effect handlers of our own.

``temper`` multiplies the log-probability of every latent site by beta, in the model and in the guide alike, so that

    ELBO_beta = E_q[log p(x | z)] - beta KL(q(z | x) || p(z)).

Higgins et al., *beta-VAE*, 2017.  A beta put on the model alone gives E_q[beta log p(z) - log q(z)], which is no
weighted KL.  ``pyro.poutine.scale`` refuses 0, and touches the observation too.

``unscaled`` takes all scales away again, and ``weigh`` scales some sites.  ``frozen`` runs a program with its
parameters held fixed, so that gradients reach them through their draws alone.  ``AsCategories`` has one-hot vectors
drawn as categories.  ``unconditioned`` has a program draw what it observes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection
from types import TracebackType
from typing import Any, Self

from pyro.distributions import Categorical, OneHotCategorical
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import Message
from pyro.poutine.uncondition_messenger import UnconditionMessenger
from torch import Tensor, nn
from torch.nn.functional import one_hot

Number = float | Tensor


class temper(Messenger):
    """Scale the log-probability of every latent sample site.

    Args:
        beta: the factor, at least 0; a tensor where it changes from run to run of a graph.

    Example:
        >>> from pyro import poutine
        >>> from pyro_vae.models import VAE
        >>> from pyro_vae.pairs import temper
        >>> with temper(4.0):
        ...     trace = poutine.trace(VAE((1, 8, 8))).get_trace(torch.zeros(3, 1, 8, 8))
        >>> {name: trace.nodes[name]["scale"] for name in ("z", "x")}
        {'z': 4.0, 'x': 1.0}
    """

    def __init__(self, beta: Number) -> None:
        super().__init__()
        self.beta = beta

    def _pyro_sample(self, msg: Message[Any, Any]) -> None:
        if not msg["is_observed"]:
            msg["scale"] = msg["scale"] * self.beta


class _Unconditioned(UnconditionMessenger):
    """Pyro's ``uncondition`` for observations alone: a deterministic value is no draw, and has a shape of its own."""

    def _pyro_sample(self, msg: Message[Any, Any]) -> None:
        if not (msg["infer"] or {}).get("_deterministic"):
            super()._pyro_sample(msg)


def unconditioned(program: Callable[..., Any]) -> Callable[..., Any]:
    """A program that draws what it observes; its deterministic values are computed as ever.

    Pyro's ``uncondition`` draws these too, of a distribution that a plate has expanded: a value of shape (N,) for each
    of N rows, for whatever comes after.

    Args:
        program: a Pyro program.
    """
    return _Unconditioned()(program)


class AsCategories(Messenger):
    """Have sites of one-hot vectors drawn as the categories that they name, for Pyro's ``infer_discrete``.

    It gathers one number per site; a program still gets the vectors.

    Example:
        >>> import pyro
        >>> import pyro.distributions as dist
        >>> from pyro import poutine
        >>> from pyro_vae.pairs.handlers import AsCategories
        >>> categories = AsCategories()
        >>> with poutine.trace() as seen, categories:
        ...     vector = pyro.sample("e", dist.OneHotCategorical(torch.ones(3)))
        >>> vector.shape, seen.trace.nodes["e"]["value"].shape
        (torch.Size([3]), torch.Size([]))
        >>> torch.equal(categories.restored(seen.trace).nodes["e"]["value"], vector)
        True
    """

    def __init__(self) -> None:
        super().__init__()
        self._found: dict[str, OneHotCategorical] = {}

    def _pyro_sample(self, msg: Message[Any, Any]) -> None:
        if isinstance(msg["fn"], OneHotCategorical) and not msg["is_observed"]:
            self._found[str(msg["name"])] = msg["fn"]
            msg["fn"] = Categorical(logits=msg["fn"].logits)

    def _pyro_post_sample(self, msg: Message[Any, Any]) -> None:
        if msg["name"] in self._found and not msg["is_observed"]:
            msg["value"] = self._vector(str(msg["name"]), msg["value"])

    def restored(self, trace: Trace) -> Trace:
        """A trace with the vectors in the place of the categories."""
        for name, density in self._found.items():
            node: Any = trace.nodes[name]
            node["value"], node["fn"] = self._vector(name, node["value"]), density
        return trace

    def _vector(self, name: str, category: Any) -> Tensor:
        logits: Tensor = self._found[name].logits
        return one_hot(category.long(), logits.shape[-1]).to(logits.dtype)


class unscaled(Messenger):
    """Leave log-probabilities as they are, without the scales that a program, or its subsampled plate, asks for.

    Example:
        >>> from pyro import poutine
        >>> from pyro_vae.models import VAE
        >>> from pyro_vae.pairs.handlers import unscaled
        >>> with unscaled():
        ...     trace = poutine.trace(poutine.scale(VAE((1, 8, 8)), 0.1)).get_trace(torch.zeros(3, 1, 8, 8))
        >>> {name: trace.nodes[name]["scale"] for name in ("z", "x")}
        {'z': 1.0, 'x': 1.0}
    """

    def _pyro_sample(self, msg: Message[Any, Any]) -> None:
        msg["scale"] = 1.0


class weigh(Messenger):
    """Scale the log-probability of some sample sites.

    Args:
        sites: their names.
        weight: the factor.
    """

    def __init__(self, sites: Collection[str], weight: Number) -> None:
        super().__init__()
        self.sites, self.weight = sites, weight

    def _pyro_sample(self, msg: Message[Any, Any]) -> None:
        if msg["name"] in self.sites:
            msg["scale"] = msg["scale"] * self.weight


class frozen(Messenger):
    """Run a program without gradients to its parameters: those of the module, and every ``pyro.param``.

    Args:
        program: the program that is run inside.
    """

    def __init__(self, program: Callable[..., Any]) -> None:
        super().__init__()
        parameters = program.parameters() if isinstance(program, nn.Module) else ()
        self._held = [parameter for parameter in parameters if parameter.requires_grad]

    def __enter__(self) -> Self:
        self._warnings = warnings.catch_warnings()
        self._warnings.__enter__()
        warnings.filterwarnings("ignore", ".* was not registered in the param store", UserWarning)  # meant so, here
        for parameter in self._held:
            parameter.requires_grad_(False)
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        for parameter in self._held:
            parameter.requires_grad_(True)
        self._warnings.__exit__(kind, error, trace)

    def _pyro_post_param(self, msg: Message[Any, Any]) -> None:
        if msg["value"] is not None:
            msg["value"] = msg["value"].detach()
