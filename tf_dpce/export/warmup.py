"""Requests that TF Serving runs before it lets a fresh model answer."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog, PredictLog

from tf_dpce.export import DEFAULT_SIGNATURE
from tf_dpce.export.examples import Examples


def write_warmup(
    path: Path, name: str, inputs: dict[str, str], examples: dict[str, Examples]
) -> None:
    """Writes two requests for each signature: its first example alone, and all of them.

    The first endpoint goes by two names, each of which TensorFlow prepares by itself.

    Args:
        path: the file.
        name: of the model on the server.
        inputs: the name of each endpoint's input; the first is the default one.
        examples: of each endpoint. A request that fails keeps TF Serving from loading the
            model, so these must have been run.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        named = {DEFAULT_SIGNATURE: next(iter(inputs)), **{name: name for name in inputs}}
        for signature, endpoint in named.items():
            contents = examples[endpoint].inputs
            for batch in (contents[:1], contents):
                request = _request(name, signature, inputs[endpoint], batch)
                log = PredictionLog(predict_log=PredictLog(request=request))
                writer.write(log.SerializeToString())


def _request(name: str, signature: str, key: str, batch: tuple[bytes, ...]) -> PredictRequest:
    request = PredictRequest()
    request.model_spec.name = name
    request.model_spec.signature_name = signature
    request.inputs[key].CopyFrom(tf.make_tensor_proto(list(batch), tf.string))
    return request
