"""Formulas as MathML, which browsers draw and screen readers read, without a script or a network."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Any

from docutils.nodes import SkipNode
from latex2mathml.converter import convert

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ALPHABETS = {"mathbb": "DOUBLE-STRUCK", "mathcal": "SCRIPT"}  # browsers know the letters, not the attribute for them


def letter(alphabet: str, name: str) -> str:
    """A capital of one of those alphabets, as the character that Unicode has for it."""
    found = [f"MATHEMATICAL {ALPHABETS[alphabet]} CAPITAL {name}", f"{ALPHABETS[alphabet]} CAPITAL {name}"]
    return next(filter(None, (_lookup(each) for each in found)))


def _lookup(name: str) -> str:
    try:
        return unicodedata.lookup(name)
    except KeyError:
        return ""


def to_mathml(formula: str, display: str) -> str:
    """A formula of LaTeX as one ``math`` element; ``display`` is ``inline`` or ``block``."""
    formula = re.sub(r"\\(mathbb|mathcal)\s*\{?\s*([A-Z])\}?", lambda found: letter(found[1], found[2]), formula)
    formula = re.sub(r"\\(log|exp|det)\s+", r"\\\1\\,", formula)  # the space that TeX puts after an operator
    return convert(formula, display=display).replace(r"\_", "_")


def visit_math(translator: Any, node: Any) -> None:
    """Write a formula in a line of text."""
    translator.body.append(to_mathml(node.astext(), "inline"))
    raise SkipNode


def visit_displaymath(translator: Any, node: Any) -> None:
    """Write a formula that stands by itself."""
    translator.body.append(f'<div class="formula" tabindex="0">{to_mathml(node.astext(), "block")}</div>')
    raise SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer, and choose it."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_displaymath, None))
    app.config.html_math_renderer = "mathml"
    return {"parallel_read_safe": True, "parallel_write_safe": True}
