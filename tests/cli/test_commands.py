"""The command line as a user meets it: what it prints, what it writes, and how it refuses."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pyro_vae.config import FitConfig
from pyro_vae.runs import fitting, report
from pyro_vae.runs.display import Silent
from tests.conftest import FLAGS
from tests.runs.checkpoint_files import training_file, weights_file

ROOT = Path(__file__).parents[2]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_fit_prints_a_table_where_the_run_lies_and_what_next(command, toy_npz, tmp_path):
    result = command("fit", "--model", "ss_vae", "--data", toy_npz, *FLAGS)
    assert result.exit_code == 0, result.stderr
    for word in (
        "elbo",
        "nll",
        "accuracy",
        "Run:     runs/ss_vae-toy",
        "Next:    python cli.py evaluate runs/ss_vae-toy",
    ):
        assert word in result.stdout
    for name in ("elbo", "samples", "reconstructions", "classes"):
        assert (tmp_path / "runs/ss_vae-toy/figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    again = command("fit", "--model", "ss_vae", "--data", toy_npz, *FLAGS)
    assert "Run:     runs/ss_vae-toy-2" in again.stdout


def test_fit_json_is_one_object_and_nothing_else(command, toy_npz):
    result = command("fit", "--data", toy_npz, *FLAGS, "--json", "--out", "run")
    content = json.loads(result.stdout)
    assert content["run"] == "run"
    assert content["epochs"] == 2


def test_evaluate_json(command, fitted):
    content = json.loads(command("evaluate", fitted, "--samples", 5, "--json").stdout)
    expected = {"model", "guide", "data", "split", "num_data", "elbo", "log_likelihood", "kl", "nll", "num_samples",
                "nll_standard_error", "effective_samples", "active_units", "seconds", "accuracy", "error_percent",
                "ece", "findings"}  # fmt: skip
    assert set(content) == expected
    assert (content["model"], content["guide"], content["split"]) == ("ss_vae", "mean_field", "test")
    assert (content["num_data"], content["num_samples"]) == (6, 5)
    assert content["elbo"] == pytest.approx(content["log_likelihood"] - content["kl"])
    assert json.loads((fitted / "evaluation.json").read_text()) == content


def test_evaluate_other_splits_and_checkpoints(command, fitted):
    result = command("evaluate", fitted, "--split", "validation", "--checkpoint", "last", "--samples", 2)
    assert result.exit_code == 0
    assert "validation set" in result.stdout


def test_sample_and_reconstruct_write_pictures(command, fitted, tmp_path):
    assert command("sample", fitted, "--num", 4).stdout.strip() == f"Wrote {fitted}/figures/samples.png"
    assert command("sample", fitted, "--num", 4, "--label", "2", "--out", "deep/two.png").exit_code == 0
    shown = json.loads(command("reconstruct", fitted, "--num", 3, "--json").stdout)
    for path in ("deep/two.png", shown["figure"]):
        assert (tmp_path / path).read_bytes().startswith(b"\x89PNG")


def test_info(command, fitted):
    table = command("info", fitted).stdout
    assert "2 of 2" in table
    assert "48 train, 6 validation and 6 test rows" in table
    content = json.loads(command("info", fitted, "--json").stdout)
    assert content["config"]["model"] == "ss_vae"
    assert content["epochs"] == 2
    assert content["data"]["class_names"] == ["0", "1", "2"]


def test_list(command):
    everything = command("list").stdout
    for name in ("ss_vae", "mean_field", "normal", "bernoulli", "mlp", "elbo", "digits"):
        assert name in everything
    content = json.loads(command("list", "models", "--json").stdout)
    assert set(content["models"]) >= {"vae", "ss_vae"}
    assert "\\x" not in everything
    (line,) = (line for line in everything.splitlines() if "iaf:num_transforms=2" in line)
    assert line.strip() == "iaf:num_transforms=2"  # a line of its own, below what it is
    assert json.loads(command("list", "guides", "--json").stdout)["guides"]["low_rank"]["options"] == {"rank": 2}


def test_config_file_and_flags(command, toy_npz, tmp_path):
    settings = {"data": toy_npz, "epochs": 1, "hidden": [8], "batch_size": 20, "seed": 3}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    assert command("fit", "--config", "settings.json", "--epochs", 2, "--out", "run").exit_code == 0
    config = json.loads((tmp_path / "run/config.json").read_text())["config"]
    assert (config["epochs"], config["seed"], config["data"]) == (2, 3, toy_npz)
    assert command("fit", "--config", "run/config.json", "--out", "again").exit_code == 0
    assert json.loads((tmp_path / "again/config.json").read_text())["config"] == config


def test_environment_variables_set_defaults(command, toy_npz, monkeypatch, tmp_path):
    monkeypatch.setenv("PYRO_VAE_SEED", "7")
    monkeypatch.setenv("PYRO_VAE_EPOCHS", "9")
    assert command("fit", "--data", toy_npz, *FLAGS, "--out", "run").exit_code == 0
    config = json.loads((tmp_path / "run/config.json").read_text())["config"]
    assert (config["seed"], config["epochs"]) == (7, 2)


def test_a_config_file_wins_over_the_environment_and_a_run_over_both(command, toy_npz, monkeypatch, tmp_path):
    (tmp_path / "settings.json").write_text(json.dumps({"seed": 3}))
    monkeypatch.setenv("PYRO_VAE_SEED", "7")
    assert command("fit", "--data", toy_npz, *FLAGS, "--config", "settings.json", "--out", "run").exit_code == 0
    assert json.loads((tmp_path / "run/config.json").read_text())["config"]["seed"] == 3
    assert command("fit", "--resume", "run", "--epochs", 3).exit_code == 0


def test_damaged_files_of_a_run_are_refused(command, fitted):
    def damage(name):
        content = (fitted / name).read_text()
        (fitted / name).write_text(content[: len(content) // 2].replace(",", ";"))
        return content

    whole = command("info", "run").stdout
    damage("history.csv")  # of which the checkpoint has a copy
    assert command("info", "run").stdout == whole
    for name, words in (("evaluation.json", ("info", "run")), ("config.json", ("evaluate", "run"))):
        content = damage(name)
        assert_refused(command(*words), f"expected a file that fit wrote at run/{name}")
        (fitted / name).write_text(content)
    config = json.loads((fitted / "config.json").read_text())
    (fitted / "config.json").write_text(json.dumps(config | {"data": {}}))
    assert_refused(command("evaluate", "run"), "expected a file that fit wrote")


def test_resume_from_the_command_line(command, fitted):
    result = command("fit", "--resume", fitted, "--epochs", 3)
    assert result.exit_code == 0, result.stderr
    assert len((fitted / "history.csv").read_text().splitlines()) == 4


def test_overwrite_replaces_a_run(command, toy_npz, fitted, tmp_path):
    assert command("fit", "--data", toy_npz, *FLAGS, "--out", "run", "--overwrite").exit_code == 0
    assert json.loads((fitted / "config.json").read_text())["config"]["model"] == "vae"
    assert not (fitted / "figures/classes.png").exists()
    assert not list(tmp_path.glob(".*"))


BAD_FLAGS = [
    (["--model", "ssvae"], "expected a known model; got 'ssvae'; did you mean 'ss_vae'?"),
    (["--guide", "meanfield"], "expected a known guide; got 'meanfield'; did you mean 'mean_field'?"),
    (["--data", "digit"], "got 'digit'; did you mean 'digits'?"),
    (["--objective", "elb"], "expected a known objective; got 'elb'; did you mean 'elbo'?"),
    (["--prior", "norm"], "did you mean 'normal'?"),
    (["--likelihood", "bernouli"], "did you mean 'bernoulli'?"),
    (["--network", "mpl"], "did you mean 'mlp'?"),
    (["--epochs", "0"], "expected epochs to be at least 1 or 'auto'; got '0'"),
    (["--likelihood", "binomial:trials=8"], "multiples of 1/8 in [0, 1], which the likelihood is a density for; got"),
    (["--likelihood", "binomial:trials=8"], "use --likelihood gaussian --binarization none"),
    (["--epochs", "-4"], "expected epochs"),
    (["--batch-size", "0"], "expected batch size"),
    (["--latent-dim", "-1"], "expected latent dim"),
    (["--lr", "0"], "expected lr to be more than 0"),
    (["--lr", "fast"], "expected lr to be a number"),
    (["--beta", "-1"], "expected"),
    (["--beta", "linear:1"], "linear:START:END:EPOCHS"),
    (["--seed", "-1"], "expected seed"),
    (["--labels", "2"], "expected --labels from 3 (one per class) to 48"),
    (["--labels", "49"], "use --labels all"),
    (["--device", "tpu"], "expected device"),
    (["--epoch", "3"], "No such option"),
    (["--config", "nowhere.json"], "a JSON file of settings at nowhere.json"),
    (["--objective", "analytic_kl"], "got the discrete site 'y'; use --objective elbo"),
    (["--classifier", "cnv"], "did you mean 'conv'?"),
    (["--guide", "iaf:rank=3"], "an option of the guide 'iaf'; got 'rank'; it takes num_transforms=2"),
    (["--guide", "low_rank:rank=0"], "rank of the guide 'low_rank' to be at least 1; got '0'"),
    (["--prior", "mixture:num_components=x"], "num_components of the prior 'mixture' to be a whole number; got 'x'"),
    (["--network", "mlp:activation=relo"], "activation of the network 'mlp' to be 'relu', 'elu'"),
    (["--network", "conv"], "something that takes a hidden, for --hidden 8; got the network 'conv', which has none"),
    (["--objective", "elbo:num_samples=2"], "got 'num_samples'; it takes none"),
    (["--model", "ss_vae:size=2"], "got 'size'; it takes none"),
    (
        ["--model", "cvae", "--prior", "flow"],
        "takes a prior, for --prior flow; got the model 'cvae', which has its own",
    ),
    (["--model", "linear_gaussian", "--likelihood", "laplace"], "got the model 'linear_gaussian', which has its own"),
    (["--model", "cvae:quadrants=4"], "quadrants of the model 'cvae' to be at most 3; got '4'"),
    (["--model", "hvae:num_layers=1"], "at least two stochastic layers for the model 'hvae'; got 1"),
    (["--model", "hvae", "--objective", "analytic_kl"], "visits the latent sites in the model's order"),
    (
        ["--model", "vae", "--guide", "planar", "--objective", "stl"],
        "a guide whose density can be evaluated at any point",
    ),
    (["--model", "vae", "--guide", "iaf", "--prior", "vampprior"], "for the prior 'vampprior'; got one without; use"),
    (["--guide", "full_rank", "--objective", "beta_tc", "--model", "vae"], "use --guide mean_field"),
    (["--objective", "renyi:alpha=1"], "expected alpha other than 1"),
    (["--network", "resnet:channels=8,8", "--hidden", "8"], "got the network 'resnet:channels=8,8', which has none"),
    (["--resampling", "latent_histogram:combine=sum"], "combine of the resampling 'latent_histogram' to be 'product'"),
    (["--beta", "cyclical:0:1:10"], "cyclical:START:END:EPOCHS:CYCLES"),
    (["--preset", "mlpvae"], "expected a known preset; got 'mlpvae'; did you mean 'mlp_vae'?"),
]


@pytest.mark.parametrize(
    ("flags", "message"), BAD_FLAGS, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_bad_flags_are_refused_in_one_line(command, toy_npz, tmp_path, flags, message):
    before = contents(tmp_path)
    result = command("fit", "--model", "ss_vae", "--data", toy_npz, *FLAGS, "--out", "run", *flags)
    assert_refused(result, message)
    assert contents(tmp_path) == before


def assert_refused(result, message):
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert result.stderr.startswith("Error: ")
    assert message in result.stderr


def test_no_cuda(command, toy_npz, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert_refused(
        command("fit", "--data", toy_npz, "--device", "cuda"), "a CUDA device for --device cuda; got a torch that"
    )


def test_missing_data_set(command, monkeypatch, tmp_path):
    monkeypatch.setenv("PYRO_VAE_DATA", str(tmp_path / "data"))
    result = command("fit", "--data", "mnist")
    assert_refused(result, f"expected the mnist files under {tmp_path / 'data' / 'MNIST' / 'raw'}")
    assert "--download" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": np.arange(20)}, "got a file with y"),
        ({"x": np.full((20, 4), np.nan)}, "use --missing mask"),
        ({"x": np.full((20, 4), 1.5)}, "in [0, 1]"),
        ({"x": np.zeros((20, 4)), "y": np.arange(19) % 2}, "got shape (19,)"),
    ],
)
def test_bad_npz(command, tmp_path, arrays, message):
    np.savez("bad.npz", **arrays)
    result = command("fit", "--data", "bad.npz", "--likelihood", "bernoulli", "--out", "run")
    assert_refused(result, message)
    (tmp_path / "not.npz").write_bytes(pickle.dumps([1]))
    assert_refused(command("fit", "--data", "not.npz", "--out", "run"), "expected an .npz file")
    assert not (tmp_path / "run").exists()


def test_gray_pixels_in_a_bernoulli_likelihood(command, toy_npz):
    result = command("fit", "--data", toy_npz, "--likelihood", "bernoulli", "--binarization", "none")
    assert_refused(result, "use --binarization dynamic or threshold, or --likelihood gaussian")


def test_a_run_that_exists_is_kept(command, toy_npz, fitted):
    before = contents(fitted)
    result = command("fit", "--data", toy_npz, "--out", "run")
    assert_refused(result, "use --overwrite to replace it")
    assert contents(fitted) == before


def test_overwrite_spares_what_is_no_run(command, toy_npz, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.txt").write_text("miau")
    result = command("fit", "--data", toy_npz, "--out", "photos", "--overwrite")
    assert_refused(result, "something that is not a run")
    assert (tmp_path / "photos/cat.txt").read_text() == "miau"


def test_overwrite_with_a_bad_flag_loses_nothing(command, toy_npz, fitted):
    before = contents(fitted)
    bad = command("fit", "--model", "ss_vae", "--data", toy_npz, "--out", "run", "--overwrite", "--labels", 1)
    assert_refused(bad, "expected --labels")
    assert contents(fitted) == before


def test_an_unwritable_place(command, toy_npz, tmp_path):
    (tmp_path / "file").write_text("")
    assert_refused(command("fit", "--data", toy_npz, "--out", "file/run"), "expected a place that can be written")
    assert_refused(command("fit", "--data", toy_npz, "--out", "/proc/run"), "expected a place that can be written")


@pytest.mark.parametrize("words", [("evaluate", "run"), ("info", "run"), ("fit", "--resume", "run", "--epochs", "9")])
def test_a_newer_format_is_refused(command, fitted, words):
    path = fitted / "config.json"
    path.write_text(path.read_text().replace('"format_version": 2', '"format_version": 3'))
    assert_refused(
        command(*words), "expected a run of format 2 or older at run; got format 3; install a newer pyro-vae"
    )


def test_truncated_checkpoints_are_refused(command, fitted):
    for checkpoint in ("best", "last"):
        path = weights_file(fitted, checkpoint)
        path.write_bytes(path.read_bytes()[:100])
    assert_refused(command("evaluate", "run"), "expected a whole checkpoint file")
    assert_refused(command("fit", "--resume", "run", "--epochs", 9), "expected a whole checkpoint file")
    training = training_file(fitted)
    training.write_bytes(training.read_bytes()[:100])
    assert_refused(command("fit", "--resume", "run", "--epochs", 9), "expected a whole checkpoint file")


def test_a_checkpoint_that_would_run_code_is_refused(command, fitted, tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.system, ("touch exploded",)

    torch.save(Bomb(), training_file(fitted))
    assert_refused(command("fit", "--resume", "run", "--epochs", 9), "expected a whole checkpoint file")
    assert not (tmp_path / "exploded").exists()


def test_resume_with_another_model_or_other_data(command, fitted, toy_npz, tmp_path):
    before = contents(fitted)
    assert_refused(
        command("fit", "--resume", "run", "--model", "vae"), "expected model 'ss_vae', as the run at run has it"
    )
    assert_refused(
        command("fit", "--resume", "run", "--data", "digits", "--epochs", 9), "got other data under that name"
    )
    assert_refused(command("fit", "--resume", "run", "--out", "other"), "expected --resume alone, or a new run")
    x = np.load(toy_npz)["x"]
    np.savez(toy_npz, x=x[::-1], y=np.arange(60) % 3)
    assert_refused(command("fit", "--resume", "run", "--epochs", 9), "expected the data that the run was fitted on")
    assert contents(fitted) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("evaluate", "nowhere"), "expected a run directory at nowhere; got no such folder"),
        (("evaluate", "."), "got no config.json there"),
        (("evaluate", "run", "--samples", "0"), "expected at least one sample per datum; got 0"),
        (("evaluate", "run", "--split", "tset"), "expected a split: train, validation or test; got 'tset'"),
        (("evaluate", "run", "--checkpoint", "first"), "expected a checkpoint: best or last; got 'first'"),
        (("evaluate", "run", "--device", "gpu"), "expected a device: auto, cpu or cuda; got 'gpu'"),
        (("sample", "run", "--num", "0"), "expected at least one image; got 0"),
        (("sample", "run", "--label", "7"), "expected a class of this run; got '7'; choose one of: 0, 1, 2"),
        (("reconstruct", "run", "--num", "0"), "Invalid value for '--num'"),
        (("list", "model"), "got 'model'; did you mean 'models'?"),
        (("fti",), "No such command"),
        (("evaluate",), "Missing argument"),
    ],
)
def test_bad_calls_of_the_other_commands(command, fitted, words, message):
    assert_refused(command(*words), message)


def test_a_model_without_labels_has_no_classes_to_sample(command, toy_npz):
    assert command("fit", "--data", toy_npz, *FLAGS, "--out", "run").exit_code == 0
    assert_refused(command("sample", "run", "--label", "1"), "expected a model with class labels to choose a class")


def test_a_failed_run_exits_with_1(command, toy_npz):
    result = command("fit", "--data", toy_npz, *FLAGS, "--out", "run", "--lr", "1e30", "--clip-norm", "1e30")
    assert result.exit_code == 1
    assert "the loss became" in result.stderr
    assert "try a smaller --lr" in result.stderr


@pytest.mark.parametrize(
    ("times", "said"),
    [
        (1, "Stopped after 1 whole epoch and saved; go on with: python cli.py fit --resume run"),
        (2, "Stopped; go on from the last checkpoint with: python cli.py fit --resume run"),
        (0, "Stopped; the training is done and saved; go on with: python cli.py evaluate run"),
    ],
)
def test_ctrl_c_says_how_to_go_on(times, said, command, toy_npz, monkeypatch):
    """Once; twice, which does not wait for the step; and when the training is over."""

    class StopAt(Silent):
        def step(self, progress):
            if progress.epoch == 1:
                for _ in range(times):
                    os.kill(os.getpid(), 2)

    def stop(run):
        os.kill(os.getpid(), 2)

    monkeypatch.setattr(fitting, "choose_display", lambda display: StopAt())
    monkeypatch.setattr(report, "write_report", stop)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # which tests in the background start without
    try:
        result = command("fit", "--data", toy_npz, *FLAGS, "--out", "run")
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.exit_code == 130
    assert result.stderr.strip().splitlines()[-1] == said
    assert not Path("run/.lock").exists()


def test_every_setting_has_a_flag(command):
    text = command("fit", "--help").stdout
    for name in FitConfig.model_fields:
        assert f"--{name.replace('_', '-')}" in text


def test_help_is_light():
    """torch and pyro load only when needed; the half second itself is measured in benchmarks/."""
    script = "import sys; sys.argv = ['cli.py', '--help']; import runpy\n"
    script += "try: runpy.run_path('cli.py', run_name='__main__')\nexcept SystemExit: pass\n"
    script += "heavy = {'torch', 'pyro', 'sklearn', 'matplotlib', 'pandas', 'numpy'} & set(sys.modules)\n"
    script += "assert not heavy, heavy"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


@pytest.mark.exhaustive
def test_the_doors_of_a_checkout():
    script = "from models import SSVAE, VAE; from guides import MeanField; import pyro_vae; pyro_vae.fit, pyro_vae.load"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_flags_and_files_win_over_a_preset(command, toy_npz, tmp_path):
    """A preset is a set of defaults, and the environment is weaker still."""
    (tmp_path / "settings.json").write_text(json.dumps({"lr": 0.01, "batch_size": 7}))
    flags = ["--data", toy_npz, "--epochs", 1, "--batch-size", 9, "--latent-dim", 2]
    result = command("fit", "--preset", "mlp_vae", "--config", "settings.json", *flags, "--out", "run")
    assert result.exit_code == 0, result.stderr
    config = json.loads((tmp_path / "run/config.json").read_text())["config"]
    assert config["network"] == "mlp:hidden=200"
    assert (config["lr"], config["batch_size"], config["latent_dim"], config["objective"]) == (
        0.01,
        9,
        2,
        "analytic_kl",
    )


def test_sides_that_a_network_cannot_halve(command, toy_npz):
    result = command("fit", "--data", toy_npz, "--labels", "none", "--network", "resnet", "--out", "run")
    assert_refused(
        result, "image sides that can be halved 2 times for the network 'resnet'; got 6x6; use --network conv"
    )


COMPARED = ["--latent-dim", 2, "--num-data", 1, "--samples", 8, "--warmup", 8, "--chains", 2, "--steps", 20]


def test_compare_mcmc_json(command, tmp_path):
    result = command("compare-mcmc", "--guides", "mean_field,iaf:num_transforms=1", *COMPARED, "--json", "--out", "f")
    assert result.exit_code == 0, result.stderr
    content = json.loads(result.stdout)
    assert (content["model"], content["reference"]) == ("linear_gaussian", "exact")
    assert [row["method"] for row in content["rows"]] == ["mean_field", "iaf:num_transforms=1", "nuts", "exact"]
    assert set(content["rows"][0]) == {
        "method",
        "mean_error",
        "sd_ratio",
        "kl_to_reference",
        "k_hat",
        "elbo",
        "seconds",
    }
    for path in content["figures"].values():
        assert (tmp_path / path).read_bytes().startswith(b"\x89PNG")


def test_compare_mcmc_says_that_there_is_no_reference(command):
    result = command("compare-mcmc", "--model", "vae", "--guides", "mean_field", *COMPARED)
    assert result.exit_code == 0, result.stderr
    assert "vae, against no reference" in result.stdout
    assert "NUTS is not a reference: " in result.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--guides", "full_rnk"], "did you mean 'full_rank'"),
        (["--guides", ""], "at least one guide"),
        (["--model", "bananna"], "did you mean 'banana'"),
        (["--samples", 0], "at least 4 draws per chain"),
        (["--chains", 0], "at least one chain"),
    ],
)
def test_compare_mcmc_refuses_in_one_line(command, words, message):
    result = command("compare-mcmc", *words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
