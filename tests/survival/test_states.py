"""A few of the states that ``python -m tests.survival`` checks all of, and whether it sees all that there is to see."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.survival import races
from tests.survival.__main__ import FAILING, check, run
from tests.survival.disk import Disk
from tests.survival.operations import Operation
from tests.survival.scenarios import SCENARIOS, Broken, Harness

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="states are made in forked processes"),
    pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning"),
]
EVERY = {"kills": 30, "power": 170, "disk": 60, "errors": 60}  # of the states of one scenario, in the exhaustive tests


@pytest.mark.exhaustive
@pytest.mark.forks
def test_some_states_of_a_resumed_run(tmp_path):
    harness = Harness("resume", tmp_path)
    for failing, every in (("kills", 80), ("power", 340), ("disk", 80), ("errors", 80)):
        assert check(harness, failing, every, first=31) == []
    folder = harness.copy(harness.end)  # and one that is broken is found out
    (next((folder / "run/checkpoints").glob("*.pt"))).unlink()
    with pytest.raises(Exception, match="checkpoint file"):
        harness.check(folder)
    folder = harness.copy(harness.end)
    (folder / ".run.new").mkdir()
    with pytest.raises(Broken, match=r"left lying about: .*\.run\.new"):
        harness.check(folder)


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("failing", FAILING)
@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.forks
def test_some_states_of_all_scenarios(name, failing):
    assert run(name, failing, EVERY[failing], first=7) == []


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("failing", FAILING)
@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.forks
def test_all_states(name, failing):
    assert run(name, failing) == []


def test_a_protocol_that_syncs_nothing_is_found_out(tmp_path):
    """The disk in memory forgets what it should: a name without its content, and a name that is not there yet."""
    (tmp_path / "before").mkdir()
    (tmp_path / "before/old").write_bytes(b"old")
    disk = Disk(tmp_path / "before")
    disk.do(Operation("create", "new"))
    disk.do(Operation("write", "new", content=b"new"))
    disk.do(Operation("rename", "new", "old"))
    found = {}
    for name, keep_name, keep_content in (("lost", False, False), ("empty", True, False), ("whole", True, True)):
        disk.write(tmp_path / name, lambda i, n, keep=keep_name: keep, keep_content)
        found[name] = {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
    assert found == {"lost": {"old": b"old"}, "empty": {"old": b""}, "whole": {"old": b"new"}}
    disk.do(Operation("sync", "old", content=b"new"))
    disk.do(Operation("sync", "."))
    disk.write(tmp_path / "synced", lambda i, n: False, False)
    assert (tmp_path / "synced/old").read_bytes() == b"new"


CALLS = "openat,write,pwrite64,writev,fsync,fdatasync,ftruncate,rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir"


@pytest.mark.exhaustive
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_the_kernel_sees_no_changes_that_the_harness_does_not(tmp_path):
    """Each system call that changes a file of the run, in order, against the operations that were watched."""
    harness = Harness("fit", tmp_path)
    folder, log, seen = harness.copy(harness.start), tmp_path / "strace.txt", tmp_path / "seen"
    script = f"""
import pickle
from pathlib import Path
from tests.survival import scenarios
from tests.survival.operations import Watch
scenarios._quicken()
watch = Watch(Path({str(folder)!r}))
watch.start()
try:
    scenarios.main(scenarios.FIT)
finally:
    pickle.dump([(o.kind, o.path) for o in watch.done], open({str(seen)!r}, "wb"))
"""
    trace = ["strace", "-f", "-y", "-s", "999", "-e", f"trace={CALLS}", "-o", str(log), sys.executable, "-c", script]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(trace, cwd=folder, env=environment, capture_output=True, text=True)
    if "ptrace" in done.stderr or not seen.exists():
        pytest.skip(f"strace may not trace here: {done.stderr[-200:]}")
    same = {"exchange": "rename", "rmdir": "unlink"}
    watched = [(same.get(kind, kind), path) for kind, path in pickle.loads(seen.read_bytes())]
    made: set[str] = set()
    kernel = [_kind(line, folder, made) for line in log.read_text().splitlines()]
    assert list(filter(None, kernel)) == [kind for kind, path in watched if "figures/" not in path]
    assert len(watched) > 80


def _kind(line: str, folder: Path, made: set[str]) -> str | None:
    """What a line of strace changes in a folder, by the names of ``Operation``; nothing for a call that failed."""
    match = re.match(r"\d+ +(\w+)\((.*)\) += (\d+)", line)
    if match is None or "figures/" in line:
        return None
    call, arguments = match[1], match[2]
    if call in ("write", "pwrite64", "writev", "fsync", "fdatasync", "ftruncate"):
        inside = re.match(rf"\d+<{re.escape(str(folder))}[/>]", arguments)
        return {"fsync": "sync", "fdatasync": "sync"}.get(call, "write") if inside else None
    path = re.findall(r'"([^"]*)"', arguments)[0]
    if path.startswith("/") and not path.startswith(f"{folder}/"):
        return None
    if call == "openat":
        new = "O_CREAT" in arguments and path not in made
        made.add(path)
        return "create" if new else None
    return "rename" if "rename" in call else "mkdir" if "mkdir" in call else "unlink"


@pytest.mark.exhaustive
@pytest.mark.forks
def test_readers_beside_a_writer_and_two_writers_at_once():
    assert races.reads(20) == 0
    assert races.resumes(1) == 0


@pytest.mark.slow
@pytest.mark.forks
def test_kills_at_random_moments():
    assert races.kills(1, compiled=False) == 0


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.forks
def test_races_in_full():
    assert races.kills(200, compiled=False) == 0
    assert races.kills(200, compiled=True) == 0
    assert races.reads(2000) == 0
    assert races.resumes(50) == 0
