"""Writes the results of an ablation as a table and learning curves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from tf_dpce.ablations.run import SPLIT, curve
from tf_dpce.files import publish_bytes, publish_file
from tf_dpce.templates import read_template

TABLE_FILE = "table.md"
CURVES_FILE = "curves.png"


def write_table(results: Mapping[str, Any], out: Path) -> Path:
    """Writes `table.md`, a row for each variant and data set that it was scored on.

    Args:
        results: what `ablation.json` holds.
        out: folder of the ablation.

    Returns:
        The path of the table.
    """
    text = read_template(__package__, TABLE_FILE).render(results, split=SPLIT)
    path = out / TABLE_FILE
    publish_bytes(path, text.encode())
    return path


def draw_curves(results: Mapping[str, Any], out: Path) -> Path:
    """Draws `curves.png`, rsum on the validation split over epochs of training.

    Args:
        results: what `ablation.json` holds.
        out: folder of the ablation.

    Returns:
        The path of the figure.
    """
    figure = Figure(figsize=(9, 5.5), dpi=150, layout="constrained")
    axes = figure.subplots()
    for place, (name, entry) in enumerate(results["variants"].items()):
        points = curve(out / name)
        # Variants of two stages are dashed; two rounds of the ten colours have other markers.
        style = ("--" if len(entry["epochs"]) > 1 else "-") + ("o" if place < 10 else "^")
        label = f"{name.replace('_', ' ')}  {points[-1][1]:.1f}"
        axes.plot(*zip(*points, strict=True), style, color=f"C{place}", markersize=3, label=label)
    axes.set(xlabel="epochs of training", ylim=(0, None))
    title = f"{results['question']['name'].replace('_', ' ')}: rsum on the validation split"
    axes.set_title(title, loc="left")
    axes.grid(axis="y", alpha=0.25)
    figure.legend(loc="outside right upper")
    path = out / CURVES_FILE
    with publish_file(path) as temporary:
        figure.savefig(temporary, format="png")
    return path
