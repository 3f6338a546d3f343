"""The report page: one HTML file that shows a run, or several side by side, and loads nothing from anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyro_vae import lazy

if TYPE_CHECKING:
    from pyro_vae.page.build import write_page

__all__ = ["write_page"]

__getattr__, __dir__ = lazy.attach(__name__, {"write_page": "build"})
