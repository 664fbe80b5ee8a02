"""`benchmark`: what it says, writes and refuses. The benchmarks are in tests/benchmarks."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.timing import Row
from pipelines.benchmark import main
from tf_dpce.files import read_json


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stands for the minutes of the real ones; keeps their names and the towers' backbone."""
    names: list[str] = []

    def measure(name, config, progress) -> list[Row]:
        names.append(f"{name} {config.image.backbone}")
        progress(1, 1)
        return [Row(f"a figure of {name}", "ms", 2.0, 1.0, 3.0)]

    monkeypatch.setattr("pipelines.benchmark.measure", measure)
    return names


def test_figures_are_shown_and_saved_with_their_command(
    measured: list[str], tmp_path: Path, capsys
):
    path = tmp_path / "figures.json"
    assert main(["step", "mining", "--json", str(path)]) == 0
    output = capsys.readouterr().out
    assert measured == ["step MobileNetV2", "mining MobileNetV2"]
    assert "a figure of step" in output and "a figure of mining" in output
    assert output.splitlines()[-1] == str(path)
    saved = read_json(path)
    assert list(saved["benchmarks"]) == ["step", "mining"]
    assert saved["command"] == (
        f"python -m pipelines.benchmark step mining --preset flickr8k_paper --json {path}"
    )


def test_another_presets_towers(measured: list[str], tmp_path: Path):
    assert main(["step", "--preset", "scenes"]) == 0
    assert measured == ["step small"] and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["step", "minig"], "error: unknown benchmark minig: one of mining, step"),
        (["step", "--preset", "flickr9k"], "error: unknown preset flickr9k: one of "),
    ],
)
def test_an_unknown_name_is_one_line_before_anything_is_measured(
    argv: list[str], line: str, measured: list[str], capsys
):
    assert main(argv) == 1
    output = capsys.readouterr()
    assert output.err.startswith(line) and output.err.count("\n") == 1
    assert measured == [] and output.out == ""
