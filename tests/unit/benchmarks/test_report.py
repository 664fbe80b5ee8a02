"""Benchmarks by name; their figures on screen and on disk."""

from __future__ import annotations

from datetime import datetime
from importlib import import_module
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.report import BENCHMARKS, check_names, figures_table, save_figures
from benchmarks.timing import Ratio, Row
from tf_dpce.errors import UserError
from tf_dpce.files import read_json
from tf_dpce.machine import code_version, machine_facts

ROWS = [
    Row("given", "ms a step", 500.0, 480.25, 1520.0, Ratio("given", 1.0, 1.0, 1.0)),
    Row("memory", "MiB", 900.0, 900.0, 900.0),
]


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_is_a_module_that_measures(name: str):
    assert callable(import_module(f"benchmarks.{name}").measure)


def test_an_unknown_name_is_answered_by_those_known():
    check_names(["step", "mining"])
    with pytest.raises(
        UserError,
        match="unknown benchmark minig: one of mining, step, classifier, encoders, serving",
    ):
        check_names(["step", "minig"])


def test_what_is_saved_is_what_was_measured_and_where(tmp_path: Path):
    save_figures(tmp_path / "figures.json", {"mining": ROWS}, {"preset": "own", "command": "c"})
    saved = read_json(tmp_path / "figures.json")
    assert saved["benchmarks"]["mining"] == [
        {
            **{"name": "given", "unit": "ms a step", "median": 500.0, "low": 480.25},
            **{"high": 1520.0, "ratio": {"to": "given", "median": 1.0, "low": 1.0, "high": 1.0}},
        },
        {
            **{"name": "memory", "unit": "MiB", "median": 900.0, "low": 900.0, "high": 900.0},
            "ratio": None,
        },
    ]
    assert saved["commit"] == code_version() and saved["machine"] == machine_facts()
    assert datetime.fromisoformat(saved["date"]).utcoffset().total_seconds() == 0
    assert (saved["preset"], saved["command"]) == ("own", "c")


def test_the_table_shows_median_spread_and_ratio():
    console = Console(width=120, file=StringIO())
    console.print(figures_table("mining", ROWS))
    lines = console.file.getvalue().splitlines()
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line]
    assert cells == [
        ["given", "500", "480.2", "1,520", "ms a step", "1.00 (1.00 to 1.00)", "given"],
        ["memory", "900", "900", "900", "MiB", "", ""],
    ]
