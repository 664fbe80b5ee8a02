"""`tf_dpce.load`: two lines to an embedding, from a run or an export alike."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf

import tf_dpce
from tests.errors import raises
from tests.unit.export.tiny import SIZE, WIDTH, tiny_run
from tf_dpce.export.golden import example_images, load_examples
from tf_dpce.preprocessing import status
from tf_dpce.preprocessing.image import evaluation_pixels

IMAGE = example_images()[0]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny_run(tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(scope="module", params=["version", "model", "run"])
def encoder(request, exported, run):
    paths = {"version": exported, "model": str(exported.parent), "run": run}
    return tf_dpce.load(paths[request.param])


def test_embeddings_have_unit_length_and_a_similarity(encoder, tmp_path):
    texts = encoder.encode_texts(["a dog on the grass", "two cats"])
    assert texts.shape == (2, WIDTH) == (2, encoder.dimension)
    assert texts.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(texts, axis=1), 1, atol=1e-5)
    path = tmp_path / "image.jpg"
    path.write_bytes(IMAGE)
    images = encoder.encode_images([path, str(path), IMAGE])
    np.testing.assert_array_equal(images, images[[0, 0, 0]])
    similarity = encoder.similarity(images, texts)
    assert similarity.shape == (3, 2)
    np.testing.assert_allclose(similarity[0, 1], np.dot(images[0], texts[1]), atol=1e-6)


def test_runs_and_exports_give_the_recorded_embeddings(encoder, exported):
    # The run holds the weights of the very model that was exported.
    recorded = load_examples(exported)
    texts = [text.decode(errors="replace") for text in recorded["encode_text"].inputs]
    for kind, items, expected in (
        ("images", recorded["encode_image"].inputs, recorded["encode_image"]),
        ("texts", texts, recorded["encode_text"]),
    ):
        embeddings, statuses = encoder.encode_with_status(kind, items)
        np.testing.assert_allclose(embeddings, expected.embeddings, atol=1e-5)
        np.testing.assert_array_equal(statuses, expected.statuses)


def test_any_number_goes_in_batches(encoder):
    expected = encoder.encode_texts(["two cats", "a dog"])
    for count in (0, 1, 64, 65):
        captions = ["a dog" if row % 2 else "two cats" for row in range(count)]
        embeddings = encoder.encode_texts(captions)
        assert embeddings.shape == (count, WIDTH)
        np.testing.assert_allclose(embeddings, expected[np.arange(count) % 2], atol=1e-6)
    assert encoder.encode_images([]).shape == (0, WIDTH)


def test_bad_rows_have_a_status_or_are_refused(encoder, tmp_path):
    embeddings, statuses = encoder.encode_with_status("images", [IMAGE, b"", b"text"])
    assert statuses.tolist() == [status.OK, status.EMPTY, status.WRONG_TYPE]
    assert not embeddings[1:].any()
    captions = ["dog", " ", "zebra", "\udcff"]
    embeddings, statuses = encoder.encode_with_status("texts", captions)
    assert statuses.tolist() == [status.OK, status.EMPTY, *[status.NO_KNOWN_WORD] * 2]
    assert not embeddings[1:].any()

    path = tmp_path / "notes.jpg"
    path.write_text("no image")
    with raises("encode.unusable", path):
        encoder.encode_images([IMAGE, path])
    with raises("encode.unusable") as caught:
        encoder.encode_images([IMAGE, b"", b""])
    assert "image 2" in str(caught.value) and "1 more" in str(caught.value)
    with raises("encode.unusable") as caught:
        encoder.encode_texts(["dog", "zebra"])
    assert "'zebra'" in str(caught.value)
    with raises("encode.file", "nowhere.jpg"):
        encoder.encode_images(["nowhere.jpg"])


def test_single_item_is_no_list(encoder):
    for encode in (encoder.encode_texts, encoder.encode_images):
        for item in ("a dog", b"bytes"):
            with pytest.raises(TypeError):
                encode(item)


@pytest.mark.full
def test_a_run_trained_on_stretched_images_stretches(run, model, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    saved = json.loads((folder / "config.json").read_text())
    saved["config"]["image"]["resize"] = "stretch"
    (folder / "config.json").write_text(json.dumps(saved))
    # 72 x 96 pixels, of which the centred square leaves the ends out.
    pixels = evaluation_pixels(tf.constant(IMAGE), SIZE, resize="stretch")
    expected = model.image_encoder(pixels[tf.newaxis], training=False)
    np.testing.assert_allclose(tf_dpce.load(folder).encode_images([IMAGE]), expected, atol=1e-5)
    assert np.abs(tf_dpce.load(run).encode_images([IMAGE]) - expected).max() > 1e-3


def test_folder_without_a_whole_model_is_a_users_mistake(exported, tmp_path):
    with raises("export.missing", tmp_path):
        tf_dpce.load(tmp_path)
    broken = shutil.copytree(exported, tmp_path / "1")
    (data,) = broken.glob("variables/variables.data-*")
    os.truncate(data, data.stat().st_size // 2)
    with raises("export.damaged", broken):
        tf_dpce.load(broken)
    (broken / "saved_model.pb").write_bytes(b"\xff" * 100)
    with raises("export.damaged", broken):
        tf_dpce.load(broken)
