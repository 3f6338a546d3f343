"""Programs called with more than tensors of one shape: numbers, text, lists, tables, distributions."""

from __future__ import annotations

import enum
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import nn

from tests.compiled.odd_programs.program import Program, X, base, call, case


@case()
def expanded_arg():
    return Program(base, calls=lambda i: call(torch.full((1,), 1.0 + i).expand(6)))


@case("reads the values")
def packed():
    rnn = nn.RNN(1, 2, batch_first=True)

    def m(x, lengths):
        p = nn.utils.rnn.pack_padded_sequence(x.reshape(2, 3, 1), lengths, batch_first=True, enforce_sorted=False)
        _, h = rnn(p)
        base(x + h.sum())

    return Program(m, calls=lambda i: call(X, torch.tensor([3, 1 + i % 3])))


@case("reads the values")
def packed_held():
    rnn = nn.LSTM(1, 2, batch_first=True)
    lengths = torch.tensor([3, 2])

    def m(x):
        p = nn.utils.rnn.pack_padded_sequence(x.reshape(2, 3, 1), lengths, batch_first=True)
        o, (h, c) = rnn(p)
        o, _ = nn.utils.rnn.pad_packed_sequence(o, batch_first=True)
        base(x + h.sum() + o.sum())

    return Program(m)


@case("reads the values")
def tensor_split():
    def m(x, idx):
        a = torch.tensor_split(x, idx)
        base(torch.cat([a[0] * 2, a[1]]))

    return Program(m, calls=lambda i: call(X, torch.tensor([1 + i % 4])))


@case()
def split_sizes():
    def m(x, sizes):
        a = x.split(sizes)
        base(torch.cat([a[0] * 2, a[1]]))

    return Program(m, calls=lambda i: call(X, [2, 4] if i % 2 else [3, 3]))


@case()
def bool_arg():
    return Program(lambda x, flag: base(x + 1 if flag else x), calls=lambda i: call(X, i % 2 == 0))


@case()
def str_arg():
    return Program(lambda x, mode="a": base(x + 1 if mode == "a" else x), calls=lambda i: call(X, mode="ab"[i % 2]))


@case()
def int_pow():
    return Program(lambda x, k: base(x**k), calls=lambda i: call(X, i))


@case()
def int_range():
    def m(x, k):
        for _ in range(k):
            x = x * 1.1
        base(x)

    return Program(m, calls=lambda i: call(X, i % 3))


@case("its code tells numbers from tensors", quick=True)
def int_isinstance():
    def m(x, k):
        base(x * (2.0 if isinstance(k, float) else 3.0) + k)

    return Program(m, calls=lambda i: call(X, float(i)))


@case("argument 2: a number in Python", quick=True)
def float_math():
    return Program(lambda x, k: base(x * math.exp(-k)), calls=lambda i: call(X, 0.1 * i))


@case("argument 2: a choice in Python")
def float_min():
    return Program(lambda x, k: base(x * min(1.0, k)), calls=lambda i: call(X, 0.2 * i))


@case("argument 2: a choice in Python")
def float_cmp():
    return Program(lambda x, k: base(x if k > 0.5 else -x), calls=lambda i: call(X, 0.1 * i))


@case()
def numpy_f64():
    return Program(lambda x, k: base(x * k), calls=lambda i: call(X, np.float64(0.1 * i)))


@case("of a kind of its own")
def numpy_batch():
    return Program(lambda x: base(torch.tensor(x)), calls=lambda i: call(np.arange(6, dtype=np.float32) + i))


@case()
def empty_batch():
    return Program(lambda x: base(x), calls=lambda i: call(X[: 6 if i % 3 else 2]))


@case()
def enum_and_slice_args():
    return Program(lambda x, s: base(x[s]), calls=lambda i: call(X, slice(0, 4 if i < 6 else 5)))


@case("of a kind of its own")
def big_literal_list():
    return Program(lambda x, numbers: base(x + torch.tensor(numbers)), calls=lambda i: call(X, [float(i)] * 6))


@case()
def dataset_index():
    data = torch.arange(60.0).reshape(10, 6)
    return Program(lambda i: base(data[i]), calls=lambda i: call(i % 10))


@case("of a kind of its own")
def np_index_held():
    data = torch.arange(60.0).reshape(10, 6)
    return Program(lambda idx: base(data[idx].sum(0)), calls=lambda i: call(np.array([i % 10, (i + 1) % 10])))


@case()
def module_global_switch():
    return Program(lambda x: base(x), calls=lambda i: call(X.double() if i % 2 else X))


@case()
def weird_optional():
    return Program(
        lambda x, y=None: base(x if y is None else x + y), calls=lambda i: call(X, **({} if i % 2 else {"y": X}))
    )


@case("of a kind of its own")
def dataframe_arg():
    pd = pytest.importorskip("pandas")
    return Program(
        lambda df: base(torch.tensor(df["a"].values, dtype=torch.float32)),
        calls=lambda i: call(pd.DataFrame({"a": np.arange(6.0) + i})),
    )


@case()
def bad_index():
    emb = nn.Embedding(4, 6)

    def m(i):
        pyro.module("emb", emb)
        base(emb(i))

    return Program(m, calls=lambda i: call(torch.tensor(9 if i % 5 == 4 else i % 4)))


@case()
def distribution_arg():
    return Program(
        lambda x, d: pyro.sample("z", d) + pyro.sample("x", dist.Normal(d.loc, 1.0).expand([6]).to_event(1), obs=x),
        calls=lambda i: call(X, dist.Normal(torch.tensor(float(i)), 1.0)),
    )


@case()
def enum_switch():
    class Mode(enum.Enum):
        A = 1
        B = 2

    return Program(lambda x, m: base(x if m is Mode.A else -x), calls=lambda i: call(X, Mode.A if i % 2 else Mode.B))


@case()
def ragged():
    return Program(
        lambda xs: base(torch.stack([x.sum() for x in xs])),
        calls=lambda i: call([X[: 1 + j] for j in range(2 + i % 2)]),
    )


@case()
def obs_mask():
    def m(x, mask):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("d", 6), poutine.mask(mask=mask):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    return Program(m, calls=lambda i: call(X, torch.arange(6) % (2 + i % 3) == 0))


@case(quick=True)
def unread_names():
    def model(x, *names, **more):
        base(x)

    return Program(model, calls=lambda i: call(X, f"batch {i}", more=[f"{j}.png" for j in range(i)]))


@case()
def unread_rows():
    class Model(nn.Module):
        def forward(self, x, rows=None):
            base(x)

    return Program(Model(), calls=lambda i: call(X, rows=torch.arange(i)))


@case("of a kind of its own")
def names_that_a_nested_function_reads():
    def model(x, name):
        def inner():
            base(x, scale=float(len(name)))

        inner()

    return Program(model, calls=lambda i: call(X, "n" * (i + 1)))
