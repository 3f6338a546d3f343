from __future__ import annotations

import pytest

from pyro_vae.config import FitConfig
from pyro_vae.training.automatic import settle


@pytest.mark.parametrize(
    ("num_steps", "enumerated", "epochs"),
    [
        (12, False, 250),  # 3,000 steps, of a small set
        (1, True, 800),
        (12, True, 80),
        (100, True, 80),
        (550, False, 73),  # 40,000 steps, of a large one
        (550, True, 18),  # 10,000 of them where each sums over labels
        (100_000, False, 1),
    ],
)
def test_the_length_of_training_is_its_number_of_steps(num_steps, enumerated, epochs):
    assert settle(FitConfig(), num_steps, enumerated).num_epochs == epochs


def test_warm_up_and_patience_are_a_quarter():
    settled = settle(FitConfig(epochs=40), 10, enumerated=False)
    assert (settled.epochs, settled.beta, settled.patience) == (40, "linear:0:1:10", 10)
    short = settle(FitConfig(epochs=1), 10, enumerated=False)
    assert (short.beta, short.patience) == (1.0, 5)


def test_what_is_said_is_kept_and_settling_again_changes_nothing():
    said = FitConfig(epochs=7, beta=0.5, patience="none")
    assert settle(said, 1000, enumerated=True) == said
    once = settle(FitConfig(), 30, enumerated=False)
    assert settle(once, 99, enumerated=True) == once


def test_configurations_from_before_load():
    assert FitConfig.from_settings(epochs=80, beta=1.0, patience=None).patience == "none"
