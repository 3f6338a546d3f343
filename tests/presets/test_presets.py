from __future__ import annotations

import math

import pytest
import torch
from pyro import poutine

from pyro_vae.config import FitConfig
from pyro_vae.errors import InputError
from pyro_vae.presets import PRESETS, describe, preset
from pyro_vae.runs.assembly import OfShape, build_pair, check_names


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_whole_configurations(name):
    config = FitConfig.from_settings(**preset(name))
    check_names(config, config.model, config.guide)
    shape = (1, 32, 32) if name in ("beta_vae_conv", "sprites") else (1, 28, 28)
    pair = build_pair(config, OfShape(shape, 10), config.model, config.guide)
    assert pair.model.latents[-1].size == config.latent_dim
    assert len(describe(name)) > 20


def test_the_textbook_network():
    config = FitConfig.from_settings(**preset("mlp_vae"))
    pair = build_pair(config, OfShape((1, 28, 28), 10), config.model, config.guide)
    shapes = [tuple(p.shape) for p in pair.model.parameters() if p.dim() == 2]
    assert shapes == [(200, 20), (784, 200)]


def test_a_preset_is_a_copy():
    preset("mlp_vae")["epochs"] = 1
    assert preset("mlp_vae")["epochs"] == 20


def test_unknown_presets_suggest_the_near_miss():
    with pytest.raises(InputError, match=r"a known preset; got 'mlpvae'; did you mean 'mlp_vae'\?"):
        preset("mlpvae")


@pytest.mark.parametrize("model", ["vae", "ss_vae", "db_vae"])
def test_the_forms_of_the_l1_preset(model):
    """A Laplace likelihood of scale 1 is the sum of absolute errors and 784 log 2."""
    config = FitConfig.from_settings(**(preset("l1_vae") | {"model": model}))
    pair = build_pair(config, OfShape((1, 28, 28), 10), config.model, config.guide)
    x = torch.rand(2, 1, 28, 28)
    trace = poutine.trace(pair.model).get_trace(x)
    trace.compute_log_prob()
    error = (x - trace.nodes["x"]["fn"].mean).abs().flatten(1).sum(1)
    torch.testing.assert_close(-trace.nodes["x"]["log_prob"], error + 784 * math.log(2), rtol=1e-4, atol=1e-2)
    assert config.beta == pytest.approx(0.005 * 784)
