"""The whole line in one process: tiny scenes always, the demo's marks when there is time."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import keras
import pytest

from pipelines.demo import run_line
from tf_dpce.config import from_dict, preset_values
from tf_dpce.training.model_factory import build_model

TINY_DATA = ["--train-images", "64", "--val-images", "16", "--test-images", "16"]
TINY_RUN = [
    *("--stage1.epochs", "1", "--stage1.batch_size", "16"),
    *("--text.blocks", "[1]", "--text.widths", "[16]", "--model.output_dim", "16"),
]
WORDS = 50


def test_tiny_scenes_go_all_the_way(tmp_path: Path):
    reached = run_line(tmp_path / "demo", TINY_DATA, TINY_RUN)
    assert (reached["images"], reached["captions"]) == (16, 80)
    assert 0 <= reached["word_order_accuracy"] <= 100
    for left in ("data/manifest.json", "run/history.csv", "saved_models/scenes/1", "hits.png"):
        assert (tmp_path / "demo" / left).exists()


def text_tower(**options: Any) -> keras.Model:
    """The text tower of the scenes' preset, or one that differs in some options of the text."""
    values = preset_values("scenes")
    config = from_dict(values | {"text": values["text"] | options})
    return build_model(config, WORDS, num_instances=2).text_tower


def parameters(tower: keras.Model) -> int:
    """What is trained but the word vectors, which towers of both kinds have."""
    words = {id(weight) for weight in tower.get_layer("text_embedding").trainable_weights}
    return sum(math.prod(w.shape) for w in tower.trainable_weights if id(w) not in words)


def bag_of_words() -> dict[str, Any]:
    """The options that make a bag of words as large as the preset's convolutional tower."""
    config, wanted = from_dict(preset_values("scenes")), parameters(text_tower())
    inputs, outputs = config.text.word_dim, config.model.output_dim
    hidden = len(config.text.widths)

    def size(width: int) -> int:
        widths = [inputs, *[width] * hidden, outputs]
        products = sum(before * after for before, after in itertools.pairwise(widths))
        return products + 2 * sum(widths)  # a scale and a shift of BatchNorm each

    width = min(range(1, 2**14), key=lambda width: abs(size(width) - wanted))
    return {"tower": "bag_of_words", "widths": [width] * hidden}


def test_the_bag_of_words_is_as_large_as_the_tower_it_is_measured_against():
    assert parameters(text_tower(**bag_of_words())) == pytest.approx(
        parameters(text_tower()), rel=0.05
    )


@pytest.fixture(scope="module")
def reached(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run_line(tmp_path_factory.mktemp("marks") / "demo")


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["image_to_text", "text_to_image"])
def test_mark_one_r1_of_90_percent_on_500_unseen_scenes(reached: dict[str, Any], direction: str):
    assert reached["images"] == 500
    assert reached[direction]["r1"] >= 90


@pytest.mark.slow
def test_mark_two_20_points_above_a_bag_of_words(reached: dict[str, Any], tmp_path: Path):
    options = [(f"--text.{name}", str(value)) for name, value in bag_of_words().items()]
    bag = run_line(tmp_path / "bag", train_options=[*itertools.chain.from_iterable(options)])
    for direction in ("image_to_text", "text_to_image"):
        assert reached[direction]["r1"] >= bag[direction]["r1"] + 20
    # Equal words, equal vectors: a bag of words cannot tell any caption from its twin.
    assert bag["word_order_accuracy"] < 60


@pytest.mark.slow
def test_mark_three_90_percent_word_order_accuracy(reached: dict[str, Any]):
    assert reached["word_order_accuracy"] >= 90
