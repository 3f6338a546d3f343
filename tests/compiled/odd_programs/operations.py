"""Programs that compute in unusual ways: tensors in odd memory, hooks, compiled parts, nested gradients."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from tests.compiled.odd_programs.program import Program, X, base, case, guide, mapped


@case()
def expanded():
    e = torch.zeros(1).expand(6)
    return Program(lambda x: base(x + e))


@case()
def memmap():
    t = mapped()
    return Program(lambda x: base(x + t))


@case("a gradient is sparse")
def sparse_embedding():
    emb = nn.Embedding(5, 1, sparse=True)

    def g(x):
        pyro.module("emb", emb)
        return pyro.sample("z", dist.Normal(emb(torch.tensor(2)).squeeze(), 1.0))

    return Program(base, guide=g, optimizer="sgd")


@case("is compiled by itself")
def compiled_submodule():
    net = torch.compile(nn.Linear(6, 6), backend="eager")
    return Program(lambda x: base(net(x)))


@case()
def double_backward():
    w = nn.Parameter(torch.ones(6))

    def m(x):
        pyro.param("w", w)
        y = (pyro.param("w") ** 3).sum()
        (gr,) = torch.autograd.grad(y, pyro.param("w").unconstrained() if False else pyro.param("w"), create_graph=True)
        base(x + gr)

    return Program(m)


@case("backward depends")
def hook_on_z():
    seen = []

    def g(x):
        z = guide(x)
        z.register_hook(lambda gr: seen.append(gr.item()))
        return z

    return Program(base, guide=g, read=lambda: len(seen))


@case("each run changes the program")
def forward_hook():
    net = nn.Linear(6, 6)
    seen = []
    net.register_forward_hook(lambda m, i, o: seen.append(o.sum().item()))
    return Program(lambda x: base(net(x)), read=lambda: len(seen))


@case("has a hook on its backward pass")
def backward_hook():
    net = nn.Linear(6, 6)
    seen = []
    net.register_full_backward_hook(lambda m, i, o: seen.append(1))

    def m(x):
        pyro.module("net", net)
        base(net(x))

    return Program(m, read=lambda: len(seen))


@case()
def custom_function():
    class F(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * 2

        @staticmethod
        def backward(ctx, g):
            return g * 3

    def m(x):
        base(x + F.apply(pyro.param("w", torch.ones(6))))

    return Program(m)


@case()
def autocast_inside():
    net = nn.Linear(6, 6)

    def m(x):
        pyro.module("net", net)
        with torch.autocast("cpu", torch.bfloat16):
            y = net(x.expand(2, 6))
        base(y.float().sum(0))

    return Program(m)


@case()
def no_params():
    return Program(base, guide=lambda x: pyro.sample("z", dist.Normal(0.0, 1.0)), optimizer=None)


@case("is compiled by itself")
def scripted():
    net = torch.jit.script(nn.Sequential(nn.Linear(6, 6), nn.ReLU()))

    def m(x):
        pyro.module("net", net)
        base(net(x))

    return Program(m)


@case("is compiled by itself")
def traced():
    net = torch.jit.trace(nn.Linear(6, 6), X)
    return Program(lambda x: base(net(x)))


@case()
def dataframe():
    pd = pytest.importorskip("pandas")
    df = pd.DataFrame({"a": np.arange(6.0)})
    return Program(lambda x: base(x + torch.tensor(df["a"].values, dtype=torch.float32)))


@case()
def optimizer_state_key():
    d = {torch.ones(1): 2.0}
    return Program(lambda x: base(x, offset=list(d.values())[0]))


@case()
def distribution_held():
    prior = dist.MultivariateNormal(torch.zeros(2), torch.eye(2))

    def m(x):
        w = pyro.sample("w", prior)
        base(x + w.sum())

    def g(x):
        pyro.sample("w", dist.Normal(pyro.param("wl", torch.zeros(2)), 1.0).to_event(1))
        guide(x)

    return Program(m, guide=g)


@case()
def transformer():
    net = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)

    def m(x):
        pyro.module("net", net)
        y = net(x.expand(4, 6).reshape(1, 6, 4)).sum(-1).squeeze(0)
        base(y)

    return Program(m)


@case()
def mha_eval():
    net = nn.MultiheadAttention(4, 2, batch_first=True).eval()

    def m(x):
        y = x.expand(4, 6).reshape(1, 6, 4)
        base(net(y, y, y)[0].sum(-1).squeeze(0))

    return Program(m)


@case()
def vmap_jvp():
    def m(x):
        y = torch.func.vmap(torch.func.grad(lambda t: t**3))(x)
        base(y)

    return Program(m)


@case()
def conv_net():
    net = nn.Sequential(nn.Conv1d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv1d(2, 1, 3, padding=1))

    def m(x):
        pyro.module("net", net)
        base(net(x.reshape(1, 1, 6)).reshape(6))

    return Program(m)


@case()
def fft_and_linalg():
    def m(x):
        A = torch.outer(x, x) + torch.eye(6) * 3
        base(torch.linalg.solve(A, x) + torch.fft.rfft(x).abs().sum() + torch.linalg.cholesky(A).diagonal().log())

    return Program(m)


@case()
def deterministic_site():
    def m(x):
        z = pyro.deterministic("d", x * 2)
        base(z)

    return Program(m)
