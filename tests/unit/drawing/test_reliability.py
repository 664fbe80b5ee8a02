"""The figure of probabilities: of bins with enough hits, on axes from 0 to 1."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from tf_dpce.drawing.reliability import draw_reliability, reliability_charts


def test_bins_of_few_hits_are_no_points_and_without_any_there_are_axes(tmp_path: Path):
    archive = {"items": 20, "error": 0.1, "reliability": [(0.2, 0.6, 20), (0.8, 0.4, 19)]}
    measured = {"image_to_text": [archive], "text_to_image": [{**archive, "reliability": []}]}
    lines = [chart.lines for chart in reliability_charts(measured)]
    assert lines == [{"20 items: error 10.0 points": [(0.2, 0.6)]}, {}]
    with Image.open(draw_reliability(measured, tmp_path / "figure.png")) as image:
        left, right = (image.convert("L").crop((x, 40, x + 540, 500)) for x in (0, 540))
    # Axes are alike, and a point is beside them.
    assert left.getextrema() == right.getextrema() == (0, 255) and left.tobytes() != right.tobytes()
