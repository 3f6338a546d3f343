"""Figures as inline SVG, each with names of its own, so that many can stand on one page."""

from __future__ import annotations

import base64
import io
import re
import warnings
from dataclasses import dataclass
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

SETTINGS: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "pyro_vae"}
NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


@dataclass(frozen=True)
class Plot:
    """One figure of the page, or why there is none.

    Args:
        name: what it shows, in a word or two.
        text: what is seen in it, for whoever does not see it.
        markup: the picture.
        reason: why there is no picture, in a sentence; empty where there is one.
    """

    name: str
    text: str
    markup: Markup = Markup("")  # noqa: RUF009
    reason: str = ""


def as_svg(figure: Figure, key: str, text: str) -> Markup:
    """A figure as an SVG element.

    Args:
        figure: the figure; what users wrote in it is text there, which matplotlib escapes.
        key: letters and digits that no other figure of the page has.
        text: what is seen in it, for whoever does not see it.

    Example:
        >>> from matplotlib.figure import Figure
        >>> from pyro_vae.page.plots import as_svg
        >>> figure = Figure()
        >>> _ = figure.subplots().set_title("a < b")
        >>> markup = as_svg(figure, "one", "An empty figure")
        >>> print(markup[:46])
        <svg role="img" aria-label="An empty figure" v
        >>> "a &lt; b" in markup, "http" in markup
        (True, False)
    """
    content = io.BytesIO()
    with matplotlib.rc_context(SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        figure.savefig(content, format="svg", bbox_inches="tight", metadata=NO_METADATA)
    svg = content.getvalue().decode()
    svg = svg[svg.index("<svg") :]
    start, _, rest = svg.partition(">")
    box = re.search(r'viewBox="([^"]*)"', start)
    assert box is not None
    rest = re.sub(r"<style[^>]*>.*?</style>", "", rest, flags=re.DOTALL)  # of everything on the page
    rest = re.sub(r"<!--.*?-->", "", rest, flags=re.DOTALL)
    rest = re.sub(r'(<[^<>]*?\s)id="', rf'\1id="{key}-', rest)
    rest = re.sub(r'((?:xlink:)?href)="#', rf'\1="#{key}-', rest)
    rest = rest.replace("url(#", f"url(#{key}-")
    opening = Markup('<svg role="img" aria-label="{}" viewBox="{}">').format(text, box[1])
    return Markup(f"{opening}{rest.strip()}")


def as_image(png: bytes, text: str) -> Markup:
    """A PNG file as an image element that holds it."""
    source = base64.b64encode(png).decode()
    return Markup('<img src="data:image/png;base64,{}" alt="{}">').format(source, text)
