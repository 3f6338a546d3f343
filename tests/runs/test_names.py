"""Class names of any text, in files, figures and tables."""

from __future__ import annotations

import re

import numpy as np
import pytest
from matplotlib.figure import Figure

import pyro_vae
from pyro_vae import figures
from pyro_vae.figures.saving import save_figure
from pyro_vae.figures.style import as_drawn
from tests.conftest import FLAGS, toy

NAMES = [
    "$x_1$",
    "[bold red]b[/]",
    "_hidden",
    "../up",
    "two\nlines",
    "猫😀",
    "a" * 300,
    "100 % & <i>",
    "a | b",
    r"\alpha",
    "$",
    "No",
]


@pytest.fixture
def named(tmp_path):
    x, _ = toy()
    np.savez(tmp_path / "named.npz", x=np.tile(x, (2, 1, 1)), y=np.array(NAMES)[np.arange(120) % len(NAMES)])
    return tmp_path / "named.npz"


def test_a_name_is_drawn_letter_for_letter(tmp_path):
    assert as_drawn("$x_1$") == r"\$x_1\$"
    assert as_drawn("two\nlines\t") == "two lines "
    assert len(as_drawn("a" * 300)) < 30
    for name in NAMES:
        figure = Figure()
        text = figure.text(0.5, 0.5, as_drawn(name))
        assert not text._preprocess_math(text.get_text())[1], "it would be typeset as mathematics"
        save_figure(figure, tmp_path / "name.png")


def test_no_name_is_left_out_of_a_legend():
    import torch

    for count in (4, len(NAMES)):
        labels = torch.arange(60) % count
        figure = figures.latent_map(torch.randn(60, 2), labels, NAMES[:count])
        if count == 4:
            shown = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
            assert shown == [as_drawn(name) for name in NAMES[:4]]
    unlabelled = figures.latent_map(torch.randn(60, 1), torch.arange(60) % 3 - 1, ["a", "b"])
    assert sum(patch.get_height() for patch in unlabelled.axes[0].patches) > 0


@pytest.mark.draws
@pytest.mark.exhaustive
def test_files_and_commands_take_them(command, named, tmp_path):
    found = command("fit", "--model", "ss_vae", "--data", named, "--out", "[bold]run[/]", *FLAGS, "--labels", 24)
    assert found.exit_code == 0, found.stderr
    run = pyro_vae.load(tmp_path / "[bold]run[/]")
    assert set(run.facts.class_names) == set(NAMES)
    for words in (["info"], ["evaluate", "--samples", 2], ["latent"]):
        found = command(words[0], "[bold]run[/]", *words[1:])
        assert found.exit_code == 0, found.stderr
        if words[0] == "info":
            assert "[bold]run[/]" in found.stdout
    written = []
    for label in ("$x_1$", "../up", "two\nlines", "No"):
        found = command("sample", "[bold]run[/]", "--label", label, "--num", 4)
        assert found.exit_code == 0, found.stderr
        written.append(re.sub(r"\n", "", found.stdout.partition("figures/")[2]))
    index = run.facts.class_names.index
    assert written == [f"samples-class-{index(label)}.png" for label in ("$x_1$", "../up", "two\nlines")] + [
        "samples-No.png"
    ]
    assert command("sample", "[bold]run[/]", "--label", "dog").exit_code == 2
    tree = run.to_arviz(2, 2)
    from pyro_vae.arviz_bridge import save_posterior

    save_posterior(tree, tmp_path / "posterior.nc")
