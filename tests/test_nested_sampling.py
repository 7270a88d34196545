"""Identity 13: the farthest points of a cloud, taken in order, need no sampling of their own."""

import pytest
import torch

from pointnet import PointNet2Classifier, PointNextClassifier
from pointnet.datasets import ModelNet
from pointnet.layers import SetAbstraction
from pointnet.ops.neighbours import farthest_point_sampling, gather
from tests.helpers import SAMPLES, trained_looking

LATTICE = torch.cartesian_prod(*[torch.arange(4.0)] * 3).T.unsqueeze(0)  # 64 points, of which many are equally far


def clouds_of(kind: str) -> torch.Tensor:
    if kind == "real":
        return ModelNet(SAMPLES, "train", num_points=300).points[:4, :3, :300]
    return LATTICE[:, :, torch.randperm(64)] if kind == "ties" else torch.randn(3, 3, 200).half().float()


@pytest.mark.parametrize("kind", ["random", "ties", "real"])
def test_identity_13_the_farthest_of_the_farthest_are_the_first_of_them(kind):
    points = clouds_of(kind)
    samples = gather(points, farthest_point_sampling(points, 50))
    for count in (1, 25, 50):
        assert torch.equal(farthest_point_sampling(samples, count), torch.arange(count).expand(len(points), -1))
    turned = samples.flip(2)
    assert not torch.equal(farthest_point_sampling(turned, 25), torch.arange(25).expand(len(points), -1))


def test_copies_beyond_the_last_different_point_have_its_coordinates():
    points = torch.randn(2, 3, 10).repeat(1, 1, 4)
    samples = gather(points, farthest_point_sampling(points, 30))
    assert torch.equal(gather(samples, farthest_point_sampling(samples, 20)), samples[:, :, :20])


def anew(network):
    """The same network, whose levels sample each for itself."""
    for layer in network.abstractions:
        assert layer.in_order == (layer is not network.abstractions[0] and len(layer.radii) > 0)
        layer.in_order = False
    return network


@pytest.mark.parametrize("lengths", [None, [300, 41, 7]])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", [PointNet2Classifier, PointNextClassifier])
def test_networks_are_those_whose_levels_sample_each_for_itself(kind, training, lengths):
    network, twin = (trained_looking(kind(4, width=0.125, dropout=0.0)).train(training) for _ in range(2))
    twin.load_state_dict(network.state_dict())
    x = clouds_of("real")[:3].double()
    given = {} if lengths is None else {"lengths": torch.tensor(lengths)}
    y, wanted = network(x, **given), anew(twin)(x, **given)
    torch.testing.assert_close(y, wanted, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(network.state_dict(), twin.state_dict(), rtol=1e-11, atol=1e-11)
    weights = torch.randn_like(y)
    found = [
        torch.autograd.grad((each * weights).sum(), [*of.parameters()]) for each, of in ((y, network), (wanted, twin))
    ]
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-9)


def test_more_centres_than_points_are_sampled_as_ever():
    points, features = torch.randn(2, 3, 9), torch.randn(2, 4, 9)
    layers = [SetAbstraction(4, [[8]], 12, [0.5], [4], in_order=in_order).eval() for in_order in (True, False)]
    layers[1].load_state_dict(layers[0].state_dict())
    for ours, theirs in zip(*(layer(points, features) for layer in layers), strict=True):
        assert torch.equal(ours, theirs)
