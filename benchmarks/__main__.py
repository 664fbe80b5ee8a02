"""Measures what training and serving cost on this machine: `python -m benchmarks NAME`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.table import Table

from pipelines._verb import run_verb, say_files, verb_parser
from tf_dpce.config import from_dict, preset_values
from tf_dpce.files import write_json
from tf_dpce.machine import code_version, machine_facts

if TYPE_CHECKING:
    from benchmarks.timing import Row

Name = Literal[
    "mining", "step", "monitoring", "classifier", "precision", "serving", "search", "page"
]
PRESET = "flickr8k_paper"
# What a benchmark takes beside the preset.
_OPTIONS = {"search": ["embeddings"], "precision": ["run", "data"]}
_HELP = (
    "mining: a training step with paired, mined and in-batch negatives; step: a training step "
    "over cached features; monitoring: a training with and without TensorBoard's files; "
    "classifier: the classifier alone, sampled and exact, up to a "
    "million classes; precision: a run's encoders in LiteRT, in float32 and less; serving: the "
    "development server under 1, 8 and 64 clients; search: an index of 100,000 and of a million "
    "images; page: hits on the page, beside their search"
)


def build_parser() -> ArgumentParser:
    """Returns the parser of the command line."""
    parser = verb_parser("benchmark", "Measures what training and serving cost on this machine.")
    parser.prog = "python -m benchmarks"
    parser.add_argument("names", nargs="+", type=Name, metavar="NAME", help=_HELP)
    parser.add_argument("--preset", type=str, default=PRESET, help="whose towers")
    parser.add_argument(
        "--embeddings", type=Path, help="for search: folder that embed wrote of images and texts"
    )
    parser.add_argument("--run", type=Path, help="for precision: run folder")
    parser.add_argument("--data", type=Path, help="for precision: data that it was trained on")
    parser.add_argument("--json", type=Path, help="file to write: figures, machine, commit, date")
    return parser


def run(arguments: Namespace) -> None:
    """Measures one benchmark after the other, shows each and saves them all."""
    config = from_dict(preset_values(arguments.preset))
    figures = {}
    for name in arguments.names:
        settings = {option: arguments[option] for option in _OPTIONS.get(name, ())}
        figures[name] = import_module(f"benchmarks.{name}").measure(config, **settings)
        Console().print(figures_table(name, figures[name]))
    if arguments.json:
        names = (*_OPTIONS["search"], *_OPTIONS["precision"], "preset", "json")
        given = ((f"--{name}", str(arguments[name])) for name in names if arguments[name])
        saved = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": code_version(),
            "machine": machine_facts(),
            "command": shlex.join(["python", "-m", "benchmarks", *figures, *chain(*given)]),
            "benchmarks": figures,
        }
        write_json(arguments.json, saved)
        say_files([arguments.json])


def figures_table(name: str, rows: Sequence[Row]) -> Table:
    """Returns the rows of a benchmark as a table."""
    table = Table(title=name)
    table.add_column("")
    for heading in ("median", "low", "high"):
        table.add_column(heading, justify="right")
    for heading in ("unit", "ratio", "to"):
        table.add_column(heading)
    for row in rows:
        cells = [row["name"], *(_short(row[key]) for key in ("median", "low", "high")), row["unit"]]
        if ratio := row.get("ratio"):
            shown = "{median:.2f} ({low:.2f} to {high:.2f})".format_map(ratio)
            cells += [shown, ratio["to"]]
        table.add_row(*cells)
    return table


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


if __name__ == "__main__":
    sys.exit(run_verb(build_parser, run))
