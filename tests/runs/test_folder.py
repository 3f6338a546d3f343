"""The run directory as its writer and its readers find it: one writer, whole states, earlier formats."""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import pyro_vae
from pyro_vae.errors import InputError, StorageError, TrainingError
from pyro_vae.files import bounded
from pyro_vae.files import whole as whole_files
from pyro_vae.runs import fitting, placing, report, surroundings, writer_lock
from pyro_vae.runs.checkpoint import checksum
from pyro_vae.runs.current import CHECKPOINTS, Current
from pyro_vae.runs.display import Silent
from pyro_vae.runs.folder import RunFolder
from pyro_vae.runs.writer_lock import LOCK, WriterLock
from tests.conftest import FAST
from tests.runs.checkpoint_files import training_file, weights_file
from tests.runs.test_fitting import assert_same_run, quietly


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(autouse=True, scope="module")
def _without_figures():
    """Figures are not what these tests are of, and most of their time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "write_report", lambda run: None)
        yield


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """A small run, not to be changed, of three epochs."""
    return quietly(
        data="toy", labels="none", epochs=3, batch_size=400, out=tmp_path_factory.mktemp("small") / "run"
    ).path


@pytest.fixture
def run(small, tmp_path) -> Path:
    return Path(shutil.copytree(small, tmp_path / "run"))


def longer(path: Path, **settings) -> pyro_vae.Run:
    return pyro_vae.resume(path, epochs=5, display=False, **settings)


@pytest.fixture(scope="module")
def whole(small, tmp_path_factory) -> Path:
    """The same run, resumed to five epochs."""
    return longer(Path(shutil.copytree(small, tmp_path_factory.mktemp("whole") / "run"))).path


# One writer


def test_a_second_writer_is_refused_in_words_and_readers_never_are(run):
    before = contents(run)
    script = "import sys; from pathlib import Path; from pyro_vae.runs.writer_lock import WriterLock\n"
    script += "WriterLock(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    held = subprocess.Popen([sys.executable, "-c", script, str(run)], stdin=-1, stdout=-1, text=True)
    assert held.stdout.readline() == "held\n"
    try:
        with pytest.raises(
            InputError, match=rf"a run that nobody else is writing at .*; got one that process {held.pid}"
        ):
            longer(run)
        with pytest.raises(InputError, match="been writing since 20"):
            quietly(data="toy", labels="none", out=run, overwrite=True)
        pyro_vae.load(run).evaluate(num_samples=5)
        assert contents(run).keys() - before.keys() == {str(run / LOCK)}
    finally:
        held.kill()
        held.communicate()
    assert (run / LOCK).exists(), "left by the process that was killed"
    longer(run)
    assert not (run / LOCK).exists()


def test_a_lock_is_of_its_folder_and_given_back_once(tmp_path):
    lock = WriterLock(tmp_path)
    assert not writer_lock.is_free(tmp_path)
    with pytest.raises(InputError, match=f"process {os.getpid()} on "):
        WriterLock(tmp_path)
    assert lock.is_in_place
    lock.release()
    lock.release()
    assert not (tmp_path / LOCK).exists()
    WriterLock(tmp_path).release()


def test_a_file_system_without_locks_is_said_to_have_none(tmp_path, monkeypatch, caplog):
    def no_locks(*arguments):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(writer_lock.fcntl, "flock", no_locks)
    with caplog.at_level("INFO", "pyro_vae"):
        WriterLock(tmp_path)
    assert "This file system has no locks" in caplog.text
    with pytest.raises(InputError, match="nobody else is writing"):
        WriterLock(tmp_path)  # of this process, which lives
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    holder = json.loads((tmp_path / LOCK).read_text())
    (tmp_path / LOCK).write_text(json.dumps(holder | {"pid": ended.pid}))
    WriterLock(tmp_path).release()
    (tmp_path / LOCK).write_text(json.dumps(holder | {"pid": ended.pid, "host": "elsewhere"}))
    with pytest.raises(InputError, match="on elsewhere"):
        WriterLock(tmp_path)


@pytest.mark.parametrize("locks", [True, False])
def test_a_full_disk_has_room_for_a_lock_or_leaves_none(locks, tmp_path, monkeypatch):
    def full(descriptor, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def no_locks(*arguments):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(os, "write", full)
    if locks:
        lock = WriterLock(tmp_path)
        with pytest.raises(InputError, match="got one that another process is writing"):
            WriterLock(tmp_path)
        lock.release()
    else:
        monkeypatch.setattr(writer_lock.fcntl, "flock", no_locks)
        with pytest.raises(OSError, match="No space left"):
            WriterLock(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_a_lock_that_is_no_ordinary_file_is_refused(kind, tmp_path):
    precious, run = tmp_path / "precious", tmp_path / "run"
    precious.write_text("not to be written over")
    run.mkdir()
    {"link": lambda path: path.symlink_to(precious), "folder": Path.mkdir, "pipe": os.mkfifo}[kind](run / LOCK)
    with pytest.raises(InputError, match=r"an ordinary file at .*; got something else; remove it"):
        WriterLock(run)
    assert not writer_lock.is_free(run)
    assert precious.read_text() == "not to be written over"


def test_a_process_that_was_forked_neither_writes_nor_unlocks(tmp_path, monkeypatch):
    lock, parent = WriterLock(tmp_path), os.getpid()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: parent + 1)
        with pytest.raises(PermissionError, match=f"forked from process {lock._pid}, which writes the run"):
            lock.check()
        descriptor, lock._descriptor = lock._descriptor, os.dup(lock._descriptor)  # as the child has its own
        lock.release()
        lock._descriptor = descriptor
    assert not writer_lock.is_free(tmp_path)
    lock.check()
    lock.release()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "harm",
    [
        Path.unlink,
        lambda path: path.write_bytes(path.read_bytes()[:-7]),
        lambda path: path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n")),
    ],
    ids=["removed", "cut", "other line ends"],
)
def test_a_history_that_is_harmed_in_mid_run_is_written_anew(harm, run):
    folder = RunFolder.open_to_write(run)
    training, weights = folder.training(), folder.weights("last")
    before = folder.history
    folder.begin(folder.config, training)
    harm(run / "history.csv")
    training["progress"]["history"].append(before.iloc[-1].to_dict() | {"epoch": len(before) + 1})
    training["progress"]["epoch"] += 1
    folder.save(weights, training, best=False)
    folder.release()
    after = RunFolder.open(run).history
    assert after["epoch"].tolist() == list(range(1, len(before) + 2))
    assert after.iloc[: len(before)].equals(before)


@pytest.mark.parametrize("change", [lambda text: b"\xef\xbb\xbf" + text, lambda text: text.replace(b"\n", b"\r\n")])
def test_what_an_editor_does_to_the_ends_of_lines_costs_nothing(change, run, whole):
    for name in ("config.json", "history.csv", "checkpoints/current.json"):
        (run / name).write_bytes(change((run / name).read_bytes()))
    assert_same_run(longer(run).path, whole)


def test_the_limit_on_open_files_does_not_have_a_run_given_up(run, monkeypatch):
    def many(path, most):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))

    monkeypatch.setattr(bounded, "read_bounded", many)
    with pytest.raises(StorageError, match=r"config\.json could not be read: .*; raise the limit on open files"):
        pyro_vae.load(run)


def test_a_place_that_is_reached_through_a_folder_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert placing.spelled_out(Path("new/../other")) == tmp_path / "other"
    assert placing.spelled_out(Path("other")) == Path("other")
    quietly(data="toy", labels="none", out="new/../other")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


@pytest.mark.parametrize(("overwrite", "exchanging"), [(True, True), (True, False), (False, True)])
def test_a_place_that_the_disk_does_not_hold_is_as_it_was(overwrite, exchanging, run, tmp_path, monkeypatch):
    """The folder that a run was moved into cannot be synced: the run is moved back, and the error says why."""
    before, place, sync = contents(run), run if overwrite else run.with_name("new"), placing.sync

    def fail(path):
        if path == place.parent and (place / LOCK).exists():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync(path)

    monkeypatch.setattr(placing, "sync", fail)
    if not exchanging:
        monkeypatch.setattr(placing.whole, "exchange", lambda first, second: False)
    with pytest.raises(StorageError, match="could not be written: Input/output error; look after the disk"):
        quietly(data="toy", labels="none", out=place, overwrite=overwrite)
    assert contents(run) == before
    assert list(run.parent.iterdir()) == [run]


# Readers


def test_a_reader_changes_nothing_even_of_what_a_killed_process_left(run):
    (run / CHECKPOINTS / "00009-00000000.pt").write_bytes(b"half a checkpo")
    (run / "history.csv").write_bytes((run / "history.csv").read_bytes() + b"4,0.5,1")
    before = contents(run)
    folder = RunFolder.open(run)
    assert len(folder.history) == 3
    folder.weights("last"), folder.training(), folder.evaluation, folder.frames
    assert contents(run) == before


def test_a_reader_who_is_overtaken_reads_what_counts_now(run):
    folder = RunFolder.open(run)
    longer(run)
    assert not (run / CHECKPOINTS / folder._current.last.weights).exists()
    assert folder.training()["progress"]["epoch"] == 5
    assert len(folder.history) == 5


def test_what_was_swapped_or_changed_is_refused(run, whole):
    def refused(words, path, content):
        kept = path.read_bytes()
        path.write_bytes(content)
        with pytest.raises(InputError, match=words):
            longer(run)
        path.write_bytes(kept)

    for find in (training_file, lambda path: weights_file(path, "last")):
        refused("it is of epoch 5 of run .*, in the place of epoch 3 of run", find(run), find(whole).read_bytes())
    pointer, config = run / CHECKPOINTS / "current.json", run / "config.json"
    refused("at .*current.json; got not a pointer to checkpoints", pointer, b"{}")
    for harm in (b'"rows": 3', b'"rows": 0'), (b'"weights": "', b'"weights": "../'), (b".pt", b".txt"):
        refused("at .*current.json; got not a pointer to checkpoints", pointer, pointer.read_bytes().replace(*harm))
    refused("the name 'seed' twice", config, config.read_bytes().replace(b'"seed": 0', b'"seed": 0, "seed": 0'))
    refused("settings that cannot change are others", config, config.read_bytes().replace(b'"seed": 0', b'"seed": 1'))
    refused("of another run", config, config.read_bytes().replace(b'"run": "', b'"run": "f'))
    longer(run)


# Histories


def test_the_history_is_appended_to_and_what_does_not_count_is_dropped(run, whole):
    history = run / "history.csv"
    inode, start = history.stat().st_ino, history.read_bytes()
    longer(run)
    assert history.stat().st_ino == inode
    assert history.read_bytes().startswith(start)
    assert history.read_bytes() == (whole / "history.csv").read_bytes()


@pytest.mark.parametrize(
    "harm",
    [
        Path.unlink,
        lambda path: path.write_bytes(path.read_bytes()[:-9]),
        lambda path: path.write_text(path.read_text().replace(",", ";")),
        lambda path: path.write_text(re.sub(r"(\.\d{3})\d+", r"\1", path.read_text())),
    ],
    ids=["removed", "cut", "semicolons", "rounded"],
)
def test_a_history_that_was_harmed_is_read_from_the_checkpoint(harm, run, whole, caplog):
    """As a spreadsheet does it that saves what it was shown."""
    rows = RunFolder.open(run).history
    harm(run / "history.csv")
    before = contents(run)
    assert pyro_vae.load(run).history.equals(rows)
    assert contents(run) == before
    assert caplog.messages == [f"{run / 'history.csv'} is not as it was written: it is read from the checkpoint"]
    assert_same_run(longer(run).path, whole)
    training_file(run).unlink()
    harm(run / "history.csv")
    with pytest.raises(InputError, match=r"history\.csv"):
        pyro_vae.load(run)


def test_a_run_that_goes_on_under_another_version_or_with_another_program_says_so(run, monkeypatch):
    said = []

    class Saying(Silent):
        def say(self, line):
            said.append(line)

    pyro_vae.resume(run, epochs=4, display=Saying())
    assert not [line for line in said if "goes on with" in line]
    monkeypatch.setattr(surroundings, "__version__", "9.9")
    pyro_vae.resume(run, epochs=5, display=Saying())
    [line] = [line for line in said if "goes on with" in line]
    assert line.startswith(f"goes on with pyro_vae 9.9 (before: {pyro_vae.__version__}): its numbers may differ")
    assert surroundings.note_on(None, torch.device("cpu")) == ""
    config = pyro_vae.load(run).config.model_copy(update={"model": "mine.model"})
    [note] = fitting._other_programs(config, {"model": longer, "guide": None})
    assert note.startswith("the model is tests.runs.test_folder.longer, and the run was made with mine.model")
    assert fitting._other_programs(config.model_copy(update={"model": f"{__name__}.longer"}), {"model": longer}) == []


def test_rows_that_no_checkpoint_knows_are_dropped(run, whole):
    with (run / "history.csv").open("a") as file:
        file.write("4,0.1,0.2,0.3,0.4,0.5\n5,0.")
    longer(run)
    assert_same_run(run, whole)


def test_changed_settings_stand_in_the_history(run):
    rows = (run / "history.csv").read_text().splitlines()
    changed = pyro_vae.resume(run, epochs=4, lr=0.5, patience="none", display=False)
    assert changed.config.lr == 0.5
    again = pyro_vae.resume(run, epochs=5, display=False)
    found = (run / "history.csv").read_text().splitlines()
    assert found[0] == rows[0] + ",lr,patience"
    assert [line.rsplit(",", 2)[0] for line in found[1:4]] == rows[1:]
    loaded = pyro_vae.load(run)
    assert loaded.history["lr"].tolist() == [0.002] * 3 + [0.5] * 2
    assert loaded.history["patience"].tolist()[2:] == [5.0, float("inf"), float("inf")]
    assert again.config.patience == "none"


# Overwriting


@pytest.mark.parametrize("exchanging", [True, False])
def test_overwriting_leaves_the_new_run_alone(exchanging, run, tmp_path, monkeypatch):
    if not exchanging:
        monkeypatch.setattr("pyro_vae.files.whole.exchange", lambda first, second: False)
    quietly(data="toy", labels="none", epochs=1, out=run, overwrite=True)
    assert len(pyro_vae.load(run).history) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_plain_fit_deletes_nothing_that_it_did_not_make(tmp_path):
    for name in (".run.new", ".run.old", ".run.0123.pyro-vae-new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.tex").write_text("all there is")
    before = contents(tmp_path)
    run = quietly(data="toy", labels="none", epochs=1, out=tmp_path / "run")
    assert {path: content for path, content in contents(tmp_path).items() if str(run.path) + "/" not in path} == before


def test_a_run_that_stepped_aside_is_found_and_put_back(run, tmp_path):
    """As a kill between two renames leaves it, on a file system that cannot exchange two names."""
    aside = tmp_path / ".run.0123abcd.pyro-vae-old"
    run.rename(aside)
    assert len(pyro_vae.load(run).history) == 3
    assert aside.exists(), "reading moves nothing"
    with pytest.raises(InputError, match="a run that is there already"):
        quietly(data="toy", labels="none", out=run)
    assert len(longer(run).history) == 5
    assert not aside.exists()


def test_overwriting_through_a_link_spares_the_link(run, tmp_path):
    (tmp_path / "link").symlink_to(run)
    quietly(data="toy", labels="none", epochs=1, out=tmp_path / "link", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert len(pyro_vae.load(run).history) == 1


@pytest.mark.parametrize("kept", ["notes.txt", ".git", "inner"])
def test_overwriting_spares_what_somebody_keeps_in_a_run(kept, run):
    """Another run among it; what commands and systems put there is no reason."""
    for name in ("report.html", ".DS_Store", f".report.html.{whole_files._machine()}-1-0.new"):
        (run / name).write_text("")
    (run / "export").mkdir()
    placing.check_free(run, overwrite=True)
    (run / kept).mkdir()
    before = contents(run)
    for replace in (lambda: placing.check_free(run, overwrite=True), lambda: placing._replace(run, run.parent)):
        with pytest.raises(InputError, match=f"expected nothing but a run to replace at .*; got {kept}, which fit did"):
            replace()
    assert contents(run) == before


def test_a_place_that_is_taken_meanwhile_is_respected(tmp_path, monkeypatch):
    monkeypatch.setattr(placing, "check_free", lambda path, overwrite: None)
    (tmp_path / "run").mkdir()
    with pytest.raises(InputError, match="something that is not a run that is there already"):
        quietly(data="toy", labels="none", out=tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


# Faults while a run trains


class After(Silent):
    """Does something after an epoch."""

    def __init__(self, epoch, do):
        self.at, self.do = epoch, do

    def epoch(self, row):
        if row["epoch"] == self.at:
            self.do()


def test_a_folder_that_is_moved_away_ends_the_run_and_keeps_the_last_epoch(tmp_path, whole):
    moving = After(2, lambda: (tmp_path / "run").rename(tmp_path / "elsewhere"))
    settings = FAST | {"data": "toy", "labels": "none", "epochs": 5, "batch_size": 400, "out": tmp_path / "run"}
    with pytest.raises(
        TrainingError, match=r"after epoch [23] could not be written .* was moved or removed .* epoch [12] is kept"
    ):
        pyro_vae.fit(display=moving, **settings)
    assert not (tmp_path / "run").exists()
    assert len(pyro_vae.resume(tmp_path / "elsewhere", display=False).history) == 5


def test_the_current_folder_may_change_while_a_run_is_written_and_after(run, whole, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    resumed = pyro_vae.resume("run", epochs=5, display=After(4, lambda: os.chdir(elsewhere)))
    assert_same_run(run, whole)
    assert not (run / LOCK).exists()
    assert torch.isfinite(resumed.sample(2)).all()
    assert len(resumed.folder.history) == 5
    assert resumed.folder.figures == run / "figures"
    assert list(elsewhere.iterdir()) == []


def test_a_disk_that_is_full_keeps_the_last_epoch_and_leaves_nothing_else(run, whole, monkeypatch):
    real = os.write

    def full(descriptor, content):
        if Path(os.readlink(f"/proc/self/fd/{descriptor}")).suffix == ".pt":
            real(descriptor, bytes(content)[:100])
            raise OSError(28, "No space left on device")
        return real(descriptor, content)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(
            TrainingError, match=r"No space left on device; the state after epoch 3 is kept; .*--resume"
        ):
            longer(run)
    current = Current.read(run)
    assert {path.name for path in (run / CHECKPOINTS).iterdir()} == current.files
    longer(run)
    assert_same_run(run, whole)


# Earlier formats


def as_format_1(run: Path) -> None:
    """What the first version of this package would have written in the place of a run."""
    folder, checkpoints = RunFolder.open(run), run / CHECKPOINTS
    values, training = {name: folder.weights(name) for name in ("last", "best")}, folder.training()
    shutil.rmtree(checkpoints)
    for name in ("last", "best"):
        (checkpoints / name).mkdir(parents=True)
        save_file(values[name], checkpoints / name / "weights.safetensors")
    content = io.BytesIO()
    torch.save(training, content)
    (checkpoints / "last/training.pt").write_bytes(content.getvalue())
    config = json.loads((run / "config.json").read_text())
    del config["run"]
    (run / "config.json").write_text(json.dumps(config | {"format_version": 1}))


LEFT = {
    "whole": [],
    "killed between the two renames": [("last", "last.old"), ("next", "last.new")],
    "killed before it removed the old one": [("next", "last.old")],
    "killed while it wrote": [("next", "best.new")],
}


@pytest.mark.parametrize("left", LEFT)
def test_runs_of_format_1_load_and_resume(left, run, whole):
    as_format_1(run)
    checkpoints = run / CHECKPOINTS
    shutil.copytree(checkpoints / "last", checkpoints / "next")
    for source, target in LEFT[left]:
        (checkpoints / source).rename(checkpoints / target)
    shutil.rmtree(checkpoints / "next", ignore_errors=True)
    before = contents(run)
    loaded = pyro_vae.load(run, checkpoint="last")
    assert len(loaded.history) == 3
    assert contents(run) == before, "looking at it changes nothing"
    longer(run)
    assert_same_run(run, whole)
    assert {path.name for path in checkpoints.iterdir()} == Current.read(run).files
    assert json.loads((run / "config.json").read_text())["format_version"] == 2
    assert placing.is_run(run)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state["optimizer"]["param_groups"][0].pop("weight_decay"),
        lambda state: state["optimizer"]["param_groups"].pop(),
        lambda state: state.pop("random"),
        lambda state: state.update(random=torch.zeros(3)),
        lambda state: state["progress"].update(another=1),
    ],
    ids=["setting", "group", "random", "size", "progress"],
)
def test_a_state_that_is_none_of_this_training_is_refused(command, fitted, change):
    """With its checksum, so that it was not damaged on the way."""
    path, current = training_file(fitted), Current.read(fitted)
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)
    last = dataclasses.replace(current.last, training_crc32=checksum(path.read_bytes()))
    dataclasses.replace(current, last=last).replace(fitted / CHECKPOINTS, current)
    before = {p.name: p.read_bytes() for p in (fitted / CHECKPOINTS).iterdir()}
    result = command("fit", "--resume", "run", "--epochs", 3)
    assert result.exit_code == 2, result.output
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error")]
    assert len(errors) == 1
    assert "expected a file that fit wrote" in errors[0]
    assert {p.name: p.read_bytes() for p in (fitted / CHECKPOINTS).iterdir()} == before
