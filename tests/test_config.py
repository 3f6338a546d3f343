from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from pyro_vae.config import FitConfig
from pyro_vae.errors import InputError


def test_round_trip_through_json():
    config = FitConfig.from_settings(model="ss_vae", beta="linear:0:1:10", hidden="64,32", labels="all", patience=3)
    assert FitConfig.from_settings(**json.loads(config.model_dump_json())) == config
    assert config.hidden == (64, 32)


def test_text_and_numbers_mean_the_same():
    assert FitConfig.from_settings(beta="4", epochs="7", labels="50") == FitConfig.from_settings(
        beta=4, epochs=7, labels=50
    )


def test_configuration_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        FitConfig.from_settings().epochs = 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "expected epochs to be at least 1 or 'auto'; got 0; "),
        ({"epochs": "many"}, "expected epochs to be a whole number or 'auto'; got"),
        ({"batch_size": -1}, "expected batch size .*; got -1; leave out --batch-size or use 100"),
        ({"latent_dim": 0}, "expected latent dim .*; got 0"),
        ({"lr": 0}, "expected lr to be more than 0; got 0"),
        ({"lr": "nan"}, "expected lr to be a number; got 'nan'"),
        ({"labels": -3}, "expected labels .*; got -3"),
        ({"labels": "some"}, "expected labels to be a whole number or 'all' or 'none'; got 'some'"),
        ({"hidden": "64,zero"}, "expected hidden to be a whole number; got"),
        ({"hidden": ()}, "expected hidden"),
        ({"binarization": "sometimes"}, "expected binarization .*'dynamic'.*; got 'sometimes'"),
        ({"device": "gpu"}, "expected device .*; got 'gpu'"),
        ({"epoch": 3}, "expected a setting that exists; got 'epoch'; did you mean 'epochs'?"),
        ({"beta": -1}, "expected beta to be at least 0; got"),
    ],
)
def test_bad_settings_are_said_in_one_line(settings, message):
    with pytest.raises(InputError, match=message) as caught:
        FitConfig.from_settings(**settings)
    assert "\n" not in str(caught.value)


def test_read_takes_plain_settings_and_a_run(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"epochs": 3}')
    assert FitConfig.read(path) == {"epochs": 3}
    path.write_text('{"format_version": 1, "config": {"epochs": 4}, "data": {}}')
    assert FitConfig.read(path) == {"epochs": 4}


@pytest.mark.parametrize("content", ["{", "[1]", None])
def test_read_refuses_what_holds_no_settings(tmp_path, content):
    path = tmp_path / "config.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match="JSON"):
        FitConfig.read(path)
