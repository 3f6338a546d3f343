from __future__ import annotations

import json
import os
import subprocess
import sys
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pyro_vae
from pyro_vae.data import Reading, cache, decoding, load_data
from pyro_vae.errors import InputError
from tests.conftest import FAST

ORL = Path(os.environ.get("PYRO_VAE_DATA", "")) / "orl_faces"
FLAGS = ["--epochs", 2, "--batch-size", 20, "--hidden", "8", "--latent-dim", 2, "--labels", 6]


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch) -> Path:
    """A folder of data of the test's own."""
    monkeypatch.setenv("PYRO_VAE_DATA", str(tmp_path / "store"))
    return tmp_path / "store"


def write(path: Path, value: int, shape: tuple[int, ...] = (6, 5)) -> None:
    """An image of one value, in whatever format the path's ending says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(shape, value, np.uint8)).save(path)


@pytest.fixture
def classes(tmp_path) -> Path:
    """Three class folders of eight gray images; class c has the values 80 c + i."""
    for c, name in enumerate(("b", "a", "c")):
        for i in range(8):
            write(tmp_path / "photos" / name / f"{i}.png", 80 * c + i)
    return tmp_path / "photos"


@pytest.fixture
def flat(tmp_path) -> Path:
    for i in range(12):
        write(tmp_path / "flat" / f"{i:02}.png", i)
    return tmp_path / "flat"


@pytest.fixture
def no_decoding(monkeypatch):
    """From the call on, no image can be decoded."""

    def forbid():
        monkeypatch.setattr(decoding, "decode", lambda *a: pytest.fail("decoded an image again"))

    return forbid


def values(data) -> torch.Tensor:
    parts = (data.train, data.validation, data.test)
    return torch.cat([part.pixels.flatten(1) for part in parts])


def test_class_folders_are_labels(classes):
    data = load_data(str(classes))
    assert data.class_names == ("a", "b", "c")
    assert data.event_shape == (1, 6, 5)
    assert data.name == str(classes)
    assert (len(data.train), len(data.validation), len(data.test)) == (20, 2, 2)
    assert values(data)[:, 0].sort().values.tolist() == [80 * c + i for c in range(3) for i in range(8)]
    for part in (data.train, data.validation, data.test):
        assert part.pixels.dtype == torch.uint8
        assert part.scale == 255
        assert [("b", "a", "c")[v // 80] for v in part.pixels[:, 0, 0, 0]] == ["abc"[k] for k in part.labels]


def test_a_flat_folder_has_no_labels(flat):
    data = load_data(f"{flat}/")
    assert data.class_names == ()
    assert data.train.labels is None
    assert sorted(values(data)[:, 0].tolist()) == list(range(12))


def test_files_that_are_no_images_are_passed_over(classes, capsys):
    for name in (
        "README",
        "a/.DS_Store",
        "a/._0.png",
        "b/labels.txt",
        ".git/x.png",
        "empty/nothing.txt",
        "c/deep/x.png",
    ):
        path = classes / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"no image")
    assert len(values(load_data(str(classes)))) == 24
    assert capsys.readouterr().err == ""


def test_one_image_in_color_makes_all_of_them_so(classes):
    write(classes / "a/0.png", 33, (6, 5, 3))
    write(classes / "a/1.jpg", 34)
    data = load_data(str(classes))
    assert data.event_shape == (3, 6, 5)
    assert len(values(data)) == 25


@pytest.mark.parametrize(("size", "shape"), [("4", (1, 4, 4)), ("7x3", (1, 7, 3)), ("none", (1, 6, 5))])
def test_size(flat, size, shape):
    data = load_data(f"{flat}:size={size}")
    assert data.event_shape == shape
    assert sorted(values(data)[:, 0].tolist()) == list(range(12))
    assert data.name == f"{flat}:size={size}"


@pytest.mark.parametrize("size", ["0", "4x", "x4", "4x0", "4x4x4", "four", "", "-3"])
def test_a_size_that_is_none_is_refused(flat, size):
    with pytest.raises(InputError, match=rf"size of the folder .* such as 64, or .* 56x46; got '{size}'; leave it out"):
        load_data(f"{flat}:size={size}")


def test_other_options_are_refused(flat):
    with pytest.raises(InputError, match=r"an option of the folder .*; got 'siz'; it takes size=none"):
        load_data(f"{flat}:siz=4")


def test_a_path_may_hold_a_colon(flat):
    odd = flat.rename(flat.with_name("a:size=3"))
    assert load_data(str(odd)).event_shape == (1, 6, 5)
    assert load_data(f"{odd}:size=4").event_shape == (1, 4, 4)


def test_images_of_two_sizes_are_refused_until_one_is_chosen(flat, store):
    write(flat / "07.png", 7, (5, 6))
    with pytest.raises(InputError, match=rf"6x5 \(00.png\) and 5x6 \(07.png\); use {flat}:size=64"):
        load_data(str(flat))
    assert not store.exists()
    assert load_data(f"{flat}:size=64").event_shape == (1, 64, 64)


def only_one_class(classes: Path) -> None:
    for name in ("a", "b"):
        for file in (classes / name).iterdir():
            file.unlink()
    for i in range(10):
        write(classes / "c" / f"{i}.png", i)


def both_ways(classes: Path) -> None:
    write(classes / "x.png", 1)
    write(classes / "y.png", 1)


def too_few(classes: Path) -> None:
    for file in list(classes.glob("*/[3-7].png")):
        file.unlink()


def none_at_all(classes: Path) -> None:
    for file in list(classes.glob("*/*.png")):
        file.rename(file.with_suffix(".txt"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (only_one_class, "at least two classes in .*; got one with images, 'c'; move the images up one level or add a"),
        (
            both_ways,
            "in .* or in class folders below it, not both; got 2 images beside 3 class folders; move the images",
        ),
        (too_few, r"at least 10 images .*; got 9; give a folder with more"),
        (none_at_all, r"at least 10 images .*; got none; give the folder that holds them"),
    ],
)
def test_folders_that_are_refused(classes, store, change, message):
    change(classes)
    with pytest.raises(InputError, match=message):
        load_data(str(classes))
    assert not store.exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./photos", "a folder of images, or a file of arrays or a table, at photos; got no such folder"),
        ("phtos:size=3", "a known data set, a file of arrays or a table, or a folder of images; got 'phtos:size=3'"),
        ("n" * 300, "a known data set, a file of arrays or a table, or a folder of images; got 'nnn"),
        ("file.png", "at file.png; got a file of another kind; give one of .npz, .npy, .csv"),
    ],
)
def test_paths_that_are_no_data(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.png").write_bytes(b"")
    with pytest.raises(InputError, match=message):
        load_data(name)


def test_a_registered_name_wins_over_a_folder(flat, monkeypatch):
    monkeypatch.chdir(flat.parent)
    flat.rename("digits")
    assert load_data("digits").event_shape == (1, 8, 8)
    assert load_data("./digits").event_shape == (1, 6, 5)


def damage(classes: Path) -> None:
    (classes / "b/2.png").write_bytes(b"")
    whole = (classes / "c/7.png").read_bytes()
    (classes / "c/7.png").write_bytes(whole[: len(whole) // 2])


def test_images_that_cannot_be_read_are_left_out_and_that_is_said(classes, capsys):
    damage(classes)
    for _ in range(2):  # the second time from the cache
        data = load_data(str(classes))
        said = capsys.readouterr().err
        assert said.startswith(f"Left out 2 images of 24 in {classes} that cannot be read, the first: b/2.png (")
        assert said.count("\n") == 1
    left = [80 * c + i for c in range(3) for i in range(8) if (c, i) not in ((0, 2), (2, 7))]
    assert values(data)[:, 0].sort().values.tolist() == left
    for part in (data.train, data.validation, data.test):
        assert [("b", "a", "c")[v // 80] for v in part.pixels[:, 0, 0, 0]] == ["abc"[k] for k in part.labels]


def test_strict_refuses_what_cannot_be_read(classes):
    assert len(values(load_data(str(classes), strict=True))) == 24
    damage(classes)
    for _ in range(2):
        with pytest.raises(
            InputError, match=r"got 2 of 24 that cannot, the first: b/2.png \(.*\); mend or delete them"
        ):
            load_data(str(classes), strict=True)


def test_too_few_are_left(classes, flat):
    for file in list(flat.iterdir())[:3]:
        file.write_bytes(b"")
    with pytest.raises(InputError, match=r"at least 10 images that can be read in .*; got 9"):
        load_data(str(flat))
    only_one_class(classes)
    write(classes / "a/0.png", 3)
    (classes / "a/0.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"at least two classes in .*; got one with images, 'c'"):
        load_data(str(classes))


def test_a_second_load_decodes_nothing(classes, no_decoding):
    first = load_data(f"{classes}:size=4")
    no_decoding()
    second = load_data(f"{classes}:size=4")
    assert torch.equal(values(first), values(second))
    assert torch.equal(first.train.labels, second.train.labels)
    with pytest.raises(pytest.fail.Exception):
        load_data(str(classes))  # another size is another file


def test_a_folder_that_changed_is_decoded_again_in_place_of_the_old(classes, store):
    load_data(str(classes))
    write(classes / "a/0.png", 200)
    os.utime(classes / "a/0.png", ns=(1, 1))
    assert 200 in values(load_data(str(classes)))
    os.rename(classes / "a/0.png", classes / "b/9.png")
    data = load_data(str(classes))
    (found,) = [
        p.labels[p.pixels[:, 0, 0, 0] == 200] for p in (data.train, data.validation, data.test) if 200 in p.pixels
    ]
    assert [data.class_names[label] for label in found] == ["b"]
    assert len(list((store / "cache").iterdir())) == 1


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04broken"])
def test_a_damaged_cache_is_made_anew(classes, store, content, no_decoding):
    first = load_data(str(classes))
    (path,) = (store / "cache").iterdir()
    path.write_bytes(content)
    assert torch.equal(values(load_data(str(classes))), values(first))
    no_decoding()
    load_data(str(classes))


def test_a_cache_cut_short_is_made_anew(classes, store):
    first = load_data(str(classes))
    (path,) = (store / "cache").iterdir()
    path.write_bytes(path.read_bytes()[:-300])
    assert torch.equal(values(load_data(str(classes))), values(first))


def test_a_cache_of_another_version_is_made_anew(classes, monkeypatch):
    load_data(str(classes))
    monkeypatch.setattr(cache, "VERSION", 2)
    monkeypatch.setattr(decoding, "decode", lambda path, size: np.full((1, 2, 2), 9, np.uint8))
    assert values(load_data(str(classes))).unique().tolist() == [9]


def test_a_cache_that_cannot_be_written_is_no_hindrance(classes, store, capsys):
    store.write_text("a file, where a folder should be")
    assert len(values(load_data(str(classes)))) == 24
    said = capsys.readouterr().err
    assert said.startswith("The decoded images are not kept: ")
    assert said.count("\n") == 1


def test_nothing_half_written_is_left_in_the_cache(classes, store, monkeypatch):
    def interrupted(file, **arrays):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_data(str(classes))
    assert not list((store / "cache").iterdir())


def test_a_bar_on_a_terminal_and_nothing_elsewhere(classes, monkeypatch, capsys):
    load_data(str(classes))
    assert capsys.readouterr() == ("", "")

    class Terminal(StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", Terminal())
    load_data(f"{classes}:size=3")
    assert "decoding photos" in sys.stderr.getvalue()
    assert "24/24" in sys.stderr.getvalue()


def test_a_run_finds_its_folder_again_and_knows_when_it_changed(classes, tmp_path, no_decoding):
    settings = FAST | {"model": "ss_vae", "data": f"{classes}:size=4", "display": False}
    run = pyro_vae.fit(**settings, out=tmp_path / "run", unreadable="refuse")
    no_decoding()
    assert pyro_vae.load(tmp_path / "run").evaluate(num_samples=2, seed=1) | {"seconds": 0} == run.evaluate(
        num_samples=2, seed=1
    ) | {"seconds": 0}
    assert len(pyro_vae.resume(tmp_path / "run", epochs=3, display=False).history) == 3


def test_a_run_refuses_a_folder_that_changed(classes, tmp_path):
    pyro_vae.fit(**FAST, data=str(classes), out=tmp_path / "run", display=False)
    write(classes / "a/0.png", 255)
    for again in (lambda: pyro_vae.load(tmp_path / "run").data, lambda: pyro_vae.resume(tmp_path / "run", epochs=3)):
        with pytest.raises(
            InputError, match=r"the data that the run was fitted on, .*; got other data under that name"
        ):
            again()


def test_fit_on_a_folder_from_the_command_line(command, classes, tmp_path):
    damage(classes)
    result = command("fit", "--data", "photos:size=4", "--model", "ss_vae", *FLAGS, "--json")
    assert result.exit_code == 0, result.stderr
    assert result.stderr.startswith("Left out 2 images of 24 in photos")
    assert json.loads(result.stdout)["run"] == "runs/ss_vae-photos"
    config = json.loads((tmp_path / "runs/ss_vae-photos/config.json").read_text())
    assert config["config"]["data"] == "photos:size=4"
    assert config["data"]["event_shape"] == [1, 4, 4]
    assert config["data"]["class_names"] == ["a", "b", "c"]
    assert json.loads(command("evaluate", "runs/ss_vae-photos", "--samples", 2, "--json").stdout)["num_data"] == 2
    assert command("sample", "runs/ss_vae-photos", "--label", "c", "--num", 2).exit_code == 0
    before = sorted(tmp_path.rglob("*"))
    strict = command("fit", "--data", "photos:size=4", *FLAGS, "--unreadable", "refuse", "--out", "strict")
    assert strict.exit_code == 2
    assert strict.stderr.startswith("Error: expected images that can be read in photos; got 2 of 24 that cannot")
    assert strict.stderr.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_is_named_after_the_folder_that_it_stands_in(command, flat, monkeypatch):
    monkeypatch.chdir(flat)
    result = command("fit", "--data", ".", *FLAGS, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["run"] == "runs/vae-flat"
    again = command("fit", "--data", ".", *FLAGS, "--json")  # the pictures of the run are not images of the data
    assert json.loads(again.stdout)["run"] == "runs/vae-flat-2"


@pytest.mark.skipif(not ORL.is_dir(), reason="set PYRO_VAE_DATA to a folder with orl_faces")
def test_the_faces_of_forty_people():
    data = load_data(f"{ORL}:size=56x46")
    assert data.event_shape == (1, 56, 46)
    assert data.class_names == tuple(sorted(f"s{i}" for i in range(1, 41)))
    labels = torch.cat([part.labels for part in (data.train, data.validation, data.test)])
    assert labels.bincount().tolist() == [10] * 40
    whole = load_data(str(ORL))
    assert whole.event_shape == (1, 112, 92)
    raw = (ORL / "s1/1.pgm").read_bytes()[-112 * 92 :]
    assert [bytes(row.tolist()) for row in values(whole)].count(raw) == 1
    torch.testing.assert_close(values(data).float().mean(1), values(whole).float().mean(1), atol=0.5, rtol=0)


MAPPED = Reading(memory=1 << 16)


def rows_of(data) -> torch.Tensor:
    """All rows of a data set, each with its label and its split, in an order of their own."""
    parts = []
    for images in data.splits:
        part = images[:]
        labels = torch.zeros(len(part)) if part.labels is None else part.labels.float()
        parts.append(torch.cat([labels[:, None], part.values().flatten(1)], 1))
    return [part[np.lexsort(part.T.numpy())] for part in parts]


@pytest.mark.parametrize("size", ["", ":size=4x3"])
def test_a_mapped_folder_has_the_rows_of_one_in_memory(classes, store, no_decoding, capsys, size):
    (classes / "a/notes.txt").write_text("other files are passed over")
    write(classes / "a/8.png", 1, (6, 5, 3))  # in color: all have three channels then, though some were decoded before
    (classes / "c/broken.png").write_bytes(b"no image")
    found = load_data(f"{classes}{size}", reading=MAPPED)
    said = capsys.readouterr().err
    assert f"Wrote the 25 rows of {classes} to one file in {store / 'cache'}, which may be deleted" in said
    assert "Left out 1 image of 26" in said
    expected = load_data(f"{classes}{size}")
    assert found.event_shape == expected.event_shape == ((3, 4, 3) if size else (3, 6, 5))
    assert (found.class_names, found.kind, found.train.scale) == (("a", "b", "c"), expected.kind, 255.0)
    assert all(map(torch.equal, rows_of(found), rows_of(expected)))
    no_decoding()
    assert all(map(torch.equal, rows_of(load_data(f"{classes}{size}", reading=MAPPED)), rows_of(expected)))
    with pytest.raises(InputError, match="1 of 26 that cannot"):
        load_data(f"{classes}{size}", strict=True, reading=MAPPED)


def test_a_mapped_folder_is_decoded_again_where_it_changed_or_its_copy_is_damaged(flat, store, monkeypatch):
    decoded = []
    decode = decoding.decode
    monkeypatch.setattr(decoding, "decode", lambda *each: decoded.append(each[0]) or decode(*each))
    first = rows_of(load_data(flat, reading=MAPPED))
    assert len(decoded) == 12
    (kept,) = store.glob("cache/*.npy")
    content = kept.read_bytes()
    for broken in (content[:-1], content[:-1] + bytes([content[-1] ^ 1])):
        kept.unlink()
        kept.write_bytes(broken)
        decoded.clear()
        assert all(map(torch.equal, rows_of(load_data(flat, reading=MAPPED)), first))
        assert len(decoded) == 12
    write(flat / "00.png", 77)
    assert not all(map(torch.equal, rows_of(load_data(flat, reading=MAPPED)), first))
    assert len(list(store.glob("cache/*"))) == 2
    write(flat / "zz.png", 1, (4, 4))
    with pytest.raises(InputError, match="images of one size"):
        load_data(flat, reading=MAPPED)
    assert len(list(store.glob("cache/*"))) == 2  # of the last one that was whole
    assert not [path for path in store.glob("cache/.*")]


@pytest.mark.exhaustive
def test_two_processes_that_want_one_folder_decode_it_once(flat, store):
    script = (
        "import sys, time; from pyro_vae.data import Reading, decoding, load_data; decode = decoding.decode\n"
        "say = sys.stdout.write\n"  # a line at a time, for several threads decode
        "decoding.decode = lambda *each: (time.sleep(0.05), say(f'decoded {each[0].name}\\n'), decode(*each))[2]\n"
        "print(int(load_data(sys.argv[1], reading=Reading(memory=65536)).train[:].pixels.sum()))"
    )
    command = [sys.executable, "-c", script, str(flat)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=60)[0].splitlines() for process in both]
    assert sorted(line for lines in said for line in lines[:-1]) == [f"decoded {i:02}.png" for i in range(12)]
    assert said[0][-1] == said[1][-1]
