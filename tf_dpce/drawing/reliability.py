"""A figure of how far probabilities can be trusted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from tf_dpce.drawing.charts import Chart
from tf_dpce.files import publish_file

LEAST_HITS = 20  # hits of a point; the share of fewer is mostly chance

Measured = Mapping[str, Sequence[Mapping[str, Any]]]


def draw_reliability(measured: Measured, path: Path) -> Path:
    """Draws the share of right hits over their probability, for each direction and archive.

    Args:
        measured: what `measure_calibration` returns.
        path: the file to write, NAME.png.

    Returns:
        The path.
    """
    figure = Figure(figsize=(9, 4.6), dpi=120, layout="constrained")
    for axes, chart in zip(figure.subplots(1, 2), reliability_charts(measured), strict=True):
        chart.draw(axes)
    with publish_file(path) as temporary:
        figure.savefig(temporary, format="png")
    return path


def reliability_charts(measured: Measured) -> Iterator[Chart]:
    """Yields a chart of each direction, with a line for each archive that has points."""
    for direction, archives in measured.items():
        lines = {
            f"{archive['items']:,} items: error {100 * archive['error']:.1f} points": [
                tuple(each[:2]) for each in archive["reliability"] if each[2] >= LEAST_HITS
            ]
            for archive in archives
        }
        title = f"Share of first hits that are right, {direction.replace('_', ' ')}"
        axes = ("probability of the first hit", "share that is right")
        name = f"probabilities-{direction.replace('_', '-')}"
        drawn = {line: points for line, points in lines.items() if points}
        yield Chart(name, title, *axes, drawn, top=1.0, diagonal=True)
