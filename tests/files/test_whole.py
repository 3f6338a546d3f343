"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from pyro_vae.files import whole
from pyro_vae.files.whole import (
    exchange,
    make_folders,
    remove_tree,
    rename_new,
    unreadable,
    unwritable,
    whole_file,
    write_new,
    write_whole,
)


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "history.csv"
    write_whole(path, b"whole")

    def fail():
        with whole_file(path) as aside:
            aside.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_bytes() == b"whole"
    assert names(tmp_path) == ["history.csv"]


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    path = tmp_path / "evaluation.json"
    with whole_file(path) as first, whole_file(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first", "who ends last wins"
    assert names(tmp_path) == ["evaluation.json"]


def test_what_a_killed_process_left_is_cleared_and_what_a_living_one_writes_is_not(tmp_path):
    path = tmp_path / "history.csv"
    script = "import sys, os; from pathlib import Path; from pyro_vae.files.whole import whole_file\n"
    script += "with whole_file(Path(sys.argv[1])) as aside: aside.write_text('half'); os._exit(9)"
    subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert len(names(tmp_path)) == 1, "left by a process that has ended"
    with whole_file(path) as mine:
        mine.write_text("mine")
        assert len(names(tmp_path)) == 1
        living = path.with_name(mine.name.replace(f"-{os.getpid()}-", f"-{os.getppid()}-"))
        living.write_text("of a process that lives")
        elsewhere = path.with_name(".history.csv.abcdef-1-1.new")
        elsewhere.write_text("of another machine")
    write_whole(path, b"again")
    assert names(tmp_path) == sorted([living.name, elsewhere.name, "history.csv"])
    os.utime(elsewhere, (0, 0))
    write_whole(path, b"and again")
    assert names(tmp_path) == sorted([living.name, "history.csv"])


def test_the_disk_holds_a_file_before_its_name_does(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, name=name, real=real: (calls.append(name), real(*a)))
    write_whole(tmp_path / "file", b"content")
    assert calls == ["fsync", "fsync", "replace", "fsync"], "the file (twice), its name, and the folder"


def test_names_of_the_largest_length(tmp_path):
    path = tmp_path / ("n" * 255)
    write_whole(path, b"content")
    assert path.read_bytes() == b"content"


def test_a_new_name_is_never_one_that_is_taken(tmp_path):
    for kind in ("file", "folder"):
        taken, new = tmp_path / f"taken {kind}", tmp_path / f"new {kind}"
        taken.mkdir() if kind == "folder" else taken.write_text("mine")
        new.mkdir()
        for supported in (True, False):
            with pytest.MonkeyPatch.context() as patch:
                if not supported:
                    patch.setattr(whole, "_renameat2", lambda: None)
                with pytest.raises(FileExistsError):
                    rename_new(new, taken)
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "taken file", b"yours")
    assert (tmp_path / "taken file").read_text() == "mine"


def test_folders_change_places(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text(name)
    if not exchange(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this file system cannot exchange two names")
    assert (names(tmp_path / "a"), names(tmp_path / "b")) == (["b"], ["a"])


def test_folders_are_made_all_or_none(tmp_path, monkeypatch):
    made = []

    def mkdir(path, real=os.mkdir):
        if len(made) == 2:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        made.append(path)
        real(path)

    monkeypatch.setattr(os, "mkdir", mkdir)
    with pytest.raises(OSError, match="name too long"):
        make_folders(tmp_path / "a/b/c")
    assert len(made) == 2
    assert names(tmp_path) == []


def test_an_empty_folder_that_may_not_be_read_is_removed(tmp_path, monkeypatch):
    def scandir(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    (tmp_path / "shut").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", scandir)
        remove_tree(tmp_path / "shut")
    assert names(tmp_path) == []


def test_a_system_that_fails_is_told_from_a_place_that_is_wrong(tmp_path):
    full, shut = (OSError(number, os.strerror(number)) for number in (errno.ENOSPC, errno.EACCES))
    assert str(unwritable(tmp_path, full, "a place", "choose another")) == (
        f"{tmp_path} could not be written: No space left on device; make room on the disk and try again"
    )
    assert str(unwritable(tmp_path, shut, "a place", "choose another")) == (
        "expected a place; got Permission denied; choose another"
    )
    many = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    assert unreadable(tmp_path, many, "a file", "fit again").exit_status == 1
    assert str(unreadable(tmp_path, shut, "a file", "fit again")).endswith("see to it that you may read it")


def test_removing_a_folder_follows_no_links(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").write_text("kept")
    (made,) = make_folders(tmp_path / "folder")
    (made / "link").symlink_to(tmp_path / "kept")
    remove_tree(made)
    assert names(tmp_path) == ["kept"]
    assert (tmp_path / "kept/file").read_text() == "kept"
