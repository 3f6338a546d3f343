"""Variational autoencoders as ordinary Pyro programs, fast, and checked.

``fit`` trains a guide for a model, ``load`` opens a run that was written, ``resume`` goes on with one.  Importing this
package is quick; torch and Pyro load when one of its names is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyro_vae import lazy

if TYPE_CHECKING:
    from pyro_vae.config import FitConfig
    from pyro_vae.runs.fitting import fit, load, resume
    from pyro_vae.runs.run import Run
    from pyro_vae.runs.stopping import Interrupted

__version__ = "0.1.0"
__all__ = ["FitConfig", "Interrupted", "Run", "fit", "load", "resume"]

__getattr__, __dir__ = lazy.attach(
    __name__,
    {
        "FitConfig": "config",
        "Interrupted": "runs.stopping",
        "Run": "runs.run",
        "fit": "runs.fitting",
        "load": "runs.fitting",
        "resume": "runs.fitting",
    },
)
