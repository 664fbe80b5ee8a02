"""Several looks at an image or a sentence: their features are added, then scaled."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.unit.export.tiny import WORDS, tiny_data
from tf_dpce.config import ImageConfig
from tf_dpce.errors import UserError
from tf_dpce.evaluation import retrieval_metrics
from tf_dpce.evaluation.embed import Embedded
from tf_dpce.evaluation.protocols import evaluate_split
from tf_dpce.evaluation.tta import PLAIN, Views, added, image_views, seen, text_view
from tf_dpce.export.record import example_images
from tf_dpce.export.signatures import Signatures
from tf_dpce.models import image_tower, text_tower
from tf_dpce.models.dual_path import DualPath
from tf_dpce.preprocessing.image import evaluation_pixels, whole_pixels
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer

SIZE = 64
BACKBONE = "MobileNet"
WIDTH = 6


def random_pixels(count: int, height: int, width: int) -> np.ndarray:
    draw = np.random.default_rng(height + width)
    return draw.uniform(0, 255, (count, height, width, 3)).astype(np.float32)


def unit(features: np.ndarray) -> np.ndarray:
    return features / np.linalg.norm(features, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def model() -> DualPath:
    keras.utils.set_random_seed(3)
    tower = image_tower(BACKBONE, None, SIZE, WIDTH, head_dim=8)
    network = tower.get_layer("image_backbone").get_layer("image_network").layer
    # BatchNorm takes its averages from one batch; at their start every feature is next to 0.
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    network(random_pixels(4, SIZE, SIZE) / 127.5 - 1, training=True)
    return DualPath(tower, text_tower(len(WORDS), 6, 8, (1,), WIDTH, widths=(8,)), 5)


@pytest.fixture(scope="module")
def tower(model: DualPath) -> keras.Model:
    return model.image_tower


def maps(tower: keras.Model, pixels: np.ndarray) -> np.ndarray:
    """What the backbone has before its average, by a network built by hand; 1 / 32 of the size."""
    network = keras.applications.MobileNet(
        include_top=False, weights=None, input_shape=pixels.shape[1:]
    )
    network.set_weights(tower.get_layer("image_backbone").get_weights())
    return network(pixels / 127.5 - 1, training=False).numpy()


def test_the_trained_size_is_the_tower_itself(tower: keras.Model):
    assert image_views(tower, BACKBONE, PLAIN) == {SIZE: tower}
    assert image_views(tower, BACKBONE, Views(sizes=(SIZE,))) == {SIZE: tower}


def test_another_size_is_averaged_over_all_its_places(tower: keras.Model):
    pixels = random_pixels(2, 96, 96)
    head = tower.get_layer("image_head")
    expected = head(maps(tower, pixels).mean(axis=(1, 2)), training=False)
    (found,) = image_views(tower, BACKBONE, Views(sizes=(96,))).values()
    np.testing.assert_allclose(found(pixels, training=False), expected, rtol=1e-3, atol=1e-5)


def test_both_sides_are_added_and_are_the_same_from_either(tower: keras.Model):
    pixels = random_pixels(2, SIZE, SIZE)
    mirrored = np.ascontiguousarray(pixels[:, :, ::-1])
    sides = [tower(side, training=False).numpy() for side in (pixels, mirrored)]
    assert np.abs(sides[0] - sides[1]).max() > 1e-4
    (both,) = image_views(tower, BACKBONE, Views(flip=True)).values()
    np.testing.assert_allclose(both(pixels, training=False), sum(sides), atol=1e-5)
    np.testing.assert_allclose(both(mirrored, training=False), sum(sides), atol=1e-5)


def test_whole_images_are_seen_through_a_window_at_every_place(tower: keras.Model):
    pixels = random_pixels(2, 96, 160)
    grid, head = maps(tower, pixels), tower.get_layer("image_head")
    # The map is 3 x 5 and an image of the trained size fills 2 x 2: the window fits 2 x 4 times.
    assert grid.shape[1:3] == (3, 5)
    expected = np.zeros((2, WIDTH), np.float32)
    for top in range(2):
        for left in range(4):
            window = grid[:, top : top + 2, left : left + 2].mean(axis=(1, 2))
            expected += head(window, training=False).numpy()
    (found,) = image_views(tower, BACKBONE, Views(whole=True)).values()
    np.testing.assert_allclose(found(pixels, training=False), expected, rtol=1e-3, atol=1e-5)


def test_a_whole_square_of_the_trained_size_is_the_plain_view(tower: keras.Model):
    pixels = random_pixels(2, SIZE, SIZE)
    (found,) = image_views(tower, BACKBONE, Views(whole=True)).values()
    expected = tower(pixels, training=False)
    np.testing.assert_allclose(found(pixels, training=False), expected, rtol=1e-3, atol=1e-5)


def test_whole_images_smaller_than_the_window_are_refused(tower: keras.Model):
    with pytest.raises(UserError, match="whole images of 32 pixels .* --sizes of 64 or more"):
        image_views(tower, BACKBONE, Views(sizes=(32, 96), whole=True))


@pytest.fixture(scope="module")
def vgg() -> keras.Model:
    """A VGG-16 whose first dense layer takes a map of 2 x 2."""
    keras.utils.set_random_seed(5)
    return image_tower("VGG16", None, SIZE, WIDTH, head_dim=0)


@pytest.mark.parametrize("views", [Views(whole=True), Views(whole=True, float16=True)])
def test_a_whole_square_of_the_trained_size_is_the_plain_view_of_a_vgg(
    vgg: keras.Model, views: Views
):
    pixels = random_pixels(2, SIZE, SIZE)
    (found,) = image_views(vgg, "VGG16", views).values()
    expected = vgg(pixels, training=False).numpy()
    tolerance = 1e-2 if views.float16 else 1e-4
    np.testing.assert_allclose(
        found(pixels, training=False), expected, atol=tolerance * np.abs(expected).max()
    )


def test_the_dense_layers_of_a_vgg_see_a_window_at_every_place(vgg: keras.Model):
    pixels = random_pixels(1, 96, SIZE)
    network = vgg.get_layer("image_backbone").get_layer("image_network").layer
    plain = keras.applications.VGG16(include_top=False, weights=None)
    plain.set_weights(network.get_weights()[:-4])
    grid = plain(keras.applications.vgg16.preprocess_input(pixels.copy())).numpy()
    # A map of 3 x 2: the window of 2 x 2 fits twice, one above the other.
    assert grid.shape == (1, 3, 2, 512)
    expected = np.zeros((1, WIDTH), np.float32)
    for top in range(2):
        flat = grid[:, top : top + 2].reshape(1, -1)
        fc7 = network.get_layer("fc7")(network.get_layer("fc1")(flat))
        expected += vgg.get_layer("image_head")(fc7, training=False).numpy()
    (found,) = image_views(vgg, "VGG16", Views(whole=True)).values()
    np.testing.assert_allclose(
        found(pixels, training=False), expected, atol=1e-4 * np.abs(expected).max()
    )


@pytest.mark.parametrize(
    ("backbone", "views", "instead"),
    [
        ("small", Views(sizes=(48,)), "leave other sizes out"),
        ("small", Views(whole=True), "leave other sizes out"),
        ("VGG16", Views(sizes=(48,)), "see images --whole"),
    ],
)
def test_a_backbone_with_dense_layers_has_one_size(backbone: str, views: Views, instead: str):
    fixed = image_tower(backbone, None, 32, 4, head_dim=0)
    assert image_views(fixed, backbone, Views(sizes=(32,))) == {32: fixed}
    message = f"{backbone} takes only squares of the 32 pixels .*: {instead}"
    with pytest.raises(UserError, match=message):
        image_views(fixed, backbone, views)


def test_a_sentence_is_read_at_every_place_where_it_fits(model: DualPath):
    tower = model.text_tower
    captions = [[3, 1], [2, 2, 5, 7], [], [9, 8, 7, 6, 5, 4]]
    ids, expected = np.zeros((4, 6), np.int32), np.zeros((4, WIDTH), np.float32)
    for row, words in enumerate(captions):
        ids[row, : len(words)] = words
        for start in range(6 - len(words) + 1):
            places = np.zeros((1, 6), np.int32)
            places[0, start : start + len(words)] = words
            expected[row] += tower(places, training=False).numpy()[0]
    # 5 + 3 + 7 + 1 rows: in one batch, and in batches that cut through a caption's rows.
    for batch_size in (64, 4, 1):
        found = text_view(tower, Views(shifts=True), batch_size=batch_size)(tf.constant(ids))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_sentence_that_fills_all_places_has_one(model: DualPath):
    ids = tf.constant([[9, 8, 7, 6, 5, 4], [1, 2, 3, 4, 5, 6]])
    plain = text_view(model.text_tower, PLAIN, batch_size=8)(ids)
    shifted = text_view(model.text_tower, Views(shifts=True), batch_size=8)(ids)
    np.testing.assert_allclose(shifted, plain, atol=1e-6)


def stored(folder: Path) -> tuple[list[tf.Tensor], list[bytes], list[int]]:
    """The images of validation, their captions, and the image of each caption."""
    contents, captions, owners = [], [], []
    for shard in sorted(folder.glob("val-*.tfrecord")):
        for record in tf.data.TFRecordDataset(str(shard)):
            features = tf.train.Example.FromString(record.numpy()).features.feature
            own = list(features["captions"].bytes_list.value)
            owners += [len(contents)] * len(own)
            captions += own
            contents.append(tf.constant(features["image"].bytes_list.value[0]))
    return contents, captions, owners


def test_a_split_is_scored_by_the_sum_of_all_looks(model: DualPath, tmp_path):
    tiny_data(tmp_path)
    tokenizer = CaptionTokenizer(WORDS, max_length=6, lowercase=True)
    views = Views(sizes=(SIZE, 96), shifts=True)
    eyes = image_views(model.image_tower, BACKBONE, views)
    read = text_view(model.text_tower, Views(shifts=True), batch_size=8)
    contents, captions, owners = stored(tmp_path)
    texts = unit(read(tokenizer(tf.constant(captions))).numpy())
    looks = [
        eye(tf.stack([evaluation_pixels(content, size) for content in contents])).numpy()
        for size, eye in eyes.items()
    ]
    images = unit(looks[0] + looks[1])
    expected = retrieval_metrics(images, texts, range(3), owners)

    seen_steps = []
    found = evaluate_split(
        model,
        tokenizer,
        ImageConfig(backbone=BACKBONE, input_size=SIZE),
        tmp_path,
        "val",
        batch_size=4,
        progress=lambda *step: seen_steps.append(step),
        views=views,
    )

    assert found["rsum"] == pytest.approx(expected["rsum"])
    assert found["text_to_image"] == pytest.approx(expected["text_to_image"])
    # 3 images at each of two sizes, then 6 captions by 4.
    assert seen_steps == [(3, 12), (6, 12), (10, 12), (12, 12)]


@pytest.mark.parametrize("look", ["whole", "squashed"])
def test_a_split_is_seen_whole_or_squashed_where_that_is_asked_for(
    model: DualPath, tmp_path, look: str
):
    # Images of 20 x 30, of which the plain view cuts a third off.
    tiny_data(tmp_path, images=8)
    contents, captions, owners = stored(tmp_path)
    tokenizer = CaptionTokenizer(WORDS, max_length=6, lowercase=True)
    texts = unit(model.text_tower(tokenizer(tf.constant(captions)), training=False).numpy())
    whole, squash = look == "whole", look == "squashed"
    (uncut,) = image_views(model.image_tower, BACKBONE, Views(whole=True)).values()

    def scored(eye: keras.Model, pixels: list[tf.Tensor]) -> dict:
        images = np.concatenate([eye(one[tf.newaxis], training=False) for one in pixels])
        return retrieval_metrics(unit(images), texts, range(8), owners)

    plain = scored(model.image_tower, [evaluation_pixels(one, SIZE) for one in contents])
    expected = (
        scored(model.image_tower, [evaluation_pixels(one, SIZE, squash=True) for one in contents])
        if squash
        else scored(uncut, [whole_pixels(one, SIZE) for one in contents])
    )
    assert expected["rsum"] != plain["rsum"], "else it would prove nothing"

    image = ImageConfig(backbone=BACKBONE, input_size=SIZE, squash=squash)
    found = evaluate_split(model, tokenizer, image, tmp_path, "val", views=Views(whole=whole))

    assert found["rsum"] == pytest.approx(expected["rsum"])
    for direction in ("image_to_text", "text_to_image"):
        assert found[direction] == pytest.approx(expected[direction])


def test_whole_images_of_a_split_need_not_be_alike(model: DualPath, tmp_path):
    tiny_data(tmp_path)
    tokenizer = CaptionTokenizer(WORDS, max_length=6, lowercase=True)
    image = ImageConfig(backbone=BACKBONE, input_size=SIZE)
    found = evaluate_split(model, tokenizer, image, tmp_path, "val", views=Views(whole=True))
    assert (found["images"], found["captions"]) == (3, 6)


def test_a_served_model_may_see_other_sizes_and_both_sides(model: DualPath):
    views, image = Views(flip=True, sizes=(96,)), example_images()[0]
    tokenizer = CaptionTokenizer(WORDS, max_length=6, lowercase=True)
    served = Signatures(seen(model, BACKBONE, views), tokenizer)
    answer = served.encode_image(tf.constant([image, b""]))
    (eye,) = image_views(model.image_tower, BACKBONE, views).values()
    expected = unit(eye(evaluation_pixels(tf.constant(image), 96)[None]).numpy())
    np.testing.assert_allclose(answer["embedding"][:1], expected, atol=1e-5)
    assert answer["status"].numpy().tolist() == [0, 1]


def test_a_served_model_may_keep_its_weights_in_float16(model: DualPath):
    views, image = Views(flip=True, float16=True), example_images()[0]
    tokenizer = CaptionTokenizer(WORDS, max_length=6, lowercase=True)
    half = seen(model, BACKBONE, views)
    kinds = {str(weight.dtype) for weight in half.image_encoder.weights}
    assert kinds == {"float16"}
    served = Signatures(half, tokenizer)
    found = served.encode_image(tf.constant([image]))["embedding"].numpy()
    pixels = evaluation_pixels(tf.constant(image), SIZE)[None]
    np.testing.assert_allclose(found, half.image_encoder(pixels, training=False), atol=1e-5)
    plain = seen(model, BACKBONE, Views(flip=True)).image_encoder(pixels, training=False).numpy()
    # Another model than in float32, but close to it.
    assert 1e-6 < np.abs(found - plain).max() < 0.01
    assert Views(float16=True).options == "--float16"


def test_views_have_names_and_know_their_measurements():
    assert (PLAIN.name, PLAIN.options) == ("", "")
    views = Views(flip=True, sizes=(256, 320), whole=True, shifts=True)
    assert views.options == "--sizes 256 320 --flip --whole --shifts"
    assert views.name == "sizes-256-320-flip-whole-shifts"
    assert Views(flip=True).were_taken({"flip": True, "rsum": 300.0})
    assert Views(sizes=(256,)).were_taken({"sizes": [256], "flip": False})
    assert not PLAIN.were_taken({"sizes": [256]})
    assert not Views(flip=True).were_taken({"flip": True, "shifts": True})


def test_members_are_scaled_each_by_itself_once_looks_are_added():
    draw = np.random.default_rng(0)
    looks = [Embedded(draw.normal(size=(3, WIDTH)).astype(np.float32), np.arange(3)) for _ in "12"]
    halves = np.split(looks[0].vectors + looks[1].vectors, 2, axis=1)
    expected = np.hstack([unit(half) / np.sqrt(2) for half in halves])
    np.testing.assert_allclose(added(looks, members=2).vectors, expected, atol=1e-6)
