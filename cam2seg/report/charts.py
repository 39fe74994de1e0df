"""Line charts and histograms as SVG, drawn with plain arithmetic.

Every line has a dark edge, because light colours such as yellow do not show on white paper.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .page import Html, join, tag
from .pictures import COLOURS
from .style import INK, MUTED, PAPER, RULE

WIDTH, HEIGHT = 360, 240  # of the whole chart, in units of the SVG
LEFT, RIGHT, TOP, BOTTOM = 60, 344, 10, 190  # of the area inside the axes
DASHES = (None, "7 3", "2 3", "9 3 2 3")


class Axis(NamedTuple):
    """What an axis shows."""

    label: str  # with the unit
    low: float
    high: float
    log: bool = False
    whole: bool = False  # whether it counts things, so that its ticks are whole numbers


class Line(NamedTuple):
    """A line of a chart."""

    name: str
    points: np.ndarray  # float (n, 2), in the units of the axes
    colour: str = INK
    dash: str | None = None
    width: float = 2.0


def class_colour(c: int) -> str:
    """The colour of class c, which is that of its painted masks."""
    return "#{:02x}{:02x}{:02x}".format(*COLOURS[c % len(COLOURS)])


def class_line(c: int, name: str, points: np.ndarray) -> Line:
    """The line of class c. From the eighth class on the colours come again, with dashes."""
    return Line(name, points, class_colour(c), DASHES[c // len(COLOURS) % len(DASHES)])


def ticks(axis: Axis, most: int = 6) -> list[float]:
    """Round numbers on an axis, `most` of them or fewer: multiples of 1, 2 or 5 times a power of
    ten, and powers of ten on a logarithmic axis."""
    if axis.log:
        low, high = math.ceil(math.log10(axis.low) - 1e-9), math.floor(math.log10(axis.high) + 1e-9)
        return [10.0 ** k for k in range(low, high + 1)]
    span = axis.high - axis.low
    first = math.floor(math.log10(span / most))
    step = next(s for k in (first, first + 1) for s in (10.0 ** k, 2 * 10.0 ** k, 5 * 10.0 ** k)
                if math.floor(axis.high / s + 1e-9) - math.ceil(axis.low / s - 1e-9) < most)
    step = max(1.0, step) if axis.whole else step
    return [n * step for n in range(math.ceil(axis.low / step - 1e-9),
                                    math.floor(axis.high / step + 1e-9) + 1)]


def place(axis: Axis, values: np.ndarray | float, start: float, end: float) -> np.ndarray:
    """Where values lie between `start`, the place of axis.low, and `end`, that of axis.high."""
    values, low, high = np.asarray(values, np.float64), axis.low, axis.high
    if axis.log:
        values, low, high = np.log10(np.maximum(values, low)), math.log10(low), math.log10(high)
    return start + (values - low) / (high - low) * (end - start)


def thin(points: np.ndarray) -> np.ndarray:
    """The points (n, 2) of a line on a grid of half a unit, without those that change nothing: a
    point that comes twice, and one on the straight line between its neighbours."""
    points = np.round(points * 2) / 2
    if len(points) < 2:
        return points
    points = points[np.append(True, (np.diff(points, axis=0) != 0).any(axis=1))]
    before, after = np.diff(points[:-1], axis=0), np.diff(points[1:], axis=0)
    turns = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
    back = (before * after).sum(axis=1) < 0
    return points[np.concatenate([[True], turns | back, [True]])] if len(points) > 2 else points


def line_chart(title: str, x: Axis, y: Axis, lines: Sequence[Line]) -> Html:
    """A figure with lines, whose caption is the title."""
    drawn = []
    for line in lines:
        if len(line.points):
            d = _path(thin(np.stack([place(x, line.points[:, 0], LEFT, RIGHT),
                                     place(y, line.points[:, 1], BOTTOM, TOP)], axis=1)))
            drawn.append(_cased(d, line))
    said = f"{title}. {x.label}: {_number(x.low)} to {_number(x.high)}; {y.label}: " \
        f"{_number(y.low)} to {_number(y.high)}. Lines: {', '.join(n.name for n in lines)}."
    return _figure(title, said, [_axes(x, y), *drawn])


def histogram(title: str, x: Axis, label: str, edges: np.ndarray, counts: Sequence[np.ndarray],
              colour: str) -> Html:
    """A figure with bars, counts[0], in a colour and, where there are two, counts[1] as an outline.

    edges: float (n + 1,); counts: int (n,) each; label: that of the axis of counts.
    """
    y = Axis(label, 0, max(1, *(int(n.max()) for n in counts)) * 1.05, whole=True)
    at = place(x, edges, LEFT, RIGHT)
    drawn = [tag("rect", x=f"{a:.1f}", y=f"{top:.1f}", width=f"{b - a:.1f}",
                 height=f"{BOTTOM - top:.1f}", fill=colour, stroke=INK, stroke_width="0.8")
             for a, b, top, n in zip(at[:-1], at[1:], place(y, counts[0], BOTTOM, TOP), counts[0],
                                     strict=True) if n]
    for n in counts[1:]:
        tops = np.repeat(place(y, n, BOTTOM, TOP), 2)
        corners = np.stack([np.repeat(at, 2), np.concatenate([[BOTTOM], tops, [BOTTOM]])], axis=1)
        drawn.append(tag("path", d=_path(thin(corners)), fill="none", stroke=INK,
                         stroke_width="2", stroke_dasharray="4 2"))
    said = f"{title}. {x.label}: {_number(x.low)} to {_number(x.high)}; {label}: at most " \
        f"{max(int(n.max()) for n in counts)}."
    return _figure(title, said, [_axes(x, y), *drawn])


def legend(lines: Sequence[Line]) -> Html:
    """A list that says which line is which. A class has a thick line, whose colour is seen well."""
    entries = []
    for line in lines:
        shown = line if line.colour in (INK, MUTED) else line._replace(width=7.0)
        entries.append(tag("li", tag("svg", _cased("M1 7 H31", shown), viewBox="0 0 32 14",
                                     aria_hidden="true"), line.name))
    return tag("ul", *entries, class_="legend")


def _cased(d, line):
    """A path in its colour on a wider dark one."""
    common = {"d": d, "fill": "none", "stroke_linejoin": "round", "stroke_dasharray": line.dash}
    edge = tag("path", stroke=INK, stroke_width=f"{line.width + 1.4:g}", **common)
    return join(([] if line.colour in (INK, MUTED) else [edge])
                + [tag("path", stroke=line.colour, stroke_width=f"{line.width:g}", **common)], "")


def _path(points):
    return "M" + " L".join(f"{a:g} {b:g}" for a, b in points)


def _axes(x, y):
    """The frame, the ticks with their numbers, and the labels."""
    parts = [tag("rect", x=LEFT, y=TOP, width=RIGHT - LEFT, height=BOTTOM - TOP, fill=PAPER,
                 stroke=RULE)]
    for value in ticks(x):
        at = f"{place(x, value, LEFT, RIGHT):.1f}"
        parts += [tag("path", d=f"M{at} {BOTTOM} v5", stroke=RULE),
                  tag("text", _number(value), x=at, y=BOTTOM + 19, text_anchor="middle")]
    for value in ticks(y):
        at = place(y, value, BOTTOM, TOP)
        parts += [tag("path", d=f"M{LEFT - 5} {at:.1f} H{RIGHT}", stroke=RULE, stroke_width="0.4"),
                  tag("text", _number(value), x=LEFT - 8, y=f"{at + 4:.1f}", text_anchor="end")]
    middle = (TOP + BOTTOM) / 2
    parts += [tag("text", x.label, x=(LEFT + RIGHT) / 2, y=HEIGHT - 10, text_anchor="middle"),
              tag("text", y.label, x=13, y=middle, text_anchor="middle",
                  transform=f"rotate(-90 13 {middle:g})")]
    return join(parts)


def _number(value):
    """A number as short as a tick needs it."""
    return f"{value:.6g}"


def _figure(title, said, parts):
    svg = tag("svg", *parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=said)
    return tag("figure", svg, tag("figcaption", title))
