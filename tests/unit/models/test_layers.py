"""Layers that Keras lacks, against Keras's own if it has a slower one."""

from __future__ import annotations

from itertools import product

import keras
import numpy as np
import tensorflow as tf

from tf_dpce.models.layers import CausalConvolution, WordEmbedding


def result_and_gradients(layer: keras.layers.Layer, rows: tf.Tensor) -> list[tf.Tensor]:
    with tf.GradientTape() as tape:
        tape.watch(rows)
        result = layer(rows)
        total = tf.reduce_sum(result**2)
    return [result, *tape.gradient(total, [rows, layer.kernel.value])]


def test_a_causal_convolution_is_keras_own():
    for width, stride, length, bias in product(
        (1, 2, 5), (1, 2, 3), (1, 2, 3, 7, 8, 32), (False, True)
    ):
        draw = np.random.default_rng(length)
        rows = tf.constant(draw.normal(size=(3, length, 5)), tf.float32)
        own = CausalConvolution(4, width, stride, use_bias=bias)
        plain = keras.layers.Conv1D(4, width, stride, padding="causal", use_bias=bias)
        own.build(rows.shape)
        plain.build(rows.shape)
        weights = [draw.normal(size=variable.shape) for variable in own.weights]
        own.set_weights(weights)
        plain.set_weights(weights)
        found, expected = result_and_gradients(own, rows), result_and_gradients(plain, rows)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
        assert own.compute_output_shape(rows.shape) == found[0].shape


def test_an_empty_position_gives_the_bias_and_a_word_its_row_and_the_bias():
    layer = WordEmbedding(3, 2)
    layer.build((None, 4))
    layer.embeddings.assign([[1, 2], [3, 4], [5, 6]])
    layer.bias.assign([10, 20])
    # Word 1 has the first row; id 0 has none.
    assert np.array(layer(np.array([[0, 1, 3, 0]]))).tolist() == [
        [[10, 20], [11, 22], [15, 26], [10, 20]]
    ]
