"""A study on paper: its table and its learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tf_dpce.ablations.study import SPLIT, curve
from tf_dpce.files import publish_file

TABLE_FILE = "table.md"
CURVES_FILE = "curves.png"

_RANKS = ("r1", "r5", "r10", "medr")
_HEADINGS = ("R@1", "R@5", "R@10", "MedR")
_DIRECTIONS = {"image_to_text": "image to text", "text_to_image": "text to image"}
_FAINT = "#6c757d"
# Apart in hue and in lightness.
_COLOURS = (
    *("#1f5fa8", "#d9480f", "#2b8a3e", "#862e9c", "#c92a2a"),
    *("#0b7285", "#a67c00", "#495057", "#d6336c", "#5c940d"),
    *("#15aabf", "#f08c00", "#9775fa", "#000000"),
)
# Lines of text on the height of the figure: labels keep that far apart.
_LABELS = 22


def write_table(results: Mapping[str, Any], out: Path) -> Path:
    """Writes `table.md`: one row an arm, or one a source and target; returns its path.

    Args:
        results: what `study.json` holds.
        out: folder of the study.
    """
    transfer = results["study"] == "transfer"
    lines = [
        f"# {results['study'].replace('_', ' ')}",
        "",
        f"`{results['command']}`",
        "",
        f"Percent and median ranks on the {SPLIT} split, with the weights at the end of training; "
        f"{results['minutes']:g} minutes an arm, seed {results['seed']}.",
        "",
        *(f"- `{folder}`: split `{digest}`" for folder, digest in results["data"].items()),
        "",
        *(_transfer_rows(results) if transfer else _arm_rows(results)),
    ]
    path = out / TABLE_FILE
    with publish_file(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n")
    return path


def draw_curves(results: Mapping[str, Any], out: Path) -> Path:
    """Draws `curves.png`, rsum on the validation split over minutes of training; returns its path.

    Args:
        results: what `study.json` holds.
        out: folder of the study.
    """
    path = out / CURVES_FILE
    with publish_file(path) as temporary:
        FigureCanvasAgg(curves_figure(results, out)).print_png(str(temporary))
    return path


def curves_figure(results: Mapping[str, Any], out: Path) -> Figure:
    """Returns a figure of all arms: each a line with its name at its end, of two stages dashed.

    Args:
        results: what `study.json` holds.
        out: folder of the study.
    """
    figure = Figure(figsize=(9, 5.5), dpi=150, layout="constrained")
    axes = figure.subplots()
    arms = results["arms"]
    curves = {name: curve(out / name, entry["timing"]) for name, entry in arms.items()}
    right = max(points[-1][0] for points in curves.values())
    top = 1.1 * max(max(rsum for _, rsum in points) for points in curves.values()) or 1.0
    ends = _spread([points[-1][1] for points in curves.values()], top)
    axes.set(xlim=(0, 1.02 * right), ylim=(0, top), xlabel="minutes of training")
    for (name, points), end, colour in zip(curves.items(), ends, _cycle(curves), strict=True):
        style = "--o" if len(arms[name]["epochs"]) > 1 else "-o"
        axes.plot(*zip(*points, strict=True), style, color=colour, markersize=3)
        _label(axes, f"{name.replace('_', ' ')}  {points[-1][1]:.1f}", points[-1], end, colour)
    title = f"{results['study'].replace('_', ' ')}: rsum on the validation split"
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=_FAINT, alpha=0.25)
    return figure


def _label(axes: Axes, text: str, point: tuple[float, float], height: float, colour: str) -> None:
    """Writes a name beside the axes, with a thread to the end of its line."""
    axes.annotate(
        text,
        point,
        (1.02 * axes.get_xlim()[1], height),
        color=colour,
        va="center",
        # From the left end of the text, so that no line crosses another label.
        arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "relpos": (0, 0.5)},
        annotation_clip=False,
    )


def _arm_rows(results: Mapping[str, Any]) -> list[str]:
    heads = ["arm", "parameters of the text tower, without words", "epochs", "minutes"]
    rows = []
    for name, entry in results["arms"].items():
        (metrics,) = entry["metrics"].values()
        epochs = " + ".join(map(str, entry["epochs"]))
        size = f"{entry['text_parameters']:,}"
        rows.append([name, size, epochs, f"{entry['minutes']:.1f}", *_cells(metrics)])
    return _markdown([*heads, *_metric_heads()], rows)


def _transfer_rows(results: Mapping[str, Any]) -> list[str]:
    """Returns a square of rsum, source by target, and below it all that was measured."""
    arms = results["arms"]
    square = [
        [name, *(f"{metrics['rsum']:.1f}" for metrics in entry["metrics"].values())]
        for name, entry in arms.items()
    ]
    heads = ["trained on", "scored on", "images", "words known", "captions without one"]
    rows = [
        [source, target, f"{metrics['images']:,}", *_known(metrics), *_cells(metrics)]
        for source, entry in arms.items()
        for target, metrics in entry["metrics"].items()
    ]
    return [
        *_markdown(["rsum: trained on", *(f"scored on {name}" for name in arms)], square),
        "",
        *_markdown([*heads, *_metric_heads()], rows),
    ]


def _known(metrics: Mapping[str, Any]) -> list[str]:
    known = metrics["vocabulary"]
    shares = (known["known_words"], known["captions_without_known_word"])
    return [f"{share:.1f} %" for share in shares]


def _metric_heads() -> list[str]:
    return [f"{way} {head}" for way in _DIRECTIONS.values() for head in _HEADINGS] + ["rsum"]


def _cells(metrics: Mapping[str, Any]) -> list[str]:
    ranks = [f"{metrics[way][rank]:.1f}" for way in _DIRECTIONS for rank in _RANKS]
    return [*ranks, f"{metrics['rsum']:.1f}"]


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows)]


def _cycle(curves: Mapping[str, Any]) -> list[str]:
    return [_COLOURS[place % len(_COLOURS)] for place in range(len(curves))]


def _spread(values: Sequence[float], top: float) -> list[float]:
    """Returns heights for labels: the values', moved apart where they are too near."""
    order = sorted(range(len(values)), key=lambda place: values[place])
    heights = [values[place] for place in order]
    for low, high in pairwise(range(len(heights))):
        heights[high] = max(heights[high], heights[low] + top / _LABELS)
    # What was pushed beyond the top goes down again, and pushes those below it.
    heights[-1] = min(heights[-1], top)
    for low, high in reversed(list(pairwise(range(len(heights))))):
        heights[low] = min(heights[low], heights[high] - top / _LABELS)
    return [heights[order.index(place)] for place in range(len(values))]
