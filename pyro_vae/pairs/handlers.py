r"""Effect handlers of our own.

``temper`` multiplies the log-probability of every latent site by beta, in the model and in the guide alike, so that

    ELBO_beta = E_q[log p(x | z)] - beta KL(q(z | x) || p(z)).

Higgins et al., *beta-VAE*, 2017.  A beta put on the model alone gives E_q[beta log p(z) - log q(z)], which is no
weighted KL.  ``pyro.poutine.scale`` refuses 0, and touches the observation too.

``unscaled`` takes all scales away again, and ``weigh`` scales some sites.  ``frozen`` runs a program with its
parameters held fixed, so that gradients reach them through their draws alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection
from types import TracebackType
from typing import Any, Self

from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import Message
from torch import Tensor, nn

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
