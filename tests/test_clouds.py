"""Clouds in memory: splitting them, batching them, changing them at random; labels that stay with their points."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pointnet.datasets import LabelledClouds, LabelledPoints, pad_clouds, split_parts, split_validation
from pointnet.datasets.point_labels import draw_labelled
from pointnet.datasets.transforms import (
    random_jitter,
    random_mirror,
    random_point_dropout,
    random_rotation,
    random_scale,
    random_shift,
    random_subset,
    random_warp,
    rotation_by,
)


def clouds(of_class: list[int], channels: int = 3, points: int = 4) -> LabelledClouds:
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(of_class)])
    return LabelledClouds(torch.randn(len(labels), channels, points), labels, [f"c{i}" for i in range(len(of_class))])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_validation_is_a_tenth_of_each_class_and_shares_no_cloud_with_training():
    data = clouds([100, 40, 9, 2, 1])
    train, val = split_validation(data, seed=3)
    assert torch.bincount(val.labels, minlength=5).tolist() == [10, 4, 1, 1, 0]  # one of each class that has two
    assert len(train) + len(val) == len(data)
    both = torch.cat([train.points, val.points]).flatten(1)
    assert len(both.unique(dim=0)) == len(data)
    again = split_validation(data, seed=3)[1]
    assert torch.equal(again.points, val.points)
    assert not torch.equal(split_validation(data, seed=4)[1].points, val.points)


def test_no_class_gives_its_last_cloud_to_validation():
    train, val = split_validation(clouds([2, 1]), seed=0, fraction=0.9)
    assert torch.bincount(train.labels).tolist() == [1, 1]
    assert len(val) == 1
    assert len(split_validation(clouds([9, 2]), seed=0, fraction=0.0)[1]) == 0
    with pytest.raises(ValueError, match=r"fraction must be in \[0, 1\), got 1"):
        split_validation(clouds([2]), seed=0, fraction=1)


def test_clouds_of_different_sizes_are_padded_and_their_lengths_checked():
    points, lengths = pad_clouds([torch.ones(3, 2), 2 * torch.ones(3, 5)])
    assert points.shape == (2, 3, 5)
    assert lengths.tolist() == [2, 5]
    assert not points[0, :, 2:].any()
    with pytest.raises(ValueError, match=r"cloud 1 must be \(3, N\) with N >= 1, got \(3, 0\)"):
        pad_clouds([torch.ones(3, 2), torch.ones(3, 0)])
    with pytest.raises(ValueError, match=r"cloud 1 must be \(3, N\).* got \(2, 4\)"):
        pad_clouds([torch.ones(3, 2), torch.ones(2, 4)])
    with pytest.raises(ValueError, match="at least one cloud"):
        pad_clouds([])


TRANSFORMS = {
    "scale": lambda x, g: random_scale(x, 1.5, g),
    "shift": lambda x, g: random_shift(x, 0.2, g),
    "mirror": lambda x, g: random_mirror(x, g),
    "jitter": lambda x, g: random_jitter(x, 0.01, g),
    "rotation": lambda x, g: random_rotation(x, 180.0, g),
    "warp": lambda x, g: random_warp(x, 1.0, g),
    "dropout": lambda x, g: random_point_dropout(x, 0.875, g),
    "subset": lambda x, g: random_subset(x, 20, g),
}


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_a_transform_repeats_with_its_generator_and_leaves_its_input_alone(transform):
    x = torch.randn(4, 6, 50)
    kept = x.clone()
    y = transform(x, generator())
    assert torch.equal(x, kept)
    assert y.dtype == x.dtype
    assert torch.equal(transform(x, generator()), y)
    assert not torch.equal(transform(x, generator(1)), y)
    state = torch.get_rng_state()
    transform(x, generator())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", ["scale", "shift", "mirror", "jitter", "rotation", "warp"])
def test_only_xyz_is_moved(name):
    x = torch.randn(4, 6, 50)
    y = TRANSFORMS[name](x, generator())
    assert torch.equal(y[:, 3:], x[:, 3:])
    assert y.shape == x.shape


def test_scaling_is_per_axis_and_within_its_range():
    ratios = random_scale(torch.ones(1000, 3, 2), 1.5, generator())
    assert torch.equal(ratios[:, :, 0], ratios[:, :, 1])
    assert ratios.min() >= 1 / 1.5
    assert ratios.max() <= 1.5
    assert ratios.amin() < 0.7 < 1.45 < ratios.amax()
    assert not torch.allclose(ratios[:, 0], ratios[:, 1])
    with pytest.raises(ValueError, match="factor must be at least 1"):
        random_scale(torch.ones(1, 3, 2), 0.5, generator())


def test_shifting_moves_a_cloud_as_a_whole():
    moved = random_shift(torch.zeros(1000, 3, 2), 0.2, generator())
    assert torch.equal(moved[:, :, 0], moved[:, :, 1])
    assert 0.19 < moved.abs().max() <= 0.2


def test_mirroring_turns_x_and_y_over_each_half_of_the_time_with_the_normals():
    x = torch.randn(1000, 6, 5)
    signs = random_mirror(x, generator(), normals=True) / x
    assert torch.equal(signs, signs[:, :, :1].expand_as(x))
    assert torch.equal(signs[:, 3:], signs[:, :3])
    assert set(map(tuple, signs[:, :3, 0].tolist())) == {(i, j, 1.0) for i in (1.0, -1.0) for j in (1.0, -1.0)}
    assert signs[:, :2, 0].prod(1).mean().abs() < 0.1
    assert signs[:, :2, 0].mean(0).abs().max() < 0.1


def test_jitter_is_normal_and_cut_at_five_sigmas(monkeypatch):
    noise = random_jitter(torch.zeros(100, 3, 1000), 0.01, generator(), clip=2.0)
    assert noise.abs().max() <= 0.02
    assert noise.std() == pytest.approx(0.0096, rel=0.02)
    monkeypatch.setattr(torch, "randn", lambda *shape, **kind: torch.full(shape, -7.0))
    torch.testing.assert_close(random_jitter(torch.zeros(2, 3, 4), 0.01, generator()), torch.full((2, 3, 4), -0.05))


def test_rotation_keeps_height_and_distance_from_the_axis():
    x = torch.randn(8, 3, 50)
    y = random_rotation(x, 180.0, generator())
    assert torch.equal(y[:, 2], x[:, 2])
    torch.testing.assert_close(y[:, :2].norm(dim=1), x[:, :2].norm(dim=1))
    quarter = random_rotation(x, 10.0, generator())
    cosine = (quarter[:, :2] * x[:, :2]).sum(1) / x[:, :2].square().sum(1)
    assert cosine.min() >= 0.98


def test_a_warp_keeps_the_mean_and_the_radius_whatever_the_units_and_place():
    x = torch.randn(8, 3, 200, dtype=torch.float64)
    y = random_warp(x, 1.0, generator())
    torch.testing.assert_close(y.mean(2), x.mean(2))
    centred = [each - each.mean(2, keepdim=True) for each in (x, y)]
    radii = [each.norm(dim=1).amax(1) for each in centred]
    torch.testing.assert_close(*radii)
    torch.testing.assert_close(random_warp(x * 1000 + 5, 1.0, generator()), y * 1000 + 5)
    torch.testing.assert_close(random_warp(x, 0.0, generator()), x)
    assert (random_warp(x, 0.1, generator()) - x).abs().max() < (y - x).abs().max() / 4
    assert torch.equal(random_warp(torch.ones(2, 3, 5), 1.0, generator()), torch.ones(2, 3, 5))  # no size to bend
    with pytest.raises(ValueError, match="strength must be at least 0"):
        random_warp(x, -1.0, generator())


def test_a_warp_of_one_anchor_is_one_affine_map_and_of_several_none():
    """Where all points have the same weights, and where they do not."""
    x = torch.randn(20, 3, 200, dtype=torch.float64)
    rows = torch.cat([x, torch.ones(20, 1, 200, dtype=torch.float64)], 1).transpose(1, 2)

    def misfit(y):
        return (rows @ torch.linalg.lstsq(rows, y.transpose(1, 2)).solution - y.transpose(1, 2)).abs().amax((1, 2))

    assert misfit(random_warp(x, 1.0, generator(), anchors=1)).max() < 1e-12
    assert misfit(random_warp(x, 1.0, generator())).median() > 0.02
    near = x + 1e-6 * torch.randn(20, 3, 200, dtype=torch.float64)
    moved = random_warp(torch.cat([x, near], 2), 1.0, generator())
    assert (moved[..., :200] - moved[..., 200:]).abs().max() < 1e-4  # near points stay near


def test_a_rotation_vector_turns_about_itself_by_its_length():
    turn = torch.tensor([[0.0, 0.0, torch.pi / 2], [0.3, -0.2, 0.1], [0.0, 0.0, 0.0]], dtype=torch.float64)
    x, y, z = turn.T
    zero = torch.zeros(3, dtype=torch.float64)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).unflatten(1, (3, 3))
    torch.testing.assert_close(rotation_by(turn), torch.linalg.matrix_exp(skew))
    assert (rotation_by(turn)[0] @ torch.tensor([1.0, 0, 0], dtype=torch.float64)).round().tolist() == [0, 1, 0]


def test_dropped_points_become_copies_of_the_first():
    x = torch.randn(50, 3, 1000)
    y = random_point_dropout(x, 0.875, generator())
    dropped = (y != x).any(1)
    assert torch.equal(y.transpose(1, 2)[dropped], x[:, :, :1].expand_as(x).transpose(1, 2)[dropped])
    share = dropped.float().mean(1)
    assert 0.3 < share.mean() < 0.6
    assert share.max() < 0.93


def test_a_subset_takes_rows_that_are_there():
    x = torch.randn(2, 3, 50)
    y = random_subset(x, 20, generator())
    assert all((x[0] == column[:, None]).all(0).any() for column in y[0].T)
    assert len(y[0].unique(dim=1).T) == 20
    with pytest.raises(ValueError, match="count must be 1 to 50"):
        random_subset(x, 51, generator())


def test_normals_rotate_and_stretch_with_their_points():
    angle = torch.linspace(0, 6, 50)
    circle = torch.stack([angle.cos(), angle.sin(), torch.zeros(50)])
    x = torch.cat([circle, circle]).expand(4, 6, 50)  # a cylinder's points, and their normals
    turned = random_rotation(x, 180.0, generator(), normals=True)
    torch.testing.assert_close(turned[:, 3:], turned[:, :3])
    assert not torch.allclose(turned, x)
    stretched = random_scale(x, 2.0, generator(), normals=True)
    torch.testing.assert_close(stretched[:, 3:].norm(dim=1), torch.ones(4, 50))
    scale = stretched[:, :2].norm(dim=2) / x[:, :2].norm(dim=2)
    tangent = torch.stack([-angle.sin(), angle.cos()])[None] * scale[:, :, None]
    torch.testing.assert_close((tangent * stretched[:, 3:5]).sum(1), torch.zeros(4, 50), atol=1e-5, rtol=0)


# Points with labels.


def drawn(there: int, count: int, seed: int = 0) -> torch.Tensor:
    """A cloud whose point i is at (i, i², -i), labelled i % 5."""
    i = np.arange(there)
    channels = np.stack([i, i**2, -i], 1).astype(np.float32)
    return torch.from_numpy(draw_labelled(channels, i % 5, count, np.random.default_rng(seed)))


def labelled(sizes: list[int], kept: int = 12) -> LabelledPoints:
    clouds = torch.stack([drawn(size, kept, seed) for seed, size in enumerate(sizes)])
    labels = torch.arange(len(sizes)) % 2
    parts_of = torch.ones(2, 5, dtype=torch.bool)
    return LabelledPoints(clouds, labels, ["chair", "lamp"], [f"part {i}" for i in range(5)], parts_of, num_points=8)


@given(st.integers(1, 40), st.integers(1, 100), st.integers(0, 9))
def test_every_point_is_drawn_before_any_is_drawn_again(there, count, seed):
    points, parts, own = split_parts(drawn(there, count, seed))
    i = points[0].long()
    assert torch.equal(points, torch.stack([i, i**2, -i]).float())
    assert torch.equal(parts, i % 5)
    assert own.tolist() == [column < there for column in range(count)]
    for start in range(0, count, there):
        assert len(i[start : start + there].unique()) == min(there, count - start)
    if min(there, count) > 20:
        assert not torch.equal(i[:there], torch.arange(len(i[:there])))


def test_a_set_of_labelled_points_gives_points_parts_and_category():
    data = labelled([12, 30, 5])
    points, parts, category = data[1]
    assert points.shape == (3, 8)
    assert (points.dtype, parts.dtype) == (torch.float32, torch.int64)
    assert category == 1
    assert torch.equal(parts, points[0].long() % 5)
    batch, labels = data.batch(torch.tensor([2, 0]))
    assert batch.shape == (2, 4, 12)
    assert labels.tolist() == [0, 0]
    assert split_parts(batch)[2].sum(1).tolist() == [5, 12]
    part = data.subset(torch.tensor([2, 1]))
    assert torch.equal(part.parts, data.parts[[2, 1]])
    assert torch.equal(part[0][1], data[2][1])
    assert torch.equal(part.parts_of, data.parts_of)


def test_points_and_parts_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"points must be \(S, C, K\)"):
        LabelledClouds(torch.zeros(2, 3), torch.zeros(2), ["a"])
    data = labelled([3])
    with pytest.raises(ValueError, match=r"parts_of must be \(classes, parts\), \(1, 2\), got \(2, 2\)"):
        LabelledPoints(data.batch(slice(None))[0], data.labels, ["a"], ["b", "c"], torch.ones(2, 2, dtype=torch.bool))
    assert LabelledPoints(torch.zeros(1, 4, 2), torch.zeros(1), ["a"], ["b", "c"]).parts_of.all()


def test_arrays_and_other_numbers_are_the_tensors_they_stand_for(tmp_path):
    """Also big-endian, read-only and memory-mapped ones; a tensor, or a mapped float32 array, is not copied."""
    x, y = torch.randn(4, 3, 5), torch.tensor([0, 1, 1, 0])
    np.save(tmp_path / "x.npy", x.numpy())
    mapped, fixed = np.load(tmp_path / "x.npy", mmap_mode="r"), x.numpy().copy()
    fixed.flags.writeable = False
    for points in (x, x.double(), x.numpy(), x.double().numpy(), x.numpy().astype(">f4"), mapped, fixed, x.tolist()):
        for labels in (
            y,
            y.int(),
            y.double(),
            y.bool(),
            y.numpy().astype(np.uint8),
            y.numpy().astype(">i2"),
            y.tolist(),
        ):
            data = LabelledClouds(points, labels, ["a", "b"])
            assert (data.points.dtype, data.labels.dtype) == (torch.float32, torch.int64)
            assert torch.equal(data.points, x)
            assert torch.equal(data.labels, y)
    assert np.shares_memory(LabelledClouds(mapped, y, ["a", "b"]).points.numpy(), mapped)
    assert LabelledClouds(x, y, ["a", "b"]).points.data_ptr() == x.data_ptr()


FAR = torch.randn(4, 3, 50, dtype=torch.float64) + 5e6


@pytest.mark.parametrize(
    ("points", "labels", "message"),
    [
        (torch.randn(4, 50, 3), [0, 1, 1, 0], r"\(S, C, K\), got \(4, 50, 3\); points go last: transpose it"),
        (torch.randn(4, 3, 5), [1, 2, 2, 1], "labels must be 0 to 1, indices into the names, got 1 to 2; subtract 1"),
        (torch.randn(4, 3, 5), [0, 1, 2, 3], "labels must be 0 to 1, indices into the names, got 0 to 3$"),
        (torch.randn(4, 3, 5), [0, 1, -1, 0], "got -1 to 1$"),
        (torch.randn(4, 3, 5), [0, 0.5, 1, 0], "labels must be whole numbers, got 0.5"),
        (torch.randn(4, 3, 5), [0, np.nan, 1, 0], "labels must be whole numbers, got nan"),
        (torch.randn(4, 3, 5), ["a", "b", "b", "a"], "labels must be a tensor or an array of numbers: can't convert"),
        ([[[1], [2]], [[1]]], [0, 1], "points must be a tensor or an array of numbers: "),
        (FAR, [0, 1, 1, 0], r"cloud 0 is 5e\+06 away and .* wide; centre each"),
        (torch.randn(4, 3, 5), [[0, 1]] * 4, r"with labels \(S,\), got \(4, 3, 5\) and \(4, 2\)"),
    ],
    ids=range(10),
)
def test_what_is_no_labelled_cloud_is_one_line(points, labels, message):
    with pytest.raises(ValueError, match=message) as caught:
        LabelledClouds(points, labels, ["a", "b"])
    assert "\n" not in str(caught.value)
    if points is FAR:
        assert LabelledClouds(points - points.mean(2, keepdim=True), labels, ["a", "b"]).points.abs().max() < 10


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([1, 2, 2], "the labels of points must be 0 to 1, indices into the names, got 1 to 2; subtract 1"),
        ([0, 1, -4], "got 0 to 3$"),  # -1 - 3 marks a repeated point
        ([0, 1, 0.5], "the labels of points must be whole numbers, got 0.5"),
    ],
)
def test_labels_of_points_that_are_no_parts_are_one_line(parts, message):
    points = torch.cat([torch.randn(2, 3, 3), torch.tensor(parts).float().expand(2, 1, 3)], 1)
    with pytest.raises(ValueError, match=message):
        LabelledPoints(points, torch.tensor([0, 0]), ["chair"], ["seat", "leg"])


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
@pytest.mark.parametrize("seed", range(3))
def test_labels_stay_with_their_points(transform, seed):
    """A fourth channel numbers the points: however they are chosen and moved, it tells their labels."""
    i = torch.stack([torch.randperm(50) for _ in range(4)])
    stored = torch.where(i < 30, i % 7, -1 - i % 7)  # the last twenty have been there before
    x = torch.cat([torch.randn(4, 3, 50), i[:, None], stored[:, None]], 1)
    points, parts, own = split_parts(transform(x, generator(seed)))
    i = points[:, 3].long()
    assert points.shape[1] == 4
    assert torch.equal(parts, i % 7)
    assert torch.equal(own, i < 30)
