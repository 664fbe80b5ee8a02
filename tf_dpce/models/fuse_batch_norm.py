"""BatchNorm folded into the layers before it, for a model that is only asked. Pure Keras."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers

from tf_dpce.errors import UserError
from tf_dpce.models.layers import InferenceMode, WordEmbedding

# Layers that multiply by one matrix: what scales and shifts their result can be put into it.
_LINEAR = (layers.Dense, layers.Conv1D, layers.Conv2D, layers.DepthwiseConv2D)
# A look-up is such a product too: an empty place has no row, and gives the bias alone.
_FOLDS = (*_LINEAR, WordEmbedding)


class StoredInHalf(keras.DTypePolicy):
    """Computes in float32 with weights that are kept in float16."""

    def __init__(self) -> None:
        super().__init__("float32")

    @property
    def variable_dtype(self) -> str:
        """The dtype of weights."""
        return "float16"


def folded(model: keras.Model, float16: bool = False) -> keras.Model:
    """Returns a copy of a model that answers as it does in inference mode, with less to compute.

    Where a BatchNorm stands behind a dense layer, a convolution or word vectors and nothing else
    takes that one's result, the layer, with a bias, does the work of both. Dropout is left out.
    Models within the model are folded too.

    Args:
        model: functional.
        float16: whether matrices, biases beside them and word vectors are kept in float16, once
            folded. Layers compute in float32 nevertheless.

    Raises:
        UserError: a weight is beyond what float16 holds.

    Example:
        >>> folded(DualPath(...).image_encoder).predict(pixels)
    """
    fast = _rebuilt(model, float16)
    refold(fast, model)
    return fast


def refold(fast: keras.Model, model: keras.Model) -> None:
    """Gives what `folded` made of a model the weights that the model has now.

    Args:
        fast: the copy, whose functions stay traced.
        model: the model itself.

    Raises:
        UserError: a weight is beyond what the copy holds.
    """
    norms, _, skipped = _plan(model)
    for layer in (each for each in model.layers if each.weights and each.name not in skipped):
        copy = fast.get_layer(layer.name)
        if isinstance(layer, keras.Model):
            refold(copy, layer)
        elif _wraps_model(layer):
            refold(copy.layer, layer.layer)
        elif layer.name in norms:
            _set(copy, _merged(layer, norms[layer.name]))
        else:
            _set(copy, layer.get_weights())


def _plan(
    model: keras.Model,
) -> tuple[dict[str, layers.BatchNormalization], dict[str, str], set[str]]:
    """Returns the BatchNorm folded into a layer, the convolution for a padding, what is left out.

    All by the names of layers.
    """
    takers = _takers(model)
    norms, padded = _norms_behind(model, takers), _padded(model, takers)
    dropouts = {layer.name for layer in model.layers if isinstance(layer, layers.Dropout)}
    return norms, padded, {norm.name for norm in norms.values()} | padded.keys() | dropouts


def _rebuilt(model: keras.Model, float16: bool) -> keras.Model:
    """Returns the copy that `folded` does, with weights of its own."""
    norms, padded, skipped = _plan(model)

    def copy(layer: keras.Operation) -> keras.Operation:
        # None is shared: a layer keeps every model alive that it was called in.
        if isinstance(layer, keras.Model):
            return _rebuilt(layer, float16)
        if _wraps_model(layer):
            return type(layer)(_rebuilt(layer.layer, float16), name=layer.name)
        changes: dict[str, Any] = {}
        if isinstance(layer, layers.Layer):
            # A layer's own config knows its policy by name alone.
            changes["dtype"] = _policy(layer, float16)
        if layer.name in norms and isinstance(layer, _LINEAR):
            changes["use_bias"] = True
        if layer.name in padded.values():
            changes["padding"] = "same"
        return type(layer).from_config({**layer.get_config(), **changes})

    def call(layer: keras.Operation, *args: Any, **kwargs: Any) -> Any:
        return args[0] if layer.name in skipped else layer(*args, **kwargs)

    return keras.models.clone_model(model, clone_function=copy, call_function=call)


def _policy(layer: layers.Layer, float16: bool) -> keras.DTypePolicy:
    if float16 and isinstance(layer, WordEmbedding):
        # It computes in float16 as well, so that the rows it looks up are cast, not the table.
        return keras.DTypePolicy("float16")
    return StoredInHalf() if float16 and isinstance(layer, _LINEAR) else layer.dtype_policy


def _set(layer: layers.Layer, weights: list[np.ndarray]) -> None:
    for variable, values in zip(layer.weights, weights, strict=True):
        if np.abs(values).max(initial=0) > np.finfo(variable.dtype).max:
            raise UserError(
                f"the layer {layer.name} has a weight of {np.abs(values).max():.3g}, which "
                f"{variable.dtype} cannot hold: do without it"
            )
    layer.set_weights(weights)


def _wraps_model(layer: keras.Operation) -> bool:
    return isinstance(layer, InferenceMode) and isinstance(layer.layer, keras.Model)


def _takers(model: keras.Model) -> dict[int, list[layers.Layer | None]]:
    """Returns the layers that take what an operation gives, by the operation's id.

    Dropout hands on what it is given: its takers are those of the layer before it.
    """
    takers: dict[int, list[layers.Layer | None]] = {}
    for layer in model.layers:
        for node in layer._inbound_nodes:
            for tensor in node.input_tensors:
                takers.setdefault(id(tensor._keras_history.operation), []).append(layer)
    # What is given out has a taker beyond the model.
    for tensor in keras.tree.flatten(model.output):
        takers.setdefault(id(tensor._keras_history.operation), []).append(None)
    for layer in model.layers:
        if isinstance(layer, layers.Dropout):
            before = takers[id(layer.input._keras_history.operation)]
            before[before.index(layer) : before.index(layer) + 1] = takers.get(id(layer), [])
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
    activation = getattr(layer, "activation", keras.activations.linear)
    return isinstance(layer, _FOLDS) and activation is keras.activations.linear


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
