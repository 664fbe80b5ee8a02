"""Measures what training and serving cost on this machine: `python -m benchmarks NAME`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.table import Table

from pipelines._verb import run_verb, say_files, verb_parser
from tf_dpce.config import from_dict, preset_names, preset_values
from tf_dpce.files import write_json
from tf_dpce.machine import code_version, machine_facts

if TYPE_CHECKING:
    from benchmarks.timing import Row

Name = Literal["mining", "step", "classifier", "encoders", "serving"]
NAMES = get_args(Name)
PRESET = "flickr8k_paper"
_HELP = (
    "mining: a training step with paired, mined and in-batch negatives; step: a training step "
    "against a plain matrix product; classifier: the classifier alone, sampled and exact, up to a "
    "million classes; encoders: exported encoders, beside OpenVINO and ONNX Runtime if they are "
    "installed; serving: the development server under 1, 8 and 64 clients"
)


def build_parser() -> ArgumentParser:
    """Returns the parser of the command line."""
    parser = verb_parser("benchmark", "Measures what training and serving cost on this machine.")
    parser.prog = "python -m benchmarks"
    parser.add_argument("names", nargs="+", type=Name, metavar="NAME", help=_HELP)
    parser.add_argument(
        "--preset", choices=preset_names(), default=PRESET, help=f"whose towers ({PRESET})"
    )
    parser.add_argument("--json", type=Path, help="file to write: figures, machine, commit, date")
    return parser


def run(arguments: Namespace) -> None:
    """Measures one benchmark after the other, shows each and saves them all."""
    config = from_dict(preset_values(arguments.preset))
    figures = {}
    for name in arguments.names:
        figures[name] = import_module(f"benchmarks.{name}").measure(config)
        Console().print(figures_table(name, figures[name]))
    if arguments.json:
        save_figures(arguments.json, figures, arguments.preset)
        say_files([arguments.json])


def save_figures(path: Path, figures: Mapping[str, Sequence[Row]], preset: str) -> None:
    """Writes figures as JSON, with the machine, the commit and the date."""
    command = shlex.join(["python", "-m", "benchmarks", *figures, "--preset", preset])
    saved = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": code_version(),
        "machine": machine_facts(),
        "command": f"{command} --json {path}",
        "benchmarks": {name: [asdict(row) for row in rows] for name, rows in figures.items()},
    }
    write_json(path, saved)


def figures_table(name: str, rows: Sequence[Row]) -> Table:
    """Returns the rows of a benchmark as a table."""
    table = Table(title=name)
    table.add_column("")
    for heading in ("median", "low", "high"):
        table.add_column(heading, justify="right")
    for heading in ("unit", "ratio", "to"):
        table.add_column(heading)
    for row in rows:
        ratio = ("", "")
        if row.ratio:
            low, high = row.ratio.low, row.ratio.high
            ratio = (f"{row.ratio.median:.2f} ({low:.2f} to {high:.2f})", row.ratio.to)
        spread = (_short(value) for value in (row.median, row.low, row.high))
        table.add_row(row.name, *spread, row.unit, *ratio)
    return table


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


if __name__ == "__main__":
    sys.exit(run_verb(build_parser, run))
