"""VAETransformer: scikit-learn's own checks, known densities, and what a user of scikit-learn expects."""

from __future__ import annotations

import threading

import joblib
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import pyro_vae
from pyro_vae.sklearn import SSVAEClassifier, VAETransformer
from pyro_vae.sklearn.answers import ROWS_AT_ONCE, _by_prior, log_likelihoods

QUICK = {"n_components": 2, "hidden_layer_sizes": (16,), "max_iter": 3, "random_state": 0}


@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks([VAETransformer(hidden_layer_sizes=(16,), max_iter=2)])
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks([VAETransformer()])
def test_scikit_learns_checks_with_the_defaults(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def iris():
    return load_iris(as_frame=True)


@pytest.fixture(scope="module")
def fitted(iris) -> VAETransformer:
    return VAETransformer(**QUICK).fit(iris.data.to_numpy())


def test_it_is_the_run_that_fit_makes(iris):
    """The same seed, rows and settings, in the units that the model sees, to the bit."""
    vae = VAETransformer(**QUICK, settings={"beta": 0.5}).fit(iris.data)
    names = {"latent_dim": 2, "hidden": (16,), "epochs": 3, "seed": 0, "beta": 0.5}
    run = pyro_vae.fit(data=vae.run_.data, labels="none", display=False, **names)
    rows = (iris.data.to_numpy() - iris.data.to_numpy().mean(0)) / vae._units.scale
    assert torch.equal(vae.run_.encode(rows), run.encode(rows))
    np.testing.assert_allclose(vae.transform(iris.data), run.encode(rows), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        vae.inverse_transform(vae.transform(iris.data)),
        run.decode(run.encode(rows)).numpy() * vae._units.scale + iris.data.to_numpy().mean(0),
        rtol=1e-4,
    )


@pytest.mark.exhaustive
def test_the_density_of_a_linear_model_is_known():
    """Probabilistic PCA, whose evidence has a closed form, in units of its own."""
    rng = np.random.default_rng(0)
    x = 100 + 20 * (rng.normal(size=(600, 1)) @ [[3.0, -2.0, 1.0]] + 0.5 * rng.normal(size=(600, 3)))
    settings = {"network": "mlp:hidden=4,activation=tanh", "lr": 1e-2, "beta": 1.0, "patience": "none"}
    vae = VAETransformer(1, max_iter=60, n_importance_samples=500, settings=settings, random_state=0).fit(x)
    exact = PCA(1).fit(x).score_samples(x)
    found = vae.score_samples(x[:150])
    assert np.mean(found - exact[:150]) == pytest.approx(0, abs=0.15)  # nats, of 13: a decoder that is nearly linear
    assert np.corrcoef(found, exact[:150])[0, 1] > 0.97


def test_densities_follow_the_units(iris):
    x = iris.data.to_numpy()
    one, other = VAETransformer(**QUICK).fit(x), VAETransformer(**QUICK).fit(1000 * x + 7)
    np.testing.assert_allclose(other.score_samples(1000 * x[:9] + 7), one.score_samples(x[:9]) - 4 * np.log(1000), 1e-4)
    np.testing.assert_allclose(other.transform(1000 * x + 7), one.transform(x), atol=1e-4)
    np.testing.assert_allclose(other.sample(5, 0), 1000 * one.sample(5, 0) + 7, rtol=1e-4)


@pytest.mark.exhaustive
def test_probabilities_have_no_units():
    bits = np.random.default_rng(0).integers(0, 2, (40, 3)).astype(float)
    vae = VAETransformer(**QUICK).fit(bits)
    every = np.array([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)], dtype=float)
    assert np.exp(vae.score_samples(every)).sum() == pytest.approx(1, abs=0.05)  # by 100 samples each
    assert set(np.unique(vae.sample(20, 0))) == {0, 1}
    counts = np.round(16 * np.random.default_rng(0).random((40, 16)))
    of_sixteen = VAETransformer(**QUICK, settings={"scale": 16}).fit(counts)
    assert of_sixteen.run_.config.likelihood == "binomial:trials=16"
    drawn = of_sixteen.sample(20, 0)
    assert np.array_equal(drawn, np.round(drawn))
    assert 1 < drawn.max() <= 16
    assert of_sixteen.score(counts) < 0


@pytest.mark.parametrize(
    "settings",
    [
        {},
        pytest.param({"guide": "iaf"}, marks=pytest.mark.exhaustive),
        pytest.param({"model": "hvae"}, marks=pytest.mark.exhaustive),
    ],
)
def test_a_row_is_answered_alike_whatever_comes_with_it(iris, settings):
    x = iris.data.to_numpy()
    vae = VAETransformer(**QUICK, settings=settings).fit(x)
    some = np.random.default_rng(0).permutation(len(x))[:7]
    for answer in (vae.transform, vae.score_samples):
        whole = answer(x[: ROWS_AT_ONCE + 5] if settings == {} else x[some])
        rows = np.arange(len(whole)) if settings == {} else some
        alone = np.concatenate([answer(x[row : row + 1]) for row in rows[::44]])
        np.testing.assert_array_equal(whole[::44], alone)


@pytest.mark.exhaustive
def test_random_states(iris):
    def first(state) -> float:
        return VAETransformer(**QUICK | {"random_state": state}).fit(iris.data).transform(iris.data)[0, 0]

    assert first(3) == first(3) != first(4)
    assert first(np.random.RandomState(3)) == first(np.random.RandomState(3))
    assert first(None) != first(None)
    vae = VAETransformer(**QUICK).fit(iris.data)
    assert np.array_equal(vae.sample(3, 0), vae.sample(3, 0))
    assert not np.array_equal(vae.sample(3), vae.sample(3))


def test_a_fitted_one_is_saved_without_its_data(fitted, iris, tmp_path):
    joblib.dump(fitted, tmp_path / "vae.joblib")
    again = joblib.load(tmp_path / "vae.joblib")
    x = iris.data.to_numpy()
    np.testing.assert_array_equal(again.transform(x), fitted.transform(x))
    np.testing.assert_array_equal(again.score_samples(x[:5]), fitted.score_samples(x[:5]))
    with pytest.raises(ValueError, match="the data of the run"):
        again.run_.evaluate()
    assert len(fitted.run_.data.train) == 135  # the one in memory has them still


def test_tables_names_and_clones(fitted, iris):
    vae = clone(fitted).set_output(transform="pandas")
    table = vae.fit_transform(iris.data)
    assert list(table.columns) == list(fitted.get_feature_names_out()) == ["vaetransformer0", "vaetransformer1"]
    assert table.index.equals(iris.data.index)
    assert list(vae.feature_names_in_) == list(iris.data.columns)
    np.testing.assert_array_equal(table, fitted.transform(iris.data.to_numpy()))


@pytest.mark.exhaustive
def test_it_works_in_a_pipeline_and_a_grid_search(iris):
    quick = VAETransformer(**QUICK | {"max_iter": 20, "n_importance_samples": 10})
    pipeline = make_pipeline(StandardScaler(), quick, LogisticRegression())
    x, y = iris.data[::2], iris.target[::2]
    grid = {"vaetransformer__settings": [{"beta": 1.0}, {"guide": "full_rank"}]}
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(x, y)
    assert len(search.cv_results_["params"]) == 2
    assert search.best_score_ > 0.7
    by_density = GridSearchCV(quick, {"max_iter": [1, 20]}, cv=2, error_score="raise").fit(x[::2])
    assert by_density.best_params_ == {"max_iter": 20}


@pytest.mark.exhaustive
def test_threads_wait_for_each_other(iris):
    found: list[float] = []
    threads = [
        threading.Thread(target=lambda: found.append(VAETransformer(**QUICK).fit(iris.data).score(iris.data[:3])))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    assert found[0] == found[1]


def test_missing_values_are_refused_or_left_out(fitted, iris):
    holed = iris.data.to_numpy().copy()
    holed[::3, 0] = np.nan
    for refuse in (VAETransformer(**QUICK).fit, fitted.transform, fitted.score_samples):
        with pytest.raises(ValueError, match="contains NaN"):
            refuse(holed)
    vae = VAETransformer(**QUICK, settings={"missing": "mask"}).fit(holed)
    assert np.isfinite(vae.transform(holed)).all()
    assert np.isfinite(vae.score_samples(holed[:4])).all()
    whole = VAETransformer(**QUICK, settings={"missing": "mask"}).fit(iris.data.to_numpy())
    with pytest.raises(ValueError, match="contains NaN"):
        whole.transform(holed)  # a model that was fitted without holes cannot see any


def test_rows_far_from_all_others_are_unlikely(fitted, iris):
    scores = fitted.score_samples(np.array([iris.data.to_numpy().mean(0), [1e3] * 4, [1e200] * 4]))
    assert scores[0] > scores[1]
    assert scores[2] == -np.inf


@pytest.mark.parametrize(
    "guide",
    ["mean_field", *(pytest.param(name, marks=pytest.mark.exhaustive) for name in ("iaf", "mixture"))],
)
def test_outliers_are_ordered_by_how_far_they_are(iris, guide):
    """The scales of all these guides overflow a hundred standard deviations away, where a density is a square still."""
    x = iris.data.to_numpy()
    vae = VAETransformer(**QUICK, settings={"guide": guide}).fit(x)
    distances = np.array([0, 2, 5, 10, 20, 50, 1e2, 1e3, 1e6, 1e12])
    rows = x.mean(0) + distances[:, None] * [1, -1, 1, -1]
    scores = vae.score_samples(rows)
    assert np.isfinite(scores).all()
    assert (np.diff(scores) < 0).all()
    assert scores[-1] / scores[-2] == pytest.approx(1e12, rel=1e-3)
    assert scores[7:].tolist() == [*vae.score_samples(rows[7:8]), *vae.score_samples(rows[8:])]
    assert np.isfinite(vae.transform(np.vstack([rows, [[1e300, 0, 0, -1e300]]]))).all()
    assert np.isfinite(VAETransformer(**QUICK, settings={"scale": 16}).fit(np.round(2 * x)).transform(rows)).all()


@pytest.mark.exhaustive
def test_draws_from_the_prior_find_the_same_evidence(iris):
    """Of rows that are like the others, where the guide finds it too; with labels they are drawn and summed out."""
    x = iris.data.to_numpy()
    labels = np.where(np.arange(150) % 2, iris.target, -1)
    for vae in (VAETransformer(**QUICK).fit(x), SSVAEClassifier(**QUICK).fit(x, labels)):
        rows = vae._units.rows(x[::30])
        by_guide = log_likelihoods(vae.run_, rows, 2000)
        by_prior = [_by_prior(vae.run_, row, 20_000) for row in rows.split(1)]
        np.testing.assert_allclose(by_prior, by_guide, atol=0.1)  # nats


@pytest.mark.parametrize("num_rows", [2, 9, 11])
def test_few_rows_do(num_rows):
    x = load_digits().data[:num_rows]
    vae = VAETransformer(**QUICK).fit(x)
    assert vae.transform(x).shape == (num_rows, 2)
    assert np.isfinite(vae.score(x))


@pytest.mark.exhaustive
def test_images_laid_flat_have_networks_for_images():
    x = load_digits().data[:60]
    vae = VAETransformer(2, max_iter=1, image_shape=(8, 8), settings={"network": "conv"}, random_state=0).fit(x)
    assert vae.run_.facts.event_shape == (1, 8, 8)
    assert vae.inverse_transform(vae.transform(x)).shape == x.shape


@pytest.mark.exhaustive
def test_a_run_directory_is_written_where_it_is_asked_for(iris, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    VAETransformer(**QUICK).fit(iris.data)
    assert list(tmp_path.iterdir()) == []
    vae = VAETransformer(**QUICK, settings={"out": "kept"}).fit(iris.data)
    z = vae.transform(iris.data)
    assert torch.equal(pyro_vae.load("kept").decode(torch.tensor(z)), vae.run_.decode(torch.tensor(z)))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_components": 0}, "n_components of whole numbers from 1 on; got 0; use n_components=32"),
        ({"hidden_layer_sizes": (3, -1)}, "got -1; use hidden_layer_sizes"),
        ({"hidden_layer_sizes": ()}, "hidden_layer_sizes of whole numbers"),
        ({"max_iter": "all"}, "got 'all'; use max_iter=100, or 'auto'"),
        ({"n_importance_samples": 1.5}, "n_importance_samples"),
        ({"image_shape": (3, 3)}, r"of 4 numbers in all, as X has columns; got \(3, 3\)"),
        ({"random_state": "x"}, "cannot be used to seed"),
        ({"settings": "beta=2"}, "settings by name"),
        ({"settings": {1: 2}}, "settings by name"),
        ({"settings": {"latent_dim": 3}}, "no 'latent_dim' among the settings of VAETransformer; got one; use n_comp"),
        ({"settings": {"latnt": 3}}, "expected a setting that exists; got 'latnt'"),
    ],
)
def test_bad_parameters_are_refused_when_it_is_fitted(iris, parameters, message):
    with pytest.raises(ValueError, match=message):
        VAETransformer(**QUICK | parameters).fit(iris.data)


def test_a_setting_is_a_parameter_inside_of_settings(iris):
    pipeline = make_pipeline(StandardScaler(), VAETransformer(**QUICK, settings={"lr": 1e-2}))
    pipeline.set_params(vaetransformer__settings__beta=2.0, vaetransformer__max_iter=1)
    vae = pipeline[-1]
    assert (vae.settings, vae.max_iter) == ({"lr": 1e-2, "beta": 2.0}, 1)
    assert vae.get_params()["settings__beta"] == 2.0
    assert "settings__beta" not in vae.get_params(deep=False)
    assert clone(vae).settings == vae.settings
    assert "settings__" not in repr(vae)
    assert vae._repr_html_()
    again = clone(vae).set_params(settings=None, settings__lr=0.1)
    assert (again.settings, vae.settings["lr"]) == ({"lr": 0.1}, 1e-2)  # nothing is shared
    with pytest.raises(ValueError, match="expected a setting that exists; got 'latnt'"):
        again.set_params(settings__latnt=3).fit(iris.data)


class Linear(pyro.nn.PyroModule):
    """A program of a user's own."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = torch.nn.Linear(2, 4)

    def forward(self, x):
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([len(x), 2]).to_event(1))
            pyro.sample("sizes", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)


def test_programs_of_a_user_are_copied_before_they_are_trained(iris):
    """So that a second fit, and clones made after the first, begin anew: else they know what they are scored on."""
    model = Linear()
    before = model.decoder.weight.detach().clone()
    vae = VAETransformer(max_iter=2, random_state=0, settings={"model": model, "guide": "mean_field"})
    one = vae.fit(iris.data).transform(iris.data)
    assert torch.equal(model.decoder.weight, before)
    assert not torch.equal(vae.run_.model.decoder.weight, before)
    assert vae.settings["model"] is model
    np.testing.assert_array_equal(vae.fit(iris.data).transform(iris.data), one)
    np.testing.assert_array_equal(clone(vae).fit(iris.data).transform(iris.data), one)


def test_a_fit_that_fails_leaves_no_model_behind(iris):
    vae = VAETransformer(**QUICK | {"max_iter": 1}).fit(iris.data)
    for data, parameters in ((iris.data, {"n_components": 0}), (iris.data.assign(last=np.inf), {"n_components": 2})):
        with pytest.raises(ValueError, match=r"n_components of whole|contains infinity"):
            vae.set_params(**parameters).fit(data)
        with pytest.raises(NotFittedError):
            vae.transform(iris.data)


def test_a_fit_says_to_handlers_above_what_they_were_set_up_for(iris, caplog):
    """``logging.basicConfig(level="WARNING")`` puts a handler on the root that does not look at levels itself."""
    VAETransformer(**QUICK | {"max_iter": 1}).fit(iris.data)
    assert [record for record in caplog.records if record.levelname in ("DEBUG", "INFO")] == []
    with caplog.at_level("INFO"):
        VAETransformer(**QUICK | {"max_iter": 1}).fit(iris.data)
    assert any(record.levelname == "INFO" for record in caplog.records)


def test_bad_rows_are_refused(fitted, iris):
    with pytest.raises(TypeError, match="dense data is required"):
        VAETransformer(**QUICK).fit(sparse.csr_matrix(iris.data))
    with pytest.raises(ValueError, match="is expecting 4 features"):
        fitted.transform(iris.data.to_numpy()[:, :3])
    with pytest.raises(ValueError, match="2 columns of latent points; got 3"):
        fitted.inverse_transform(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="n_samples of whole numbers from 1 on; got 0"):
        fitted.sample(0)
    with pytest.raises(ValueError, match="could not convert string"):
        VAETransformer(**QUICK).fit([["a", "b"], ["c", "d"]])


def test_what_is_wrong_with_a_fit_is_said(iris, caplog):
    with caplog.at_level("WARNING", "pyro_vae"):
        vae = VAETransformer(**QUICK | {"max_iter": 1}).fit(np.full((30, 3), 5.0))
    assert [f"VAETransformer: {finding}" for finding in vae.run_.findings] == caplog.messages
    assert "collapse" in caplog.text
