"""The blocks in other hands: exported for any sizes, and differentiated twice."""

import pytest
import torch
from torch import nn

from pointnet import DGCNNClassifier, EdgeNetClassifier, PointNet2Classifier, PointNextClassifier
from pointnet.layers import FeaturePropagation, SetAbstraction
from tests.helpers import trained_looking


class Down(nn.Module):
    """Features of centres, from points with two channels of their own."""

    def __init__(self, **how):
        super().__init__()
        self.layer = SetAbstraction(2, [[8, 6]], **how)

    def forward(self, x):
        return self.layer(x[:, :3], x[:, 3:])[1]


class Back(nn.Module):
    """What the first half of the points has, carried to all."""

    def __init__(self):
        super().__init__()
        self.layer = FeaturePropagation(4, [6])

    def forward(self, x):
        some = x[:, :, :16]
        return self.layer(x[:, :3], x[:, 3:], some[:, :3], some[:, 3:])


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(Down(), id="whole"),
        pytest.param(Down(centres=4, radii=[0.9], neighbours=[5]), id="centres"),
        pytest.param(Back(), id="back"),
    ],
)
def test_a_block_is_exported_for_any_number_of_clouds_and_points(block):
    block.eval()
    sizes = {0: torch.export.Dim("clouds"), 2: torch.export.Dim("points", min=32)}
    program = torch.export.export(block, (torch.randn(2, 5, 40),), dynamic_shapes=(sizes,)).module()
    for clouds, points in ((1, 32), (3, 50)):
        x = torch.randn(clouds, 5, points)
        torch.testing.assert_close(program(x), block(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [DGCNNClassifier, EdgeNetClassifier, PointNet2Classifier, PointNextClassifier])
def test_a_penalty_on_gradients_is_learned_from_by_torch_func(kind):
    model, x = trained_looking(kind(3, width=0.1)).eval(), torch.randn(2, 3, 40, dtype=torch.float64)
    weights = {name: each.detach() for name, each in model.named_parameters()}

    def penalty(weights):
        def score(x):
            return torch.func.functional_call(model, weights, (x,)).square().sum()

        return torch.func.grad(score)(x).square().sum()

    name, step = "logits.weight", 1e-6 * torch.randn_like(weights["logits.weight"])
    found = (torch.func.grad(penalty)(weights)[name] * step).sum()
    ends = [penalty(weights | {name: weights[name] + sign * step}) for sign in (1, -1)]
    assert float((ends[0] - ends[1]) / 2) == pytest.approx(float(found), rel=1e-5)
    assert found != 0
