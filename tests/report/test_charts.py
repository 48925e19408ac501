from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repae.report.charts import HEIGHT, WIDTH, bars, chart, number, thinned


def _points(svg):
    return [
        [tuple(map(float, pair.split(","))) for pair in points.split()]
        for points in re.findall(r"points='([^']+)'", svg)
    ]


values = st.lists(st.floats(-1e6, 1e6) | st.just(math.nan) | st.just(math.inf), min_size=1, max_size=40)


@given(values, st.integers(1, 10_000))
def test_every_series_is_drawn_inside_the_panel(values, stride):
    """Constants, single points, signs and gaps of any kind: a chart, and every point of it inside."""
    svg = chart("loss", {"loss": [(float(stride * (i + 1)), value) for i, value in enumerate(values)]})
    for run in _points(svg):
        assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in run)
    finite = sum(map(math.isfinite, values))
    assert ("No finite value" in svg) == (finite == 0)


def test_higher_values_stand_higher_and_later_ones_to_the_right():
    """The axes run the way axes do, linear and logarithmic."""
    for series in ([(1.0, 1.0), (2.0, 2.0), (3.0, 4.0)], [(1.0, 1e-3), (2.0, 1.0), (3.0, 1e3)]):
        (run,) = _points(chart("x", {"x": series}))
        assert run[0][0] < run[1][0] < run[2][0] and run[0][1] > run[1][1] > run[2][1]
    assert run[0][1] - run[1][1] == pytest.approx(run[1][1] - run[2][1], abs=0.2)


def test_gaps_interrupt_the_line():
    """A value that was not finite is not bridged over."""
    svg = chart("x", {"x": [(1.0, 1.0), (2.0, 2.0), (3.0, math.nan), (4.0, 1.0)]})
    assert [len(run) for run in _points(svg)] == [2, 2]


def test_long_series_keep_their_mean_and_their_end():
    """400,000 steps make no page of many megabytes, and no value is left out of the line."""
    points = [(float(i), math.sin(i / 50)) for i in range(4000)]
    thin = thinned(points)
    assert len(thin) == 300 and thin[-1][0] == points[-1][0]
    assert sum(y for _, y in thin) / 300 == pytest.approx(sum(y for _, y in points) / 4000, abs=1e-3)
    assert thinned(points[:300]) == points[:300]


def test_names_are_escaped_and_last_values_told():
    """The legend gives the number that one would otherwise guess from the line."""
    svg = chart("a < b", {"k&l": [(1.0, 0.5), (2.0, 0.12345)]}, about="it's <fine>")
    assert "a &lt; b" in svg and "k&amp;l <b>0.123</b>" in svg and "&lt;fine&gt;" in svg


def test_numbers_are_short():
    """Three digits are enough for a legend."""
    said = [number(x) for x in (0.0, -0.63281, 12345.6, 1e-6, math.inf)]
    assert said == ["0", "-0.633", "12,346", "1e-06", "not finite"]


@given(values)
def test_every_bar_stands_on_zero_inside_the_panel(values):
    """Up for positive values, down for negative ones, as long as they are large."""
    svg = bars("mean", values)
    found = [tuple(map(float, each)) for each in re.findall(r"y='([-\d.]+)' width='[\d.]+' height='([\d.]+)'", svg)]
    finite = [value for value in values if math.isfinite(value)]
    assert len(found) == len(finite) and ("No finite value" in svg) == (not finite)
    for top, height in found:
        assert top >= 0 and top + height <= HEIGHT
    if finite:
        zero = float(re.search(r"<line class='zero' [^>]*y1='([\d.]+)'", svg)[1])
        for value, (top, height) in zip(finite, found, strict=True):
            assert (top + height if value > 0 else top) == pytest.approx(zero, abs=0.11)
        longest = max(range(len(finite)), key=lambda place: abs(finite[place]))
        assert found[longest][1] == max(height for _, height in found)
