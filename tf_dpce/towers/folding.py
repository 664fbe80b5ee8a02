"""BatchNorm folded into the layers before it, for a model that is only asked. Pure Keras."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers

from tf_dpce.towers.layers import InferenceMode

# Layers that multiply by one matrix: what scales and shifts their result can be put into it.
_LINEAR = (layers.Dense, layers.Conv1D, layers.Conv2D, layers.DepthwiseConv2D)


def folded(model: keras.Model) -> keras.Model:
    """Returns a copy of a model that answers as it does in inference mode, with less to compute.

    Where a BatchNorm stands behind a dense layer or a convolution and nothing else takes that
    one's result, the layer, with a bias, does the work of both. Dropout is left out. Models within
    the model are folded too.

    Args:
        model: functional.

    Example:
        >>> folded(DualPath(...).image_encoder).predict(pixels)
    """
    takers = _takers(model)
    norms, padded = _norms_behind(model, takers), _padded(model, takers)
    skipped = {norm.name for norm in norms.values()} | padded.keys()
    skipped |= {layer.name for layer in model.layers if isinstance(layer, layers.Dropout)}

    def copy(layer: keras.Operation) -> keras.Operation:
        # None is shared: a layer keeps every model alive that it was called in.
        if isinstance(layer, keras.Model):
            return folded(layer)
        if _wraps_model(layer):
            return InferenceMode(folded(layer.layer), name=layer.name)
        changes = {"use_bias": True} if layer.name in norms else {}
        if layer.name in padded.values():
            changes["padding"] = "same"
        return type(layer).from_config({**layer.get_config(), **changes})

    def call(layer: keras.Operation, *args: Any, **kwargs: Any) -> Any:
        return args[0] if layer.name in skipped else layer(*args, **kwargs)

    fast = keras.models.clone_model(model, clone_function=copy, call_function=call)
    for layer in model.layers:
        if layer.name in norms:
            fast.get_layer(layer.name).set_weights(_merged(layer, norms[layer.name]))
        elif layer.weights and layer.name not in skipped and not _has_folded(layer):
            fast.get_layer(layer.name).set_weights(layer.get_weights())
    return fast


def _has_folded(layer: keras.Operation) -> bool:
    return isinstance(layer, keras.Model) or _wraps_model(layer)


def _wraps_model(layer: keras.Operation) -> bool:
    return isinstance(layer, InferenceMode) and isinstance(layer.layer, keras.Model)


def _takers(model: keras.Model) -> dict[int, list[layers.Layer | None]]:
    """Returns the layers that take what an operation gives, by the operation's id."""
    takers: dict[int, list[layers.Layer | None]] = {}
    for layer in model.layers:
        for node in layer._inbound_nodes:
            for tensor in node.input_tensors:
                takers.setdefault(id(tensor._keras_history.operation), []).append(layer)
    # What is given out has a taker beyond the model.
    for tensor in keras.tree.flatten(model.output):
        takers.setdefault(id(tensor._keras_history.operation), []).append(None)
    return takers


def _norms_behind(
    model: keras.Model, takers: dict[int, list[layers.Layer | None]]
) -> dict[str, layers.BatchNormalization]:
    """Returns the BatchNorm that can be folded into a layer, by the layer's name."""
    found = {}
    for layer in model.layers:
        behind = takers.get(id(layer), [])
        alone = len(behind) == 1 and len(layer._inbound_nodes) == 1
        if alone and _is_linear(layer) and _is_norm(behind[0]):
            found[layer.name] = behind[0]
    return found


def _padded(model: keras.Model, takers: dict[int, list[layers.Layer | None]]) -> dict[str, str]:
    """Returns layers that only pad, each with the convolution that can do so by itself."""
    found = {}
    for layer in model.layers:
        behind = takers.get(id(layer), [])
        if isinstance(layer, layers.ZeroPadding2D) and len(behind) == 1:
            if _pads_alike(layer, behind[0]):
                found[layer.name] = behind[0].name
    return found


def _pads_alike(padding: layers.ZeroPadding2D, taker: layers.Layer) -> bool:
    """Returns whether zeros are where a convolution's padding "same" has them."""
    if not isinstance(taker, (layers.Conv2D, layers.DepthwiseConv2D)):
        return False
    if taker.padding != "valid" or padding.data_format != "channels_last":
        return False
    sizes = padding.input.shape[1:3]
    return None not in sizes and all(
        before_and_after == _same_padding(size, 1 + (width - 1) * dilation, stride)
        for before_and_after, size, width, dilation, stride in zip(
            padding.padding,
            sizes,
            taker.kernel_size,
            taker.dilation_rate,
            taker.strides,
            strict=True,
        )
    )


def _same_padding(size: int, width: int, stride: int) -> tuple[int, int]:
    missing = max((-(-size // stride) - 1) * stride + width - size, 0)
    return missing // 2, missing - missing // 2


def _is_linear(layer: layers.Layer) -> bool:
    return isinstance(layer, _LINEAR) and layer.activation is keras.activations.linear


def _is_norm(layer: layers.Layer) -> bool:
    own = isinstance(layer, layers.BatchNormalization) and len(layer._inbound_nodes) == 1
    return own and layer.axis in (-1, layer.input.ndim - 1)


def _merged(layer: layers.Layer, norm: layers.BatchNormalization) -> list[np.ndarray]:
    """Returns kernel and bias of a layer that does what it and the BatchNorm behind it do."""
    scale = 1 / np.sqrt(np.asarray(norm.moving_variance, np.float64) + norm.epsilon)
    if norm.gamma is not None:
        scale = scale * np.asarray(norm.gamma)
    shift = -np.asarray(norm.moving_mean) * scale
    if norm.beta is not None:
        shift = shift + np.asarray(norm.beta)
    kernel, *bias = layer.get_weights()
    # A depthwise kernel ends in [channels, multiplier], and so does what it gives, laid flat.
    depthwise = isinstance(layer, layers.DepthwiseConv2D)
    by_channel = scale.reshape(kernel.shape[-2:]) if depthwise else scale
    return [kernel * by_channel, shift + (bias[0] * scale if bias else 0)]
