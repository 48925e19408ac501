"""Line charts as inline SVG: no library, no script, readable in light and dark because colours are the page's own."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 440, 220
LEFT, RIGHT, TOP, BOTTOM = 56, 26, 10, 28
COLOURS = 3
BINS = 300
DECADES = 30.0
BARS_NAMED = 16


def chart(title: str, series: Mapping[str, Points], about: str = "", over: str = "training steps") -> str:
    """One panel as an HTML figure: a title, a legend with last values, the lines, and what they show.

    `over` says what is told along the axis. At most three series of (step, value) in ascending steps. The scale is
    logarithmic where all values are positive and span more than a factor of 30. Values that are not finite interrupt a
    line. Long series are averaged over 300 bins.
    """
    assert 0 < len(series) <= COLOURS, len(series)
    lines = {name: thinned(points) for name, points in series.items()}
    finite = [point for points in lines.values() for point in points if math.isfinite(point[1])]
    if not finite:
        body = "<p class='missing'>No finite value was logged.</p>"
    else:
        body = _svg(f"{title} over {over}", lines, finite)
    legend = "".join(
        f"<span><i class='c{place}'></i>{escape(name)} <b>{number(points[-1][1])}</b></span>"
        for place, (name, points) in enumerate(lines.items())
    )
    return _figure(title, f"<div class='legend'>{legend}</div>{body}", about)


def bars(title: str, values: Sequence[float], about: str = "") -> str:
    """One panel with a bar for each value, named by its place."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return _figure(title, "<p class='missing'>No finite value is there.</p>", about)
    axis = _linear_axis(min(0.0, *finite), max(0.0, *finite), 4)
    width = (WIDTH - LEFT - RIGHT) / len(values)
    stride = -(-len(values) // BARS_NAMED)

    def y_of(value: float) -> float:
        return HEIGHT - BOTTOM - axis.share(value) * (HEIGHT - TOP - BOTTOM)

    parts = [_gridline(y_of(tick), number(tick), "zero" if tick == 0 else "grid") for tick in axis.ticks]
    for place, value in enumerate(values):
        x = LEFT + (place + 0.5) * width
        if math.isfinite(value):
            top, height = min(y_of(value), y_of(0.0)), abs(y_of(value) - y_of(0.0))
            words = f"<title>{place}: {number(value)}</title>"
            side = min(0.8 * width, 40)
            parts.append(
                f"<rect class='c0' x='{x - side / 2:.1f}' y='{top:.1f}' width='{side:.1f}' height='{height:.1f}'>"
                f"{words}</rect>"
            )
        if place % stride == 0:
            parts.append(f"<text x='{x:.1f}' y='{HEIGHT - BOTTOM + 16}' text-anchor='middle'>{place}</text>")
    return _figure(title, _drawing(f"{title}, a bar each", parts), about)


def _figure(title: str, body: str, about: str) -> str:
    caption = f"<p>{escape(about)}</p>" if about else ""
    return f"<figure class='chart'><h3>{escape(title)}</h3>{body}{caption}</figure>"


def _gridline(y: float, words: str, kind: str) -> str:
    return (
        f"<line class='{kind}' x1='{LEFT}' x2='{WIDTH - RIGHT}' y1='{y:.1f}' y2='{y:.1f}'/>"
        f"<text x='{LEFT - 6}' y='{y + 3.5:.1f}' text-anchor='end'>{words}</text>"
    )


def number(value: float) -> str:
    if not math.isfinite(value):
        return "not finite"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def thinned(points: Points, bins: int = BINS) -> list[tuple[float, float]]:
    """Series of more than `bins` points as the means of `bins` equal runs of points; a bin with NaN is NaN."""
    if len(points) <= bins:
        return list(points)
    edges = [round(place * len(points) / bins) for place in range(bins + 1)]
    runs = [points[start:end] for start, end in itertools.pairwise(edges)]
    return [(run[-1][0], sum(value for _, value in run) / len(run)) for run in runs]


class _Axis(NamedTuple):
    low: float
    high: float
    ticks: list[float]
    log: bool

    def share(self, value: float) -> float:
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def _svg(words: str, lines: Mapping[str, Points], finite: Points) -> str:
    first, last = min(x for x, _ in finite), max(x for x, _ in finite)
    steps = _linear_axis(first, last, 5)._replace(low=first, high=max(last, first + 1))
    low, high = min(y for _, y in finite), max(y for _, y in finite)
    values = _log_axis(low, high) if low > 0 and high / low > DECADES else _linear_axis(low, high, 4)

    def x_of(x: float) -> float:
        return LEFT + steps.share(x) * (WIDTH - LEFT - RIGHT)

    def y_of(y: float) -> float:
        return HEIGHT - BOTTOM - values.share(y) * (HEIGHT - TOP - BOTTOM)

    parts = [_gridline(y_of(tick), number(tick), "grid") for tick in values.ticks]
    for tick in steps.ticks:
        if first <= tick <= last:
            parts.append(
                f"<text x='{x_of(tick):.1f}' y='{HEIGHT - BOTTOM + 16}' text-anchor='middle'>{tick:,.0f}</text>"
            )
    for place, points in enumerate(lines.values()):
        for run in _unbroken(points):
            path = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in run)
            # A point alone is no line: a round cap on one of no length shows it.
            path = f"{path} {path}" if len(run) == 1 else path
            parts.append(f"<polyline class='c{place}' points='{path}'/>")
    return _drawing(words, parts)


def _drawing(words: str, parts: Sequence[str]) -> str:
    label = escape(words, quote=True)
    return f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='{label}'>{''.join(parts)}</svg>"


def _unbroken(points: Points) -> list[list[tuple[float, float]]]:
    runs = itertools.groupby(points, key=lambda point: math.isfinite(point[1]))
    return [list(run) for finite, run in runs if finite]


def _linear_axis(low: float, high: float, count: int) -> _Axis:
    """An axis whose ends and ticks are multiples of 1, 2 or 5 times a power of ten."""
    if high <= low:
        margin = abs(low) * 0.1 or 1.0
        low, high = low - margin, high + margin
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    start, end = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return _Axis(start * step, end * step, [place * step for place in range(start, end + 1)], log=False)


def _log_axis(low: float, high: float) -> _Axis:
    start, end = math.floor(math.log10(low)), math.ceil(math.log10(high))
    stride = max(1, round((end - start) / 4))
    ticks = [10.0**power for power in range(start, end + 1, stride)]
    return _Axis(10.0**start, 10.0**end, ticks, log=True)
