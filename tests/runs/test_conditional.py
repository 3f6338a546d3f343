"""What a run of a conditional model, or of one whose class is read off its images, can be asked."""

from __future__ import annotations

import pytest
import torch

import pyro_vae
from pyro_vae.errors import InputError
from pyro_vae.runs import report
from tests.conftest import FAST


def quietly(**settings):
    return pyro_vae.fit(**(FAST | {"display": False} | settings))


def test_complete_fills_in_the_hidden_part_and_keeps_the_visible_one(toy_npz):
    run = quietly(model="cvae:quadrants=2", data=toy_npz, labels="none", likelihood="bernoulli")
    x = run.split("test").x()
    filled = run.complete(x, 3)
    hidden = run.model.hidden
    assert filled.shape == (3, *x.shape)
    assert torch.equal(filled.masked_fill(hidden, 0.0), x.masked_fill(hidden, 0.0).expand(3, *x.shape))
    assert not torch.equal(filled[0], filled[1])
    assert torch.equal(filled, run.complete(torch.where(hidden, 1 - x, x), 3))  # the hidden part is never read
    drawn = run.complete(x, mean=False)
    assert set(drawn.unique().tolist()) == {0.0, 1.0}


def test_pictures_of_a_conditional_run(toy_npz):
    run = quietly(model="cvae", data=toy_npz, labels="none")
    canvas = report.samples_figure(run, 64).axes[0].images[0].get_array()
    assert canvas.shape == report.completions_figure(run).axes[0].images[0].get_array().shape
    assert "what the model sees" in report.samples_figure(run, 64).axes[0].get_title()
    x = run.split("test")[:1].x()
    points = torch.randn(4, 2)
    images = run.decode(points, x=x)
    assert torch.equal(
        images.masked_fill(run.model.hidden, 0.0), x.masked_fill(run.model.hidden, 0.0).expand(4, -1, -1, -1)
    )


def test_other_models_leave_what_is_there(toy_npz):
    run = quietly(data=toy_npz)
    x = run.split("test").x()
    assert torch.equal(run.complete(x, num_samples=2), x.expand(2, *x.shape))


def test_a_class_that_is_read_off_the_image_cannot_be_chosen(toy_npz):
    assert quietly(model="ss_vae", data=toy_npz).class_matters
    run = quietly(model="db_vae", data=toy_npz, labels="all")
    assert not run.class_matters
    assert run.sample(4).shape == (4, 1, 6, 6)
    assert run.classify(run.data.test.values()).shape == (6,)
    with pytest.raises(InputError, match="images depend on the class; got 'db_vae', whose class is read off them"):
        run.sample(4, y=1)
    assert not quietly(data=toy_npz).class_matters
