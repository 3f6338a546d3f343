"""What a loop repeats is done at once, and gives what the turns give one after another, but for rounding."""

from __future__ import annotations

import random
from collections import Counter

import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.utils._pytree as pytree
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor, fx, nn

from pyro_vae.compiled import CompiledTrace_ELBO, recorded_graph
from pyro_vae.compiled.forms import form_of
from pyro_vae.compiled.loops import done_at_once
from pyro_vae.compiled.loops.together import Operand, Writer, rule_of
from pyro_vae.compiled.refusals import Untraceable
from pyro_vae.compiled.replaying import replay
from pyro_vae.compiled.tape import Tape

aten = torch.ops.aten
TURNS = 7


def made(*shape: int, seed: int = 0, positive: bool = False) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values.abs() + 0.1 if positive else values


def recorded(function, *inputs: Tensor) -> fx.GraphModule:
    tape = Tape(inputs)
    with tape:
        results = function(*inputs)
    return tape.finish(results)


def kept(graph: fx.GraphModule) -> Counter:
    return Counter(str(node.target).split(".")[1] for node in graph.graph.nodes if "aten." in str(node.target))


def agree(function, *inputs: Tensor) -> tuple[Counter, Counter]:
    """A function gives the same once its loops are done at once; the operations before and after."""
    graph = recorded(function, *inputs)
    rewritten = done_at_once(graph)
    found = []
    for each in (graph, rewritten):
        torch.manual_seed(0)
        own = [value.clone() for value in inputs]
        with torch.no_grad():
            found.append(([*replay(each)(own)], own, torch.get_rng_state()))
    for one, other in zip(found[0][0] + found[0][1], found[1][0] + found[1][1], strict=True):
        assert one.dtype is other.dtype
        torch.testing.assert_close(other, one, rtol=1e-10, atol=1e-12, equal_nan=True)
    assert torch.equal(found[0][2], found[1][2])
    memory = [value.untyped_storage().data_ptr() for value in found[1][0]]
    assert len(set(memory)) == len({value.untyped_storage().data_ptr() for value in found[0][0]})
    return kept(graph), kept(rewritten)


CALLS = [
    (aten.add.Tensor, (made(3, 4), made(4, seed=1)), {"alpha": 2}),
    (aten.mul.Tensor, (made(3, 4), made(3, 1, seed=1)), {}),
    (aten.sub.Tensor, (made(()[0:0] or 1)[0], made(3, 4, seed=1)), {}),
    (aten.exp.default, (made(3, 4),), {}),
    (aten.pow.Tensor_Scalar, (made(3, 4), 2), {}),
    (aten.clamp.default, (made(3, 4), 0.0), {}),
    (aten.where.self, (made(3, 4) > 0, made(3, 4, seed=1), made(1, 4, seed=2)), {}),
    (aten.sigmoid_backward.default, (made(3, 4), made(3, 4, seed=1)), {}),
    (aten.threshold_backward.default, (made(3, 4), made(3, 4, seed=1), 0), {}),
    (aten.softplus_backward.default, (made(3, 4), made(3, 4, seed=1), 1.0, 20.0), {}),
    (aten.mm.default, (made(3, 4), made(4, 2, seed=1)), {}),
    (aten.addmm.default, (made(2), made(3, 4, seed=1), made(4, 2, seed=2)), {}),
    (aten.addmm.default, (made(3, 1), made(3, 4, seed=1), made(4, 2, seed=2)), {}),
    (aten.t.default, (made(3, 4),), {}),
    (aten.t.default, (made(3),), {}),
    (aten.view.default, (made(3, 4), [2, -1]), {}),
    (aten.expand.default, (made(4), [3, -1]), {}),
    (aten.expand.default, (made(3, 1), [2, 3, 4]), {}),
    (aten.permute.default, (made(3, 4, 2), [-1, 0, 1]), {}),
    (aten.transpose.int, (made(3, 4, 2), 0, -1), {}),
    (aten.unsqueeze.default, (made(3, 4), -1), {}),
    (aten.squeeze.dim, (made(3, 1, 4), 1), {}),
    (aten.select.int, (made(3, 4), -1, 2), {}),
    (aten.slice.Tensor, (made(3, 4), 1, 1, 4, 2), {}),
    (aten.slice.Tensor, (made(3, 4),), {}),
    (aten.cat.default, ([made(3, 4), made(3, 2, seed=1)], -1), {}),
    (aten.clone.default, (made(3, 4),), {}),
    (aten._to_copy.default, (made(3, 4),), {"dtype": torch.float32}),
    (aten._to_copy.default, (made(3, 4) > 0,), {"dtype": torch.float64}),
    (aten.detach.default, (made(3, 4),), {}),
    (aten.sum.default, (made(3, 4),), {}),
    (aten.sum.default, (made(3, 4)[0, 0],), {}),
    (aten.sum.dim_IntList, (made(3, 4), [0, -1]), {}),
    (aten.sum.dim_IntList, (made(3, 4), [0], True), {}),
    (aten.sum.dim_IntList, (made(3, 4), None), {}),
    (aten.mean.dim, (made(3, 4), [-1]), {}),
    (aten.mean.dim, (made(3, 4), None, True), {}),
    (aten._is_all_true.default, (made(3, 4) > -9,), {}),
    (aten.all.default, (made(3, 4) > 0,), {}),
    (aten.any.default, (made(3, 4) > 2,), {}),
]


def varied(value, turn: int):
    """A value as another turn has it."""
    return value.roll(turn, -1) if isinstance(value, Tensor) and value.ndim else value


@pytest.mark.parametrize(("target", "args", "kwargs"), CALLS)
def test_an_operation_on_stacks_is_that_on_each(target, args, kwargs):
    leaves, layout = pytree.tree_flatten(args)
    tensors = [i for i, value in enumerate(leaves) if isinstance(value, Tensor)]
    for same in [(), *((i,) for i in tensors if len(tensors) > 1)]:  # what all turns share
        turns = [
            [value if i in same else varied(value, turn) for i, value in enumerate(leaves)] for turn in range(TURNS)
        ]
        results = [target(*pytree.tree_unflatten(turn, layout), **kwargs) for turn in turns]
        graph, given, put = fx.Graph(), [], list(leaves)
        for i in tensors:
            given.append(leaves[i] if i in same else torch.stack([turn[i] for turn in turns]))
            put[i] = Operand(graph.placeholder(f"x{i}"), form_of(leaves[i]), i not in same)
        rule, form = rule_of(target), form_of(results[0])
        whole = rule(Writer(graph, TURNS), form, *pytree.tree_unflatten(put, layout), **kwargs)
        graph.output(whole)
        found = fx.GraphModule({}, graph)(*given)
        torch.testing.assert_close(found.expand(TURNS, *form.shape), torch.stack(results))


def recurrent(num_turns: int):
    """A loss of states that wait for one another, with its gradients; what they are weighed by does not wait."""

    def function(x, weight, bias, read):
        inputs = [value.detach().requires_grad_() for value in (weight, bias, read)]
        weight, bias, read = inputs
        state, total = torch.zeros(4, 3, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        for turn in range(num_turns):
            state = torch.tanh(x[:, turn] + state @ weight + torch.randn_like(state))
            hidden = torch.relu(torch.nn.functional.linear(state, read, bias))
            total = (
                total + (hidden - x[:, turn].sum(-1, keepdim=True)).square().mean() - hidden.exp().sum(-1).log().sum()
            )
        return total.detach(), *torch.autograd.grad(total, inputs)

    return function


def test_what_does_not_wait_is_done_at_once():
    before, after = agree(recurrent(12), made(4, 12, 3), made(3, 3), made(5), made(5, 3))
    assert before["relu"] == 12 == before["addmm"]
    assert after["relu"] == 1 == after["addmm"]
    assert after["tanh"] == 12 == before["tanh"]
    assert after["randn_like"] == 12
    assert after["select"] <= 1  # the slices of x are taken apart at once
    assert sum(after.values()) < sum(before.values()) / 3


def test_the_gradient_of_slices_is_put_together_once():
    def function(x):
        x = x.detach().requires_grad_()
        total = sum((x[:, turn] * (turn + 1)).sin().sum() for turn in range(9))
        return torch.autograd.grad(total, x)

    before, after = agree(function, made(4, 9, 3))
    assert before["select_backward"] == 9
    assert after["select_backward"] == 0


def test_slices_of_which_some_are_missing_are_added():
    def function(x):
        x = x.detach().requires_grad_()
        total = sum((x[:, turn] * x[:, turn]).sin().sum() for turn in (0, 2, 3, 5, 5))
        return torch.autograd.grad(total, x)

    agree(function, made(4, 9, 3))


def test_sums_with_signs():
    def function(x):
        total = x[0].exp()
        for turn in range(1, 9):
            total = total - x[turn].exp() if turn % 3 else total + x[turn].exp()
        return total, x[0].exp() - (x[1].exp() - x[2].exp() - (x[3].exp() + x[4].exp()))

    agree(function, made(9, 4))


def test_results_that_leave_share_no_memory():
    agree(lambda x: tuple(x[turn].exp() for turn in range(9)), made(9, 4))
    agree(lambda x: tuple(x[turn].exp().t() for turn in range(9)), made(9, 4, 3))


def test_whole_numbers_stay_what_they_are():
    def function(x):
        counts = [(x[turn] > 0).int() for turn in range(9)]
        first = counts[0]
        for each in counts[1:]:
            first = first + each
        return first, first * 0.5

    agree(function, made(9, 4))


def test_numbers_of_another_type_count_as_numbers():
    def function(x):
        scales = [torch.relu(x[turn].sum()) for turn in range(9)]  # of double precision, without dimensions
        results = [x[turn].float() * scales[turn] for turn in range(9)]
        return tuple(results)

    agree(function, made(9, 4))


def test_groups_that_wait_for_one_another_are_done_in_parts():
    def function(x):
        results = []
        for turn in range(8):  # half of the turns do it the other way round
            first = x[turn].exp() if turn % 2 else x[turn].sin()
            results.append(first.sin() if turn % 2 else first.exp())
        return (torch.stack(results).sum(0),)

    agree(function, made(8, 4))


def test_what_is_written_to_is_read_in_its_order():
    def function(x):
        memory, results = torch.zeros(4, dtype=torch.float64), []
        for turn in range(9):
            results.append(memory * 2)
            memory.add_(x[turn])
            results.append(memory.exp())
        return torch.stack(results).sum(0), memory

    agree(function, made(9, 4))


def test_what_is_written_to_for_the_last_time_is_free():
    def function(x):
        total, memories = torch.zeros(4, dtype=torch.float64), []
        for turn in range(9):
            memory = x[turn].clone()
            memory.mul_(0.5)
            memories.append(memory)
        for memory in memories:
            total = total + memory.exp().sin()
        return (total,)

    _, after = agree(function, made(9, 4))
    assert after["exp"] == 1 == after["sin"]


def test_where_tensors_lie_is_not_guessed():
    graph = recorded(lambda x: (x.exp().as_strided((2, 2), (1, 2)),), made(4, 4))
    with pytest.raises(Untraceable, match=r"aten\.as_strided\.default depends on how a tensor lies in memory"):
        done_at_once(graph)


def test_nothing_is_stacked_that_is_large():
    before, after = agree(lambda x: (sum(x[turn].exp() for turn in range(5)),), made(5, 200, 200))
    assert before["exp"] == after["exp"] == 5


def program(seed: int):
    """Turns of operations at random on a state, a slice and the values of turns before."""

    def function(x, weight):
        draw = random.Random(seed)
        inputs = [x.detach().requires_grad_(), weight.detach().requires_grad_()]
        x, weight = inputs
        body = [draw.randrange(12) for _ in range(draw.randint(3, 8))]
        waits, total, state = draw.random() < 0.7, x.sum() * 0, torch.zeros(4, 3, dtype=torch.float64)
        for turn in range(draw.randint(4, 9)):
            value = x[:, turn % x.shape[1]] + (state if waits else 0)
            for number in body:
                value = step(number, value, weight, turn, draw)
            state = torch.tanh(value)
            total = total + (value.square().mean() if draw.random() < 0.9 else -value.sum())
        return (
            total.detach(),
            state.detach(),
            *torch.autograd.grad(total, inputs, allow_unused=True, materialize_grads=True),
        )

    return function


def step(number: int, value: Tensor, weight: Tensor, turn: int, draw: random.Random) -> Tensor:
    if number == 0:
        return value @ weight
    if number == 1:
        return torch.where(value > 0, value, value * 0.1)
    if number == 2:
        return torch.cat([value[:, 1:], value[:, :1]], 1)
    if number == 3:
        return (value.t().reshape(2, 6) * 0.5).reshape(3, 4).t()
    if number == 4:
        return value + torch.randn(4, 3, dtype=torch.float64)
    if number == 5:
        return value - value.mean(-1, keepdim=True)
    if number == 6:
        return value.clone().mul_(0.9).add_(weight[0])
    if number == 7:
        return torch.nn.functional.softplus(value) if draw.random() < 0.9 else value.abs()
    if number == 8:
        return value * value.sum().sigmoid()
    if number == 9:
        return value / (1 + value.pow(2))
    if number == 10:
        return value.float().double() + turn
    return torch.log_softmax(value, -1)


@pytest.mark.parametrize("seed", range(60))
def test_loops_at_random_keep_their_values(seed):
    agree(program(seed), made(4, 6, 3), made(3, 3))


class Chain(nn.Module):
    """A state space of so many steps, with a network between."""

    def __init__(self, num_steps: int) -> None:
        super().__init__()
        self.num_steps, self.move, self.emit = num_steps, nn.Linear(2, 2), nn.Linear(2, 4)
        self.double()

    def model(self, x: Tensor) -> None:
        pyro.module("chain", self)
        z = x.new_zeros(len(x), 2)
        with pyro.plate("rows", len(x)):
            for t in range(self.num_steps):
                z = pyro.sample(f"z_{t}", dist.Normal(torch.tanh(self.move(z)), 1.0).to_event(1))
                pyro.sample(f"x_{t}", dist.Normal(self.emit(z), 0.5).to_event(1), obs=x[:, t])

    def guide(self, x: Tensor) -> None:
        loc = pyro.param("loc", lambda: x.new_zeros(self.num_steps, 2))
        with pyro.plate("rows", len(x)):
            for t in range(self.num_steps):
                pyro.sample(f"z_{t}", dist.Normal(loc[t].expand(len(x), 2), 0.5).to_event(1))


def losses(elbo, x: Tensor, num_steps: int) -> list[float]:
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    chain = Chain(12)
    svi = SVI(chain.model, chain.guide, pyro.optim.Adam({"lr": 0.01}), elbo)
    return [svi.step(x) for _ in range(num_steps)]


def test_a_program_goes_on_with_its_loops_done_at_once(monkeypatch):
    monkeypatch.setattr(recorded_graph, "LOOPS_AFTER", 3)
    done = []

    def noted(*args):
        done.append(done_at_once(*args))
        return done[-1]

    monkeypatch.setattr("pyro_vae.compiled.loops.done_at_once", noted)
    x = made(5, 12, 4)
    assert losses(CompiledTrace_ELBO(), x, 40) == pytest.approx(losses(Trace_ELBO(), x, 40), rel=1e-10)
    (graph,) = done
    assert kept(graph)["tanh"] <= 2  # that of the first step, and of all others


def test_what_cannot_be_rewritten_goes_on_as_it_is(monkeypatch, caplog):
    caplog.set_level("INFO", logger="pyro_vae")
    monkeypatch.setattr(recorded_graph, "LOOPS_AFTER", 3)

    def wrong(*args):
        rewritten = done_at_once(*args)
        first = next(node for node in rewritten.graph.nodes if node.target is aten.tanh.default)
        first.target = aten.exp.default
        return rewritten

    monkeypatch.setattr("pyro_vae.compiled.loops.done_at_once", wrong)
    x = made(5, 12, 4)
    assert losses(CompiledTrace_ELBO(), x, 40) == pytest.approx(losses(Trace_ELBO(), x, 40), rel=1e-10)
    assert "replayed one after another: its graph gave" in caplog.text
