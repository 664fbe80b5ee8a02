"""A SavedModel in a Session of the first TensorFlow generation, which is TF Serving's way.

This file also runs by itself in a process that does not import `tf_dpce`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_text  # noqa: F401  registers operations that exports contain
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef, SignatureDef


class SessionModel:
    """A SavedModel in a Session, as TF Serving holds it.

    Attributes:
        meta_graph: its graph, functions and signatures.
    """

    def __init__(self, session: tf.compat.v1.Session, meta_graph: MetaGraphDef) -> None:
        self._session = session
        self.meta_graph = meta_graph

    def run(self, endpoint: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the outputs by name, given the inputs by name."""
        signature = self._signature(endpoint)
        if inputs.keys() != signature.inputs.keys():
            raise ValueError(f"{endpoint} takes {set(signature.inputs)}, not {set(inputs)}")
        feeds = {signature.inputs[key].name: value for key, value in inputs.items()}
        fetches = {key: tensor.name for key, tensor in signature.outputs.items()}
        return self._session.run(fetches, feeds)

    def fetch(self, names: Sequence[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Returns tensors by their names in the graph, given others by theirs."""
        return self._session.run(list(names), feeds)

    def encode(self, endpoint: str, batch: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Returns embeddings `[B, D]` and statuses `[B]` of B byte strings."""
        (key,) = self._signature(endpoint).inputs
        answer = self.run(endpoint, {key: np.array(list(batch), dtype=object)})
        return answer["embedding"], answer["status"]

    def _signature(self, endpoint: str) -> SignatureDef:
        # Protobuf's own map makes an empty entry of any name it is asked for.
        if endpoint not in self.meta_graph.signature_def:
            raise ValueError(f"there is no endpoint {endpoint}")
        return self.meta_graph.signature_def[endpoint]


@contextmanager
def open_session(path: Path) -> Iterator[SessionModel]:
    """Opens an exported version in a Session, as TF Serving does."""
    # On the CPU, where the examples were recorded: a GPU rounds its products to fewer digits.
    config = tf.compat.v1.ConfigProto(device_count={"GPU": 0}, allow_soft_placement=True)
    session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
    try:
        with session.graph.as_default():
            meta_graph = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(path))
        yield SessionModel(session, meta_graph)
    finally:
        session.close()
