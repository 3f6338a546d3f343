"""A program of several arguments is fitted on their arrays."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule, PyroSample
from sklearn.datasets import load_wine

import pyro_vae
from pyro_vae.data.arguments import MOST_WHOLE, Argument, OfColumns, parameters_of, side_by_side
from pyro_vae.errors import InputError

RANDOM = np.random.default_rng(0)
W = RANDOM.normal(size=(120, 2)).astype(np.float32)
Y = (W @ np.array([1.0, -2.0]) + RANDOM.normal(size=120)).astype(np.float32)
FAST = {"epochs": 2, "batch_size": 32, "seed": 0, "display": False}


def regression(y, w):
    slope = pyro.sample("slope", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    with pyro.plate("rows", len(y)):
        own = pyro.sample("own", dist.Normal(0.0, 0.5))
        pyro.sample("y", dist.Normal(w @ slope + own, 1.0), obs=y)


def by_columns(x):
    return regression(x[:, 0], x[:, 1:])


def by_hand(y, w):
    pyro.sample("slope", dist.Normal(pyro.param("at", torch.zeros(2)), 0.1).to_event(1))
    with pyro.plate("rows", len(y)):
        pyro.sample("own", dist.Normal(pyro.param("share", torch.tensor(0.1)) * y, 0.3))


def test_a_program_of_two_arrays_is_that_of_their_columns():
    run = pyro_vae.fit(regression, by_hand, data=(Y, W), **FAST)
    same = pyro_vae.fit(by_columns, lambda x: by_hand(x[:, 0], x[:, 1:]), data=np.column_stack([Y, W]), **FAST)
    assert run.evaluate(num_samples=20)["elbo"] == same.evaluate(num_samples=20)["elbo"]
    assert np.array_equal(run.encode((Y[:5], W[:5])), same.encode(np.column_stack([Y, W])[:5]))


def test_arrays_go_by_name_in_whatever_order():
    run = pyro_vae.fit(regression, data={"w": W, "y": Y}, **FAST)
    assert np.array_equal(run.encode({"w": W[:5], "y": Y[:5]}), run.encode((Y[:5], W[:5])))


def test_it_is_saved_loaded_and_resumed(tmp_path):
    whole = pyro_vae.fit(regression, data=(Y, W), **(FAST | {"epochs": 4}), out=tmp_path / "whole")
    parts = pyro_vae.fit(regression, data=(Y, W), **FAST, out=tmp_path / "parts")
    loaded = pyro_vae.load(parts.path, model=regression)
    assert loaded.facts.arguments == (Argument("y", (), "float32"), Argument("w", (2,), "float32"))
    assert np.array_equal(loaded.encode((Y, W)), parts.encode((Y, W)))
    with pytest.raises(InputError, match="the data that the run was fitted on"):
        pyro_vae.resume(parts.path, model=regression, data=(Y + 1, W), epochs=4, display=False)
    longer = pyro_vae.resume(parts.path, model=regression, data=(Y, W), epochs=4, display=False)
    assert len(longer.history) == len(whole.history) == 4


def test_arguments_have_the_types_and_shapes_they_came_in():
    seen = []

    def model(counts, users, flags, pictures):
        seen.append((counts, users, flags, pictures))
        rate = pyro.param("rate", torch.ones(3))
        with pyro.plate("rows", len(counts)):
            size = pyro.sample("size", dist.Gamma(2.0, 2.0))
            pyro.sample("counts", dist.Poisson(size * rate[users]), obs=counts.float())

    counts, users = RANDOM.poisson(2, 90), RANDOM.integers(0, 3, 90, dtype=np.uint8)
    flags, pictures = RANDOM.random(90) < 0.5, RANDOM.random((90, 2, 3))
    pyro_vae.fit(model, data=(counts, users, flags, torch.as_tensor(pictures)), **FAST)
    assert [each.dtype for each in seen[-1]] == [torch.int64, torch.int64, torch.bool, torch.float32]
    assert [each.shape[1:] for each in seen[-1]] == [(), (), (), (2, 3)]
    assert set(seen[-1][1].tolist()) <= {0, 1, 2}


class Regression(PyroModule):
    def __init__(self):
        super().__init__()
        self.linear = PyroModule[torch.nn.Linear](2, 1)
        self.linear.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 2]).to_event(2))

    def forward(self, w, y):
        mean = self.linear(w).squeeze(-1)
        with pyro.plate("rows", len(w)):
            own = pyro.sample("own", dist.Normal(0.0, 0.5))
            pyro.sample("y", dist.Normal(mean + own, 1.0), obs=y)


def test_a_module_is_called_with_what_its_forward_takes():
    assert pyro_vae.fit(Regression(), "iaf", data=(W, Y), **FAST).evaluate(num_samples=5)["elbo"] < 0


def test_labels_are_still_labels():
    assert parameters_of(lambda x, y=None: None) == ("x",)
    assert parameters_of(lambda: None) == ()
    assert parameters_of(regression) == ("y", "w")
    assert parameters_of(Regression()) == ("w", "y")
    assert parameters_of(pyro.poutine.scale(regression, scale=0.5)) == ("y", "w")
    assert parameters_of(pyro.infer.config_enumerate(regression)) == ("y", "w")

    def model(x, y):
        with pyro.plate("rows", len(x)):
            y = pyro.sample("y", dist.Categorical(torch.ones(3) / 3), obs=y)
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z + y, 1.0), obs=x)

    with pytest.raises(InputError, match="missing 1 required positional argument: 'y'"):
        pyro_vae.fit(model, data=(Y, RANDOM.integers(0, 3, 120)), **FAST)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((Y, W[:50]), "as many rows in each array of arrays; got y 120, w 50; give one row per datum in all of them"),
        ((Y, 3.0), "a row per datum in w of arrays; got a single number; let the program hold it itself"),
        ((Y, np.full((120, 2), "a")), "numbers in w of arrays; got dtype <U1"),
        ((Y, np.full((120, 2), MOST_WHOLE)), r"whole numbers below 16,777,216 in w of arrays; got 16,777,216; number"),
        ({"y": Y}, "x, and perhaps y and missing, in arrays; got y"),
        ((Y, W, W), r"an array x, or a pair of arrays \(x, y\), as data; got a tuple of 3"),
        ((Y, np.full((120, 2), np.nan)), "missing"),
    ],
)
def test_arrays_that_do_not_go_together_are_refused(data, message, tmp_path):
    with pytest.raises(InputError, match=message):
        pyro_vae.fit(regression, data=data, **FAST, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_a_run_is_asked_about_is_as_the_program_has_it():
    run = pyro_vae.fit(regression, data=(Y, W), **FAST)
    with pytest.raises(InputError, match=r"what the program is called with, \(y, w\); got y; give all of them"):
        run.encode({"y": Y})
    with pytest.raises(InputError, match=r"got a tuple of 3; give all of them"):
        run.encode((Y, W, W))
    with pytest.raises(InputError, match=r"w of shape \(N, 2\); got rows of shape \(1,\)"):
        run.encode((Y, W[:, :1]))


def walk(x, mask):
    z = x.new_zeros(len(x))
    with pyro.plate("rows", len(x)):
        for t in range(x.shape[1]):
            with pyro.poutine.mask(mask=mask[:, t]):
                z = pyro.sample(f"z_{t}", dist.Normal(0.9 * z, 1.0))
                pyro.sample(f"x_{t}", dist.Normal(z, 0.5), obs=x[:, t])


def test_a_program_of_one_dictionary_is_given_it(tmp_path):
    def model(batch):
        return regression(batch["y"], batch["w"])

    given = {"w": W, "y": Y}
    run = pyro_vae.fit(model, "mean_field", data=given, **FAST, out=tmp_path / "run")
    assert [each.name for each in run.facts.arguments] == ["batch.w", "batch.y"]
    assert set(run.guide.inputs.shapes) == {"batch.w", "batch.y"}
    loaded = pyro_vae.load(run.path, model=model)
    assert np.array_equal(loaded.encode({"y": Y[:5], "w": W[:5]}), run.encode({"w": W[:5], "y": Y[:5]}))
    longer = pyro_vae.resume(run.path, model=model, data=given, epochs=3, display=False)
    assert len(longer.history) == 3
    with pytest.raises(InputError, match=r"what the program is called with, \(batch.w, batch.y\)"):
        run.encode({"y": Y[:5]})


def test_rows_with_their_classes_are_no_dictionary_of_arguments():
    def model(x):
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z.unsqueeze(-1), 100.0).expand(x.shape).to_event(1), obs=x)

    wine = load_wine()
    for data in (wine, {"x": wine.data, "y": wine.target}, (wine.data, wine.target), load_wine(as_frame=True).data):
        run = pyro_vae.fit(model, "mean_field", data=data, **FAST)
        assert run.facts.event_shape == (13,)
        assert run.facts.arguments == ()


def test_sequences_of_unequal_length_come_with_their_masks():
    x = RANDOM.normal(size=(90, 5)).astype(np.float32)
    mask = np.arange(5) < RANDOM.integers(2, 6, 90)[:, None]
    run = pyro_vae.fit(walk, "mean_field", data=(x, mask), **FAST)
    assert set(run.guide.inputs.sequences) == {"x", "mask"}
    padded = np.where(mask, x, 7.0)
    assert torch.equal(run.guide.inputs.bound((torch.zeros(3, 10),), {})["mask"], torch.zeros(3, 5, dtype=torch.bool))
    assert np.isfinite(run.evaluate(num_samples=20)["nll"])
    means = [run.encode((values[:9], mask[:9]), site="z_1") for values in (x, padded)]
    assert np.allclose(*means, atol=1e-5)  # what is masked is not seen


def test_an_argument_named_like_a_latent_site_observes_it():
    def model(x, kind):
        with pyro.plate("rows", len(x)):
            kind = pyro.sample("kind", dist.Bernoulli(0.5), obs=kind)
            z = pyro.sample("z", dist.Normal(kind, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    run = pyro_vae.fit(model, "mean_field", data={"x": Y, "kind": (Y > 0).astype(np.float32)}, **FAST)
    assert np.isfinite(run.evaluate(num_samples=20)["elbo"])


def test_columns_are_taken_apart_as_they_were_put_together():
    given = {"a": RANDOM.integers(0, 9, (5, 2, 2)), "b": RANDOM.normal(size=5), "c": RANDOM.random((5, 3)) < 0.5}
    x, arguments = side_by_side(given, "mine")
    program = OfColumns(lambda *parts: parts, arguments)
    for part, array in zip(program(torch.as_tensor(x)), given.values(), strict=True):
        assert np.array_equal(part.numpy(), array)
    assert torch.equal(program.whole(program.parts(torch.as_tensor(x).float())), torch.as_tensor(x).float())
    assert program.__qualname__.endswith("<lambda>")
