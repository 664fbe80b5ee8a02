"""BatchNorm fused into the layers before it, for a model in inference mode. Pure Keras."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers

from tf_dpce.errors import UserError
from tf_dpce.models.layers import InferenceMode, WordEmbedding

# Layers that multiply by a matrix, which can take up what scales and shifts their result.
_LINEAR = (layers.Dense, layers.Conv1D, layers.Conv2D, layers.DepthwiseConv2D)
# A look-up is such a product too: an empty position has no row, and gives the bias alone.
_FUSES = (*_LINEAR, WordEmbedding)

# The layers that take the result of an operation, by the operation's id; None stands for the
# outside of the model.
_Consumers = dict[int, list[layers.Layer | None]]


class StoredInHalf(keras.DTypePolicy):
    """Computes in float32 with weights that are stored in float16."""

    def __init__(self) -> None:
        super().__init__("float32")

    @property
    def variable_dtype(self) -> str:
        """The dtype of weights."""
        return "float16"


def folded(model: keras.Model, float16: bool = False) -> keras.Model:
    """Returns a copy of a model that computes the same in inference mode, with less work.

    If a BatchNorm stands behind a dense layer, a convolution or word vectors and nothing else
    takes the result of that layer, then the layer, with a bias, does the work of both. Dropout is
    left out. A convolution pads by itself instead of a layer before it. Models within the model
    are copied alike.

    Args:
        model: A functional model.
        float16: Whether matrices, the biases beside them and word vectors are stored in float16.
            Layers compute in float32 nevertheless.

    Raises:
        UserError: A weight is beyond what float16 holds.

    Example:
        >>> from tf_dpce.models.image_tower import image_head
        >>> head = image_head(input_dim=8, output_dim=4, head_dim=0)
        >>> [layer.name for layer in folded(head).layers]
        ['features', 'image_fc2']
    """
    fast = _rebuilt(model, float16)
    refold(fast, model)
    return fast


def refold(fast: keras.Model, model: keras.Model) -> None:
    """Gives a copy that `folded` made the weights that its model has now.

    Args:
        fast: The copy, whose traced functions stay valid.
        model: The model itself.

    Raises:
        UserError: A weight is beyond what the copy holds.
    """
    norms, _, skipped = _plan(model)
    for layer in (each for each in model.layers if each.weights and each.name not in skipped):
        copy = fast.get_layer(layer.name)
        if isinstance(layer, keras.Model):
            refold(copy, layer)
        elif isinstance(layer, InferenceMode):
            refold(copy.layer, layer.layer)
        elif layer.name in norms:
            _set(copy, _merged(layer, norms[layer.name]))
        else:
            _set(copy, layer.get_weights())


def _plan(model: keras.Model) -> tuple[dict[str, layers.BatchNormalization], set[str], set[str]]:
    """Returns what a copy does without.

    Returns:
        The BatchNorm to fuse into each layer, by the layer's name; the names of convolutions that
        take over a padding; the names of layers to leave out.
    """
    consumers = _consumers(model)
    norms, padding, skipped = {}, set(), set()
    for layer in model.layers:
        after = consumers.get(id(layer), [])
        only = after[0] if len(after) == 1 else None
        if isinstance(layer, layers.Dropout):
            skipped.add(layer.name)
        elif _takes_norm(layer, only):
            norms[layer.name] = only
            skipped.add(only.name)
        elif _pads_alike(layer, only):
            padding.add(only.name)
            skipped.add(layer.name)
    return norms, padding, skipped


def _rebuilt(model: keras.Model, float16: bool) -> keras.Model:
    """Returns the copy of `folded`, with weights of its own."""
    norms, padding, skipped = _plan(model)

    def copy(layer: keras.Operation) -> keras.Operation:
        # No layer is shared: a layer keeps every model alive that it was called in.
        if isinstance(layer, keras.Model):
            return _rebuilt(layer, float16)
        if isinstance(layer, InferenceMode):
            return type(layer)(_rebuilt(layer.layer, float16), name=layer.name)
        changes: dict[str, Any] = {}
        if isinstance(layer, layers.Layer):
            # A layer's own config names its policy only.
            changes["dtype"] = _policy(layer, float16)
        if layer.name in norms and isinstance(layer, _LINEAR):
            changes["use_bias"] = True
        if layer.name in padding:
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
        largest = np.abs(values).max(initial=0)
        if largest > np.finfo(variable.dtype).max:
            raise UserError(
                "model.float16",
                f"the layer {layer.name} has a weight of {largest:.3g}, which {variable.dtype} "
                "cannot hold: do without it",
            )
    layer.set_weights(weights)


def _consumers(model: keras.Model) -> _Consumers:
    """Returns the consumers of each operation.

    Dropout passes its input on: its consumers are those of the layer before it.
    """
    consumers: _Consumers = {}
    for layer in model.layers:
        for node in layer._inbound_nodes:
            for tensor in node.input_tensors:
                consumers.setdefault(id(tensor._keras_history.operation), []).append(layer)
    for tensor in keras.tree.flatten(model.output):
        consumers.setdefault(id(tensor._keras_history.operation), []).append(None)
    for layer in model.layers:
        if isinstance(layer, layers.Dropout):
            before = consumers[id(layer.input._keras_history.operation)]
            before[before.index(layer) : before.index(layer) + 1] = consumers.get(id(layer), [])
    return consumers


def _takes_norm(layer: layers.Layer, after: layers.Layer | None) -> bool:
    """Returns whether a layer can do the work of the BatchNorm behind it."""
    if not isinstance(layer, _FUSES) or not isinstance(after, layers.BatchNormalization):
        return False
    if getattr(layer, "expansion", 0):
        # Its rows in float16 would be rounded anew, and embeddings would change by that.
        return False
    linear = keras.activations.linear
    is_linear = getattr(layer, "activation", linear) is linear
    once = len(layer._inbound_nodes) == len(after._inbound_nodes) == 1
    return is_linear and once and after.axis in (-1, after.input.ndim - 1)


def _pads_alike(layer: layers.Layer, after: layers.Layer | None) -> bool:
    """Returns whether the padding "same" of a convolution puts the zeros that a layer puts."""
    if not isinstance(layer, layers.ZeroPadding2D) or layer.data_format != "channels_last":
        return False
    if not isinstance(after, (layers.Conv2D, layers.DepthwiseConv2D)) or after.padding != "valid":
        return False
    if None in layer.input.shape[1:3] or set(after.dilation_rate) != {1}:
        return False
    sides = zip(layer.input.shape[1:3], after.kernel_size, after.strides, strict=True)
    missing = [max((-(-size // by) - 1) * by + width - size, 0) for size, width, by in sides]
    return layer.padding == tuple((zeros // 2, zeros - zeros // 2) for zeros in missing)


def _merged(layer: layers.Layer, norm: layers.BatchNormalization) -> list[np.ndarray]:
    """Returns kernel and bias of a layer that does the work of `layer` and of `norm` behind it."""
    scale = 1 / np.sqrt(np.asarray(norm.moving_variance, np.float64) + norm.epsilon)
    if norm.gamma is not None:
        scale = scale * np.asarray(norm.gamma)
    shift = -np.asarray(norm.moving_mean) * scale
    if norm.beta is not None:
        shift = shift + np.asarray(norm.beta)
    kernel, *bias = layer.get_weights()
    # A depthwise kernel ends in [channels, multiplier]; its result has these two as one axis.
    depthwise = isinstance(layer, layers.DepthwiseConv2D)
    by_channel = scale.reshape(kernel.shape[-2:]) if depthwise else scale
    return [kernel * by_channel, shift + (bias[0] * scale if bias else 0)]
