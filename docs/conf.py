"""The documentation site: pages, notebooks with their committed outputs, and an API reference from the docstrings.

``make -C docs html`` builds it into ``docs/_build/html``, and a warning is an error.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from sphinx.application import Sphinx  # noqa: E402

import pyro_vae  # noqa: E402

project = "pyro_vae"
author = "The pyro_vae developers"
copyright = author
version = release = pyro_vae.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "_site.access",
    "_site.mathml",
    "_site.pages",
]
exclude_patterns = ["_build", "_site", "_static", "_templates"]
templates_path = ["_templates"]
root_doc = "index"

myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 4
myst_links_external_new_tab = False
nb_execution_mode = "off"  # the exhaustive tests run the notebooks; the site shows what they wrote
nb_merge_streams = True


def public(module: str) -> dict[str, str]:
    """The names that a module hands on, those of ``__all__`` or else what it defines, with the directive for each."""
    face = importlib.import_module(module)
    own = [name for name, value in vars(face).items() if getattr(value, "__module__", "") == module]
    names = getattr(face, "__all__", [name for name in own if not name.startswith("_")])
    kinds = {"autoclass": inspect.isclass, "autofunction": inspect.isroutine, "autodata": lambda _: True}
    return {name: next(key for key, fits in kinds.items() if fits(getattr(face, name))) for name in names}


API = (Path(__file__).parent / "api.md").read_text(encoding="utf-8")
FACES = re.findall(r"^   (pyro_vae[\w.]*)$", API, re.MULTILINE)
autosummary_generate = True
autosummary_context = {"public": {face: public(face) for face in FACES}}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
python_maximum_signature_line_length = 88

html_theme = "furo"
html_title = "pyro_vae"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
copybutton_exclude = ".linenos, .gp, .go"
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"


def foreign(app: Sphinx, what: str, name: str, member: Any, skip: bool, options: Any) -> bool | None:
    """Leave out what classes inherit from torch, Pyro, pydantic and scikit-learn, whose documentation has it."""
    home = getattr(inspect.unwrap(getattr(member, "fget", None) or member), "__module__", None)
    return True if isinstance(home, str) and not home.startswith("pyro_vae") else None


def setup(app: Sphinx) -> None:
    """Register the choice of members."""
    app.connect("autodoc-skip-member", foreign)
