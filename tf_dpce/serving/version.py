"""One version of a model, ready to answer."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef

from tf_dpce.export import replay
from tf_dpce.export.session import open_session
from tf_dpce.serving.errors import ServingError

_INVALID = "INVALID_ARGUMENT"


class Version:
    """A version in a Session, which is TF Serving's way, after its warm-up requests were run.

    Args:
        name: of the model.
        number: of the version.
        folder: the exported version.

    Raises:
        Exception: whatever keeps it from loading, or from answering a warm-up request.
    """

    def __init__(self, name: str, number: int, folder: Path) -> None:
        self.name = name
        self.number = number
        with ExitStack() as resources:
            self._model = resources.enter_context(open_session(folder))
            if (folder / replay.FILE).exists():
                for endpoint, inputs in replay.read_warmup(folder / replay.FILE):
                    self._model.run(endpoint, inputs)
            self._resources = resources.pop_all()

    @property
    def signatures(self) -> Mapping[str, SignatureDef]:
        """The signatures by name."""
        return self._model.meta_graph.signature_def

    def close(self) -> None:
        """Frees the Session."""
        self._resources.close()

    def signature(self, name: str) -> SignatureDef:
        """Returns a signature.

        Raises:
            ServingError: FAILED_PRECONDITION, there is none of this name.
        """
        if name not in self.signatures:
            message = f'Serving signature key "{name}" not found.'
            raise ServingError("FAILED_PRECONDITION", message)
        return self.signatures[name]

    def predict(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the outputs of a signature by name, given its inputs by name.

        Raises:
            ServingError: FAILED_PRECONDITION or INVALID_ARGUMENT where the request does not fit
                the signature, else the code that TensorFlow gives.
        """
        _check_inputs(self.signature(signature), inputs)
        try:
            return self._model.run(signature, dict(inputs))
        except tf.errors.OpError as error:
            raise ServingError.of_number(error.error_code, error.message) from None
        except ValueError as error:
            raise ServingError(_INVALID, str(error)) from None


def _check_inputs(signature: SignatureDef, inputs: Mapping[str, np.ndarray]) -> None:
    sent, wanted = set(inputs), set(signature.inputs)
    if sent != wanted:
        raise ServingError(
            _INVALID,
            f"input size does not match signature. Sent extra: {_braced(sent - wanted)}. "
            f"Missing but required: {_braced(wanted - sent)}.",
        )
    for name, value in inputs.items():
        expected = tf.as_dtype(signature.inputs[name].dtype)
        found = tf.string if value.dtype == object else tf.as_dtype(value.dtype)
        if found != expected:
            message = f"input {name} is expected to be {expected.name} but {found.name} is provided"
            raise ServingError(_INVALID, message)


def _braced(names: set[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"
