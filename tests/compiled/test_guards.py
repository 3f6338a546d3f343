"""Choices and shapes that depend on whole numbers and truths of tensors: graphs for as long as these stay."""

from __future__ import annotations

import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import nn

from pyro_vae.compiled import CompiledTrace_ELBO, NotCompiled
from tests.compiled.agreeing import guide

X = torch.tensor([0.5, -1.0, 2.0, 0.25, -0.75, 1.5])
KEPT = torch.tensor([True, True, False, True, False, True])
IDS = torch.tensor([2, 0, 2, 1, 0, 2])
LENGTHS = torch.tensor([3, 1, 2])


def observe(values, scale=1.0):
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(z, scale).expand([len(values)]).to_event(1), obs=values)


def of_a_mask(x, kept=KEPT, ids=IDS):
    observe(x[kept])


def of_a_mask_that_is_computed(x, kept=KEPT, ids=IDS):
    observe(x[torch.where(kept, x, torch.nan).isnan().logical_not()])


def selected(x, kept=KEPT, ids=IDS):
    observe(torch.masked_select(x, kept))


def of_places(x, kept=KEPT, ids=IDS):
    observe(x[kept.nonzero().squeeze(-1)])


def by_groups(x, kept=KEPT, ids=IDS):
    groups, counts = ids.unique(return_counts=True)
    observe(torch.stack([x[ids == group].sum() for group in groups]), counts.sqrt())


def of_classes(x, kept=KEPT, ids=IDS):
    observe(x @ nn.functional.one_hot(ids).float())


def as_many_as_the_largest(x, kept=KEPT, ids=IDS):
    observe(x.new_zeros(int(ids.max()) + 1).index_add(0, ids, x))


def repeated(x, kept=KEPT, ids=IDS):
    observe(x.repeat_interleave(ids))


def in_a_loop(x, kept=KEPT, ids=IDS):
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    for t in range(LENGTHS.max()):
        running = (t < LENGTHS).sum()
        if running > 1:
            pyro.sample(f"x_{t}_{running}", dist.Normal(z, 1.0), obs=x[t])


def listed(x, kept=KEPT, ids=IDS):
    observe(torch.stack([x[i] for i in ids.tolist()]))


def if_any(x, kept=KEPT, ids=IDS):
    observe(-x if kept.any() and not (x > 9).any() else x)


def if_equal(x, kept=KEPT, ids=IDS):
    observe(x if torch.equal(ids, IDS) else -x)


def looked_up(x, kept=KEPT, ids=IDS):
    shifts = {0: 1.0, 1: 2.0, 2: 4.0, 3: 8.0}
    observe(torch.stack([x[i] + shifts[y.item()] for i, y in enumerate(ids)]))


def named(x, kept=KEPT, ids=IDS):
    number = ids.max().item()
    shift = pyro.param(f"shift_{number // 2}", torch.tensor(0.25))
    observe(x + shift * len(range(number)))


STRUCTURES = [
    looked_up,
    named,
    of_a_mask,
    of_a_mask_that_is_computed,
    selected,
    of_places,
    by_groups,
    of_classes,
    as_many_as_the_largest,
    repeated,
    in_a_loop,
    listed,
    if_any,
    if_equal,
]


def both(model, calls):
    """Losses, noise and gradients of some calls by both estimators, which must agree; ours, and what was said."""
    found, elbo = [], CompiledTrace_ELBO()
    for estimator in (Trace_ELBO(), elbo):
        pyro.clear_param_store()
        torch.manual_seed(0)
        values = []
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            for arguments in calls:
                loss = estimator.loss_and_grads(model, guide, *arguments)
                parameter = pyro.get_param_store()._params["loc"]
                values.append([loss, parameter.grad.item()])
                parameter.grad = None
        found.append(torch.tensor(values))
        found.append(torch.get_rng_state())
    torch.testing.assert_close(found[2], found[0], rtol=1e-5, atol=1e-5)
    assert torch.equal(found[1], found[3])
    return elbo, [str(warning.message) for warning in said if warning.category is NotCompiled]


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("model", STRUCTURES)
def test_what_depends_on_whole_numbers_and_truths_that_stay_is_a_graph(model):
    elbo, said = both(model, [(X, KEPT, IDS)] * 8)
    assert elbo.num_graphs(model, guide) == 1
    assert said == []


@pytest.mark.exhaustive
@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("model", [of_a_mask, by_groups, in_a_loop])
def test_guards_are_compiled(model):
    calls = [(X, KEPT, IDS)] * 6
    elbo, said = both(model, calls if model is in_a_loop else [*calls, (X, KEPT.logical_not(), IDS + 1), *calls])
    assert elbo.num_graphs(model, guide) == 1
    assert said == []


@pytest.mark.usefixtures("uncompiled")
def test_a_number_that_is_written_as_one_is_no_tensor_in_words():
    def model(x, ids):
        number = ids.max().item()
        for i in range(number):
            shift = pyro.param("shift_" + str(number // 2), torch.tensor(0.25))
            observe(x + shift) if i == 0 else None

    _, said = both(model, [(X, IDS)] * 6)
    assert set(pyro.get_param_store()) == {"shift_1", "loc"}
    assert len(said) == 1
    assert "a text in Python depends on the value of a tensor" in said[0]


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("model", [structure for structure in STRUCTURES if structure is not in_a_loop])
def test_other_values_are_seen_at_once(model):
    """A graph answers the calls before; at the third with other values it is given up."""
    x, kept = X + torch.tensor([0, 0, 0, 9.0, 0, 0]), KEPT.logical_not()
    elbo, said = both(model, [(X, KEPT, IDS)] * 5 + [(x, kept, IDS + 1)] * 5)
    assert elbo.num_graphs(model, guide) == 1
    assert len(said) == 1
    assert "depends on" in said[0]


@pytest.mark.usefixtures("uncompiled")
def test_what_is_changed_in_place_is_seen():
    mask = KEPT.clone()

    def model(x):
        observe(x[mask])

    def found_by(estimator):
        pyro.clear_param_store()
        torch.manual_seed(0)
        losses = []
        for step in range(8):
            mask.copy_(KEPT)
            mask[0] = step < 5
            losses.append(estimator.loss_and_grads(model, guide, X))
        return losses

    with pytest.warns(NotCompiled, match="the shape of what aten.index.Tensor returns depends on values") as said:
        ours = found_by(CompiledTrace_ELBO())
    assert ours == pytest.approx(found_by(Trace_ELBO()), rel=1e-5)
    assert len(said) == 1


@pytest.mark.usefixtures("uncompiled")
def test_a_few_calls_with_other_values_leave_a_graph_alone():
    other = (X, KEPT.logical_not(), IDS)
    elbo, said = both(of_a_mask, ([(X, KEPT, IDS)] * 30 + [other]) * 4)
    assert said == []
    assert elbo.num_graphs(of_a_mask, guide) == 1
    pair = elbo._known(of_a_mask, guide).pair
    assert len(pair._graphs) == 1


@pytest.mark.usefixtures("uncompiled")
def test_a_choice_that_a_draw_decides_is_followed():
    def model():
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0 if z > 0.3 else 2.0), obs=torch.tensor(1.0))

    _, said = both(model, [()] * 30)
    assert len(said) == 1
    assert "a choice in Python depends on the value of a tensor (test_guards.py, line " in said[0]


@pytest.mark.usefixtures("uncompiled")
def test_a_run_that_writes_where_it_is_not_alone_is_not_guarded():
    """A graph would have written before it says that the values are others."""

    def train(estimator):
        torch.manual_seed(0)
        pyro.clear_param_store()
        norm = nn.BatchNorm1d(1)

        def model(x):
            x = norm(x[:, None])[:, 0]
            observe(x[KEPT] if (IDS > 1).any() else x)

        losses = [estimator.loss_and_grads(model, guide, X) for _ in range(6)]
        return losses, norm.running_mean.item(), norm.num_batches_tracked.item()

    with pytest.warns(NotCompiled, match="depends on"):
        found = train(CompiledTrace_ELBO())
    assert found == train(Trace_ELBO())


@pytest.mark.usefixtures("uncompiled")
def test_an_error_of_the_program_is_its_own():
    def model(x, ids):
        weights = x.new_ones(int(ids[0]) + 1)
        observe(x * weights[ids])

    ids = torch.tensor([3, 0, 2, 1, 0, 2])
    elbo = CompiledTrace_ELBO()
    for _ in range(5):
        elbo.loss_and_grads(model, guide, X, ids)
    with pytest.raises(IndexError):
        elbo.loss_and_grads(model, guide, X, ids.flip(0))  # of three weights
    assert elbo.loss_and_grads(model, guide, X, ids) > 0
