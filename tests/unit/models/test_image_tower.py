"""The image tower: any backbone of keras.applications under the head of the recipe."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from tests.errors import raises
from tf_dpce.models import image_tower
from tf_dpce.models.image_tower import freeze_before, image_backbone

# Keras's own saving converts variables in a way that NumPy 2 deprecates.
DEPRECATED = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def images(count: int, size: int, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return draw.uniform(0, 255, (count, size, size, 3)).astype(np.float32)


def test_the_head_on_resnet50_has_the_parameters_of_the_recipe():
    tower = image_tower("ResNet50")
    assert tower.input_shape == (None, 224, 224, 3)
    assert tower.get_layer("image_backbone").output_shape == (None, 2048)
    head = tower.get_layer("image_head")
    # Two matrices of 2048 x 2048 without bias, and gamma and beta of two BatchNorms.
    trainable = sum(int(np.prod(v.shape)) for v in head.trainable_variables)
    assert trainable == 2 * 2048 * 2048 + 2 * 2 * 2048 == 8_396_800
    assert tower.output_shape == (None, 2048)


@DEPRECATED
def test_a_vgg_ends_at_the_second_dense_layer_of_its_weights_before_the_relu(tmp_path: Path):
    keras.utils.set_random_seed(1)
    whole = keras.applications.VGG16(weights=None, input_shape=(32, 32, 3))
    whole.save_weights(tmp_path / "vgg.weights.h5")
    backbone = image_backbone("VGG16", str(tmp_path / "vgg.weights.h5"), 32)
    pixels = images(2, 32)
    until_fc2 = keras.Model(whole.input, whole.get_layer("fc2").output)
    expected = until_fc2.predict(
        keras.applications.vgg16.preprocess_input(pixels.copy()), verbose=0
    )
    features = backbone.predict(pixels, verbose=0)
    assert features.min() < 0
    np.testing.assert_allclose(np.maximum(features, 0), expected, rtol=1e-4, atol=1e-4)


def test_what_is_no_network_is_no_backbone():
    for name in ("ResNet51", "resnet50", "preprocess_input", "Model", "EfficientNetB0", ""):
        with raises("model.backbone"):
            image_tower(name)


@DEPRECATED
@pytest.mark.filterwarnings("ignore:Skipping nested container:UserWarning")
def test_weights_that_do_not_fit_are_refused(tmp_path: Path):
    missing = tmp_path / "backbone.h5"
    with raises("model.weights", path=missing):
        image_tower("MobileNetV2", str(missing))
    for name in ("notes.txt", "notes.h5", "notes.weights.h5", "notes.keras"):
        path = tmp_path / name
        path.write_text("these are no weights\n")
        with raises("model.weights", path=path):
            image_tower("MobileNetV2", str(path), input_size=32)
    # Those of another network.
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]).save_weights(
        tmp_path / "o.weights.h5"
    )
    with raises("model.weights", path=tmp_path / "o.weights.h5"):
        image_tower("MobileNetV2", str(tmp_path / "o.weights.h5"), input_size=32)


def test_weights_that_cannot_be_downloaded_are_a_mistake_of_their_own(monkeypatch):
    # Nothing listens at port 9 of this machine.
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with raises("model.download"):
        image_tower("MobileNet", "imagenet", input_size=128)


def test_a_layer_to_train_from_must_be_of_the_backbone():
    for backbone, first in (("small", "image_conv3"), ("MobileNetV2", "block_3_expand")):
        model = image_backbone(backbone, None, 32)
        every = len(model.trainable_variables)
        freeze_before(model, first)
        trained = [variable.path for variable in model.trainable_variables]
        assert 0 < len(trained) < every and trained[0] == f"{first}/kernel"
        with raises("model.finetune_from"):
            freeze_before(model, "block_3")


def test_real_weights_give_the_features_of_the_plain_network(mobilenet_weights: Path):
    tower = image_tower("MobileNetV2", str(mobilenet_weights), output_dim=8, head_dim=8)
    plain = keras.applications.MobileNetV2(
        weights=str(mobilenet_weights), include_top=False, pooling="avg"
    )
    pixels = images(2, 224)
    backbone = tower.get_layer("image_backbone")
    # The backbone's own scaling is inside: x / 127.5 - 1 for this network.
    expected = plain.predict(pixels / 127.5 - 1, verbose=0)
    features = backbone.predict(pixels, verbose=0)
    assert features.shape == (2, 1280) and np.abs(features).max() > 0.1
    np.testing.assert_allclose(features, expected, atol=1e-4)


def test_a_backbone_of_kerasapplications_keeps_its_averages_in_training():
    """Its BatchNorm runs in inference mode, also when it is fine-tuned; the head's does not."""
    tower = image_tower("MobileNetV2", input_size=32, output_dim=4, head_dim=4)
    before = [v.numpy() for v in tower.variables]
    tower.trainable = True
    tower(images(4, 32), training=True)
    moved = {
        v.path for v, old in zip(tower.variables, before, strict=True) if (v.numpy() != old).any()
    }
    names = [f"image_fc{n}_bn/moving_{kind}" for n in (1, 2) for kind in ("mean", "variance")]
    assert moved == set(names)


def test_the_small_backbone_distinguishes_left_from_right():
    keras.utils.set_random_seed(0)
    backbone = image_backbone("small", None, 32)
    left = np.zeros((1, 32, 32, 3), np.float32)
    left[:, 8:16, 4:12] = 255
    right = left[:, :, ::-1]
    # Mean-pooled, the two would be alike but for the padding; flattened they are not.
    gap = np.abs(backbone.predict(left, verbose=0) - backbone.predict(right, verbose=0)).max()
    assert gap > 0.05
    assert backbone.output_shape == (None, 2 * 2 * 128)
