from __future__ import annotations

import numpy as np
import pytest
import torch

import pyro_vae
from pyro_vae.diagnostics.findings import judge_classifier, judge_curve, judge_latents
from pyro_vae.diagnostics.latent_units import LatentUse, SiteUse

RISING = [-200.0, -150.0, -120.0, -110.0, -105.0, -100.0, -95.0, -90.0, -85.0, -80.0]
LEVEL = [-200.0, -120.0, -100.0, *[-99.0] * 7]
FALLEN = [-200.0, -120.0, -100.0, -101.0, -102.0, -103.0, -104.0, -105.0, -106.0, -107.0]


def kinds(findings):
    return [finding.kind for finding in findings]


@pytest.mark.parametrize(
    ("scores", "expected"), [(RISING, ["still rising"]), (LEVEL, []), (FALLEN, ["overfitting"]), ([-5.0], []), ([], [])]
)
def test_curves(scores, expected):
    assert kinds(judge_curve(scores, warm_up=0, stopped_early=False)) == expected


def test_a_run_that_stopped_early_rises_no_more():
    assert not judge_curve(RISING, warm_up=0, stopped_early=True)


def test_the_epoch_and_the_mend_are_named():
    (fallen,) = judge_curve(FALLEN, warm_up=0, stopped_early=False)
    assert "best after epoch 3 of 10 and fell by 7.00 nats" in fallen.found
    assert "epoch 3 are kept" in fallen.mend
    (fallen,) = judge_curve(FALLEN, warm_up=0, stopped_early=False, keeps_last=True)
    assert "those of the last one are kept" in fallen.mend
    (rising,) = judge_curve(RISING, warm_up=0, stopped_early=False)
    assert "by 10.00 nats over the last 2 epochs" in rising.found
    assert rising.mend == "train longer: --epochs 20"
    (rising,) = judge_curve([-9.0, -5.0, -3.0], warm_up=0, stopped_early=False)
    assert "by 2.00 nats over the last epoch" in rising.found


def test_the_best_epoch_is_one_after_the_warm_up():
    scores = [-200.0, -90.0, -100.0, -99.0, -99.0]
    assert kinds(judge_curve(scores, warm_up=0, stopped_early=False)) == ["overfitting"]
    assert not judge_curve(scores, warm_up=3, stopped_early=False)


def classifier(right: float, confidence: float, num_data: int = 2000):
    labels = torch.zeros(num_data, dtype=torch.int64)
    guess = (torch.arange(num_data) >= right * num_data).long()
    probabilities = torch.full((num_data, 2), 1 - confidence)
    probabilities[torch.arange(num_data), guess] = confidence
    return probabilities, labels


@pytest.mark.parametrize(
    ("right", "confidence", "expected"),
    [
        (0.9, 0.9, []),
        (0.6, 0.62, ["unsure classifier"]),
        (0.7, 0.99, ["miscalibrated classifier"]),
        (0.99, 0.7, ["unsure classifier", "miscalibrated classifier"]),
    ],
)
def test_classifiers(right, confidence, expected):
    assert kinds(judge_classifier(*classifier(right, confidence))) == expected


def test_which_way_a_classifier_errs_is_said():
    assert "too sure" in judge_classifier(*classifier(0.7, 0.99))[0].found
    assert "too doubtful" in judge_classifier(*classifier(0.99, 0.7))[1].found


def test_few_data_are_no_ground_for_a_verdict():
    """Ten data of a calibrated classifier: an error of 0.2 is what chance makes."""
    assert not judge_classifier(*classifier(0.7, 0.9, num_data=10))


def test_a_site_that_carries_nothing_is_named():
    idle = SiteUse("z", 0.001, 0.0, torch.zeros(8), None, adds_up=False)
    busy = SiteUse("u", 5.0, 0.0, torch.ones(8), None, adds_up=False)
    (finding,) = judge_latents(LatentUse((idle, busy), {}, 10))
    assert "0 of the 8 units of 'z' are active" in finding.found
    assert "warm up beta" in finding.mend


def test_a_run_says_what_was_found_and_writes_it_down(tmp_path, capsys):
    x = np.random.default_rng(0).uniform(size=(60, 9)).astype(np.float32)  # noise: there is nothing to carry
    run = pyro_vae.fit("vae", data=x, labels="none", epochs=3, hidden=(8,), latent_dim=2, out=tmp_path / "run")
    assert "collapse" in kinds(run.findings)
    said = capsys.readouterr().err
    assert all(f"Note: {finding}" in said for finding in run.findings)
    written = pyro_vae.load(run.path).folder.evaluation["findings"]
    assert [entry["kind"] for entry in written] == kinds(run.findings)


def test_silence_means_that_nothing_was_found(toy_arrays, capsys):
    settings = {"labels": "none", "hidden": (32,), "latent_dim": 2, "epochs": 150, "lr": 1e-2, "beta": 1}
    run = pyro_vae.fit("vae", data=np.tile(toy_arrays[0], (10, 1, 1)), **settings)
    assert not run.findings
    assert "Note:" not in capsys.readouterr().err
