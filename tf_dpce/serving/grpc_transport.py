"""Requests to a model server over gRPC, by TF Serving's stubs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

from tf_dpce.export import ENDPOINTS
from tf_dpce.serving.errors import Refused, ServingError
from tf_dpce.serving.target import ITEM_BYTES, Target

_OPTIONS = [
    # gRPC's own limit of 4 MB is below an answer of a few hundred vectors.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # It would wait a second before it connects again, beyond the first repetitions of a client.
    ("grpc.initial_reconnect_backoff_ms", 100),
]
_NO_CONNECTION = "Failed to connect to remote host"


class GrpcTransport:
    """A way to a model over gRPC, one connection for all threads.

    Args:
        target: the model.

    Attributes:
        item_bytes: the most that an item may have.
    """

    item_bytes = ITEM_BYTES

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
        try:
            answer = self._stub.Predict(request, timeout=timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise _told(error) from None
        return {name: tf.make_ndarray(value) for name, value in answer.outputs.items()}

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()


def _told(error: grpc.RpcError) -> ServingError:
    code, details = error.code().name, error.details() or ""
    # gRPC itself sends again what a server surely did not take up. What it reports may have been
    # taken up, and a gateway's status looks like a server's; but not where nobody listened.
    never_sent = code == "UNAVAILABLE" and _NO_CONNECTION in details
    return (Refused if never_sent else ServingError)(code, details)
