"""What the documents show runs, and what they list is what there is."""

from __future__ import annotations

import base64
import re
import shlex
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from nbclient import NotebookClient
from pyro import poutine

import pyro_vae
from pyro_vae.cli.app import main
from pyro_vae.config import FitConfig
from pyro_vae.data import DATA
from pyro_vae.errors import PyroVAEError
from pyro_vae.guides import GUIDES
from pyro_vae.likelihoods import LIKELIHOODS
from pyro_vae.models import MODELS, VAE
from pyro_vae.networks import NETWORKS
from pyro_vae.objectives import OBJECTIVES
from pyro_vae.option_types import shown
from pyro_vae.pairs import Pair
from pyro_vae.presets import PRESETS, preset
from pyro_vae.priors import PRIORS
from pyro_vae.registry import parse_choice
from pyro_vae.runs import fitting
from pyro_vae.runs.assembly import OfShape, build_pair, check_names, resolve_resampling
from pyro_vae.training import RESAMPLINGS, parse_schedule
from pyro_vae.training.automatic import settle
from tests.conftest import EVENT_SHAPE, NUM_CLASSES, SMALL, compatible

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
DOCUMENTS = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
REGISTRIES = {
    "models": (MODELS, RESAMPLINGS),
    "guides": (GUIDES,),
    "priors": (PRIORS,),
    "likelihoods": (LIKELIHOODS,),
    "networks": (NETWORKS,),
    "objectives": (OBJECTIVES,),
}
EVERY_REGISTRY = [registry for registries in REGISTRIES.values() for registry in registries] + [DATA]
EPOCHS = 2  # of a fit that a document shows


def text(document: str) -> str:
    return (ROOT / document).read_text()


def blocks(document: str, language: str = "python") -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text(document), re.DOTALL)


def commands(block: str) -> list[list[str]]:
    """The words after ``python cli.py`` of every command in a block of shell."""
    lines = re.split(r"\n|&&", block.replace("\\\n", " "))
    words = [shlex.split(line, comments=True) for line in lines if "python cli.py " in line]
    return [line[2:] for line in words if line[:2] == ["python", "cli.py"]]


def tables(document: str) -> dict[str, dict[str, str]]:
    """The rows of a document's tables whose first column is headed ``name``, by the name and the column's heading."""
    found: dict[str, dict[str, str]] = {}
    heading: list[str] = []
    for line in text(document).splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if not heading or not cells:
            heading = cells
        elif heading[0] == "name" and (name := re.fullmatch(r"`(\w+)`", cells[0])):
            assert len(cells) == len(heading), line
            found[name[1]] = dict(zip(heading, cells, strict=True))
    return found


def marked(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@pytest.fixture
def play(monkeypatch, tmp_path) -> Callable[..., dict[str, Any]]:
    """Run all Python of a document, in one namespace; fits are short, and registries are left as they were."""
    whole = pyro_vae.fit

    def short(*args: Any, **settings: Any) -> pyro_vae.Run:
        return whole(*args, **(settings | {"epochs": min(settings.get("epochs", EPOCHS), EPOCHS)}))

    def run(document: str) -> dict[str, Any]:
        names: dict[str, Any] = {}
        if document == "docs/extending.md":
            rates = torch.distributions.Gamma(2.0, 1.0).sample((200, 1))
            names["counts"] = torch.distributions.Poisson(rates).sample()
        for block in blocks(document):
            exec(block, names)  # an example of ours, run as a user would
        return names

    monkeypatch.setattr(pyro_vae, "fit", short)
    monkeypatch.chdir(tmp_path)
    for registry in EVERY_REGISTRY:
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    return run


@pytest.mark.exhaustive
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run_from_top_to_bottom(path):
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=200, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}).execute()


def pictures(path: Path) -> list[bytes]:
    cells = nbformat.read(path, as_version=4).cells
    found = [output.get("data", {}).get("image/png") for cell in cells for output in cell.get("outputs", [])]
    return [base64.b64decode(png) for png in found if png]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_committed_as_they_ran(path):
    """``python docs/_site/execute.py NAME`` writes them so."""
    cells = nbformat.read(path, as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert pictures(path)
    assert all(len(picture) <= 60_000 for picture in pictures(path))


def test_the_notebooks_are_small_together():
    assert sum(path.stat().st_size for path in NOTEBOOKS) <= 4_000_000


SEEN_BELOW = {"docs/extending.md", "docs/data.md", "docs/models.md", "docs/ten_minutes.md", "docs/trackers.md"}


# What their blocks call is tested elsewhere.
LONG = ("docs/index.md", "docs/collapse.md", "docs/diagnosis.md", "docs/export.md", "docs/sklearn.md")


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(document, marks=pytest.mark.exhaustive) if document in LONG else document
        for document in DOCUMENTS
        if blocks(document) and document not in SEEN_BELOW
    ],
)
def test_the_python_runs(document, play):
    play(document)


def test_the_programs_of_extending_md(play, x, y):
    names = play("docs/extending.md")
    with names["run"].pair.scope():
        names["guide"](names["counts"])
    isotropic_guide(x)
    mixture_model(x, y)
    assert names["run"].config.model == "gm_vae"
    assert names["p_y"].shape == (400, 10)


def isotropic_guide(x: torch.Tensor) -> None:
    model = VAE(EVENT_SHAPE, 2, network=SMALL)
    guide = GUIDES.build("isotropic", model=model, network=SMALL)
    assert guide.posterior(x).stddev.unique(dim=-1).shape == (7, 1)
    OBJECTIVES["elbo"](Pair(model, guide).probe(x))(x).backward()


def mixture_model(x: torch.Tensor, y: torch.Tensor) -> None:
    """Its joint is the formula's, p(y | z) by Bayes' rule is the linear one, and its bound reaches every parameter."""
    model = MODELS.build(
        "gm_vae:spread=2", event_shape=EVENT_SHAPE, num_classes=NUM_CLASSES, latent_dim=2, network=SMALL
    )
    z, means = torch.randn(7, 2), model.means
    joint = []
    for label in range(NUM_CLASSES):
        given = {"y": torch.full((7,), label), "z": z}
        trace = poutine.trace(poutine.condition(model, data=given)).get_trace(x)
        trace.compute_log_prob()
        joint.append(trace.nodes["y"]["log_prob"] + trace.nodes["z"]["log_prob"])
        normal = torch.distributions.MultivariateNormal(means[label], torch.eye(2))
        torch.testing.assert_close(joint[-1].exp(), normal.log_prob(z).exp() / NUM_CLASSES)
        pixels = torch.distributions.Bernoulli(logits=model.decoder(z)).log_prob(x).flatten(1).sum(-1)
        torch.testing.assert_close(trace.nodes["x"]["log_prob"], pixels)
    linear = z @ means.T - means.square().sum(-1) / 2
    torch.testing.assert_close(torch.stack(joint, -1).softmax(-1), linear.softmax(-1))
    pair = Pair(model, GUIDES.build("mean_field", model=model, network=SMALL))
    (OBJECTIVES["elbo"](pair.probe(x))(x) + OBJECTIVES["elbo"](pair.probe(x))(x, y)).backward()
    assert all(p.grad.abs().sum() > 0 for module in pair.modules().values() for p in module.parameters())


def test_the_python_of_data_md(play):
    names = play("docs/data.md")
    gap = names["run"].evaluate()["nll"] + names["log_evidence"].mean()
    assert -0.05 < gap < 1  # nats; importance weighting leaves the bound a little below the evidence
    hidden, filled, x = names["hidden"], names["filled"].squeeze(1).numpy(), names["x"]
    np.testing.assert_allclose(filled[~hidden], x[~hidden], atol=1e-6)
    assert np.isfinite(filled).all()


def test_the_python_of_models_md(play):
    names = play("docs/models.md")
    figures = names["run"].evaluate(num_samples=1000)
    assert (names["evidence"] + figures["nll"]).abs() < 0.2
    assert (names["gap"] - (names["evidence"] - figures["elbo"])).abs() < 0.5  # one is exact, the other is drawn
    filled, blank = names["filled"], names["blank"]
    left = filled.shape[-1] // 2
    assert torch.equal(filled[..., :left], blank[..., :left])
    assert set((16 * filled).unique().tolist()) <= set(range(17))
    assert (blank[..., left:] == 0.5).all()


class Board:
    """A run of MLflow or of Weights & Biases, as strict as theirs are said to be."""

    def __init__(self) -> None:
        self.parameters: dict[str, str] = {}
        self.rows: dict[int, dict[str, float]] = {}
        self.is_open = True

    def __enter__(self) -> Board:
        return self

    def __exit__(self, *_: object) -> None:
        self.is_open = False

    def log(self, data: dict[str, float], step: int) -> None:
        assert self.is_open
        assert step > max(self.rows, default=0)  # W&B passes over earlier steps
        assert all(type(value) is float for value in data.values())
        self.rows[step] = data


class StandIn(types.ModuleType):
    """What the page calls of both libraries, with their names of arguments, and what they refuse."""

    def __init__(self) -> None:
        super().__init__("stand_in")
        self.boards: dict[str, Board] = {}
        self.active = Board()

    def start_run(self, run_id: str | None = None) -> Board:
        self.active = self.boards.setdefault(run_id or "new", Board())
        self.active.is_open = True
        return self.active

    def log_params(self, params: dict[str, Any]) -> None:
        assert len(params) <= 100
        for name, value in params.items():
            if self.active.parameters.setdefault(name, str(value)) != str(value):
                raise RuntimeError("Changing param values is not allowed")

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self.active.log(metrics, step)

    def init(
        self, project: str, id: str | None, resume: str, reinit: str, config: dict, allow_val_change: bool
    ) -> Board:
        assert resume in ("allow", "never", "must", "auto")
        assert reinit in ("default", "return_previous", "finish_previous", "create_new")
        assert not set(id or "") & set("/\\#?%:")
        self.active.is_open = False
        board = self.start_run(id)
        assert allow_val_change or not board.parameters
        board.parameters |= {name: str(value) for name, value in config.items()}
        return board

    def finish(self) -> None:
        self.active.is_open = False


@pytest.mark.exhaustive
def test_the_python_of_trackers_md(play, monkeypatch):
    """Each epoch reaches its board once, also those after a run is resumed with more epochs than it had."""
    mlflow, wandb = StandIn(), StandIn()
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    names = play("docs/trackers.md")
    with mlflow.start_run(run_id="new"):
        pyro_vae.resume("mlflow_run", epochs=3, trackers=[names["MLflow"]()], display=False)
    pyro_vae.resume("wandb_run", epochs=3, trackers=[names["WandB"]()], display=False)
    for path, board in (("mlflow_run", mlflow.boards["new"]), ("wandb_run", wandb.boards["wandb_run"])):
        history = pyro_vae.load(path).history.set_index("epoch")
        assert list(board.rows) == [1, 2, 3]
        assert all(row["train_loss"] == history.train_loss[step] for step, row in board.rows.items())
        assert board.parameters["hidden"] == "(16,)"
    assert wandb.boards["wandb_run"].parameters["epochs"] == "3"


@pytest.mark.parametrize("kind", REGISTRIES)
def test_the_tables_name_what_there_is(kind):
    """Every entry has a row and every row an entry, with its options at their defaults, all of them and no others."""
    rows = tables(f"docs/{kind}.md")
    entries = {name: registry for registry in REGISTRIES[kind] for name in registry}
    assert rows.keys() == entries.keys()
    for name, registry in entries.items():
        said = dict(option.split("=") for option in marked(rows[name].get("options", "")))
        assert said == {option: shown(default) for option, default in registry.options(name).items()}, name


def test_every_preset_and_data_set_has_a_row():
    assert tables("docs/presets.md").keys() == set(PRESETS)
    assert tables("docs/data.md").keys() == set(DATA)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_choices_exist(document):
    """``name:option=value`` anywhere, of a name that is registered, is one that its registry takes."""
    code = [*marked(re.sub(r"```.*?```", "", text(document), flags=re.DOTALL)), *blocks(document, "sh")]
    for word in " ".join(code).split():
        name, options = parse_choice(word)
        homes = [registry for registry in EVERY_REGISTRY if name in registry]
        if options and homes:
            assert any(options.keys() <= registry.options(name).keys() for registry in homes), word
            assert any(_takes(registry, word) for registry in homes), word
        if re.fullmatch(r"(linear|cyclical):[\d.:]+", word):
            parse_schedule(word)


def _takes(registry: Any, choice: str) -> bool:
    try:
        registry.check(choice)
    except PyroVAEError:
        return False
    return True


SHAPES = {
    "digits": (1, 8, 8),
    "mnist": (1, 28, 28),
    "fashion_mnist": (1, 28, 28),
    "celeba": (3, 64, 64),
    "sprites": (1, 32, 32),
    "toy": (5,),
}


@pytest.fixture
def understood(command, monkeypatch) -> Callable[[list[str]], FitConfig]:
    """The configuration that a ``fit`` command means, of parts that go together on data of that shape; not trained."""
    seen: list[FitConfig] = []

    def put_together(**settings: Any) -> None:
        config = FitConfig.from_settings(
            **{key: value for key, value in settings.items() if key in FitConfig.model_fields}
        )
        check_names(config, config.model, config.guide)
        data, options = DATA.check(config.data)
        shape = (SHAPES[data][0], options["size"], options["size"]) if "size" in options else SHAPES[data]
        classes = {"toy": None, "celeba": 2 if options.get("attribute") else None}.get(data, 10)
        pair = build_pair(config, OfShape(shape, classes), config.model, config.guide)
        probed = pair.probe(torch.zeros(2, *shape))
        OBJECTIVES.build(config.objective, probed=probed, num_data=100)
        resolve_resampling(config, pair).check(probed)
        parse_schedule(settle(config, 10, bool(probed.enumerated)).beta)
        seen.append(config)
        raise PyroVAEError("understood")

    def run(words: list[str]) -> FitConfig:
        result = command(*words)
        assert result.stderr == "Error: understood\n", (words, result.output)
        return seen[-1]

    monkeypatch.setattr(fitting, "fit", put_together)
    return run


@pytest.mark.parametrize("document", [each for each in DOCUMENTS if each != "docs/ten_minutes.md"])  # which is run
def test_commands_are_understood(document, understood):
    for block in blocks(document, "sh"):
        for words in commands(block):
            data = words[words.index("--data") + 1] if "--data" in words else "digits"
            if words[0] == "fit" and "--resume" not in words and parse_choice(data)[0] in DATA:  # files are below
                understood(words)


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", *DOCUMENTS])
def test_commands_have_these_options(document):
    """Every command in a block or a sentence, its options, and the names that some of them choose from."""
    said = [*blocks(document, "sh"), *blocks(document, "text")]
    said += [code for code in marked(text(document)) if code.startswith("python cli.py ")]
    for words in [words for block in said for words in commands(block)]:
        if words[0] != "--help":
            main.commands[words[0]].make_context(words[0], words[1:], resilient_parsing=True)


TINY = {
    "fit": ["--epochs", "2", "--hidden", "16"],
    "diagnose": ["--num-data", "20", "--samples", "100", "--simulated", "40", "--split-gap", "4"],
}
# On the way of a newcomer, beside the ten minutes.  Fits of images from elsewhere are understood above, and ``.ci/run``
# runs the two commands that install.
PATH = [
    *(
        pytest.param(each, marks=pytest.mark.exhaustive)
        for each in ("README.md", "docs/data.md", "docs/likelihoods.md")
    ),
    pytest.param("docs/report.md", marks=pytest.mark.slow),  # as tests/page and tests/export do
    pytest.param("docs/export.md", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("document", PATH)
def test_the_commands_are_run(document, command, fitted_once, tmp_path):
    """As the page has them, with short fits, on small runs and files of the names that it gives them."""
    if document == "README.md":  # which fits the run that it goes on with
        Path("runs").mkdir()
    else:
        shutil.copytree(fitted_once[0], "runs/digits")
    for name in ("RUN", "RUN1", "RUN2"):
        Path(name).symlink_to("runs/digits")
    rng = np.random.default_rng(0)
    np.save("faces.npy", rng.random((60, 8, 8), dtype=np.float32))
    people = {"visits": rng.poisson(2.0, 60), "height": rng.normal(170.0, 9.0, 60), "id": np.arange(60)}
    pd.DataFrame(people).to_csv("people.csv", index=False)
    Path("columns.json").write_text('{"visits": "poisson", "id": "drop"}')
    elsewhere = ("mnist", "celeba", "fashion_mnist")
    ran = 0
    shown = [block for block in blocks(document, "sh") if "pip install" not in block]
    for words in [words for block in shown for words in commands(block)]:
        if any(choice.partition(":")[0] in elsewhere for choice in words):
            continue
        fewer = ["--nuts", "0"] if "--nuts" in words else []  # chains take minutes
        result = command(*words, *TINY.get(words[0], []), *fewer)
        assert result.exit_code == 0, (words, result.output)
        ran += 1
    assert ran


@pytest.mark.exhaustive
def test_the_ten_minutes_are_run(command, play):
    """Every command and block of the page in its order, with short fits; the README's test installs."""
    page = text("docs/ten_minutes.md")
    (install,) = [line for line in blocks("docs/ten_minutes.md", "sh")[0].splitlines() if line]
    assert f"{install} && " in text("README.md")
    names: dict[str, Any] = {}
    for language, block in re.findall(r"```(sh|python)\n(.*?)```", page, re.DOTALL):
        if language == "python":
            exec(block, names)
        for words in commands(block) if language == "sh" else ():
            result = command(*words, *TINY.get(words[0], ()))
            assert result.exit_code == 0, (words, result.output)
    assert Path("runs/digits/report.html").stat().st_size > 100_000
    assert Path("runs/both.html").exists()


def test_presets_are_what_they_are_said_to_be(understood):
    said = re.findall(r"```sh\n([^`]*?)```\n\nis\n\n```sh\n([^`]*?)```", text("docs/presets.md"))
    names = []
    for short, long in said:
        (by_name,), (in_full,) = commands(short), commands(long)
        names.append(by_name[-1])
        one, other = understood(by_name), understood(in_full)
        assert one.beta == pytest.approx(other.beta)
        assert one.model_copy(update={"beta": 1.0}) == other.model_copy(update={"beta": 1.0})
        flags = {word[2:].replace("-", "_") for word in in_full if word.startswith("--")}
        assert flags == preset(by_name[-1]).keys()
    assert sorted(names) == sorted(PRESETS)


@pytest.mark.exhaustive
def test_the_tables_name_the_pairs_that_are_refused():
    with_models, with_guides = compatible()["models"], compatible()["guides"]
    assert not any(reason for row in with_models["guides"].values() for reason in row.values())
    for name, row in tables("docs/objectives.md").items():
        reasons = with_models["objectives"][name] | with_guides["objectives"][name]
        assert set(marked(row["refuses"])) == {other for other, reason in reasons.items() if reason}, name
    for name, row in tables("docs/priors.md").items():
        reasons = with_guides["priors"][name]
        assert set(marked(row["guides that it refuses"])) == {other for other, reason in reasons.items() if reason}


def test_links_lead_somewhere():
    for document in ["CONTRIBUTING.md", *DOCUMENTS]:
        for target, heading in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", text(document)):
            if target.startswith("http"):
                continue
            path = (ROOT / document).parent / target if target else ROOT / document
            assert path.exists(), f"{document}: {target}"
            headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE) if heading else []
            anchors = {re.sub(r"[^\w -]", "", words.lower()).replace(" ", "-") for words in headings}
            assert not heading or heading in anchors, f"{document}: {target}#{heading}"
