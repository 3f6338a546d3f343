"""Every model with every guide: compiled loss and gradients equal the stock estimator's at the same noise.

What can go wrong lies in two places.  The recording is checked for all pairs, labelled and not: each is recorded, and
its graph run as it is, on values other than those that it was recorded on.  The compiler is checked on one pair a model
and one a guide: the parts that a pair is made of are all in there.  That takes minutes, so all but
one are exhaustive.
"""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from pyro_vae.compiled import CompiledELBO, CompiledTrace_ELBO, CompiledTraceEnum_ELBO, CompiledTraceMeanField_ELBO
from pyro_vae.guides import GUIDES
from pyro_vae.models import MODELS
from pyro_vae.pairs import Pair
from tests.compiled.comparing import stock_of
from tests.conftest import EVENT_SHAPE, ROWS, combinations, make_pair

QUICK = [("ss_vae", "mean_field")]
COMPILED = sorted({*product(MODELS, ["mean_field"]), *product(["vae"], GUIDES)})


def train(pair: Pair, elbo, batches: list[tuple[Tensor, ...]]) -> tuple[list[float], list[dict[str, Tensor]]]:
    """Short steps down the gradients; losses, and gradients by parameter, step by step."""
    parameters = {
        f"{role}.{name}": p for role, module in pair.modules().items() for name, p in module.named_parameters()
    }
    torch.manual_seed(5)
    losses, gradients = [], []
    for batch in batches:
        for p in parameters.values():
            p.grad = None
        losses.append(elbo.loss_and_grads(pair.model, pair.guide, *batch))
        gradients.append({name: p.grad.clone() for name, p in parameters.items() if p.grad is not None})
        with torch.no_grad():
            for p in parameters.values():
                p -= 0 if p.grad is None else 0.01 * p.grad / (1 + p.grad.norm())
    return losses, gradients


def check(model: str, guide: str, labelled: bool, kind: type[CompiledELBO] | None = None) -> None:
    ours, stock = make_pair(model, guide), make_pair(model, guide)
    batches = [(torch.rand(7, *EVENT_SHAPE).round(), *([torch.arange(7) % 3] * labelled)) for _ in range(4)]
    enumerated = stock.probe(*batches[0]).enumerated
    kind = kind or (CompiledTraceEnum_ELBO if enumerated else CompiledTrace_ELBO)
    elbo = kind(max_plate_nesting=1)
    losses, gradients = train(ours, elbo, batches)
    expected_losses, expected_gradients = train(stock, stock_of(kind)(max_plate_nesting=1), batches)
    assert elbo.num_graphs(ours.model, ours.guide) == 1
    assert losses == pytest.approx(expected_losses, rel=1e-4)
    for found, expected in zip(gradients, expected_gradients, strict=True):
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            assert (found[name] - gradient).norm() <= 1e-4 * gradient.norm() + 1e-6, name


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize(("model", "guide", "rows"), combinations(MODELS, GUIDES, ROWS, colours=[0]))
def test_the_recording_of_a_pair_equals_stock_pyro(model, guide, rows):
    check(model, guide, rows == "labelled")


@pytest.mark.exhaustive
@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("guide", GUIDES)
def test_the_recording_of_closed_form_terms_equals_stock_pyro(guide):
    check("vae", guide, False, CompiledTraceMeanField_ELBO)


@pytest.mark.parametrize(
    ("model", "guide"),
    [
        pytest.param(
            *pair, marks=() if pair in QUICK else pytest.mark.slow if "planar" in pair else pytest.mark.exhaustive
        )
        for pair in COMPILED
    ],
)
@pytest.mark.usefixtures("at_once")
def test_the_graph_of_a_pair_equals_stock_pyro(model, guide):
    check(model, guide, False)
