"""PointNet: the published architecture, counted, and equal to the textbook's."""

import copy

import pytest
import torch

from pointnet import PointNetClassifier, PointNetEncoder, TNet, orthogonality_loss
from tests.helpers import count_multiply_adds, trained_looking
from tests.helpers import shared_multiply_adds as shared
from tests.textbook import TextbookPointNet, with_state_of


@pytest.mark.parametrize("in_channels", [3, 6])
@pytest.mark.parametrize("training", [True, False])
def test_it_equals_the_textbook_in_outputs_gradients_and_running_statistics(in_channels, training):
    model = trained_looking(PointNetClassifier(5, in_channels, dropout=0.0)).train(training)
    textbook = with_state_of(model, TextbookPointNet(5, in_channels))
    for _ in range(2):
        x = torch.randn(6, in_channels, 40, dtype=torch.float64, requires_grad=True)
        logits, transforms = model(x, return_transforms=True)
        logits2, turn, turn_features = textbook(x)
        grads, grads2 = (
            torch.autograd.grad(y.square().sum(), [x, *m.parameters()])
            for y, m in ((logits, model), (logits2, textbook))
        )
        torch.testing.assert_close(logits, logits2, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(transforms.input, turn, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(transforms.feature, turn_features, rtol=1e-11, atol=1e-11)
        for grad, grad2 in zip(grads, grads2, strict=True):
            assert (grad.view_as(grad2) - grad2).abs().max() <= 1e-10 * max(1, grad2.abs().max())
    for ours, theirs in zip(model.state_dict().values(), textbook.state_dict().values(), strict=True):
        torch.testing.assert_close(ours.view_as(theirs), theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("transforms", "count"), [(True, 3_473_969), (False, 817_512)], ids=["with T-Nets", "without"])
def test_the_parameters_are_the_published_architectures(transforms, count):
    model = PointNetClassifier(40, input_transform=transforms, feature_transform=transforms)
    assert sum(p.numel() for p in model.parameters()) == count


def test_the_multiply_adds_are_the_designs():
    points = 1024
    per_point = shared(3, 64, 128, 1024) + shared(3, 64, 64) + 2 * shared(64, 64, 128, 1024)
    dense = 3 * shared(1024, 512, 256) + 256 * (3**2 + 64**2 + 40)
    assert points * (per_point + 3**2 + 64**2) + dense == 434_569 * points + 3_027_200
    folds = 64 * 3**2 + 64 * 64**2  # identity 6: aligning is in the weights of the next layers, once per cloud
    assert count_multiply_adds(PointNetClassifier(40), torch.zeros(1, 3, points)) == points * per_point + dense + folds


def test_the_tnets_widths_are_as_asked_for():
    model = PointNetClassifier(3, tnet_widths=[[8, 16], (24,)])
    for tnet, inputs, outputs in ((model.encoder.input_tnet, 3, 9), (model.encoder.feature_tnet, 64, 64 * 64)):
        shapes = [tuple(p.shape) for p in tnet.parameters() if p.dim() > 1]
        assert shapes == [(8, inputs, 1), (16, 8, 1), (24, 16), (outputs, 24)]
    assert repr(PointNetClassifier(**model.arguments)) == repr(model)


def test_a_new_tnet_returns_the_identity_in_the_inputs_dtype():
    for dtype in (torch.float32, torch.float64):
        matrices = TNet(4).to(dtype).eval()(torch.randn(3, 4, 9, dtype=dtype))
        assert torch.equal(matrices, torch.eye(4, dtype=dtype).expand(3, 4, 4))


def test_the_orthogonality_loss_is_zero_for_rotations_and_the_mean_over_clouds():
    rotation = torch.linalg.qr(torch.randn(3, 8, 8, dtype=torch.float64)).Q
    assert orthogonality_loss(rotation) < 1e-25
    assert orthogonality_loss(2 * torch.eye(3).expand(5, 3, 3)).item() == pytest.approx(3 * 9)
    rough = rotation.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        loss = orthogonality_loss(rough)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, orthogonality_loss(rough.float()), rtol=0, atol=0)


def test_the_regularization_is_the_published_one_at_batch_32():
    model = PointNetClassifier(3)
    _, transforms = trained_looking(model, torch.float32)(torch.randn(32, 3, 16), return_transforms=True)
    a = transforms.feature
    published = 1e-3 * 0.5 * (torch.eye(64) - a @ a.transpose(1, 2)).square().sum()
    torch.testing.assert_close(model.regularization(transforms), published)
    plain = PointNetClassifier(3, feature_transform=False)
    assert plain.regularization(plain(torch.randn(2, 3, 4), return_transforms=True)[1]) == 0


@pytest.mark.parametrize("transforms", [True, False])
def test_permuting_the_points_leaves_the_feature_unchanged(transforms):
    encoder = trained_looking(PointNetEncoder(3, transforms, transforms))
    x = torch.randn(2, 3, 50, dtype=torch.float64)
    torch.testing.assert_close(encoder(x[:, :, torch.randperm(50)]), encoder(x), rtol=1e-12, atol=1e-12)


def test_the_head_drops_three_in_ten_after_both_hidden_layers():
    dropouts = [module.p for module in PointNetClassifier(3).modules() if isinstance(module, torch.nn.Dropout)]
    assert dropouts == [0.3, 0.3]


@pytest.mark.parametrize("training", [True, False])
def test_padding_of_any_content_changes_nothing(training):
    model = trained_looking(PointNetClassifier(5, dropout=0.0)).train(training)
    clean = copy.deepcopy(model)
    lengths = torch.tensor([9, 4, 20, 1])
    x = torch.randn(4, 3, 20, dtype=torch.float64)
    for b, length in enumerate(lengths):
        x[b, :, length:] = torch.nan
    zeros = x.nan_to_num()
    logits = model(x, lengths)
    wider = torch.cat([zeros, torch.zeros(4, 3, 13, dtype=torch.float64)], 2)
    torch.testing.assert_close(logits, clean(wider, lengths), rtol=1e-10, atol=1e-10)
    if not training:
        alone = torch.cat([clean(zeros[b : b + 1, :, :length]) for b, length in enumerate(lengths)])
        torch.testing.assert_close(logits, alone, rtol=1e-11, atol=1e-11)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    torch.testing.assert_close(model.state_dict(), clean.state_dict(), rtol=1e-10, atol=1e-10)


def test_wrong_input_is_met_with_one_clear_line():
    with pytest.raises(ValueError, match=r"points must be \(B, 3, N\), got \(4, 100, 3\); .*transpose"):
        PointNetClassifier(5)(torch.zeros(4, 100, 3))
    with pytest.raises(ValueError, match="in_channels must be 3"):
        PointNetEncoder(2)
    for widths in (((), (4,)), ((4,), ()), ((4,),), ((4,), (4,), (4,))):
        with pytest.raises(ValueError, match="widths must be those before and those after the feature transform"):
            PointNetEncoder(widths=widths)
        with pytest.raises(ValueError, match="a T-Net's widths must be those before and those after the max, got"):
            PointNetEncoder(tnet_widths=widths)
    with pytest.raises(ValueError, match="num_classes must be at least 1, got 0"):
        PointNetClassifier(0)
