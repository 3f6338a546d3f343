"""A few generated command lines and mutated files, and those that were once found to be wrong."""

from __future__ import annotations

import contextlib
import io
import os
import zipfile

import numpy as np
import pytest

from pyro_vae.arviz_bridge import open_posterior
from pyro_vae.errors import InputError
from tests.fuzzing import commands
from tests.fuzzing.__main__ import Findings, command_lines, folder, mutated_files


@pytest.fixture(scope="module")
def place():
    with folder() as place:
        yield place


@pytest.fixture(scope="module")
def found(place) -> Findings:
    return Findings(place)


def test_some_command_lines_and_files(place):
    assert command_lines(place, 8, seed=1).faults == []
    assert mutated_files(place, 12, seed=1).faults == []


@pytest.mark.exhaustive
def test_more_command_lines_and_files(place):
    assert command_lines(place, 30, seed=2).faults == []
    assert mutated_files(place, 100, seed=2).faults == []


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_all_command_lines_and_files(place):
    assert command_lines(place, 2000, seed=3).faults == []
    assert mutated_files(place, 5000, seed=3).faults == []


def test_a_fault_is_found_out(found, monkeypatch):
    """The net under all commands says so, and a fuzzer that does not hear it would find nothing."""
    from pyro_vae.runs.folder import RunFolder

    def fail(path):
        raise KeyError("nobody thought of this")

    monkeypatch.setattr(RunFolder, "open", fail)
    found.run(["info", "run"])
    assert "unforeseen, KeyError: 'nobody thought of this'" in found.faults.pop()


def bomb() -> bytes:
    """An archive whose array of a terabyte is a few bytes."""
    content = io.BytesIO()
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**11,)})
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("x.npy", header.getvalue())
    return content.getvalue()


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(exploded) (w) file closefile\n"
CORPUS = {
    "an array that is larger than its file": ("toy.npz", bomb(), ["fit", "--data", "toy.npz"], "is larger than its"),
    "a table of nothing": ("toy.csv", b"\n", ["fit", "--data", "toy.csv"], "expected a table in toy.csv"),
    "JSON without end": ("run/config.json", b"[" * 100_000, ["info", "run"], "lists or objects in each other"),
    "JSON that is deep": ("run/config.json", b"[" * 60 + b"]" * 60, ["info", "run"], "more than 50 deep"),
    "another kind of JSON": ("run/evaluation.json", b'{"findings": 3}', ["info", "run"], "got not an evaluation"),
    "a frame that starts programs": (
        "run/frames/0001.png",
        POSTSCRIPT,
        ["animate", "run"],
        "a frame that fit wrote",
    ),
    "a setting that is there twice": (
        "toy.json",
        b'{"epochs": 3, "seed": 1, "epochs": 4}',
        ["fit", "--config", "toy.json"],
        "the name 'epochs' twice",
    ),
    "settings that are a list": (
        "toy.json",
        b"[1]",
        ["fit", "--config", "toy.json"],
        "a JSON object in toy.json",
    ),
}


@pytest.mark.parametrize("name", CORPUS)
def test_what_was_once_wrong(name, found):
    path, content, words, said = CORPUS[name]
    found.restore()
    (found.place / path).write_bytes(content)
    result = commands.run([*words, "--out", "new"] if words[0] == "fit" else words)
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert commands.fault(result, set(), found.place) == ""


def test_a_pipe_is_not_waited_for(found):
    found.restore()
    for name, words in (("toy.npz", ["fit", "--data", "toy.npz"]), ("run/config.json", ["evaluate", "run"])):
        (found.place / name).unlink()
        os.mkfifo(found.place / name)
        result = commands.run(words)
        assert result.exit_code == 2, result.output
        (found.place / name).unlink()
    found.restore()


def test_a_posterior_that_is_damaged_anywhere_is_refused_in_words(place):
    whole = (place / "posterior.nc").read_bytes()
    for at in range(0, len(whole), max(1, len(whole) // 9)):
        damaged = bytearray(whole)
        damaged[at] ^= 255
        (place / "damaged.nc").write_bytes(damaged)
        with contextlib.suppress(InputError):  # and nothing else
            open_posterior(place / "damaged.nc")
    (place / "damaged.nc").unlink()
