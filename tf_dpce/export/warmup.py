"""Requests that TF Serving runs before it lets a fresh model answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog, PredictLog

from tf_dpce.export import DEFAULT_SIGNATURE, ENDPOINTS
from tf_dpce.export.golden import Examples

# The path and the format, a TFRecord of PredictionLog, are TF Serving's own.
WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"


def write_warmup(version: Path, name: str, examples: dict[str, Examples]) -> None:
    """Writes two requests for each signature: its first example alone, and all of them.

    The first endpoint has two signatures, because TensorFlow prepares each by itself.

    Args:
        version: the folder of the exported version.
        name: the name of the model on the server.
        examples: the golden examples of each endpoint. A request that fails keeps TF Serving from
            loading the model, so these must have been run.
    """
    path = version / WARMUP_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        signatures = {DEFAULT_SIGNATURE: next(iter(ENDPOINTS)), **{e: e for e in ENDPOINTS}}
        for signature, endpoint in signatures.items():
            contents = examples[endpoint].inputs
            for batch in (contents[:1], contents):
                request = PredictRequest()
                request.model_spec.name = name
                request.model_spec.signature_name = signature
                tensor = tf.make_tensor_proto(list(batch), tf.string)
                request.inputs[ENDPOINTS[endpoint]].CopyFrom(tensor)
                log = PredictionLog(predict_log=PredictLog(request=request))
                writer.write(log.SerializeToString())


def read_warmup(version: Path) -> Iterator[tuple[str, dict[str, list[bytes]]]]:
    """Yields the signature and the inputs by name of each request of an exported version.

    Raises:
        tf.errors.OpError: if the file is missing or damaged.
        google.protobuf.message.DecodeError: if a record is no request.
    """
    for record in tf.data.TFRecordDataset(str(version / WARMUP_FILE)).as_numpy_iterator():
        request = PredictionLog.FromString(record).predict_log.request
        inputs = {key: tf.make_ndarray(value).tolist() for key, value in request.inputs.items()}
        yield request.model_spec.signature_name, inputs
