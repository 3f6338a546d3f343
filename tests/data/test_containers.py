"""What holds arrays: NumPy's oddities, lists, tables, sets of torch, files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from PIL import Image
from sklearn.datasets import load_diabetes, load_iris
from sklearn.utils import Bunch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from pyro_vae.data import Reading, from_data, load_data
from pyro_vae.data.containers import as_numbers, unpack
from pyro_vae.errors import InputError

X = np.random.default_rng(0).random((24, 4)).astype(np.float32)
Y = np.arange(24) % 3
PIXELS = (255 * np.random.default_rng(0).random((24, 6, 5, 3))).astype(np.uint8)


def frozen(array):
    array = array.copy()
    array.setflags(write=False)
    return array


@pytest.mark.parametrize(
    "x",
    [
        X.astype(">f4"),
        np.asfortranarray(X),
        frozen(X),
        X[::-1][::-1],
        X.astype(np.longdouble),
        X.astype(object),
        X.tolist(),
        memoryview(X),
        list(X),
        [torch.from_numpy(row) for row in X],
        torch.from_numpy(X).requires_grad_(),
        torch.from_numpy(X).double().to_sparse(),
        torch.from_numpy(X).T.contiguous().T,
        scipy.sparse.csr_matrix(X),
        pd.DataFrame(X, index=np.arange(24)[::-1]),
        pd.DataFrame(X).astype("Float64"),
    ],
    ids=lambda x: type(x).__name__,
)
def test_an_array_in_any_form_is_the_same_numbers(x):
    numbers, missing = as_numbers(x, "x")
    assert missing is None
    assert numbers.dtype.isnative
    np.testing.assert_array_equal(numbers.astype(np.float32), X)


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")  # as it is made
def test_a_matrix_is_an_array():
    np.testing.assert_array_equal(as_numbers(np.matrix(X), "x")[0], X)


def test_half_precision_and_memory_maps(tmp_path):
    assert as_numbers(torch.from_numpy(X).bfloat16(), "x")[0].dtype == np.float32
    np.save(tmp_path / "x.npy", X)
    np.testing.assert_array_equal(as_numbers(np.load(tmp_path / "x.npy", mmap_mode="r"), "x")[0], X)


def test_objects_without_a_value_are_nan():
    x = X.astype(object)
    x[0, 0], x[1, 1] = None, pd.NA
    numbers, _ = as_numbers(x, "x")
    assert np.argwhere(np.isnan(numbers)).tolist() == [[0, 0], [1, 1]]


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (X.astype(str), "numbers in x; got dtype <U32; use .astype"),
        (X + 1j, "numbers in x; got dtype complex"),
        ([[1.0, 2.0], [1.0]], "an array in x; got .*inhomogeneous shape.*; give rows of one shape"),
        ([X[0], X[0, :2]], r"rows of one shape in x; got \(2,\) and \(4,\)"),
        (np.array([["a", 1.0]], dtype=object), "objects, some of them text"),
        ((row for row in X), r"objects \(generator\)"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused(x, message):
    with pytest.raises(InputError, match=message):
        as_numbers(x, "x")


@pytest.mark.parametrize(
    "pair", [(X, Y), [X, Y], [X.tolist(), Y.tolist()], {"x": X, "y": Y}, (pd.DataFrame(X), pd.Series(Y))]
)
def test_pairs_are_rows_and_labels(pair):
    arrays = unpack(pair, "arrays")
    np.testing.assert_array_equal(arrays.x.astype(np.float32), X)
    np.testing.assert_array_equal(arrays.y.astype(int), Y)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((X, Y, Y), "a tuple of 3; give"),
        (((X, Y), (X, Y)), "a tuple of tuples; give .*; of sets that are cut already, a pyro_vae.data.Dataset"),
        ({"images": X}, "x, and perhaps y and missing, in arrays; got images"),
        ((pd.DataFrame(X), pd.Series(Y, index=np.arange(24)[::-1])), r"the same index in another order; use y.reindex"),
    ],
)
def test_other_containers_are_refused(data, message):
    with pytest.raises(InputError, match=message):
        unpack(data, "arrays")


class Pictures(Dataset):
    """As torchvision has them: pictures and numbers, and the names of the classes."""

    classes = ("ape", "bee", "cow")

    def __len__(self):
        return 24

    def __getitem__(self, row):
        return Image.fromarray(PIXELS[row]), int(Y[row])


class Mappings(Pictures):
    def __getitem__(self, row):
        image, label = super().__getitem__(row)
        return {"image": np.asarray(image), "label": label}


class Stream(IterableDataset):
    def __iter__(self):
        return iter([(torch.from_numpy(row), label) for row, label in zip(X, Y, strict=True)])


TENSORS = TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))


@pytest.mark.parametrize(
    "data",
    [
        TENSORS,
        DataLoader(TENSORS, 5, shuffle=True, drop_last=True),
        Stream(),
        DataLoader(Stream(), 5),
        ConcatDataset([Subset(TENSORS, range(10)), Subset(TENSORS, range(10, 24))]),
        DataLoader(TENSORS, 5, sampler=list(range(24))),
        list(zip(X, Y.tolist(), strict=True)),
        [{"x": torch.from_numpy(row), "label": label} for row, label in zip(X, Y, strict=True)],
    ],
    ids=lambda data: type(data).__name__,
)
def test_sets_of_torch_are_read_in_their_own_order(data):
    arrays = unpack(data, "arrays")
    np.testing.assert_array_equal(arrays.x, X)
    np.testing.assert_array_equal(arrays.y.astype(int), Y)


class Rows:
    """A set that is one by its methods alone."""

    classes = Pictures.classes

    def __len__(self):
        return 24

    def __getitem__(self, row):
        return Pictures()[row]


@pytest.mark.parametrize(
    "pictures", [Pictures(), Mappings(), Rows(), Subset(Pictures(), range(24)), DataLoader(Mappings(), 7)]
)
def test_pictures_of_torch_have_classes_with_names(pictures):
    data = from_data(pictures)
    assert data.class_names == ("ape", "bee", "cow")
    assert data.event_shape == (3, 6, 5)
    assert data.reading == f"whole numbers from {PIXELS.min()} to {PIXELS.max()}, divided by 255, channels last"


def test_rows_of_other_parts_are_refused():
    with pytest.raises(InputError, match="3 parts; keep the first two"):
        unpack(TensorDataset(*TENSORS.tensors, TENSORS.tensors[1]), "arrays")
    with pytest.raises(InputError, match="rows in arrays; got none"):
        unpack(Subset(TENSORS, []), "arrays")


FRAME = pd.DataFrame(X, columns=list("abcd")).assign(label=np.array(["ant", "bee", "cow"])[Y])


def test_a_table_has_one_column_of_labels():
    data = from_data(FRAME)
    assert data.class_names == ("ant", "bee", "cow")
    assert data.event_shape == (4,)
    kind = FRAME.rename(columns={"label": "kind"})
    with pytest.raises(InputError, match=r"1 of 5 that hold text or dates: 'kind'; .*use .* --label-column kind"):
        from_data(kind, reading=Reading(likelihood="gaussian"))
    assert from_data(kind, reading=Reading(label_column="kind")).class_names == data.class_names
    with pytest.raises(
        InputError, match="one column of labels in arrays; got label, y; use --label-column label, or none"
    ):
        from_data(FRAME.assign(y=Y))
    with pytest.raises(
        InputError, match="the column 'z' of labels in arrays; got none of that name; choose one of: a, b"
    ):
        from_data(FRAME, reading=Reading(label_column="z"))
    numbers = FRAME.drop(columns="label").assign(y=Y)
    assert from_data(numbers, reading=Reading(label_column="none")).event_shape == (5,)
    with pytest.raises(InputError, match="1 of 5 that hold text or dates: 'day'"):
        from_data(FRAME.assign(day=pd.Timestamp("2020-01-01")), reading=Reading(likelihood="gaussian"))


def test_objects_with_gaps_are_numbers_in_a_table():
    frame = pd.DataFrame({"a": [1, None] * 12, "b": [True, None] * 12, "c": [0.5] * 24}, dtype=object)
    reading = Reading(missing="mask", likelihood="gaussian")  # of columns that vary each has its own
    values = from_data(frame, reading=reading).train.values()
    assert set(values[~values.isnan()].tolist()) == {0.5, 1.0}
    assert values.isnan().any(0).tolist() == [True, True, False]


def test_a_column_is_named_in_a_table_alone():
    with pytest.raises(InputError, match="a table with a column 'kind' of labels; got data without columns"):
        unpack((X, Y), "arrays", Reading(label_column="kind"))
    assert unpack((X, Y), "arrays", Reading(label_column="none")).y is not None


def test_objects_in_a_file_are_named(tmp_path):
    np.savez(tmp_path / "a.npz", x=X, y=np.array(["ant", None] * 12, dtype=object))
    with pytest.raises(InputError, match="y holds Python objects, which may run code: save numbers, or text"):
        load_data(tmp_path / "a.npz")


def test_integers_truths_and_gaps_in_a_table():
    frame = pd.DataFrame(
        {"a": [True, False] * 12, "b": range(24), "c": pd.array([1, None, 0, None] * 6, dtype="Int64")}
    )
    data = from_data(frame, reading=Reading(missing="mask"))
    assert data.train.values().isnan().sum() + sum(p.values().isnan().sum() for p in (data.validation, data.test)) == 12
    assert from_data(frame[["a", "b"]]).train.values().max() > 1


@pytest.mark.parametrize("separator", [",", ";"])
@pytest.mark.parametrize("index", [True, False])
def test_text_files_of_tables(tmp_path, separator, index):
    FRAME.to_csv(tmp_path / "T.CSV", sep=separator, index=index)
    data = load_data(tmp_path / "T.CSV")
    assert data.event_shape == (4,)
    assert data.class_names == ("ant", "bee", "cow")
    assert torch.equal(data.train.values(), from_data(FRAME).train.values())


def test_a_table_without_a_header_keeps_its_first_row(tmp_path):
    FRAME.drop(columns="label").to_csv(tmp_path / "t.csv", header=False, index=False)
    data = load_data(str(tmp_path / "t.csv"))
    assert len(data.train) + len(data.validation) + len(data.test) == 24


def test_broken_tables_are_refused(tmp_path):
    (tmp_path / "t.csv").write_text("")
    (tmp_path / "t.parquet").write_text("junk")
    with pytest.raises(InputError, match=r"a table in .*; got a file that pandas refuses"):
        load_data(tmp_path / "t.csv")
    with pytest.raises(InputError, match=r"pandas refuses|pip install 'pyro-vae.tables.'"):
        load_data(tmp_path / "t.parquet")
    with pytest.raises(InputError, match="no such file"):
        load_data(tmp_path / "none.tsv")


def test_parquet(tmp_path):
    pytest.importorskip("pyarrow")
    FRAME.to_parquet(tmp_path / "t.parquet")
    assert torch.equal(load_data(tmp_path / "t.parquet").train.values(), from_data(FRAME).train.values())


def test_polars():
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({name: FRAME[name].to_list() for name in FRAME})
    read = from_data(frame)
    assert read.class_names == ("ant", "bee", "cow")
    assert torch.equal(read.train.values(), from_data(FRAME).train.values())
    arrays = unpack((X, polars.Series(["ant", None] * 12)), "arrays")
    assert arrays.y.tolist() == ["ant", None] * 12


def test_paths_of_any_kind(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with (tmp_path / "ALL.NPZ").open("wb") as file:
        np.savez(file, x=X, y=Y)
    forms = [str(tmp_path / "ALL.NPZ"), tmp_path / "ALL.NPZ", "~/ALL.NPZ", Path("~/ALL.NPZ")]
    read = [load_data(form) for form in forms]
    assert all(torch.equal(data.train.pixels, read[0].train.pixels) for data in read)
    assert [data.name for data in read] == [os.fspath(form) for form in forms]


def test_a_set_without_a_length_and_a_lazy_table_are_read_to_their_end():
    polars = pytest.importorskip("polars")
    rows = torch.rand(20, 3)

    class Endless(torch.utils.data.Dataset):
        def __getitem__(self, row):
            if row >= len(rows):
                raise IndexError
            return rows[row]

    assert sum(len(part) for part in from_data(Endless()).splits) == 20
    lazy = polars.DataFrame({"a": rows[:, 0].numpy(), "b": rows[:, 1].numpy()}).lazy()
    assert from_data(lazy).event_shape == (2,)


@pytest.mark.parametrize("labels", [{0: 1}, "abc", {1, 2}])
def test_labels_that_are_no_rows_are_refused(labels):
    with pytest.raises(InputError, match="one label per row in y of arrays"):
        from_data({"x": torch.rand(20, 3), "y": labels})


def test_what_scikit_learn_loads_has_rows_and_named_classes():
    iris, diabetes = load_iris(), load_diabetes()
    for found in (from_data(iris), from_data(load_iris(as_frame=True))):
        assert found.class_names == ("setosa", "versicolor", "virginica")
        x, y = (torch.cat([getattr(part, name) for part in found.splits]) for name in ("pixels", "labels"))
        assert torch.allclose(x[y == 2].double().sum(0), torch.tensor(iris.data[iris.target == 2].sum(0)))
    assert from_data(diabetes).train.labels is None  # its target is no class
    assert from_data(diabetes).event_shape == (10,)
    unnamed = Bunch(data=iris.data, target=iris.target + 4, target_names=None)
    assert from_data(unnamed).class_names == ("4", "5", "6")
    with pytest.raises(InputError, match="data; got None; give an array"):
        from_data(None)
