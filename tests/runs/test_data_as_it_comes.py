"""Runs on data as people have them: partly labelled, in arrays that are opened again, of older versions."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import pyro_vae
from pyro_vae.errors import InputError
from tests.conftest import FAST, toy
from tests.runs.test_folder import as_format_1

X, Y = toy()
SETTINGS = FAST | {"display": False, "compile": "off", "epochs": 1}


def test_a_partly_labelled_run_learns_and_is_measured_by_its_labels_alone():
    partly = np.where(np.arange(60) % 3 == np.arange(60) // 20 % 3, Y, -1)
    run = pyro_vae.fit("ss_vae", data=(X, partly), **(SETTINGS | {"labels": "all"}))
    assert run.facts.class_names == ("0", "1", "2")
    for split in ("train", "test"):
        rows = run.data.of_split(split)
        known = rows.labels >= 0
        assert 0 < known.sum() < len(rows)
        right = (run.classify(rows.values()) == rows.labels)[known].double().mean()
        assert run.evaluate(split, num_samples=2)["accuracy"] == pytest.approx(right.item())
    validation = run.data.validation.labelled()
    expected = (run.classify(validation.values()) == validation.labels).double().mean().item()
    assert run.history["validation_accuracy"].iloc[-1] == pytest.approx(expected)


def test_without_a_label_among_the_test_rows_there_is_no_accuracy():
    whole = pyro_vae.data.from_arrays(X, Y)
    unlabelled = {name: _without_labels(whole.of_split(name)) for name in ("validation", "test")}
    data = pyro_vae.data.Dataset("mine", whole.train, class_names=whole.class_names, **unlabelled)
    run = pyro_vae.fit("ss_vae", data=data, **SETTINGS)
    assert "validation_accuracy" not in run.history
    assert "accuracy" not in run.evaluate(num_samples=2)
    assert not any("classifier" in finding.kind for finding in run.findings)


def _without_labels(images):
    return pyro_vae.data.Images(images.pixels, torch.full((len(images),), -1), images.scale)


def test_a_run_on_arrays_is_opened_with_its_data(tmp_path, toy_npz):
    run = pyro_vae.fit("vae", data=X.astype(np.float64), out=tmp_path / "run", **(SETTINGS | {"labels": "none"}))
    figures = {name: value for name, value in run.evaluate(num_samples=5).items() if name != "seconds"}
    again = pyro_vae.load(tmp_path / "run", data=torch.from_numpy(X))
    assert {name: value for name, value in again.evaluate(num_samples=5).items() if name != "seconds"} == figures
    with pytest.raises(InputError, match="fitted on arrays; got none; open it with"):
        pyro_vae.load(tmp_path / "run").evaluate()
    with pytest.raises(InputError, match="the data that the run was fitted on"):
        pyro_vae.load(tmp_path / "run", data=X[::-1])
    assert pyro_vae.resume(tmp_path / "run", data=X, epochs=2, display=False).history["epoch"].tolist() == [1, 2]


def test_every_command_takes_the_data_of_a_run_on_arrays(command, tmp_path):
    pyro_vae.fit("ss_vae", data=(X, Y), out=tmp_path / "run", **SETTINGS)
    np.savez(tmp_path / "moved.npz", x=X, y=Y)
    for words in (["evaluate", "--samples", 2], ["reconstruct"], ["latent"], ["traverse"], ["sample", "--num", 4]):
        found = command(words[0], "run", "--data", "moved.npz", *words[1:])
        assert found.exit_code == 0, found.stderr
    refused = command("evaluate", "run")
    assert refused.exit_code == 2
    assert "use --data FILE" in refused.stderr


def test_how_arrays_were_read_is_settled_and_read_so_again(tmp_path, capsys):
    channels_last = np.repeat((255 * X).astype(np.int32)[..., None], 3, -1)
    settings = SETTINGS | {"labels": "none", "display": True}
    run = pyro_vae.fit("vae", data=channels_last, out=tmp_path / "run", **settings)
    assert "whole numbers from 0 to 242, divided by 255, channels last" in capsys.readouterr().err.splitlines()[0]
    assert (run.config.scale, run.config.channels) == (255, "last")
    assert pyro_vae.load(tmp_path / "run", data=channels_last).split("test").x().shape == (6, 3, 6, 6)


def test_a_program_of_ones_own_gets_numbers_as_they_are():
    import pyro
    import pyro.distributions as dist

    counts = np.random.default_rng(0).poisson(140, (40, 16)).astype(np.float32)

    def model(x):
        rate = pyro.param("rate", torch.full((16,), 10.0), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Poisson(rate).to_event(1), obs=x)

    run = pyro_vae.fit(model, lambda x: None, data=counts, **(SETTINGS | {"labels": "none"}))
    assert run.data.train.values().max() == counts.max() > 140


def test_runs_from_before_there_was_a_rule_read_their_data_as_they_did(tmp_path):
    dark = (16 * X).astype(np.uint8)
    np.savez(tmp_path / "dark.npz", x=dark)
    settings = SETTINGS | {"labels": "none", "likelihood": "gaussian"}
    pyro_vae.fit("vae", data=str(tmp_path / "dark.npz"), scale=255, out=tmp_path / "run", **settings)
    as_format_1(tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    content = json.loads(path.read_text())
    for name in ("scale", "channels", "missing", "label_column"):
        del content["config"][name]
    for name in ("low", "high", "channels_last", "has_missing"):
        del content["data"][name]
    path.write_text(json.dumps(content))
    assert pyro_vae.load(tmp_path / "run").evaluate(num_samples=2)["num_data"] == 6
    assert len(pyro_vae.resume(tmp_path / "run", epochs=2, display=False).history) == 2


def test_a_way_to_read_is_refused_where_nothing_is_read():
    for settings in ({"scale": 3}, {"channels": "last"}, {"label_column": "kind"}):
        with pytest.raises(InputError, match=r"for --.*; got digits, which says it itself; leave out --"):
            pyro_vae.fit("vae", data="digits", **(SETTINGS | {"labels": "none"} | settings))


def test_bad_data_leave_nothing_behind(command, tmp_path):
    for number, (arrays, message) in enumerate(
        [
            ({"x": X, "y": np.full(60, -1)}, "a label in y of bad.npz; got none"),
            ({"x": np.where(X > 0.5, np.nan, X)}, "use --missing mask"),
            ({"x": (X * 9).astype(int)}, "use --scale 8 or --scale 255"),
            ({"x": X[:, :3, :3, None].repeat(3, -1)}, "use --channels first or --channels last"),
        ]
    ):
        np.savez(tmp_path / "bad.npz", **arrays)
        found = command("fit", "--model", "ss_vae", "--data", "bad.npz", "--out", f"run{number}")
        assert found.exit_code == 2
        assert message in found.stderr
        assert found.stderr.count("\n") == 1
        assert not (tmp_path / f"run{number}").exists()
