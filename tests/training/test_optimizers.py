"""Updates of recorded steps against torch's own optimizers, steps that are left out, and the rate."""

from __future__ import annotations

import math

import pytest
import torch

from pyro_vae.config import TrainingConfig
from pyro_vae.errors import InputError
from pyro_vae.training import OPTIMIZERS
from pyro_vae.training.rate import LearningRate
from tests.conftest import make_pair
from tests.training.test_recorded_step import train, trainer_for


def gradients(steps: int) -> list[torch.Tensor]:
    return [torch.randn(6) * 10.0 ** (step % 4 - 2) for step in range(steps)]


@pytest.mark.parametrize("choice", [*OPTIMIZERS, "adam:beta1=0.5,beta2=0.9,eps=0.01", "adamax:eps=0.1"])
def test_the_update_is_that_of_torch(choice):
    rule = OPTIMIZERS.build(choice)
    ours, theirs = torch.nn.Parameter(torch.ones(6)), torch.nn.Parameter(torch.ones(6))
    optimizer, state, lr = rule.of_torch([theirs], lr=0.02, weight_decay=0.0), rule.moments(ours), torch.tensor(0.02)
    for number, gradient in enumerate(gradients(12), start=1):
        theirs.grad = gradient.clone()
        optimizer.step()
        with torch.no_grad():
            rule.update(lr, state["step"].add_(1), 1.0)(ours, gradient, state)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
        (kept,) = optimizer.state.values()
        assert kept.keys() == state.keys()
        assert state["step"] == kept["step"] == number


def test_adamax_by_hand():
    """Two steps with b1 = 0.9, b2 = 0.999: the first as long as the rate, the second by the larger gradient."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = OPTIMIZERS.build("adamax").of_torch([parameter], lr=0.1, weight_decay=0.0)
    parameter.grad = torch.tensor([4.0])
    optimizer.step()
    assert parameter.item() == pytest.approx(-0.1)
    parameter.grad = torch.tensor([1.0])
    optimizer.step()
    mean = (0.9 * 0.1 * 4 + 0.1 * 1) / (1 - 0.9**2)
    assert parameter.item() == pytest.approx(-0.1 - 0.1 * mean / (0.999 * 4))


@pytest.mark.parametrize("choice", OPTIMIZERS)
def test_weight_decay_does_not_pass_through_the_gradient(choice):
    first = {}
    for decay in (0.0, 3.0):
        parameter = torch.nn.Parameter(torch.full((2,), 5.0))
        parameter.grad = torch.tensor([1.0, -2.0])
        OPTIMIZERS.build(choice).of_torch([parameter], lr=0.01, weight_decay=decay).step()
        first[decay] = parameter.detach()
    torch.testing.assert_close(first[0.0] - first[3.0], torch.full((2,), 0.01 * 3.0 * 5.0))


@pytest.mark.parametrize("choice", OPTIMIZERS)
def test_a_step_left_out_changes_nothing(choice):
    """The very first one, too, where nothing is known of gradients yet."""
    rule, parameter = OPTIMIZERS.build(choice), torch.ones(6)
    state, lr = rule.moments(parameter), torch.tensor(0.02)
    for gradient in gradients(3):
        before = [parameter.clone(), *(value.clone() for value in state.values())]
        step = state["step"].add_(torch.tensor(0.0))
        rule.update(lr, step.clamp(min=1), torch.tensor(0.0))(parameter, torch.zeros(6), state)
        assert all(torch.equal(a, b) for a, b in zip(before, [parameter, *state.values()], strict=True))
        rule.update(lr, state["step"].add_(1.0), torch.tensor(1.0))(parameter, gradient, state)
        assert not torch.equal(parameter, before[0])


@pytest.mark.usefixtures("graph")
@pytest.mark.parametrize("compile", ["off", "on"])
def test_steps_with_large_gradients_are_left_out_and_counted(x, compile):
    """Whichever they are: what the steps say of their norms is what is counted, and the others are made."""
    trainer, norms = trainer_for(make_pair(), x, compile=compile, skip_norm=8.0, beta=1.0), []
    checked_step = trainer._checked_step
    trainer._checked_step = lambda *arguments: norms.append(step := checked_step(*arguments)) or step
    torch.manual_seed(9)
    rows = list(trainer.epochs())
    assert trainer.way == ("compiled" if compile == "on" else "eager")
    above = [norm.item() > 8.0 for _, norm in norms]
    assert 0 < sum(above) < 9
    assert [row["skipped_steps"] for row in rows] == [sum(above[i : i + 3]) for i in (0, 3, 6)]
    assert {state["step"].item() for state in trainer.eager.optimizer.state.values()} == {9 - sum(above)}
    nothing, rows = train(pair := make_pair(), x, compile=compile, skip_norm=1e-6)
    assert [row["skipped_steps"] for row in rows] == [3, 3, 3]
    assert all(torch.equal(value, pair.state_dict()[name]) for name, value in make_pair().state_dict().items())
    assert nothing.progress.skipped == 0


def test_the_rate_rises_and_falls():
    config = TrainingConfig(epochs=10, lr=0.4, lr_warmup=4, lr_schedule="decay")
    rate = LearningRate(config, num_steps=5)
    assert [rate.at(0, step) for step in range(5)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])
    assert rate.at(7, 0) == pytest.approx(0.4)
    assert rate.at(8, 2) == pytest.approx(0.2 * (1 + math.cos(math.pi * 1.4 / 3)))
    assert rate.at(9, 5) == pytest.approx(0, abs=1e-9)
    plain = LearningRate(config.model_copy(update={"lr_warmup": 0}), num_steps=5)
    assert plain.at(0, 0) == pytest.approx(0.4)
    assert all(rate.at(epoch, 3) == plain.at(epoch, 3) for epoch in range(1, 10))


@pytest.mark.parametrize("warm_up", [50, 51])
def test_a_warm_up_that_never_ends_is_refused(warm_up):
    with pytest.raises(
        InputError, match=f"shorter than the 50 steps of the training; got {warm_up}; use --lr-warmup 5"
    ):
        LearningRate(TrainingConfig(epochs=10, lr_warmup=warm_up), num_steps=5)
    LearningRate(TrainingConfig(epochs=10, lr_warmup=49), num_steps=5)


def test_a_warm_up_reaches_the_steps(x):
    """The first of four steps of Adam is as long as a quarter of the rate."""
    pair = make_pair()
    before = {name: value.clone() for name, value in pair.state_dict().items()}
    trainer = trainer_for(pair, x, lr=0.04, lr_warmup=4, compile="off")
    trainer._checked_step(next(trainer.batches.indices()), 1.0, 0.0)
    moved = max((value - before[name]).abs().max().item() for name, value in pair.state_dict().items())
    assert moved == pytest.approx(0.01, rel=1e-3)
