"""Charts show every point where it belongs, between round ticks."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointnet.pages.charts import LEFT, RIGHT, WIDTH, Chart, Curve, ticks


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 12))
def test_ticks_are_round_evenly_apart_and_within(low, span, count):
    high = low + span
    found = ticks(low, high, count)
    slack = 1e-6 * max(abs(low), abs(high), span)
    assert 1 <= len(found) <= 3 * count
    assert all(low - slack <= tick <= high + slack for tick in found)
    steps = np.diff(found)
    np.testing.assert_allclose(steps, steps[:1].repeat(len(steps)), rtol=1e-6, atol=slack)
    if len(steps) and span > 1e-3 * abs(low):
        mantissa = float(f"{steps[0]:e}".split("e")[0])
        assert min(abs(mantissa - round_one) for round_one in (1, 2, 5, 10)) < 1e-3
    assert all(tick == int(tick) for tick in ticks(low, high, count, least=1))


def circles(chart: Chart) -> list[tuple[float, float, str]]:
    """Where the points of a chart stand, and their hints."""
    found = re.findall(r'cx="(.*?)" cy="(.*?)"><title>(.*?)<', chart.figure())
    return [(float(x), float(y), hint) for x, y, hint in found]


def test_a_chart_shows_every_point_where_it_belongs():
    x, y = [1, 2, 3, 4], [0.5, 2.5, 1.5, float("nan")]
    chart = Chart("t <1>", [Curve("a & b", x, y, "one")], "epoch", mark=2)
    assert "t &lt;1&gt;" in chart.figure()
    assert [hint for *_, hint in circles(chart)] == [
        f"a &amp; b: {value} at epoch {epoch}" for epoch, value in ((1, 0.5), (2, 2.5), (3, 1.5))
    ]
    (x1, y1, _), (x2, y2, _), (x3, y3, _) = circles(chart)
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.2)
    assert y1 > y3 > y2, "up is up"
    assert (y1 - y3) == pytest.approx(y3 - y2, abs=0.2)
    assert LEFT <= x1 < x3 <= WIDTH - RIGHT
    marked = re.search(r'class="mark" points="(.*?),', chart.figure())[1]
    assert float(marked) == x2


def test_steps_are_level_from_half_before_to_half_after_each_x():
    steps = Curve("s", [1, 2], [5, 7], "plain", steps=True)
    drawn = Chart("t", [steps], "x", x_span=(0, 3), y_span=(0, 8)).figure()
    corners = re.search(r'class="plain" points="(.*?)"', drawn)[1].split()
    (a, low), (b, same), (c, high), (d, _) = (map(float, corner.split(",")) for corner in corners)
    assert (b, low, high < low) == (c, same, True)
    assert b - a == pytest.approx(d - c, abs=0.2)
    assert b - a == pytest.approx((WIDTH - LEFT - RIGHT) / 3, abs=0.2)


@pytest.mark.parametrize("y", [[], [float("nan")], [3.0], [3.0, 3.0], [0.0, float("inf")]])
def test_a_chart_of_little_or_nothing_is_drawn(y):
    chart = Chart("t", [Curve("a", list(range(len(y))), y, "one")], "epoch")
    assert "nan" not in chart.figure()
    assert "inf" not in chart.figure()
    assert len(circles(chart)) == sum(map(np.isfinite, y))
