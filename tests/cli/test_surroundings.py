"""What surrounds a command: streams that are full or closed, places that cannot be written, text that is only text."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pyro_vae.cli import terminal
from pyro_vae.runs import report
from pyro_vae.runs.display import Bar
from pyro_vae.runs.folder import RunFolder
from pyro_vae.runs.history_file import mark_of
from tests.cli.test_commands import assert_refused
from tests.conftest import FLAGS
from tests.runs.checkpoint_files import change_weights

ROOT = Path(__file__).parents[2]


def shell(line: str, cwd: Path) -> subprocess.CompletedProcess:
    words = os.environ | {"PYTHONPATH": str(ROOT), "RUN": f"{sys.executable} {ROOT / 'cli.py'}"}
    return subprocess.run(["bash", "-c", line], cwd=cwd, env=words, capture_output=True, text=True)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        ("$RUN info run > /dev/full", 1, "the system says: No space left on device; mend that and try again"),
        ("$RUN info run 2> /dev/full > /dev/full", 1, ""),
        ("$RUN info run >&-", 0, ""),
        ("$RUN info run <&- >&- 2>&-", 0, ""),
        ("$RUN info run | true; exit ${PIPESTATUS[0]}", 1, ""),
        ("env -u HOME -u USER -u LOGNAME $RUN info run > /dev/null", 0, ""),
        ("$RUN info $'no\\xff'", 2, "expected a run directory at no\\xdcff; got no such folder"),
    ],
)
def test_streams_and_names(line, status, said, fitted, tmp_path):
    done = shell(line, tmp_path)
    assert done.returncode == status, done.stderr
    assert done.stderr.startswith("Error: ") == bool(said)
    assert said in done.stderr
    assert done.stderr.count("\n") == bool(said)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a\nb\x1b[31m", "expected a run directory at a\\x0ab\\x1b[31m; got no such folder"),
        ("n" * 300, "the system says: File name too long"),
    ],
)
def test_names_of_any_text(name, said, command):
    assert_refused(command("info", name), said)


@pytest.mark.exhaustive
def test_a_run_ends_well_with_nobody_listening(toy_npz, tmp_path):
    flags = " ".join(map(str, FLAGS))
    done = shell(f"$RUN fit --data {toy_npz} {flags} --out run > /dev/null 2> /dev/full", tmp_path)
    assert done.returncode == 0
    assert len(RunFolder.open(tmp_path / "run").history) == 2


def test_an_evaluation_that_cannot_be_saved_is_printed_all_the_same(command, fitted, monkeypatch):
    def full(self, figures, findings):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(RunFolder, "save_evaluation", full)
    done = command("evaluate", fitted, "--samples", 2, "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["num_samples"] == 2
    assert done.stderr.splitlines()[-1] == f"The evaluation is not saved in {fitted}: No space left on device"


def test_the_evaluation_that_is_printed_is_that_of_the_run_and_not_one_that_lay_there(command, fitted, monkeypatch):
    """A resumed run whose evaluation cannot be written shows it, and not that of the epochs before."""
    path = fitted / "evaluation.json"
    before = json.loads(path.read_text())
    path.unlink()
    (path / "in the way").mkdir(parents=True)
    done = command("fit", "--resume", fitted, "--epochs", 3, "--json")
    assert done.exit_code == 0, done.output
    assert "The evaluation is left out: Is a directory" in done.stderr
    found = json.loads(done.stdout)
    assert found["epochs"] == 3
    assert found["nll"] != before["nll"]


def test_a_loop_of_links_is_no_data(command, tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    assert_refused(command("fit", "--data", "loop", "--out", "new"), "expected a known data set, a file of arrays")


def test_figures_that_fail_cost_a_run_nothing(command, toy_npz, monkeypatch):
    def fail(*arguments, **options):
        raise ValueError("no picture today")

    monkeypatch.setattr(report, "elbo_curves", fail)
    monkeypatch.setattr(report, "image_grid", fail)
    done = command("fit", "--data", toy_npz, *FLAGS, "--out", "run", "--labels", "none")
    assert done.exit_code == 0, done.output
    assert "The figure elbo.png is left out: no picture today" in done.stderr
    assert "The figure samples.png is left out: no picture today" in done.stderr
    assert Path("run/figures/reconstructions.png").exists()
    assert Path("run/evaluation.json").exists()


def _cells(row: str) -> list[str]:
    return row.split(",")


def _number(cell: str) -> float:
    return int(cell) if cell.isdigit() else float(cell or "nan")


def test_a_validation_that_is_no_number_does_not_break_info(command, fitted):
    def poison(weights):
        next(value for name, value in weights.items() if "decoder" in name)[...] = float("nan")

    change_weights(fitted, poison)
    history = fitted / "history.csv"
    names, *rows = history.read_text().splitlines()
    place = names.split(",").index("validation_elbo")
    cells = [row.split(",") for row in rows]
    emptied = [",".join([*each[:place], "", *each[place + 1 :]]) for each in cells]
    history.write_text("\n".join([names, *emptied]) + "\n")
    pointer = fitted / "checkpoints/current.json"
    content = json.loads(pointer.read_text())
    mark = mark_of([dict(zip(names.split(","), map(_number, each), strict=True)) for each in map(_cells, emptied)])
    pointer.write_text(json.dumps(content | {"history": vars(mark)}))
    done = command("info", "run")
    assert done.exit_code == 0, done.output
    json.loads(command("info", "run", "--json").stdout, parse_constant=pytest.fail)
    done = command("evaluate", "run", "--samples", 2, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout, parse_constant=pytest.fail)["elbo"] is None


HOSTILE = r"[red]$\frac{[/red]$[link=file:///etc/passwd]"


def test_text_of_files_is_never_markup(command, tmp_path):
    """Classes, paths and findings as a hostile file may name them: shown as they are, in tables and in figures."""
    x = np.random.default_rng(0).uniform(size=(60, 6, 6)).astype(np.float32)
    np.savez("[bold]x.npz", x=x, y=np.array([HOSTILE, "$x$", "\x1b[31mred"] * 20))
    done = command("fit", "--model", "ss_vae", "--data", "[bold]x.npz", *FLAGS, "--out", "[i]run")
    assert done.exit_code == 0, done.output
    assert "left out" not in done.stderr
    path = tmp_path / "[i]run/evaluation.json"
    content = json.loads(path.read_text()) | {"model": "\x1b[31m[red]", "kl": "[/red]"}
    finding = {"kind": "k", "found": "\x1b]0;title\x07[red]", "mend": "m"}
    path.write_text(json.dumps(content | {"findings": [finding]}))
    done = command("info", "[i]run")
    assert done.exit_code == 0, done.output
    for word in ("[i]run", "[bold]x.npz", "[/red]", r"Note: \x1b]0;title\x07[red]; m"):
        assert word in done.stdout
    assert "\x1b" not in done.stdout
    path.write_text(json.dumps(content | {"findings": [{"found": ["deep"]}]}))
    assert_refused(
        command("info", "[i]run"), "expected a file that fit wrote at [i]run/evaluation.json; got not an evaluation"
    )


def test_a_bar_says_lines_as_they_are(capsys):
    Bar().say("[red]a line[/red] of [run]")
    assert capsys.readouterr().err == "[red]a line[/red] of [run]\n"


def test_seeds_at_their_limits(command, fitted, toy_npz):
    for seed in (2**64, 2**63, 2**62 + 1):
        assert_refused(command("fit", "--data", toy_npz, "--seed", seed, "--out", "new"), "expected seed to be at most")
        assert_refused(command("sample", "run", "--seed", seed), "is not in the range 0<=x<=4611686018427387904")
    assert command("sample", "run", "--seed", 2**62, "--num", 2).exit_code == 0
    assert command("fit", "--data", toy_npz, *FLAGS, "--seed", 2**62, "--out", "new").exit_code == 0


def test_the_home_folder_is_found_in_a_path(command, fitted, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert command("info", "~/run").exit_code == 0
    assert_refused(command("info", "~nobody-of-that-name/run"), "~nobody-of-that-name/run")


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (MemoryError(), 1, "there is not enough memory for that"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            1,
            "not enough memory",
        ),
        (ImportError("libx.so: failed to map segment from shared object"), 1, "memory to load what is needed: libx.so"),
        (OverflowError("int too large to convert"), 1, "a number is too large: int too large to convert"),
        (KeyError("x"), 1, "unforeseen, KeyError: 'x'; PYRO_VAE_TRACEBACK=1 shows where"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "run/x"), 1, "the system says: Disk quota exceeded (run/x)"),
        (OSError(errno.ELOOP, "Too many levels of symbolic links", "a"), 2, "Too many levels of symbolic links (a)"),
    ],
)
def test_whatever_happens_is_one_line(error, status, said, command, monkeypatch):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(RunFolder, "open", fail)
    done = command("info", "run")
    assert (done.exit_code, done.stdout) == (status, "")
    assert done.stderr.startswith("Error: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    monkeypatch.setenv("PYRO_VAE_TRACEBACK", "1")
    assert (command("info", "run").exception is error) == (not isinstance(error, OSError))


def test_a_python_without_docstrings_is_refused_in_words():
    done = subprocess.run([sys.executable, "-OO", "cli.py", "info", "run"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: expected Python as it is, or with -O; got -OO or PYTHONOPTIMIZE=2")
    assert done.stderr.count("\n") == 1


def test_a_current_folder_that_is_gone_is_refused_in_words(command, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    try:
        done = command("info", tmp_path / "run")
    finally:
        os.chdir(tmp_path)
    assert_refused(done, "expected a current folder; got one that was removed or may not be entered; cd to another")


def test_missing_streams_are_opened_to_nowhere():
    script = "import os; os.close(0); os.close(1); from pyro_vae.cli import streams; streams.open_missing_streams()\n"
    script += "import sys; assert os.open('.', os.O_RDONLY) > 2"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0
    assert terminal.STOPPED == 130


def test_a_diagnosis_that_cannot_be_saved_is_printed_all_the_same(command, fitted, monkeypatch):
    def full(self, findings):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(RunFolder, "save_diagnosis", full)
    words = ["--num-data", 6, "--samples", 9, "--simulated", 0, "--split-gap", 0, "--check", "latents"]
    done = command("diagnose", fitted, *words, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["files"] == []
    assert f"The diagnosis is not saved in {fitted}: No space left on device" in done.stderr


@pytest.mark.parametrize("words", [("-v", "fit"), pytest.param(("fit", "--verbose"), marks=pytest.mark.exhaustive)])
def test_verbose_says_more_on_standard_error_alone(command, toy_npz, words):
    quiet = command("fit", "--data", toy_npz, *FLAGS, "--out", "quiet", "--json")
    loud = command(*words, "--data", toy_npz, *FLAGS, "--out", "loud", "--json")
    assert loud.exit_code == 0, loud.stderr
    for word in (
        "toy.npz: rows of shape (1, 6, 6), in ",
        "settings: {",
        "epoch 1: ",
        "drew elbo.png in ",
    ):
        assert word in loud.stderr
        assert word not in quiet.stderr
    assert json.loads(loud.stdout)["elbo"] == json.loads(quiet.stdout)["elbo"]
    logger = logging.getLogger("pyro_vae")
    assert (logger.level, logger.handlers) == (logging.NOTSET, [])


def test_no_color_is_heeded(command, monkeypatch):
    """``rich`` and ``click`` look at NO_COLOR themselves; what is bold or red without it is plain with it."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    colors = re.findall(r"\x1b\[([0-9;]*)m", command("list", "guides").output)
    assert not [code for code in colors if {int(c) for c in code.split(";") if c} & {*range(30, 50), *range(90, 108)}]
