"""The benchmark of the time to a bound: when it is reached, what a row says, and a quick run."""

from __future__ import annotations

import re

import pytest
from click.testing import CliRunner

from benchmarks.time_to_quality import CONTENDERS, images, main, reached, row

EXAMPLE = {"bounds": [-110.0, -101.0, -100.0], "seconds": [20.0, 40.0, 60.0]}
FASTER = {"bounds": [-105.0, -99.0, -100.5], "seconds": [5.0, 15.0, 25.0]}
NEVER = {"bounds": [-120.0], "seconds": [5.0]}


def test_a_bound_is_reached_at_the_first_epoch_that_has_it():
    assert reached(EXAMPLE, -100.0) == 60.0
    assert reached(FASTER, -100.0) == 15.0
    assert reached(NEVER, -100.0) is None


def test_a_row_tells_the_ratio_and_how_often_the_bound_was_never_reached():
    assert row("faster", [FASTER], [EXAMPLE])[-2:] == ["15", "0.25"]
    assert row("mixed", [FASTER, NEVER], [EXAMPLE, EXAMPLE])[-2:] == ["15 (1 never)", "0.25"]
    assert row("never", [NEVER], [EXAMPLE])[-2:] == ["- (1 never)", "-"]


def test_all_watch_the_same_binary_pixels():
    dataset = images("digits")
    assert set(dataset.validation.values().unique().tolist()) == {0.0, 1.0}
    assert dataset.validation.values().equal(dataset.test.values())
    assert len(dataset.train) == 1797 - len(dataset.test)


@pytest.mark.exhaustive
def test_a_quick_run(tmp_path):
    out = tmp_path / "found.jsonl"
    result = CliRunner().invoke(main, ["--quick", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert re.findall(r"^\| (.+?) \|", result.output, re.MULTILINE)[2:] == list(CONTENDERS)
    assert CliRunner().invoke(main, ["--quick", "--out", str(out)]).output == result.output  # nothing measured again
