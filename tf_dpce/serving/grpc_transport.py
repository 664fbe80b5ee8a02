"""Requests to a model server over gRPC, by TF Serving's stubs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

from tf_dpce.errors import shorten
from tf_dpce.export import ENDPOINTS
from tf_dpce.serving.endpoint import MAX_ITEM_BYTES, Endpoint
from tf_dpce.serving.errors import Refused, ServingError, answered_error

_OPTIONS = [
    # gRPC's own limit of 4 MB is below an answer of a few hundred embeddings.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # By default it waits a second before it connects again, longer than a client's first retries.
    ("grpc.initial_reconnect_backoff_ms", 100),
]
_NO_CONNECTION = "Failed to connect to remote host"
_NO_GRPC = "Failed parsing HTTP/2"


class GrpcTransport:
    """Asks a model over gRPC, by one connection for all requests.

    Args:
        endpoint: the model.

    Attributes:
        max_item_bytes: largest size of an item.
    """

    max_item_bytes = MAX_ITEM_BYTES

    def __init__(self, endpoint: Endpoint) -> None:
        self._address, url = endpoint.address, endpoint.url
        if url.scheme == "grpcs":
            credentials = grpc.ssl_channel_credentials()
            self._channel = grpc.secure_channel(url.netloc, credentials, _OPTIONS)
        else:
            self._channel = grpc.insecure_channel(url.netloc, _OPTIONS)
        self._stub = PredictionServiceStub(self._channel)
        # gRPC takes names in lower case only.
        self._metadata = [(name.lower(), value) for name, value in (endpoint.headers or {}).items()]
        self._spec = ModelSpec(name=endpoint.model)
        if endpoint.version is not None:
            self._spec.version.value = endpoint.version
        if endpoint.label is not None:
            self._spec.version_label = endpoint.label

    async def predict(
        self, signature: str, contents: Sequence[bytes], timeout: float
    ) -> Mapping[str, np.ndarray]:
        """Returns the outputs of a signature by name.

        Raises:
            ServingError: the server is away, answers an error, or not within `timeout` seconds.
        """
        request = PredictRequest(model_spec=self._spec)
        request.model_spec.signature_name = signature
        strings = tf.make_tensor_proto(list(contents), tf.string, [len(contents)])
        request.inputs[ENDPOINTS[signature]].CopyFrom(strings)
        call = self._stub.Predict.future(request, timeout=timeout, metadata=self._metadata)
        try:
            answer = await _answer(call)
        except grpc.RpcError as error:
            raise self._error(error.code().name, error.details() or "") from None
        return {name: tf.make_ndarray(value) for name, value in answer.outputs.items()}

    def _error(self, status: str, details: str) -> ServingError:
        if status == "UNAVAILABLE" and _NO_GRPC in details:
            return ServingError(
                status, f"{self._address}: it answers no gRPC: is this the REST port?"
            )
        # gRPC itself repeats what surely no server took up. What it reports may have been taken
        # up, and a gateway's status resembles a server's; only a failed connection is certain.
        if status == "UNAVAILABLE" and _NO_CONNECTION in details:
            return Refused(status, f"{self._address}: {shorten(details)}")
        return answered_error(status, details)

    async def close(self) -> None:
        """Closes the connection."""
        self._channel.close()


async def _answer(call: grpc.Future) -> PredictResponse:
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    call.add_done_callback(lambda _: loop.call_soon_threadsafe(done.set))
    try:
        await done.wait()
    except asyncio.CancelledError:
        call.cancel()
        raise
    return call.result()
