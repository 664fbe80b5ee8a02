"""The whole line in one process: tiny scenes always, the demo's marks when there is time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.demo import run_line
from tf_dpce.ablations.variants import of_equal_size, text_parameters
from tf_dpce.config import from_dict, preset_values
from tf_dpce.models.build import text_tower_of

TINY_DATA = ["--train-images", "64", "--val-images", "16", "--test-images", "16"]
TINY_RUN = [
    *("--stage1.epochs", "1", "--stage1.batch_size", "16"),
    *("--text.blocks", "[1]", "--text.widths", "[16]", "--model.output_dim", "16"),
]


def test_tiny_scenes_go_all_the_way(tmp_path: Path):
    reached = run_line(tmp_path / "demo", TINY_DATA, TINY_RUN)
    assert (reached["images"], reached["captions"]) == (16, 80)
    assert 0 <= reached["word_order_accuracy"] <= 100
    assert sum(count for _, count in reached["swaps"].values()) == 80
    for left in ("data/manifest.json", "run/history.csv", "saved_models/scenes/1", "hits.png"):
        assert (tmp_path / "demo" / left).exists()


@pytest.fixture(scope="module")
def reached(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run_line(tmp_path_factory.mktemp("marks") / "demo")


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["image_to_text", "text_to_image"])
def test_mark_one_r1_of_90_on_500_unseen_scenes(reached: dict[str, Any], direction: str):
    assert reached["images"] == 500
    assert reached[direction]["r1"] >= 90


@pytest.mark.slow
def test_mark_two_20_points_above_a_bag_of_words(reached: dict[str, Any], tmp_path: Path):
    # As large as the convolutional tower.
    config = from_dict(preset_values("scenes"))
    blind = replace(config, text=replace(config.text, tower="bag_of_words"))
    text = of_equal_size(blind, text_parameters(text_tower_of(config, 1))).text
    options = ["--text.tower", text.tower, "--text.widths", str(list(text.widths))]
    bag = run_line(tmp_path / "bag", train_options=options)
    for direction in ("image_to_text", "text_to_image"):
        assert reached[direction]["r1"] >= bag[direction]["r1"] + 20
    # Equal words, equal vectors: a bag of words cannot tell any caption from its twin.
    assert bag["word_order_accuracy"] < 60


@pytest.mark.slow
def test_mark_three_90_percent_word_order_accuracy(reached: dict[str, Any]):
    assert reached["word_order_accuracy"] >= 90


@pytest.mark.slow
def test_mark_four_90_percent_of_turned_relations(reached: dict[str, Any]):
    assert reached["turned_accuracy"] >= 90
