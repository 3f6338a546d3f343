"""The page of a run as a browser, a reader and an attacker meet it; no browser is needed to look."""

from __future__ import annotations

import errno
import html
import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

import pyro_vae
from pyro_vae.cli.fit import fit as fit_command
from pyro_vae.config import FitConfig
from pyro_vae.diagnostics import verdicts
from pyro_vae.page import build, view, write_page
from pyro_vae.page.advice import ADVICE, ENCODER, FAMILY, UNKNOWN, advice
from pyro_vae.page.plots import Plot, as_svg
from pyro_vae.page.view import commands

HOSTILE = ["<script>alert(1)</script>", "--><img src=x onerror=alert(2)>", "a\"b' & $x^2$ {{ 1 + 1 }} url(#a)"]
CHROMIUM = shutil.which("chromium")
AXE = os.environ.get("AXE_CORE")
LOOK = """axe.run(document).then(found => document.documentElement.setAttribute(
"data-found", JSON.stringify(found.violations.map(each => [each.id, each.impact]))))"""


class Page(HTMLParser):
    """Elements with their attributes and text, headings, and the text as it is read."""

    VOID = ("meta", "img", "br", "path", "use", "image", "rect", "input")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html, self.elements, self.headings, self.text, self._open = html, [], [], "", []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open, tag
        assert self._open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self._open):
            self.text += data

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Path:
    """A run on classes whose names are markup, in a folder whose name is."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    x = (rng.random((60, 4, 4)) < 0.2 + 0.3 * labels[:, None, None]).astype(np.uint8)
    folder = tmp_path_factory.mktemp("page") / "run <b>&amp;"
    np.savez(folder.parent / "data.npz", x=x, y=np.array(HOSTILE)[labels])
    settings = {"latent_dim": 3, "hidden": (8,), "epochs": 2, "labels": 9, "classifier": "mlp"}
    pyro_vae.fit("ss_vae", data=str(folder.parent / "data.npz"), out=folder, display=False, **settings)
    return folder


@pytest.fixture(scope="module")
def vectors(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("page") / "vectors"
    pyro_vae.fit(data="toy", labels="none", latent_dim=2, hidden=(4,), epochs=1, out=folder, display=False)
    return folder


@pytest.fixture(scope="module")
def shown(hostile) -> Page:
    """The page of the hostile run, without a diagnosis."""
    return Page(written(hostile))


def written(*runs: Path) -> str:
    from pyro_vae.page.build import page

    return page([pyro_vae.load(run) for run in runs])


def check_is_well_made(page: Page) -> None:
    assert not page._open
    assert page.headings[0] == 1
    assert page.headings.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(page.headings, page.headings[1:], strict=False))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.elements:
        for name in ("href", "xlink:href"):
            if attributes.get(name, "#").startswith("#"):
                assert attributes.get(name, "#")[1:] in ("", *ids)
        assert attributes.get("aria-labelledby", ids[0]) in ids
        assert not any(name.startswith("on") for name in attributes)
    for used in re.findall(r"url\(#([^)]+)\)", page.html):
        assert used in ids or used == "a"  # the name of a class
    assert all(svg.get("aria-label") and svg["role"] == "img" for svg in page.of("svg"))
    assert all(picture["alt"] for picture in page.of("img"))
    assert all(heading.get("scope") for heading in page.of("th"))
    assert page.html.count("<table") == page.html.count("<caption>")


def check_loads_nothing(page: Page) -> None:
    assert "http" not in page.html
    assert not {"link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in page.elements}
    for _, attributes in page.elements:
        for name in ("src", "srcset", "href", "xlink:href", "data"):
            assert attributes.get(name, "#").startswith(("#", "data:image/"))
    assert "@import" not in page.html
    assert not re.search(r"url\((?!#)", page.html)


def test_the_page_is_whole_and_well_made(shown):
    check_is_well_made(shown)
    check_loads_nothing(shown)
    assert len(shown.html) < 5_000_000
    figures = {attributes["aria-label"] for attributes in shown.of("svg")}
    assert len(figures) == 8  # curves, samples, classes, reconstructions, traversal, latent map, calibration, confusion
    assert "is left out" not in shown.text
    for word in ("NLL", "active units", "calibration error", "--latent-dim 3", "--labels 9", "2 epochs of 2, seed 0"):
        assert word in shown.text


def test_what_users_wrote_is_text(shown, hostile):
    assert shown.of("script") == []
    assert [each for each in shown.of("img") if each.get("src") == "x"] == []
    for name in HOSTILE:
        assert name in shown.text
    assert str(hostile) in shown.text
    assert shown.of("b") == []


@pytest.fixture
def undrawn(monkeypatch):
    """Pages without the figures that take time."""
    plots = dict.fromkeys(("curves", "samples", "classes", "reconstructions", "traversal", "latent", "reliability"))
    nothing = {name: Plot(name, name, reason="not drawn here") for name in [*plots, "confusion"]}
    monkeypatch.setattr(view, "_plots", lambda run, key: nothing)


@pytest.mark.usefixtures("undrawn")
def test_what_is_missing_is_named_with_the_command_that_makes_it(shown, hostile):
    assert "has not been criticised" in shown.text
    assert f"python cli.py diagnose '{hostile}'" in shown.text
    evaluation = hostile / "evaluation.json"
    before = evaluation.read_bytes()
    try:
        evaluation.unlink()
        assert f"python cli.py evaluate '{hostile}'" in Page(written(hostile)).text
    finally:
        evaluation.write_bytes(before)


@pytest.mark.usefixtures("undrawn")
def test_a_diagnosis_is_shown_with_what_to_do(hostile):
    checks = [
        {"name": "Pareto k-hat", "group": "posterior", "verdict": "do not trust", "finding": "<u>0 %</u> of data"},
        {"name": "gap, split", "group": "posterior", "verdict": "trust with care", "finding": "3 nats",
         "approximation_gap": 2.0, "amortization_gap": 1.0},
        {"name": "NUTS", "group": "posterior", "verdict": None, "finding": "no reference"},
        {"name": "latent units", "group": "model", "verdict": "trust", "finding": "3 of 3"},
    ]  # fmt: skip
    content = {"verdict": "do not trust", "checks": checks, "num_data": 60, "split": "test", "num_samples": 10}
    path = hostile / "diagnosis.json"
    try:
        path.write_text(json.dumps(content))
        page = Page(written(hostile))
        check_is_well_made(page)
        assert page.of("u") == []
        for word in ("do not trust", "<u>0 %</u> of data", ADVICE["Pareto k-hat"], FAMILY, "not known"):
            assert word in page.text
        for damaged in ("{", "[]", '{"checks": 3}', '{"checks": [{"name": 1}]}'):
            path.write_text(damaged)
            assert "diagnosis.json cannot be read" in view.criticism_of(pyro_vae.load(hostile)).note
    finally:
        path.unlink()


def test_a_run_that_is_no_picture_shows_the_rest(vectors):
    page = Page(written(vectors))
    check_is_well_made(page)
    assert {attributes["aria-label"] for attributes in page.of("svg")} == {
        "Bound, KL and accuracy over the epochs",
        "Where test data lie in the latent space",
    }
    assert "Samples is left out: expected images of shape (C, H, W)" in page.text
    assert "Accuracy and calibration are left out: expected a model with class labels" in page.text


def test_runs_side_by_side(hostile, vectors, command):
    assert command("report", vectors, hostile, "--out", "deep/both.html").stdout == "Wrote deep/both.html\n"
    page = Page(Path("deep/both.html").read_text())
    check_is_well_made(page)
    check_loads_nothing(page)
    assert len(page.of("script")) == 1
    values = [float(each["data-value"]) for each in page.of("td") if each.get("data-value")]
    evaluations = [json.loads((run / "evaluation.json").read_text()) for run in (vectors, hostile)]
    assert values[0] == evaluations[0]["nll"]
    assert [each["accuracy"] for each in evaluations[1:]] == [values[-2]]
    assert "These runs saw different data: their nats do not compare." in page.text
    assert "latent_dim" in page.text
    assert "batch_size" not in page.text  # which is the same


def test_the_page_lies_in_the_run_or_where_it_is_asked_for(vectors, command):
    shown = json.loads(command("report", vectors, "--json").stdout)
    assert shown == {"runs": [str(vectors)], "page": str(vectors / "report.html")}
    assert Path(shown["page"]).read_text().startswith("<!doctype html>")


def test_a_folder_that_is_no_run_is_refused_before_anything_is_written(vectors, command, tmp_path):
    (tmp_path / "nothing").mkdir()
    (tmp_path / "file").write_text("")
    before = sorted(tmp_path.rglob("*"))
    for runs in (["nothing"], [vectors, "nothing"], ["gone"]):
        result = command("report", *runs, "--out", "page.html")
        assert result.exit_code == 2
        assert result.stderr.count("\n") == 1
        assert "expected a run directory at" in result.stderr
    result = command("report", vectors, "--out", "file/page.html")
    assert (result.exit_code, "a place for a page at file/page.html" in result.stderr) == (2, True)
    for folder in (".", "nothing"):
        result = command("report", vectors, "--out", folder)
        assert (result.exit_code, "got a folder; use" in result.stderr) == (2, True)
    with pytest.raises(ValueError, match="runs with a directory, for a page; got none"):
        write_page([])
    run = pyro_vae.load(vectors)
    run.folder = None
    with pytest.raises(ValueError, match="runs with a directory, for a page; got a run in memory"):
        write_page([run])
    assert command("report").exit_code == 2
    assert sorted(tmp_path.rglob("*")) == before


def test_a_page_that_a_full_disk_does_not_take_is_no_fault_of_its_place(vectors, command, monkeypatch):
    def full(path, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(build, "write_whole", full)
    result = command("report", vectors, "--out", "page.html")
    assert (result.exit_code, "make room on the disk and try again" in result.stderr) == (1, True)


def test_help_shows_two_examples(command):
    assert command("report", "--help").stdout.count("  python cli.py report ") == 2


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"model": "hvae", "hidden": (8, 4), "beta": 0.5, "patience": "none"},
        {"data": "a b.npz", "scale": 255.0},
        {"data": "t.csv", "columns": {"age": "poisson", "a b": "drop"}, "covariates": ("sex", "town")},
    ],
)
def test_the_command_makes_the_same_configuration(settings):
    config = FitConfig(**settings)
    words = commands(config, "runs/mine")[0].removeprefix("python cli.py fit")
    context = fit_command.make_context("fit", shlex.split(words))
    given = {name: value for name, value in context.params.items() if name in FitConfig.model_fields and value}
    assert FitConfig.from_settings(**given) == config


def test_programs_and_arrays_of_ones_own_are_fitted_from_python():
    config = FitConfig(model="mine.Model", guide="mean_field", data="arrays", epochs=3)
    assert commands(config, "run") == ["pyro_vae.fit(model, 'mean_field', data=data, epochs=3)"]


def test_every_check_has_advice():
    named = re.findall(r'(?:Check|_moments)\("([^"]+)"', inspect.getsource(verdicts))
    assert {*named} == {*ADVICE, "gap, split"}
    assert "docs/diagnosis.md" in UNKNOWN
    assert advice({"name": "of tomorrow", "verdict": "do not trust"}) == UNKNOWN
    assert advice({"name": "gap, split", "verdict": "trust with care", "amortization_gap": 1.0}) == ENCODER
    for text in [*ADVICE.values(), FAMILY, ENCODER]:
        for flag in re.findall(r"--([a-z-]+)", text):
            known = {*FitConfig.model_fields, "check", "nuts"}
            assert flag.replace("-", "_") in known, flag


def test_figures_have_names_of_their_own():
    figures = [Figure(), Figure()]
    for figure in figures:
        figure.subplots().plot([0, 1], [0, 1])
    ids = [
        re.findall(r'\sid="([^"]+)"', as_svg(figure, key, "A line")) for figure, key in zip(figures, "ab", strict=True)
    ]
    assert all(ids)
    assert not set(ids[0]) & set(ids[1])


def contrast(first: str, second: str) -> float:
    """The ratio of WCAG 2."""

    def luminance(color: str) -> float:
        shares = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in shares]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_palette_can_be_read_light_dark_and_printed():
    style = (Path(pyro_vae.__file__).parent / "page/templates/style.css").read_text()
    light, dark, paper = (
        dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in re.findall(r":root \{[^}]*\}", style)
    )
    for palette in (light, light | dark, light | paper, light | dark | paper):
        for text, page in [("text", "page"), ("muted", "page"), ("link", "page"), ("text", "card"), ("muted", "card")]:
            assert contrast(palette[text], palette[page]) >= 4.5, (text, page)
        for verdict in ("trust", "care", "refuse", "unknown"):
            assert contrast(palette[f"{verdict}-text"], palette[f"{verdict}-page"]) >= 4.5, verdict
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


@pytest.mark.exhaustive
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_headings_become_buttons_in_a_browser(hostile, vectors, tmp_path):
    path = tmp_path / "both.html"
    path.write_text(written(hostile, vectors))
    assert rendered(path).count('<button type="button">') == 9


def rendered(path, *more):
    """The page after its scripts, as the browser has it."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--dump-dom", *more]
    command = [CHROMIUM, *flags, f"--user-data-dir={path.parent / 'profile'}", path.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=True).stdout


@pytest.mark.exhaustive
@pytest.mark.skipif(CHROMIUM is None or AXE is None, reason="chromium, or axe-core by AXE_CORE, is not there")
@pytest.mark.parametrize("width", [390, 1360])
def test_axe_core_finds_nothing_serious(hostile, vectors, tmp_path, width):
    """AXE_CORE is the path of axe.min.js, of the package axe-core."""
    assert AXE is not None
    scripts = Path(AXE).read_text(encoding="utf-8"), LOOK
    added = "".join(f"<script>{script}</script>" for script in scripts)
    for name, page in (("one", written(hostile)), ("both", written(hostile, vectors))):
        path = tmp_path / f"{name}.html"
        path.write_text(page.replace("</body>", f"{added}</body>"), encoding="utf-8")
        shown = rendered(path, f"--window-size={width},900", "--virtual-time-budget=30000")
        found = re.search('data-found="([^"]*)"', shown)
        assert found is not None, "axe-core did not come to an end"
        violations = json.loads(html.unescape(found[1]))
        assert [name for name, impact in violations if impact in ("serious", "critical")] == []
