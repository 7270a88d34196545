"""Tables of points with what their columns are, for tests."""

import numpy as np

COUNT = 40
RNG = np.random.default_rng(0)
XYZ = RNG.normal(0, 3, (COUNT, 3)).round(3)
RGB = RNG.integers(0, 256, (COUNT, 3)).astype(float)
RGB[0] = 255, 0, 21  # a colour of which no rounding is in doubt, and both ends
UNIT = XYZ / np.linalg.norm(XYZ, axis=1, keepdims=True)
SMALL_INTENSITY = RNG.random((COUNT, 1)).round(4)
BYTE_INTENSITY = RNG.permutation(250)[:COUNT, None].astype(float)
NEGATIVE = RNG.integers(-2048, 2048, (COUNT, 1)).astype(float)
LABEL = RNG.integers(0, 13, (COUNT, 1)).astype(float)
RAW_LABEL = RNG.choice([0.0, 10, 40, 252], (COUNT, 1))
INSTANCE = RNG.integers(0, 90, (COUNT, 1)).astype(float)
ONES = np.ones((COUNT, 1))
ROW = np.arange(COUNT)[:, None]
PURE = np.eye(3)[ROW[:, 0] % 3]
RETURNS = np.sort(np.random.default_rng(1).integers(1, 6, (COUNT, 2)), axis=1).astype(float)
RETURNS[0] = 1  # of how many, behind which of them

# What stands behind x y z, and what it is: names as for --columns.
TABLES = {
    "nothing": ([], ""),
    "colours": ([RGB], "r,g,b"),
    "colours to 1": ([RGB / 255], "r,g,b"),
    "16 bit colours": ([RGB * 257], "r,g,b"),
    "normals": ([UNIT], "nx,ny,nz"),
    "intensity of fractions": ([SMALL_INTENSITY], "intensity"),
    "intensity of bytes": ([BYTE_INTENSITY], "intensity"),
    "negative intensity": ([NEGATIVE], "intensity"),
    "label": ([LABEL], "label"),
    "label with gaps": ([RAW_LABEL], "label"),
    "label with none": ([LABEL - 1], "label"),
    "intensity to 1, colours": ([SMALL_INTENSITY, RGB], "intensity,r,g,b"),
    "byte intensity, colours": ([BYTE_INTENSITY, RGB], "intensity,r,g,b"),
    "negative intensity, colours": ([NEGATIVE, RGB], "intensity,r,g,b"),
    "16 bit intensity, colours": ([BYTE_INTENSITY * 257, RGB], "intensity,r,g,b"),
    "no intensity, colours": ([0 * ONES, RGB], "intensity,r,g,b"),
    "intensity, colours to 1": ([BYTE_INTENSITY / 255, RGB / 255], "intensity,r,g,b"),
    "intensity, one colour": ([BYTE_INTENSITY, ONES * (255, 0, 21)], "intensity,r,g,b"),
    "colours, intensity to 1": ([RGB, SMALL_INTENSITY], "r,g,b,intensity"),
    "colours, negative intensity": ([RGB, NEGATIVE], "r,g,b,intensity"),
    "label, colours": ([LABEL, RGB], "label,r,g,b"),
    "colours, label": ([RGB, LABEL], "r,g,b,label"),
    "colours to 1, label": ([RGB / 255, LABEL], "r,g,b,label"),
    "colours to 1, two labels": ([RGB / 255, LABEL > 6], "r,g,b,label"),
    "colours, label with gaps": ([RGB, RAW_LABEL * 5], "r,g,b,label"),
    "one colour, label": ([ONES * (255, 0, 21), LABEL], "r,g,b,label"),
    "colours, label, instance": ([RGB, LABEL, INSTANCE], "r,g,b,label,_"),
    "intensity, colours, label": ([SMALL_INTENSITY, RGB, LABEL], "intensity,r,g,b,label"),
    "byte intensity, colours, label": ([BYTE_INTENSITY, RGB, LABEL], "intensity,r,g,b,label"),
    "byte intensity, colours, label, instance": ([BYTE_INTENSITY, RGB, LABEL, INSTANCE], "intensity,r,g,b,label,_"),
    "colours, opacity": ([RGB, ONES * 255], "r,g,b,_"),
    "colours, opacity to 1": ([RGB / 255, ONES], "r,g,b,_"),
    "colours, opacity, label": ([RGB, ONES * 255, LABEL], "r,g,b,_,label"),
    "intensity, label": ([SMALL_INTENSITY, LABEL], "intensity,label"),
    "label, instance": ([LABEL, INSTANCE], "label,_"),
    "normals, label": ([UNIT, LABEL], "nx,ny,nz,label"),
    "normals, intensity": ([UNIT, SMALL_INTENSITY], "nx,ny,nz,intensity"),
    "intensity, normals": ([SMALL_INTENSITY, UNIT], "intensity,nx,ny,nz"),
    "normals, colours": ([UNIT, RGB], "nx,ny,nz,r,g,b"),
    "colours, normals": ([RGB, UNIT], "r,g,b,nx,ny,nz"),
    "colours, normals, label": ([RGB, UNIT, LABEL], "r,g,b,nx,ny,nz,label"),
    "intensity, colours, normals": ([BYTE_INTENSITY, RGB, UNIT], "intensity,r,g,b,nx,ny,nz"),
    "white": ([ONES * (1, 1, 1)], "r,g,b"),
    "pure colours": ([PURE], "r,g,b"),
    "pure colours, label": ([PURE, LABEL], "r,g,b,label"),
    "normals of a corner, colours": ([PURE, RGB], "nx,ny,nz,r,g,b"),
    "normals of a floor": ([ONES * (0, 0, 1)], "nx,ny,nz"),
    "homogeneous": ([ONES], "_"),
    "colours, label with -100": ([RGB, np.where(LABEL == 3, -100, LABEL % 7)], "r,g,b,label"),
    "intensity, return, label": ([BYTE_INTENSITY, RETURNS[:, :1], LABEL], "intensity,_,label"),
    "16 bit intensity, return, label": ([BYTE_INTENSITY * 257, RETURNS[:, :1], LABEL], "intensity,_,label"),
    "intensity of fractions, return, label": ([SMALL_INTENSITY, RETURNS[:, 1:], LABEL], "intensity,_,label"),
    "intensity of few, no return, label": ([RAW_LABEL, 0 * ONES, LABEL], "intensity,_,label"),
    "intensity, returns, label": ([BYTE_INTENSITY, RETURNS, LABEL], "intensity,_,_,label"),
    "intensity of few, returns, label": ([RAW_LABEL, RETURNS, LABEL], "intensity,_,_,label"),
    "intensity, returns, another, colours": ([BYTE_INTENSITY, RETURNS, NEGATIVE, RGB], "intensity,_,_,_,r,g,b"),
    "two labels from 1": ([LABEL + 1, LABEL[::-1] + 1], "label,_"),
    "returns, label": ([RETURNS, LABEL], "_,_,label"),
    "returns, colours": ([RETURNS, RGB], "_,_,r,g,b"),
    "intensity, return, label, colours": ([BYTE_INTENSITY, RETURNS[:, :1], LABEL, RGB], "intensity,_,label,r,g,b"),
    "the same in 16 bits": ([BYTE_INTENSITY * 257, RETURNS[:, :1], LABEL, RGB * 257], "intensity,_,label,r,g,b"),
    "intensity, return, label, time, colours": (
        [BYTE_INTENSITY, RETURNS[:, :1], LABEL, 3e5 + XYZ[:, :1], RGB],
        "intensity,_,label,_,r,g,b",
    ),
    "intensity, return, angle, time, colours": (
        [BYTE_INTENSITY, RETURNS[:, :1], NEGATIVE, 3e5 + XYZ[:, :1], RGB],
        "_,_,_,_,r,g,b",
    ),
    "intensity, ring, time in any order": ([BYTE_INTENSITY, LABEL, SMALL_INTENSITY / 10], "intensity,_,_"),
    "intensity, ring, time": ([BYTE_INTENSITY, LABEL, ROW * 1e-5], "intensity,_,_"),
    "intensity of fractions, ring, time": ([SMALL_INTENSITY, LABEL, ROW * 1e-5], "intensity,_,_"),
    "intensity, time, colours": ([BYTE_INTENSITY, 3e5 + XYZ[:, :1], RGB], "intensity,_,r,g,b"),
    "time, intensity, label": ([3e5 + XYZ[:, :1], BYTE_INTENSITY, LABEL], "_,intensity,label"),
    "intensity, time, label": ([BYTE_INTENSITY, 3e5 + RNG.random((COUNT, 1)), LABEL], "intensity,_,label"),
    "normals of few": ([UNIT * (np.arange(COUNT) < COUNT / 4)[:, None]], "_,_,_"),
    "velocities": ([XYZ[::-1]], "_,_,_"),
    "time": ([1.6e9 + XYZ[:, :1]], "_"),
    "intensity, time": ([SMALL_INTENSITY, 1.6e9 + XYZ[:, :1]], "intensity,_"),
}
PARTS = {"normals": ["nx", "ny", "nz"], "colors": ["r", "g", "b"], "labels": ["label"], "intensity": ["intensity"]}


def table_of(name: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A table of x y z and more, and what it should give beside the points."""
    columns, names = TABLES[name]
    rows, words = np.hstack([XYZ, *columns]), ["x", "y", "z", *filter(None, names.split(","))]
    wanted = {what: rows[:, [words.index(n) for n in three]] for what, three in PARTS.items() if three[0] in words}
    if "colors" in wanted:
        wanted["colors"] = wanted["colors"] / next(most for most in (1, 255, 65535) if wanted["colors"].max() <= most)
    return rows, {what: part[:, 0] if part.shape[1] == 1 else part for what, part in wanted.items()}


def assert_holds(cloud, wanted, points=XYZ):
    np.testing.assert_allclose(cloud.points, points, rtol=1e-6)
    for what in PARTS:
        got = getattr(cloud, what)
        assert (got is not None) == (what in wanted), what
        if got is not None:
            np.testing.assert_allclose(got, wanted[what], atol=2e-6, err_msg=what)


def text_of(rows: np.ndarray, separator: str = " ") -> str:
    return "".join(separator.join(f"{value:.12g}" for value in row) + "\n" for row in rows)
