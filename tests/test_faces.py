"""The faces of the packages: what they hand on, what importing them loads, and that documents use nothing else."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import pkgutil
import re
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import pyro_vae

ROOT = Path(__file__).parents[1]
FACES = [name for _, name, is_package in pkgutil.iter_modules(pyro_vae.__path__) if is_package]
PRIVATE = ("cli", "runs")  # to nobody but this package
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("notebooks/*.ipynb"),
    *ROOT.glob("examples/*.py"),
]


def loaded_by(statement: str) -> set[str]:
    """The modules that a new process holds after a statement."""
    program = f"import sys; {statement}; print(*sys.modules)"
    return set(
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    )


@pytest.mark.parametrize("face", [face for face in FACES if face != "inference"])
def test_every_name_is_there_and_is_not_hidden_by_a_module(face):
    package = importlib.import_module(f"pyro_vae.{face}")
    for module in pkgutil.iter_modules(package.__path__):
        if module.name == "__main__":
            continue
        importlib.import_module(f"{package.__name__}.{module.name}")
    for name in getattr(package, "__all__", ()):
        if face != "cli":
            assert not isinstance(getattr(package, name), type(sys)), name
    assert set(getattr(package, "__all__", ())) <= set(dir(package))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        package.nothing  # noqa: B018


def test_the_package_loads_no_torch():
    assert not {"torch", "pyro", "pydantic", "matplotlib"} & loaded_by("import pyro_vae")


def test_data_are_read_without_what_few_bring():
    assert not {"sklearn", "scipy", "arviz", "polars", "zarr"} & loaded_by("import pyro_vae.data")


def test_the_compiler_knows_torch_pyro_and_numpy_alone():
    loaded = loaded_by("import pyro_vae.compiled")
    assert not loaded & {"sympy", "pyro_vae.compiled.tracing", "pyro_vae.compiled.lowering"}  # until a call is recorded
    ours = {name.split(".")[1] for name in loaded if name.startswith("pyro_vae.")}
    assert ours <= {"compiled", "lazy", "notes"}
    assert not {"pandas", "pydantic", "rich", "click", "matplotlib", "sklearn", "scipy", "arviz", "xarray"} & loaded


def test_the_old_names_are_handed_on_with_a_warning():
    from pyro_vae import inference

    assert len(inference.__all__) == 25
    for name in inference.__all__:
        with pytest.warns(DeprecationWarning, match=rf"pyro_vae\.inference\.{name} is now pyro_vae\.\w+\.{name}"):
            found = getattr(inference, name)
        assert found is not None
    with pytest.warns(DeprecationWarning, match=r"is now pyro_vae\.compiled\.CompiledTrace_ELBO"):
        from pyro_vae.inference.compiled import CompiledTrace_ELBO
    assert CompiledTrace_ELBO is pyro_vae.compiled.CompiledTrace_ELBO


SINGLE = ("columns", "conditionals", "config", "errors", "lazy", "option_types", "registry")
OPEN = [*(name for name in FACES if name not in (*PRIVATE, "inference")), *SINGLE]
NAMES_NOTHING = ("As", "From", "How", "It", "Its", "Of", "That", "The same", "Their", "They", "Those", "What", "Where")


def classes_and_functions(face: str) -> dict[str, object]:
    """Those that a face hands on."""
    module = importlib.import_module(f"pyro_vae.{face}")
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
    names = getattr(module, "__all__", [name for name in own if not name.startswith("_")])
    things = {name: getattr(module, name) for name in names}
    return {name: thing for name, thing in things.items() if inspect.isclass(thing) or inspect.isfunction(thing)}


@pytest.mark.parametrize("face", OPEN)
def test_every_public_name_has_an_example(face):
    assert [name for name, thing in classes_and_functions(face).items() if ">>>" not in (thing.__doc__ or "")] == []


@pytest.mark.parametrize("face", OPEN)
def test_the_first_line_of_a_docstring_names_its_thing(face):
    found = {}
    for name, thing in classes_and_functions(face).items():
        found[name] = thing.__doc__
        for own, member in vars(thing).items() if inspect.isclass(thing) else ():
            member = (
                getattr(member, "fget", None) or getattr(member, "__func__", None) or getattr(member, "func", member)
            )
            if inspect.isfunction(member) and not own.startswith("_"):
                found[f"{name}.{own}"] = member.__doc__
    lines = {name: text.strip().splitlines()[0] for name, text in found.items() if text}
    vague = re.compile(rf"(?:{'|'.join(NAMES_NOTHING)})\b|.{{1,2}}$")
    assert {name: line for name, line in lines.items() if vague.match(line)} == {}


NOT_SAID = re.compile(
    r"(?:is|are|was|were) no (?:numbers?|images?|pictures?|labels?|Markov)|unless given|, say[,.)]"
    r"|\b(?:numbers?|verdicts?|draws?) an? (?:draw|datum|image|epoch|run|check|chain|class)\b(?! is)"
)


@pytest.mark.parametrize("place", [*DOCUMENTS, ROOT / "pyro_vae"], ids=lambda path: path.name)
def test_the_words_are_those_of_the_design(place):
    for path in [place] if place.is_file() else sorted(place.rglob("*.py")):
        lines = [line for line in path.read_text().splitlines() if not line.startswith("|")]  # the table itself
        found = [line.strip() for line in lines if NOT_SAID.search(line) and "there " not in line.lower()]
        assert found == [], path


def test_the_house_keeps_its_measures():
    """More is a second room, or a second function; parameters are counted by ruff."""
    modules = sorted((ROOT / "pyro_vae").rglob("*.py"))
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in modules}
    assert len(list((ROOT / "pyro_vae").glob("*.py"))) <= 10
    assert {path: length for path, length in lengths.items() if length > 400} == {}
    assert statistics.median(lengths.values()) <= 150
    for path in modules:
        functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
        assert [node.name for node in functions if node.end_lineno - node.lineno >= 50] == [], path


def test_the_design_has_every_room_on_its_floor():
    layers = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]["layers"]
    floors = {place: set(layer.split(" | ")) for place, layer in enumerate(reversed(layers), 1)}
    rows = re.findall(r"^\| (\d+) \| (`.*?`) \|", (ROOT / "docs/design.md").read_text(), re.MULTILINE)
    told: dict[int, set[str]] = {}
    for floor, rooms in rows:
        told.setdefault(int(floor), set()).update(re.findall(r"`(\w+)`", rooms))
    assert told == floors


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documents_import_from_the_faces_alone(document):
    text = document.read_text()
    if document.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    public = {"pyro_vae", *(f"pyro_vae.{name}" for name in {*FACES, *SINGLE} - {*PRIVATE, "inference"})}
    for module in re.findall(r"^\s*(?:from|import) (pyro_vae[\w.]*)", text, re.MULTILINE):
        assert module in public, module
