"""The table of headline figures: its commands, what it says, and a quick run of all its rows."""

from __future__ import annotations

import json
import re
import shlex

import pytest
from click.testing import CliRunner

import pyro_vae
from benchmarks.headlines import ROWS, Measured, Row, kept_or_measured, main, measure, table
from pyro_vae.config import FitConfig
from pyro_vae.errors import InputError
from pyro_vae.runs.assembly import check_names


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("name", ROWS)
def test_the_command_is_what_is_measured(name, quick):
    """Read back, its flags are the settings; every part that they name is there."""
    row = ROWS[name].quick() if quick else ROWS[name]
    words = shlex.split(row.command(3, "out").split(" && ")[0])[3:]
    flags = {flag[2:].replace("-", "_"): value for flag, value in zip(words[::2], words[1::2], strict=True)}
    assert (flags.pop("out"), flags["seed"]) == ("out", "3")
    config = FitConfig.from_settings(**flags)
    assert config == FitConfig.from_settings(**row.settings, seed=3)
    check_names(config, config.model, config.guide)
    assert row.command(3, "out").endswith(f"evaluate out --samples {row.num_samples}")


def test_the_table_holds_means_and_spreads():
    rows = {"a": Row("thing", "error_percent", "2.00 (who)", {}), "b": Row("other", "nll", "3.00", {})}
    found = {
        "a": [Measured("one", 1.0, -90.0, 3600.0, "here"), Measured("two", 2.0, -92.0, 7200.0, "here")],
        "b": [Measured("three", 80.0, -85.0, None, "there")],
    }
    first, second = table(found, rows).splitlines()[2:4]
    assert first == "| `a` | thing | test error, % | 1.50 ± 0.71 | 2 | -91.00 | 1.50 | 2.00 (who) |"
    assert second == "| `b` | other | NLL, 5000 samples | 80.00 | 1 | -85.00 | in parts | 3.00 |"
    assert table(found, rows).splitlines()[5:7] == ["here", "there"]


def test_what_was_measured_is_kept_and_another_command_measures_again(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(
        "benchmarks.headlines.measure",
        lambda row, seed, path: calls.append(1) or Measured(row.command(seed, str(path)), 1.0, -1.0, 2.0),
    )
    row = Row("thing", "nll", "1", {"model": "vae"})
    first = kept_or_measured(row, 0, tmp_path / "a-0")
    assert kept_or_measured(row, 0, tmp_path / "a-0") == first
    assert len(calls) == 1
    assert json.loads((tmp_path / "a-0.json").read_text())["figure"] == 1.0
    kept_or_measured(Row("thing", "nll", "1", {"model": "hvae"}), 0, tmp_path / "a-0")
    assert len(calls) == 2


def test_nothing_is_measured_unasked(tmp_path):
    result = CliRunner().invoke(main, ["--out", str(tmp_path)])
    assert result.exit_code == 2
    assert "name a row, such as vae-mlp, or use --quick or --list" in result.output
    listed = CliRunner().invoke(main, ["--list", "--quick", "--out", str(tmp_path)])
    assert listed.output.count("python cli.py fit") == len(ROWS)
    assert not any(tmp_path.iterdir())


def test_a_run_of_other_settings_is_not_taken_for_the_row_and_a_whole_one_is_measured(tmp_path):
    settings = {"model": "vae", "data": "toy", "epochs": 2, "latent_dim": 2, "batch_size": 500, "hidden": (8,)}
    pyro_vae.fit(**settings | {"epochs": 1}, out=tmp_path / "a-0", display=False)
    with pytest.raises(InputError, match=r"a run of this row at .*a-0; got one with another epochs; use another --out"):
        measure(Row("thing", "nll", "1", settings), 0, tmp_path / "a-0")
    found = measure(Row("thing", "nll", "1", settings | {"epochs": 1}, num_samples=2), 0, tmp_path / "a-0")
    assert found.seconds is None
    assert found.figure > 0


@pytest.mark.exhaustive
def test_every_row_runs_quickly(tmp_path):
    result = CliRunner().invoke(main, ["--quick", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    last = result.output.split("| row |")[-1]
    assert set(re.findall(r"^\| `([\w-]+)`", last, re.MULTILINE)) == set(ROWS)
    assert len(list(tmp_path.glob("*.json"))) == len(ROWS)
