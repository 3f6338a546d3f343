"""What the documents show runs."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
import torch
from nbclient import NotebookClient

from pyro_vae.guides import GUIDES
from pyro_vae.inference import OBJECTIVES, Pair
from pyro_vae.models import VAE
from tests.conftest import EVENT_SHAPE, SMALL

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def blocks(document: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run_from_top_to_bottom(path):
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=200, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}).execute()
    assert all(not cell.get("outputs") for cell in nbformat.read(path, as_version=4).cells), "committed without outputs"


def test_the_program_of_extending_md():
    program, _ = blocks("docs/extending.md")
    counts = torch.distributions.Poisson(torch.distributions.Gamma(2.0, 1.0).sample((200, 1))).sample()
    names = {"counts": counts}
    exec(program.replace("epochs=100", "epochs=3"), names)  # an example of ours, read as a user would
    assert len(names["run"].history) == 3
    with names["run"].pair.scope():
        names["guide"](counts)


def test_the_guide_of_extending_md(x):
    before = dict(GUIDES._entries)
    try:
        exec(blocks("docs/extending.md")[1], {})
        model = VAE(EVENT_SHAPE, 2, network=SMALL)
        guide = GUIDES.build("isotropic", model=model, network=SMALL)
        assert guide.posterior(x).stddev.unique(dim=-1).shape == (7, 1)
        OBJECTIVES["elbo"](Pair(model, guide))(x).backward()
    finally:
        GUIDES._entries = before


def test_the_python_of_the_readme(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for block in blocks("README.md"):
        exec(re.sub(r"labels=100", "labels=100, epochs=2", block), {})


def test_the_python_of_data_md():
    (program,) = blocks("docs/data.md")
    names = {}
    exec(program.replace("latent_dim=2", "latent_dim=2, epochs=5"), names)
    gap = names["run"].evaluate()["nll"] + names["log_evidence"].mean()
    assert -0.05 < gap < 1  # nats; importance weighting leaves the bound a little below the evidence


def test_links_lead_somewhere():
    for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
            assert target.startswith("http") or (document.parent / target).exists(), f"{document.name}: {target}"
