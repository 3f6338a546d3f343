"""Exported parts answer as the run does, on any number of rows; what cannot be exported is said, and not written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import pyro_vae
from pyro_vae.errors import InputError
from pyro_vae.export import export_run, formats, writing
from pyro_vae.models import MODELS
from tests.conftest import toy

SETTINGS = {"epochs": 1, "batch_size": 60, "latent_dim": 2, "labels": 6, "display": False, "compile": "off"}
ALONE = """
import sys, torch
program = torch.export.load(sys.argv[1]).module()
print([program(torch.rand(rows, 1, 6, 6))["z"].shape[0] for rows in (1, 9)])
assert "pyro" not in sys.modules
"""


def a_run(model: str, network: str = "mlp:hidden=4", **more):
    x, y = toy()
    return pyro_vae.fit(model, data=(x, y), network=network, classifier="mlp:hidden=4", **SETTINGS, **more)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


class Decoding(nn.Module):
    """A model whose author writes len(x)."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.Linear(2, 3)

    def forward(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("seen", dist.Normal(self.decoder(z), 0.3).to_event(1), obs=x)


class Encoding(nn.Module):
    def __init__(self, looks: bool = False) -> None:
        super().__init__()
        self.encoder, self.looks = nn.Linear(3, 2), looks

    def forward(self, x):
        pyro.module("encoder", self.encoder)
        loc = self.encoder(x)
        if self.looks and loc.sum().item() > 1e9:
            loc = -loc
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(loc, 0.1).to_event(1))


def own(looks: bool = False):
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    settings = {"epochs": 1, "display": False, "compile": "off"}
    return pyro_vae.fit(Decoding(), Encoding(looks), data=x, **settings), x


@pytest.mark.exhaustive
def test_a_program_of_ones_own_is_a_file_that_answers_as_it_does(tmp_path):
    run, x = own()
    files = export_run(run, tmp_path / "new" / "parts", parts="encoder")
    assert [path.name for path in files] == ["encoder.pt2", "torch.json"]
    program = torch.export.load(files[0]).module()
    for rows in (1, 7, 40):
        found = program(x[:rows])
        torch.testing.assert_close(found["z"], run.guide.encoder(x[:rows]).detach())
        assert found["z_sd"].unique().tolist() == [pytest.approx(0.1)]
    about = json.loads(files[1].read_text())
    assert about["parts"]["encoder"]["outputs"]["z"] == {"shape": ["rows", 2], "dtype": "float32", "is": "E[z | x]"}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"to": "tensorrt"}, "expected a format to export to; got 'tensorrt'; choose one of: onnx, torch"),
        ({"parts": ["encodr"]}, "expected a part to export; got 'encodr'; did you mean 'encoder'"),
        ({"parts": []}, "expected parts to export, of encoder, decoder, classifier; got none"),
        ({"parts": ["classifier"]}, "expected a model with class labels, for a classifier"),
        ({"out": None}, "expected a folder to export to; got a run in memory"),
    ],
)
def test_what_is_asked_wrongly_is_said_in_one_line(asked, said, tmp_path):
    run, _ = own()
    with pytest.raises(InputError, match=said.replace("[", r"\[")) as error:
        export_run(run, **({"out": tmp_path / "parts"} | asked))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "parts").exists()


def test_a_program_whose_course_depends_on_values_says_so_and_leaves_nothing(tmp_path, capfd):
    run, _ = own(looks=True)
    with pytest.raises(
        InputError, match=r"expected a program that torch.export can record, for the encoder; got one whose course"
    ):
        export_run(run, tmp_path / "parts")
    assert not (tmp_path / "parts").exists()
    assert capfd.readouterr() == ("", "")


@pytest.mark.exhaustive
def test_a_file_that_answers_otherwise_is_not_left_in_place(tmp_path, monkeypatch):
    run, _ = own()
    before = export_run(run, tmp_path / "parts", parts="encoder")
    kept = contents(tmp_path / "parts")

    class Wrong:
        suffix, needs = ".pt2", ()

        def record(self, part):
            return b"whatever"

        def read(self, content, part):
            return lambda inputs: {name: value + 0.01 for name, value in part(*inputs).items()}

    monkeypatch.setattr(writing, "FORMATS", {"torch": Wrong()})
    with pytest.raises(InputError, match="of the encoder that answers as the run does; got one whose 'z' differs"):
        export_run(run, tmp_path / "parts", parts="encoder")
    assert contents(tmp_path / "parts") == kept
    assert all(path.exists() for path in before)


def test_a_package_that_is_missing_is_named_with_its_extra(tmp_path, monkeypatch):
    run, _ = own()
    monkeypatch.setattr(writing.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"got no onnx; pip install 'pyro-vae\[onnx\]'"):
        export_run(run, tmp_path / "parts", "onnx")


def test_a_place_that_is_a_file_is_refused(tmp_path):
    run, _ = own()
    (tmp_path / "parts").write_text("mine")
    with pytest.raises(InputError, match=r"expected a folder to export to at .*; got a file"):
        export_run(run, tmp_path / "parts")
    assert (tmp_path / "parts").read_text() == "mine"


@pytest.mark.exhaustive
def test_the_command_writes_into_the_run_and_the_files_need_no_pyro(command, fitted):
    result = command("export", fitted, "--part", "encoder")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines() == [f"Wrote {fitted}/export/encoder.pt2", f"Wrote {fitted}/export/torch.json"]
    given = [sys.executable, "-c", ALONE, str(fitted / "export" / "encoder.pt2")]
    assert subprocess.run(given, check=True, capture_output=True, text=True).stdout == "[1, 9]\n"
    wrong = command("export", fitted, "--to", "coreml")
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert len(wrong.stderr.splitlines()) == 1
    assert command("export", fitted.parent).exit_code == 2


@pytest.mark.exhaustive
@pytest.mark.parametrize("model", ["hvae", "ss_vae", "adgm", "cvae"])
def test_parts_of_models_by_name(model, tmp_path):
    run = a_run(model)
    files = {path.stem: path for path in export_run(run, tmp_path)}
    x = run.split("test")[slice(0, 5)].x()
    encoder, decoder = (torch.export.load(files[name]).module() for name in ("encoder", "decoder"))
    site = run.latent_site("z1" if model == "hvae" else None)
    if model != "adgm":  # whose z is given a draw of a
        torch.testing.assert_close(encoder(x)[site], run.encode(x, site))
    z = torch.randn(5, 2)
    given = {"ss_vae": (torch.full((5,), 1),), "adgm": (torch.full((5,), 1),), "cvae": (x,)}.get(model, ())
    named = {"y": 1} if model in ("ss_vae", "adgm") else {"x": x} if model == "cvae" else {}
    torch.testing.assert_close(decoder(z, *given)["mean"], run.decode(z, site, **named))
    if run.probed.has_label:
        probabilities = torch.export.load(files["classifier"]).module()(x)["probabilities"]
        torch.testing.assert_close(probabilities.sum(-1), torch.ones(5))
        if model == "ss_vae":
            torch.testing.assert_close(probabilities, run.class_probabilities(x))


@pytest.mark.exhaustive
@pytest.mark.parametrize(("model", "network"), [("ss_vae", "mlp:hidden=4"), ("vae", "conv:channels=2,dense=4")])
def test_onnx_answers_as_the_run_does(model, network, tmp_path):
    import onnxruntime

    run = a_run(model, network)
    files = {path.name: path for path in export_run(run, tmp_path, "onnx")}
    x = run.split("test")[slice(0, 3)].x()
    session = onnxruntime.InferenceSession(str(files["encoder.onnx"]))
    for rows in (1, 3):
        found = session.run(["z"], {"x": x[:rows].numpy()})[0]
        np.testing.assert_allclose(found, run.encode(x[:rows]).numpy(), atol=1e-5)
    decoder = onnxruntime.InferenceSession(str(files["decoder.onnx"]))
    z = torch.randn(4, 2)
    label = {"y": np.full(4, 2)} if model == "ss_vae" else {}
    found = decoder.run(["mean"], {"z": z.numpy()} | label)[0]
    np.testing.assert_allclose(found, run.decode(z, y=2 if label else None).numpy(), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("to", formats.FORMATS)
@pytest.mark.parametrize("network", ["mlp", "conv", "resnet"])
@pytest.mark.parametrize("model", [name for name in MODELS if name not in ("banana", "linear_gaussian")])
def test_every_model_and_network_in_every_format(model, network, to, tmp_path):
    files = export_run(a_run(model, network), tmp_path, to)
    assert len(files) >= 3
