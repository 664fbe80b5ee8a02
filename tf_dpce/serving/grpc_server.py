"""TF Serving's gRPC surface over the models of a development server."""

from __future__ import annotations

import logging
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
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse

from tf_dpce.errors import shorten
from tf_dpce.export import DEFAULT_SIGNATURE
from tf_dpce.serving.errors import ServingError
from tf_dpce.serving.servable_manager import MOST_ROWS, SIGNATURE_FIELD, ServableManager

_THREADS = 32


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
    # A request that is no protobuf is its client's matter, and gets the status INTERNAL.
    logging.getLogger("grpc._common").setLevel(logging.CRITICAL)
    server = grpc.server(ThreadPoolExecutor(_THREADS), options=options)
    services = _Services(models)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(services, server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(services, server)
    return server


class _Services(
    prediction_service_pb2_grpc.PredictionServiceServicer,
    model_service_pb2_grpc.ModelServiceServicer,
):
    def __init__(self, models: ServableManager) -> None:
        self._models = models

    def Predict(self, request: PredictRequest, context: Any) -> PredictResponse:
        with _errors(context):
            return self._predict(request)

    def GetModelMetadata(self, request: Any, context: Any) -> Any:
        with _errors(context):
            if not request.metadata_field:
                message = "GetModelMetadataRequest must specify at least one metadata_field"
                raise ServingError("INVALID_ARGUMENT", message)
            for name in set(request.metadata_field) - {SIGNATURE_FIELD}:
                message = f"Metadata field {shorten(name)} is not supported"
                raise ServingError("INVALID_ARGUMENT", message)
            return self._models.metadata(_spec(request))

    def GetModelStatus(self, request: Any, context: Any) -> Any:
        with _errors(context):
            return self._models.status(_spec(request))

    def Classify(self, request: Any, context: Any) -> None:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no signature is for this: use Predict")

    Regress = MultiInference = Classify

    def HandleReloadConfigRequest(self, request: Any, context: Any) -> ReloadConfigResponse:
        with _errors(context):
            if not request.config.HasField("model_config_list"):
                raise ServingError("INVALID_ARGUMENT", "the configuration is no ModelConfigList")
            self._models.configure(request.config)
            return ReloadConfigResponse()

    def _predict(self, request: PredictRequest) -> PredictResponse:
        servable = self._models.find(_spec(request))
        signature = request.model_spec.signature_name or DEFAULT_SIGNATURE
        inputs = {name: _strings(value) for name, value in request.inputs.items()}
        outputs = servable.predict(signature, inputs)
        response = PredictResponse()
        response.model_spec.name = servable.name
        response.model_spec.version.value = servable.number
        response.model_spec.signature_name = signature
        for name in request.output_filter or outputs:
            if name not in outputs or name in response.outputs:
                message = f"output tensor alias not found in signature, or twice: {shorten(name)}"
                raise ServingError("INVALID_ARGUMENT", message)
            response.outputs[name].CopyFrom(tf.make_tensor_proto(outputs[name]))
        return response


def _strings(value: TensorProto) -> np.ndarray:
    """Returns the strings of a tensor, as TF Serving's own parser reads them."""
    # One value may stand for many elements: a few bytes would take all memory.
    if (count := math.prod(side.size for side in value.tensor_shape.dim)) > MOST_ROWS:
        message = f"a request takes {MOST_ROWS} rows at most, not {shorten(count)}"
        raise ServingError("INVALID_ARGUMENT", message)
    try:
        return np.array(tf.io.parse_tensor(value.SerializeToString(), tf.string).numpy(), object)
    except tf.errors.OpError as error:
        # The only one that TF Serving does not take for the client's mistake.
        status = "INTERNAL" if value.dtype == tf.resource.as_datatype_enum else "INVALID_ARGUMENT"
        raise ServingError(status, f"tensor parsing error: {shorten(error.message)}") from None


def _spec(request: Any) -> ModelSpec:
    if not request.HasField("model_spec"):
        raise ServingError("INVALID_ARGUMENT", "Missing ModelSpec")
    return request.model_spec


@contextmanager
def _errors(context: grpc.ServicerContext) -> Iterator[None]:
    try:
        yield
    except ServingError as error:
        context.abort(grpc.StatusCode[error.status], error.detail)
