"""Columns without names, of which some precede x: counts, times, pixels, labels."""

import numpy as np
import pytest

from pointnet.points.read import PointCloudFileError, read_cloud
from tests.tables import BYTE_INTENSITY, COUNT, LABEL, ONES, RGB, ROW, SMALL_INTENSITY, UNIT, XYZ, assert_holds, text_of
from tests.whole_files import npy_of, written


def test_a_first_column_that_counts_the_rows_is_skipped_and_this_is_said(tmp_path):
    for first in (0, 1):
        rows = np.hstack([np.arange(COUNT)[:, None] + first, XYZ, RGB])
        path = written(tmp_path, "a.csv", text_of(rows, ","))
        assert_holds(read_cloud(path), {"colors": RGB / 255})
        bare = read_cloud(path, extras=())
        assert_holds(bare, {})
        assert bare.notes == ("columns taken as _,x,y,z",)


EAST_NORTH = np.array([694_385.0, 4_835_123.0])
WEEK, MAP, XY = 3e5 + ROW * 0.1, XYZ + np.append(EAST_NORTH, 0), XYZ[:, :2]
PIXELS = np.hstack([ROW // 8 + 3, ROW % 8])


@pytest.mark.parametrize(
    ("table", "taken"),
    [
        ([PIXELS, XYZ, RGB], "_,_,x,y,z,r,g,b"),
        ([PIXELS[:, ::-1], XYZ, BYTE_INTENSITY], "_,_,x,y,z,intensity"),
        ([PIXELS, XYZ[:, 2:], UNIT], "x,y,z,nx,ny,nz"),
        ([PIXELS, XYZ[:, 2:], RGB / 255], "x,y,z,r,g,b"),
        ([PIXELS + EAST_NORTH, XYZ[:, 2:], SMALL_INTENSITY, XY[:, :1]], "x,y,z,intensity,_"),
        ([1.3e9 + ROW[::-1], XYZ], "_,x,y,z"),
        ([1.3e9 + ROW, MAP, RGB], "_,x,y,z,r,g,b"),
        ([WEEK, XYZ, SMALL_INTENSITY], ""),
        ([WEEK, MAP, RGB], ""),
        ([ROW, XY, SMALL_INTENSITY], ""),
        ([ROW, XY, LABEL, RGB], ""),
        ([ROW * 3 + 1000, XYZ, RGB], ""),
        ([PIXELS[::-1], XYZ, RGB], ""),
        ([LABEL, XYZ], ""),
        ([7 * ONES, XYZ, RGB], ""),
        ([ROW // 10, XYZ, UNIT], ""),
        ([LABEL, MAP], ""),
        ([ROW // 10, np.rint(XYZ * 100)], ""),
        ([ROW // 10, ROW * 0.1, XYZ], ""),
        ([ROW, LABEL, XYZ], ""),
        ([1.3e9 + ROW, LABEL, XYZ], ""),
        ([7 * ONES, ROW // 10, XYZ], ""),
        ([7 * ONES, XY, UNIT], "x,y,z,nx,ny,nz"),
        ([0 * ONES, XY, RGB / 255], "x,y,z,r,g,b"),
        ([0 * ONES, XY, BYTE_INTENSITY], "x,y,z,intensity"),
        ([ROW, np.rint(XYZ), RGB], ""),
        ([ROW[:16], np.rint(XYZ[:16]), RGB[:16]], "x,y,z,intensity,r,g,b"),
        ([ROW, XY, 0 * ONES, RGB], "_,x,y,z,r,g,b"),
        ([ROW + 1, MAP], "_,x,y,z"),
        ([MAP[MAP[:, 0].argsort()], SMALL_INTENSITY], "x,y,z,intensity"),
        ([ROW // 9, ROW % 9, ROW % 7, np.where(ROW % 4 > 0, ROW % 4, -100)], "x,y,z,label"),
    ],
)
def test_columns_before_x_that_are_no_coordinates_are_skipped_or_refused(tmp_path, table, taken):
    rows = np.hstack(table)
    for path in (written(tmp_path, "a.txt", text_of(rows)), written(tmp_path, "a.npy", npy_of(rows))):
        if not taken:
            for extras in ((), ("colors",)):
                with pytest.raises(
                    PointCloudFileError, match="the first .*x.*, or .*; name the columns with --columns"
                ):
                    read_cloud(path, extras=extras)
            continue
        places = [taken.split(",").index(axis) for axis in "xyz"]
        assert read_cloud(path).notes == (f"columns taken as {taken}",)
        for cloud in (read_cloud(path), read_cloud(path, extras=())):
            np.testing.assert_allclose(cloud.points, rows[:, places], rtol=1e-6)
