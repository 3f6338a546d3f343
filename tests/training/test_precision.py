"""Networks in bfloat16, distributions in float32."""

from __future__ import annotations

import pytest
import torch
from pyro import poutine
from torch import nn

from pyro_vae.training.precision import note_on_precision, precision
from tests.conftest import make_pair


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(64, 32), (8, 64)),
        (nn.Conv2d(3, 8, 3), (2, 3, 9, 9)),
        (nn.ConvTranspose2d(3, 8, 3, stride=2), (2, 3, 9, 9)),
    ],
)
def test_a_layer_computes_in_bfloat16_and_hands_on_float32(layer, shape):
    """The result is that of rounded inputs, 8 bits of mantissa; so are the gradients, which are float32 too."""
    x = torch.randn(shape, requires_grad=True)
    full = layer(x)
    with precision("bf16"):
        half = layer(x)
        half.square().sum().backward()
    assert half.dtype == torch.float32
    assert not torch.equal(half, full)
    torch.testing.assert_close(half, full, rtol=0.02, atol=0.02 * full.abs().max().item())
    ours = [tensor.grad.clone() for tensor in (x, *layer.parameters())]
    for tensor in (x, *layer.parameters()):
        tensor.grad = None
    layer(x).square().sum().backward()
    for gradient, tensor in zip(ours, (x, *layer.parameters()), strict=True):
        assert gradient.dtype == torch.float32
        assert (gradient - tensor.grad).norm() < 0.03 * tensor.grad.norm()


def test_log_probabilities_stay_in_float32(x):
    pair = make_pair()
    with precision("bf16"), poutine.trace() as guided:
        pair.guide(x)
    q = guided.trace
    with precision("bf16"):
        p = poutine.trace(poutine.replay(pair.model, q)).get_trace(x)
    for trace in (p, q):
        trace.compute_log_prob()
        for site in trace.nodes.values():
            if site["type"] == "sample":
                assert site["log_prob"].dtype == torch.float32


def test_other_products_are_left_alone():
    a = torch.randn(5, 7)
    with precision("bf16"):
        assert torch.equal(a @ a.T, torch.mm(a, a.T))
        assert nn.functional.linear(a.double(), a.double()).dtype == torch.float64
    with precision("32"):
        assert torch.equal(nn.functional.linear(a, a), nn.functional.linear(a, a))


@pytest.mark.parametrize("has_it", [True, False])
def test_a_processor_without_bfloat16_is_said_to_be_slow(has_it, monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: has_it)
    assert ("no bfloat16 arithmetic" in note_on_precision("bf16", torch.device("cpu"))) is not has_it
    assert note_on_precision("32", torch.device("cpu")) == note_on_precision("bf16", torch.device("cuda")) == ""
