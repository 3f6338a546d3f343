"""Pages from outside ``docs``: the notebooks with a picture of each for the gallery, and pages that nobody has placed.

Documents link to ``../notebooks`` and ``../CONTRIBUTING.md``, which is where they are for a reader of the repository.
Here the notebooks are copied beside the pages, and the links are turned to where those lie on the site.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

DOCS = Path(__file__).parents[1]
ROOT = DOCS.parent
LINKS = {
    "](../notebooks/": "](notebooks/",
    "](../docs/": "](../",
    "](../CONTRIBUTING.md": "](contributing.md",
    "](../CHANGELOG.md": "](changelog.md",
    "](../README.md": "](index.md",
}
UNPLACED = "UNPLACED"  # a line of index.md that stands for every page which no table of contents names
CARDS = "CARDS"  # a line of index.md that stands for the gallery
CARD = """:::{{grid-item-card}} {title}
:link: {page}
:link-type: doc
:img-top: gallery/{name}.png
:img-alt: A picture from the notebook

{text}
:::
"""


def cells(notebook: Path) -> list[dict[str, Any]]:
    """The cells of a notebook."""
    return list(json.loads(notebook.read_text(encoding="utf-8"))["cells"])


def picture(notebook: Path) -> bytes:
    """The picture that stands for a notebook: that of the cell tagged ``gallery``, else the first one, as PNG."""
    ordered = sorted(cells(notebook), key=lambda cell: "gallery" not in cell["metadata"].get("tags", []))
    pictures = [output["data"] for cell in ordered for output in cell.get("outputs", []) if "data" in output]
    return next(base64.b64decode(data["image/png"]) for data in pictures if "image/png" in data)


def card(page: str) -> str:
    """A notebook in the gallery: its heading, its picture and the paragraph that it begins with."""
    heading, text, *_ = "".join(cells(ROOT / f"{page}.ipynb")[0]["source"]).split("\n\n")
    return CARD.format(title=heading.lstrip("# "), page=page, name=Path(page).name, text=text)


def lay_out(app: Sphinx) -> None:
    """Copy the notebooks and their pictures to where the pages can show them."""
    for folder in ("notebooks", "gallery"):
        shutil.rmtree(DOCS / folder, ignore_errors=True)
        (DOCS / folder).mkdir()
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        text = notebook.read_text(encoding="utf-8")
        (DOCS / "notebooks" / notebook.name).write_text(text.replace("](../docs/", "](../"), encoding="utf-8")
        (DOCS / "gallery" / f"{notebook.stem}.png").write_bytes(picture(notebook))


def turn_links(app: Sphinx, page: str, source: list[str]) -> None:
    """Point links out of ``docs`` at the pages of the site, and name the unplaced pages in the contents."""
    if "/" not in page:
        for here, there in LINKS.items():
            source[0] = source[0].replace(here, there)
    if page == app.config.root_doc:
        notebooks = re.findall(r"^notebooks/\w+$", source[0], re.MULTILINE)
        source[0] = source[0].replace(f"{CARDS}\n", "\n".join(card(notebook) for notebook in notebooks))
        placed = set(re.findall(r"^[\w/]+$", source[0], re.MULTILINE))
        rest = sorted(name for name in app.env.found_docs if "/" not in name and name not in placed | {page})
        source[0] = source[0].replace(f"{UNPLACED}\n", "".join(f"{name}\n" for name in rest))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register what is done before the pages are found and when one is read."""
    app.connect("builder-inited", lay_out, priority=100)
    app.connect("source-read", turn_links)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
