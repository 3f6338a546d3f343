"""A replayed graph is the graph, to the bit, and lets its values go when they are used up."""

from __future__ import annotations

import operator
import random
import weakref
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from pyro_vae.compiled.redundancy import Redundancy
from pyro_vae.compiled.replaying import replay
from pyro_vae.compiled.scripting import Stretch
from pyro_vae.compiled.tape import Tape
from pyro_vae.compiled.tracing import record

X = torch.linspace(-2.0, 3.0, 12).reshape(3, 4)


def recorded(function):
    """What gives the graph of a function at some inputs."""

    def graph(*inputs):
        tape = Tape(inputs)
        with tape:
            results = function(*inputs)
        return tape.finish(results)

    return graph


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


def with_several_results(x):
    largest, where = x.max(1)
    parts = torch.split(x, [1, 3], dim=1)
    return largest, where, parts[1] * parts[0], *torch.var_mean(x, dim=0), *x.unbind(1), x.sort(0).values, x.topk(2)[1]


def with_unread_noise(x):
    torch.randn(5)
    torch.native_dropout(x, 0.5, True)
    return x + torch.rand(3, 4), torch.empty(3, 4).normal_(), torch.randperm(4)


def with_changes(x):
    y = x.clone()
    y[0].mul_(2)
    y[1] = 7.0
    return y, y.sum(0)


FUNCTIONS = [arithmetic, views, networks, with_noise, with_several_results, with_unread_noise, with_changes]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("scripted", [True, False])
def test_a_replay_is_the_graph_to_the_bit(function, scripted, monkeypatch):
    if not scripted:
        monkeypatch.setattr(Stretch, "take", lambda *_: False)
    graph = recorded(function)(X)
    graph.graph.eliminate_dead_code()  # as is done before, so that a result may have no reader at all
    graph.recompile()
    run = replay(graph)
    for x in (X, X.flip(0) * 1.7):
        torch.manual_seed(0)
        expected, state = graph(x), torch.random.get_rng_state()
        torch.manual_seed(0)
        found = run([x])
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert one.dtype == other.dtype
            assert torch.equal(one, other)
            assert one.stride() == other.stride()
        assert torch.equal(torch.random.get_rng_state(), state)


class Alive(TorchDispatchMode):
    """At each operation, how many of the results before it are still there."""

    def __init__(self):
        super().__init__()
        self.counts: list[int] = []
        self._results: list[weakref.ref] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts.append(sum(result() is not None for result in self._results))
        result = func(*args, **(kwargs or {}))
        self._results.append(weakref.ref(result))
        return result


@pytest.mark.parametrize("scripted", [True, False])
def test_values_are_let_go_after_their_last_use(scripted, monkeypatch):
    if not scripted:
        monkeypatch.setattr(Stretch, "take", lambda *_: False)
    run = replay(recorded(lambda x: (((x.exp() + 1).log() * 2).sum(),))(X))
    with Alive() as alive:
        run([X])
    assert alive.counts == [0, 1, 1, 1, 1]


def test_what_is_known_is_computed_once_and_nothing_that_leaves_is_shared():
    def function(x):
        scale = torch.ones(3, 1) * 2.0
        once, twice = (x * scale).exp(), (x * scale).exp()
        return once.sum() + twice.sum(), torch.zeros(4), torch.zeros(4), x.sin(), x.sin()

    graph = record(lambda: function(X), [X]).graph
    known = Redundancy(graph)
    assert {node.target for node in known.constants} >= {torch.ops.aten.ones.default}
    assert sum(node.target is torch.ops.aten.exp.default for node in known.same_as) == 1
    run, expected = replay(graph), function(X)
    for _ in range(2):
        found = run([X])
        assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
        for value in found:
            value.add_(1)  # whoever gets it may write to it


def test_results_that_are_views_unsaid_share_no_memory():
    x, w = torch.randn(2, 3, 4), torch.randn(4, 5)
    first, second = replay(recorded(lambda x, w: (x @ w, x @ w))(x, w))([x, w])
    first.add_(1)
    assert torch.equal(second, x @ w)


def test_nothing_is_left_out_of_memory_that_is_written_to():
    statistics = recorded(lambda x, m, v: nn.functional.batch_norm(x, m, v, training=True))(
        X, torch.zeros(4), torch.ones(4)
    )
    known = Redundancy(statistics)
    assert not known.constants
    assert not known.same_as


def of_a_part(x):
    before, part = x.exp(), x[:2]
    part.mul_(2)
    return before, x.exp()


def of_parts_that_share_unsaid(x):
    whole = torch.zeros(3, 4) + x
    before, parts = whole.exp(), torch.unsafe_split(whole, 1, 1)
    parts[1].sigmoid_()
    return before, whole.exp(), parts[0].exp()


def of_what_was_a_constant(x):
    counts = torch.zeros(4)
    before = counts + 1
    counts.view(2, 2).add_(1)
    return before, counts + 1, torch.zeros(4) + x[0]


def of_an_argument_out_of_place(x):
    place = torch.empty(3, 4)
    torch.exp(x, out=place)
    first = place.clone()
    torch.sin(x, out=place)
    return first, place.clone(), x.sin()


@pytest.mark.parametrize(
    "function", [of_a_part, of_parts_that_share_unsaid, of_what_was_a_constant, of_an_argument_out_of_place]
)
def test_a_value_is_read_again_once_it_was_written_to(function):
    run = replay(recorded(function)(X.clone()))
    for x in (X, X.flip(0) * 1.7, X):
        expected, found = function(x.clone()), run([x.clone()])
        assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_inputs_may_be_views_of_one_another():
    def function(whole, part):
        before = whole.exp()
        part.mul_(2)
        return before, whole.exp()

    whole, memory = X.clone(), X.clone()
    run = replay(record(lambda: function(memory, part), [memory, part := memory[:2]]).graph)
    found = run([whole, whole[:2]])
    assert torch.equal(found[0], X.exp())
    assert torch.equal(found[1], whole.exp())
    assert not torch.equal(*found)


def test_another_part_of_a_result_that_was_computed_before_is_there():
    def function(x):
        x = (x.exp() + 1) * 2
        highest = x.max(0).values
        return highest + 1, x.max(0).indices + 1, highest * 2, x.max(0).values.exp()

    graph = recorded(function)(X)
    graph.graph.eliminate_dead_code()  # of the parts that nobody reads
    assert all(torch.equal(*pair) for pair in zip(replay(graph)([X]), function(X), strict=True))


def test_what_no_write_reaches_is_computed_once_beside_writes():
    def function(x):
        twice = x.exp() + x.exp()
        total = torch.zeros(3, 4) + x
        total.add_(twice).sigmoid_()
        return (total * (torch.ones(4) * 3) + x.exp(),)

    graph = recorded(function)(X)
    known = Redundancy(graph)
    assert sum(node.target is torch.ops.aten.exp.default for node in known.same_as) == 2
    assert torch.ops.aten.ones.default in {node.target for node in known.constants}
    assert torch.equal(replay(graph)([X])[0], function(X)[0])


_VIEWS = (lambda t: t.t(), lambda t: t[:2], lambda t: t.view(-1)[:4].view(2, 2), lambda t: torch.unsafe_split(t, 1)[0])
_READS = (torch.exp, torch.sin, lambda t: t * 2, lambda t: t.sum(), lambda t: torch.zeros(2) + t.sum())
_WRITES = (Tensor.sigmoid_, lambda t: t.mul_(0.5), lambda t: t.add_(1), Tensor.zero_)


CONSTANTS = [
    lambda: torch.zeros(()).expand(3),
    lambda: torch.zeros(3),
    lambda: torch.zeros(6)[::2],
    lambda: torch.zeros(3, dtype=torch.float64),
    lambda: torch.zeros(3, dtype=torch.bool),
    lambda: torch.full((3,), -0.0),
    lambda: torch.full((3,), 1e-30),
    lambda: torch.zeros(3, dtype=torch.complex64).conj(),
    lambda: torch.zeros(0),
]


@pytest.mark.parametrize("constant", CONSTANTS)
def test_constants_of_the_same_numbers_are_one(constant):
    def function(x):
        results = [x + make().sum() for make in (constant, constant, *CONSTANTS)]
        return tuple(torch.stack(results).unbind())

    for one, other in zip(replay(recorded(function)(X))([X]), function(X), strict=True):
        assert torch.equal(one, other)
        assert one.dtype is other.dtype


def test_what_depends_on_a_form_alone_is_made_once():
    graph = recorded(lambda x: (x + torch.zeros_like(x) + x.new_full((4,), 2.0), torch.zeros_like(x)))(X)
    known = Redundancy(graph)
    assert sum("zeros_like" in str(node.target) or "new_full" in str(node.target) for node in known.constants) == 2
    for one, other in zip(replay(graph)([X * 2]), (X * 2 + 2, X * 0), strict=True):
        assert torch.equal(one, other)


def test_an_alias_keeps_its_shape_where_another_changes_it():
    def function(x):
        y = x.unsqueeze(0) * 2
        alias = y.detach()
        y.squeeze_(0)
        return y.exp(), alias.sum(1)

    for one, other in zip(replay(recorded(function)(X))([X]), function(X), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("seed", range(40))
def test_programs_that_write_and_read_at_random_keep_their_values(seed):
    def function(x):
        choose = random.Random(seed)
        known, results = [x.contiguous(), torch.ones(4, 4), torch.ones(4, 4) * x], []
        for _ in range(25):
            value = choose.choice(known)
            if value.dim() == 2 and value.is_contiguous() and value.numel() >= 4 and choose.random() < 0.4:
                known.append(choose.choice(_VIEWS)(value))
            elif choose.random() < 0.4:
                choose.choice(_WRITES)(value)
            else:
                results.append(choose.choice(_READS)(value).clone())
        return (*results, *(value.clone() for value in known))

    x = torch.randn(4, 4)
    run = replay(recorded(function)(x.clone()))
    for given in (x, x.flip(0) * 1.7, x):
        expected, found = function(given.clone()), run([given.clone()])
        assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_noise_is_drawn_anew_though_it_reads_nothing():
    run = replay(recorded(lambda x: (x + torch.randn(3, 4), torch.randn(3, 4) * 2))(X))
    assert not torch.equal(run([X])[1], run([X])[1])


def stretches(function, x=X):
    """How many operations each stretch of a function's graph holds."""
    graph = recorded(function)(x)
    found, finish = [], Stretch.function

    def noted(self, outputs):
        found.append(sum(node.target is not operator.getitem for node in self.nodes))
        return finish(self, outputs)

    with mock.patch.object(Stretch, "function", noted):
        replay(graph)
    return found


def test_what_can_be_said_is_one_stretch():
    assert stretches(lambda x: ((x.exp() + 1).log(), *x.max(1), torch.split(x, 2, 1)[0].sum())) == [6]
    assert stretches(with_noise) == [5]
    assert stretches(lambda x: (x.exp() + 1,)) == []  # not worth a call


def test_errors_of_a_kind_of_their_own_keep_it():
    solve = recorded(lambda x: (torch.linalg.cholesky(x @ x.t() + torch.eye(3)).exp().log().sum(),))(X)
    with pytest.raises(torch.linalg.LinAlgError, match="not positive-definite"):
        replay(solve)([torch.full((3, 4), torch.nan)])
    pick = recorded(lambda x, i: (x.exp().log().sin()[i] * 2,))(X, torch.tensor([0]))
    with pytest.raises(IndexError, match="out of bounds"):
        replay(pick)([X, torch.tensor([3])])


def test_errors_are_told_as_torch_tells_them():
    run = replay(recorded(lambda p: ((torch.bernoulli(p) * 2 + 1).exp(),))(torch.full((3,), 0.5)))
    with pytest.raises(RuntimeError) as caught:
        run([torch.full((3,), 2.0)])
    with pytest.raises(RuntimeError) as expected:
        torch.bernoulli(torch.full((3,), 2.0))
    assert str(caught.value) == str(expected.value).splitlines()[0]
    assert torch._C._get_graph_executor_optimize()


def test_autocast_is_python_s_to_keep():
    with torch.autocast("cpu", torch.bfloat16):
        assert stretches(lambda x: (x.exp().log().sin() * 2,)) == []
