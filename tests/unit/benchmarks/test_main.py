"""`python -m benchmarks`: figures on screen and on disk."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import __main__ as command
from tests.errors import printed_code
from tf_dpce.files import read_json
from tf_dpce.machine import machine_facts

RATIO = {"to": "paired", "median": 1.0, "low": 1.0, "high": 1.0}
ROWS = [
    {
        **{"name": "paired", "unit": "ms a step", "median": 500.0, "low": 480.25, "high": 1520.0},
        "ratio": RATIO,
    },
    {"name": "memory", "unit": "MiB", "median": 900.0, "low": 900.0, "high": 900.0},
]


def test_what_was_measured_is_shown_and_saved(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys
):
    measured = []

    def imported(name: str) -> SimpleNamespace:
        return SimpleNamespace(measure=lambda config: measured.append((name, config)) or ROWS)

    monkeypatch.setattr(command, "import_module", imported)
    monkeypatch.setenv("COLUMNS", "120")
    path = tmp_path / "figures.json"
    argv = ["mining", "step", "--preset", "scenes", "--json", str(path)]
    assert command.main(argv) == 0
    assert [name for name, _ in measured] == ["benchmarks.mining", "benchmarks.step"]
    assert measured[0][1].image.backbone == "small"

    shown = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown if "│" in line]
    assert cells[:2] == [
        ["paired", "500", "480.2", "1,520", "ms a step", "1.00 (1.00 to 1.00)", "paired"],
        ["memory", "900", "900", "900", "MiB", "", ""],
    ]
    saved = read_json(path)
    assert saved["benchmarks"] == {"mining": ROWS, "step": ROWS}
    assert saved["machine"] == machine_facts()
    assert saved["command"] == f"python -m benchmarks mining step --preset scenes --json {path}"


def test_an_unknown_name_is_bad_usage(capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(["minig"])
    assert ended.value.code == 2
    assert command.main(["step", "--preset", "flickr9k"]) == 1
    assert printed_code(capsys.readouterr().err) == "config.preset"
