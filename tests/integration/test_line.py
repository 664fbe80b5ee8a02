"""The whole line in one process: tiny scenes always, the demo's marks when there is time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.demo import run_line

TINY_DATA = ["--pictures", "64", "--val-pictures", "16", "--test-pictures", "16"]
TINY_RUN = [
    *("--stage1.epochs", "1", "--stage1.batch_size", "16"),
    *("--text.blocks", "[1]", "--text.widths", "[16]", "--model.output_dim", "16"),
]
# Three hidden layers of this width make the bag of words as large as the convolutional tower.
BAG_OF_WORDS = ["--text.tower", "bag_of_words", "--text.widths", "[555,555,555]"]


def test_tiny_scenes_go_all_the_way(tmp_path: Path):
    reached = run_line(tmp_path / "demo", TINY_DATA, TINY_RUN)
    assert (reached["pictures"], reached["captions"]) == (16, 80)
    assert 0 <= reached["told_apart"] <= 100
    for left in ("data/manifest.json", "run/history.csv", "saved_models/scenes/1", "hits.png"):
        assert (tmp_path / "demo" / left).exists()


@pytest.fixture(scope="module")
def reached(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run_line(tmp_path_factory.mktemp("marks") / "demo")


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["image_to_text", "text_to_image"])
def test_mark_one_r1_of_90_percent_on_500_unseen_scenes(reached: dict[str, Any], direction: str):
    assert reached["pictures"] == 500
    assert reached[direction]["r1"] >= 90


@pytest.mark.slow
def test_mark_two_20_points_above_a_bag_of_words(reached: dict[str, Any], tmp_path: Path):
    bag = run_line(tmp_path / "bag", train_options=BAG_OF_WORDS)
    for direction in ("image_to_text", "text_to_image"):
        assert reached[direction]["r1"] >= bag[direction]["r1"] + 20
    # Equal words, equal vectors: a bag of words cannot tell any caption from its twin.
    assert bag["told_apart"] < 60


@pytest.mark.slow
def test_mark_three_90_percent_of_captions_told_from_swapped_ones(reached: dict[str, Any]):
    assert reached["told_apart"] >= 90
