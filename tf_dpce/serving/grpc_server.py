"""TF Serving's gRPC surface over the models of a development server."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tf_dpce.export import DEFAULT_SIGNATURE
from tf_dpce.serving import answers
from tf_dpce.serving.errors import STATUSES, ServingError
from tf_dpce.serving.models import Models

_THREADS = 32
_MOST_REPEATED = 2**16

Answer = TypeVar("Answer")


def grpc_server(models: Models, max_request_bytes: int) -> grpc.Server:
    """Returns a server that knows both of TF Serving's services, without a port yet.

    Args:
        models: what answers.
        max_request_bytes: larger requests are refused, with RESOURCE_EXHAUSTED.
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

    def __init__(self, models: Models) -> None:
        self._models = models

    def Predict(
        self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> predict_pb2.PredictResponse:
        return _try(context, lambda: self._predict(request))

    def GetModelMetadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest, context: Any
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        return _try(context, lambda: answers.model_metadata(self._models, request))

    def _predict(self, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        with self._models.use(request.model_spec) as version:
            inputs = {key: _array(value) for key, value in request.inputs.items()}
            outputs = version.predict(name, inputs)
            answer = predict_pb2.PredictResponse()
            answer.model_spec.name = version.name
            answer.model_spec.version.value = version.number
            answer.model_spec.signature_name = name
        for key in request.output_filter or outputs:
            if key not in outputs:
                message = f"output tensor alias not found in signature: {key}"
                raise ServingError("INVALID_ARGUMENT", message)
            answer.outputs[key].CopyFrom(tf.make_tensor_proto(outputs[key]))
        return answer


class _ModelService(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, models: Models) -> None:
        self._models = models

    def GetModelStatus(
        self, request: get_model_status_pb2.GetModelStatusRequest, context: grpc.ServicerContext
    ) -> get_model_status_pb2.GetModelStatusResponse:
        return _try(context, lambda: answers.model_status(self._models, request))

    def HandleReloadConfigRequest(
        self, request: model_management_pb2.ReloadConfigRequest, context: grpc.ServicerContext
    ) -> model_management_pb2.ReloadConfigResponse:
        answer = model_management_pb2.ReloadConfigResponse()
        try:
            self._models.configure(request.config)
        except ServingError as error:
            answer.status.error_code = STATUSES[error.status][0]
            answer.status.error_message = error.detail
        return answer


def _array(value: tensor_pb2.TensorProto) -> np.ndarray:
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


def _try(context: grpc.ServicerContext, work: Callable[[], Answer]) -> Answer:
    try:
        return work()
    except ServingError as error:
        context.abort(grpc.StatusCode[error.status], error.detail)
