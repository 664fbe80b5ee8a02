"""Evaluation of a whole split: everything is embedded once, and scored as the protocol says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.errors import raises
from tests.unit.export.tiny import CONFIG, SIZE
from tf_dpce.evaluation import identity_metrics, retrieval_metrics
from tf_dpce.evaluation.embed import Embeddings
from tf_dpce.evaluation.protocols import PROTOCOLS, Protocol, evaluate_split
from tf_dpce.preprocessing.image import evaluation_pixels
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer


def stored(data: Path, split: str = "test") -> list[tuple[bytes, list[bytes]]]:
    """The file and the captions of each image of a split."""
    found = []
    for shard in sorted(data.glob(f"{split}-*.tfrecord")):
        for record in tf.data.TFRecordDataset(str(shard)):
            features = tf.train.Example.FromString(record.numpy()).features.feature
            (content,) = features["image"].bytes_list.value
            found.append((content, features["captions"].bytes_list.value))
    return found


def test_split_is_scored_as_its_images_and_captions_are_one_by_one(model, data, tokenizer):
    images, texts, owners = [], [], []
    for number, (content, captions) in enumerate(stored(data)):
        pixels = evaluation_pixels(tf.constant(content), SIZE)
        images.append(model.image_encoder(pixels[tf.newaxis], training=False)[0])
        for caption in captions:
            texts.append(model.text_encoder(tokenizer(tf.constant([caption])), training=False)[0])
            owners.append(number)
    assert (len(images), len(texts)) == (3, 6)
    expected = retrieval_metrics(np.array(images), np.array(texts), range(3), owners)

    found = evaluate_split(model, tokenizer, CONFIG.image, data, "test", batch_size=2)

    for key, value in expected.items():
        assert found[key] == pytest.approx(value)


DIRECTIONS = ("image_to_text", "text_to_image")


def drawn(count: int, captions: list[int], people: int | None = None, seed: int = 0) -> tuple:
    """Vectors of few small integers: images, captions, and the index of each one's image."""
    draw = np.random.default_rng(seed)
    image_numbers = np.repeat(np.arange(count), captions)
    instances = np.arange(count) % (people or count)
    images = draw.integers(-3, 4, (count, 3)).astype(np.float32)
    texts = images[image_numbers] + draw.integers(-2, 3, (len(image_numbers), 3)).astype(np.float32)
    return Embeddings(images, instances), Embeddings(texts, instances[image_numbers]), image_numbers


def test_coco1k_is_the_mean_over_five_times_1000_images_with_all_their_captions():
    # One or two captions an image, so that folds differ in their number of captions.
    captions = np.random.default_rng(1).integers(1, 3, 5_000)
    images, texts, image_numbers = drawn(5_000, captions)
    folds = []
    for start in range(0, 5_000, 1_000):
        block = slice(start, start + 1_000)
        own = np.isin(image_numbers, np.arange(5_000)[block])
        pair = images.vectors[block], texts.vectors[own]
        folds.append(retrieval_metrics(*pair, images.instances[block], texts.instances[own]))

    found = PROTOCOLS["coco1k"].score(images, texts, image_numbers)

    assert (PROTOCOLS["coco1k"].images, found["captions"]) == (5_000, captions.sum())
    for direction in DIRECTIONS:
        for key in ("r1", "r5", "r10", "medr", "meanr"):
            mean = sum(fold[direction][key] for fold in folds) / 5
            assert found[direction][key] == pytest.approx(mean)
    assert found["rsum"] == pytest.approx(sum(fold["rsum"] for fold in folds) / 5)


@pytest.mark.parametrize("people", [None, 4, 1])
def test_coco5k_takes_the_first_five_captions_of_each_image(people):
    # Neighbours of one instance are two images still: with one person, five captions of each.
    captions = [5, 7, 6, 5, 9, 5, 5, 6]
    images, texts, image_numbers = drawn(8, captions, people)
    starts = np.cumsum([0, *captions[:-1]])
    counted = np.concatenate([np.arange(start, start + 5) for start in starts])
    expected = retrieval_metrics(
        images.vectors, texts.vectors[counted], images.instances, texts.instances[counted]
    )
    protocol = PROTOCOLS["coco5k"]
    assert protocol.images == 5_000
    found = replace(protocol, images=8).score(images, texts, image_numbers)
    assert found == {**expected, "captions": 40}


def test_all_and_cuhk_pedes_compare_everything():
    images, texts, image_numbers = drawn(9, [1, 2, 3] * 3, people=4)
    everything = images.vectors, texts.vectors, images.instances, texts.instances
    for name, measure in (("all", retrieval_metrics), ("cuhk_pedes", identity_metrics)):
        found = PROTOCOLS[name].score(images, texts, image_numbers)
        assert found == {**measure(*everything), "captions": 18}
    # Folds may lack a direction.
    images, texts, image_numbers = drawn(4, [1, 1, 1, 1])
    found = Protocol(identity_metrics, folds=2).score(images, texts, image_numbers)
    assert found["image_to_text"] is None and found["text_to_image"]["map"] > 0


def test_a_split_that_does_not_fit_the_protocol_is_refused_before_the_work(
    data, tokenizer, monkeypatch
):
    # The images have 1, 2 and 3 captions.
    monkeypatch.setitem(PROTOCOLS, "three", Protocol(retrieval_metrics, captions=3))
    for split, protocol, code in (
        ("test", "coco1k", "protocol_images"),
        ("test", "coco5k", "protocol_images"),
        ("test", "three", "protocol_captions"),
        ("dev", "all", "split"),
        ("test", "5k", "protocol"),
    ):
        with raises(f"evaluation.{code}"):
            evaluate_split(None, tokenizer, CONFIG.image, data, split, protocol)


def test_the_result_says_what_was_scored_and_how_much_of_it_the_model_knows(
    model, data, monkeypatch
):
    monkeypatch.setitem(PROTOCOLS, "first", Protocol(retrieval_metrics, captions=1))
    captions = [caption.decode().split() for _, own in stored(data) for caption in own]
    # The captions are four words each; of all six, whatever the protocol takes.
    known = [sum(word in ("dog", "cats") for word in caption) for caption in captions]
    tokenizer = CaptionTokenizer(["dog", "cats"], 6, True)
    found = evaluate_split(model, tokenizer, CONFIG.image, data, "test", "first")
    # All of them fit.
    assert found["cut_off"] == {"positions": 6, "captions": 0, "words": 0}
    assert (found["images"], found["captions"]) == (3, 3)
    assert found["vocabulary"] == {
        "known_words": pytest.approx(100 * sum(known) / 24),
        "captions_without_known_word": pytest.approx(100 * known.count(0) / 6),
    }
