"""What a criticism is asked for: how much of each check to make, and what is known beside the data."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pyro_vae.diagnostics.checks import CHECKS
from pyro_vae.errors import InputError, nearest
from pyro_vae.shapes import Float, Shaped


@dataclass(frozen=True)
class Effort:
    """The amount of each check; 0 leaves it out.

    Args:
        samples: importance samples per datum.
        simulated: data that the model makes for calibration.
        split: data whose inference gap is split into its parts.
        nuts: data that NUTS draws from the posteriors of.
        nuts_samples: draws of each of four chains, after as many of warm-up.
        only: the checks to make, of ``CHECKS``; default: all that can be made.  Weights are always looked at.

    Example:
        >>> from pyro_vae.diagnostics import Effort
        >>> quick = Effort(samples=200, simulated=0, only=("latents",))
        >>> quick.split, quick.nuts  # left out unless asked for
        (0, 0)
        >>> Effort(only=("latent",))
        Traceback (most recent call last):
            ...
        pyro_vae.errors.InputError: expected a known check; got 'latent'; ...'latents'...
    """

    samples: int = 1000
    simulated: int = 500
    split: int = 0
    nuts: int = 0
    nuts_samples: int = 500
    only: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.only:
            if name not in CHECKS:
                raise InputError("a known check", repr(name), nearest(name, CHECKS))
        if self.samples < 1:
            raise InputError("at least one sample per datum", str(self.samples), "use --samples 1000")
        for name in ("simulated", "split", "nuts"):
            if getattr(self, name) < 0:
                raise InputError(f"a number of data, 0 or more, for {name}", str(getattr(self, name)), "use 0 for none")


@dataclass(frozen=True)
class TrainingFacts:
    """What is known of the data and of the training, for checks that need it.

    Args:
        probabilities: q(y | x) of the data, shape (N, K), where there is a classifier.
        labels: their classes, shape (N,).
        iterates: the iterates of the parameters, shape (T, K), the whole way; the second half of it is looked at.
        names: the names of the parameters.
    """

    probabilities: Float[Tensor, "N K"] | None = None
    labels: Shaped[Tensor, "N"] | None = None
    iterates: Tensor | None = None
    names: tuple[str, ...] = ()
