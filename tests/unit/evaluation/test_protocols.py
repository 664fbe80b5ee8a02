"""Evaluation of a whole split: everything is embedded once, and scored as the protocol says."""

from __future__ import annotations

from dataclasses import replace

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


def test_split_is_scored_as_its_images_and_captions_are_one_by_one(model, data, tokenizer):
    images, image_ids, texts, text_ids = [], [], [], []
    for shard in sorted(data.glob("test-*.tfrecord")):
        for record in tf.data.TFRecordDataset(str(shard)):
            features = tf.train.Example.FromString(record.numpy()).features.feature
            image_ids.append(len(image_ids))
            (content,) = features["image"].bytes_list.value
            pixels = evaluation_pixels(tf.constant(content), SIZE)
            images.append(model.image_encoder(pixels[tf.newaxis], training=False)[0])
            for caption in features["captions"].bytes_list.value:
                text_ids.append(image_ids[-1])
                ids = tokenizer(tf.constant([caption]))
                texts.append(model.text_encoder(ids, training=False)[0])
    assert (len(images), len(texts)) == (3, 6)
    expected = retrieval_metrics(np.array(images), np.array(texts), image_ids, text_ids)

    found = evaluate_split(model, tokenizer, CONFIG.image, data, "test", batch_size=2)

    assert found["rsum"] == pytest.approx(expected["rsum"])
    assert found["image_to_text"] == pytest.approx(expected["image_to_text"])
    assert found["text_to_image"] == pytest.approx(expected["text_to_image"])


def test_unknown_names_are_users_mistakes(model, data, tokenizer):
    with raises("evaluation.split", path=data):
        evaluate_split(model, tokenizer, CONFIG.image, data, "dev")
    with raises("evaluation.protocol"):
        evaluate_split(model, tokenizer, CONFIG.image, data, "test", "5k")


DIRECTIONS = ("image_to_text", "text_to_image")


def drawn(count: int, captions: list[int], people: int | None = None, seed: int = 0) -> tuple:
    """Vectors of few small integers: images, captions, and the index of each one's image."""
    draw = np.random.default_rng(seed)
    image_numbers = np.repeat(np.arange(count), captions)
    instances = np.arange(count) % (people or count)
    images = draw.integers(-3, 4, (count, 3)).astype(np.float32)
    texts = images[image_numbers] + draw.integers(-2, 3, (len(image_numbers), 3)).astype(np.float32)
    return Embeddings(images, instances), Embeddings(texts, instances[image_numbers]), image_numbers


def test_folds_are_blocks_in_order_and_every_metric_is_their_mean():
    # Six images in three folds; a unit vector finds itself, a negative one comes last.
    #   images 0, 1: each finds its own caption, and is found: ranks 1, 1 both ways
    #   images 2, 3: scores [[-1, 0], [0, 1]]: ranks 2, 1 both ways
    #   images 4, 5: scores [[-1, 0], [0, -1]]: ranks 2, 2 both ways
    images = Embeddings(np.tile(np.eye(2), (3, 1)), np.arange(6))
    signs = np.array([1, 1, -1, 1, -1, -1])
    texts = Embeddings(images.vectors * signs[:, np.newaxis], np.arange(6))

    found = Protocol(retrieval_metrics, folds=3).score(images, texts, np.arange(6))

    # R@1 100, 50, 0; median rank 1, floor(1.5) = 1, 2; mean rank 1, 1.5, 2. All six at once would
    # rank the captions of other folds in between.
    mean = {"r1": 50, "r5": 100, "r10": 100, "medr": pytest.approx(4 / 3), "meanr": 1.5}
    assert found == {"image_to_text": mean, "text_to_image": mean, "rsum": 500, "captions": 6}


def test_coco1k_is_the_mean_over_five_times_1000_images_with_all_their_captions():
    # One or two captions an image, so that folds differ in their number of captions.
    captions = np.random.default_rng(1).integers(1, 3, 5_000)
    images, texts, image_numbers = drawn(5_000, captions)
    folds = []
    for start in range(0, 5_000, 1_000):
        own = np.isin(image_numbers, np.arange(start, start + 1_000))
        block = slice(start, start + 1_000)
        folds.append(
            retrieval_metrics(
                images.vectors[block],
                texts.vectors[own],
                images.instances[block],
                texts.instances[own],
            )
        )

    found = PROTOCOLS["coco1k"].score(images, texts, image_numbers)

    assert (PROTOCOLS["coco1k"].images, found["captions"]) == (5_000, captions.sum())
    for direction in DIRECTIONS:
        for key in ("r1", "r5", "r10", "medr", "meanr"):
            assert found[direction][key] == pytest.approx(
                sum(fold[direction][key] for fold in folds) / 5
            )
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


def test_folds_may_lack_a_direction():
    images, texts, image_numbers = drawn(4, [1, 1, 1, 1])
    found = Protocol(identity_metrics, folds=2).score(images, texts, image_numbers)
    assert found["image_to_text"] is None and found["text_to_image"]["map"] > 0


def test_a_split_that_does_not_fit_the_protocol_is_refused_before_the_work(
    data, tokenizer, monkeypatch
):
    # The images have 1, 2 and 3 captions.
    monkeypatch.setitem(PROTOCOLS, "three", Protocol(retrieval_metrics, captions=3))
    for protocol, code in (
        ("coco1k", "evaluation.protocol_images"),
        ("coco5k", "evaluation.protocol_images"),
        ("three", "evaluation.protocol_captions"),
    ):
        with raises(code, path=data):
            evaluate_split(None, tokenizer, CONFIG.image, data, "test", protocol)


def test_the_result_says_what_was_scored_and_how_much_of_it_the_model_knows(
    model, data, monkeypatch
):
    monkeypatch.setitem(PROTOCOLS, "first", Protocol(retrieval_metrics, captions=1))
    captions = [
        caption.decode().split()
        for shard in sorted(data.glob("test-*.tfrecord"))
        for record in tf.data.TFRecordDataset(str(shard))
        for caption in tf.train.Example.FromString(record.numpy())
        .features.feature["captions"]
        .bytes_list.value
    ]
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
