"""Reliability and confusion of classifiers, by hand and on labels drawn from the stated probabilities."""

import math

import pytest
import torch

from pyro_vae.diagnostics.classifier import confusion_matrix, expected_calibration_error, reliability
from pyro_vae.errors import InputError

ROWS = [[0.9, 0.1], [0.8, 0.2], [0.15, 0.85], [0.6, 0.4], [0.55, 0.45]]
PROBABILITIES = torch.tensor(ROWS, dtype=torch.float64)
LABELS = torch.tensor([0, 1, 1, 0, 1])


def test_the_curve_by_hand():
    curve = reliability(PROBABILITIES, LABELS, num_bins=5)  # edges 0, 0.2, …, 1; 0.8 and 0.6 close their bins
    assert curve.count.tolist() == [0, 0, 2, 1, 2]
    assert torch.allclose(curve.confidence[2:], torch.tensor([0.575, 0.8, 0.875]).double())
    assert torch.allclose(curve.accuracy[2:], torch.tensor([0.5, 0.0, 1.0]).double())
    assert curve.confidence[:2].isnan().all()
    assert curve.expected_error == pytest.approx((2 * 0.075 + 0.8 + 2 * 0.125) / 5)
    assert curve.largest_error == pytest.approx(0.8)
    assert [row["count"] for row in curve.as_dict()["bins"]] == [2, 1, 2]
    assert torch.allclose(curve.edges, torch.tensor([0, 0.2, 0.4, 0.6, 0.8, 1.0]).double())


def test_the_curve_gives_the_calibration_error():
    torch.manual_seed(1)
    probabilities, labels = torch.randn(500, 4).softmax(-1), torch.randint(4, (500,))
    curve = reliability(probabilities, labels)
    assert curve.count.sum() == 500
    assert curve.expected_error == pytest.approx(expected_calibration_error(probabilities, labels))


def test_a_calibrated_classifier_lies_on_the_diagonal():
    """Each of at most 15 bins within 5 binomial errors; missed in about one of 10^5 runs."""
    torch.manual_seed(1)
    probabilities = (2 * torch.randn(20_000, 4)).softmax(-1)
    curve = reliability(probabilities, torch.multinomial(probabilities, 1).squeeze(-1))
    full = curve.count > 50
    assert ((curve.accuracy - curve.confidence).abs() < 5 * curve.error)[full].all()
    sharp = (2 * probabilities.log()).softmax(-1)
    too_sure = reliability(sharp, torch.multinomial(probabilities, 1).squeeze(-1))
    assert (too_sure.accuracy < too_sure.confidence - 5 * too_sure.error)[-3:].all()


def test_confusion_by_hand():
    found = confusion_matrix(torch.cat([PROBABILITIES, torch.zeros(5, 1)], -1), LABELS)
    assert found.tolist() == [[2, 0, 0], [2, 1, 0], [0, 0, 0]]


def test_labels_that_do_not_fit_are_refused():
    for labels in (LABELS[:4], LABELS.unsqueeze(-1)):
        with pytest.raises(InputError, match="give a label for each row"):
            reliability(PROBABILITIES, labels)
    with pytest.raises(InputError, match="N at least 1"):
        confusion_matrix(PROBABILITIES[:0], LABELS[:0])
    with pytest.raises(InputError, match="at least one bin; got 0"):
        reliability(PROBABILITIES, LABELS, 0)
    assert math.isfinite(reliability(PROBABILITIES[:1], LABELS[:1]).expected_error)
