"""BatchNorm fused into other layers: the same results with fewer layers."""

from __future__ import annotations

import gc
import weakref
from itertools import product

import keras
import numpy as np
import pytest
from keras import layers

from tests.errors import raises
from tf_dpce.models import image_tower, small_text_tower, text_tower
from tf_dpce.models.dual_path import DualPath
from tf_dpce.models.fuse_batch_norm import folded, refold


def kinds(model: keras.Model, kind: type) -> int:
    return sum(isinstance(layer, kind) for layer in model._flatten_layers())


def norms(model: keras.Model) -> int:
    return kinds(model, layers.BatchNormalization)


def tiny_text_tower(blocks: tuple[int, ...] = (1,), **dropouts: float) -> keras.Model:
    keras.utils.set_random_seed(0)
    widths = (8, 16, 16)[: len(blocks)]
    return text_tower(30, 9, 6, blocks=blocks, output_dim=5, widths=widths, **dropouts)


def stirred(model: keras.Model, seed: int = 0) -> keras.Model:
    """BatchNorm as training leaves it: at its start it is an identity."""
    draw = np.random.default_rng(seed)
    for layer in model._flatten_layers():
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([draw.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    return model


@pytest.mark.parametrize(
    ("backbone", "left"),
    # Every BatchNorm of ResNet and MobileNet follows a convolution, the head's a dense layer. A
    # DenseNet normalises the results of several layers: each of its 58 blocks opens with one, as
    # do 3 transitions and its end.
    [
        *(("small", 0), ("MobileNetV2", 0)),
        *(pytest.param(*case, marks=pytest.mark.full) for case in (("ResNet50", 0), ("VGG16", 0))),
        pytest.param("DenseNet121", 62, marks=pytest.mark.full),
    ],
)
def test_a_fused_image_tower_computes_the_same(backbone: str, left: int):
    keras.utils.set_random_seed(0)
    size = 32
    tower = stirred(image_tower(backbone, input_size=size, output_dim=8, head_dim=16))
    pixels = np.random.default_rng(0).uniform(0, 255, (3, size, size, 3)).astype(np.float32)
    plain, fast = tower(pixels, training=False), folded(tower)
    np.testing.assert_allclose(
        fast(pixels, training=False), plain, rtol=1e-3, atol=1e-4 * np.abs(plain).max()
    )
    assert norms(fast) == left < norms(tower)


def test_a_fused_text_tower_computes_the_same():
    for seed, (word_dropout, small_one) in enumerate(product((0.0, 0.2), (False, True))):
        deep = tiny_text_tower((2, 1, 1), word_dropout=word_dropout, dropout=0.5)
        small = small_text_tower(30, 9, 6, (8, 16), 5, word_dropout=word_dropout, dropout=0.5)
        tower = stirred(small if small_one else deep, seed)
        tower.get_layer("text_embedding").bias.assign(np.linspace(-1, 1, 6))
        ids = np.random.default_rng(seed).integers(0, 31, (7, 9)).astype(np.int32)
        fast = folded(tower)
        np.testing.assert_allclose(fast(ids), tower(ids, training=False), rtol=1e-4, atol=1e-5)
        # That of word vectors is in their table, and in the bias of an empty position.
        assert norms(fast) == 0 == kinds(fast, layers.Dropout)


def test_a_copy_follows_the_weights_of_its_model():
    texts = tiny_text_tower(dropout=0.5)
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


def test_no_copy_stays_alive():
    tower = image_tower("small", input_size=32, output_dim=5)
    copies = [weakref.ref(folded(tower)) for _ in range(3)]
    keras.backend.clear_session()
    gc.collect()
    assert [copy() for copy in copies] == [None] * 3


def test_what_is_used_before_the_norm_as_well_is_not_fused():
    rows = keras.Input((4,))
    wide, active = layers.Dense(3)(rows), layers.Dense(3, activation="relu")(rows)
    given = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    for outputs in (
        layers.Add()([wide, layers.BatchNormalization()(wide)]),
        [wide, layers.BatchNormalization()(wide)],
        layers.BatchNormalization()(active),
    ):
        model = stirred(keras.Model(rows, outputs))
        fast = folded(model)
        for one, other in zip(fast(given), model(given, training=False), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)
        assert norms(fast) == 1


def test_zeros_that_a_convolution_can_put_itself():
    # A window of 3: "same" puts a zero behind an even side at a stride of 2, a zero at either end
    # of an odd one.
    for size, padding, stride, left in (
        (8, ((0, 1), (0, 1)), 2, 0),
        (7, ((1, 1), (1, 1)), 2, 0),
        (8, ((1, 1), (1, 1)), 1, 0),
        (8, ((0, 1), (1, 1)), 2, 1),
    ):
        for convolution in (layers.Conv2D(3, 3, stride), layers.DepthwiseConv2D(3, stride)):
            pixels = keras.Input((size, size, 2))
            model = keras.Model(pixels, convolution(layers.ZeroPadding2D(padding)(pixels)))
            given = np.random.default_rng(0).normal(size=(2, size, size, 2)).astype(np.float32)
            fast = folded(model)
            np.testing.assert_allclose(fast(given), model(given), atol=1e-5)
            assert kinds(fast, layers.ZeroPadding2D) == left
    # A dilated window is wider than its size says; of images of any size nobody knows.
    for side, dilation in ((8, 2), (None, 1)):
        pixels = keras.Input((side, side, 2))
        padded = layers.ZeroPadding2D(1)(pixels)
        model = keras.Model(pixels, layers.Conv2D(3, 3, dilation_rate=dilation)(padded))
        assert kinds(folded(model), layers.ZeroPadding2D) == 1


def test_weights_in_float16_are_rounded_and_nothing_else_is():
    keras.utils.set_random_seed(0)
    tower = image_tower("MobileNetV2", input_size=32, output_dim=8, head_dim=16)
    half, whole = folded(stirred(tower), float16=True), folded(tower)
    whole.set_weights([w.astype(np.float16).astype(np.float32) for w in whole.get_weights()])
    assert {str(weight.dtype) for weight in half.weights} == {"float16"}
    pixels = np.random.default_rng(0).uniform(0, 255, (3, 32, 32, 3)).astype(np.float32)
    found = half(pixels, training=False)
    assert found.dtype == "float32"
    # What is in float16 stays so when it is fused again.
    again = folded(half)
    assert {str(weight.dtype) for weight in again.weights} == {"float16"}
    np.testing.assert_array_equal(again(pixels, training=False), found)
    np.testing.assert_allclose(found, whole(pixels, training=False), rtol=1e-5, atol=1e-5)
    assert not np.allclose(found, tower(pixels, training=False), rtol=1e-5, atol=1e-5)


def test_a_weight_beyond_float16_is_named():
    tower = tiny_text_tower()
    # The largest float16 is 65,504. The norm that is fused divides by sqrt(1 + 0.001).
    tower.get_layer("text_embedding").set_weights([np.full((30, 6), 65_600.0), np.zeros(6)])
    with raises("model.float16") as caught:
        folded(tower, float16=True)
    assert "text_embedding" in str(caught.value)
