"""Writes the results of an ablation as a table and learning curves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tf_dpce.ablations.run import SPLIT, curve
from tf_dpce.files import publish_file

TABLE_FILE = "table.md"
CURVES_FILE = "curves.png"

_RANKS = {"r1": "R@1", "r5": "R@5", "r10": "R@10", "medr": "MedR"}
_DIRECTIONS = {"image_to_text": "image to text", "text_to_image": "text to image"}


def write_table(results: Mapping[str, Any], out: Path) -> Path:
    """Writes `table.md`, a row for each variant and data set that it was scored on.

    Args:
        results: what `ablation.json` holds.
        out: folder of the ablation.

    Returns:
        The path of the table.
    """
    question = results["question"]
    heads = ["variant", "scored on", "text parameters", "epochs", "seconds", "words known"]
    heads += [f"{way} {head}" for way in _DIRECTIONS.values() for head in _RANKS.values()]
    rows = [
        [
            name,
            target,
            f"{entry['text_parameters']:,}",
            " + ".join(map(str, entry["epochs"])),
            f"{entry['seconds']:.0f}",
            f"{metrics['vocabulary']['known_words']:.1f} %",
            *(f"{metrics[way][rank]:.1f}" for way in _DIRECTIONS for rank in _RANKS),
            f"{metrics['rsum']:.1f}",
        ]
        for name, entry in results["variants"].items()
        for target, metrics in entry["metrics"].items()
    ]
    lines = [
        f"# {question['name'].replace('_', ' ')}",
        "",
        f"`{results['command']}`",
        "",
        f"Percent and median ranks on the {SPLIT} split, with the weights at the end of training, "
        f"seed {question['seed']}. The seconds are those of training without validation.",
        "",
        *(f"- `{folder}`: split `{digest}`" for folder, digest in results["data"].items()),
        "",
        *(f"| {' | '.join(row)} |" for row in ([*heads, "rsum"], ["---"] * 15, *rows)),
    ]
    path = out / TABLE_FILE
    with publish_file(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n")
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
        FigureCanvasAgg(figure).print_png(str(temporary))
    return path
