"""What is shown of posterior trees: tables and figures say what the trees hold, on either ArviZ."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from matplotlib import pyplot
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from scipy import stats

from pyro_vae.arviz_bridge.restarts import training_trace
from pyro_vae.arviz_bridge.tree import from_chains, from_guide
from pyro_vae.errors import InputError
from pyro_vae.figures import restarts as restarts_figures
from pyro_vae.figures import trees as tree_figures
from pyro_vae.guides import FullRank
from pyro_vae.models import LinearGaussian
from tests.arviz_bridge.test_tree import wide_guide
from tests.posterior.test_target import EFFECTS, eight_schools, target


@pytest.fixture(autouse=True)
def _no_open_figures():
    """pyplot must not keep what it is not asked for: a notebook would show it twice."""
    before = pyplot.get_fignums()
    yield
    assert pyplot.get_fignums() == before


@pytest.fixture
def linear():
    torch.manual_seed(1)
    model = LinearGaussian((5,), latent_dim=3)
    return target(model, FullRank(model), torch.randn(4, 5))


@pytest.fixture
def trees(linear):
    """A guide, and chains of another number of draws, far to the right of it."""
    guide = from_guide(linear, 90)
    chains = from_chains(100 + torch.randn(4, 50, 4, 3), linear)
    return {"VI": guide, "NUTS": chains}


@pytest.fixture
def restarts(linear):
    tree = from_guide([linear, linear], 60)
    rng = np.random.default_rng(0)
    histories = [
        pd.DataFrame(
            {
                "epoch": range(1, n + 1),
                "train_loss": 100.0 / np.arange(1, n + 1),
                "validation_elbo": -90 - 10 / np.arange(1, n + 1) + 0.01 * rng.random(n),
                "validation_kl": 5 + 0.01 * rng.random(n),
            }
        )
        for n in (30, 20)
    ]
    tree["training"] = xr.DataTree(training_trace(histories, [7, 8]))
    return tree, histories


def test_the_table_of_a_guide_has_statistics_alone(trees):
    table = tree_figures.summary(trees["VI"])
    z = trees["VI"]["posterior"]["z"]
    assert not {"r_hat", "ess_bulk", "ess_tail"} & set(table.columns)
    assert np.allclose(table["mean"], z.mean(("chain", "draw")).to_numpy().ravel(), rtol=1e-5)
    assert np.allclose(table["sd"], z.std(("chain", "draw"), ddof=1).to_numpy().ravel(), rtol=1e-4)
    for kind in ("all", "diagnostics"):
        with pytest.raises(InputError, match="independent draws from one guide"):
            tree_figures.summary(trees["VI"], kind=kind)


def test_the_table_of_chains_has_diagnostics(trees, linear):
    assert {"mean", "sd", "r_hat", "ess_bulk"} <= set(tree_figures.summary(trees["NUTS"]).columns)
    apart = torch.randn(2, 300, 4, 3) + torch.tensor([0.0, 5.0])[:, None, None, None]
    assert (tree_figures.summary(from_chains(apart, linear))["r_hat"] > 1.5).all()


def test_restarts_that_found_two_modes_are_told_apart(linear):
    other = target(linear.pair.model, FullRank(linear.pair.model), linear.x)
    with torch.no_grad():
        other.pair.guide.conditionals["z"].family.loc.bias.add_(5.0)
    r_hat = tree_figures.summary(from_guide([linear, other], 200), kind="diagnostics")["r_hat"]
    alike = tree_figures.summary(from_guide([linear, linear], 200), kind="diagnostics")["r_hat"]
    assert alike.max() < 1.1 < 1.5 < r_hat.min()


def test_nothing_offers_r_hat_of_a_training_trace(restarts):
    """A trace of the bound is no chain: it has no dimensions that R-hat and ESS are computed over."""
    tree, _ = restarts
    assert set(tree["training"].dims) == {"run", "step"}
    assert not {"chain", "draw"} & {str(name) for name in tree["training"].variables}
    with pytest.raises(InputError, match="a site of the posterior; got 'validation_elbo'"):
        tree_figures.summary(tree, ["validation_elbo"])


def test_the_table_is_of_what_was_chosen(trees):
    table = tree_figures.summary(trees["NUTS"], ["z"], {"datum": 2, "z_dim_0": [0, 2]})
    mean = trees["NUTS"]["posterior"]["z"].sel(datum=2, z_dim_0=[0, 2]).mean(("chain", "draw"))
    assert np.allclose(table["mean"], mean, rtol=1e-5)
    with pytest.raises(InputError, match="a dimension of the posterior; got 'data'"):
        tree_figures.summary(trees["NUTS"], coords={"data": 2})


def test_matched_posteriors_have_equal_dimensions(trees, linear):
    rows = {"VI": from_guide(linear, 90, rows=[5, 6, 7, 8]), "NUTS": trees["NUTS"]}
    rows["NUTS"] = from_chains(torch.randn(4, 50, 4, 3), linear, rows=[8, 7, 1, 2])
    found = tree_figures.matched(rows)
    for tree in found.values():
        assert dict(tree["posterior"].sizes) == {"chain": 1, "draw": 90, "datum": 2, "z_dim_0": 3}
    whole = tree_figures.matched({"VI": rows["VI"]})["VI"]["posterior"]["z"]
    assert np.array_equal(whole, rows["VI"]["posterior"]["z"])
    thinned = found["NUTS"]["posterior"]["z"].sel(datum=8).to_numpy()[0]
    given = rows["NUTS"]["posterior"]["z"].sel(datum=8).to_numpy().reshape(200, 3)
    assert np.array_equal(thinned[[0, -1]], given[[0, -1]])
    assert all((row == given).all(-1).any() for row in thinned)
    with pytest.raises(InputError, match="none in common"):
        tree_figures.matched({"VI": from_guide(linear, 9, rows=[5, 6, 7, 8]), "NUTS": from_guide(linear, 9)})


def horizontal(figure):
    """The finite horizontal positions of all lines of a figure."""
    found = [np.asarray(line.get_xdata(), dtype=float) for ax in figure.axes for line in ax.lines]
    collections = [collection for ax in figure.axes for collection in ax.collections]
    for collection in collections:
        if isinstance(collection, LineCollection):
            found += [np.asarray(segment)[:, 0] for segment in collection.get_segments()]
    return np.concatenate([values[np.isfinite(values)] for values in found])


def test_a_forest_shows_both_posteriors(trees):
    """ArviZ 1.x draws a blank for the one with fewer draws unless they are matched."""
    figure = tree_figures.plot_forest(trees, coords={"datum": [0, 1]})
    positions = horizontal(figure)
    assert ((positions > 95) & (positions < 105)).sum() >= 6 * 2  # NUTS: six numbers, an interval's two ends each
    assert ((positions > -20) & (positions < 20)).sum() >= 6 * 2


def test_a_pair_plot_lays_one_posterior_over_the_other(trees):
    figure = tree_figures.plot_pair({"NUTS": trees["NUTS"], "VI": trees["VI"]}, coords={"datum": 0, "z_dim_0": [0, 1]})
    points, colors = [], set()
    for ax in figure.axes:
        for collection in ax.collections:
            points.append(np.asarray(collection.get_offsets()))
            colors.add(to_rgb(collection.get_facecolor()[0]))
        for line in ax.lines:
            if line.get_linestyle() == "None":
                points.append(np.asarray(line.get_xydata()))
                colors.add(to_rgb(line.get_color()))
    first = np.concatenate([p for p in points if len(p) == 90])[:, 0]
    assert (first > 90).sum() == (first < 90).sum() == 90
    assert {to_rgb(tree_figures.ORANGE), to_rgb(tree_figures.BLUE)} <= colors
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["NUTS", "VI"]


def test_too_many_numbers_to_pair_are_refused(trees):
    with pytest.raises(InputError, match="from 2 to 8 numbers to pair; got 12"):
        tree_figures.plot_pair(trees)


def test_a_predictive_check_shows_what_was_observed(linear):
    tree = from_guide(linear, 60, num_predictive=20)
    figure = tree_figures.plot_predictive_check(tree)
    assert len(horizontal(figure)) > 0
    shifted = tree.copy()
    shifted["posterior_predictive"] = xr.DataTree(tree["posterior_predictive"].to_dataset() + 1000)
    assert horizontal(tree_figures.plot_predictive_check(shifted)).max() > 900
    largest = tree_figures.plot_predictive_check(shifted, statistic=lambda x: -x.max("x_dim_0"))
    assert horizontal(largest).min() < -900
    with pytest.raises(InputError, match="a group 'posterior_predictive' with 'x'"):
        tree_figures.plot_predictive_check(from_guide(linear, 5, num_predictive=0))


def test_loo_pit_of_data_from_the_model_is_uniform():
    """Normal data with a normal mean: PITs of 200 data pass a Kolmogorov-Smirnov test; missed once in 10,000 runs."""
    import pyro
    import pyro.distributions as dist

    torch.manual_seed(2)
    x = 3 + torch.randn(200)
    precision = 200 + 0.01

    def model(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
        with pyro.plate("row", 200):
            pyro.sample("x", dist.Normal(mu, 1.0), obs=x)

    def guide(x):
        pyro.sample("mu", dist.Normal(x.sum() / precision, 1.1 * precision**-0.5))

    tree = from_guide(target(model, guide, x), 2000)
    pits = tree_figures.loo_pit(tree)
    assert stats.kstest(pits, "uniform").pvalue > 1e-4
    narrow = tree.copy()
    center = float(tree["posterior_predictive"]["x"].mean())
    narrow["posterior_predictive"] = xr.DataTree(
        (center + 0.5 * (tree["posterior_predictive"].to_dataset() - center)).astype("float32")
    )
    assert stats.kstest(tree_figures.loo_pit(narrow), "uniform").pvalue < 1e-4
    figure = tree_figures.plot_loo_pit(tree)
    assert figure.axes[0].get_xlabel() == "LOO-PIT"
    assert len(horizontal(figure)) > 0


def test_loo_pit_is_refused_where_it_makes_no_sense(linear):
    with pytest.raises(InputError, match="harmonic mean"):
        tree_figures.plot_loo_pit(from_guide(linear, 5))
    few = from_guide(target(eight_schools, wide_guide, EFFECTS), 50, num_predictive=10)
    with pytest.raises(InputError, match="num_predictive=num_draws"):
        tree_figures.plot_loo_pit(few)


def test_the_training_figure_draws_every_run_and_component(restarts):
    tree, histories = restarts
    figure = restarts_figures.plot_training(tree)
    assert [ax.get_title() for ax in figure.axes] == ["validation elbo", "validation kl", "train loss"]
    first, second = figure.axes[0].lines
    assert np.array_equal(first.get_ydata(), histories[0]["validation_elbo"])
    assert np.array_equal(np.asarray(second.get_ydata())[:20], histories[1]["validation_elbo"])
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["seed 7", "seed 8"]


def test_restarts_are_compared_in_a_table(restarts):
    tree, histories = restarts
    table = restarts_figures.compare_restarts(tree)
    assert table["seed"].tolist() == [7, 8]
    assert table["epochs"].tolist() == [30, 20]
    for row, history in zip(table.itertuples(), histories, strict=True):
        best = history.loc[history["validation_elbo"].idxmax()]
        assert (row.best_epoch, row.best_validation_elbo) == (best["epoch"], best["validation_elbo"])
        assert row.last_validation_elbo == history["validation_elbo"].iloc[-1]
    assert np.allclose(table["log_evidence"], tree["importance"]["log_evidence"].mean("datum"))
    assert (table["elbo"] < table["log_evidence"]).all()


def test_k_hat_is_shown_datum_by_datum(restarts):
    tree, _ = restarts
    tree["importance"]["k_hat"][0, 1] = np.inf
    figure = restarts_figures.plot_k_hat(tree)
    shown = np.asarray(figure.axes[0].lines[0].get_ydata())
    expected = np.sort(tree["importance"]["k_hat"].to_numpy()[0])
    assert np.array_equal(shown[:-1], expected[:-1])
    assert np.isnan(shown[-1])
    assert "1 without a finite k-hat" in figure.axes[0].get_title()
