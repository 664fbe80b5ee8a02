"""Test-time augmentation: the features of several views of an image are added, then scaled."""

from __future__ import annotations

import logging
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.errors import raises
from tests.unit.evaluation.test_protocols import stored
from tests.unit.export.tiny import WORDS
from tf_dpce.config import ImageConfig
from tf_dpce.evaluation import retrieval_metrics, tta
from tf_dpce.evaluation.embed import SplitEncoder
from tf_dpce.evaluation.protocols import evaluate_split
from tf_dpce.evaluation.vocabulary_coverage import count_captions
from tf_dpce.export.golden import example_images
from tf_dpce.export.serving_module import ServingModule
from tf_dpce.logging import logged_display, run_context
from tf_dpce.models import image_tower, text_tower
from tf_dpce.models.dual_path import DualPath
from tf_dpce.models.image_tower import network_of
from tf_dpce.preprocessing.image import evaluation_pixels
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer

SIZE = 64
BACKBONE = "MobileNet"
WIDTH = 6
FLIP = tta.TestTimeAugmentation(flip=True)


def random_pixels(count: int, side: int) -> np.ndarray:
    draw = np.random.default_rng(side)
    return draw.uniform(0, 255, (count, side, side, 3)).astype(np.float32)


def unit(features: np.ndarray) -> np.ndarray:
    return features / np.linalg.norm(features, axis=-1, keepdims=True)


def encoder() -> CaptionTokenizer:
    return CaptionTokenizer(WORDS, max_length=6, lowercase=True)


@pytest.fixture(scope="module")
def model() -> DualPath:
    keras.utils.set_random_seed(3)
    tower = image_tower(BACKBONE, None, SIZE, WIDTH, head_dim=8)
    network = network_of(tower.get_layer("image_backbone"))
    # BatchNorm takes its averages from one batch; at their start every feature is next to 0.
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    network(random_pixels(4, SIZE) / 127.5 - 1, training=True)
    return DualPath(tower, text_tower(len(WORDS), 6, 8, (1,), WIDTH, widths=(8,)), 5)


@pytest.fixture(scope="module")
def tower(model: DualPath) -> keras.Model:
    return model.image_tower


def test_another_size_is_averaged_over_all_its_positions(tower: keras.Model):
    pixels = random_pixels(2, 96)
    # What the backbone has before its average, by a network built by hand.
    network = keras.applications.MobileNet(
        include_top=False, weights=None, input_shape=pixels.shape[1:]
    )
    network.set_weights(tower.get_layer("image_backbone").get_weights())
    features = network(pixels / 127.5 - 1, training=False).numpy().mean(axis=(1, 2))
    expected = tower.get_layer("image_head")(features, training=False)
    larger = tta.TestTimeAugmentation(sizes=(96,))
    (found,) = tta.image_towers(tower, BACKBONE, larger).values()
    np.testing.assert_allclose(found(pixels, training=False), expected, rtol=1e-3, atol=1e-5)


def test_an_image_and_its_mirror_image_are_added(tower: keras.Model):
    pixels = random_pixels(2, SIZE)
    mirrored = np.ascontiguousarray(pixels[:, :, ::-1])
    sides = [tower(side, training=False).numpy() for side in (pixels, mirrored)]
    assert np.abs(sides[0] - sides[1]).max() > 1e-4
    (both,) = tta.image_towers(tower, BACKBONE, FLIP).values()
    np.testing.assert_allclose(both(pixels, training=False), sum(sides), atol=1e-5)
    np.testing.assert_allclose(both(mirrored, training=False), sum(sides), atol=1e-5)


def test_a_backbone_with_dense_layers_has_one_size():
    for backbone in ("small", "VGG16"):
        fixed = image_tower(backbone, None, 32, 4, head_dim=0)
        for sizes in ((), (32,)):
            augmentation = tta.TestTimeAugmentation(sizes=sizes)
            assert tta.image_towers(fixed, backbone, augmentation) == {32: fixed}
        with raises("model.image_size"):
            tta.image_towers(fixed, backbone, tta.TestTimeAugmentation(sizes=(48,)))


def test_a_split_is_scored_by_the_sum_of_all_views(model: DualPath, data: Path, caplog):
    # Images of 20 x 30, which are stretched.
    image = ImageConfig(backbone=BACKBONE, input_size=SIZE, resize="stretch")
    augmentation = tta.TestTimeAugmentation(sizes=(SIZE, 96))
    images, texts = SplitEncoder(model, encoder(), image, augmentation, 2).embed(data, "val")
    files = [content for content, _ in stored(data, "val")]
    features = [
        tower(tf.stack([evaluation_pixels(tf.constant(f), size, "stretch") for f in files])).numpy()
        for size, tower in tta.image_towers(model.image_tower, BACKBONE, augmentation).items()
    ]
    np.testing.assert_allclose(images.vectors, unit(sum(features)), atol=1e-4)
    owners = count_captions(data, "val", encoder()).images
    expected = retrieval_metrics(images.vectors, texts.vectors, range(3), owners)
    with caplog.at_level(logging.INFO, "tf_dpce"), run_context(display=logged_display):
        found = evaluate_split(
            model, encoder(), image, data, "val", batch_size=2, augmentation=augmentation
        )
    assert {key: found[key] for key in expected} == expected
    # 3 images at each of two sizes, then 6 captions.
    own = [record for record in caplog.records if record.name == "tf_dpce"]
    assert [record.fields["done"] for record in own] == [3, 3, 6]


def test_an_export_may_see_another_size_and_mirror_images_in_float16(model: DualPath):
    image = example_images()[0]
    augmentation = tta.TestTimeAugmentation(flip=True, sizes=(96,), float16=True)
    exported = tta.augmented_model(model, BACKBONE, augmentation)
    assert {str(weight.dtype) for weight in exported.image_encoder.weights} == {"float16"}
    answer = ServingModule(exported, encoder()).encode_image(tf.constant([image, b""]))
    plain = tta.TestTimeAugmentation(flip=True, sizes=(96,))
    (tower,) = tta.image_towers(model.image_tower, BACKBONE, plain).values()
    expected = unit(tower(evaluation_pixels(tf.constant(image), 96)[None]).numpy())
    # It is another model, but close to it.
    assert 1e-6 < np.abs(answer["embedding"][:1] - expected).max() < 0.01
    assert answer["status"].numpy().tolist() == [0, 1]


def test_an_augmentation_has_a_name_and_knows_its_measurements():
    assert (tta.PLAIN.name, tta.PLAIN.options) == ("", "")
    augmentation = tta.TestTimeAugmentation(True, (256, 320), float16=True, querybank="train")
    assert augmentation.options == "--sizes 256 320 --flip --float16 --querybank train"
    assert augmentation.name == "sizes-256-320-flip-float16-querybank-train"
    assert FLIP.was_used({"flip": True, "rsum": 300.0})
    assert tta.TestTimeAugmentation(sizes=(256,)).was_used({"sizes": [256], "flip": False})
    assert tta.PLAIN.was_used({}) and not tta.PLAIN.was_used({"sizes": [256]})
    assert not FLIP.was_used({"flip": True, "querybank": "train"})
