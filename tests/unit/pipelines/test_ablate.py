"""`ablate`: a question and prepared data in, a table and curves out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipelines import ablate
from tests.errors import printed_code
from tests.scenes import SIZE
from tf_dpce.ablations import variants
from tf_dpce.data.manifest import Manifest
from tf_dpce.training.callbacks import read_history
from tf_dpce.training.run_folder import read_config

pytestmark = pytest.mark.full

TINY = {
    "weights": "none",
    "image": {"backbone": "small", "input_size": SIZE, "head_dim": 0},
    "text": {"max_length": 24, "word_dim": 8, "blocks": [1], "widths": [8]},
    "model": {"output_dim": 8},
    "stage1": {"epochs": 4, "batch_size": 16, "optimizer": "adamw", "schedule": "cosine"},
}


@pytest.fixture(scope="module")
def asked(scenes: Path, tmp_path_factory: pytest.TempPathFactory):
    """Answers a question on tiny towers: `asked(out, question, *options)` -> exit status."""
    other = tmp_path_factory.mktemp("data") / "other"
    shutil.copytree(scenes, other, ignore=shutil.ignore_patterns("features", "scenes"))

    def ask(out: Path, question: str, *options: str) -> int:
        others = ["--other", str(other)] if question == "transfer" else []
        return ablate.main([question, "--data", str(scenes), *others, "--out", str(out), *options])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(variants, "preset_values", lambda name: TINY)
        yield ask


@pytest.fixture(scope="module")
def towers(asked, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three text towers, compared; nobody writes to it."""
    out = tmp_path_factory.mktemp("ablations") / "towers"
    assert asked(out, "text_tower", "--seed", "5", "--epochs", "2") == 0
    return out


def results(out: Path) -> dict[str, Any]:
    return json.loads((out / "ablation.json").read_text())


def rows(out: Path) -> list[list[str]]:
    lines = (out / "table.md").read_text().splitlines()
    table = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    assert len({len(row) for row in table}) == 1
    return table[2:]


def test_every_variant_trains_for_the_same_epochs_and_has_a_row(towers: Path, scenes: Path):
    found = results(towers)
    text = (towers / "table.md").read_text()
    assert f"`{found['command']}`" in text and Manifest.load(scenes).split_digest in text
    assert found["command"].startswith("python -m pipelines.ablate text_tower --data=")
    for row, (name, entry) in zip(rows(towers), found["variants"].items(), strict=True):
        assert entry["epochs"] == [2] and entry["seconds"] > 0
        assert read_config(towers / name)["config"] == entry["config"]
        history = read_history(towers / name / "history.csv", before=(3, 0))
        assert len(history) == 2
        # Scored with the last weights.
        (metrics,) = entry["metrics"].values()
        assert float(history[-1]["val_rsum"]) == pytest.approx(metrics["rsum"])
        assert row[:4] == [name, "scenes", f"{entry['text_parameters']:,}", "2"]
        assert row[5] == "100.0 %"
        shown = (metrics["image_to_text"]["r1"], metrics["text_to_image"]["r1"], metrics["rsum"])
        assert [row[6], row[10], row[14]] == [f"{value:.1f}" for value in shown]
    with Image.open(towers / "curves.png") as curves:
        assert curves.size == (1350, 825)


@pytest.mark.slow
def test_in_transfer_every_source_is_scored_on_every_target(asked, tmp_path: Path):
    assert asked(tmp_path / "out", "transfer", "--epochs", "1") == 0
    assert [row[:2] for row in rows(tmp_path / "out")] == [
        ["scenes", "scenes"],
        ["scenes", "other"],
        ["other", "scenes"],
        ["other", "other"],
    ]


def test_the_same_command_continues_and_another_is_refused(
    asked, towers: Path, tmp_path: Path, capsys
):
    out = shutil.copytree(towers, tmp_path / "again")
    before = results(out)
    broken = results(out)
    for key in ("text_parameters", "epochs", "seconds", "metrics"):
        del broken["variants"]["recurrent"][key]
    (out / "ablation.json").write_text(json.dumps(broken))
    (out / "table.md").unlink()
    assert asked(out, "text_tower", "--seed", "5", "--epochs", "2") == 0
    assert results(out) == before
    assert (out / "table.md").read_text() == (towers / "table.md").read_text()

    capsys.readouterr()
    assert asked(out, "text_tower", "--seed", "6", "--epochs", "2") == 1
    assert printed_code(capsys.readouterr().err) == "ablation.differs"


def test_mistakes(asked, scenes: Path, tmp_path: Path, capsys):
    out, filled = tmp_path / "out", tmp_path / "filled"
    filled.mkdir()
    (filled / "letter.txt").touch()
    for code, *argv in (
        ("ablation.names", out, "transfer", "--other", str(scenes)),
        ("ablation.folder", filled, "objective"),
    ):
        assert asked(*argv) == 1
        assert printed_code(capsys.readouterr().err) == code
    assert not out.exists()
