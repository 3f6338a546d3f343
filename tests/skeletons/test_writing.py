"""Skeletons: as they are written they fit, their own tests pass, and nothing is replaced."""

from __future__ import annotations

import importlib
import re
import sys
import types

import pytest

from pyro_vae.errors import InputError
from pyro_vae.skeletons import write_skeleton
from pyro_vae.skeletons.writing import KINDS
from tests.cli.test_commands import assert_refused
from tests.conftest import FLAGS


@pytest.fixture
def checkout(tmp_path):
    root = tmp_path / "checkout"
    for folder, _ in KINDS.values():
        (root / "pyro_vae" / folder).mkdir(parents=True)
    (root / "tests").mkdir()
    (root / "pyproject.toml").touch()
    return root


@pytest.fixture
def written(checkout, monkeypatch):
    """Write a skeleton and enter it, as importing its package would; returns the names of its test."""

    def write(kind: str, name: str) -> dict:
        folder, registry_name = KINDS[kind]
        registry = getattr(importlib.import_module(f"pyro_vae.{folder}"), registry_name)
        assert name not in registry  # which loads those of other packages
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
        part, test = write_skeleton(kind, name, checkout)
        module = types.ModuleType(f"pyro_vae.{folder}.{name}")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(compile(part.read_text(), part, "exec"), module.__dict__)
        names: dict = {"__name__": f"test_{name}"}
        exec(compile(test.read_text(), test, "exec"), names)
        return names

    return write


@pytest.mark.exhaustive
@pytest.mark.parametrize(("kind", "name"), [*((kind, "mine") for kind in KINDS), ("prior", "a"), ("guide", "guide")])
def test_what_is_written_passes_its_own_test_and_fits(written, kind, name, command, toy_npz):
    names = written(kind, name)
    tests = [names[each] for each in names if each.startswith("test_")]
    assert len(tests) == 2
    for test in tests:
        test()
    flags = ["--model", name] if kind == "model" else ["--model", "vae", f"--{kind}", name]
    result = command("fit", "--data", toy_npz, *flags, *FLAGS, "--out", "run")
    assert result.exit_code == 0, result.stderr
    assert f"{name}" in command("list", KINDS[kind][0]).stdout


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("model", "vae", "expected a name for a new model; got 'vae', which is taken; choose another"),
        ("guide", "base", "got 'base', and there is"),
        ("model", "My-VAE", "small letters, digits and underscores that begins with a letter; got 'My-VAE'; use one"),
        ("model", "class", "got 'class', a word of Python's"),
        ("model", "match", "got 'match', a word of Python's"),
        ("model", "", "got ''"),
        ("model", "../vae", "got '../vae'"),
        ("model", "2d", "got '2d'"),
        ("likelihood", "auto", "got 'auto', which means something else"),
        ("model", "a" * 41, "a name of at most 40"),
        ("modell", "mine", "expected a kind of part; got 'modell'; did you mean 'model'"),
    ],
)
def test_bad_names_are_refused(checkout, kind, name, message):
    (checkout / "pyro_vae/guides/base.py").touch()
    before = sorted(checkout.rglob("*"))
    with pytest.raises(InputError, match=re.escape(message)):
        write_skeleton(kind, name, checkout)
    assert sorted(checkout.rglob("*")) == before


def test_a_test_that_is_there_is_not_replaced(checkout):
    taken = checkout / "tests/models/test_mine.py"
    taken.parent.mkdir()
    taken.write_text("mine")
    with pytest.raises(InputError, match=r"there is .*test_mine.py; choose another"):
        write_skeleton("model", "mine", checkout)
    assert taken.read_text() == "mine"
    assert not (checkout / "pyro_vae/models/mine.py").exists()


def test_a_package_without_its_checkout_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"expected a checkout of pyro_vae, .*; got the package alone, in "):
        write_skeleton("model", "mine", tmp_path)


def test_the_command_says_what_is_next(checkout, command, monkeypatch):
    monkeypatch.setattr("pyro_vae.skeletons.writing.write_skeleton.__defaults__", (checkout,))
    said = command("new", "prior", "mine").stdout
    assert "Next:   python cli.py fit --prior mine\n" in said
    assert (checkout / "pyro_vae/priors/mine.py").is_file()
    assert_refused(command("new", "prior", "mine"), "expected a name for a new prior; got 'mine', and there is")
