"""A recording is one run of a function, for any values of its inputs, or it is refused with its reason."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pyro_vae.compiled.lowering import interpret
from pyro_vae.compiled.tracing import Recording, Untraceable, record

X = torch.tensor([1.0, -2.0, 3.0])
OTHER = torch.tensor([-4.0, 0.5, 2.0])


def replay(recording: Recording, *inputs: Tensor) -> tuple[Tensor, ...]:
    recording.graph.recompile()
    return recording.graph(*inputs, *recording.held)


def test_the_graph_is_the_function_for_other_values():
    x = X.clone()
    recording = record(lambda: (x.exp().sum(), 2 * x), [x])
    torch.testing.assert_close(recording.results, [X.exp().sum(), 2 * X])
    torch.testing.assert_close(replay(recording, OTHER), (OTHER.exp().sum(), 2 * OTHER))
    assert recording.held == []


def literal(x):
    return x * torch.tensor(0.5)


def number(x):
    return x * torch.ones(3).sum().item()


def choice(x):
    return x if torch.ones(3).sum() > 2 else -x


def in_lists(x):
    return x * sum(torch.arange(3).tolist())


def through_math(x):
    return x * math.sqrt(torch.tensor(4.0))


def classes(x):
    return x @ nn.functional.one_hot(torch.arange(3), 3).float()


@pytest.mark.parametrize("function", [literal, number, choice, in_lists, through_math, classes])
def test_python_may_ask_for_the_value_of_a_constant(function):
    x = X.clone()
    recording = record(lambda: (function(x),), [x])
    torch.testing.assert_close(replay(recording, OTHER), (function(OTHER),))
    assert recording.held == []


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: x if x.sum() > 0 else -x, "a choice"),
        (lambda x: x if x.sum().item() > 0 else -x, "a choice"),
        (lambda x: x if torch.randn(()) > 9 else -x, "a choice"),
        (lambda x: x if 1.0 in x else -x, "a choice"),
        (lambda x: x * float(x[0]), "a number"),
        (lambda x: x * math.exp(x[0]), "a number"),
        (lambda x: x[: int(x.abs()[0])], "a whole number"),
        (lambda x: torch.zeros(3)[range(3)[x.long()[0]]], "an index or a size"),
        (lambda x: torch.tensor(x.tolist()), "a list"),
        (lambda x: torch.tensor(x.numpy()), "an array"),
        (lambda x: torch.tensor(np.asarray(x)), "an array"),
        (lambda x: x * float(f"{x[0]:.1f}"), "a text"),
        (lambda x: x * len(str(x)), "a text"),
        (lambda x: x * {7.0: 2.0}.get(x[0].item(), 1.0), "a table"),
    ],
)
def test_python_may_not_ask_for_the_value_of_another(function, reason):
    x = X.clone()
    with pytest.raises(Untraceable, match=rf"^{reason} in Python .* of a tensor \(test_tracing.py, line \d+\)$"):
        record(lambda: (function(x),), [x])


def written_into(x):
    made = torch.zeros(3)
    made[0] = x.sum()
    return made


def written_through_a_view(x):
    made = torch.zeros(2, 3)
    made.view(6)[4:].t().copy_(x[:2])
    return made.flip(0)


def given_as_out(x):
    made = torch.ones(3)
    torch.mul(x, 2, out=made)
    return made


def written_before_it_was_looked_at(x):
    made = torch.zeros(3)
    seen = made[1:]
    made.add_(x)
    return seen


WRITERS = [written_into, written_through_a_view, given_as_out, written_before_it_was_looked_at]


@pytest.mark.parametrize("function", WRITERS)
def test_a_constant_into_which_something_was_written_is_none(function):
    x = X.clone()
    with pytest.raises(Untraceable, match="a choice in Python depends on the value of a tensor"):
        record(lambda: (x if function(x).sum() > 0 else -x,), [x])


def test_a_constant_that_lies_where_another_one_was_is_one():
    x = X.clone()

    def function():
        for _ in range(20):
            assert torch.zeros(3).sum() == 0  # whose memory is soon that of the next
            torch.zeros(3).add_(x)
        return (x,)

    record(function, [x])


class OfItsOwn(nn.Parameter):
    """A class that says nothing of operations."""


def test_a_class_that_leaves_operations_to_torch_is_recorded():
    x, held = X.clone(), OfItsOwn(torch.ones(3))
    recording = record(lambda: ((x * held).sum(),), [x])
    assert recording.held[0] is held
    torch.testing.assert_close(replay(recording, OTHER), (OTHER.sum(),))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.tensor([x[0], 2.0]),
        lambda x: torch.as_tensor([[x[0]], [x[1]]]),
        lambda x: x.new_tensor([x[0]]),
    ],
)
def test_a_tensor_of_the_values_of_others_is_refused(function):
    x = X.clone()
    with pytest.raises(Untraceable, match=r"^a tensor is made .*; use torch.stack \(test_tracing.py, line \d+\)$"):
        record(lambda: (function(x),), [x])


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x[x > 0],
        lambda x: x.repeat_interleave(x.abs().long()),
        lambda x: x.nonzero(),
        lambda x: x.unique(),
        lambda x: torch.masked_select(x, x > 0),
        lambda x: torch.where(x > 0)[0],
    ],
)
def test_a_shape_that_depends_on_values_is_refused(function):
    x = X.clone()
    with pytest.raises(Untraceable, match=r"^the shape of what \S+ returns .* \(test_tracing.py, line \d+\)$"):
        record(lambda: (function(x),), [x])


def of_triangle(x):
    square = x[:, None] * x
    rows = torch.arange(3)
    return square[rows <= rows[:, None]]


def into_triangle(x):
    rows = torch.arange(3)
    square = x.new_zeros(2, 3, 3)
    square[..., rows < rows[:, None]] = x
    return square


def of_places(x):
    (places,) = torch.tensor([True, False, True]).nonzero(as_tuple=True)
    return x[places.mul_(2).clamp_(max=2)]  # written in place, in every run anew


def of_what_there_is(x):
    found, count = torch.tensor([2, 0, 2]).unique(return_counts=True)
    return x[found] * count


def repeated(x):
    return x.repeat_interleave(torch.tensor([1, 0, 2]))


@pytest.mark.parametrize("function", [of_triangle, into_triangle, of_places, of_what_there_is, repeated])
def test_a_shape_that_depends_on_constants_is_that_of_every_run(function):
    x = X.clone().requires_grad_()

    def differentiated():
        value = function(x)
        (value * torch.arange(value.numel()).view_as(value)).sum().backward()
        return (value,)

    recording = record(differentiated, [x], [x])
    for _ in range(2):
        value, gradient = replay(recording, OTHER)
        other = OTHER.clone().requires_grad_()
        expected = function(other)
        (expected * torch.arange(expected.numel()).view_as(expected)).sum().backward()
        torch.testing.assert_close((value, gradient), (expected.detach(), other.grad))


def test_a_mask_into_which_something_was_written_is_no_constant():
    x = X.clone()

    def function():
        mask = torch.arange(3) > 0
        mask[0] = x[0] > 0
        return (x[mask],)

    with pytest.raises(Untraceable, match=r"^the shape of what \S+ returns depends on values"):
        record(function, [x])


def test_what_a_mask_is_given_has_no_shape_of_its_own():
    x = X.clone()

    def function(x):
        y = 2 * x
        y[x > 0] = 7.0
        return y[torch.tensor([2, 0])]

    recording = record(lambda: (function(x),), [x])
    torch.testing.assert_close(replay(recording, OTHER), (function(OTHER),))


def test_item_gives_the_number_without_gradient():
    x = X.clone().requires_grad_()

    def function():
        loss = (x * x.sum().item()).sum()
        loss.backward()
        return (loss,)

    recording = record(function, [x], [x])
    _, gradient = replay(recording, OTHER)
    torch.testing.assert_close(gradient, OTHER.sum().expand(3))
    assert x.grad is None


def test_held_tensors_are_read_where_they_are():
    x, held = X.clone(), torch.ones(3)
    recording = record(lambda: (x + held * held,), [x])
    assert len(recording.held) == 1
    assert recording.held[0] is held
    held.mul_(3)
    torch.testing.assert_close(replay(recording, OTHER), (OTHER + 9,))


def test_inputs_are_known_by_identity_wherever_they_are_reached():
    layer = nn.Linear(3, 2)
    recording = record(lambda: (layer(X),), [layer.weight, layer.bias])
    assert recording.held == [X]
    weight, bias = torch.randn(2, 3), torch.randn(2)
    torch.testing.assert_close(replay(recording, weight, bias), (weight @ X + bias,))


def test_one_hot_vectors():
    labels = torch.tensor([0, 2, 1])
    recording = record(lambda: (nn.functional.one_hot(labels, num_classes=3),), [labels])
    others = torch.tensor([2, 2, 0])
    (found,) = replay(recording, others)
    assert torch.equal(found, nn.functional.one_hot(others, 3))
    assert found.dtype == torch.int64


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda x: nn.functional.one_hot(x.abs().long()), "one_hot"),  # of as many classes as there are values
        (lambda x: x[: x.abs()[0].long()], "__getitem__"),
        (lambda x: x if torch.equal(x, X) else -x, "equal"),
        (lambda x: torch.arange(x[2]), "arange"),
    ],
)
def test_what_torch_asks_for_itself_is_refused(function, name):
    x = X.clone()
    with pytest.raises(Untraceable, match=rf"^{name} depends on .* \(test_tracing.py, line \d+\)$"):
        record(lambda: (function(x),), [x])


def test_a_row_whose_number_is_a_tensor():
    i, table = torch.tensor(1), torch.arange(24.0).reshape(3, 4, 2)
    recording = record(lambda: (table[i], table[i, 1:], table[i, ..., 0], table[torch.tensor(2)]), [i])
    for number in (0, 2, -1):
        expected = (table[number], table[number, 1:], table[number, ..., 0], table[2])
        torch.testing.assert_close(replay(recording, torch.tensor(number)), expected)


def test_noise_is_drawn_by_the_graph_as_by_the_function():
    x = X.clone()
    torch.manual_seed(0)
    recording = record(lambda: (x + torch.randn(3),), [x])
    torch.manual_seed(0)
    torch.testing.assert_close(recording.results[0] - X, torch.randn(3))
    torch.manual_seed(1)
    (first,), (second,) = replay(recording, OTHER), replay(recording, OTHER)
    torch.manual_seed(1)
    torch.testing.assert_close((first, second), (OTHER + torch.randn(3), OTHER + torch.randn(3)))


def test_gradients_of_what_was_asked_for_and_of_other_leaves():
    used, unused, other = (torch.ones(3, requires_grad=True) for _ in range(3))

    def function():
        loss = (used * X + 2 * other).sum()
        loss.backward()
        return (loss,)

    recording = record(function, [used, unused], [used, unused])
    assert recording.gradients[1] is None
    assert recording.leaves == [other]
    torch.testing.assert_close([recording.gradients[0], recording.gradients[2]], [X, torch.full((3,), 2.0)])
    torch.testing.assert_close(replay(recording, used, unused)[1:], (X, torch.full((3,), 2.0)))


def test_gradients_of_two_backward_passes_add_up():
    x = X.clone().requires_grad_()

    def function():
        for factor in (2.0, 3.0):
            (factor * x).sum().backward()
        return ()

    assert torch.equal(record(function, [x], [x]).gradients[0], torch.full((3,), 5.0))


def test_gradients_stop_at_an_input_that_was_computed():
    source = X.clone().requires_grad_()
    x = source.exp()

    def function():
        (x**2).sum().backward()
        return ()

    recording = record(function, [x], [x])
    assert recording.leaves == []
    torch.testing.assert_close(recording.gradients[0], 2 * x.detach())


def test_a_replay_keeps_noise_and_changes_that_nobody_reads():
    """Dead operations go, but the generator and the memory end where the function itself leaves them."""
    count, value = torch.zeros(3), torch.ones(3)

    def function():
        torch.rand(5)
        value * 7
        count.view(3)[1:].add_(1)
        return (torch.randn(3) + value,)

    torch.manual_seed(0)
    recording = record(function, [value])
    expected, noise, size = recording.results[0], torch.get_rng_state(), len(recording.graph.graph.nodes)
    torch.manual_seed(0)
    assert torch.equal(interpret(recording)([value])[0], expected)
    assert torch.equal(torch.get_rng_state(), noise)
    assert count.tolist() == [0, 2, 2]
    assert len(recording.graph.graph.nodes) == size - 1
