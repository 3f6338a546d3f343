r"""Effect handlers of our own.

``temper`` multiplies the log-probability of every latent site by beta, in the model and in the guide alike, so that

    ELBO_beta = E_q[log p(x | z)] - beta KL(q(z | x) || p(z)).

Higgins et al., *beta-VAE*, 2017.  A beta put on the model alone gives E_q[beta log p(z) - log q(z)], which is no
weighted KL.  ``pyro.poutine.scale`` refuses 0, and touches the observation too.
"""

from __future__ import annotations

from typing import Any

from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import Message


class temper(Messenger):
    """Scale the log-probability of every latent sample site.

    Args:
        beta: the factor, at least 0.
    """

    def __init__(self, beta: float) -> None:
        super().__init__()
        self.beta = beta

    def _pyro_sample(self, msg: Message[Any, Any]) -> None:
        if not msg["is_observed"]:
            msg["scale"] = msg["scale"] * self.beta
