"""What is rewritten for the processor gives what was recorded."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pyro_vae.compiled import cpu
from pyro_vae.compiled.cpu import suit_cpu
from pyro_vae.compiled.tracing import record

aten = torch.ops.aten

LOGITS = [-1e4, -100.0, -90.0, -80.0, -12.0, -3.0, -1e-6, 0.0, 0.5, 7.0, 80.0, 95.0, 1e4]


def rewritten(function: Callable[[], Tensor], inputs: list[Tensor]) -> tuple[set[object], float]:
    """The operations after rewriting, and the largest relative error of the value and of all gradients."""
    for tensor in inputs:
        tensor.requires_grad_(tensor.is_floating_point())

    def run() -> tuple[Tensor]:
        loss = function()
        loss.backward()
        return (loss,)

    recording = record(run, inputs, inputs)
    suit_cpu(recording.graph)
    recording.graph.graph.lint()
    found = recording.graph(*inputs, *recording.held)
    expected = [*recording.results, *recording.gradients]
    assert len(found) == len(expected)
    errors = [((a - b).norm() / b.norm()).item() for a, b in zip(found, expected, strict=True)]
    return {node.target for node in recording.graph.graph.nodes if node.op == "call_function"}, max(errors)


@pytest.mark.parametrize(
    ("kernel", "padding"),
    [
        ((3, 3), 1),
        pytest.param((3, 3), 0, marks=pytest.mark.exhaustive),
        pytest.param((5, 3), (2, 1), marks=pytest.mark.exhaustive),
        ((1, 1), 0),
        ((4, 2), (3, 0)),
    ],
)
@pytest.mark.parametrize("out", [1, 3])
@pytest.mark.parametrize("with_bias", [True, False])
def test_a_convolution_to_few_channels_is_a_product(kernel, padding, out, with_bias):
    x, weight = torch.randn(2, 5, 7, 6), torch.randn(out, 5, *kernel)
    bias = [torch.randn(out)] if with_bias else []
    operations, error = rewritten(
        lambda: F.conv2d(x, weight, *(bias or [None]), padding=padding).sin().sum(), [x, weight, *bias]
    )
    assert aten.convolution.default not in operations
    assert error < 1e-5


@pytest.mark.parametrize(
    "options",
    [{"stride": 2}, {"dilation": 2}, {"padding": 3}],
    ids=["strided", "dilated", "padded more than its kernel"],
)
def test_other_convolutions_to_few_channels_stay(options):
    x, weight = torch.randn(2, 5, 9, 9), torch.randn(1, 5, 3, 3)
    operations, error = rewritten(lambda: F.conv2d(x, weight, **options).sin().sum(), [x, weight])
    assert aten.convolution.default in operations
    assert error < 1e-5


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("convolve", [F.conv2d, F.conv_transpose2d])
@pytest.mark.parametrize("out", [3, 8])
def test_what_looks_at_the_memory_of_a_convolution_finds_it_as_it_was(layout, convolve, out):
    """Views, which are refused elsewhere, and strides, which would be silently wrong; of the gradients, too."""
    x, weight, flat = (torch.randn(*shape).double() for shape in ((2, 6, 5, 4), (out, 6, 3, 3), (240,)))
    x = x.contiguous(memory_format=layout)
    weight = weight if convolve is F.conv2d else weight.transpose(0, 1).contiguous()

    def loss() -> Tensor:
        image = flat.as_strided(x.shape, x.stride())
        found = convolve(x + image, weight, padding=1)
        rows = found if layout == torch.contiguous_format else found.permute(0, 2, 3, 1)
        lagged = rows.as_strided((rows.numel() - 1,), (1,), 1)
        return (rows.view(2, -1).sin().sum(-1) * rows.flatten()[:2]).sum() + (lagged * lagged[0].cos()).sum()

    _, error = rewritten(loss, [x, weight, flat])
    assert error < 1e-12


@pytest.mark.parametrize("out", [3, 8])
def test_a_gradient_that_nobody_asks_for_is_left_out(out):
    pixels, weight = torch.randint(9, (2, 1, 7, 6)), torch.randn(out, 1, 3, 3)
    _, error = rewritten(lambda: F.conv2d(pixels.float(), weight).sin().sum(), [weight])
    assert error < 1e-5


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("stride", "output_padding"), [(1, 0), (2, 1), (3, 2)])
def test_the_backward_pass_of_a_transposed_convolution_is_ordinary(groups, stride, output_padding):
    x, weight, bias = torch.randn(2, 8, 5, 4), torch.randn(8, 6 // groups, 3, 3), torch.randn(6)
    options = {"stride": stride, "padding": 1, "output_padding": output_padding, "groups": groups}
    operations, error = rewritten(lambda: F.conv_transpose2d(x, weight, bias, **options).sin().sum(), [x, weight, bias])
    assert error < 1e-5
    assert aten.convolution.default in operations


def test_one_dimension_has_no_channels_to_put_last():
    x, weight = torch.randn(2, 5, 9), torch.randn(4, 5, 3)
    _, error = rewritten(lambda: F.conv1d(x, weight).sin().sum(), [x, weight])
    assert error < 1e-5


def test_large_products_go_to_onednn_and_small_ones_do_not(monkeypatch):
    monkeypatch.setattr(cpu, "uses_onednn", lambda: True)
    x, weight, bias = torch.randn(64, 256), torch.randn(128, 256) / 16, torch.randn(128)
    operations, error = rewritten(lambda: (F.linear(x, weight, bias).sin() @ weight).square().sum(), [x, weight, bias])
    assert torch.ops.pyro_vae.mm.default in operations
    assert torch.ops.pyro_vae.addmm.default in operations
    assert not operations & {aten.mm.default, aten.addmm.default}
    assert error < 1e-5
    small = torch.randn(4, 4)
    assert aten.mm.default in rewritten(lambda: (small @ small).sum(), [small])[0]
    double = torch.randn(64, 256, dtype=torch.float64)
    assert aten.mm.default in rewritten(lambda: (double @ double.t()).sum(), [double])[0]


def test_the_bias_of_a_large_product_is_added_later(monkeypatch):
    """Where products stay with torch: it would write the bias into the whole result, and then read it."""
    monkeypatch.setattr(cpu, "uses_onednn", lambda: False)
    x, weight, bias = torch.randn(64, 256), torch.randn(128, 256) / 16, torch.randn(128)
    operations, error = rewritten(lambda: F.linear(x, weight, bias).sin().sum(), [x, weight, bias])
    assert aten.mm.default in operations
    assert aten.addmm.default not in operations
    assert error < 1e-5
    for dtype, size in ((torch.float32, 4), (torch.bfloat16, 256)):
        few = [torch.randn(*shape, dtype=dtype) for shape in ((64, size), (128, size), (128,))]
        assert aten.addmm.default in rewritten(lambda few=few: F.linear(*few).sum(), few)[0]
    scaled = torch.randn(64, 128)
    assert aten.addmm.default in rewritten(lambda: torch.addmm(scaled, x, weight.t(), beta=2).sum(), [x])[0]


def test_a_bernoulli_likelihood_keeps_its_value_where_exp_would_be_subnormal():
    logits = torch.tensor(LOGITS)
    x = (torch.arange(len(LOGITS)) % 3 == 2).float()
    expected = F.binary_cross_entropy_with_logits(logits.double(), x.double(), reduction="none").float()
    graph = record(lambda: (F.binary_cross_entropy_with_logits(logits, x, reduction="none"),), [logits, x]).graph
    suit_cpu(graph)
    assert aten.binary_cross_entropy_with_logits.default not in {node.target for node in graph.graph.nodes}
    (found,) = graph(logits, x)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-30)
    _, error = rewritten(lambda: F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(), [logits])
    assert error < 1e-6


def test_the_logarithm_of_a_bernoulli_likelihood_is_a_polynomial_and_as_exact():
    """Against double precision, over all logits, for values and gradients: the error is that of rounding, 6e-8."""
    logits = torch.cat([torch.linspace(-30, 30, 100_001), torch.tensor(LOGITS)]).requires_grad_()
    x = torch.zeros_like(logits)

    def run() -> list[Tensor]:
        terms = F.binary_cross_entropy_with_logits(logits, x, reduction="none")
        terms.sum().backward()
        return [terms]

    recording = record(run, [logits, x], [logits])
    suit_cpu(recording.graph)
    operations = {node.target for node in recording.graph.graph.nodes}
    assert not operations & {aten.log1p.default, aten.sigmoid.default, aten.binary_cross_entropy_with_logits.default}
    terms, gradient = recording.graph(logits, x)
    exact = logits.detach().double()
    torch.testing.assert_close(
        terms.double(), exact.clamp(min=0) + exact.abs().neg().exp().log1p(), rtol=3e-7, atol=1e-34
    )
    torch.testing.assert_close(gradient.double(), exact.sigmoid(), rtol=3e-7, atol=1e-34)


def test_a_bernoulli_likelihood_in_double_precision_stays_so():
    logits, x = torch.randn(50, dtype=torch.float64), torch.ones(50, dtype=torch.float64)
    operations, error = rewritten(
        lambda: F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(), [logits]
    )
    assert aten.log1p.default in operations
    assert aten.sigmoid.default in operations
    assert error < 1e-14


def test_probabilities_of_other_logits_stay():
    logits, others, x = torch.randn(50), torch.randn(50), torch.ones(50)
    operations, error = rewritten(
        lambda: (F.binary_cross_entropy_with_logits(logits, x, reduction="none") * others.sigmoid()).sum(),
        [logits, others],
    )
    assert aten.sigmoid.default in operations
    assert error < 1e-6


def test_a_bernoulli_likelihood_of_what_is_no_number_is_none():
    logits, x = torch.tensor([float("nan"), 1.0]), torch.ones(2)
    graph = record(lambda: (F.binary_cross_entropy_with_logits(logits, x, reduction="none"),), [logits, x]).graph
    suit_cpu(graph)
    assert graph(logits, x)[0].isnan().tolist() == [True, False]


def test_a_weighted_or_averaged_one_stays():
    logits, x = torch.randn(5), torch.ones(5)
    for options in ({"reduction": "mean"}, {"pos_weight": torch.full((5,), 2.0), "reduction": "sum"}):
        operations, error = rewritten(
            lambda options=options: F.binary_cross_entropy_with_logits(logits, x, **options), [logits]
        )
        assert error < 1e-6
        assert operations


def test_a_copy_is_made_once():
    """The image of a convolution to one channel is a matrix of pixels in both passes."""
    x, weight = torch.randn(2, 5, 7, 6), torch.randn(1, 5, 3, 3)
    x.requires_grad_()

    def run() -> tuple[Tensor]:
        loss = F.conv2d(x.sin(), weight, padding=1).square().sum()
        loss.backward()
        return (loss,)

    recording = record(run, [x, weight], [x])
    suit_cpu(recording.graph)
    copies = [node for node in recording.graph.graph.nodes if node.target is aten.clone.default]
    keys = [(node.args[0], node.kwargs.get("memory_format")) for node in copies]
    assert len(keys) == len(set(keys)) > 0


def test_copies_of_what_changes_are_all_made():
    x = torch.randn(3, 4)

    def run() -> list[Tensor]:
        y = x.sin()
        before = y.clone()
        y.view(-1).mul_(2)
        return [before, y.clone()]

    recording = record(run, [x])
    suit_cpu(recording.graph)
    before, after = recording.graph(x)
    assert torch.allclose(before, x.sin())
    assert torch.allclose(after, 2 * x.sin())


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="needs oneDNN")
def test_a_product_with_one_step_of_a_sequence_is_not_slow():
    """Rows with gaps between them took oneDNN a thousand times as long as torch's product; thirty may be noise."""
    a, b = torch.randn(256, 40), torch.randn(40, 9, 128)[:, 3]
    bias = torch.randn(128)
    torch.testing.assert_close(torch.ops.pyro_vae.mm(a, b), a @ b, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(torch.ops.pyro_vae.addmm(bias, a, b), a @ b + bias, rtol=1e-4, atol=1e-4)

    def fastest(product):
        taken = []
        for _ in range(20):
            start = time.perf_counter()
            product(a, b)
            taken.append(time.perf_counter() - start)
        return min(taken)

    assert fastest(torch.ops.pyro_vae.mm) < 30 * fastest(torch.mm)
