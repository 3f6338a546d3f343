from __future__ import annotations

import pytest

from pyro_vae.errors import InputError
from pyro_vae.training import Constant, Cyclical, Linear, parse_schedule


def test_constant():
    schedule = parse_schedule("4")
    assert schedule == Constant(4.0) == parse_schedule(4)
    assert [schedule.at(epoch) for epoch in (0, 3.5, 100)] == [4, 4, 4]


def test_linear_arrives_when_it_says():
    schedule = parse_schedule("linear:0:2:10")
    assert schedule == Linear(0, 2, 10)
    assert [schedule.at(epoch) for epoch in (0, 2.5, 5, 10, 11)] == [0, 0.5, 1, 2, 2]
    assert (schedule.final, schedule.length) == (2, 10)


def test_linear_over_no_epochs_is_its_end():
    assert parse_schedule("linear:0:1:0").at(0) == 1


@pytest.mark.parametrize(
    "text", ["", "four", "linear", "linear:0:1", "linear:0:1:2:3", "linear:a:1:2", "line:0:1:2", "-1", "nan", "inf",
             "linear:-1:1:5", "linear:0:inf:5", "linear:0:1:-5"]
)  # fmt: skip
def test_what_is_no_schedule_is_refused(text):
    with pytest.raises(InputError, match=r"expected a .*; got .*; try --beta"):
        parse_schedule(text)


def test_cyclical_rises_for_half_a_cycle():
    schedule = parse_schedule("cyclical:0:2:40:4")
    assert schedule == Cyclical(0, 2, 40, 4)
    assert [schedule.at(epoch) for epoch in (0, 2.5, 5, 9.9, 10, 12.5, 39, 40, 41)] == [0, 1, 2, 2, 0, 1, 2, 2, 2]
    assert (schedule.final, schedule.length) == (2, 40)
    with pytest.raises(InputError, match=r"a whole number of cycles, at least 1; got 1.5; try --beta cyclical"):
        parse_schedule("cyclical:0:1:40:1.5")
