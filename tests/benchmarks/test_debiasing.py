"""The benchmark of debiasing: what it hides from training, what it calls a group, and a quick run."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner

from benchmarks.debiasing import RESAMPLED, SHARE, accuracies, drawn, main
from pyro_vae.data import Images


def test_some_images_are_inverted_and_none_that_is_held_out_is_trained_on():
    dataset, held_out, test = drawn("digits", seed=3)
    x = torch.cat([dataset.validation.values(), dataset.train.values()])
    inverted = x.flatten(1).mean(1) > 0.5  # ink is a third of a digit's pixels
    assert inverted.sum() == round(SHARE * len(x))
    assert not (held_out.values().flatten(1).mean(1) > 0.5).any()
    seen = {tuple(row.flatten().tolist()) for row in torch.where(inverted[:, None, None, None], 1 - x, x)}
    assert not seen & {tuple(row.flatten().tolist()) for row in held_out.values()}
    assert not seen & {tuple(row.flatten().tolist()) for row in test.values()}
    assert torch.equal(drawn("digits", seed=3)[0].train.pixels, dataset.train.pixels)
    assert not torch.equal(drawn("digits", seed=4)[0].train.pixels, dataset.train.pixels)


def test_the_groups_are_class_by_appearance():
    """One that is right of dark images of class 0 and half of class 1, and says 1 of all others."""
    images = Images(torch.tensor([[0.0, 0.1], [0.0, 0.1], [0.1, 0.0], [0.2, 0.1]]), torch.tensor([0, 0, 1, 1]))
    run = SimpleNamespace(classify=lambda x: torch.where((x[:, 1] == 0.1) & (x[:, 0] < 0.5), 0, 1))
    assert accuracies(run, images).tolist() == [[100.0, 50.0], [0.0, 100.0]]


@pytest.mark.exhaustive
def test_a_quick_run(tmp_path):
    out = tmp_path / "found.jsonl"
    result = CliRunner().invoke(main, ["--quick", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert re.findall(r"^\| ([\w. ]+?) \|", result.output, re.MULTILINE)[1:] == list(RESAMPLED)
    assert len(out.read_text().splitlines()) == len(RESAMPLED)
    assert CliRunner().invoke(main, ["--quick", "--out", str(out)]).output == result.output
