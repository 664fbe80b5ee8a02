"""Requests that TF Serving runs before it lets a fresh model answer."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog, PredictLog

from tf_dpce.export.examples import Examples


def write_warmup(
    path: Path, name: str, inputs: dict[str, str], examples: dict[str, Examples]
) -> None:
    """Writes two requests for each endpoint: its first example alone, and all of them.

    Args:
        path: the file.
        name: of the model on the server.
        inputs: the name of each endpoint's input.
        examples: of each endpoint. A request that fails keeps TF Serving from loading the
            model, so these must have been run.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for endpoint, example in examples.items():
            for batch in (example.inputs[:1], example.inputs):
                request = _request(name, endpoint, inputs[endpoint], batch)
                log = PredictionLog(predict_log=PredictLog(request=request))
                writer.write(log.SerializeToString())


def _request(name: str, endpoint: str, key: str, batch: tuple[bytes, ...]) -> PredictRequest:
    request = PredictRequest()
    request.model_spec.name = name
    request.model_spec.signature_name = endpoint
    request.inputs[key].CopyFrom(tf.make_tensor_proto(list(batch), tf.string))
    return request
