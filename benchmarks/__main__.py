"""Measures what training and serving cost on this machine: `python -m benchmarks NAME`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from benchmarks.timing import Row, shown
from pipelines._verb import options_verb, say_files
from tf_dpce.config import from_dict, preset_values
from tf_dpce.files import write_json
from tf_dpce.machine import circumstances

Name = Literal[
    "mining", "step", "monitoring", "classifier", "precision", "serving", "search", "page"
]
PRESET = "flickr8k_paper"


def run(
    names: list[Name],
    /,
    preset: str = PRESET,
    embeddings: Path | None = None,
    run: Path | None = None,
    data: Path | None = None,
    json: Path | None = None,
) -> None:
    """Measures what training and serving cost on this machine.

    Args:
        names: mining: a training step with paired, mined and in-batch negatives; step: a training
            step over cached features; monitoring: a training with and without TensorBoard's files;
            classifier: the classifier alone, sampled and exact, up to a million classes; precision:
            a run's encoders in LiteRT, in float32 and less; serving: the development server under
            1, 8 and 64 clients; search: an index of 100,000 and of a million images; page: hits on
            the page, beside their search.
        preset: whose towers.
        embeddings: for search: folder that embed wrote of images and texts.
        run: for precision: run folder.
        data: for precision: data that it was trained on.
        json: file to write: figures, machine, commit, date.
    """
    config = from_dict(preset_values(preset))
    settings = {"search": {"embeddings": embeddings}, "precision": {"run": run, "data": data}}
    figures = {}
    for name in names:
        measure = import_module(f"benchmarks.{name}").measure
        figures[name] = measure(config, **settings.get(name, {}))
        Console().print(figures_table(name, figures[name]))
    if json:
        options = {"embeddings": embeddings, "run": run, "data": data}
        options |= {"preset": preset, "json": json}
        given = [(f"--{name}", str(value)) for name, value in options.items() if value]
        saved = {
            **circumstances(),
            "command": shlex.join(["python", "-m", "benchmarks", *figures, *chain(*given)]),
            "benchmarks": figures,
        }
        write_json(json, saved)
        say_files([json])


def figures_table(name: str, rows: Sequence[Row]) -> Table:
    """Returns the rows of a benchmark as a table."""
    table = Table(title=name)
    table.add_column("")
    for heading in ("median", "low", "high"):
        table.add_column(heading, justify="right")
    for heading in ("unit", "ratio", "to"):
        table.add_column(heading)
    for row in rows:
        figures = (shown(row[key]) for key in ("median", "low", "high"))
        cells = [row["name"], *figures, row["unit"]]
        if ratio := row.get("ratio"):
            cells += ["{median:.2f} ({low:.2f} to {high:.2f})".format_map(ratio), ratio["to"]]
        table.add_row(*cells)
    return table


build_parser, main = options_verb("benchmarks", run)


if __name__ == "__main__":
    sys.exit(main())
