"""The code of a notebook as one script."""

from __future__ import annotations

import json
from pathlib import Path


def script(notebook: Path) -> str:
    """All code cells of a notebook, one after another, without the lines that speak to IPython (``%`` and ``!``).

    Args:
        notebook: its file.

    Returns:
        The source of a script.
    """
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    lines = [line for source in sources for line in (*source.splitlines(), "")]
    return "\n".join("" if line.lstrip()[:1] in ("%", "!") else line for line in lines)
