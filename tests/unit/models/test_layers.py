"""Layers that Keras lacks, against Keras's own where it has a slower one."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_dpce.models.layers import CausalConvolution


@pytest.mark.parametrize("width", [1, 2])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("places", [1, 2, 3, 7, 8, 31, 32])
@pytest.mark.parametrize("bias", [False, True])
def test_a_causal_convolution_is_keras_own(width: int, stride: int, places: int, bias: bool):
    draw = np.random.default_rng(places)
    rows = tf.constant(draw.normal(size=(3, places, 5)), tf.float32)
    own, plain = (
        CausalConvolution(4, width, stride, use_bias=bias),
        keras.layers.Conv1D(4, width, stride, padding="causal", use_bias=bias),
    )
    own.build(rows.shape), plain.build(rows.shape)
    weights = [draw.normal(size=v.shape) for v in own.weights]
    own.set_weights(weights), plain.set_weights(weights)
    found = []
    for layer in (own, plain):
        with tf.GradientTape() as tape:
            tape.watch(rows)
            answer = layer(rows)
            total = tf.reduce_sum(answer**2)
        found.append((answer, *tape.gradient(total, [rows, layer.kernel.value])))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    assert own.compute_output_shape(rows.shape) == found[0][0].shape


def test_a_causal_convolution_goes_through_its_configuration():
    layer = CausalConvolution(4, 2, 2, name="b")
    twin = CausalConvolution.from_config(layer.get_config())
    assert (twin.filters, twin.kernel_size, twin.strides, twin.name) == (4, (2,), (2,), "b")
    assert not twin.use_bias and twin.padding == "causal"


def test_a_causal_convolution_is_no_wider_than_two():
    with pytest.raises(ValueError, match="1 or 2, not 3"):
        CausalConvolution(4, 3)
