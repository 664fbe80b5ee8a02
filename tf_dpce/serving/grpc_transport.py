"""Requests to a model server over gRPC, by TF Serving's stubs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, SignatureDefMap
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

from tf_dpce.export import ENDPOINTS
from tf_dpce.serving.errors import ServingError
from tf_dpce.serving.target import Target

# gRPC's own limit of 4 MB is below an answer of a few hundred vectors.
_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class GrpcTransport:
    """A way to a model over gRPC, one connection for all threads.

    Args:
        target: the model.
    """

    def __init__(self, target: Target) -> None:
        parts = urlsplit(target.address)
        if parts.scheme == "grpcs":
            credentials = grpc.ssl_channel_credentials()
            self._channel = grpc.secure_channel(parts.netloc, credentials, _OPTIONS)
        else:
            self._channel = grpc.insecure_channel(parts.netloc, _OPTIONS)
        self._stub = PredictionServiceStub(self._channel)
        # gRPC wants these names in small letters.
        self._metadata = [(name.lower(), value) for name, value in target.headers.items()]
        self._spec = ModelSpec(name=target.model)
        if target.version is not None:
            self._spec.version.value = target.version
        if target.label is not None:
            self._spec.version_label = target.label

    def predict(
        self, endpoint: str, contents: Sequence[bytes], timeout: float
    ) -> Mapping[str, np.ndarray]:
        """Returns the outputs of an endpoint by name.

        Raises:
            ServingError: the server is away, or answers an error.
        """
        request = PredictRequest(model_spec=self._spec)
        request.model_spec.signature_name = endpoint
        strings = tf.make_tensor_proto(list(contents), tf.string, [len(contents)])
        request.inputs[ENDPOINTS[endpoint]].CopyFrom(strings)
        answer = self._call(self._stub.Predict, request, timeout)
        return {name: tf.make_ndarray(value) for name, value in answer.outputs.items()}

    def dimension(self, timeout: float) -> int:
        """Returns the width of the embeddings.

        Raises:
            ServingError: the server is away, or answers an error.
        """
        request = GetModelMetadataRequest(model_spec=self._spec, metadata_field=["signature_def"])
        answer = self._call(self._stub.GetModelMetadata, request, timeout)
        signatures = SignatureDefMap()
        answer.metadata["signature_def"].Unpack(signatures)
        if "encode_text" not in signatures.signature_def:
            raise ServingError("INTERNAL", "the model has no endpoint encode_text")
        embedding = signatures.signature_def["encode_text"].outputs["embedding"]
        return embedding.tensor_shape.dim[1].size

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def _call(self, method: Callable[..., Any], request: Any, timeout: float) -> Any:
        try:
            return method(request, timeout=timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise ServingError(error.code().name, error.details() or "") from None
