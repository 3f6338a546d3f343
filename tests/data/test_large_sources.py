"""Zarr stores, parquet files and others that are larger than memory have the rows that they have in memory."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import pyro_vae
from pyro_vae.data import Reading, from_arrays, load_data
from pyro_vae.errors import InputError

MEMORY = 1 << 16
ROWS = 300


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PYRO_VAE_DATA", str(tmp_path / "kept"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def x():
    return np.random.default_rng(0).integers(0, 256, size=(ROWS, 4, 4)).astype(np.uint8)


@pytest.fixture
def frame():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "size": rng.normal(size=ROWS),
            "count": rng.poisson(30, ROWS),
            "color": rng.choice(["red", "green", "blue"], ROWS),
            "is_new": rng.random(ROWS) < 0.5,
            "grade": pd.Categorical(rng.choice(["low", "high"], ROWS), ["low", "high"]),
            "label": rng.choice(["cat", "dog", ""], ROWS),
        }
    )


def mapped(path, **reading):
    return load_data(path, reading=Reading(**{"memory": MEMORY} | reading))


def assert_alike(found, expected):
    for name in ("kind", "event_shape", "class_names"):
        assert getattr(found, name) == getattr(expected, name)
    assert found.reading == f"{expected.reading}, from a mapped file"
    assert found.train.scale == expected.train.scale
    for part, other in zip(found.splits, expected.splits, strict=True):
        assert (part.labels is None) == (other.labels is None)
        tables = []
        for images in (part[:], other):
            labels = torch.zeros(len(images)) if images.labels is None else images.labels
            rows = torch.cat([images.values().flatten(1), labels[:, None].float()], 1)
            tables.append(rows[np.lexsort(rows.T.numpy())])
        assert torch.equal(*tables)
    for column, other in zip(found.columns, expected.columns, strict=True):
        assert column.spread == pytest.approx(other.spread, rel=1e-6)
        assert column.location == pytest.approx(other.location, rel=1e-6)
        described = [
            (each.name, each.likelihood, each.kind, each.categories, each.is_covariate) for each in (column, other)
        ]
        assert described[0] == described[1]


@pytest.mark.parametrize(
    "reading",
    [
        {},
        {"covariates": ("size", "color")},
        {"columns": {"count": "gaussian", "color": "drop"}},
        {"label_column": "grade", "columns": {"label": "drop"}},
    ],
)
def test_a_parquet_table_has_the_rows_and_columns_of_one_in_memory(frame, reading):
    frame.set_index("count" if not reading else frame.index).to_parquet("table.parquet", row_group_size=70)
    found, expected = mapped("table.parquet", **reading), load_data("table.parquet", reading=Reading(**reading))
    assert_alike(found, expected)
    assert_alike(
        mapped("table.parquet", known=found.columns), load_data("table.parquet", reading=Reading(known=found.columns))
    )


@pytest.mark.parametrize("divided", [1, 255.0])
def test_a_parquet_table_of_pictures_is_one_of_pixels(x, divided):
    frame = pd.DataFrame(x.reshape(ROWS, 16) / divided if divided > 1 else x.reshape(ROWS, 16).astype(np.int64))
    frame.rename(columns=str).assign(y=np.arange(ROWS) % 3 - 1).to_parquet("table.parquet", row_group_size=70)
    found = mapped("table.parquet")
    assert_alike(found, load_data("table.parquet"))
    assert found.train.pixels.dtype == (torch.uint8 if divided == 1 else torch.float64)


def test_a_folder_of_parquet_files_is_one_table(frame):
    (folder := Path("tables")).mkdir()
    for i in range(3):
        frame[100 * i : 100 * i + 100].to_parquet(folder / f"{i}.parquet")
    (folder / "notes.txt").write_text("other files are passed over")
    frame.to_parquet("table.parquet")
    assert_alike(mapped("tables"), load_data("table.parquet"))
    with pytest.raises(InputError, match="without --memory; got one of shards; use --memory 1GB"):
        load_data("tables")
    frame[["size"]].to_parquet(folder / "3.parquet")
    with pytest.raises(InputError, match=r"parquet files of the same columns in tables; got size in 3\.parquet"):
        mapped("tables")


def test_what_parquet_cannot_be_is_said_in_one_line(frame, monkeypatch):
    frame.to_parquet("table.parquet")
    content = Path("table.parquet").read_bytes()
    with pytest.raises(InputError, match="--memory for the column 'label'"):
        mapped("table.parquet", memory=1000)
    frame.assign(size=frame["size"].where(frame["size"] > 0)).to_parquet("table.parquet")
    with pytest.raises(InputError, match="some that are missing; fill them, or leave out --memory"):
        mapped("table.parquet")
    frame.assign(size=1.0).to_parquet("table.parquet")
    with pytest.raises(InputError, match=r"a column 'size' of table\.parquet that varies; got 1 in every training row"):
        mapped("table.parquet", columns={"size": "gaussian"})
    Path("table.parquet").write_bytes(content[:-100])
    with pytest.raises(InputError, match="one that pyarrow cannot open"):
        mapped("table.parquet")
    frame.to_csv("table.csv")
    with pytest.raises(InputError, match=r"for --memory; got table\.csv; write it so"):
        mapped("table.csv")
    Path("empty").mkdir()
    with pytest.raises(InputError, match="of images, for --memory, at empty; got one of nothing"):
        mapped("empty")
    assert [path.suffix for path in sorted(Path("kept/cache").iterdir())] == [".npy", ".npz"]  # of the constant column
    for name in ("pyarrow", "pyarrow.parquet", "zarr"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=r"pip install 'pyro-vae\[tables\]'"):
        mapped("table.parquet")
    Path("empty/zarr.json").write_text("{}")
    with pytest.raises(InputError, match=r"pip install 'pyro-vae\[zarr\]'"):
        mapped("empty")


@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore:.*does not have a Zarr V3 specification")
@pytest.mark.parametrize("version", [2, 3])
def test_a_zarr_store_has_the_rows_of_its_array(x, version):
    import zarr

    labels = np.arange(ROWS) % 3 - 1
    array = zarr.create_array("array.zarr", shape=x.shape, chunks=(70, 4, 2), dtype=x.dtype, zarr_format=version)
    array[:] = x
    assert_alike(mapped("array.zarr"), from_arrays(x))
    np.save("array.labels.npy", labels)
    assert_alike(mapped("array.zarr"), from_arrays(x, labels))
    group = zarr.create_group("group.zarr", zarr_format=version)
    group.create_array("x", shape=x.shape, chunks=(7, 4, 4), dtype=">i4")[:] = x
    with pytest.raises(InputError, match=r"a chunk of group.zarr, 7 of 64 bytes; .* use --memory 448 or more"):
        mapped("group.zarr", memory=447)
    group.create_array("y", shape=labels.shape, dtype=labels.dtype)[:] = labels
    assert_alike(mapped("group.zarr"), from_arrays(x, labels))
    group.create_array("labels", shape=labels.shape, dtype=labels.dtype)
    with pytest.raises(InputError, match="got a group of labels, x, y; name the rows x and their labels y"):
        mapped("group.zarr")
    chunks = [path for path in Path("array.zarr").rglob("*") if path.is_file() and path.name[0].isdecimal()]
    chunk = max(chunks, key=lambda path: path.stat().st_size)
    chunk.write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"whole chunks of x in array\.zarr; got rows from"):
        mapped("array.zarr")
    (Path("array.zarr") / ("zarr.json" if version == 3 else ".zarray")).write_text("{")
    with pytest.raises(InputError, match="one that zarr cannot open"):
        mapped("array.zarr")
    assert len(list(Path("kept/cache").iterdir())) == 4


@pytest.mark.exhaustive
def test_a_run_of_a_parquet_table_goes_on_and_draws_its_covariates(frame):
    frame.to_parquet("table.parquet")
    settings = {"labels": "none", "hidden": (4,), "latent_dim": 2, "batch_size": 50, "display": False, "compile": "off"}
    run = pyro_vae.fit(
        "vae", data="table.parquet", memory="64KB", covariates=("color",), epochs=1, out="run", **settings
    )
    assert set(run.sample(40)["color"]) == {"red", "green", "blue"}
    again = pyro_vae.resume("run", epochs=2, display=False)
    assert again.history["epoch"].tolist() == [1, 2]
    frame["size"] += 1
    frame.to_parquet("table.parquet")
    with pytest.raises(InputError, match="the data that the run was fitted on"):
        pyro_vae.resume("run", epochs=3, display=False)
    Path("table.parquet").rename("moved.parquet")
    with pytest.raises(InputError, match="go to that folder, or use --data PATH"):
        pyro_vae.resume("run", epochs=3, display=False)
