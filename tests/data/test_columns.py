"""Columns of tables as people have them: which likelihood fits each, and what is refused, in one line."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from pyro_vae.columns import Column, SeenColumns
from pyro_vae.data import Reading, from_data, load_data, table_of
from pyro_vae.errors import InputError

N = 40
RNG = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {
        "height cm": RNG.normal(170, 10, N),
        "color": np.array(["red", "green", "blue"])[np.arange(N) % 3],
        "size": pd.Categorical(np.array(["S", "M"])[np.arange(N) % 2], categories=["S", "M", "XL"]),
        "smoker": np.arange(N) % 4 == 0,
        "won": np.arange(N) % 2,
        "stars": 1 + np.arange(N) % 5,
        "visits": pd.array([None if i % 8 == 0 else 3 * (i % 12) for i in range(N)], dtype="Int64"),
        "year": 1990 + np.arange(N),
        "<b>delta</b>": np.arange(N) - 20,
    },
    index=[f"row {i}" for i in range(N)],
)
EXPECTED = {
    "height cm": ("gaussian", "float"),
    "color": ("categorical", "text"),
    "size": ("categorical", "category"),
    "smoker": ("bernoulli", "boolean"),
    "won": ("bernoulli", "integer"),
    "stars": ("categorical", "integer"),
    "visits": ("negative_binomial", "integer"),
    "year": ("gaussian", "integer"),
    "<b>delta</b>": ("gaussian", "integer"),
}
MASK = Reading(missing="mask")


def columns_of(data, **options):
    return {column.name: column for column in from_data(data, reading=Reading(missing="mask", **options)).columns}


def test_each_column_has_the_likelihood_that_fits_it():
    data = from_data(FRAME, reading=MASK)
    assert {column.name: (column.likelihood, column.kind) for column in data.columns} == EXPECTED
    assert data.reading.startswith("9 columns: 3 gaussian, 3 categorical, 2 bernoulli, 1 negative_binomial")
    by_name = {column.name: column for column in data.columns}
    assert by_name["size"].categories == ("S", "M", "XL")  # one that no row has may come later
    assert by_name["stars"].categories == (1, 2, 3, 4, 5)
    heights = data.train.values()[:, 0]
    assert by_name["height cm"].location == pytest.approx(heights.mean().item(), rel=1e-5)
    assert by_name["height cm"].spread == pytest.approx(heights.std(correction=0).item(), rel=1e-5)
    assert by_name["visits"].logarithmic


def test_rows_come_back_as_they_were():
    data = from_data(FRAME, reading=MASK)
    rows = torch.cat([part.values() for part in data.splits])
    back = table_of(rows, data.columns).sort_values("year").set_index(FRAME.index)
    for name in FRAME:
        assert (back[name].isna() == FRAME[name].isna()).all(), name
        if FRAME[name].dtype == float:
            np.testing.assert_allclose(back[name], FRAME[name], rtol=1e-6)
        else:
            there = FRAME[name].notna()
            assert back[name][there].tolist() == FRAME[name][there].tolist(), name
    assert back["size"].dtype == FRAME["size"].dtype
    assert back["visits"].dtype == "Int64"
    assert back["smoker"].dtype == bool


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_files_say_the_same(tmp_path, suffix):
    """An integer with empty cells stays one; pandas' categories are text in a text file."""
    path = tmp_path / f"table.{suffix}"
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
        FRAME.to_parquet(path)
    else:
        FRAME.to_csv(path, index=False, sep="\t" if suffix == "tsv" else ",")
    found = {column.name: column.likelihood for column in load_data(path, reading=MASK).columns}
    assert found == {name: likelihood for name, (likelihood, _) in EXPECTED.items()}


def test_polars_says_the_same():
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame(
        {name: FRAME[name].astype(object).where(FRAME[name].notna(), None).tolist() for name in FRAME}
    )
    assert {name: column.likelihood for name, column in columns_of(frame).items()} == {
        name: likelihood for name, (likelihood, _) in EXPECTED.items()
    }


def test_what_a_column_is_said_to_have_goes_first():
    told = {"year": "drop", "stars": "poisson", "won": "categorical", "height cm": "laplace:sigma=optimal"}
    found = columns_of(FRAME, columns=told, covariates=("smoker",))
    assert "year" not in found
    assert found["stars"].likelihood == "poisson"
    assert found["won"].categories == (0, 1)
    assert list(found)[-1] == "smoker"
    assert found["smoker"].is_covariate


def test_labels_beside_a_table_and_in_it():
    y = np.array(["ant", "bee"])[np.arange(N) % 2]
    for data in ((FRAME, y), {"x": FRAME, "y": y}, FRAME.assign(label=y)):
        read = from_data(data, reading=MASK)
        assert len(read.columns) == 9
        assert read.class_names == ("ant", "bee")


def test_tables_of_pictures_are_pixels():
    bits = pd.DataFrame(RNG.integers(0, 2, (N, 16)))
    whole = pd.DataFrame(RNG.integers(0, 256, (N, 16)))
    gray = pd.DataFrame(RNG.random((N, 25)))
    for frame in (bits, whole, gray):
        assert not from_data(frame).columns
    assert from_data(whole).train.scale == 255
    assert from_data(pd.DataFrame(RNG.normal(size=(N, 16)))).columns


THOUSANDS = [f"1,{i:03}" for i in range(N)]
QUESTIONS = ["?", *map(str, range(N - 1))]
DAYS = pd.date_range("2020-01-01", periods=N)
REFUSED = [
    ({"a": [1.5] * N}, r"a column 'a' of arrays that varies; got 1.5 in every row; .*--columns 'a=drop'"),
    ({"a": ["x"] * N}, r"a column 'a' of arrays that varies; got 'x' in every row"),
    ({"a": [None] * N}, r"values in the column 'a' of arrays; got none: all are missing"),
    ({"a": DAYS}, r"truth values, text or categories in the column 'a'.*got values of type datetime64"),
    ({"a": DAYS.date}, r"got values of type date"),
    ({"a": ["x", 1] * (N // 2)}, r"got values of several types \(int, str\); make them text, column.astype\(str\)"),
    ({"a": THOUSANDS}, r"numbers in the column 'a'.*such as '1,000'; write them without commas"),
    ({"a": QUESTIONS}, r"numbers in the column 'a' of arrays, as most of it is; got text, such as '\?'"),
    ({"a": [f"name {i}" for i in range(N)]}, r"text that repeats in the column 'a'.*40 texts that all differ"),
    ({"a": [1j] * N}, r"got values of type complex"),
]


@pytest.mark.parametrize(("column", "message"), REFUSED)
def test_columns_without_a_likelihood_are_refused(column, message):
    with pytest.raises(InputError, match=message) as refused:
        from_data(FRAME[["height cm"]].reset_index(drop=True).assign(**column), reading=MASK)
    assert "\n" not in str(refused.value)


def test_what_is_said_of_columns_has_to_fit():
    for options, message in (
        (
            {"columns": {"colour": "categorical"}},
            "a column 'colour' .*a likelihood was chosen for; .* did you mean 'color'",
        ),
        ({"columns": {"color": "poisson"}}, "numbers in the column 'color' of arrays for poisson; got text"),
        ({"covariates": ("sex",)}, "a column 'sex' of arrays, that is a covariate; got none of that name"),
        ({"covariates": ("visits",)}, "a value of the covariate 'visits' in every row"),
        ({"covariates": tuple(FRAME)}, "columns of arrays to model; got none but covariates"),
        ({"scale": 10.0, "likelihood": "mixed"}, "leave out --scale"),
    ):
        with pytest.raises(InputError, match=message):
            columns_of(FRAME, **options)
    with pytest.raises(InputError, match="columns of different names in arrays; got several 'color'"):
        from_data(pd.concat([FRAME, FRAME[["color"]]], axis=1))
    with pytest.raises(InputError, match=r"a table with columns that have names.*an array without"):
        from_data(np.ones((N, 3)), reading=Reading(likelihood="mixed"))
    many = pd.DataFrame({"a": [f"n{i // 2}" for i in range(2400)]})
    with pytest.raises(
        InputError, match=r"at most 1,000 categories in the column 'a' of arrays; got 1,200; group them"
    ):
        from_data(many)


def test_what_is_said_of_a_column_makes_it_no_label():
    assert [c.name for c in from_data(FRAME.rename(columns={"color": "label"}), reading=MASK).columns][:2] == [
        "height cm",
        "size",
    ]
    named = FRAME.rename(columns={"color": "label"})
    assert list(columns_of(named, covariates=("label",)))[-1] == "label"
    assert list(columns_of(named, columns={"label": "categorical"}))[1] == "label"


def test_numbers_too_far_from_zero_are_refused():
    """Seconds since 1970 within an hour: 32 bits round them to two minutes."""
    far = FRAME[["height cm"]].assign(seconds=1.7e9 + 3000 * RNG.random(N))
    with pytest.raises(InputError, match=r"numbers in the column 'seconds' of arrays that 32 bits tell apart"):
        from_data(far)


def test_networks_see_numbers_standardized_and_categories_as_indicators():
    columns = [
        Column("a", location=1.0, spread=2.0),
        Column("b", "categorical", "text", ("x", "y", "z")),
        Column("c", "poisson", "integer", logarithmic=True, location=1.0, spread=0.5),
    ]
    seen = SeenColumns(columns)(torch.tensor([[3.0, 2.0, 0.0], [1.0, torch.nan, np.e - 1], [torch.nan, 0.0, -1.0]]))
    expected = [[1, 0, 0, 1, -2], [0, 0, 0, 0, 0], [torch.nan, 1, 0, 0, -2]]
    torch.testing.assert_close(seen, torch.tensor(expected), equal_nan=True, atol=1e-6, rtol=0)
