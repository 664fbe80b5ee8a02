"""Writes an encoder as an ONNX graph, layer by layer.

The layers of our encoders are few, so that each is written as the operations of ONNX that it stands
for, and one that is not known is named. These are numbers 17 and below, which every ONNX Runtime
since 2022 and OpenVINO know.

Images are `[B, C, H, W]` inside the graph, as ONNX has it; sequences stay `[B, T, C]`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
from onnx import helper, numpy_helper

from tf_dpce.errors import UserError
from tf_dpce.models.layers import InferenceMode
from tf_dpce.runtimes.onnx_layers import WRITERS

_OPSET, _IR_VERSION = 17, 8
_ELEMENTS = {np.dtype("float32"): onnx.TensorProto.FLOAT, np.dtype("int32"): onnx.TensorProto.INT32}


def write_onnx(encoder: keras.Model, path: Path) -> None:
    """Writes an encoder as a file `.onnx`, for any number of rows and of token positions.

    Args:
        encoder: what `models.fuse_batch_norm.folded` returned: from pixels float32
            `[B, S, S, 3]`, or token ids int32 `[B, T]`, to embeddings float32 `[B, D]`.
        path: the file to write.

    Raises:
        UserError: the encoder has an operation that this module does not know.
    """
    graph = Graph()
    pixels = len(encoder.input_shape) == 4
    shape = ("rows", *encoder.input_shape[1:]) if pixels else ("rows", "positions")
    start = "image" if pixels else "text"
    first = graph.add("Transpose", start, perm=[0, 3, 1, 2]) if pixels else start
    end = graph.add("Identity", graph.model(encoder, first), output="embedding")
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            start,
            [helper.make_tensor_value_info(start, _ELEMENTS[np.dtype(encoder.input.dtype)], shape)],
            [helper.make_tensor_value_info(end, onnx.TensorProto.FLOAT, ("rows", "numbers"))],
            graph.weights,
        ),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="tf_dpce",
    )
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())


class Graph:
    """Nodes and weights of a graph that grows."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def add(self, kind: str, *inputs: Any, output: str | None = None, **attributes: Any) -> str:
        """Adds a node; an input that is no name is a constant. Returns the name of its result."""
        names = [each if isinstance(each, str) else self._constant(each) for each in inputs]
        output = output or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, names, [output], **attributes))
        return output

    def model(self, model: keras.Model, start: str) -> str:
        """Adds the operations of a model with one input and one output."""
        given = keras.Input(batch_shape=model.input_shape, dtype=model.input.dtype)
        names, last = {id(given): start}, [start]
        alive = [given]  # a number that stands for a tensor must not be given to another one

        def add(operation: keras.Operation, *args: Any, **kwargs: Any) -> Any:
            result = operation(*args, **kwargs)
            tensors = [each for each in keras.tree.flatten(args) if id(each) in names]
            last[0] = names[id(result)] = self._operation(
                operation, [names[id(each)] for each in tensors], tensors, args, kwargs
            )
            alive.append(result)
            return result

        keras.models.clone_model(
            model, input_tensors=given, clone_function=lambda layer: layer, call_function=add
        )
        return last[0]

    def _operation(
        self, operation: Any, names: list[str], tensors: list[Any], args: Any, kwargs: Any
    ) -> str:
        if isinstance(operation, keras.Model):
            return self.model(operation, *names)
        if isinstance(operation, InferenceMode):
            return self.model(operation.layer, *names)
        kind = type(operation).__name__
        if kind not in WRITERS:
            raise UserError(
                "runtimes.operation",
                f"the layer {operation.name} is a {kind}, which has no counterpart in ONNX here: "
                "export without --format, or build the tower from other layers",
            )
        kwargs.pop("mask", None)
        return WRITERS[kind](self, operation, names, tensors, *args[1:], **kwargs)

    def _constant(self, value: Any) -> str:
        array = np.asarray(value)
        if array.dtype in (np.float16, np.float64):
            array = array.astype(np.float32)
        name = f"constant_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name
