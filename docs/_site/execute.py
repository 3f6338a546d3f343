"""Run notebooks and write them back with their outputs: ``python docs/_site/execute.py [NAME ...]``."""

from __future__ import annotations

import base64
import io
import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

ROOT = Path(__file__).parents[2]
COLORS = 128  # of a picture's palette; lines and digits need no more


def executed(path: Path) -> nbformat.NotebookNode:
    """The notebook with the outputs of a run from top to bottom, in the root of the repository as in the tests."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=200, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}).execute()
    return notebook


def smaller(png: str) -> str:
    """A picture with a palette instead of 24 bits per pixel, PNG in base64 both."""
    with Image.open(io.BytesIO(base64.b64decode(png))) as picture:
        file = io.BytesIO()
        picture.convert("RGB").quantize(COLORS).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def main(names: list[str]) -> None:
    """Run those notebooks, or all of them."""
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"  # of tqdm, where no ipywidgets are
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        if names and path.stem not in names:
            continue
        start = time.perf_counter()
        notebook = executed(path)
        sizes = [0]
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)
            for output in cell.get("outputs", []):
                if png := output.get("data", {}).get("image/png"):
                    output["data"]["image/png"] = smaller(png)
                    sizes.append(len(output["data"]["image/png"]) * 3 // 4)
        nbformat.write(notebook, path)
        print(f"{path.stem}: {time.perf_counter() - start:.0f} s, pictures {[size // 1000 for size in sizes[1:]]} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
