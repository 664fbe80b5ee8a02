"""The operations of ONNX that each layer of an encoder stands for.

Each writer gets the graph, the layer, the names of its inputs and the inputs themselves, and
returns the name of its result.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tf_dpce.errors import UserError

if TYPE_CHECKING:
    from tf_dpce.runtimes.onnx_graph import Graph

_TO_THE_END = np.iinfo(np.int64).max


def _convolution(graph: Graph, layer: Any, names: list[str], tensors: list[Any]) -> str:
    kernel = np.asarray(layer.kernel)
    groups = 1
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        # [H, W, C, M] of C channels with M filters each
        groups = kernel.shape[2]
        kernel = kernel.reshape(*kernel.shape[:2], 1, -1)
    bias = [] if layer.bias is None else [np.asarray(layer.bias)]
    result = graph.add(
        "Conv",
        *names,
        kernel.transpose(3, 2, 0, 1),
        *bias,
        group=groups,
        strides=layer.strides,
        dilations=layer.dilation_rate,
        pads=_padding(layer, tensors[0].shape, kernel.shape[:2], layer.dilation_rate),
    )
    return _activated(graph, layer, result)


def _padding(layer: Any, shape: Any, window: Any, dilation: Any = (1, 1)) -> list[int]:
    """Returns what is put before and behind rows and columns; of odd numbers more behind."""
    if layer.padding == "valid":
        return [0] * 4
    sides = zip(shape[1:3], window, layer.strides, dilation, strict=True)
    missing = [max((-(-n // by) - 1) * by + (w - 1) * d + 1 - n, 0) for n, w, by, d in sides]
    return [zeros // 2 for zeros in missing] + [zeros - zeros // 2 for zeros in missing]


def _causal(graph: Graph, layer: Any, names: list[str], tensors: list[Any]) -> str:
    """A product of what each position sees, itself and those before it, side by side."""
    width, stride = layer.kernel_size[0], layer.strides[0]
    (seen,) = names
    if width > 1:
        seen = graph.add("Pad", seen, np.array([0, width - 1, 0, 0, 0, 0]))
    ends = [first - width + 1 or _TO_THE_END for first in range(width)]
    parts = [
        seen if width == stride == 1 else _slice(graph, seen, 1, first, end, stride)
        for first, end in enumerate(ends)
    ]
    if width > 1:
        parts = [graph.add("Concat", *parts, axis=2)]
    matrix = np.asarray(layer.kernel).reshape(-1, layer.filters)
    return _activated(graph, layer, _product(graph, layer, parts[0], matrix))


def _dense(graph: Graph, layer: Any, names: list[str], tensors: list[Any]) -> str:
    return _activated(graph, layer, _product(graph, layer, *names, np.asarray(layer.kernel)))


def _product(graph: Graph, layer: Any, name: str, matrix: np.ndarray) -> str:
    product = graph.add("MatMul", name, matrix)
    return product if layer.bias is None else graph.add("Add", product, np.asarray(layer.bias))


def _batch_norm(graph: Graph, layer: Any, names: list[str], tensors: list[Any]) -> str:
    scale = 1 / np.sqrt(np.asarray(layer.moving_variance, np.float64) + layer.epsilon)
    scale = scale if layer.gamma is None else scale * np.asarray(layer.gamma)
    shift = -np.asarray(layer.moving_mean) * scale
    shift = shift if layer.beta is None else shift + np.asarray(layer.beta)
    if len(tensors[0].shape) == 4:
        scale, shift = scale[:, None, None], shift[:, None, None]
    return graph.add("Add", graph.add("Mul", *names, scale), shift)


def _word_vectors(graph: Graph, layer: Any, names: list[str], tensors: list[Any]) -> str:
    return graph.add("Gather", np.asarray(layer.table()), *names)


def _relu(graph: Graph, layer: Any, names: list[str], tensors: list[Any]) -> str:
    if layer.negative_slope or layer.threshold:
        raise UserError("runtimes.operation", f"the layer {layer.name} is a leaky ReLU")
    if layer.max_value is None:
        return graph.add("Relu", *names)
    return graph.add("Clip", *names, np.float32(0), np.float32(layer.max_value))


def _activation(graph: Graph, layer: Any, names: list[str], tensors: list[Any]) -> str:
    return _activated(graph, layer, *names)


def _activated(graph: Graph, layer: Any, name: str) -> str:
    kind = getattr(layer.activation, "__name__", str(layer.activation))
    if kind == "linear":
        return name
    if kind in ("relu", "sigmoid", "tanh"):
        return graph.add(kind.capitalize(), name)
    if kind in ("silu", "swish"):
        return graph.add("Mul", name, graph.add("Sigmoid", name))
    if kind == "relu6":
        return graph.add("Clip", name, np.float32(0), np.float32(6))
    raise UserError(
        "runtimes.operation",
        f"the layer {layer.name} ends in {kind}, which has no counterpart in ONNX here: export "
        "without --format, or build the tower with another activation",
    )


def _zero_padding(graph: Graph, layer: Any, names: list[str], tensors: list[Any]) -> str:
    (top, bottom), (left, right) = layer.padding
    return graph.add("Pad", *names, np.array([0, 0, top, left, 0, 0, bottom, right]))


def _pooling(kind: str, graph: Graph, layer: Any, names: list[str], tensors: list[Any]) -> str:
    pads = _padding(layer, tensors[0].shape, layer.pool_size)
    return graph.add(kind, *names, kernel_shape=layer.pool_size, strides=layer.strides, pads=pads)


def _reduction(kind: str, graph: Graph, layer: Any, names: list[str], tensors: list[Any]) -> str:
    axes = [2, 3] if len(tensors[0].shape) == 4 else [1]
    return graph.add(kind, *names, axes=axes, keepdims=int(layer.keepdims))


def _flatten(graph: Graph, layer: Any, names: list[str], tensors: list[Any]) -> str:
    if len(tensors[0].shape) == 4:
        # The weights behind it count channels last.
        names = [graph.add("Transpose", *names, perm=[0, 2, 3, 1])]
    return graph.add("Flatten", *names)


def _unit_length(graph: Graph, layer: Any, names: list[str], tensors: list[Any]) -> str:
    squares = graph.add("ReduceSumSquare", *names, axes=[-1], keepdims=1)
    length = graph.add("Sqrt", graph.add("Add", squares, np.float32(1e-8)))
    return graph.add("Div", *names, length)


def _rescaling(graph: Graph, layer: Any, names: list[str], tensors: list[Any]) -> str:
    return graph.add(
        "Add", graph.add("Mul", *names, np.float32(layer.scale)), np.float32(layer.offset)
    )


def _concatenate(graph: Graph, layer: Any, names: list[str], tensors: list[Any]) -> str:
    rank = len(tensors[0].shape)
    channels = layer.axis in (-1, rank - 1) and rank == 4
    return graph.add("Concat", *names, axis=1 if channels else layer.axis)


def _identity(graph: Graph, layer: Any, names: list[str], tensors: list[Any]) -> str:
    return names[0]


# === Operations that stand between layers ===


def _arithmetic(
    kind: str, graph: Graph, operation: Any, names: list[str], tensors: list[Any], *others: Any
) -> str:
    constants = [_channels(other, tensors[0]) for other in others if len(names) == 1]
    return graph.add(kind, *names, *constants)


def _channels(value: Any, tensor: Any) -> np.ndarray:
    """Returns a constant beside images `[B, H, W, C]` as it stands beside `[B, C, H, W]`."""
    array = np.asarray(keras.ops.convert_to_numpy(value), np.float32)
    if array.ndim == 1 and len(tensor.shape) == 4:
        return array[:, None, None]
    return np.moveaxis(array, -1, 1) if array.ndim == 4 else array


def _item(graph: Graph, operation: Any, names: list[str], tensors: list[Any], key: Any) -> str:
    """One channel of images, `x[..., number]`, or the first numbers of features, `x[:, :count]`."""
    _, chosen = key
    if isinstance(chosen, slice):
        return _slice(graph, *names, 1, 0, chosen.stop)
    return _slice(graph, *names, 1, chosen, chosen + 1)


def _stack(graph: Graph, operation: Any, names: list[str], tensors: list[Any], **_: Any) -> str:
    """Channels that `_item` cut out, which still have their axis."""
    return graph.add("Concat", *names, axis=1)


def _flip(graph: Graph, operation: Any, names: list[str], tensors: list[Any], **_: Any) -> str:
    """Images from right to left."""
    return _slice(graph, *names, 3, -1, -_TO_THE_END, -1)


def _slice(graph: Graph, name: str, axis: int, start: int, end: int, step: int = 1) -> str:
    return graph.add("Slice", name, *(np.array([each]) for each in (start, end, axis, step)))


WRITERS: dict[str, Callable[..., str]] = {
    "Conv2D": _convolution,
    "DepthwiseConv2D": _convolution,
    "CausalConvolution": _causal,
    "Dense": _dense,
    "BatchNormalization": _batch_norm,
    "WordEmbedding": _word_vectors,
    "ReLU": _relu,
    "Activation": _activation,
    "ZeroPadding2D": _zero_padding,
    "MaxPooling2D": partial(_pooling, "MaxPool"),
    "AveragePooling2D": partial(_pooling, "AveragePool"),
    "GlobalAveragePooling1D": partial(_reduction, "ReduceMean"),
    "GlobalAveragePooling2D": partial(_reduction, "ReduceMean"),
    "GlobalMaxPooling1D": partial(_reduction, "ReduceMax"),
    "GlobalMaxPooling2D": partial(_reduction, "ReduceMax"),
    "Flatten": _flatten,
    "UnitLength": _unit_length,
    "Rescaling": _rescaling,
    "Concatenate": _concatenate,
    "Dropout": _identity,
    "RowDropout": _identity,
    "Add": partial(_arithmetic, "Add"),
    "Subtract": partial(_arithmetic, "Sub"),
    "Multiply": partial(_arithmetic, "Mul"),
    "Divide": partial(_arithmetic, "Div"),
    "TrueDivide": partial(_arithmetic, "Div"),
    "GetItem": _item,
    "Stack": _stack,
    "Flip": _flip,
}
