"""An exported version in a Session of TensorFlow 1, which is how TF Serving runs it.

`SessionModel` opens it in this process; `run_calls` runs it in a fresh one, by this file as a
script. The fresh process does not import `tf_dpce`, so it has nothing of the code that made the
export.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_text  # noqa: F401  registers operations that exports contain
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

# For all calls together. What takes longer may never end.
PATIENCE_SECONDS = 15 * 60

# On the CPU, where the golden examples were recorded: a GPU rounds its products to fewer digits.
_ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2"}

# TensorFlow writes this line above the message of an error in a graph.
_TRACE_HEADING = "Graph execution error:"

Inputs = Mapping[str, Sequence[bytes] | np.ndarray]
Outputs = dict[str, np.ndarray]
Call = tuple[str, Inputs]


class ModelError(Exception):
    """An exported version that cannot be loaded, or does not answer."""


class SessionModel:
    """An exported version in a Session of this process, which is freed with this object.

    Args:
        version: the folder of the version.

    Attributes:
        meta_graph: its graph, functions and signatures.
    """

    def __init__(self, version: Path) -> None:
        config = tf.compat.v1.ConfigProto(device_count={"GPU": 0}, allow_soft_placement=True)
        self._session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
        with self._session.graph.as_default():
            self.meta_graph: MetaGraphDef = tf.compat.v1.saved_model.loader.load(
                self._session, ["serve"], str(version)
            )

    def run(self, signature: str, inputs: Inputs) -> Outputs:
        """Returns the outputs of a signature by name.

        Args:
            signature: the name of the signature.
            inputs: an array, or byte strings `[B]`, for each input.

        Raises:
            ValueError: if there is no such signature, or it has other inputs.
            tf.errors.OpError: if the call fails.
        """
        # Protobuf's own map makes an empty entry of any name that it is asked for.
        if signature not in self.meta_graph.signature_def:
            raise ValueError(f"there is no endpoint {signature}")
        known = self.meta_graph.signature_def[signature]
        if inputs.keys() != known.inputs.keys():
            raise ValueError(f"{signature} takes {set(known.inputs)}, not {set(inputs)}")
        feeds = {known.inputs[key].name: _as_array(value) for key, value in inputs.items()}
        return self._session.run({key: t.name for key, t in known.outputs.items()}, feeds)


def answer_calls(version: Path, calls: Sequence[Call]) -> list[Outputs | str]:
    """Does what `run_calls` does, in this process."""

    model, answers = SessionModel(version), []
    for call in calls:
        try:
            answers.append(model.run(*call))
        except Exception as error:
            answers.append(one_line(error))
    return answers


def run_calls(version: Path, calls: Sequence[Call]) -> list[Outputs | str]:
    """Runs an exported version in a Session of a fresh process.

    Args:
        version: the folder of the version.
        calls: a signature and its inputs by name, for each call.

    Returns:
        The outputs of each call, or one line about the error that it failed with.

    Raises:
        ModelError: if the version cannot be loaded, or the process dies or takes longer than
            `PATIENCE_SECONDS`.
    """
    command = [sys.executable, "-P", __file__, str(version)]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(calls, default=_packed),
            env={**os.environ, **_ENVIRONMENT},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE_SECONDS,
        )
    except subprocess.TimeoutExpired:
        message = f"no answer within {PATIENCE_SECONDS:,} seconds: it may never end"
        raise ModelError(message) from None
    if done.returncode:
        lines = done.stderr.splitlines() or [""]
        raise ModelError(f"the process ended with status {done.returncode}: {lines[-1]}")
    try:
        return json.loads(done.stdout.splitlines()[-1], object_hook=_unpacked)
    except (ValueError, IndexError):
        raise ModelError("the process printed something else than its answer") from None


def one_line(error: Exception) -> str:
    """Returns the class of an error and the line of its message that says what is wrong."""
    lines = [line for line in str(error).splitlines() if line and line != _TRACE_HEADING]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


def _as_array(value: Sequence[bytes] | np.ndarray) -> np.ndarray:
    # NumPy's own byte strings would lose zero bytes at their ends.
    return value if isinstance(value, np.ndarray) else np.array(list(value), dtype=object)


def _packed(value: bytes | np.ndarray) -> dict[str, Any]:
    """Returns bytes or an array of numbers as JSON has it."""
    if isinstance(value, bytes):
        return {"base64": b64encode(value).decode()}
    content = b64encode(value.tobytes()).decode()
    return {"base64": content, "dtype": value.dtype.name, "shape": value.shape}


def _unpacked(value: dict[str, Any]) -> bytes | np.ndarray | dict[str, Any]:
    if "base64" not in value:
        return value
    content = b64decode(value["base64"])
    if "dtype" not in value:
        return content
    return np.frombuffer(content, value["dtype"]).reshape(value["shape"])


if __name__ == "__main__":
    try:
        sent = json.load(sys.stdin, object_hook=_unpacked)
        answered = answer_calls(Path(sys.argv[1]), sent)
    except Exception as error:
        sys.exit(one_line(error))
    # On a line of its own, since a graph may write as well.
    sys.stdout.write("\n" + json.dumps(answered, default=_packed))
