"""Line charts, as PNG on light or dark paper, and as the numbers that they show."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

# Small enough that the letters can be read on a phone, on which the chart is as wide as the screen.
_INCHES, _DPI = (5.2, 3.3), 150
_DARK = {"figure.facecolor": "#1b1f24", "axes.facecolor": "#1b1f24", "savefig.facecolor": "#1b1f24"}
_STYLES = {False: ["default"], True: ["default", "dark_background", _DARK]}

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Chart:
    """Lines over a common axis.

    Attributes:
        name: a word for the names of files.
        title: what is shown, a line.
        x_label: what the horizontal axis shows, with its unit.
        y_label: what the vertical axis shows, with its unit.
        lines: points (x, y) by the name of their line, in falling or rising x.
        ticks: names of the x 0, 1, 2, ..., if they stand for groups.
        logarithmic: which axes are logarithmic: "", "x", "y" or "xy".
        top: the largest y that is shown (default: what the points need). The axis starts at 0
            unless it is logarithmic.
        diagonal: whether a faint line from (0, 0) to (top, top) shows where x and y are equal.

    Example:
        >>> chart = Chart("recall", "Recall", "K", "percent", {"both": [(1, 20.0), (5, 50.0)]})
        >>> chart.csv()
        'line,K,percent\\nboth,1,20.0\\nboth,5,50.0\\n'
    """

    name: str
    title: str
    x_label: str
    y_label: str
    lines: Mapping[str, Points]
    ticks: Sequence[str] = ()
    logarithmic: str = ""
    top: float | None = None
    diagonal: bool = False

    def png(self, dark: bool = False) -> bytes:
        """Returns the chart as PNG, 780 x 495 pixels."""
        with style.context(_STYLES[dark]):
            figure = Figure(figsize=_INCHES, dpi=_DPI, layout="constrained")
            self.draw(figure.subplots())
            stream = io.BytesIO()
            figure.savefig(stream, format="png")
        return stream.getvalue()

    def csv(self) -> str:
        """Returns the points as CSV: the line, x (or its name), y."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["line", self.x_label, self.y_label])
        for name, points in self.lines.items():
            for x, y in points:
                writer.writerow([name, self.ticks[int(x)] if self.ticks else x, y])
        return stream.getvalue()

    def draw(self, axes: Axes) -> None:
        """Draws the chart."""
        if self.diagonal:
            axes.plot([0, self.top], [0, self.top], color="0.6", linewidth=1)
        for name, points in self.lines.items():
            marker = "o-" if len(points) <= 40 else "-"
            axes.plot(*zip(*points, strict=True), marker, markersize=3.5, label=_drawable(name))
        axes.set(xlabel=_drawable(self.x_label), ylabel=_drawable(self.y_label))
        axes.set_title(_drawable(self.title), loc="left", fontsize="medium")
        axes.grid(alpha=0.25)
        if self.ticks:
            axes.set_xticks(range(len(self.ticks)), self.ticks)
        if "x" in self.logarithmic:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.10g}"))
        if "y" in self.logarithmic:
            axes.set_yscale("symlog", linthresh=1)
            axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,.10g}"))
            axes.yaxis.set_minor_locator(NullLocator())
        # A little more, so that a line at the top is no border.
        axes.set_ylim(0, self.top and 1.02 * self.top)
        if len(self.lines) > 1 or (self.lines and self.diagonal):
            axes.legend(frameon=False, fontsize="small")


def _drawable(text: str) -> str:
    """Returns text that a figure takes: no formulas, and a mark for letters that fonts lack."""
    return "".join(sign if sign.isascii() else "?" for sign in text).replace("$", r"\$")
