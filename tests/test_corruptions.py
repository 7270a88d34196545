"""The fifteen corruptions of ModelNet40-C: what each does to a cloud, and the benchmark's table in small."""

import numpy as np
import pytest
import torch

from benchmarks import corruptions as benchmark
from pointnet import PointNetClassifier, load_model
from pointnet.datasets import LabelledClouds
from pointnet.evaluation import corrupted as clouds
from pointnet.evaluation.analysis import misclassified
from pointnet.evaluation.contract import Contract
from pointnet.evaluation.corrupted import CORRUPTIONS, SEVERITIES, STRENGTHS, corrupted
from pointnet.models import shipped
from tests.helpers import SMALL

VIEWS = ("occlusion", "lidar")
MOVING = ("uniform", "gaussian", "impulse", "rotation", "shear", "ffd", "rbf", "rbf_inv")  # the same points, elsewhere
SEEDS = range(12)


def sphere(count: int = 2048, seed: int = 0) -> np.ndarray:
    points = np.random.default_rng(seed).normal(size=(count, 3))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def drawn(name: str, strength: object, points: np.ndarray, seed: int = 0) -> np.ndarray:
    """The corruption alone, without the scaling that may follow."""
    return CORRUPTIONS[name](points, strength, np.random.default_rng(seed))


def rows(points: np.ndarray) -> set[tuple[float, ...]]:
    return set(map(tuple, points.tolist()))


def nearest(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.sqrt(((points[:, None] - others) ** 2).sum(2)).min(1)


def test_there_are_fifteen_corruptions_of_five_strengths():
    assert len(CORRUPTIONS) == 15
    assert all(len(strengths) == len(SEVERITIES) == 5 for strengths in STRENGTHS.values())


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corrupted_clouds_are_finite_seeded_and_leave_the_given_one_alone(name):
    for count in (7, 300):
        points = sphere(count) * (1, 0.5, 0.3)
        before = points.copy()
        for severity in SEVERITIES:
            one, again, other = (corrupted(points, name, severity, np.random.default_rng(seed)) for seed in (0, 0, 1))
            assert one.ndim == 2
            assert one.shape[1] == 3
            assert 1 <= len(one) <= 2 * clouds.POINTS
            assert np.isfinite(one).all()
            assert (one == again).all()
            assert count < 300 or one.shape != other.shape or (one != other).any()
        assert (points == before).all()
        assert (corrupted(points, name, 0, np.random.default_rng(0)) == points[: clouds.POINTS]).all()


def test_a_strength_of_nothing_changes_nothing():
    points = sphere(300) * 0.9
    for name in CORRUPTIONS:
        if name not in (*VIEWS, "density_inc"):
            nothing = (0, 0) if name in ("rotation", "shear") else 0
            np.testing.assert_allclose(drawn(name, nothing, points), points, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("name", MOVING)
def test_a_higher_severity_moves_points_further_on_average(name):
    points = sphere(300) * 0.8
    moved = [
        np.mean([np.linalg.norm(drawn(name, strength, points, seed) - points, axis=1).mean() for seed in SEEDS])
        for strength in STRENGTHS[CORRUPTIONS[name]]
    ]
    assert (np.diff(moved) > 0).all(), moved


@pytest.mark.parametrize("name", ["density", "cutout", "upsampling", "background"])
def test_a_higher_severity_takes_or_adds_more_points(name):
    points = sphere(1024)
    changed = [abs(len(drawn(name, strength, points)) - 1024) for strength in STRENGTHS[CORRUPTIONS[name]]]
    wanted = {
        "density": [75, 150, 225, 300, 375],
        "cutout": [60, 90, 150, 210, 300],
        "upsampling": [204, 256, 341, 512, 1024],
        "background": [22, 25, 29, 34, 51],
    }
    assert changed == wanted[name]


@pytest.mark.parametrize("sector", SEVERITIES)
def test_occlusion_keeps_the_side_that_its_sector_sees(sector):
    """Of a sphere, a camera at distance 3 sees what is above a third along its axis."""
    points = sphere()
    camera = clouds.viewpoint(sector, np.pi / 4, 3.0, np.random.default_rng(0))
    assert np.linalg.norm(camera) == pytest.approx(3)
    assert np.arcsin(camera[2] / 3) == pytest.approx(np.pi / 4)
    away = np.degrees(np.arctan2(camera[1], camera[0])) - 72 * sector
    assert abs((away + 180) % 360 - 180) <= 36
    truth = points @ camera > 1
    seen = clouds.visible(points, camera)
    assert seen[truth].mean() > 0.9
    assert seen[~truth].mean() < 0.1


def test_occlusion_hides_what_is_behind_a_wall_and_fills_the_box():
    generator = np.random.default_rng(0)
    wall, behind = (np.column_stack([generator.uniform(-0.9, 0.9, (2000, 2)), np.full(2000, z)]) for z in (0.5, -0.5))
    camera = np.array([1e-3, 0.0, 3.0])
    seen = clouds.visible(np.concatenate([wall, behind * (0.5, 0.5, 1)]), camera)
    assert seen[:2000].all()
    assert seen[2000:].mean() < 0.05
    view = drawn("occlusion", 2, sphere())
    assert len(view) < 1024
    assert np.ptp(view, axis=0).max() == pytest.approx(2)


def test_lidar_sees_lines_a_degree_apart(monkeypatch):
    camera = np.array([5 * np.cos(np.pi / 8), 0.0, 5 * np.sin(np.pi / 8)])
    monkeypatch.setattr(clouds, "viewpoint", lambda sector, elevation, distance, generator: camera)
    rays = drawn("lidar", 1, sphere()) - camera
    polar = np.degrees(np.arccos(rays[:, 2] / np.linalg.norm(rays, axis=1)))
    lines = polar - polar.min()
    np.testing.assert_allclose(lines, lines.round(), atol=1e-6)
    assert 15 < len(np.unique(lines.round())) < 25  # the sphere is 23 degrees wide from there
    assert 200 < len(rays) <= 768
    assert nearest(rays + camera, sphere()).max() < 0.06  # a quarter of a degree, from about 5


def test_density_inc_keeps_whole_neighbourhoods_of_a_denser_cloud():
    points = sphere()
    for places in (1, 5):
        cloud = drawn("density_inc", places, points)
        assert len(cloud) == 1024
        assert rows(cloud) <= rows(points)
        assert len(rows(cloud)) == 1024
        near = np.argsort(((points - cloud[0]) ** 2).sum(1))[:100]
        assert rows(points[near]) <= rows(cloud)  # its first point was drawn


def taken_away(points: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Which points (N,) are gone; those that stay are as they were."""
    stay = rows(kept)
    assert stay <= rows(points)
    return np.array([tuple(point) not in stay for point in points.tolist()])


def most_gone_near_one(points: np.ndarray, gone: np.ndarray, size: int) -> int:
    """The most points that are gone, of the `size` nearest ones of any point."""
    squares = ((points[:, None] - points) ** 2).sum(2)
    return int(gone[np.argsort(squares, axis=1)[:, :size]].sum(1).max())


def test_density_leaves_a_quarter_of_a_neighbourhood_and_cutout_none():
    points = sphere(1024)
    gone = taken_away(points, drawn("density", 1, points))
    assert most_gone_near_one(points, gone, 100) == gone.sum() == 75
    gone = taken_away(points, drawn("cutout", 1, points))
    assert most_gone_near_one(points, gone, 30) == gone.sum() == 30


def test_uniform_noise_is_bounded_and_gaussian_noise_is_normal_within_the_box():
    points = sphere(1024) * 0.5
    noise = drawn("uniform", 0.05, points) - points
    assert 0.049 < np.abs(noise).max() <= 0.05
    assert np.abs(noise).mean() == pytest.approx(0.025, rel=0.05)
    assert np.abs(noise.mean(0)).max() < 0.005
    noise = drawn("gaussian", 0.03, points) - points
    assert noise.std() == pytest.approx(0.03, rel=0.05)
    assert np.abs(noise).max() > 0.09
    assert np.abs(drawn("gaussian", 0.3, sphere())).max() == 1


def test_impulse_moves_a_tenth_of_the_points_by_a_tenth_along_each_axis():
    points = sphere(1024)
    moves = drawn("impulse", 0.1, points) - points
    moved = np.abs(moves).max(1) > 0
    assert moved.sum() == 102
    np.testing.assert_allclose(np.abs(moves[moved]), 0.1)
    assert len(np.unique(np.sign(moves[moved]), axis=0)) == 8


def test_upsampling_adds_points_beside_others_and_background_anywhere_in_the_box():
    points = sphere(300)
    for name, strength in (("upsampling", 1.0), ("background", 1.0)):
        cloud = drawn(name, strength, points)
        assert (cloud[:300] == points).all()
        far = np.abs(cloud[300:, None] - points).max(2).min(1)
        assert (far.max() <= 0.05) == (name == "upsampling")
    assert 0.9 < np.abs(cloud[300:]).max() <= 1
    assert np.abs(cloud[300:].mean(0)).max() < 0.15


def test_rotation_keeps_distances_and_turns_by_up_to_its_angles():
    points, eye = sphere(300), np.eye(3)
    turned = drawn("rotation", (12.5, 17.5), points)
    np.testing.assert_allclose(turned @ turned.T, points @ points.T, atol=1e-12)
    for seed in SEEDS:
        matrix = drawn("rotation", (15, 15), eye, seed)
        assert np.linalg.det(matrix) == pytest.approx(1)
        angle = np.degrees(np.arccos((np.trace(matrix) - 1) / 2))
        assert 15 < angle < 30  # of three turns by 15 degrees about axes at right angles


def test_shear_keeps_heights_and_moves_the_rest_by_a_share_of_the_other_coordinates():
    matrix = drawn("shear", (0.2, 0.3), np.eye(3))
    assert matrix[:, 2].tolist() == [0, 0, 1]
    assert matrix.diagonal().tolist() == [1, 1, 1]
    shares = np.abs(matrix[[1, 2, 0, 2], [0, 0, 1, 1]])
    assert 0.2 <= shares.min() <= shares.max() <= 0.3
    signs = {tuple(np.sign(drawn("shear", (0.2, 0.3), np.eye(3), seed)[[1, 2], 0])) for seed in SEEDS}
    assert len(signs) > 1


def test_free_form_deformation_is_a_polynomial_that_its_control_points_bound():
    generator = np.random.default_rng(0)
    moves = 2 * generator.uniform(-0.5, 0.5, (3, 5, 5, 5))
    corners = np.array([[-1, -1, -1], [1, -1, 1], [1, 1, 1]], float)
    wanted = np.array([moves[:, i, j, k] for i, j, k in ((0, 0, 0), (4, 0, 4), (4, 4, 4))])
    np.testing.assert_allclose(drawn("ffd", 0.5, corners) - corners, wanted, atol=1e-12)
    line = np.column_stack([np.linspace(-1, 1, 9), np.full(9, 0.3), np.full(9, -0.2)])
    shift = drawn("ffd", 0.5, line) - line
    assert np.abs(np.diff(shift, 5, axis=0)).max() < 1e-10  # of degree 4
    assert np.abs(np.diff(shift, 4, axis=0)).max() > 1e-4
    assert np.abs(shift).max() <= 1
    outside = np.array([[1.1, 0, 0], [0, 0, -2]])
    assert (drawn("ffd", 0.5, outside) == outside).all()


@pytest.mark.parametrize("name", ["rbf", "rbf_inv"])
def test_radial_functions_move_each_control_point_by_the_strength(name):
    points = clouds.lattice()
    moves = drawn(name, 0.1, points) - points
    np.testing.assert_allclose(np.linalg.norm(moves, axis=1), 0.1, atol=1e-9)
    assert len(np.unique(np.sign(moves), axis=0)) == 8
    between = sphere(300) * 0.9
    nearby = between + 1e-4
    shifts = [drawn(name, 0.1, each) - each for each in (between, nearby)]
    assert np.abs(shifts[0] - shifts[1]).max() < 1e-3  # smooth
    others = {"rbf": "rbf_inv", "rbf_inv": "rbf"}
    assert np.abs(shifts[0] - (drawn(others[name], 0.1, between) - between)).max() > 1e-3


def test_radial_functions_are_those_of_the_formula():
    squares = np.array([0.0, 1.0, 4.0])
    np.testing.assert_allclose(clouds.radial(squares, inverse=False), np.sqrt([0.25, 1.25, 4.25]))
    np.testing.assert_allclose(clouds.radial(squares, inverse=True), 1 / np.sqrt([0.25, 1.25, 4.25]))


def test_an_unknown_corruption_or_severity_is_one_line():
    for name, severity in (("fog", 1), ("uniform", 6), ("uniform", -1)):
        with pytest.raises(ValueError, match=rf"wanted severity 0 to 5 of occlusion, .*; got {severity} of {name}"):
            corrupted(sphere(9), name, severity, np.random.default_rng(0))


@pytest.fixture
def two_classes(tmp_path, monkeypatch):
    """Balls and rods, and a network that calls everything a ball, saved."""
    points = np.stack([sphere(200, seed) * ((1, 1, 1) if seed % 2 else (0.1, 0.1, 1)) for seed in range(8)])
    data = LabelledClouds(torch.tensor(points).float().mT, torch.arange(8) % 2, ["rod", "ball"])
    model = PointNetClassifier(2, **SMALL)
    model.classes = data.classes
    model.preprocessing = Contract(64).as_json()
    torch.nn.init.zeros_(model.logits.weight)
    model.logits.bias.data[:] = torch.tensor([0.0, 1.0])
    model.save_pretrained(tmp_path / "balls")
    monkeypatch.setattr(benchmark, "open_dataset", lambda name, root, split, count: data)
    threads = torch.get_num_threads()
    yield data, str(tmp_path / "balls")
    torch.set_num_threads(threads)


def test_the_benchmark_prints_the_clean_error_rate_and_the_mean_of_each_corruption(two_classes, monkeypatch, capsys):
    _, run = two_classes
    monkeypatch.setattr(
        benchmark, "misclassified", lambda models, data, name, severity, *more: misclassified(
            models, data, name, severity, *more
        ) + severity / 100 + (name == "shear") * severity / 20
    )  # fmt: skip
    benchmark.main([run, "--threads", "1", "--clouds", "2"])
    table = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    rates = {name: rate for name, rate, *_ in table[1:]}
    assert list(rates) == ["clean", *CORRUPTIONS, "mean of the corruptions"]
    assert rates == {
        **dict.fromkeys(CORRUPTIONS, "53.0"),
        "shear": "68.0",
        "clean": "50.0",
        "mean of the corruptions": "54.0",
    }
    assert (table[1][2], table[-1][2]) == ("9.3", "28.3")


def test_without_names_all_shipped_networks_of_modelnet_are_measured(two_classes, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "load", lambda name, data: name)
    monkeypatch.setattr(benchmark, "misclassified", lambda models, *more: np.zeros((len(models), 1)))
    benchmark.main(["--threads", "1"])
    names = [name for name in shipped() if load_model(name).num_outputs == 40]
    assert len(names) >= 3
    assert f"| | {' | '.join(names)} | PointNet, published |" in capsys.readouterr().out


def test_the_error_rate_is_of_corrupted_clouds_as_given_or_in_the_unit_sphere(two_classes):
    data, _ = two_classes
    seen = []

    def ball_is_wide(x, lengths):
        seen.extend(cloud[:, :length].double().numpy().T for cloud, length in zip(x, lengths.tolist(), strict=True))
        return torch.stack([torch.zeros(len(x)), x[:, 0].abs().amax(1) - 0.5], 1)

    model: object = ball_is_wide
    assert not misclassified([model], data, "background", 0).any()
    assert misclassified([model], data, "background", 5).tolist() == [[True, False] * 4]  # noise is wide, rods too
    assert all(np.abs(cloud).max() <= 1 + 1e-6 and len(cloud) == 210 for cloud in seen[8:])
    misclassified([model], data, "background", 5, renormalize=True)
    assert all(np.linalg.norm(cloud, axis=1).max() == pytest.approx(1) for cloud in seen[16:])
    first = seen[8:16]
    seen.clear()
    misclassified([model], data.subset(torch.arange(3)), "background", 5)
    assert all((one == other).all() for one, other in zip(seen, first, strict=False))  # whatever else is measured
    seen.clear()
    misclassified([model], data, "background", 5, seed=1)
    assert (seen[0] != first[0]).any()


def test_a_network_that_does_not_fit_the_data_is_one_line(two_classes):
    data, run = two_classes
    wanted = r"balls: wanted a classifier of x y z in the unit sphere, with the classes of the data"
    other = LabelledClouds(data.points, data.labels, ["rod", "disc"])
    with pytest.raises(ValueError, match=wanted):
        benchmark.load(run, other)
    assert benchmark.load(run, data).classes == data.classes
