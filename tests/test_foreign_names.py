"""Names of columns that are not of plain ASCII letters."""

import numpy as np
import pytest

from pointnet.points.read import PointCloudFileError, read_cloud
from tests.tables import LABEL, RGB, XYZ, assert_holds, text_of
from tests.whole_files import written


@pytest.mark.parametrize("name", ["\u7ea2", "\u043a\u043b\u0430\u0441\u0441", "1", "m", "(label)", "\u00e5", "\u00ed"])
def test_a_column_of_any_name_that_is_not_used_is_said(tmp_path, name):
    rows = text_of(np.hstack([XYZ, XYZ[:, :1]]), ",")
    assert read_cloud(written(tmp_path, "a.csv", f"x,y,z,{name}\n{rows}")).notes == (f"left out: {name}",)


def test_names_in_two_alphabets_are_known_and_plain_ones_come_first(tmp_path):
    for stem in ("\u03c3{}", "\u0394{}", "\u901f\u5ea6{}", "{}\u0307", "{}\u0304", "{}\u00b2", "{}\u2082"):
        names = ",".join(map(stem.format, "xyz"))
        rows = text_of(np.hstack([XYZ + 7, XYZ]), ",")
        assert_holds(read_cloud(written(tmp_path, "a.csv", f"{names},x,y,z\n{rows}")), {})
        assert_holds(read_cloud(written(tmp_path, "a.csv", f"{names},easting,northing,height\n{rows}")), {})
    for stem in (
        "{}\u5750\u6807",
        "\u70b9{}",
        "{}\uc88c\ud45c",
        "\u041a\u043e\u043e\u0440\u0434\u0438\u043d\u0430\u0442\u0430 {}",
        "{} \u00b5m",
        "{} \u00c5",
        "{} [\u03bcm]",
    ):
        names = ",".join(map(stem.format, "XYZ"))
        assert_holds(read_cloud(written(tmp_path, "a.csv", f"{names}\n{text_of(XYZ, ',')}")), {})
    rows = text_of(np.hstack([XYZ, LABEL, RGB]), ",")
    names = "x,y,z,\u6807\u7b7elabel,R\u7ea2,G\u7eff,B\u84dd"
    assert_holds(
        read_cloud(written(tmp_path, "a.csv", f"{names}\n{rows}")), {"labels": LABEL[:, 0], "colors": RGB / 255}
    )


def test_accents_and_wide_letters_make_no_difference(tmp_path):
    rows = text_of(np.hstack([XYZ, LABEL / 8]), ",")
    of_all = {"intensity": (LABEL / 8)[:, 0]}
    for names in (
        "\uff38,\uff39,\uff3a,\uff29ntensity",
        "\uff58\u5ea7\u6a19,\uff59\u5ea7\u6a19,\uff5a\u5ea7\u6a19,r\u00e9flectance",
        "x,y,z,Intensit\u00e9",
        "x,y,z,intensite\u0301",
        "X,Y,Z,R\u00c9FLECTIVITY",
    ):
        assert_holds(read_cloud(written(tmp_path, "a.csv", f"{names}\n{rows}")), of_all)
    rows = text_of(np.hstack([XYZ + 7, XYZ]), ",")
    for velocity in ("\u1e8b,\u1e8f,\u017c", "x\u0307,y\u0307,z\u0307", "\u1e8d,\u00ff,z\u0308"):
        assert_holds(read_cloud(written(tmp_path, "a.csv", f"{velocity},x,y,z\n{rows}")), {})


@pytest.mark.parametrize("truth", ["true_class", "truth", "actual_label", "gt", "class"])
@pytest.mark.parametrize("guess", ["predicted_class", "pred", "prediction"])
def test_labels_are_the_truth_and_no_predictions_beside_it(tmp_path, truth, guess):
    rows = np.random.default_rng(0).random((40, 5))
    rows[:, 3], rows[:, 4] = np.arange(40) % 3, np.arange(40) % 5
    np.savetxt(tmp_path / "a.csv", rows, delimiter=",", header=f"x,y,z,{guess},{truth}", comments="")
    assert (read_cloud(tmp_path / "a.csv").labels == rows[:, 4]).all()


def test_what_else_is_wanted_of_a_file_is_known(tmp_path):
    np.savetxt(tmp_path / "a.xyz", np.random.default_rng(0).random((9, 3)))
    with pytest.raises(ValueError, match="extras must be of normals, colors, labels, intensity, hash, got 'rgb'"):
        read_cloud(tmp_path / "a.xyz", extras=("rgb",))


def test_labels_in_a_file_of_their_own_are_no_damaged_points(tmp_path):
    for first in (0, 3):
        np.savetxt(tmp_path / "label.txt", [first, *np.arange(20) % 4], fmt="%d")
        with pytest.raises(PointCloudFileError, match="one number per line, not points; labels go into the file"):
            read_cloud(tmp_path / "label.txt")
