"""Evaluation of a whole split: everything is embedded once, and scored as the protocol says."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

from tests.export.tiny import SIZE, WORDS, tiny_data, tiny_model
from tf_dpce.errors import UserError
from tf_dpce.evaluation import retrieval_metrics
from tf_dpce.evaluation.embed import embed_images, embed_texts
from tf_dpce.evaluation.protocols import evaluate_split
from tf_dpce.evaluation.report import metrics_path, metrics_table, save_metrics
from tf_dpce.preprocessing.image import evaluation_pixels
from tf_dpce.preprocessing.text import CaptionEncoder


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    tiny_data(folder)
    return folder


@pytest.fixture(scope="module")
def caption_encoder():
    return CaptionEncoder(WORDS, max_length=6, lowercase=True)


def test_split_is_scored_as_its_pictures_and_captions_are_one_by_one(model, data, caption_encoder):
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
                ids = caption_encoder(tf.constant([caption]))
                texts.append(model.text_encoder(ids, training=False)[0])
    assert (len(images), len(texts)) == (3, 6)
    expected = retrieval_metrics(np.array(images), np.array(texts), image_ids, text_ids)

    found = evaluate_split(model, caption_encoder, data, "test", batch_size=2)

    assert found["rsum"] == pytest.approx(expected["rsum"])
    assert found["image_to_text"] == pytest.approx(expected["image_to_text"])
    assert found["text_to_image"] == pytest.approx(expected["text_to_image"])


def test_flipped_features_are_added_before_they_are_scaled(model):
    pixels = np.random.default_rng(0).uniform(0, 255, (3, SIZE, SIZE, 3)).astype(np.float32)
    batches = tf.data.Dataset.from_tensor_slices({"image": pixels, "instance": [0, 1, 2]}).batch(2)
    sides = [model.image_tower(x, training=False) for x in (pixels, pixels[:, :, ::-1])]
    expected = np.array(sides[0]) + np.array(sides[1])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = embed_images(model, batches, 3, flip=True).vectors
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.abs(found - embed_images(model, batches, 3).vectors).max() > 1e-3


def test_progress_counts_pictures_and_captions(model, data, caption_encoder):
    seen = []
    evaluate_split(
        model, caption_encoder, data, "val", batch_size=2, progress=lambda *step: seen.append(step)
    )
    # 3 pictures and 6 captions by 2.
    assert seen == [(2, 9), (3, 9), (5, 9), (7, 9), (9, 9)]


def test_unknown_names_are_users_mistakes(model, data, caption_encoder):
    with pytest.raises(UserError, match="has no split dev: one of train, val, test"):
        evaluate_split(model, caption_encoder, data, "dev")
    with pytest.raises(UserError, match="unknown protocol 5k: one of all"):
        evaluate_split(model, caption_encoder, data, "test", "5k")


@pytest.mark.parametrize("count", [0, 4, 6])
def test_data_set_of_another_length_is_refused(model, count):
    rows = {"text": tf.ones([5, 6], tf.int32), "instance": tf.range(5, dtype=tf.int64)}
    dataset = tf.data.Dataset.from_tensor_slices(rows).batch(2)
    with pytest.raises(ValueError, match=f"does not hold {count} examples"):
        embed_texts(model, dataset, count)


def test_embeddings_keep_their_order_and_instances(model):
    pixels = np.random.default_rng(0).uniform(0, 255, (5, SIZE, SIZE, 3)).astype(np.float32)
    instances = np.array([7, 3, 3, 0, 2])
    dataset = tf.data.Dataset.from_tensor_slices({"image": pixels, "instance": instances}).batch(2)
    embedded = embed_images(model, dataset, 5)
    np.testing.assert_array_equal(embedded.instances, instances)
    expected = model.image_encoder(pixels, training=False)
    np.testing.assert_allclose(embedded.vectors, expected, atol=1e-6)


METRICS = {
    "image_to_text": {"r1": 27.04, "r5": 58.0, "r10": 71.0, "medr": 4.0, "meanr": 13.25},
    "text_to_image": None,
    "rsum": 156.04,
}


def test_table_shows_what_the_protocol_measures():
    stream = StringIO()
    Console(file=stream, width=80).print(metrics_table(METRICS, "tiny on drawn, test"))
    shown = " ".join(stream.getvalue().split())
    assert "tiny on drawn, test" in shown
    assert "image to text │ 27.0 │ 58.0 │ 71.0 │ 4.0 │ 13.2" in shown
    assert "text to image" not in shown
    assert "rsum 156.0" in shown


def test_metrics_file_is_named_after_data_split_and_protocol(tmp_path, monkeypatch):
    (tmp_path / "flickr8k").mkdir()
    monkeypatch.chdir(tmp_path / "flickr8k")
    path = metrics_path(tmp_path / "run", Path("."), "test", "all")
    assert path == tmp_path / "run" / "metrics-flickr8k-test-all.json"
    save_metrics(path, METRICS, {"split": "test"})
    assert json.loads(path.read_text()) == {**METRICS, "split": "test"}
