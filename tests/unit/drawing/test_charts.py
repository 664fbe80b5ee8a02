"""Charts: lines on light and on dark paper, and the numbers that they show."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
from PIL import Image

from tf_dpce.drawing.charts import Chart

CHART = Chart("recall", "Recall", "K", "percent", {"a": [(1, 20.0), (5, 50.0)], "b": [(2, 0.5)]})


def pixels(chart: Chart, dark: bool = False) -> np.ndarray:
    with Image.open(io.BytesIO(chart.png(dark))) as image:
        return np.asarray(image.convert("RGB"), int)


def test_the_table_has_the_points_that_are_drawn():
    assert CHART.csv() == "line,K,percent\na,1,20.0\na,5,50.0\nb,2,0.5\n"
    named = replace(CHART, lines={"a, b": [(0, 1), (1, 3)]}, ticks=["one", "2 to 3"])
    assert named.csv() == 'line,K,percent\n"a, b",one,1\n"a, b",2 to 3,3\n'


def test_paper_is_light_or_dark_and_lines_are_drawn_on_both():
    light, dark = pixels(CHART), pixels(CHART, dark=True)
    assert light.shape == dark.shape == (495, 780, 3)
    # Most of a chart is paper.
    assert np.median(light) == 255 and np.median(dark) < 50
    without = replace(CHART, lines={"b": CHART.lines["b"]}, top=50)
    for theme in (False, True):
        assert (pixels(CHART, theme) != pixels(without, theme)).any()
    # The style of one chart is not left to the next.
    assert (pixels(CHART) == light).all()


def test_any_text_and_any_number_of_points_can_be_drawn():
    lines = {"$x^$ 狗 \\frac": [(1, 5)], "none": []}
    for axes in ("", "x", "y", "xy"):
        chart = replace(CHART, lines=lines, title="a_b $", logarithmic=axes)
        assert pixels(chart).shape == (495, 780, 3)
    assert pixels(replace(CHART, lines={}, top=1.0, diagonal=True)).shape == (495, 780, 3)
