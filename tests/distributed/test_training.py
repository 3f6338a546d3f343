"""Two processes that train together, against one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import pyro_vae
from pyro_vae.runs.folder import RunFolder
from tests.distributed import mapped_worker
from tests.distributed.worker import APART, EXACT, traced

ROOT = Path(__file__).parents[2]
FIT = ["-m", "pyro_vae", "fit", "--data", "toy", "--labels", "none", "--hidden", "16", "--latent-dim", "3"]


def torchrun(*words: object, cwd: Path, options: tuple[str, ...] = ()) -> subprocess.Popen:
    variables = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *options]
    return subprocess.Popen([*run, *map(str, words)], cwd=cwd, env=variables, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen) -> str:
    """What it said."""
    return process.communicate(timeout=100)[1]


def errors(said: str) -> list[str]:
    """The lines of ours, of what a command under ``torchrun`` said."""
    return [line for line in said.splitlines() if line.startswith("Error: ")]


def both(names: list[str], folder: Path) -> list[dict]:
    said = ended(torchrun("-m", "tests.distributed.worker", folder / "found", *names, cwd=ROOT))
    assert (folder / "found.0").exists(), said
    return [json.loads((folder / f"found.{rank}").read_text()) for rank in range(2)]


def assert_same(found: dict, alone: dict) -> None:
    assert found["losses"][:50] == pytest.approx(alone["losses"][:50], rel=1e-5)
    for name, values in alone["history"].items():
        assert found["history"][name] == pytest.approx(values, rel=1e-3), name


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_two_processes_have_the_losses_of_one(tmp_path, monkeypatch):
    """This process is the first of the two, so that there is only one more to be started."""
    alone = traced(EXACT["an odd batch"])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    other = subprocess.Popen(
        [sys.executable, "-m", "tests.distributed.worker", tmp_path / "found", "an odd batch"],
        cwd=ROOT,
        env=os.environ | place | {"RANK": "1"},
    )
    for name, value in (place | {"RANK": "0"}).items():
        monkeypatch.setenv(name, value)
    try:
        first = traced(EXACT["an odd batch"])
    finally:
        torch.distributed.destroy_process_group()
        assert other.wait(timeout=60) == 0
    assert_same(first, alone)
    assert json.loads((tmp_path / "found.1").read_text())["an odd batch"] == first


@pytest.mark.exhaustive
def test_two_processes_read_their_own_rows_of_a_mapped_file(tmp_path, monkeypatch):
    x = np.random.default_rng(0).integers(0, 256, size=(400, 4, 4)).astype(np.uint8)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "x.labels.npy", np.where(np.arange(400) % 4, -1, x[:, 0, 0].astype(int) % 2))
    alone = mapped_worker.trained(tmp_path)
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    other = subprocess.Popen(
        [sys.executable, "-m", "tests.distributed.mapped_worker", tmp_path],
        cwd=ROOT,
        env=os.environ | place | {"RANK": "1"},
    )
    for name, value in (place | {"RANK": "0"}).items():
        monkeypatch.setenv(name, value)
    try:
        first = mapped_worker.trained(tmp_path)
        again = mapped_worker.resumed(tmp_path)
    finally:
        torch.distributed.destroy_process_group()
        assert other.wait(timeout=60) == 0
    second = json.loads((tmp_path / "found.1").read_text())
    for name, values in alone["history"].items():
        assert first["history"][name] == pytest.approx(values, rel=1e-4), name
    for found in (again, second["again"], second):
        assert found["history"] == first["history"]
        assert found["weights"] == first["weights"]
    assert [found["surveys"] for found in (alone, first, second)] == [1, 1, 0]  # one process reads the file whole
    for whole, parts in zip(alone["rows"], zip(first["rows"], second["rows"], strict=True), strict=True):
        for stream, (one, two) in zip(whole, zip(*parts, strict=True), strict=True):
            assert stream == one + two
            assert abs(len(one) - len(two)) <= 1


@pytest.mark.slow
def test_any_programs_have_the_losses_of_one_process(tmp_path):
    names = [name for name in EXACT if name != "an odd batch"]
    first, second = both([*names, *APART], tmp_path)
    for name in names:
        assert_same(first[name], traced(EXACT[name]))
    for name in APART:  # whose losses are others, and fall too
        assert first[name]["losses"] != pytest.approx(traced(APART[name])["losses"], rel=1e-5)
    assert first == second


def wait_for_epochs(run: Path, number: int) -> None:
    deadline = time.monotonic() + 60
    while not (run / "history.csv").exists() or (run / "history.csv").read_text().count("\n") <= number:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def child_of_rank(process: subprocess.Popen, rank: int) -> int:
    for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        if f"RANK={rank}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            return int(pid)
    raise AssertionError("it has no such child")


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return RunFolder.open(run).weights("last")


@pytest.mark.exhaustive
def test_a_process_that_is_killed_ends_the_others_and_the_run_resumes_to_the_bit(tmp_path):
    words = [*FIT, "--epochs", "20", "--patience", "none"]
    whole = torchrun(*words, "--out", "whole", cwd=tmp_path)
    said = ended(whole)
    assert whole.returncode == 0, said
    killed = torchrun(*words, "--out", "killed", cwd=tmp_path)
    wait_for_epochs(tmp_path / "killed", 3)
    os.kill(child_of_rank(killed, 1), signal.SIGKILL)
    begin = time.monotonic()
    said = ended(killed)
    assert killed.returncode == 1
    assert time.monotonic() - begin < 20
    assert len(errors(said)) == 1
    assert "Error: one of the 2 processes has ended or cannot be reached" in said
    assert "go on with --resume killed" in said
    resumed = torchrun("-m", "pyro_vae", "fit", "--resume", "killed", cwd=tmp_path)
    said = ended(resumed)
    assert resumed.returncode == 0, said
    first, second = weights_of(tmp_path / "whole"), weights_of(tmp_path / "killed")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (tmp_path / "whole/history.csv").read_text() == (tmp_path / "killed/history.csv").read_text()


@pytest.mark.slow
def test_processes_that_are_started_again_go_on_from_the_last_checkpoint(tmp_path):
    words, again = [*FIT, "--epochs", "40", "--patience", "none"], ("--max-restarts", "2")
    ended(torchrun(*words, "--out", "whole", cwd=tmp_path))
    killed = torchrun(*words, "--out", "killed", cwd=tmp_path, options=again)
    wait_for_epochs(tmp_path / "killed", 3)
    os.kill(child_of_rank(killed, 0), signal.SIGKILL)
    said = ended(killed)
    assert killed.returncode == 0, said
    first, second = weights_of(tmp_path / "whole"), weights_of(tmp_path / "killed")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert {path.name for path in tmp_path.iterdir()} == {"whole", "killed"}


@pytest.mark.slow
def test_ctrl_c_reaches_all_and_one_process_goes_on(tmp_path):
    process = torchrun(*FIT, "--epochs", "2000", "--compile", "off", "--patience", "none", "--out", "run", cwd=tmp_path)
    wait_for_epochs(tmp_path / "run", 3)
    process.send_signal(signal.SIGINT)
    said = ended(process)
    assert said.count("Stopped after") == 1
    assert "and saved; go on with: python cli.py fit --resume run" in said
    done = len(RunFolder.open(tmp_path / "run").history)
    command = [sys.executable, "-m", "pyro_vae", "fit", "--resume", "run", "--epochs", str(done + 1)]
    alone = subprocess.run(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)
    assert alone.returncode == 0
    assert len(RunFolder.open(tmp_path / "run").history) == done + 1


@pytest.mark.slow
def test_what_does_not_fit_is_said_in_one_line_by_one_process(tmp_path):
    said = ended(torchrun(*FIT, "--batch-size", "1", "--out", "run", cwd=tmp_path))
    assert len(errors(said)) == 1
    assert "Error: expected at most 1 process, one per row of a batch; got 2; use a larger --batch-size" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_processes_that_differ_are_refused(tmp_path):
    command = f"exec {sys.executable} {' '.join(FIT)} --epochs $((1 + RANK)) --out run"
    (tmp_path / "start").write_text(command)
    said = ended(torchrun("bash", tmp_path / "start", cwd=tmp_path, options=("--no-python",)))
    assert len(errors(said)) == 1
    assert "expected the same epochs in all 2 processes; got 1 in process 0 and 2 in process 1" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_process_whose_others_do_not_come_says_so(tmp_path):
    alone = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29533"}
    variables = os.environ | alone | {"PYTHONPATH": str(ROOT), "PYRO_VAE_MEETING": "1"}
    done = subprocess.run([sys.executable, *FIT], cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert done.returncode == 2
    assert "expected 2 processes that reach each other at 127.0.0.1:29533 within 1 s" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_an_evaluation_is_shared_and_said_once(tmp_path):
    fit = [sys.executable, *FIT, "--epochs", "3", "--out", "run"]
    subprocess.run(fit, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, capture_output=True)
    run = pyro_vae.load(tmp_path / "run")
    alone = run.evaluate(num_samples=500)
    said = ended(torchrun("-m", "pyro_vae", "evaluate", "run", "--samples", "500", cwd=tmp_path))
    found = run.folder.evaluation
    assert found["num_data"] == 200, said
    assert found["num_samples"] == 500
    for name in ("nll", "elbo", "kl", "log_likelihood"):
        assert found[name] == pytest.approx(alone[name], abs=0.05), name
    assert found["elbo"] != alone["elbo"]


@pytest.mark.slow
def test_running_statistics_and_their_averages_resume_to_the_bit(tmp_path):
    words = ["--network", "mlp:hidden=8,batch_norm=true,dropout=0.1", "--ema", "0.9", "--batch-size", "99"]
    fit = [*FIT[:-4], *words, "--latent-dim", "3", "--epochs", "40", "--patience", "none", "--compile", "off"]
    ended(torchrun(*fit, "--out", "whole", cwd=tmp_path))
    process = torchrun(*fit, "--out", "stopped", cwd=tmp_path)
    wait_for_epochs(tmp_path / "stopped", 3)
    process.send_signal(signal.SIGINT)
    ended(process)
    ended(torchrun("-m", "pyro_vae", "fit", "--resume", "stopped", cwd=tmp_path))
    first, second = weights_of(tmp_path / "whole"), weights_of(tmp_path / "stopped")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (tmp_path / "whole/history.csv").read_text() == (tmp_path / "stopped/history.csv").read_text()
