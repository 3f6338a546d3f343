"""Runs on tables: from a frame to figures, files and rows again, with values missing and with covariates."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

import pyro_vae
from pyro_vae.errors import InputError

N = 60
RNG = np.random.default_rng(0)
GROUP = np.arange(N) % 3
FRAME = pd.DataFrame(
    {
        "height cm": 150 + 20 * GROUP + RNG.normal(0, 2, N),
        "color": np.array(["red", "green", "blue"])[GROUP],
        "smoker": GROUP == 1,
        "visits": RNG.poisson(5 + 20 * GROUP),
        "<b>$x$</b>": RNG.normal(0, 1, N),
    },
    index=[f"row {i}" for i in range(N)],
)
SMALL = {"latent_dim": 2, "hidden": (16,), "epochs": 3, "labels": "none", "display": False, "augmentation": "none"}


def holed():
    frame = FRAME.copy()
    for name in frame:
        if name != "smoker":
            frame.loc[RNG.random(N) < 0.2, name] = None if name == "color" else np.nan
    return frame.assign(smoker=FRAME.smoker.astype("boolean").mask(pd.Series(RNG.random(N) < 0.2, index=FRAME.index)))


@pytest.fixture(scope="module")
def table_run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    return pyro_vae.fit("vae", data=FRAME, out=path, **SMALL)


def test_rows_are_made_as_the_table_has_them(table_run):
    assert table_run.config.likelihood == "mixed"
    drawn = table_run.sample(30)
    assert drawn.dtypes.to_dict() == FRAME.dtypes.to_dict()
    assert set(drawn.color) <= {"red", "green", "blue"}
    assert table_run.sample(5, mean=True)["visits"].dtype == float
    rows = FRAME.iloc[[3, 1]]
    again = table_run.reconstruct(rows)
    assert again.index.equals(rows.index)
    assert list(again) == list(FRAME)
    z = table_run.encode(rows)
    assert torch.equal(z, table_run.encode(rows[rows.columns[::-1]].assign(more=1)))  # columns go by their names
    assert torch.equal(
        z, table_run.encode(torch.cat([p.values() for p in table_run.data.splits])[_places(table_run, rows)])
    )
    assert list(table_run.decode(z)) == list(FRAME)
    assert torch.is_tensor(table_run.reconstruct(table_run.data.test.values()))


def _places(run, rows):
    heights = torch.cat([part.values() for part in run.data.splits])[:, 0]
    return [int((heights - height).abs().argmin()) for height in rows["height cm"]]


def test_it_is_opened_again_with_its_names(table_run):
    again = pyro_vae.load(table_run.path)
    assert again.sample(4).equals(table_run.sample(4))
    assert again.facts == table_run.facts
    assert pyro_vae.load(table_run.path, data=FRAME).evaluate()["num_data"] == 6
    figures = sorted(path.name for path in (table_run.path / "figures").glob("*.png"))
    assert figures == ["columns.png", "elbo.png", "latent.png"]


def test_what_a_run_does_not_know_is_refused(table_run):
    one = FRAME.head(1)
    for rows, message in (
        (
            one.assign(color="mauve"),
            "a value of the column 'color' of x that is known: 'blue', 'green', 'red'; got 'mauve'",
        ),
        (one.drop(columns="color"), "a column 'color' of x, that the run was fitted on; got none of that name"),
        (one.assign(color=None), "x without missing values"),
        (one.assign(visits="many"), "numbers in the column 'visits' of x; got 'many'"),
        (np.array([[170.0, 3.0, 0.0, 1.0, 0.0]]), "codes from 0 to 2 of the column 'color' of x .* got 3"),
        (np.array([[170.0, 2.0, 0.5, 1.0, 0.0]]), "values of the column 'smoker' of x .* bernoulli .* got 0.5"),
    ):
        with pytest.raises(InputError, match=message) as refused:
            table_run.encode(rows)
        assert "\n" not in str(refused.value)
    with pytest.raises(InputError, match=r"the column 'color' of .*; got 'mauve'"):
        pyro_vae.load(table_run.path, data=FRAME.assign(color="mauve"))


def test_a_likelihood_has_to_fit_the_values_of_its_column(tmp_path):
    for told, message in (
        (
            {"height cm": "poisson"},
            "values of the column 'height cm' of arrays that its likelihood poisson is for; got 1",
        ),
        ({"visits": "bernoulli"}, "the column 'visits'"),
        ({"age": "poisson"}, "a column 'age' of arrays, that a likelihood was chosen for"),
        ({"visits": "poison"}, "a known likelihood; got 'poison'; did you mean 'poisson'"),
        ({"visits": "mixed"}, "use --likelihood mixed, and for columns another than mixed"),
    ):
        with pytest.raises(InputError, match=message):
            pyro_vae.fit("vae", data=FRAME, likelihood=told, out=tmp_path / "run", **SMALL)
    assert not (tmp_path / "run").exists()
    with pytest.raises(
        InputError, match="a model by name whose likelihood can be chosen, for columns; got 'linear_gaussian'"
    ):
        pyro_vae.fit("linear_gaussian", data=FRAME, columns={"visits": "poisson"}, **SMALL)
    with pytest.raises(InputError, match="hold text or dates: 'color'"):
        pyro_vae.fit("linear_gaussian", data=FRAME, **SMALL)


@pytest.mark.parametrize("model", ["vae", pytest.param("hvae", marks=pytest.mark.exhaustive)])
def test_missing_cells_are_filled_in_by_their_names(model):
    frame = holed()
    with pytest.raises(InputError, match="use --missing mask"):
        pyro_vae.fit(model, data=frame, **SMALL)
    run = pyro_vae.fit(model, data=frame, missing="mask", **SMALL)
    filled = run.complete(frame)
    there = frame.notna().to_numpy()
    assert not filled.isna().any(axis=None)
    assert filled.index.equals(frame.index)
    assert set(filled.color) <= {"red", "green", "blue"}
    for place, name in enumerate(frame):
        known = there[:, place]
        same = filled[name].to_numpy()[known] == frame[name].to_numpy()[known]
        assert (
            same.all()
            if name not in ("height cm", "<b>$x$</b>")
            else np.allclose(filled[name][known], frame[name][known].astype(float))
        )
    several = run.complete(frame.head(3), num_samples=2)
    assert several.index.names[0] == "completion"
    assert len(several) == 6
    assert len(run.sample(3)) == 3


def test_categories_in_arrays():
    codes = RNG.integers(0, 4, (N, 5)).astype(float)
    codes[:, 0] = GROUP
    run = pyro_vae.fit("vae", data=codes, likelihood="categorical", **SMALL)
    assert run.config.likelihood == "categorical:values=4"
    assert set(run.sample(20, mean=False).unique().tolist()) <= {0.0, 1.0, 2.0, 3.0}
    codes[0, 0], codes[1, 1] = -1, np.nan
    masked = pyro_vae.fit("vae", data=codes, likelihood="categorical", missing="mask", **SMALL)
    assert masked.complete(codes)[0, 0, 0] >= 0
    with pytest.raises(InputError, match=r"that are codes from 0 to 2, .*categorical:values=4"):
        pyro_vae.fit("vae", data=codes[2:], likelihood="categorical:values=3", **SMALL)
    with pytest.raises(InputError, match="codes of at most 1,000 categories"):
        pyro_vae.fit("vae", data=1000.0 * codes[2:], likelihood="categorical", **SMALL)


MODELS = [
    ("vae", {}),
    ("ss_vae", {"labels": 6}),
    pytest.param("hvae", {}, marks=pytest.mark.exhaustive),
    *(pytest.param(name, {"labels": 6}, marks=pytest.mark.exhaustive) for name in ("db_vae", "adgm", "sdgm")),
]


@pytest.mark.exhaustive
@pytest.mark.parametrize(("model", "more"), MODELS)
def test_models_are_given_covariates(model, more, tmp_path):
    frame = FRAME.assign(label=np.array(["ant", "bee"])[np.arange(N) % 2])
    settings = SMALL | {"covariates": ("color", "height cm")} | more
    run = pyro_vae.fit(model, data=frame, out=tmp_path / "run", **settings)
    x = run.data.test.values()
    bound = run.evaluate(num_samples=5)
    assert np.isfinite(bound["nll"])
    given = pd.DataFrame({"color": ["red", "blue"], "height cm": [150.0, 190.0]})
    made = run.sample(2, x=given)
    assert made.color.tolist() == ["red", "blue"]
    assert made["height cm"].tolist() == [150.0, 190.0]
    assert set(run.sample(10).color) <= {"red", "green", "blue"}  # those of training rows
    changed = x.clone()
    changed[:, -2] = (changed[:, -2] + 1) % 3
    assert not torch.equal(run.encode(x), run.encode(changed))
    latent = run.latent_site()
    z = torch.zeros(2, run.structure.continuous[latent].size)
    decoded = run.decode(z, x=given)
    assert decoded.visits[0] != decoded.visits[1]
    again = pyro_vae.load(tmp_path / "run", data=frame)
    assert again.sample(3).equals(run.sample(3))
    assert len(pyro_vae.resume(tmp_path / "run", data=frame, epochs=4, display=False).history) == 4
    with pytest.raises(InputError, match="a column 'color' of x, that the run was fitted on; got none"):
        run.sample(1, x=given[["height cm"]])
    with pytest.raises(InputError, match="a value of the covariate 'color' in every row"):
        run.sample(1, x=given.assign(color=None).head(1))


def test_covariates_beside_another_likelihood_and_what_has_none():
    counts = FRAME[["visits", "color"]].assign(more=RNG.poisson(3, N))
    run = pyro_vae.fit("vae", data=counts, likelihood="poisson", covariates="color", missing="mask", **SMALL)
    assert run.facts.event_shape == (3,)
    assert run.model.likelihood.event_shape == (2,)
    drawn = run.sample(5, x=pd.DataFrame({"color": ["red"]}))
    assert (drawn.color == "red").all()
    for model, message in (
        ("cvae", "something that takes a covariates, for --covariates color; got the model 'cvae', which takes none"),
        (lambda x: x, "a program of your own, which is handed all of x"),
    ):
        with pytest.raises(InputError, match=message):
            pyro_vae.fit(model, data=counts, covariates=("color",), **SMALL)
    with pytest.raises(InputError, match="a column 'sex' of arrays, that is a covariate"):
        pyro_vae.fit("vae", data=counts, covariates=("sex",), **SMALL)
    with pytest.raises(InputError, match="a table with columns that have names, for --covariates"):
        pyro_vae.fit("vae", data=np.ones((N, 3)), covariates=("sex",), **SMALL)


@pytest.mark.draws
def test_the_command_line(command, tmp_path):
    FRAME.to_csv(tmp_path / "t.csv", index=False)
    (tmp_path / "columns.json").write_text(json.dumps({"visits": "poisson", "<b>$x$</b>": "drop"}))
    path, table = str(tmp_path / "run"), str(tmp_path / "t.csv")
    small = ["--latent-dim", "2", "--hidden", "16", "--epochs", "2", "--labels", "none"]
    told = ["--likelihood", f"mixed:{tmp_path / 'columns.json'}", "--covariates", "color"]
    result = command("fit", "--data", table, "--out", path, *told, *small)
    assert result.exit_code == 0, result.output
    assert "3 columns: 1 gaussian, 1 bernoulli, 1 poisson, given color" in result.stderr
    assert command("sample", path, "--num", "7").exit_code == 0
    made = pd.read_csv(tmp_path / "run" / "figures" / "samples.csv")
    assert list(made) == ["height cm", "smoker", "visits", "color"]
    assert len(made) == 7
    assert made.visits.dtype == int
    pd.DataFrame({"color": ["red"]}).to_csv(tmp_path / "given.csv", index=False)
    given = ["--given", str(tmp_path / "given.csv"), "--out", str(tmp_path / "red.csv")]
    assert command("sample", path, "--num", "4", *given).exit_code == 0
    assert pd.read_csv(tmp_path / "red.csv").color.tolist() == ["red"] * 4
    assert command("reconstruct", path, "--num", "5").exit_code == 0
    beside = pd.read_csv(tmp_path / "run" / "figures" / "reconstructions.csv")
    assert list(beside)[:2] == ["height cm", "height cm (reconstructed)"]
    assert command("evaluate", path, "--samples", "5").exit_code == 0
    assert command("latent", path).exit_code == 0
    refused = command("traverse", path)
    assert refused.exit_code == 2
    assert (
        refused.stderr
        == "Error: expected images; got rows of a table with 4 columns; use latent, which maps data of any shape\n"
    )
    FRAME.assign(color="mauve").to_csv(tmp_path / "other.csv", index=False)
    refused = command("evaluate", path, "--data", str(tmp_path / "other.csv"))
    assert refused.exit_code == 2
    assert "the column 'color' of" in refused.stderr
    assert "got 'mauve'" in refused.stderr
    typed = command("fit", "--data", table, "--columns", "visits=poison", "--out", str(tmp_path / "no"), *small)
    assert typed.exit_code == 2
    assert "did you mean 'poisson'" in typed.stderr
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("asked", [{"covariates": ("age",)}, {"columns": {"age": "poisson"}, "likelihood": "mixed"}])
def test_columns_of_data_that_are_no_table_are_refused(asked, tmp_path):
    with pytest.raises(InputError, match="a table, whose columns have names, for --co"):
        pyro_vae.fit("vae", data="digits", out=tmp_path / "run", display=False, **asked)
    assert not (tmp_path / "run").exists()
