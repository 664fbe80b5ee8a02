"""Evaluation of a whole split: everything is embedded once, and scored as the protocol says."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

from tests.unit.export.tiny import CONFIG, SIZE, WORDS, tiny_data, tiny_model
from tf_dpce.errors import UserError
from tf_dpce.evaluation import identity_metrics, retrieval_metrics
from tf_dpce.evaluation.embed import Embedded, Encoders
from tf_dpce.evaluation.protocols import PROTOCOLS, Protocol, evaluate_split
from tf_dpce.evaluation.report import metrics_path, metrics_table, save_metrics, unshared_path
from tf_dpce.evaluation.tta import Views
from tf_dpce.preprocessing.image import evaluation_pixels
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    tiny_data(folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer():
    return CaptionTokenizer(WORDS, max_length=6, lowercase=True)


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


def test_progress_counts_images_and_captions(model, data, tokenizer):
    seen = []
    evaluate_split(
        model,
        tokenizer,
        CONFIG.image,
        data,
        "val",
        batch_size=2,
        progress=lambda *step: seen.append(step),
    )
    # 3 images and 6 captions by 2.
    assert seen == [(2, 9), (3, 9), (5, 9), (7, 9), (9, 9)]


def test_unknown_names_are_users_mistakes(model, data, tokenizer):
    with pytest.raises(UserError, match="has no split dev: one of train, val, test"):
        evaluate_split(model, tokenizer, CONFIG.image, data, "dev")
    with pytest.raises(UserError, match="unknown protocol 5k: one of all, coco1k,"):
        evaluate_split(model, tokenizer, CONFIG.image, data, "test", "5k")


DIRECTIONS = ("image_to_text", "text_to_image")


def drawn(count: int, captions: list[int], people: int | None = None, seed: int = 0) -> tuple:
    """Vectors of few small integers: images, captions, and the place of each one's image."""
    draw = np.random.default_rng(seed)
    image_numbers = np.repeat(np.arange(count), captions)
    instances = np.arange(count) % (people or count)
    images = draw.integers(-3, 4, (count, 3)).astype(np.float32)
    texts = images[image_numbers] + draw.integers(-2, 3, (len(image_numbers), 3)).astype(np.float32)
    return Embedded(images, instances), Embedded(texts, instances[image_numbers]), image_numbers


def test_folds_are_blocks_in_order_and_every_metric_is_their_mean():
    # Six images in three folds; a unit vector finds itself, a negative one comes last.
    #   images 0, 1: each finds its own caption, and is found: ranks 1, 1 both ways
    #   images 2, 3: scores [[-1, 0], [0, 1]]: ranks 2, 1 both ways
    #   images 4, 5: scores [[-1, 0], [0, -1]]: ranks 2, 2 both ways
    images = Embedded(np.tile(np.eye(2), (3, 1)), np.arange(6))
    signs = np.array([1, 1, -1, 1, -1, -1])
    texts = Embedded(images.vectors * signs[:, np.newaxis], np.arange(6))

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
    kept = np.concatenate([np.arange(start, start + 5) for start in starts])
    expected = retrieval_metrics(
        images.vectors, texts.vectors[kept], images.instances, texts.instances[kept]
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


@pytest.mark.parametrize(
    ("protocol", "complaint"),
    [
        ("coco1k", "holds 3 images in its split test, and coco1k is defined on exactly 5,000"),
        ("coco5k", "holds 3 images in its split test, and coco5k is defined on exactly 5,000"),
        # The images have 1, 2 and 3 captions.
        ("two", "2 of the 3 images of .*, split test, have fewer than the 3 captions that two"),
    ],
)
def test_split_that_is_not_the_protocols_is_refused_before_the_work(
    model, data, tokenizer, monkeypatch, protocol, complaint
):
    monkeypatch.setitem(PROTOCOLS, "two", Protocol(retrieval_metrics, captions=3))
    seen = []
    with pytest.raises(UserError, match=complaint):
        evaluate_split(
            model,
            tokenizer,
            CONFIG.image,
            data,
            "test",
            protocol,
            progress=lambda *s: seen.append(s),
        )
    assert seen == []


def test_what_was_scored_and_how_much_of_it_is_known_is_told(model, data, monkeypatch):
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
    assert found["cut_off"] == {"places": 6, "captions": 0, "words": 0}
    assert (found["images"], found["captions"]) == (3, 3)
    assert found["vocabulary"] == {
        "known_words": pytest.approx(100 * sum(known) / 24),
        "captions_without_known_word": pytest.approx(100 * known.count(0) / 6),
    }


@pytest.mark.parametrize("count", [0, 4, 6])
def test_data_set_of_another_length_is_refused(model, count):
    rows = {"text": tf.ones([5, 6], tf.int32), "instance": tf.range(5, dtype=tf.int64)}
    dataset = tf.data.Dataset.from_tensor_slices(rows).batch(2)
    found = "5" if count > 5 else "more"
    message = f"damaged, it counts {count} rows of text where there are {found}: run prepare again"
    with pytest.raises(UserError, match=message):
        Encoders(model).texts(dataset, count)


def test_embeddings_keep_their_order_and_instances(model):
    pixels = np.random.default_rng(0).uniform(0, 255, (5, SIZE, SIZE, 3)).astype(np.float32)
    instances = np.array([7, 3, 3, 0, 2])
    dataset = tf.data.Dataset.from_tensor_slices({"image": pixels, "instance": instances}).batch(2)
    embedded = Encoders(model).images(dataset, 5)
    np.testing.assert_array_equal(embedded.instances, instances)
    expected = model.image_encoder(pixels, training=False)
    np.testing.assert_allclose(embedded.vectors, expected, atol=1e-6)


def test_encoders_are_traced_once_and_answer_with_the_weights_of_the_moment(monkeypatch):
    model, draw = tiny_model(), np.random.default_rng(0)
    pixels = draw.uniform(0, 255, (5, SIZE, SIZE, 3)).astype(np.float32)
    ids, instances = draw.integers(0, len(WORDS), (5, 6), np.int32), np.arange(5)
    rows = {"image": pixels, "text": ids, "instance": instances}
    dataset = tf.data.Dataset.from_tensor_slices(rows).batch(2)
    traced, trace = [], keras.Model.__call__

    def count(self: keras.Model, *given, **options):
        traced.append(self.name)
        return trace(self, *given, **options)

    encoders = Encoders(model)
    monkeypatch.setattr(keras.Model, "__call__", count)
    found = []
    for _ in range(3):
        found += [encoders.images(dataset, 5).vectors, encoders.texts(dataset, 5).vectors]
        assert traced == []
        expected = [Encoders(model).images(dataset, 5), Encoders(model).texts(dataset, 5)]
        for one, two in zip(found[-2:], expected, strict=True):
            np.testing.assert_array_equal(one, two.vectors)
        traced.clear()
        for variable in model.trainable_variables:
            variable.assign(variable.numpy()[::-1])
    assert not np.allclose(found[0], found[2]) and not np.allclose(found[1], found[3])


METRICS = {
    "image_to_text": {"r1": 27.04, "r5": 58.0, "r10": 71.0, "medr": 4.0, "meanr": 13.25},
    "text_to_image": None,
    "rsum": 156.04,
    "vocabulary": {"known_words": 97.25, "captions_without_known_word": 0.5},
    "cut_off": {"places": 24, "captions": 1_203, "words": 4_000},
}
DIGEST = "b329218869ccfdb934c832316f7b55c3ec4313066bc05175766a3ebf105e27c8"
IDENTITY = {"r1": 44.4, "r5": 66.3, "r10": 75.1, "medr": 2, "meanr": 9, "map": 40.04, "minp": 25.0}


def shown(metrics: dict) -> str:
    stream = StringIO()
    table = metrics_table(metrics, "tiny on drawn, test, all", DIGEST)
    Console(file=stream, width=80).print(table)
    return " ".join(stream.getvalue().split())


def test_table_shows_what_the_protocol_measures():
    table = shown(METRICS)
    assert "tiny on drawn, test, all" in table
    assert "image to text │ 27.0 │ 58.0 │ 71.0 │ 4.0 │ 13.2" in table
    assert "text to image" not in table and "mAP" not in table
    assert "rsum 156.0" in table
    assert "words known 97.2 %, captions without one 0.5 %" in table
    assert "captions cut after 24 words 1,203, words lost 4,000" in table
    # Twelve digits of the digest.
    assert table.endswith("split b329218869cc")


def test_table_shows_the_precision_of_persons():
    table = shown({**METRICS, "image_to_text": None, "text_to_image": IDENTITY})
    assert "R@1 ┃ R@5 ┃ R@10 ┃ MedR ┃ MeanR ┃ mAP ┃ mINP" in table
    assert "text to image │ 44.4 │ 66.3 │ 75.1 │ 2.0 │ 9.0 │ 40.0 │ 25.0" in table
    assert "image to text" not in table


def test_metrics_file_is_named_after_data_split_and_protocol(tmp_path, monkeypatch):
    (tmp_path / "flickr8k").mkdir()
    monkeypatch.chdir(tmp_path / "flickr8k")
    path = metrics_path(tmp_path / "run", Path("."), "test", "all")
    assert path == tmp_path / "run" / "metrics-flickr8k-test-all.json"
    viewed = metrics_path(tmp_path, Path("."), "test", "all", Views(flip=True, sizes=(224, 288)))
    assert viewed.name == "metrics-flickr8k-test-all-sizes-224-288-flip.json"
    last = metrics_path(tmp_path, Path("."), "test", "all", Views(flip=True), "last")
    assert last.name == "metrics-flickr8k-test-all-flip-last.json"
    save_metrics(path, METRICS, {"split": "test"})
    assert json.loads(path.read_text()) == {**METRICS, "split": "test"}


def test_metrics_of_another_split_of_one_name_are_not_replaced(tmp_path):
    path, other = tmp_path / "metrics-flickr8k-test-all.json", "0f" * 32
    assert unshared_path(path, DIGEST) == path
    save_metrics(path, METRICS, {"split_digest": DIGEST})
    assert unshared_path(path, DIGEST) == path, "measured again"
    assert unshared_path(path, other) == tmp_path / "metrics-flickr8k-test-all-0f0f0f0f.json"
    path.write_text("{")
    assert unshared_path(path, other) == path, "there is nothing to keep"
