"""The example that trains on parts of a user's images."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from examples import learning_curve
from tests.unit.training.tiny import OPTIONS
from tf_dpce.datasets.shapes.drawing import draw_png
from tf_dpce.datasets.shapes.scene import make_scene

pytestmark = [pytest.mark.process, pytest.mark.full]

SPLITS = {"train": 12, "val": 4, "test": 1}
TRAIN = ["--stage", "1"] + [w for name, v in OPTIONS.items() for w in (f"--{name}", str(v))]


def test_smaller_sets_are_parts_of_larger_ones_and_other_splits_stay(tmp_path: Path):
    names = {split: [f"{split}{n}.png" for n in range(count)] for split, count in SPLITS.items()}
    splits = tmp_path / "splits.tsv"
    splits.write_text("".join(f"{n}\t{split}\n" for split in names for n in names[split]))
    small, large, other = (
        [line.split("\t") for line in learning_curve.subset(splits, n, seed).splitlines()]
        for n, seed in ((3, 0), (6, 0), (3, 1))
    )
    drawn = [{name for name, split in rows if split == "train"} for rows in (small, large, other)]
    assert drawn[0] < drawn[1] and drawn[0] != drawn[2]
    assert [len(part) for part in drawn] == [3, 6, 3]
    assert [row for row in small if row[1] != "train"] == [
        [name, split] for split in ("val", "test") for name in names[split]
    ]
    with pytest.raises(SystemExit):
        learning_curve.subset(splits, SPLITS["train"] + 1, 0)


def test_the_table_gets_a_row_for_each_run_and_finished_runs_are_not_run_again(tmp_path: Path):
    root = tmp_path / "own"
    (root / "images").mkdir(parents=True)
    rows, splits = [["image", "caption"]], []
    for split, count in SPLITS.items():
        for number in range(count):
            scene = make_scene(len(rows), number)
            name = f"{split}{number}.png"
            (root / "images" / name).write_bytes(draw_png(scene, 48))
            rows.append([name, scene.captions[0]])
            splits.append(f"{name}\t{split}\n")
    with (root / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    (tmp_path / "splits.tsv").write_text("".join(splits))
    out = tmp_path / "curve"
    words = ["--root", str(root), "--splits", str(tmp_path / "splits.tsv"), "--out", str(out)]

    def run(*images: str) -> list[dict[str, str]]:
        words_of_run = [*words, "--images", *images, "--name", "tiny", "--", *TRAIN]
        learning_curve.main(learning_curve.parse(words_of_run))
        return list(csv.DictReader((out / "curve.csv").read_text().splitlines()))

    (first,) = run("4")
    written = (out / "tiny-4-0" / "history.csv").stat().st_mtime_ns
    again, second = run("4", "8")
    assert again == first and second["images"] == "8"
    assert (out / "tiny-4-0" / "history.csv").stat().st_mtime_ns == written
    # Four validation images with a caption each: recall comes in quarters.
    assert {float(row[key]) % 25 for row in (first, second) for key in ("i2t_r1", "t2i_r5")} == {0}
