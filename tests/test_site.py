"""What the documentation site is made of; ``make -C docs html`` builds it, and so does ``.ci/run``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))

from _site import access, pages  # noqa: E402

INDEX = (ROOT / "docs" / "index.md").read_text()
PLACED = set(re.findall(r"^[\w/]+$", INDEX, re.MULTILINE)) - {pages.CARDS, pages.UNPLACED}


class App:
    """What the pages ask of Sphinx."""

    class config:
        root_doc = "index"

    class env:
        found_docs = (*PLACED, "index", "brand_new")


def test_the_contents_name_every_notebook_and_pages_that_exist():
    notebooks = {f"notebooks/{path.stem}" for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert {name for name in PLACED if "/" in name} == notebooks
    for name in PLACED - notebooks:
        assert (ROOT / "docs" / f"{name}.md").exists(), name


def test_a_page_that_nobody_placed_is_put_where_the_contents_say():
    source = [INDEX]
    pages.turn_links(App, "index", source)
    assert re.search(r"^faults\nbrand_new\n```$", source[0], re.MULTILINE)
    assert source[0].count(":::{grid-item-card}") == len([name for name in PLACED if "/" in name])


def test_links_out_of_the_folder_lead_to_pages_of_the_site():
    source = ["[a](../notebooks/x.ipynb) [b](../CONTRIBUTING.md) [c](guides.md#d)"]
    pages.turn_links(App, "page", source)
    assert source == ["[a](notebooks/x.ipynb) [b](contributing.md) [c](guides.md#d)"]


def test_every_notebook_has_a_card_with_a_picture():
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        assert pages.picture(path).startswith(b"\x89PNG")
        card = pages.card(f"notebooks/{path.stem}")
        assert re.match(rf":::{{grid-item-card}} \w.*\n:link: notebooks/{path.stem}\n", card)
        assert 40 < len(card.split("\n\n")[1]) < 220, path.stem


def test_pages_are_mended_for_keyboards_and_readers():
    assert access.mended("<pre><span>a</span></pre>") == '<pre tabindex="0"><span>a</span></pre>'
    assert access.mended('<div class="table-wrapper">') == '<div tabindex="0" class="table-wrapper">'
    signature = "f(<dl>\n<dd>a, </dd>\n<dd>b</dd>\n</dl>\n) <dl>\n<dt>kept</dt><dd>c</dd>\n</dl>"
    assert access.mended(signature).count("<dl>") == 1
    assert access.mended(signature).count('class="parameter"') == 2


def test_letters_of_formulas_are_characters():
    mathml = pytest.importorskip("_site.mathml", reason="pip install -e '.[docs]'")
    found = mathml.to_mathml(r"\mathbb E_q \log p \mathcal{N} \mathcal L \texttt{a\_b}", "inline")
    assert all(character in found for character in "\U0001d53c\U0001d4a9\u2112")
    assert "a_b" in found
    assert re.search(r"<mi>log</mi><mspace[^>]*/><mi>p</mi>", found)
