from __future__ import annotations

import pytest
import torch

from pyro_vae.errors import InputError
from pyro_vae.networks import MLP, NETWORKS, Conv, JointLinear, one_hot


def test_joint_linear_is_the_linear_map_of_the_concatenation():
    joint = JointLinear([(2, 3), (4,)], 5)
    x, y = torch.randn(7, 2, 3), torch.randn(7, 4)
    weight = torch.cat([joint.maps[0].weight, joint.maps[1].weight], 1)
    expected = torch.cat([x.flatten(1), y], 1) @ weight.T + joint.maps[0].bias
    torch.testing.assert_close(joint(x, y), expected)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("event_shape", [(1, 8, 8), (3, 28, 28), (1, 33, 17), (2, 5, 5)])
def test_encoders_and_decoders_keep_batch_dimensions(name, event_shape):
    network = NETWORKS[name]()
    encoder, decoder = network.encoder([event_shape, (4,)]), network.decoder([3, 4], event_shape)
    x, z, y = torch.rand(6, *event_shape), torch.randn(2, 6, 3), torch.eye(4)[:2].unsqueeze(1)
    features = encoder(x, y)
    assert features.shape == (2, 6, encoder.num_features)
    assert decoder(z, y).shape == (2, 6, *event_shape)
    # broadcasting a label over a batch is the same as repeating both
    torch.testing.assert_close(features[1], encoder(x, y[1].expand(6, 4)))
    torch.testing.assert_close(decoder(z, y)[1], decoder(z[1], y[1].expand(6, 4)))


def test_conv_halves_down_to_eight_and_mirrors():
    assert Conv().plan((1, 28, 28)) == ([(28, 28), (14, 14), (7, 7)], [2, 2])
    assert Conv().plan((1, 8, 8)) == ([(8, 8), (8, 8), (8, 8)], [1, 1])


def test_conv_refuses_vectors():
    with pytest.raises(InputError, match=r"expected images .*; got shape \(16,\); use --network mlp"):
        Conv().encoder([(16,)])


def test_dropout_acts_in_training_only():
    encoder = Conv(dropout=0.5).encoder([(1, 8, 8)])
    x = torch.rand(2, 1, 8, 8)
    assert not torch.equal(encoder(x), encoder(x))
    encoder.eval()
    assert torch.equal(encoder(x), encoder(x))


def test_mlp_widths_and_activation():
    encoder = MLP(hidden=(7, 5), activation="tanh").encoder([(3,)])
    assert [layer.out_features for layer in encoder.modules() if isinstance(layer, torch.nn.Linear)] == [7, 5]
    assert any(isinstance(layer, torch.nn.Tanh) for layer in encoder.modules())


def test_one_hot():
    assert one_hot(torch.tensor([[2], [0]]), 3).tolist() == [[[0, 0, 1]], [[1, 0, 0]]]
