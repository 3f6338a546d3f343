"""What every prior here has in common: a module whose ``forward()`` returns p(z).

The event dimension is declared, so the site is one line: ``z = pyro.sample("z", self.prior())``.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from pyro_vae.registry import Registry

PRIORS: Registry[nn.Module] = Registry("prior", ("latent_dim",))


class Copied:
    """A transform of Pyro's whose copies do without the values that it saw last: torch copies none with a history."""

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()  # type: ignore[assignment]
        return state | {"_cached_x_y": (None, None), "_cached_log_scale": None}
