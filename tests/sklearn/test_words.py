"""What estimators say names their parameters, whatever the engine said."""

from __future__ import annotations

import inspect
import logging
import re

import numpy as np
import pytest

from pyro_vae.diagnostics import findings
from pyro_vae.errors import TrainingError
from pyro_vae.sklearn import SSVAEClassifier, VAETransformer
from pyro_vae.sklearn.words import as_parameters


def test_no_flag_is_left_in_any_finding():
    said = re.findall(r'f?"([^"]*--[^"]*)"', inspect.getsource(findings))
    assert len(said) >= 4
    assert [text for text in map(as_parameters, said) if "--" in text] == []


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("use --latent-dim 2", "use n_components=2"),
        ("a smaller --network or more data", "a smaller settings['network'] or more data"),
        ("use --lr-warmup 30, or more --epochs", "use settings={'lr_warmup': 30}, or more max_iter"),
        ("try --beta 4 or --beta linear:0:1:10", "try settings={'beta': 4} or settings={'beta': 'linear:0:1:10'}"),
        ("a model without them, such as --model vae", "a model without them, such as settings={'model': 'vae'}"),
        ("use --missing mask, or fill them", "use settings={'missing': 'mask'}, or fill them"),
        ("no flag - and none -- here", "no flag - and none -- here"),
    ],
)
def test_a_flag_becomes_a_parameter(said, meant):
    assert as_parameters(said) == meant


def test_a_finding_and_a_failure_of_an_estimator_speak_of_parameters(caplog):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 4)), np.arange(60) % 3
    with caplog.at_level(logging.WARNING, "pyro_vae"):
        SSVAEClassifier(n_components=2, hidden_layer_sizes=(4,), max_iter=1, random_state=0).fit(x, y)
    assert "more labels (y) or train longer (max_iter)" in caplog.text
    assert "--" not in caplog.text
    with pytest.raises(TrainingError, match=r"settings\['lr'\]|settings=\{'lr'") as error:
        VAETransformer(2, (4,), 5, settings={"lr": 1e30, "clip_norm": 1e30}, random_state=0).fit(x)
    assert "--" not in str(error.value)
