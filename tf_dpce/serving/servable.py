"""One version of a model: it loads, answers, and is freed."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef

from tf_dpce.export.session_process import one_line, open_session
from tf_dpce.export.warmup import WARMUP_FILE, read_warmup
from tf_dpce.serving.errors import ServingError

LOADING = "LOADING"
AVAILABLE = "AVAILABLE"
END = "END"

_INVALID = "INVALID_ARGUMENT"


class Servable:
    """A version that runs in a Session, like in TF Serving.

    Args:
        name: name of the model.
        number: number of the version.
        folder: the exported version.

    Attributes:
        state: LOADING, AVAILABLE or END.
        error: why it could not be loaded, or "".
        users: number of requests that are being answered.
    """

    def __init__(self, name: str, number: int, folder: Path) -> None:
        self.name = name
        self.number = number
        self.state = LOADING
        self.error = ""
        self.users = 0
        self._folder = folder
        self._files = _files(folder)
        self._resources = ExitStack()

    def load(self) -> None:
        """Opens the Session and runs the warm-up requests; after a failure `error` says why."""
        try:
            with ExitStack() as resources:
                self._model = resources.enter_context(open_session(self._folder))
                if (self._folder / WARMUP_FILE).exists():
                    for signature, inputs in read_warmup(self._folder):
                        self._model.run(signature, inputs)
                self._resources = resources.pop_all()
        except Exception as error:  # a damaged version raises whatever TensorFlow trips over
            self.state, self.error = END, one_line(error)
        else:
            self.state = AVAILABLE

    def is_replaced(self) -> bool:
        """Returns whether other files have come in the place of those that were loaded."""
        return _files(self._folder) != self._files

    def close(self) -> None:
        """Frees the Session."""
        self._resources.close()

    @property
    def signatures(self) -> Mapping[str, SignatureDef]:
        """The signatures by name."""
        return self._model.meta_graph.signature_def

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
            ServingError: FAILED_PRECONDITION or INVALID_ARGUMENT if the request does not fit the
                signature, else the status that TensorFlow gives.
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


def _files(folder: Path) -> frozenset:
    """Returns what distinguishes the files of a version from any that replace them."""
    found = set()
    for path in (folder, *folder.rglob("*")):
        # A file may go while it is looked at; the next look finds what came.
        with suppress(OSError):
            stat = path.stat()
            found.add((path, stat.st_ino, stat.st_size, stat.st_mtime_ns))
    return frozenset(found)
