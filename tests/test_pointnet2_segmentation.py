"""PointNet++ for points: the published architectures, equal to the textbook's, and their laws."""

import copy

import numpy as np
import pytest
import torch

from pointnet import PointNet2PartSegmenter, PointNet2Segmenter, label_points, load_model
from pointnet.commands import train
from pointnet.commands.train_flags import parse_command
from pointnet.datasets import LabelledPoints
from pointnet.inference.export import export_model
from pointnet.layers.shared_mlp import scaled
from pointnet.models import pointnet2_segmentation
from pointnet.models.pointnet2 import ALL_WIDTHS
from pointnet.models.pointnet2_segmentation import PART_BACK, PART_LEVELS, SCENE_BACK, SCENE_LEVELS
from pointnet.training import fit
from tests.helpers import count_multiply_adds, halves, quiet, small, trained_looking
from tests.helpers import shared_multiply_adds as shared
from tests.own_points import write_objects, write_yards
from tests.textbook import TextbookPointNet2Segmenter, with_state_of

SMALL = 1 / 8  # of the published widths
KINDS = ["single", "multi", "scene"]


@pytest.fixture
def few(monkeypatch):
    """Few centres and neighbours, so that a small cloud is enough."""
    single = [(12, [(0.5, 5, [64, 64, 128])]), (4, [(1.0, 8, [128, 256])])]
    multi = [(12, [(0.3, 3, [32, 64]), (0.9, 9, [64, 128])]), (4, [(0.6, 4, [64, 128]), (2.0, 6, [128, 256])])]
    monkeypatch.setitem(PART_LEVELS, "single", single)
    monkeypatch.setitem(PART_LEVELS, "multi", multi)
    scene = [(16, [(0.4, 6, [32, 64])]), (8, [(0.6, 4, [64, 128])]), (5, [(0.9, 4, [128])]), (3, [(2.0, 3, [256])])]
    monkeypatch.setattr(pointnet2_segmentation, "SCENE_LEVELS", scene)


def network(kind: str, channels: int = 5, width: float = SMALL, dropout: float = 0.0):
    if kind == "scene":
        return PointNet2Segmenter(4, channels, dropout, width)
    return PointNet2PartSegmenter(6, 3, channels, None, kind, dropout, width)


def textbook(kind: str, channels: int = 5) -> TextbookPointNet2Segmenter:
    def narrow(levels):
        return [(s, [(r, k, scaled(widths, SMALL)) for r, k, widths in each]) for s, each in levels]

    if kind == "scene":
        back = [scaled(widths, SMALL) for widths in SCENE_BACK]
        return TextbookPointNet2Segmenter(4, narrow(pointnet2_segmentation.SCENE_LEVELS), [], back, channels, 0)
    back = [scaled(widths, SMALL) for widths in PART_BACK[kind]]
    return TextbookPointNet2Segmenter(6, narrow(PART_LEVELS[kind]), scaled(ALL_WIDTHS, SMALL), back, channels, 3)


def clouds(count: int, points: int, channels: int = 5) -> torch.Tensor:
    return torch.randn(count, channels, points, dtype=torch.float64) / 2


def categories(kind: str, count: int) -> tuple[torch.Tensor, ...]:
    return () if kind == "scene" else (torch.arange(count) % 3,)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", [True, False])
def test_it_equals_the_textbook_in_outputs_gradients_and_running_statistics(few, kind, training):
    model = trained_looking(network(kind)).train(training)
    theirs = with_state_of(model, textbook(kind))
    for _ in range(3):
        x, category = clouds(3, 40).requires_grad_(), categories(kind, 3)
        logits, logits2 = model(x, *category), theirs(x, *category)
        grads, grads2 = (
            torch.autograd.grad(y.square().sum(), [x, *m.parameters()]) for y, m in ((logits, model), (logits2, theirs))
        )
        torch.testing.assert_close(logits, logits2, rtol=1e-10, atol=1e-10)
        for grad, grad2 in zip(grads, grads2, strict=True):
            assert (grad.view_as(grad2) - grad2).abs().max() <= 1e-10 * max(1, grad2.abs().max())
    for mine, other in zip(model.state_dict().values(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(mine.view_as(other), other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_in_single_precision_it_errs_at_most_twice_as_much_as_the_textbook(few, kind):
    """In eval mode, where no statistics of few points make small errors large."""
    model, x, category = trained_looking(network(kind)), clouds(8, 60), categories(kind, 8)
    theirs, truth = with_state_of(model, textbook(kind)), model(x, *category)
    errors = [(each.float().eval()(x.float(), *category) - truth).abs().max().item() for each in (model, theirs)]
    assert errors[0] <= 2 * errors[1] + 1e-7, errors


@pytest.mark.parametrize(
    ("kind", "parameters", "published"),
    [("single", 1_406_706, 1_311_080_448), ("multi", 1_736_122, 4_724_981_760), ("scene", 964_141, 823_001_088)],
)
def test_parameters_and_multiply_adds_are_the_published_architectures(kind, parameters, published):
    """Of the released code's networks; normals or no other channels as there."""
    channels = {"single": 3, "multi": 6, "scene": 3}[kind]
    scene = kind == "scene"
    model = PointNet2Segmenter(13, 3) if scene else PointNet2PartSegmenter(50, 16, channels, scales=kind)
    assert sum(p.numel() for p in model.parameters()) == parameters
    levels, back = (SCENE_LEVELS, SCENE_BACK) if scene else (PART_LEVELS[kind], PART_BACK[kind])
    size, wide, of_pairs = 2048, channels - 3, 0
    kept = [(size, wide if scene else 16 + channels)]
    for centres, each in levels:
        of_pairs += sum(centres * most * shared(3 + wide, *widths) for _, most, widths in each)
        size, wide = centres, sum(widths[-1] for _, _, widths in each)
        kept.append((size, wide))
    rest = 0
    if scene:
        kept.pop()
    else:
        rest, wide = size * shared(3 + wide, *ALL_WIDTHS), ALL_WIDTHS[-1]
    for widths in back:
        size, own = kept.pop()
        rest, wide = rest + size * shared(wide + own, *widths), widths[-1]
    rest += size * shared(128, 128, 50 if not scene else 13)
    assert of_pairs + rest == published
    assert count_multiply_adds(model, clouds(1, 2048, channels).float()) < published


@pytest.mark.parametrize("kind", KINDS)
def test_padding_of_any_content_changes_nothing(few, kind):
    model = trained_looking(network(kind))
    x, lengths, category = clouds(4, 40), torch.tensor([33, 12, 40, 5]), categories(kind, 4)
    for b, length in enumerate(lengths):
        x[b, :, length:] = torch.nan
    logits = model(x, *category, lengths=lengths)
    for b, length in enumerate(lengths):
        alone = model(x[b : b + 1, :, :length], *(each[b : b + 1] for each in category))
        torch.testing.assert_close(logits[b : b + 1, :, :length], alone, rtol=1e-11, atol=1e-11)
        assert not logits[b, :, length:].any()
    model.train()(x, *category, lengths=lengths).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_in_training_a_padded_batch_is_the_batch_without_padding(few, kind):
    model, x, category = trained_looking(network(kind)).train(), clouds(6, 30), categories(kind, 6)
    clean, x[:, :, 20:] = copy.deepcopy(model), torch.nan
    logits = model(x, *category, lengths=torch.full((6,), 20))
    torch.testing.assert_close(logits[:, :, :20], clean(x[:, :, :20], *category), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(model.state_dict(), clean.state_dict(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_permuting_all_but_the_first_point_permutes_the_logits_where_balls_are_not_full(few, kind, monkeypatch):
    """A ball of more than K points takes the first K of them: K is all points here."""

    def roomy(levels):
        return [(s, [(radius, 40, widths) for radius, _, widths in each]) for s, each in levels]

    monkeypatch.setattr(pointnet2_segmentation, "SCENE_LEVELS", roomy(pointnet2_segmentation.SCENE_LEVELS))
    for scales in ("single", "multi"):
        monkeypatch.setitem(PART_LEVELS, scales, roomy(PART_LEVELS[scales]))
    model, x, category = trained_looking(network(kind)), clouds(2, 40), categories(kind, 2)
    order = torch.cat([torch.zeros(1, dtype=torch.int64), 1 + torch.randperm(39)])
    logits = model(x, *category)
    torch.testing.assert_close(model(x[:, :, order], *category), logits[:, :, order], rtol=1e-11, atol=1e-11)
    assert (model(x.roll(1, 2), *category) - logits.roll(1, 2)).abs().max() > 1e-6  # another start, other centres


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_points_are_labelled_in_chunks_as_they_are_whole(few, kind):
    model, x, category = trained_looking(network(kind)), clouds(2, 40), torch.tensor([2, -1])
    chunks = torch.cat([*model.label_chunks(x, x.split(9, 2), category)], 2)
    torch.testing.assert_close(chunks, model(x, category), rtol=1e-12, atol=1e-12)
    assert (model(x, None) - model(x, category)).abs().amax((1, 2))[0] > 1e-6
    with pytest.raises(ValueError, match="eval mode"):
        next(model.train().label_chunks(x, [x]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_folded_network_answers_alike(few, kind):
    model, x, category = trained_looking(network(kind)), clouds(2, 40), categories(kind, 2)
    folded = model.fold()
    assert not any(isinstance(module, torch.nn.BatchNorm1d) for module in folded.modules())
    torch.testing.assert_close(folded(x, *category), model(x, *category), rtol=1e-10, atol=1e-10)


@pytest.mark.slow
def test_parts_are_trained_saved_and_labelled_like_any(few, tmp_path):
    every = halves("part")
    stored = every.batch(slice(None))[0][:, [0, 1, 2, 4]]  # without the channel that tells the label
    data = LabelledPoints(stored, every.labels, every.classes, every.part_names, every.parts_of, every.num_points)
    fit(small(tmp_path, "part", model="pointnet2", dropout=0.0), data, data, log=quiet)
    model = load_model(tmp_path)
    assert type(model) is PointNet2PartSegmenter
    cloud = label_points(np.random.default_rng(0).normal(size=(50, 3)), model, category=data.classes[0])
    assert cloud.labels.shape == (50,)
    assert set(cloud.labels) <= {0, 1}  # of the category alone
    with pytest.raises(ValueError, match="is not exported"):
        export_model(model, tmp_path / "a.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("task", ["part", "scene"])
def test_the_command_trains_and_saves_either(few, tmp_path, task):
    """A few steps on files made here; the folder then holds the network."""
    root, out = tmp_path / "data", tmp_path / "run"
    data = write_objects(root) if task == "part" else write_yards(root)
    words = f"--task {task} --model pointnet2 --dataset {task}s --num_points 64 --width 0.125 --epochs 2 --device cpu"
    assert train.main([*words.split(), "--root", str(data), "--out", str(out)]) == 0
    model = load_model(out)
    assert type(model) is (PointNet2PartSegmenter if task == "part" else PointNet2Segmenter)
    assert model.arguments["dropout"] == 0.5


def test_train_begins_with_the_published_dropout_and_widths():
    for task in ("part", "scene"):
        config = parse_command(["--task", task, "--model", "pointnet2"]).config
        assert (config.task, config.model, config.dropout, config.width) == (task, "pointnet2", 0.5, 1.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PointNet2PartSegmenter(0), "num_parts must be at least 1, got 0"),
        (lambda: PointNet2PartSegmenter(scales="both"), "scales must be single or multi, got 'both'"),
        (lambda: PointNet2PartSegmenter(2, 1, 2), "in_channels must be 3"),
        (lambda: PointNet2Segmenter(0), "num_classes must be at least 1, got 0"),
        (lambda: PointNet2Segmenter(2, 3)(torch.zeros(4, 100, 3)), "points go last: transpose"),
    ],
)
def test_wrong_input_is_met_with_one_clear_line(make, message):
    with pytest.raises(ValueError, match=message):
        make()
