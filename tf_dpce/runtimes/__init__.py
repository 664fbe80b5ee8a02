"""Exported models in ONNX Runtime, OpenVINO and LiteRT, without TensorFlow.

`write` adds the files of a runtime to an export, and `load` embeds with them. What a model does
before its encoders is done by `pixels` and `tokens`, in NumPy and Pillow.
"""

from __future__ import annotations

from typing import Literal

Runtime = Literal["onnx", "openvino", "litert"]
AnyRuntime = Literal["tensorflow", "onnx", "openvino", "litert"]
# Of LiteRT's files; the other runtimes compute in float32.
Precision = Literal["float32", "float16", "dynamic", "int8"]
