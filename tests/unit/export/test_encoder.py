"""`tf_dpce.load`: two lines to a vector, from a run or an export alike."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf

import tf_dpce
from tests.unit.export.tiny import SIZE, WIDTH, tiny_run
from tf_dpce.errors import UserError
from tf_dpce.export import ENDPOINTS
from tf_dpce.export.examples import FILE, load_examples
from tf_dpce.export.record import example_images
from tf_dpce.preprocessing import status
from tf_dpce.preprocessing.image import evaluation_pixels

IMAGE = example_images()[0]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny_run(tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(scope="module", params=["version", "model", "run"])
def encoder(request, exported, run):
    paths = {"version": exported, "model": exported.parent, "run": run}
    return tf_dpce.load(paths[request.param])


def test_two_lines_to_a_vector(exported):
    encoder = tf_dpce.load(str(exported))
    vectors = encoder.encode_texts(["a dog on the grass", "two cats"])

    assert vectors.shape == (2, WIDTH) == (2, encoder.dimension)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_runs_and_exports_give_the_recorded_vectors(encoder, exported):
    # The run holds the weights of the very model that was exported.
    recorded = load_examples(exported / FILE, ENDPOINTS)
    images, sentences = recorded["encode_image"], recorded["encode_text"]
    vectors, codes = encoder.images(images.inputs)
    np.testing.assert_allclose(vectors, images.embeddings, atol=1e-5)
    np.testing.assert_array_equal(codes, images.statuses)
    texts = [text.decode(errors="replace") for text in sentences.inputs]
    vectors, codes = encoder.texts(texts)
    np.testing.assert_allclose(vectors, sentences.embeddings, atol=1e-5)
    np.testing.assert_array_equal(codes, sentences.statuses)


def test_files_and_bytes_give_the_same(encoder, tmp_path):
    path = tmp_path / "image.jpg"
    path.write_bytes(IMAGE)
    vectors = encoder.encode_images([path, str(path), IMAGE])
    np.testing.assert_array_equal(vectors[0], vectors[1])
    np.testing.assert_array_equal(vectors[0], vectors[2])


@pytest.mark.parametrize("count", [0, 1, 64, 65])
def test_any_number_goes_in_batches(encoder, count):
    sentences = ["a dog" if row % 2 else "two cats" for row in range(count)]
    vectors = encoder.encode_texts(sentences)
    assert vectors.shape == (count, WIDTH)
    expected = encoder.encode_texts(["two cats", "a dog"])
    np.testing.assert_allclose(vectors, expected[np.arange(count) % 2], atol=1e-6)
    assert encoder.encode_images([]).shape == (0, WIDTH)


def test_bad_rows_are_told_by_status(encoder):
    vectors, codes = encoder.images([IMAGE, b"", b"text"])
    assert codes.tolist() == [status.OK, status.EMPTY, status.WRONG_TYPE]
    assert not vectors[1:].any()
    vectors, codes = encoder.texts(["dog", " ", "zebra", "\udcff"])
    assert codes.tolist() == [status.OK, status.EMPTY, *[status.NO_KNOWN_WORD] * 2]
    assert not vectors[1:].any()


def test_bad_rows_are_refused_by_name(encoder, tmp_path):
    path = tmp_path / "notes.jpg"
    path.write_text("no image")
    with pytest.raises(UserError, match=f"^{path}: neither JPEG nor PNG$"):
        encoder.encode_images([IMAGE, path])
    with pytest.raises(UserError, match=r"^image 2: empty \(and 1 more\)$"):
        encoder.encode_images([IMAGE, b"", b""])
    with pytest.raises(UserError, match="sentence 2, 'zebra': no word of the vocabulary"):
        encoder.encode_texts(["dog", "zebra"])
    with pytest.raises(UserError, match="nowhere.jpg cannot be read: No such file"):
        encoder.images(["nowhere.jpg"])


@pytest.mark.parametrize("item", ["a dog", b"bytes"])
def test_single_item_is_no_list(encoder, item):
    with pytest.raises(TypeError, match="A list is expected"):
        encoder.encode_texts(item)
    with pytest.raises(TypeError, match="A list is expected"):
        encoder.encode_images(item)


def test_a_run_trained_on_squashed_images_squashes(run, model, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    saved = json.loads((folder / "config.json").read_text())
    saved["config"]["image"]["squash"] = True
    (folder / "config.json").write_text(json.dumps(saved))
    # 72 x 96 pixels, of which the centred square leaves the ends out.
    pixels = evaluation_pixels(tf.constant(IMAGE), SIZE, squash=True)
    expected = model.image_encoder(pixels[tf.newaxis], training=False)
    np.testing.assert_allclose(tf_dpce.load(folder).encode_images([IMAGE]), expected, atol=1e-5)
    assert np.abs(tf_dpce.load(run).encode_images([IMAGE]) - expected).max() > 1e-3


def test_folder_without_a_model_is_a_users_mistake(exported, tmp_path):
    with pytest.raises(UserError, match="holds no exported model"):
        tf_dpce.load(tmp_path)
    broken = shutil.copytree(exported, tmp_path / "1")
    (broken / "saved_model.pb").write_bytes(b"\xff" * 100)
    with pytest.raises(UserError, match="cannot be loaded"):
        tf_dpce.load(broken)


def test_an_export_that_is_not_whole_tells_what_it_lacks(exported, tmp_path):
    shutil.copytree(exported, tmp_path / "1")
    (data,) = tmp_path.glob("1/variables/variables.data-*")
    os.truncate(data, data.stat().st_size // 2)
    with pytest.raises(UserError, match="IndexError: Read less bytes than requested"):
        tf_dpce.load(tmp_path / "1")
