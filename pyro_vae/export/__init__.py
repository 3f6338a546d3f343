"""Fitted programs as files that need neither Pyro nor this package: ``torch.export`` and ONNX."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyro_vae import lazy

if TYPE_CHECKING:
    from pyro_vae.export.writing import export_run

__all__ = ["export_run"]

__getattr__, __dir__ = lazy.attach(__name__, {"export_run": "writing"})
