from __future__ import annotations

import pytest
import torch

from pyro_vae.errors import InputError
from pyro_vae.networks import MLP, NETWORKS, Conv, JointLinear, ResNet, one_hot


def test_joint_linear_is_the_linear_map_of_the_concatenation():
    joint = JointLinear([(2, 3), (4,)], 5)
    x, y = torch.randn(7, 2, 3), torch.randn(7, 4)
    weight = torch.cat([joint.maps[0].weight, joint.maps[1].weight], 1)
    expected = torch.cat([x.flatten(1), y], 1) @ weight.T + joint.maps[0].bias
    torch.testing.assert_close(joint(x, y), expected)


RECIPES = [
    *NETWORKS,
    "mlp:activation=gated",
    "mlp:batch_norm=true",
    "conv:dense=0,refine=true",
    "resnet:dense=0,blocks=2",
]


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("event_shape", [(1, 8, 8), (3, 28, 28), (1, 33, 17), (2, 5, 5)])
def test_encoders_and_decoders_keep_batch_dimensions(recipe, event_shape):
    network = NETWORKS.build(recipe)
    if isinstance(network, ResNet) and event_shape[1] % 4:
        pytest.skip("refused, see below")
    encoder, decoder = network.encoder([event_shape, (4,)]), network.decoder([3, 4], event_shape)
    encoder.eval(), decoder.eval()
    x, z, y = torch.rand(6, *event_shape), torch.randn(2, 6, 3), torch.eye(4)[:2].unsqueeze(1)
    features = encoder(x, y)
    assert features.shape == (2, 6, encoder.num_features)
    assert decoder(z, y).shape == (2, 6, *event_shape)
    # broadcasting a label over a batch is the same as repeating both
    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(features[1], encoder(x, y[1].expand(6, 4)), **close)
    torch.testing.assert_close(decoder(z, y)[1], decoder(z[1], y[1].expand(6, 4)), **close)
    # and the label matters
    assert not torch.allclose(features[0], features[1])


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_parameter_learns(recipe):
    network = NETWORKS.build(recipe)
    encoder, decoder = network.encoder([(1, 8, 8)]), network.decoder([3], (1, 8, 8))
    (encoder(torch.rand(6, 1, 8, 8)).square().sum() + decoder(torch.randn(6, 3)).square().sum()).backward()
    for module in (encoder, decoder):
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


def test_resnet_refuses_sides_that_it_cannot_halve():
    with pytest.raises(InputError, match=r"halved 2 times for the network 'resnet'; got 33x17; use --network conv, .*"):
        ResNet().encoder([(1, 33, 17)])
    with pytest.raises(InputError, match=r"halved 3 times .*; got 28x28"):
        ResNet(channels=(8, 8, 8)).decoder([2], (1, 28, 28))
    with pytest.raises(InputError, match=r"images of shape \(C, H, W\) for the network 'resnet'; got shape \(16,\)"):
        ResNet().encoder([(16,)])


def test_a_gated_layer_by_hand():
    encoder = MLP(hidden=(5,), activation="gated").encoder([(3,)])
    x = torch.randn(4, 3)
    value, gate = encoder.first(x).chunk(2, -1)
    torch.testing.assert_close(encoder(x), value * gate.sigmoid())


def test_batch_norm_normalizes_over_batch_and_labels():
    encoder = MLP(hidden=(5,), batch_norm=True, activation="tanh").encoder([(3,)])
    normal = encoder.rest[0](torch.randn(4, 60, 5) * 3 + 1).flatten(0, 1)
    torch.testing.assert_close(normal.mean(0), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(normal.var(0, unbiased=False), torch.ones(5), atol=1e-3, rtol=0)


def test_conv_is_the_published_decoder():
    """Two strided convolutions and, in the decoder, one more layer at full size: the TensorFlow tutorial's network."""
    decoder = Conv(channels=(32, 64), dense=0, refine=True).decoder([2], (1, 28, 28))
    layers = [m for m in decoder.images if not isinstance(m, torch.nn.ReLU)]
    assert [(m.in_channels, m.out_channels, m.stride[0]) for m in layers] == [(64, 64, 2), (64, 32, 2), (32, 1, 1)]


def test_conv_halves_down_to_eight_and_mirrors():
    assert Conv().plan((1, 28, 28)) == ([(28, 28), (14, 14), (7, 7)], [2, 2])
    assert Conv().plan((1, 8, 8)) == ([(8, 8), (8, 8), (8, 8)], [1, 1])


def test_conv_refuses_vectors():
    with pytest.raises(InputError, match=r"expected images .*; got shape \(16,\); use --network mlp"):
        Conv().encoder([(16,)])


def test_a_pooled_encoder_hands_on_the_maxima():
    torch.manual_seed(0)
    encoder, x = Conv(channels=(3,), dense=0, pool=2).encoder([(1, 9, 8)]), torch.randn(2, 1, 9, 8)
    maps = encoder.maps[:-1](x)  # at stride 2: (2, 3, 5, 4)
    expected = torch.stack([maps[..., i:4:2, j::2] for i in range(2) for j in range(2)]).amax(0)
    assert torch.equal(encoder(x), expected.flatten(1))
    assert encoder.num_features == 3 * 2 * 2
    assert Conv(pool=4).encoder([(1, 3, 2)]).maps[-1].kernel_size == 2  # no more than there is


@pytest.mark.parametrize("recipe", [Conv(dropout=0.5), MLP(hidden=(8, 8), dropout=0.5)])
def test_dropout_acts_in_training_only(recipe):
    encoder = recipe.encoder([(1, 8, 8)])
    x = torch.rand(2, 1, 8, 8)
    assert not torch.equal(encoder(x), encoder(x))
    encoder.eval()
    assert torch.equal(encoder(x), encoder(x))


def test_mlp_widths_and_activation():
    encoder = MLP(hidden=(7, 5), activation="tanh").encoder([(3,)])
    assert [layer.out_features for layer in encoder.modules() if isinstance(layer, torch.nn.Linear)] == [7, 5]
    assert any(isinstance(layer, torch.nn.Tanh) for layer in encoder.modules())


def test_mlp_drops_a_share_of_every_layer():
    features = MLP(hidden=(4000, 4000), activation="softplus", dropout=0.3).encoder([(3,)])(torch.rand(5, 3))
    share = (features == 0).float().mean()  # a softplus is never 0: of 20,000 entries, six standard errors
    assert abs(share - 0.3) < 6 * (0.3 * 0.7 / 20_000) ** 0.5


def test_one_hot():
    assert one_hot(torch.tensor([[2], [0]]), 3).tolist() == [[[0, 0, 1]], [[1, 0, 0]]]
