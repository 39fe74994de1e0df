"""The charts of the report: their geometry in closed form, and the numbers behind them against
loops that say the same in plain words."""

import re

import numpy as np
import pytest
from pages import Page

from cam2seg import masks, metrics
from cam2seg.report import charts, curves, pictures, style
from cam2seg.report.charts import BOTTOM, LEFT, RIGHT, TOP, Axis, Line

UNIT = Axis("x (s)", 0, 1)


@pytest.mark.parametrize("low, high, expected", [
    (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (0, 10, [0, 2, 4, 6, 8, 10]), (1, 6, [1, 2, 3, 4, 5, 6]),
    (0, 6, [0, 2, 4, 6]), (1, 20, [5, 10, 15, 20]), (0, 0.35, [0, 0.1, 0.2, 0.3]),
    (0.53, 0.74, [0.55, 0.6, 0.65, 0.7]), (0, 5150, [0, 1000, 2000, 3000, 4000, 5000])])
def test_ticks_are_round_numbers(low, high, expected):
    assert charts.ticks(Axis("", low, high)) == pytest.approx(expected)


def test_ticks_of_a_count_are_whole_numbers():
    assert charts.ticks(Axis("", 0, 2.1, whole=True)) == [0, 1, 2]
    assert charts.ticks(Axis("", 1, 2, whole=True)) == [1, 2]
    assert charts.ticks(Axis("", 0, 21, whole=True)) == charts.ticks(Axis("", 0, 21))
    bars = charts.histogram("t", UNIT, "masks", np.array([0.0, 1]), [np.array([1])], "#123456")
    assert re.findall('text-anchor="end">([^<]*)<', bars) == ["0", "1"]


def test_ticks_of_a_logarithmic_axis_are_powers_of_ten():
    assert charts.ticks(Axis("", 0.01, 100, log=True)) == pytest.approx([0.01, 0.1, 1, 10, 100])


def test_values_lie_where_their_axis_says():
    axis = Axis("", 2, 10)
    assert charts.place(axis, np.array([2, 4, 10]), 100, 300).tolist() == [100, 150, 300]
    assert charts.place(axis, 4, 200, 0) == 150  # upwards
    axis = Axis("", 0.01, 100, log=True)
    assert charts.place(axis, np.array([0.01, 1, 10, 0]), 0, 40) == pytest.approx([0, 20, 30, 0])


def path(svg, stroke):
    """The corners of the paths of that colour."""
    found = [p["d"] for p in Page(svg).all("path") if p.get("stroke") == stroke]
    return [[tuple(map(float, point.split())) for point in d.removeprefix("M").split(" L")]
            for d in found]


def test_a_line_goes_through_its_points():
    points = np.array([[0.0, 0.0], [0.5, 1.0], [1.0, 0.25]])
    svg = charts.line_chart("title", UNIT, Axis("y (m)", 0, 1), [Line("a", points, "#123456")])
    middle = (LEFT + RIGHT) / 2
    assert path(svg, "#123456") == [[(LEFT, BOTTOM), (middle, TOP),
                                     (RIGHT, BOTTOM - 0.25 * (BOTTOM - TOP))]]
    text = Page(svg).text
    assert "x (s)" in text and "y (m)" in text and "0.2" in text and "title" in text


def test_a_light_colour_has_a_dark_edge_below_it():
    line = charts.class_line(3, "class 4", np.array([[0.0, 0], [1, 1]]))
    assert line.colour == "#f0e442" and line.dash is None
    drawn = Page(charts.line_chart("", UNIT, UNIT, [line])).all("path")[-2:]
    assert [p["stroke"] for p in drawn] == [style.INK, "#f0e442"]
    assert float(drawn[0]["stroke-width"]) > float(drawn[1]["stroke-width"])
    assert drawn[0]["d"] == drawn[1]["d"]


def test_a_class_has_the_colour_of_its_painted_masks():
    white = np.full((1, 1, 3), 255, np.uint8)
    for c in range(9):
        mask = np.zeros((c + 1, 1, 1), bool)
        mask[c] = True
        painted = pictures.paint(white, mask, alpha=1.0)[0, 0]
        assert charts.class_colour(c) == "#" + bytes(painted.tolist()).hex()
    assert charts.class_line(8, "", ()).dash and not charts.class_line(1, "", ()).dash


def test_thinning_leaves_the_line_as_it_is():
    points = np.array([[0, 0], [1, 0], [2, 0], [2, 0], [2, 3], [2, 1], [3.2, 2.2], [5, 3]])
    assert charts.thin(points).tolist() == [[0, 0], [2, 0], [2, 3], [2, 1], [3, 2], [5, 3]]
    assert charts.thin(points[:1]).tolist() == [[0, 0]]
    assert charts.thin(points[:2]).tolist() == [[0, 0], [1, 0]]


def test_bars_stand_on_the_axis_and_are_as_high_as_their_counts():
    edges, counts = np.array([0.0, 1, 2, 4]), np.array([2, 0, 4])
    svg = charts.histogram("t", Axis("x", 0, 4), "masks", edges, [counts, counts], "#123456")
    bars = [{k: float(b[k]) for k in ("x", "y", "width", "height")}
            for b in Page(svg).all("rect") if b["fill"] == "#123456"]
    wide, high = (RIGHT - LEFT) / 4, (BOTTOM - TOP) / (4 * 1.05)
    assert len(bars) == 2
    for bar, x, width, n in zip(bars, (0, 2), (1, 2), (2, 4), strict=True):
        assert bar["x"] == pytest.approx(LEFT + x * wide, abs=0.06)
        assert bar["width"] == pytest.approx(width * wide, abs=0.06)
        assert bar["height"] == pytest.approx(n * high, abs=0.06)
        assert bar["y"] + bar["height"] == pytest.approx(BOTTOM, abs=0.11)
    outline = path(svg, style.INK)[-1]
    assert outline[0] == (LEFT, BOTTOM) and outline[-1] == (RIGHT, BOTTOM)
    assert min(y for _, y in outline) == pytest.approx(BOTTOM - 4 * high, abs=0.5)


def test_a_roc_curve_is_that_of_a_loop_over_all_thresholds():
    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 2, 60), rng.integers(0, 12, 60) / 12  # with ties
    expected = [(0.0, 0.0)]
    for t in sorted(set(p.tolist()), reverse=True):
        true = sum(1 for a, b in zip(y, p) if a == 1 and b >= t)
        false = sum(1 for a, b in zip(y, p) if a == 0 and b >= t)
        expected.append((false / (y == 0).sum(), true / (y == 1).sum()))
    curve = curves.roc_curve(y, p)
    np.testing.assert_allclose(curve, expected, rtol=0, atol=1e-15)
    area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in zip(curve, curve[1:]))
    assert area == pytest.approx(metrics.roc_auc(y, p), abs=1e-12)


def test_a_roc_curve_of_many_images_is_a_short_line():
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 12568)
    curve = curves.roc_curve(y, rng.random(12568) + y / 2)
    svg = charts.line_chart("", UNIT, UNIT, [Line("a", curve, "#123456")])
    assert len(curve) > 12000 and len(svg) < 20_000


def test_areas_are_counted_in_bins_of_a_fifth_of_a_power_of_ten():
    pixels = np.full(7, 10_000)
    areas = np.array([0, 1, 2, 100, 159, 10_000, 5000])
    expected = np.zeros(20, int)
    for area in areas[1:]:
        share = 100 * area / 10_000
        expected[min(19, int(5 * (np.log10(share) + 2) + 1e-9))] += 1
    assert curves.area_histogram(areas, pixels).tolist() == expected.tolist()
    assert curves.area_histogram(np.array([1]), np.array([10**6])).tolist() == [1] + 19 * [0]
    assert curves.area_histogram(np.array([0]), np.array([4])).sum() == 0


def test_a_spread_has_both_ends():
    assert curves.spread(100, 5) == [0, 25, 50, 74, 99] and curves.spread(3, 5) == [0, 1, 2]
    assert curves.spread(0, 5) == curves.spread(5, 0) == [] and curves.spread(4, 1) == [0]


@pytest.fixture
def counted():
    """Counts of 5 images with 2 classes, and their maps and true masks (5, 2, 6, 7)."""
    rng = np.random.default_rng(2)
    maps, true = rng.random((5, 2, 6, 7)), rng.random((5, 2, 6, 7)) < 0.4
    true[0, 1] = False
    names = [str(i) for i in range(5)]
    rles = {(n, c): masks.rle_encode(true[i, c]) for i, n in enumerate(names) for c in range(2)}
    counts = curves.count_at_thresholds(names, rles, lambda n, c, size: maps[int(n), c],
                                        dict.fromkeys(names, (6, 7)), 2)
    probs = rng.random((5, 2))
    return curves.Counts(*counts, 1 - probs, probs), maps, true


def literal(maps, true, gate, confidence, least, threshold, present):
    """The mean Dice over the pairs of one class by a loop over images, and over both classes."""
    found = [[], []]
    for i in range(len(maps)):
        for c in range(2):
            made = maps[i, c] >= threshold
            if gate[i, c] < confidence or made.sum() < least:
                made = np.zeros_like(made)
            if true[i, c].any() or not present:
                found[c].append(metrics.dice(true[i, c], made))
    return [np.mean(found[0]), np.mean(found[1])], np.mean(found[0] + found[1])


@pytest.mark.parametrize("score, present", [("dice_pairs", False), ("dice_present", True)])
def test_dice_by_threshold_and_confidence_are_those_of_a_loop(counted, score, present):
    counts, maps, true = counted
    per_class, mean = curves.dice_by_threshold(counts, 0.4, 10, score)
    assert per_class.shape == (19, 2) and mean.shape == (19,)
    for t, threshold in enumerate(curves.THRESHOLDS):
        expected = literal(maps, true, counts.gate, 0.4, 10, threshold, present)
        np.testing.assert_allclose(per_class[t], expected[0], atol=1e-12)
        assert mean[t] == pytest.approx(expected[1], abs=1e-12)
    per_class, mean = curves.dice_by_confidence(counts, 0.52, 10, score)
    for k, confidence in enumerate(curves.CONFIDENCES):
        expected = literal(maps, true, counts.probs, confidence, 10, 0.5, present)
        np.testing.assert_allclose(per_class[k], expected[0], atol=1e-12)
        assert mean[k] == pytest.approx(expected[1], abs=1e-12)


def test_a_chart_says_in_words_what_it_shows():
    svg, = Page(charts.line_chart("Loss", UNIT, UNIT, [Line("held out", np.eye(2))])).all("svg")
    assert svg["role"] == "img" and re.search("Loss.*x .s.: 0 to 1.*held out", svg["aria-label"])
