"""A figure of how far probabilities can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tf_dpce.files import publish_file

LEAST_HITS = 20  # hits of a point; the share of fewer is mostly chance


def draw_reliability(measured: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> Path:
    """Draws the share of right hits over their probability, for each direction and archive.

    Args:
        measured: what `measure_calibration` returns.
        path: the file to write, NAME.png.

    Returns:
        The path.
    """
    figure = Figure(figsize=(9, 4.6), dpi=120, layout="constrained")
    for axes, (direction, archives) in zip(figure.subplots(1, 2), measured.items(), strict=True):
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        for archive in archives:
            points = [each[:2] for each in archive["reliability"] if each[2] >= LEAST_HITS]
            label = f"{archive['items']:,} items: error {100 * archive['error']:.1f} points"
            # There may be none.
            axes.plot(*np.reshape(points, (-1, 2)).T, "o-", markersize=4, label=label)
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="probability of the first hit")
        axes.set_title(direction.replace("_", " "), loc="left")
        axes.legend(loc="upper left", frameon=False)
        axes.grid(alpha=0.25)
    figure.axes[0].set_ylabel("share that is right")
    with publish_file(path) as temporary:
        FigureCanvasAgg(figure).print_png(str(temporary))
    return path
