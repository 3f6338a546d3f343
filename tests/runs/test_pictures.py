"""traverse, latent and animate: what they draw, what they refuse, and that training does not notice."""

from __future__ import annotations

import json
import os
import shutil
import signal
from itertools import pairwise, product

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from PIL import Image, ImageSequence

import pyro_vae
from pyro_vae.errors import InputError
from pyro_vae.guides import GUIDES
from pyro_vae.models import MODELS
from pyro_vae.runs import animation, latent_points, report
from pyro_vae.runs.display import Silent
from tests.cli.test_commands import assert_refused
from tests.conftest import FAST, FLAGS
from tests.figures.test_images import drawn
from tests.runs.test_fitting import quietly

NORMAL = torch.distributions.Normal(0.0, 1.0)

EACH_ONCE = [pair for pair in product(MODELS, GUIDES) if "vae" in pair or "mean_field" in pair]


def frames(run) -> dict[int, bytes]:
    return {epoch: path.read_bytes() for epoch, path in run.folder.frames.items()}


@pytest.fixture
def vectors(command, tmp_path):
    """The folder of a run of vectors that are not pictures."""
    x = np.random.default_rng(0).uniform(size=(60, 7))
    np.savez("vectors.npz", x=x)
    result = command("fit", "--data", "vectors.npz", *FLAGS[:-2], "--out", "vectors")
    assert result.exit_code == 0, result.stderr
    return tmp_path / "vectors"


# The command line


def test_fit_leaves_the_figures_and_frames(command, toy_npz, tmp_path):
    result = command("fit", "--data", toy_npz, *FLAGS, "--out", "run")
    assert "latent.png" in result.stdout
    assert "traverse.png" in result.stdout
    assert sorted(path.name for path in (tmp_path / "run/frames").iterdir()) == ["0000.png", "0001.png", "0002.png"]


def test_the_commands_say_what_they_wrote(command, fitted, tmp_path):
    figures = fitted / "figures"
    assert command("traverse", fitted).stdout.strip() == f"Wrote {figures}/traverse.png"
    assert command("traverse", fitted, "--label", "2").stdout.strip() == f"Wrote {figures}/traverse-2.png"
    assert command("latent", fitted).stdout.strip() == f"Wrote {figures}/latent.png"
    assert command("interpolate", fitted, "--between", "0,5").stdout.strip() == f"Wrote {figures}/interpolate-0-5.png"
    assert command("animate", fitted).stdout.strip() == f"Wrote {figures}/training.gif"
    for words in (("traverse", "--dims", 1, "--num", 4, "--span", 2, "--site", "z"), ("latent", "--split", "train")):
        content = json.loads(command(words[0], fitted, *words[1:], "--out", "deep/a.png", "--json").stdout)
        assert content == {"run": str(fitted), "figure": "deep/a.png"}
        assert (tmp_path / "deep/a.png").read_bytes().startswith(b"\x89PNG")
    content = json.loads(command("animate", fitted, "--out", "deep/a.gif", "--json").stdout)
    assert content == {"run": str(fitted), "figure": "deep/a.gif"}
    assert (tmp_path / "deep/a.gif").read_bytes().startswith(b"GIF89a")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("traverse", "run", "--site", "w"), "expected a continuous latent site; got 'w'; choose one of: z"),
        (("traverse", "run", "--dims", "0"), "Invalid value for '--dims'"),
        (("traverse", "run", "--dims", "3"), "expected from 1 to 2 dimensions of the latent site 'z'; got 3; use"),
        (("traverse", "run", "--num", "1"), "Invalid value for '--num'"),
        (("traverse", "run", "--span", "0"), "Invalid value for '--span'"),
        (("traverse", "run", "--span", "nan"), "expected finite z in the support of the latent site 'z'"),
        (("traverse", "run", "--label", "7"), "expected a class of this run; got '7'"),
        (("traverse", "run", "--out", "/proc/a.png"), "expected a place for a picture"),
        (("interpolate", "run", "--between", "1"), "expected two rows, for --between; got '1'; write them as in"),
        (("interpolate", "run", "--between", "0,6"), "expected rows from 0 to 5 of the test set; got (0, 6); use"),
        (("interpolate", "run", "--num", "1"), "Invalid value for '--num'"),
        (("latent", "run", "--method", "tsn"), "expected a way to lay out latents; got 'tsn'; did you mean 'tsne'"),
        (("animate", "run", "--out", "a.avi"), "expected a file that ends in .gif or .mp4; got a.avi; use --out a.gif"),
        (("latent", "run", "--site", "y"), "expected a continuous latent site; got 'y'; choose one of: z"),
        (("latent", "run", "--split", "tset"), "expected a split"),
        (("latent", "run", "--num", "1"), "Invalid value for '--num'"),
        (("animate", "run", "--fps", "0"), "Invalid value for '--fps'"),
        (("animate", "run", "--out", "/proc/a.gif"), "expected a place for a picture at /proc/a.gif"),
        (("animate", "nowhere"), "expected a run directory at nowhere"),
    ],
)
def test_bad_calls_are_refused_in_one_line(command, fitted, words, message):
    assert_refused(command(*words), message)


def test_a_model_without_labels_has_no_class_to_hold(command, toy_npz):
    assert command("fit", "--data", toy_npz, *FLAGS, "--out", "run").exit_code == 0
    assert_refused(command("traverse", "run", "--label", "1"), "expected a model with class labels")


def test_vectors_have_a_map_but_no_pictures(command, vectors):
    assert sorted(path.name for path in (vectors / "figures").iterdir()) == ["elbo.png", "latent.png"]
    assert not (vectors / "frames").exists()
    assert command("latent", vectors).exit_code == 0
    assert_refused(command("traverse", vectors), "or (D,) where D is a square from 16 on; got shape (7,); use latent")
    assert_refused(command("animate", vectors), "expected frames of the training in")
    assert not (vectors / "figures/training.gif").exists()


def test_damaged_and_missing_frames_are_refused(command, fitted):
    path = fitted / "frames/0001.png"
    path.write_bytes(path.read_bytes()[:40])
    assert_refused(command("animate", "run"), "expected a frame that fit wrote at run/frames/0001.png")
    for path in (fitted / "frames").iterdir():
        path.unlink()
    assert_refused(command("animate", "run"), "got none")
    assert not list(fitted.rglob("*.gif*"))


def test_a_line_between_two_images_begins_and_ends_at_what_the_model_makes_of_them(toy_npz):
    run = quietly(model="ss_vae", data=toy_npz)
    canvas = drawn(report.interpolation_figure(run, (1, 4), num=5))
    images = run.split("test")[torch.tensor([1, 4])]
    classes = run.classify(images.x())
    ends = run.decode(run.encode(images.x()), y=classes)
    height, broad = images.values().shape[-2] + 1, images.values().shape[-1] + 1
    assert canvas.shape == (height + 1, 7 * broad + 1)
    tiles = [canvas[1:-1, 1 + broad * k : broad * (k + 1)] for k in range(7)]
    for tile, image in ((0, images.values()[0]), (1, ends[0]), (5, ends[1]), (6, images.values()[1])):
        np.testing.assert_allclose(tiles[tile], image[0].clamp(0, 1), atol=1e-6)
    assert drawn(report.interpolation_figure(run)).shape[0] == 3 * height + 1, "six test images make three pairs"


# The animation


def test_an_mp4_needs_ffmpeg_and_says_so(command, fitted, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    assert_refused(
        command("animate", "run", "--out", "a.mp4"), "expected ffmpeg, to write an MP4; got none on this machine"
    )
    assert not list(fitted.parent.glob("*.mp4*"))


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
def test_the_mp4_is_one(command, fitted):
    assert command("animate", "run", "--out", "a.mp4").exit_code == 0
    assert (fitted.parent / "a.mp4").read_bytes()[4:8] == b"ftyp"


@pytest.mark.parametrize(("fps", "duration"), [(10, 100), (25, 40), (30, 30)])
def test_the_gif_plays_every_frame_and_rests_on_the_last(command, toy_npz, tmp_path, fps, duration):
    assert command("fit", "--data", toy_npz, *FLAGS, "--epochs", 4, "--out", "run").exit_code == 0
    assert command("animate", "run", "--fps", fps).exit_code == 0
    with Image.open("run/frames/0004.png") as frame:
        side = frame.width
        last = np.asarray(frame.convert("RGB"), dtype=int)
    assert side == animation.MANIFOLD * 7 + 1, "a plane makes a manifold of 6x6 images"
    scale = 5  # the least that makes 320 pixels of 71
    with Image.open("run/figures/training.gif") as gif:
        assert (gif.n_frames, gif.info["loop"]) == (5, 0)
        assert gif.size == (scale * side, scale * side + animation.CAPTION)
        pages = [np.asarray(page.convert("RGB"), dtype=int) for page in ImageSequence.Iterator(gif)]
        durations = [page.info["duration"] for page in ImageSequence.Iterator(gif)]
    assert durations == [duration] * 4 + [animation.LAST_FRAME]
    assert abs(pages[-1][: scale * side : scale, ::scale] - last).max() < 16
    captions = [page[scale * side :] for page in pages]
    assert all((a != b).any() for a, b in pairwise(captions)), "each says its own epoch"


def test_frames_keep_what_the_model_makes_of_the_same_points(toy_npz, tmp_path):
    run = quietly(model="ss_vae", data=toy_npz, out=tmp_path / "ss", labels="all", likelihood="bernoulli")
    last = pyro_vae.load(run.path, checkpoint="last")
    with Image.open(run.folder.frames[2]) as frame:
        pixels = np.asarray(frame) / 255
    drawn = last.sample(3 * animation.STYLES, y=np.repeat(np.arange(3), animation.STYLES))
    for label in range(3):
        expected = drawn[animation.STYLES * label + 4, 0].numpy()
        cell = pixels[1 + 7 * label : 7 + 7 * label, 1 + 7 * 4 : 7 + 7 * 4]
        assert np.abs(cell - expected).max() < 0.01
    assert frames(run)[0] != frames(run)[2]


def test_larger_latent_spaces_show_samples_and_large_pictures_small_frames(tmp_path):
    x = np.random.default_rng(0).uniform(size=(30, 3, 120, 110)).astype(np.float32)
    run = quietly(data=x, out=tmp_path / "run", latent_dim=3, epochs=1, likelihood="gaussian")
    with Image.open(run.folder.frames[1]) as frame:
        assert frame.mode == "RGB"
        assert max(frame.size) == animation.LARGEST
    animation.write_gif(animation.read_frames(run.folder), tmp_path / "a.gif")
    with pytest.raises(InputError, match="from 1 to 50 frames per second; got 100"):
        animation.write_gif(animation.read_frames(run.folder), tmp_path / "a.gif", fps=100)


@pytest.mark.parametrize("model", ["vae", "ss_vae"])
def test_training_does_not_notice_the_frames(model, toy_npz, tmp_path):
    kept = quietly(model=model, data=toy_npz, out=tmp_path / "run", epochs=4)
    bare = quietly(model=model, data=toy_npz, epochs=4)
    assert len(kept.folder.frames) == 5
    assert kept.history.equals(bare.history)
    weights = bare.pair.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in kept.pair.state_dict().items())


def test_a_frame_leaves_the_modes_and_the_random_state_alone(toy_npz, tmp_path):
    run = quietly(model="ss_vae", data=toy_npz, out=tmp_path / "run")
    run.pair.train(True)
    run.guide.conditionals["z"].train(False)
    modes = [module.training for program in (run.model, run.guide) for module in program.modules()]
    before = torch.get_rng_state()
    animation.keep(run, last=True)
    assert [module.training for program in (run.model, run.guide) for module in program.modules()] == modes
    assert True in modes
    assert False in modes
    assert torch.equal(torch.get_rng_state(), before)


class StopAt(Silent):
    """Stops at the second step of the third epoch."""

    def step(self, progress):
        if (progress.epoch, progress.step) == (2, 1):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_resumed_run_has_the_frames_of_one_that_never_stopped(toy_npz, tmp_path):
    whole = quietly(data=toy_npz, out=tmp_path / "whole", epochs=4)
    with pytest.raises(pyro_vae.Interrupted) as caught:
        pyro_vae.fit(**(FAST | {"data": toy_npz, "out": tmp_path / "parts", "epochs": 4, "display": StopAt()}))
    stopped = caught.value.run
    assert frames(stopped) == {epoch: frames(whole)[epoch] for epoch in (0, 1, 2)}
    stopped.folder.save_frame(3, b"of an epoch whose checkpoint was never written")
    stopped.folder.save_frame(9, b"stale")
    resumed = pyro_vae.resume(stopped.path, display=False)
    assert frames(resumed) == frames(whole)


def test_long_runs_keep_every_nth_frame_and_the_last(toy_npz, tmp_path, monkeypatch):
    monkeypatch.setattr(animation, "MAX_FRAMES", 3)
    run = quietly(data=toy_npz, out=tmp_path / "run", epochs=7)
    assert list(run.folder.frames) == [0, 3, 6, 7]
    longer = pyro_vae.resume(run.path, epochs=13, display=False)
    assert list(longer.folder.frames) == [0, 10, 13], "every fifth now, and the last; what is not due is dropped"


def test_a_run_from_before_there_were_frames_starts_them_where_it_stands(toy_npz, tmp_path):
    run = quietly(data=toy_npz, out=tmp_path / "run")
    run.folder.drop_frames(list(run.folder.frames))
    assert list(pyro_vae.resume(run.path, epochs=4, display=False).folder.frames) == [2, 3, 4]


# The latent space


@pytest.mark.exhaustive
@pytest.mark.parametrize(("model", "guide"), EACH_ONCE)
def test_decode_and_the_maps_work_for_every_model_and_guide(model, guide, toy_npz, tmp_path):
    run = quietly(model=model, guide=guide, data=toy_npz, epochs=1)
    y = 1 if run.class_matters else None
    z = torch.randn(5, 2)
    images = run.decode(z, y=y)
    assert images.shape == (5, 1, 6, 6)
    assert torch.equal(images, run.decode(z.double().numpy(), run.latent_site(), y))
    assert not torch.equal(images[0], images[1])
    assert run.encode(run.data.test.values(), run.latent_site()).shape == (6, 2)
    for figure in (report.traverse_figure(run), report.traverse_figure(run, dims=1), report.latent_figure(run)):
        assert figure.axes


def test_decode_is_the_mean_of_the_likelihood(toy_npz):
    run = quietly(data=toy_npz)
    z = torch.randn(5, 2)
    with torch.no_grad():
        expected = run.model.likelihood(run.model.decoder(z)).mean
    assert torch.allclose(run.decode(z), expected, atol=1e-6)


def test_decode_refuses_what_is_no_point(toy_npz):
    run = quietly(data=toy_npz)
    for shape in [(5, 3), (2,), (0, 2)]:
        with pytest.raises(InputError, match=r"z of shape \(N, 2\) for the latent site 'z'; got shape"):
            run.decode(torch.zeros(shape))
    with pytest.raises(InputError, match="a continuous latent site; got 'w'; choose one of: z"):
        run.decode(torch.zeros(1, 2), site="w")
    with pytest.raises(InputError, match=r"finite z in the support .*; got values from 0 to inf"):
        run.decode([[0.0, float("inf")]])
    with pytest.raises(InputError, match="a model with class labels to choose a class"):
        run.decode(torch.zeros(1, 2), y=0)
    labelled = quietly(model="ss_vae", data=toy_npz)
    with pytest.raises(InputError, match="a class index from 0 to 2, or a class name; got 3"):
        labelled.decode(torch.zeros(1, 2), y=3)


def ladder(x):
    with pyro.plate("data", len(x)):
        top = pyro.sample("top", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
        z = pyro.sample("z", dist.Normal(torch.cat([top] * 8, -1), 0.1).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


def ladder_guide(x):
    shift = pyro.param("shift", torch.tensor(0.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x + shift, 0.1).to_event(1))
        pyro.sample("top", dist.Normal(z[..., :2], 0.1).to_event(1))


def test_a_hierarchy_is_walked_from_its_top_or_from_a_chosen_site(tmp_path):
    x = np.random.default_rng(0).uniform(size=(40, 16)).astype(np.float32)
    run = quietly(model=ladder, guide=ladder_guide, data=x, epochs=1, out=tmp_path / "run")
    assert run.latent_site() == "top"
    top = torch.tensor([[3.0, -3.0]]).repeat(50, 1)
    images = run.decode(top)
    assert images.mean(0) == pytest.approx(top[0].repeat(8), abs=0.1)  # standard error 0.014
    assert images.std(0) == pytest.approx(torch.full((16,), 0.1), abs=0.06), "z is drawn, given top"
    assert torch.equal(images, run.decode(top))
    assert not torch.equal(images, run.decode(top, seed=1))
    z = torch.randn(3, 16)
    assert torch.equal(run.decode(z, site="z"), z)
    assert run.encode(x[:5], "top").shape == (5, 2)
    assert report.traverse_figure(run, site="z", dims=4).axes[0].get_yticklabels()[0].get_text().startswith("z_")
    assert (run.path / "figures/traverse.png").exists()


@pytest.mark.draws
def test_a_site_that_is_not_real_is_decoded_but_not_walked(tmp_path):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Gamma(2.0, 1.0))
            pyro.sample("x", dist.Poisson(z.unsqueeze(-1) * torch.ones(16)).to_event(1), obs=x)

    def guide(x):
        rate = pyro.param("rate", torch.tensor(1.0), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Gamma(2.0 + x.sum(-1), rate))

    x = np.random.default_rng(0).poisson(2.0, (40, 16)).astype(np.float32)
    run = quietly(model=model, guide=guide, data=x, epochs=1, out=tmp_path / "run")
    assert torch.equal(run.decode([[2.0]]), torch.full((1, 16), 2.0))
    with pytest.raises(InputError, match="finite z in the support"):
        run.decode([[-2.0]])
    with pytest.raises(InputError, match="a latent site of real numbers"):
        report.traverse_figure(run)
    figures = {path.name for path in run.folder.figures.iterdir()}
    assert "latent.png" in figures
    assert "traverse.png" not in figures


def test_sites_outside_the_plate_have_no_latent_space():
    def model(x):
        loc = pyro.sample("loc", dist.Normal(0.0, 10.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(loc, 1.0).expand([len(x), 16]).to_event(1), obs=x)

    def guide(x):
        pyro.sample("loc", dist.Normal(pyro.param("loc_mean", torch.tensor(0.0)), 1.0))

    run = quietly(model=model, guide=guide, data=np.ones((20, 16), np.float32), epochs=1)
    for call in (lambda: run.decode([[0.0]]), lambda: run.encode(np.ones((1, 16))), lambda: report.latent_figure(run)):
        with pytest.raises(InputError, match="a continuous latent site for each datum"):
            call()


def test_quantiles_split_the_normal_into_equal_parts():
    values = latent_points.quantiles(4)
    assert NORMAL.cdf(values) == pytest.approx(torch.tensor([0.125, 0.375, 0.625, 0.875]), abs=1e-6)
    points = latent_points.manifold_points(3)
    low, high = latent_points.quantiles(3)[[0, 2]].tolist()
    assert points[[0, 2, 6, 8]].tolist() == [[low, high], [high, high], [low, low], [high, low]]


def test_the_corners_of_the_manifold_are_decoded_quantiles(toy_npz):
    run = quietly(data=toy_npz, epochs=20, lr=0.02, likelihood="bernoulli")
    canvas = drawn(report.traverse_figure(run, num=5))
    assert canvas.shape == (30, 30)
    low, high = NORMAL.icdf(torch.tensor([0.1, 0.9])).tolist()
    cells = {(0, 0): (low, high), (0, 24): (high, high), (24, 0): (low, low), (24, 24): (high, low)}
    for (top, left), z in cells.items():
        assert np.allclose(canvas[top : top + 6, left : left + 6], run.decode([z])[0, 0], atol=1e-5)


def test_a_manifold_holds_the_first_class_or_the_one_asked_for(toy_npz):
    run = quietly(model="ss_vae", data=toy_npz, labels="all", epochs=20, likelihood="bernoulli")
    point = latent_points.manifold_points(2)[:1]
    for label in (None, 0, 2):
        figure = report.traverse_figure(run, num=2, label=label)
        assert np.allclose(drawn(figure)[:6, :6], run.decode(point, y=label or 0)[0, 0], atol=1e-5)
        assert figure.axes[0].get_title().count(f", class {label or 0},")


def planted(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 3), 1.0).to_event(1))
        mean = torch.nn.functional.pad(z, (0, 13))
        pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)


def planted_guide(x):
    scale = pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive)
    with pyro.plate("data", len(x)):
        weights = torch.tensor([0.1, 2.0, 0.5])
        pyro.sample("z", dist.Normal(weights * x[..., :3], scale).to_event(1))


def test_the_most_active_dimension_comes_first():
    x = np.random.default_rng(0).uniform(size=(200, 16)).astype(np.float32)
    run = quietly(model=planted, guide=planted_guide, data=x, epochs=1)
    figure = report.traverse_figure(run, num=5, span=1.0, dims=2)
    test = run.data.test.values().numpy()
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == [f"z_1  var {4 * test[:, 1].var():.2f}", f"z_2  var {0.25 * test[:, 2].var():.2f}"]
    canvas = drawn(figure)
    values = [0.0, 0.0, 0.0, 0.5, 1.0]  # what a picture shows of -1, -0.5, 0, 0.5, 1
    row = [canvas[1, 1 + 5 * column + 1] for column in range(5)]  # pixel 1 is z_1, in 4x4 images with a gap of 1
    assert row == pytest.approx(values, abs=1e-6)
    held = [canvas[1, 1 + 5 * column + 2] for column in range(5)]
    index = int(figure.axes[0].get_title().split("image ")[1].split(",")[0])
    assert held == pytest.approx([0.5 * test[index, 2]] * 5, abs=1e-6), "the others stay at the base image's mean"
    framed = figure.axes[0].patches[0]
    nearest = np.abs(np.linspace(-1, 1, 5) - 2 * test[index, 1]).argmin()
    assert framed.get_x() == 5 * nearest
    assert len(report.traverse_figure(run).axes[0].get_yticklabels()) == 3


def test_a_traversal_holds_the_most_probable_class_of_its_image(toy_npz):
    run = quietly(model="ss_vae", data=toy_npz, labels="all", latent_dim=3, epochs=60)
    images = run.data.test
    for seed in range(4):
        title = report.traverse_figure(run, num=2, seed=seed).axes[0].get_title()
        index, label, _ = title.split("image ")[1].replace(" class ", "").split(",")
        assert int(label) == run.classify(images.values())[int(index)]
    assert ", class 1," in report.traverse_figure(run, num=2, label=1).axes[0].get_title()


def test_the_latent_map_shows_the_posterior_means_in_the_colours_of_their_classes(toy_npz):
    run = quietly(data=toy_npz)
    ax = report.latent_figure(run, split="train", num_images=30).axes[0]
    points, train = ax.collections[0], run.split("train")
    means = run.encode(train.x()[:30])
    assert np.allclose(points.get_offsets(), means, atol=1e-5)
    colors = points.get_facecolors()
    assert len(np.unique(colors, axis=0)) == 3
    for label in range(3):
        assert len(np.unique(colors[train.labels[:30] == label], axis=0)) == 1
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["0", "1", "2"]


def test_one_test_image_makes_no_map_and_a_collapsed_posterior_does(tmp_path, toy_arrays):
    run = quietly(data=toy_arrays[0][:12], out=tmp_path / "run", latent_dim=3, epochs=1)
    assert not (run.path / "figures/latent.png").exists()
    with pytest.raises(InputError, match="at least 2 images to map; got 1; use --split train"):
        report.latent_figure(run)
    with torch.no_grad():
        for parameter in run.guide.parameters():
            parameter.zero_()
    assert "0% of the variance" in report.latent_figure(run, split="train").axes[0].get_xlabel()


def test_a_hierarchy_is_walked_through_where_it_is_in_use(toy_npz):
    run = quietly(model="hvae", data=toy_npz, labels="none", latent_dim=3)
    with torch.no_grad():  # the top says the same for every image, the bottom does not
        for parameter in run.guide.conditionals["z2"].family.parameters():
            parameter.zero_()
        for parameter in run.guide.conditionals["z1"].family.loc.parameters():
            parameter.mul_(50)
    assert report._busiest_site(run) == "z1"
    names = [label.get_text() for label in report.traverse_figure(run, num=3, dims=3).axes[0].get_yticklabels()]
    assert all(name.startswith("z1_") for name in names)


def test_representatives_differ_and_are_typical():
    """Three clusters of twenty: one picture of each, the nearest to its mean."""
    generator = torch.Generator().manual_seed(0)
    centers = torch.tensor([0.0, 5.0, 10.0]).repeat_interleave(20)
    pictures = centers.view(60, 1, 1, 1) + 0.1 * torch.randn(60, 1, 2, 2, generator=generator)
    chosen = latent_points.representatives(pictures, 3)
    assert sorted((chosen // 20).tolist()) == [0, 1, 2]
    for index in chosen.tolist():
        mine = pictures[index // 20 * 20 : index // 20 * 20 + 20].flatten(1)
        distances = (mine - mine.mean(0)).norm(dim=1)
        assert distances.argmin() == index % 20


def test_pictures_of_a_collapsed_model_are_chosen_without_a_word():
    chosen = latent_points.representatives(torch.ones(30, 1, 2, 2), 4)
    assert chosen.shape == (4,)
    assert ((chosen >= 0) & (chosen < 30)).all()


def test_a_traversal_covers_what_images_are_coded_as():
    torch.manual_seed(0)
    means = torch.randn(5000, 3) * torch.tensor([0.6, 4.0, 0.9]) + torch.tensor([0.5, 2.0, 0.0])
    middle, deviation = latent_points.spread(means)
    assert middle.tolist() == pytest.approx([0, 2, 0], abs=0.3)  # 5 standard errors
    assert deviation.tolist() == pytest.approx([1, 4, 1], abs=0.2)
    points = latent_points.traversal_points(
        torch.zeros(3), torch.tensor([1, 0]), torch.tensor([[5.0, 6.0], [7.0, 8.0]])
    )
    assert points.tolist() == [[0, 5, 0], [0, 6, 0], [7, 0, 0], [8, 0, 0]]
