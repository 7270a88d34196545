"""Part and scene segmentation: the published networks, counted, and equal to the forms that join every channel."""

import re

import pytest
import torch
from torch import Tensor, nn

from benchmarks.segmentation import TASKS
from pointnet import PointNetPartSegmenter, PointNetSegmenter
from tests.forms import forms
from tests.helpers import count_multiply_adds, trained_looking
from tests.helpers import shared_multiply_adds as shared
from tests.textbook import TextbookPartSegmenter, TextbookSegmenter, with_state_of

KINDS = ["part", "scene"]


def make(
    kind: str, training: bool = True, in_channels: int = 3, **settings
) -> PointNetPartSegmenter | PointNetSegmenter:
    """Of 7 parts and 5 categories, or of 4 classes, in float64; norms of both signs, no T-Net the identity."""
    network, *sizes = (PointNetPartSegmenter, 7, 5) if kind == "part" else (PointNetSegmenter, 4)
    return trained_looking(network(*sizes, in_channels, **settings)).train(training)


def points(clouds: int = 6, channels: int = 3, count: int = 11) -> Tensor:
    return torch.randn(clouds, channels, count, dtype=torch.float64)


@pytest.mark.parametrize("training", forms([True, False], True))
@pytest.mark.parametrize(
    "given",
    forms(
        [("part", 6, True, 4), ("part", 3, False, 0), ("scene", 9, False, 0), ("scene", 9, False, 4)],
        ("part", 6, True, 4),
        ("scene", 9, False, 4),
    ),
)
def test_it_equals_the_joining_form_in_values_gradients_and_running_statistics(given, training):
    kind, channels, known, padding = given
    model = make(kind, training, channels)
    textbook = TextbookPartSegmenter(7, 5, channels) if kind == "part" else TextbookSegmenter(4, channels)
    textbook = with_state_of(model, textbook)
    x2 = points(6, channels, 11)
    x = nn.functional.pad(x2, (0, padding), value=torch.nan)
    x.requires_grad_(), x2.requires_grad_()
    category = (torch.tensor([0, 4, 2, 2, 1, 3]),) if known else ()
    lengths = torch.full((6,), 11) if padding else None
    y, transforms = model(x, *category, lengths=lengths, return_transforms=True)
    y2, turn, align = textbook(x2, *category)
    torch.testing.assert_close(transforms.input, turn, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(transforms.feature, align, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(y[:, :, :11], y2, rtol=1e-10, atol=1e-10)
    direction = torch.randn_like(y2)
    grad_x, *grads = torch.autograd.grad((y[:, :, :11] * direction).sum(), [x, *model.parameters()])
    grad_x2, *grads2 = torch.autograd.grad((y2 * direction).sum(), [x2, *textbook.parameters()])
    torch.testing.assert_close(grad_x[:, :, :11], grad_x2, rtol=1e-9, atol=1e-9)
    for (name, _), grad, grad2 in zip(model.named_parameters(), grads, grads2, strict=True):
        assert (grad.view_as(grad2) - grad2).abs().max() <= 1e-9 * max(1, grad2.abs().max()), name
    for (name, ours), theirs in zip(model.state_dict().items(), textbook.state_dict().values(), strict=True):
        torch.testing.assert_close(ours.view_as(theirs), theirs, rtol=1e-10, atol=1e-10, msg=name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("transforms", [True, False])
def test_permuting_the_points_permutes_the_logits(kind, transforms):
    model = make(kind, False, input_transform=transforms, feature_transform=transforms)
    x, order = points(2, 3, 50), torch.randperm(50)
    torch.testing.assert_close(model(x[:, :, order]), model(x)[:, :, order], rtol=1e-11, atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_it_exports_with_dynamic_batch_and_points(kind):
    model = make(kind, False).float()
    given = (torch.randn(2, 3, 16), *([torch.tensor([1, 3])] if kind == "part" else []))
    batch = torch.export.Dim("batch")
    shapes = ({0: batch, 2: torch.export.Dim("points")}, *([{0: batch}] if kind == "part" else []))
    program = torch.export.export(model, given, dynamic_shapes=shapes)
    given = (torch.randn(5, 3, 33), *([torch.arange(5)] if kind == "part" else []))
    torch.testing.assert_close(program.module()(*given), model(*given))


def test_the_parameters_are_the_published_architectures():
    """The T-Nets, the encoder's weights and norms, the head's, and the last layer, whose biases count."""
    for model, count in (
        (PointNetPartSegmenter(), 801_097 + 5_017_472 + 1_138_880 + 5_760 + 872_448 + 1_280 + 6_450),
        (PointNetSegmenter(), 801_481 + 1_855_360 + 148_032 + 2_688 + 737_280 + 2_048 + 1_677),
    ):
        assert sum(p.numel() for p in model.parameters()) == count
        assert f"{count:,} parameters" in " ".join(type(model).__doc__.split())


@pytest.mark.parametrize("kind", KINDS)
def test_the_multiply_adds_are_the_designs_and_the_benchmarks(kind):
    """A point of parts takes 3,024 x 256 of joined channels and 16,393 to align it, or 832 x 256: the aligned 128 cost
    their fold once per cloud. One of scenes takes 1,088 x 512 of joined channels and 4,105 to align it, or 64 x 512.
    """
    count, dense = 256, 2 * shared(1024, 512, 256) + 256 * 3**2
    if kind == "part":
        ours, textbook, channels = PointNetPartSegmenter(), TextbookPartSegmenter(50, 16), 3
        per_point = shared(3, 64, 128, 1024) + shared(3, 64, 128, 128) + shared(128, 64, 128, 1024)
        per_point += shared(128, 512, 2048) + shared(256, 256, 128, 50)
        split, joined, folds, of_cloud, dim = 832 * 256, 3024 * 256, 64 * 3**2 + (512 + 256) * 128**2, 2064 * 256, 128
    else:
        ours, textbook, channels = PointNetSegmenter(), TextbookSegmenter(13), 9
        per_point = shared(9, 64, 128, 1024) + shared(9, 64, 64) + 2 * shared(64, 64, 128, 1024)
        per_point += shared(512, 256, 128, 128, 13)
        split, joined, folds, of_cloud, dim = 64 * 512, 1088 * 512, 64 * 3**2 + (64 + 512) * 64**2, 1024 * 512, 64
    dense += 256 * dim**2
    x, task = torch.zeros(1, channels, count), TASKS[kind]
    by_hand = count * (per_point + split) + dense + folds + of_cloud
    assert count_multiply_adds(ours, x) == by_hand == count * task.point_adds + task.cloud_adds
    by_hand = count * (per_point + joined + 3**2 + dim**2) + dense
    assert count_multiply_adds(textbook, x) == by_hand == count * task.joined_point_adds + task.joined_cloud_adds


def kept_channels(model: nn.Module, channels: int) -> float:
    """How many numbers a point autograd keeps for the backward pass, parameters aside."""

    def kept(count: int) -> int:
        own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        sizes = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            kept_alive = model(torch.randn(2, channels, count))
        del kept_alive
        return sum(sizes.values())

    return (kept(128) - kept(64)) / (2 * 64 * 4)


def test_training_keeps_no_channel_of_a_pooled_layer_and_no_joined_ones():
    """Before and behind the norm of each layer: of 1,856 channels for parts and 1,728 for scenes, and the points.

    Joining keeps 4,096 and 3,072 more for the pooled layers, the joined 3,024 and 1,088, and the aligned 131 and 73.
    """
    parts, scenes = 2 * (192 + 320 + 192 + 512 + 640) + 3, 2 * (192 + 128 + 192 + 192 + 1024) + 9
    assert kept_channels(PointNetPartSegmenter(), 3) == parts
    assert kept_channels(PointNetSegmenter(), 9) == scenes
    assert kept_channels(TextbookPartSegmenter(50, 16), 3) == parts + 2 * 4096 + 3024 + 131
    assert kept_channels(TextbookSegmenter(13), 9) == scenes + 2 * 3072 + 1088 + 73


def test_a_category_moves_the_logits_and_none_is_a_category_of_zeros():
    model = make("part", False)
    x, category = points(2), torch.tensor([0, 3])
    moved = model(x, category) - model(x, torch.tensor([0, 1]))
    assert not moved[0].any()
    assert moved[1].abs().max() > 1e-3
    columns = model.head[0].conv.weight
    with torch.no_grad():
        columns[:, -5:] = 0
    torch.testing.assert_close(model(x, category), model(x))


def test_restricted_logits_choose_among_the_categorys_parts():
    parts_of = [[0, 1], [2], [3, 6], [4], [5]]
    model = make("part", False, parts_of=parts_of)
    x, category = points(5), torch.arange(5)
    logits = model(x, category)
    restricted = model.restrict(logits, category)
    for b, parts in enumerate(parts_of):
        others = [part for part in range(7) if part not in parts]
        assert torch.equal(restricted[b, parts], logits[b, parts])
        assert (restricted[b, others] == -torch.inf).all()
    assert torch.equal(model.restrict(logits, None), logits)
    assert model.restrict(logits.to("meta"), category).is_meta  # wherever the category is
    assert torch.equal(make("part", False).restrict(logits, category), logits)
    assert "parts_of" not in model.state_dict()


def test_objects_of_unknown_category_are_minus_one_and_each_is_as_if_alone():
    model = make("part", False, parts_of=[[0, 1], [2], [3, 6], [4], [5]]).eval()
    x, category = points(3), torch.tensor([2, -1, 0])
    logits = model.restrict(model(x, category), category)
    for b, known in enumerate((category[:1], None, category[2:])):
        alone = model.restrict(model(x[b : b + 1], known), known)
        torch.testing.assert_close(logits[b : b + 1], alone)
    assert logits[1].isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_dropped_unless_asked_for(kind):
    assert not any(isinstance(module, nn.Dropout) for module in make(kind).modules())
    dropping = make(kind, dropout=0.3).head
    assert [layer.dropout.p for layer in dropping] == [0.3] * len(dropping)


def test_wrong_input_is_met_with_one_clear_line():
    model = PointNetPartSegmenter(7, 5).eval()
    x = torch.zeros(2, 3, 9)
    for wrong in (torch.zeros(2), torch.tensor([1]), torch.zeros(2, 5).long(), torch.tensor([True, False])):
        with pytest.raises(ValueError, match=r"category must be \(2,\) int64, one per cloud, got"):
            model(x, wrong)
    for wrong in ([0, 5], [-2, 4]):
        with pytest.raises(ValueError, match=f"category must be from -1 to 4, got {wrong[0]} to {wrong[1]}"):
            model(x, torch.tensor(wrong))
    with pytest.raises(ValueError, match=r"points must be \(B, 9, N\), got \(2, 3, 9\)"):
        PointNetSegmenter()(x)
    for name in ("num_parts", "num_categories"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            PointNetPartSegmenter(**{name: 0})
    with pytest.raises(ValueError, match="parts_of must have a list for each of 2 categories, got 1"):
        PointNetPartSegmenter(7, 2, parts_of=[[0]])
    for wrong in ([], [7], [-1]):
        with pytest.raises(ValueError, match=re.escape(f"category 1 must be one or more numbers below 7, got {wrong}")):
            PointNetPartSegmenter(7, 2, parts_of=[[0], wrong])


@pytest.mark.parametrize(("sizes", "known"), [((11,), True), ((4, 1, 6), True), ((1,) * 11, False)])
def test_points_in_chunks_get_the_logits_of_the_clouds_given_whole(sizes, known):
    model, x = make("part", False), points(3)
    category = torch.tensor([0, 4, 2]) if known else None
    with torch.no_grad():
        wanted = model(x, category)
    found = list(model.label_chunks(x, x.split(list(sizes), 2), category))
    assert [logits.shape[2] for logits in found] == list(sizes)
    torch.testing.assert_close(torch.cat(found, 2), wanted, rtol=1e-12, atol=1e-12)
    assert not found[0].requires_grad


def test_points_that_were_not_seen_change_nothing_for_others():
    model, x = make("part", False), points(2, count=30)
    (alone,) = model.label_chunks(x[:, :, :9], [x[:, :, :9]])
    further = torch.cat(list(model.label_chunks(x[:, :, :9], x.split(9, 2))), 2)
    torch.testing.assert_close(further[:, :, :9], alone, rtol=1e-12, atol=1e-12)
    assert (further - model(x)).abs().max() > 1e-6
    with pytest.raises(ValueError, match="eval mode"):
        next(make("part").label_chunks(x, [x]))
