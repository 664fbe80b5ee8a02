"""Folding: the same answers with fewer layers."""

from __future__ import annotations

import gc
import weakref

import keras
import numpy as np
import pytest
from keras import layers

from tf_dpce.errors import UserError
from tf_dpce.models import image_tower, text_tower
from tf_dpce.models.dual_path import DualPath
from tf_dpce.models.fuse_batch_norm import folded, refold


def norms(model: keras.Model) -> int:
    return sum(isinstance(layer, layers.BatchNormalization) for layer in model._flatten_layers())


def stirred(model: keras.Model, seed: int = 0) -> keras.Model:
    """BatchNorm as training leaves it: at its start it is an identity."""
    draw = np.random.default_rng(seed)
    for layer in model._flatten_layers():
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([draw.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    return model


@pytest.mark.parametrize(
    ("backbone", "left"),
    # All of ResNet's and MobileNet's follow a convolution, the head's a dense layer. A DenseNet
    # normalises what several layers give: 58 blocks open with one, as do 3 transitions and its end.
    [("small", 0), ("MobileNetV2", 0), ("ResNet50", 0), ("VGG16", 0), ("DenseNet121", 62)],
)
def test_a_folded_image_tower_answers_as_before(backbone: str, left: int):
    keras.utils.set_random_seed(0)
    size = 32
    tower = stirred(image_tower(backbone, input_size=size, output_dim=8, head_dim=16))
    pixels = np.random.default_rng(0).uniform(0, 255, (3, size, size, 3)).astype(np.float32)
    plain, fast = tower(pixels, training=False), folded(tower)
    np.testing.assert_allclose(
        fast(pixels, training=False), plain, rtol=1e-3, atol=1e-4 * np.abs(plain).max()
    )
    assert norms(fast) == left < norms(tower)


@pytest.mark.parametrize("seed", range(3))
def test_a_folded_text_tower_answers_as_before(seed: int):
    keras.utils.set_random_seed(seed)
    dropouts = {"word_dropout": 0.2 * (seed % 2), "dropout": 0.5}
    tower = text_tower(30, 9, 6, blocks=(2, 1, 1), output_dim=5, widths=(8, 16, 16), **dropouts)
    stirred(tower, seed)
    tower.get_layer("text_embedding").bias.assign(np.linspace(-1, 1, 6))
    ids = np.random.default_rng(seed).integers(0, 31, (7, 9)).astype(np.int32)
    fast = folded(tower)
    np.testing.assert_allclose(fast(ids), tower(ids, training=False), rtol=1e-4, atol=1e-5)
    # That of word vectors is in their table, and in the bias that an empty place gives.
    assert norms(fast) == 0
    assert not any(isinstance(layer, layers.Dropout) for layer in fast._flatten_layers())


def test_encoders_of_a_whole_model():
    keras.utils.set_random_seed(0)
    texts = text_tower(30, 9, 6, blocks=(1,), output_dim=5, widths=(8,))
    model = stirred(DualPath(image_tower("small", input_size=32, output_dim=5), texts, 3))
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    before = model.image_encoder(pixels, training=False)
    np.testing.assert_allclose(folded(model.image_encoder)(pixels), before, atol=1e-5)
    # It is a copy: the model itself stays as it was, and can be folded again.
    np.testing.assert_array_equal(model.image_encoder(pixels, training=False), before)
    assert norms(folded(model.image_encoder)) == 0


def test_a_copy_follows_the_weights_of_its_model():
    keras.utils.set_random_seed(0)
    texts = text_tower(30, 9, 6, blocks=(1,), output_dim=5, widths=(8,), dropout=0.5)
    model = DualPath(image_tower("small", input_size=32, output_dim=5), texts, 3)
    draw = np.random.default_rng(0)
    for encoder in (model.image_encoder, model.text_encoder):
        fast = folded(encoder)
        before = fast.get_weights()
        for variable in encoder.trainable_variables + encoder.non_trainable_variables:
            if variable.dtype == "float32":
                variable.assign(draw.uniform(0.5, 1.5, variable.shape))
        refold(fast, encoder)
        after, anew = fast.get_weights(), folded(encoder).get_weights()
        assert all((one != two).all() for one, two in zip(before, after, strict=True))
        for one, two in zip(after, anew, strict=True):
            np.testing.assert_array_equal(one, two)


def test_no_copy_is_kept_alive():
    tower = image_tower("small", input_size=32, output_dim=5)
    copies = [weakref.ref(folded(tower)) for _ in range(3)]
    keras.backend.clear_session()
    gc.collect()
    assert [copy() for copy in copies] == [None] * 3


def test_what_another_layer_takes_as_well_is_not_folded():
    rows = keras.Input((4,))
    wide = layers.Dense(3, name="wide")(rows)
    normal = layers.BatchNormalization(name="normal")(wide)
    model = stirred(keras.Model(rows, layers.Add()([wide, normal])))
    given = np.ones((2, 4), np.float32)
    fast = folded(model)
    np.testing.assert_allclose(fast(given), model(given, training=False), atol=1e-6)
    assert norms(fast) == 1


def kinds(model: keras.Model, kind: type) -> int:
    return sum(isinstance(layer, kind) for layer in model._flatten_layers())


@pytest.mark.parametrize(
    ("size", "padding", "stride", "left"),
    [
        # A window of 3: "same" puts a zero behind an even side at a stride of 2, one at either
        # end of an odd one.
        (8, ((0, 1), (0, 1)), 2, 0),
        (7, ((1, 1), (1, 1)), 2, 0),
        (8, ((1, 1), (1, 1)), 1, 0),
        (8, ((1, 1), (1, 1)), 2, 1),
        (7, ((0, 1), (0, 1)), 2, 1),
        (8, ((0, 1), (1, 1)), 2, 1),
    ],
)
@pytest.mark.parametrize("kind", ["dense", "depthwise"])
def test_zeros_that_a_convolution_can_put_itself(
    size: int, padding: tuple, stride: int, left: int, kind: str
):
    pixels = keras.Input((size, size, 2))
    convolution = (
        layers.Conv2D(3, 3, stride) if kind == "dense" else layers.DepthwiseConv2D(3, stride)
    )
    model = keras.Model(pixels, convolution(layers.ZeroPadding2D(padding)(pixels)))
    given = np.random.default_rng(0).normal(size=(2, size, size, 2)).astype(np.float32)
    fast = folded(model)
    np.testing.assert_allclose(fast(given), model(given), atol=1e-5)
    assert kinds(fast, layers.ZeroPadding2D) == left


def test_what_is_given_out_as_well_is_not_folded():
    rows = keras.Input((4,))
    wide = layers.Dense(3, name="wide")(rows)
    model = stirred(keras.Model(rows, [wide, layers.BatchNormalization()(wide)]))
    given = np.ones((2, 4), np.float32)
    for one, other in zip(folded(model)(given), model(given, training=False), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_what_is_rectified_first_is_not_folded():
    rows = keras.Input((4,))
    active = layers.Dense(3, activation="relu")(rows)
    model = stirred(keras.Model(rows, layers.BatchNormalization()(active)))
    given = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    np.testing.assert_allclose(folded(model)(given), model(given, training=False), atol=1e-6)


def half_and_whole(model: keras.Model) -> tuple[keras.Model, keras.Model]:
    """A model with weights in float16, and one whose weights are rounded to float16 but float32."""
    half, whole = folded(model, float16=True), folded(model)
    whole.set_weights([w.astype(np.float16).astype(np.float32) for w in whole.get_weights()])
    return half, whole


def test_weights_in_float16_are_rounded_and_nothing_else_is():
    keras.utils.set_random_seed(0)
    tower = image_tower("MobileNetV2", input_size=32, output_dim=8, head_dim=16)
    half, whole = half_and_whole(stirred(tower))
    assert {str(weight.dtype) for weight in half.weights} == {"float16"}
    pixels = np.random.default_rng(0).uniform(0, 255, (3, 32, 32, 3)).astype(np.float32)
    found = half(pixels, training=False)
    assert found.dtype == "float32"
    np.testing.assert_allclose(found, whole(pixels, training=False), rtol=1e-5, atol=1e-5)
    assert not np.allclose(found, tower(pixels, training=False), rtol=1e-5, atol=1e-5)


def test_word_vectors_in_float16_hold_the_norm_behind_them():
    keras.utils.set_random_seed(0)
    tower = stirred(text_tower(30, 9, 6, blocks=(2, 1), output_dim=5, widths=(8, 16)))
    half = folded(tower, float16=True)
    assert {str(weight.dtype) for weight in half.weights} == {"float16"}
    assert norms(half) == 0
    ids = np.random.default_rng(0).integers(0, 31, (7, 9)).astype(np.int32)
    # A float16 has 11 bits, so that each weight is off by 2^-12 of itself at most; a few layers.
    np.testing.assert_allclose(half(ids), tower(ids, training=False), rtol=0.02, atol=0.02)


def test_what_is_in_float16_stays_so_when_it_is_folded_again():
    keras.utils.set_random_seed(0)
    tower = stirred(image_tower("small", input_size=32, output_dim=5))
    half = folded(tower, float16=True)
    again = folded(half)
    assert [w.dtype for w in again.weights] == [w.dtype for w in half.weights]
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    np.testing.assert_array_equal(again(pixels), half(pixels))


def test_a_weight_beyond_float16_is_named():
    tower = text_tower(30, 9, 6, blocks=(1,), output_dim=5, widths=(8,))
    # The largest float16 is 65,504. The norm that is folded in divides by sqrt(1 + 0.001).
    tower.get_layer("text_embedding").set_weights([np.full((30, 6), 65_600.0), np.zeros(6)])
    with pytest.raises(UserError, match="the layer text_embedding has a weight of 6.56e[+]04"):
        folded(tower, float16=True)
    largest = folded(tower).get_layer("text_embedding").get_weights()[0].max()
    assert largest == pytest.approx(65_600 / np.sqrt(1.001))
