"""Measurements that are kept: measured once for the same settings, also by another process."""

from __future__ import annotations

from benchmarks.kept import Kept, markdown, spread


def test_what_was_measured_is_not_measured_again(tmp_path):
    path, calls = tmp_path / "new" / "found.jsonl", []

    def measure():
        calls.append(1)
        return {"mig": 0.25, "known": [[0.5, 0.1]]}

    kept = Kept(path)
    first = kept({"beta": 4.0, "seed": 0}, measure)
    assert Kept(path)({"seed": 0, "beta": 4.0}, measure) == first
    assert len(calls) == 1
    Kept(path)({"beta": 6.0, "seed": 0}, measure)
    assert len(calls) == len(path.read_text().splitlines()) == 2


def test_nothing_is_written_unasked():
    assert Kept(None)({"seed": 0}, lambda: {"mig": 1.0}) == {"mig": 1.0}


def test_a_table_of_means_and_spreads():
    assert spread([1.0, 2.0], 2) == "1.50 ± 0.71"
    assert spread([1.0], 1) == "1.0"
    assert markdown(("a", "b"), [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
