"""Writes what was measured into a page of the docs: `python -m benchmarks.table FILE...`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.pairs import NAMES, PACKAGES, RESULTS
from benchmarks.timing import shown
from pipelines._verb import options_verb, say_files
from tf_dpce.errors import UserError
from tf_dpce.files import read_json

_BEGIN, _END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"
_PAGE = Path("docs/peers.md")
_HEADINGS = "| {} | a second | ours is faster by | goal | peak MiB |\n|---|---|---|---|---|\n"
_PLOT_STEP = 0.24  # inches of a bar
_RATIOS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20)
_PACKAGES = ("tensorflow", "keras", "numpy", *PACKAGES)


def run(files: list[Path] | None = None, page: Path = _PAGE) -> None:
    """Writes a table and a plot of measured pairs into a page, between two marks.

    Args:
        files: JSON files that benchmarks.pairs wrote (default: all of benchmarks/results).
        page: page to change; the plot lies beside it, under its name.
    """
    known = (RESULTS / f"{name}.json" for name in NAMES)
    found = map(_measured, files or filter(Path.exists, known))
    measured = sorted(found, key=lambda one: NAMES.index(one["name"]))
    text, plot = page.read_text(encoding="utf-8"), page.with_suffix(".png")
    if text.count(_BEGIN) != 1 or text.count(_END) != 1:
        raise UserError("benchmark.marks", f"{page} has no place for a table between marks", page)
    before, _, rest = text.partition(_BEGIN)
    tables = "\n".join(map(table, measured))
    image = f"\n![Our speed over that of each peer, and the goals]({plot.name})\n"
    page.write_text(f"{before}{_BEGIN}\n{tables}{image}\n{_END}{rest.partition(_END)[2]}")
    plot.write_bytes(drawn(measured))
    say_files([page, plot])


def table(measured: Mapping[str, Any]) -> str:
    """Returns what was measured of one name as Markdown.

    Args:
        measured: the content of a file.
    """
    machine = measured["machine"]
    text = [f"### `{measured['name']}`\n\n"]
    for case, found in measured["cases"].items():
        ours, *peers = found["rows"]
        text.append(_HEADINGS.format(f"{case} ({ours['unit'].removesuffix(' a second')})"))
        text += [_line(row) for row in (ours, *peers)]
        text += [f"\n{side} is left out: {why}.\n" for side, why in found["left_out"].items()]
        text.append("\n")
    packages = ", ".join(f"{name} {machine[name]}" for name in _PACKAGES if name in machine)
    images = {"drawn": "drawn images", "of a folder": "images of a folder"}[measured["images"]]
    rounds = {found["rounds"] for found in measured["cases"].values()}
    text.append(
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB; {packages}; "
        f"{images}; {'/'.join(map(str, sorted(rounds)))} rounds; commit {measured['commit'][:7]}, "
        f"{measured['date'][:10]}.\n"
    )
    return "".join(text)


def drawn(measured: Sequence[Mapping[str, Any]]) -> bytes:
    """Returns a plot as PNG: our speed over each peer's, with the lowest and highest round.

    Args:
        measured: the contents of files.
    """
    import io

    from matplotlib.figure import Figure

    bars = list(_bars(measured))
    figure = Figure(figsize=(7.5, 1 + _PLOT_STEP * len(bars)), dpi=110, layout="constrained")
    axes = figure.subplots()
    places = range(len(bars))
    for place, (_, speed, goal) in zip(places, bars, strict=True):
        reached = goal is None or speed["median"] >= goal
        axes.plot([speed["low"], speed["high"]], [place, place], color="0.6", linewidth=2)
        axes.plot(speed["median"], place, "o", color="C0" if reached else "C1", markersize=5)
        if goal is not None:
            axes.plot(goal, place, "|", color="black", markersize=11)
    axes.axvline(1, color="0.8", linewidth=1, zorder=0)
    axes.set_xscale("log")
    axes.set_xticks(_RATIOS, [f"{ratio:g}" for ratio in _RATIOS])
    axes.set_yticks(list(places), [name for name, *_ in bars], fontsize="x-small")
    axes.set_ylim(len(bars) - 0.5, -0.5)
    said = "our speed over the peer's; a stroke is the goal, orange has missed it"
    axes.set_xlabel(said, loc="right")
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def _measured(path: Path) -> dict[str, Any]:
    found = read_json(path)
    if not isinstance(found, dict) or found.get("name") not in NAMES or "cases" not in found:
        raise UserError("benchmark.file", f"{path} holds no pairs: give what they wrote", path)
    return found


def _bars(measured: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, dict, float | None]]:
    for one in measured:
        for case, found in one["cases"].items():
            for row in found["rows"][1:]:
                yield f"{one['name']}, {case}: {row['name']}", row["speed"], row["goal"]


def _line(row: Mapping[str, Any]) -> str:
    median, low, high = (shown(row[key]) for key in ("median", "low", "high"))
    figures = f"{median} ({low} to {high})"
    faster = goal = ""
    if speed := row.get("speed"):
        faster = "{median:.2f} ({low:.2f} to {high:.2f})".format_map(speed)
        if row["goal"] is not None:
            verdict = "met" if speed["median"] >= row["goal"] else "missed"
            goal = f"{row['goal']:g}, {verdict}"
    return f"| {row['name']} | {figures} | {faster} | {goal} | {row['memory']:,.0f} |\n"


build_parser, main = options_verb("benchmarks.table", run)


if __name__ == "__main__":
    sys.exit(main())
