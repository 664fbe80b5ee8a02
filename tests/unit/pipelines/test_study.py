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
from tf_dpce.ablations import arms
from tf_dpce.ablations.report import curves_figure
from tf_dpce.ablations.study import curve
from tf_dpce.data.manifest import Manifest
from tf_dpce.machine import code_version, machine_facts
from tf_dpce.training.history import read_history
from tf_dpce.training.run_folder import read_config

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


# One arm of one stage, and one of two.
TWO_ARMS = ("both", "instance_then_ranking")


@pytest.fixture(scope="module")
def objective(data: tuple[Path, Path], tmp_path_factory) -> Path:
    """Two arms of the study `objective`; nobody writes to it."""
    out = tmp_path_factory.mktemp("studies") / "objective"
    whole = arms._study
    some = {"arms": {name: whole("objective")["arms"][name] for name in TWO_ARMS}}
    given = ["--data", str(data[0]), "--out", str(out), "--minutes", str(MINUTES), "--seed", "5"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arms, "_study", lambda name: some)
        assert study.main(["objective", *given]) == 0
    return out


def entries(out: Path) -> dict[str, dict[str, Any]]:
    return json.loads((out / "study.json").read_text())["arms"]


def test_every_source_is_scored_on_every_target(finished: Path):
    assert list(entries(finished)) == ["one", "other"]
    for entry in entries(finished).values():
        assert list(entry["metrics"]) == ["one", "other"]
        for metrics in entry["metrics"].values():
            assert metrics["images"] == 6
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
        # 24 and 16 images in batches of 8.
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


def test_a_table_says_on_which_images_how_long_and_by_which_command(
    finished: Path, objective: Path, data: tuple[Path, Path]
):
    digests = [Manifest.load(folder).split_digest for folder in data]
    assert digests[0] != digests[1]
    lines = [
        f"- `{folder}`: split `{digest}`" for folder, digest in zip(data, digests, strict=True)
    ]
    for out, seed, named in ((finished, 0, lines), (objective, 5, lines[:1])):
        table = (out / "table.md").read_text().splitlines()
        assert f"`{json.loads((out / 'study.json').read_text())['command']}`" in table
        assert [line for line in table if "split `" in line] == named
        assert any(line.endswith(f"{MINUTES:g} minutes an arm, seed {seed}.") for line in table)


def test_the_table_of_arms_has_a_row_each(objective: Path):
    table = (objective / "table.md").read_text().splitlines()
    heads = "| arm | parameters of the text tower, without words | epochs | minutes | image to text"
    place = next(place for place, line in enumerate(table) if line.startswith(heads))
    rows = [line.strip("| ").split(" | ") for line in table[place + 2 :]]
    assert [row[0] for row in rows] == list(TWO_ARMS)
    for name, size, epochs, minutes, *scores in rows:
        entry = entries(objective)[name]
        assert size == f"{entry['text_parameters']:,}" and minutes == f"{entry['minutes']:.1f}"
        assert epochs == " + ".join(map(str, entry["epochs"]))
        metrics = entry["metrics"]["one"]
        assert scores[0] == f"{metrics['image_to_text']['r1']:.1f}"
        assert scores[4] == f"{metrics['text_to_image']['r1']:.1f}"
        assert (len(scores), scores[-1]) == (9, f"{metrics['rsum']:.1f}")


def test_two_stages_have_half_of_the_time_each(objective: Path):
    for name, stages in zip(TWO_ARMS, ([1], [1, 2]), strict=True):
        entry = entries(objective)[name]
        assert [part["stage"] for part in entry["timing"]] == stages
        for part, epochs in zip(entry["timing"], entry["epochs"], strict=True):
            seconds = part["seconds_per_step"] * part["steps_per_epoch"]
            assert epochs == part["epochs"] == max(1, int(60 * MINUTES / len(stages) / seconds))
        rows = read_history(objective / name / "history.csv", before=(3, 0))
        trained = [[int(row["stage"]) for row in rows].count(stage) for stage in stages]
        assert trained == entry["epochs"] and len(rows) == sum(trained)


def test_the_second_stage_trains_the_second_loss(objective: Path):
    config = read_config(objective / "instance_then_ranking")["config"]
    assert [config[f"stage{n}"]["loss"]["pair"] for n in (1, 2)] == [0, 1]
    assert config["stage2"]["loss"]["negatives"] == "given"
    rows = read_history(objective / "instance_then_ranking" / "history.csv", before=(3, 0))
    first, second = (next(row for row in rows if row["stage"] == stage) for stage in "12")
    assert float(first["image_logits_loss"]) > 0 and not first["pair_loss"]
    assert float(second["pair_loss"]) > 0 and not second["image_logits_loss"]


def test_curves_of_two_stages_are_dashed(objective: Path):
    with Image.open(objective / "curves.png") as curves:
        assert curves.size == (1350, 825)
    results = json.loads((objective / "study.json").read_text())
    (axes,) = curves_figure(results, objective).axes
    assert [line.get_linestyle() for line in axes.lines] == ["-", "--"]
    for line, (name, entry) in zip(axes.lines, results["arms"].items(), strict=True):
        assert line.get_xdata()[-1] == pytest.approx(entry["minutes"])
        assert line.get_ydata()[-1] == pytest.approx(entry["metrics"]["one"]["rsum"])
        assert any(text.get_text().startswith(name.replace("_", " ")) for text in axes.texts)


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
    earlier = shutil.copytree(finished, tmp_path / "earlier")
    saved = json.loads((earlier / "study.json").read_text())
    saved["arms"]["other"]["overrides"]["image"]["flip"] = True
    (earlier / "study.json").write_text(json.dumps(saved))
    assert "study.json differs in arm other: " in refusal(argv(data, earlier, "--resume"), capsys)
    missing = argv(data, tmp_path / "missing", "--resume")
    assert "study.json does not exist" in refusal(missing, capsys)
