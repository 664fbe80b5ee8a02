"""TF Serving's gRPC surface over the models of a development server."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc
from tensorflow_serving.apis.model_management_pb2 import ReloadConfigResponse
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse

from tf_dpce.export import DEFAULT_SIGNATURE
from tf_dpce.serving.errors import STATUSES, ServingError
from tf_dpce.serving.responses import model_metadata, model_status
from tf_dpce.serving.servable_manager import ServableManager

_THREADS = 32
_MOST_REPEATED = 2**16


def grpc_server(models: ServableManager, max_request_bytes: int) -> grpc.Server:
    """Returns a server with both of TF Serving's services, without a port yet.

    Args:
        models: the models that it serves.
        max_request_bytes: larger requests are refused with RESOURCE_EXHAUSTED.
    """
    options = [
        ("grpc.max_receive_message_length", max_request_bytes),
        ("grpc.max_send_message_length", -1),
        # A port that another server has is a mistake, not something to share.
        ("grpc.so_reuseport", 0),
    ]
    server = grpc.server(ThreadPoolExecutor(_THREADS), options=options)
    prediction = _PredictionService(models)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(prediction, server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(_ModelService(models), server)
    return server


class _PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    # What is not here, such as Classify, answers UNIMPLEMENTED.

    def __init__(self, models: ServableManager) -> None:
        self._models = models

    def Predict(self, request: PredictRequest, context: Any) -> PredictResponse:
        with _errors(context):
            return self._predict(request)

    def GetModelMetadata(self, request: Any, context: Any) -> Any:
        with _errors(context):
            return model_metadata(self._models, request)

    def _predict(self, request: PredictRequest) -> PredictResponse:
        signature = request.model_spec.signature_name or DEFAULT_SIGNATURE
        response = PredictResponse()
        with self._models.use(request.model_spec) as servable:
            inputs = {name: _array(value) for name, value in request.inputs.items()}
            outputs = servable.predict(signature, inputs)
            response.model_spec.name = servable.name
            response.model_spec.version.value = servable.number
            response.model_spec.signature_name = signature
        for name in request.output_filter or outputs:
            if name not in outputs:
                message = f"output tensor alias not found in signature: {name}"
                raise ServingError("INVALID_ARGUMENT", message)
            response.outputs[name].CopyFrom(tf.make_tensor_proto(outputs[name]))
        return response


class _ModelService(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, models: ServableManager) -> None:
        self._models = models

    def GetModelStatus(self, request: Any, context: Any) -> Any:
        with _errors(context):
            return model_status(self._models, request.model_spec)

    def HandleReloadConfigRequest(self, request: Any, context: Any) -> ReloadConfigResponse:
        response = ReloadConfigResponse()
        try:
            self._models.configure(request.config)
        except ServingError as error:
            response.status.error_code = STATUSES[error.status][0]
            response.status.error_message = error.detail
        return response


def _array(value: TensorProto) -> np.ndarray:
    sides = [side.size for side in value.tensor_shape.dim]
    if value.tensor_shape.unknown_rank or any(size < 0 for size in sides):
        raise _malformed("its shape is not fully known")
    # One value may stand for many elements: a few bytes would take all memory.
    if math.prod(sides) > max(value.ByteSize(), _MOST_REPEATED):
        raise _malformed(f"it has fewer values than its shape {sides} asks for")
    try:
        return tf.make_ndarray(value)
    except KeyError:
        raise _malformed("its type has no values") from None
    except (TypeError, ValueError) as error:
        raise _malformed(str(error)) from None


def _malformed(reason: str) -> ServingError:
    return ServingError("INVALID_ARGUMENT", f"malformed tensor: {reason}")


@contextmanager
def _errors(context: grpc.ServicerContext) -> Iterator[None]:
    try:
        yield
    except ServingError as error:
        context.abort(grpc.StatusCode[error.status], error.detail)
