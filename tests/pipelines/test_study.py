"""`study`: a question and prepared data in, a table and curves out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipelines import study
from tests.scenes import SIZE, prepare_scenes
from tf_dpce.machine import code_version, machine_facts
from tf_dpce.studies import arms
from tf_dpce.studies.study import curve
from tf_dpce.training.history import read_history
from tf_dpce.training.run import read_config

MINUTES = 0.001
TINY = {
    "weights": "none",
    "image": {"backbone": "small", "input_size": SIZE, "head_dim": 0},
    "text": {"max_length": 24, "embedding_dim": 8, "blocks": [1], "widths": [8]},
    "model": {"output_dim": 8},
    "stage1": {"epochs": 20, "batch_size": 8, "optimizer": "adamw", "schedule": "cosine"},
}


@pytest.fixture(scope="module", autouse=True)
def tiny_preset():
    """Seconds for minutes: the presets are for real data."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arms, "preset_values", lambda name: TINY)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("work")
    for name, train in (("one", 24), ("other", 16)):
        prepare_scenes(folder / name, train=train, val=6, test=6)
    return folder / "one", folder / "other"


def argv(data: tuple[Path, Path], out: Path, *more: str) -> list[str]:
    one, other = map(str, data)
    given = ["--data", one, "--other", other, "--out", str(out), "--minutes", str(MINUTES)]
    return ["transfer", *given, *more]


@pytest.fixture(scope="module")
def finished(data: tuple[Path, Path], tmp_path_factory) -> Path:
    """A study that nobody disturbed; nobody writes to it."""
    out = tmp_path_factory.mktemp("studies") / "transfer"
    assert study.main(argv(data, out)) == 0
    return out


def entries(out: Path) -> dict[str, dict[str, Any]]:
    return json.loads((out / "study.json").read_text())["arms"]


def test_every_source_is_scored_on_every_target(finished: Path):
    assert list(entries(finished)) == ["one", "other"]
    for entry in entries(finished).values():
        assert list(entry["metrics"]) == ["one", "other"]
        for metrics in entry["metrics"].values():
            assert metrics["pictures"] == 6
            assert {"r1", "medr"} < set(metrics["text_to_image"])
            assert metrics["vocabulary"]["known_words"] > 50


def test_an_entry_says_how_it_came_about(finished: Path):
    entry = entries(finished)["one"]
    # Words (8), their BatchNorm, a block of one group (8 -> 4, 4 -> 4 over two places, 4 -> 8, and
    # 8 -> 8 beside) and the dense layer, each with BatchNorm: 2 * 8, 32 + 32 + 32 + 64, 2 * (4 +
    # 4 + 8 + 8), 64, 2 * 8.
    assert entry["text_parameters"] == 16 + 160 + 48 + 64 + 16
    assert entry["parameters"] > entry["text_parameters"]
    assert entry["seed"] == 0 and entry["overrides"] == {"image": {"crop": False, "flip": False}}
    assert entry["command"].startswith("python -m pipelines.study transfer --data ")
    assert entry["machine"] == machine_facts() and entry["commit"] == code_version()
    assert "replica(s) on CPU" in entry["devices"]
    assert entry["date"].startswith("20") and entry["minutes"] >= 0


def test_epochs_fill_the_minutes_by_what_a_step_was_measured_to_take(finished: Path):
    for name, entry in entries(finished).items():
        (timing,) = entry["timing"]
        # 24 and 16 pictures in batches of 8.
        assert timing["steps_per_epoch"] == {"one": 3, "other": 2}[name]
        seconds = timing["seconds_per_step"] * timing["steps_per_epoch"]
        assert timing["epochs"] == max(1, int(60 * MINUTES / seconds))
        assert entry["epochs"] == [timing["epochs"]]
        config = read_config(finished / name)["config"]
        assert config["stage1"]["epochs"] == timing["epochs"]
        rows = read_history(finished / name / "history.csv", before=(3, 0))
        assert len(rows) == timing["epochs"]
        validated = [row for row in rows if row["val_rsum"]]
        assert all(row["validation_seconds"] for row in validated)
        minutes = [place for place, _ in curve(finished / name, entry["timing"])]
        assert minutes == pytest.approx([int(row["epoch"]) * seconds / 60 for row in validated])
        assert entry["minutes"] == minutes[-1]
        assert float(validated[-1]["val_rsum"]) == pytest.approx(entry["metrics"][name]["rsum"])


def test_table_and_curves(finished: Path):
    table = (finished / "table.md").read_text()
    rsum = entries(finished)["one"]["metrics"]["other"]["rsum"]
    assert "| rsum: trained on | scored on one | scored on other |" in table
    row = next(line for line in table.splitlines() if line.startswith("| one | other | 6 |"))
    assert row.endswith(f"| {rsum:.1f} |")
    with Image.open(finished / "curves.png") as curves:
        assert curves.size == (1350, 825)


def test_resume_skips_what_is_finished_and_goes_on_with_what_is_broken(
    finished: Path, data: tuple[Path, Path], tmp_path: Path, capsys
):
    out = shutil.copytree(finished, tmp_path / "again")
    before = json.loads((out / "study.json").read_text())
    broken = json.loads((out / "study.json").read_text())
    del broken["arms"]["other"]["metrics"]
    (out / "study.json").write_text(json.dumps(broken))
    (out / "table.md").unlink()

    assert study.main(argv(data, out, "--resume")) == 0
    shown = capsys.readouterr().out
    assert "one: finished before" in shown and "other: finished before" not in shown
    assert "timing arm" not in shown and "s an epoch" not in shown, "nothing is timed anew"
    assert json.loads((out / "study.json").read_text()) == before
    assert (out / "table.md").read_text() == (finished / "table.md").read_text()


def refusal(arguments: list[str], capsys) -> str:
    assert study.main(arguments) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_mistakes_are_one_line(data: tuple[Path, Path], tmp_path: Path, capsys):
    one, other = map(str, data)
    given = ["--data", one, "--out", str(tmp_path / "out")]
    assert "unknown study tower: one of text_tower" in refusal(["tower", *given], capsys)
    assert "transfer needs --other DIR" in refusal(["transfer", *given], capsys)
    assert "takes no --other" in refusal(["objective", *given, "--other", other], capsys)
    assert "needs --vectors FILE" in refusal(["parts", *given], capsys)
    assert "called the same: one, one" in refusal(["transfer", *given, "--other", one], capsys)
    assert "give more than 0" in refusal(["objective", *given, "--minutes", "0"], capsys)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_in_use_is_kept(
    finished: Path, data: tuple[Path, Path], tmp_path: Path, capsys
):
    assert "is not empty: go on with --resume" in refusal(argv(data, finished), capsys)
    other = [*argv(data, finished, "--resume"), "--seed", "1"]
    assert "study.json differs in seed: resume with the same options" in refusal(other, capsys)
    missing = argv(data, tmp_path / "missing", "--resume")
    assert "study.json does not exist" in refusal(missing, capsys)
