"""Benchmarks by name, and their figures on screen and on disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.timing import Report, Row, silent
from tf_dpce.config import Config
from tf_dpce.errors import UserError
from tf_dpce.files import write_json
from tf_dpce.machine import code_version, machine_facts

BENCHMARKS = {
    "mining": "a training step with given, mined and in-batch negatives",
    "step": "a training step against a plain matrix product",
    "classifier": "the classifier alone, sampled and exact, up to a million classes",
    "encoders": "exported encoders, beside OpenVINO and ONNX Runtime where they are installed",
    "serving": "the development server under 1, 8 and 64 clients, and while a version is published",
}


def check_names(names: Iterable[str]) -> None:
    """Refuses names of benchmarks that there are not.

    Raises:
        UserError: one of them is unknown.
    """
    for name in names:
        if name not in BENCHMARKS:
            raise UserError(f"unknown benchmark {name}: one of {', '.join(BENCHMARKS)}")


def measure(name: str, config: Config, progress: Report = silent) -> list[Row]:
    """Runs a benchmark at its full size, with the towers of a configuration."""
    return import_module(f"benchmarks.{name}").measure(config, progress)


def save_figures(path: Path, figures: Mapping[str, Sequence[Row]], origin: dict[str, Any]) -> None:
    """Writes figures as JSON, atomically, with the machine, the commit and the date.

    Args:
        path: the file.
        figures: rows by the name of their benchmark.
        origin: how they came about: the command and its settings.
    """
    facts = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": code_version(),
        "machine": machine_facts(),
    }
    benchmarks = {name: [asdict(row) for row in rows] for name, rows in figures.items()}
    write_json(path, {**facts, **origin, "benchmarks": benchmarks})


def figures_table(name: str, rows: Sequence[Row]) -> Table:
    """Returns the rows of a benchmark as a table."""
    table = Table(title=f"{name}: {BENCHMARKS[name]}")
    table.add_column("")
    for heading in ("median", "low", "high"):
        table.add_column(heading, justify="right")
    for heading in ("unit", "ratio", "to"):
        table.add_column(heading)
    for row in rows:
        spread = (_short(value) for value in (row.median, row.low, row.high))
        ratio = ("", "")
        if row.ratio:
            low, high = row.ratio.low, row.ratio.high
            ratio = (f"{row.ratio.median:.2f} ({low:.2f} to {high:.2f})", row.ratio.to)
        table.add_row(row.name, *spread, row.unit, *ratio)
    return table


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
