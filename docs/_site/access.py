"""Mends of the theme for keyboards and screen readers, of what axe-core calls serious."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx


def mended(html: str) -> str:
    """A page's HTML whose captions say their level, whose code and tables scroll by keys, and whose lists are lists."""
    html = html.replace('<p class="caption" role="heading">', '<p class="caption" role="heading" aria-level="2">')
    html = html.replace("<pre>", '<pre tabindex="0">')
    html = html.replace('<div class="table-wrapper', '<div tabindex="0" class="table-wrapper')
    return re.sub(r"<dl>\n((?:<dd>.*?</dd>\n)+)</dl>", _parameters, html, flags=re.DOTALL)


def _parameters(found: re.Match[str]) -> str:
    """The parameters of a long signature, a line each: the list that Sphinx makes of them has no terms."""
    lines = found[1].replace("<dd>", '<span class="parameter">').replace("</dd>", "</span>")
    return f'<span class="parameters">\n{lines}</span>'


def mend(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Mend what a page is put together from."""
    for part in ("body", "furo_navigation_tree"):
        if part in context:
            context[part] = mended(context[part])


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the mends, after the theme has made its navigation."""
    app.connect("html-page-context", mend, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
