from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Collection, Iterable, Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pyro
import pytest
import torch
from click.testing import CliRunner, Result
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

import pyro_vae
from pyro_vae.cli import main
from pyro_vae.compiled import lowering, payoff, recorded_graph
from pyro_vae.files.whole import write_picture
from pyro_vae.guides import GUIDES, MeanField
from pyro_vae.likelihoods import Gaussian
from pyro_vae.models import MODELS, VAE
from pyro_vae.networks import MLP, Network
from pyro_vae.pairs import Pair
from pyro_vae.priors import PRIORS
from pyro_vae.runs import compatibility

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of processes that tests start: two at once would wait for each other

EVENT_SHAPE = (1, 4, 4)
NUM_CLASSES = 3
SMALL = MLP(hidden=(16,))
USUAL = {"vae", "mean_field", "normal", "unlabelled", "whole"}
VARIANTS = {"sdgm"}  # of adgm
ALSO = ({"ss_vae", "iaf"}, {"ss_vae", "labelled"})  # an enumerated label under a flow, and a known one
ROWS = ["unlabelled", "labelled"]
COLOURS = 4


def combinations(*registries: Iterable[str], colours: Collection[int] = (0, 2)) -> list:
    """Every combination of names: by default each name with the usual ones.  The rest are coloured by their diagonals,
    in turn: those of the colours given are exhaustive, the others slow.  Each name is in some combination of every
    colour, and laws of different colours see all combinations between them.
    """

    def is_usual(names: tuple[str, ...]) -> bool:
        unusual = {*names} - USUAL
        return (len(unusual) <= 1 or unusual in ALSO) and not unusual & VARIANTS

    def marks(names: tuple[str, ...], colour: int) -> tuple[pytest.MarkDecorator, ...]:
        if is_usual(names):
            return ()
        is_exhaustive = colour % COLOURS in colours and not {*names} & VARIANTS
        return (pytest.mark.exhaustive if is_exhaustive else pytest.mark.slow,)

    numbered = product(*(enumerate(registry) for registry in registries))
    named = (([i for i, _ in square], tuple(name for _, name in square)) for square in numbered)
    return [pytest.param(*names, marks=marks(names, sum(place))) for place, names in named]


PAIRS = combinations(MODELS, GUIDES)


@pytest.fixture(autouse=True)
def _clean_slate() -> Iterator[None]:
    """Every test starts from the same seed and must leave Pyro's global state as it was."""
    pyro.clear_param_store()
    torch.manual_seed(0)
    payoff.Credit.shared = payoff.RECORDED_BY_ALL
    validation, of_arguments = pyro.settings.get("validate_poutine"), torch.distributions.Distribution._validate_args
    yield
    torch.distributions.Distribution.set_default_validate_args(of_arguments)  # torch.compile switches it off for good
    assert pyro.settings.get("validate_poutine") == validation


@pytest.fixture(autouse=True)
def _undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures that a fit and a diagnosis write by themselves are made and not drawn, which takes half of a small
    fit, but for tests marked with "draws".
    """
    if request.node.get_closest_marker("draws") is None:
        monkeypatch.setattr("pyro_vae.runs.report.save_figure", _save_undrawn)
        monkeypatch.setattr("pyro_vae.runs.diagnosis.save_figure", _save_undrawn)


def _save_undrawn(figure: Figure, path: Path) -> None:
    """Write a picture of one pixel in the place of a figure."""
    assert isinstance(figure, Figure)
    write_picture(path, lambda aside: Image.new("L", (1, 1)).save(aside, format="png"))


def make_pair(model: str = "vae", guide: str = "mean_field", seed: int = 0, prior: str | None = None) -> Pair:
    """A small pair by name, on images of EVENT_SHAPE."""
    torch.manual_seed(seed)
    parts = {"network": SMALL, "prior": None if prior is None else PRIORS.build(prior, latent_dim=2)}
    program = MODELS.build(model, event_shape=EVENT_SHAPE, num_classes=NUM_CLASSES, latent_dim=2, **parts)
    return Pair(program, GUIDES.build(guide, model=program, network=SMALL))


@functools.cache
def compatible() -> dict[str, dict[str, compatibility.Reasons]]:
    """What ``list --pairs`` tries: all parts together, which takes long enough to be done once."""
    return {"models": compatibility.with_models(), "guides": compatibility.with_guides()}


@pytest.fixture
def x() -> torch.Tensor:
    """Seven binary images."""
    generator = torch.Generator().manual_seed(1)
    return (torch.rand(7, *EVENT_SHAPE, generator=generator) < 0.5).float()


@pytest.fixture
def y() -> torch.Tensor:
    """Their labels."""
    return torch.arange(7) % NUM_CLASSES


class LinearNetwork(Network):
    """One linear map, so that a Gaussian VAE is probabilistic PCA, with its closed forms."""

    def encoder(self, shapes):
        network = nn.Sequential(nn.Identity())
        network.num_features = shapes[0][0]
        return network

    def decoder(self, sizes, event_shape):
        return nn.Linear(sizes[0], event_shape[0])


class LinearGaussian:
    """A VAE with a linear decoder, x ~ N(W z + b, s^2), and what is known of it exactly."""

    def __init__(self, data_dim: int = 5, latent_dim: int = 2, scale: float = 0.5) -> None:
        torch.manual_seed(3)
        likelihood = Gaussian((data_dim,), scale=scale)
        self.model = VAE((data_dim,), latent_dim, likelihood=likelihood, network=LinearNetwork())
        self.guide = MeanField(self.model, network=LinearNetwork())
        self.pair = Pair(self.model, self.guide)
        self.probed = self.pair.probe(torch.zeros(2, data_dim))
        self.w = self.model.decoder.weight.detach()
        self.b = self.model.decoder.bias.detach()
        self.variance = scale**2

    def sample(self, num_data: int) -> torch.Tensor:
        z = torch.randn(num_data, self.w.shape[1])
        return z @ self.w.T + self.b + self.variance**0.5 * torch.randn(num_data, len(self.b))

    def evidence(self, x: torch.Tensor) -> torch.Tensor:
        """log p(x), nats, shape (N,)."""
        covariance = self.w @ self.w.T + self.variance * torch.eye(len(self.b))
        return torch.distributions.MultivariateNormal(self.b, covariance).log_prob(x)

    def posterior(self, x: torch.Tensor) -> torch.distributions.MultivariateNormal:
        """p(z | x)."""
        precision = torch.eye(self.w.shape[1]) + self.w.T @ self.w / self.variance
        mean = torch.linalg.solve(precision, ((x - self.b) @ self.w / self.variance).T).T
        return torch.distributions.MultivariateNormal(mean, precision_matrix=precision)


@pytest.fixture
def linear_gaussian() -> LinearGaussian:
    return LinearGaussian()


def toy() -> tuple[np.ndarray, np.ndarray]:
    """Sixty 6x6 gray images in [0, 1] of three classes: a bright row whose place is the class."""
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    x = rng.uniform(0, 0.2, (60, 6, 6)).astype(np.float32)
    x[np.arange(60), 2 * y] += 0.75
    return x, y


@pytest.fixture
def toy_arrays() -> tuple[np.ndarray, np.ndarray]:
    return toy()


@pytest.fixture
def toy_npz(tmp_path, toy_arrays) -> str:
    path = tmp_path / "toy.npz"
    np.savez(path, x=toy_arrays[0], y=toy_arrays[1])
    return str(path)


@pytest.fixture
def uncompiled(monkeypatch):
    """Recordings run as they are: for tests of what is recorded when, which are no tests of the compiler."""
    monkeypatch.setattr(payoff, "RECORDED_AT_ONCE", 10**6)
    monkeypatch.setattr(payoff.Credit, "shared", 1e9)

    def run_as_recorded(recording, inputs):
        recording.graph.recompile()

        def run(values):
            with torch.no_grad():
                return tuple(recording.graph(*values, *recording.held))

        return run

    for module in (recorded_graph, lowering):
        monkeypatch.setattr(module, "compile_recording", run_as_recorded)


@pytest.fixture
def at_once(monkeypatch):
    """Graphs of the estimators are recorded at the second call, and compiled when they first run."""
    monkeypatch.setattr(payoff, "RECORDED_AT_ONCE", 10**6)
    monkeypatch.setattr(payoff.Credit, "shared", 1e9)
    monkeypatch.setattr(payoff.CompileEstimate, "is_due", True)


@pytest.fixture(params=["recorded", pytest.param("compiled", marks=pytest.mark.exhaustive)])
def graph(request):
    """Recordings run as they are; the exhaustive run has each test once more, with all that it records compiled."""
    if request.param == "recorded":
        request.getfixturevalue("uncompiled")
    else:
        request.getfixturevalue("at_once")


compiled_too = pytest.mark.parametrize("graph", ["recorded", "compiled"], indirect=True)  # in the default run as well

FAST = {"epochs": 2, "batch_size": 20, "hidden": (8,), "latent_dim": 2, "labels": 6}
FLAGS = ["--epochs", 2, "--batch-size", 20, "--hidden", "8", "--latent-dim", 2, "--labels", 6]


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Run the command line in a folder of its own; gives click's result."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("PYRO_VAE_") and name != "PYRO_VAE_DATA"]:
        monkeypatch.delenv(name)

    def run(*words: object) -> Result:
        return CliRunner().invoke(main, [str(word) for word in words])

    return run


@pytest.fixture(scope="session")
def fitted_once(tmp_path_factory) -> tuple[Path, str]:
    """The folder of a small semi-supervised run, not to be changed, and the file of its data."""
    folder = tmp_path_factory.mktemp("fitted")
    x, y = toy()
    np.savez(folder / "toy.npz", x=x, y=y)
    data = str(folder / "toy.npz")
    return pyro_vae.fit("ss_vae", data=data, out=folder / "run", display=False, **FAST).path, data


@pytest.fixture
def fitted(command, fitted_once, toy_npz, tmp_path) -> Path:
    """A copy of that run, as if fitted on this test's own file."""
    original, data = fitted_once
    run = tmp_path / "run"
    shutil.copytree(original, run)
    for path in run.glob("*.json"):
        path.write_text(path.read_text().replace(data, toy_npz))
    return run
