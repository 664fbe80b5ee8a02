"""Measures what training and serving cost on this machine: `python -m pipelines.benchmark`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from benchmarks.report import (
    BENCHMARKS,
    check_names,
    figures_table,
    measure,
    save_figures,
)
from pipelines._verb import progress, run_verb, say_files, verb_parser
from tf_dpce.config import from_dict, preset_values

PRESET = "flickr8k_paper"
_HELP = "; ".join(f"{name}: {line}" for name, line in BENCHMARKS.items())


def build_parser() -> ArgumentParser:
    """Returns the verb's parser."""
    parser = verb_parser("benchmark", "Measures what training and serving cost on this machine.")
    parser.add_argument("names", nargs="+", metavar="NAME", help=_HELP)
    parser.add_argument("--preset", default=PRESET, help=f"whose towers (default: {PRESET})")
    parser.add_argument("--json", type=Path, help="file to write: figures, machine, commit, date")
    return parser


def run(arguments: Namespace) -> None:
    """Measures one benchmark after the other, shows each and saves them all."""
    from rich.console import Console

    check_names(arguments.names)
    config = from_dict(preset_values(arguments.preset))
    figures = {}
    for name in arguments.names:
        with progress(f"{name}, rounds") as report:
            figures[name] = measure(name, config, report)
        Console().print(figures_table(name, figures[name]))
    if arguments.json:
        command = f"python -m pipelines.benchmark {' '.join(arguments.names)}"
        command += f" --preset {arguments.preset} --json {arguments.json}"
        save_figures(arguments.json, figures, {"preset": arguments.preset, "command": command})
        say_files([arguments.json])


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the verb and returns its exit status."""
    return run_verb(build_parser, run, argv)


if __name__ == "__main__":
    sys.exit(main())
