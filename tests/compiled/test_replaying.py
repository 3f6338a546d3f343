"""A replayed graph is the graph, to the bit, and lets its values go when they are used up."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from pyro_vae.compiled.redundancy import Redundancy
from pyro_vae.compiled.replaying import replay

X = torch.linspace(-2.0, 3.0, 12).reshape(3, 4)


def arithmetic(x):
    y = (x + 1).div(2.0) - x * 0.3 + torch.pow(x.abs() + 1, 0.5) - (x - 1) ** 2
    return torch.where(x > 0.5, y, -y).sum(-1, keepdim=True), (x == 1).float().mean(), x.clamp(min=float("-inf"), max=1)


def views(x):
    y = x.t().reshape(2, 6).unsqueeze(1).expand(2, 3, 6).permute(1, 0, 2)[:, 1].squeeze(-1)
    return (
        torch.cat([y, y.roll(1, 0)]),
        x[1],
        x.select(1, 2),
        torch.stack(list(x.unbind(0)[:2])),
        x[:, torch.tensor([2, 0])],
    )


def networks(x):
    layer = nn.functional.linear(x, torch.ones(5, 4), torch.full((5,), 0.5))
    return (
        torch.sigmoid(layer) @ torch.eye(5),
        torch.tanh(layer).relu(),
        torch.nn.functional.softplus(layer).logsumexp(-1),
    )


def with_noise(x):
    return (
        torch.randn(3, 4) + x,
        torch.rand_like(x),
        torch.bernoulli(torch.full((4,), 0.5)),
        torch.zeros(2, dtype=torch.int64),
    )


def with_changes(x):
    y = x.clone()
    y[0].mul_(2)
    y[1] = 7.0
    return y, y.sum(0)


@pytest.mark.parametrize("function", [arithmetic, views, networks, with_noise, with_changes])
def test_a_replay_is_the_graph_to_the_bit(function):
    graph = make_fx(function)(X)
    run = replay(graph)
    for x in (X, X.flip(0) * 1.7):
        torch.manual_seed(0)
        expected = graph(x)
        torch.manual_seed(0)
        found = run([x])
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert one.dtype == other.dtype
            assert torch.equal(one, other)
            assert one.stride() == other.stride()


def test_values_are_let_go_after_their_last_use():
    kept = []

    def spy(x):
        gc.collect()
        kept.append([reference() is not None for reference in references])
        return x

    graph = make_fx(lambda x: (((x.exp() + 1).log() * 2).sum(),))(X)
    run = replay(graph)
    references = []

    def watched(function):
        def call(*args, **kwargs):
            result = function(*args, **kwargs)
            spy(result)
            references.append(weakref.ref(result))
            return result

        return call

    space = run.__globals__
    for name, value in list(space.items()):
        if callable(value) and name.startswith("c"):
            space[name] = watched(value)
    run([X])
    assert kept == [[], [True], [False, True], [False, False, True], [False, False, False, True]]


def test_what_is_known_is_computed_once_and_nothing_that_leaves_is_shared():
    def function(x):
        scale = torch.ones(3, 1) * 2.0
        once, twice = (x * scale).exp(), (x * scale).exp()
        return once.sum() + twice.sum(), torch.zeros(4), torch.zeros(4), x.sin(), x.sin()

    graph = make_fx(function)(X)
    known = Redundancy(graph)
    assert {node.target for node in known.constants} >= {torch.ops.aten.ones.default}
    assert sum(node.target is torch.ops.aten.exp.default for node in known.same_as) == 1
    run, expected = replay(graph), function(X)
    for _ in range(2):
        found = run([X])
        assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
        for value in found:
            value.add_(1)  # whoever gets it may write to it


def test_nothing_is_left_out_where_something_is_written_to():
    assert not Redundancy(make_fx(with_changes)(X)).constants
    statistics = make_fx(lambda x, m, v: nn.functional.batch_norm(x, m, v, training=True))(
        X, torch.zeros(4), torch.ones(4)
    )
    known = Redundancy(statistics)
    assert not known.constants
    assert not known.same_as


def test_noise_is_drawn_anew_though_it_reads_nothing():
    run = replay(make_fx(lambda x: (x + torch.randn(3, 4), torch.randn(3, 4) * 2))(X))
    assert not torch.equal(run([X])[1], run([X])[1])
