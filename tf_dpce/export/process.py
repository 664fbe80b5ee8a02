"""An exported version in a process of its own, which shares nothing with this one."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tf_dpce.export.graph import SavedGraph, read_graph

_HERE = Path(__file__).parent
# The files run by themselves: importing them would import the package, and all of it.
_START = (
    "import sys, runpy; answering, opening = (runpy.run_path(path) for path in sys.argv[1:3]); "
    "answering['answer_all'](opening['open_session'], sys.argv[3], sys.stdin, sys.stdout)"
)
# On the CPU, where the examples were recorded: a GPU rounds its products to fewer digits.
_ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2"}

# For one answer, or to be loaded: what takes so long would never end, or be of no use.
PATIENCE_SECONDS = 15 * 60


class ModelError(Exception):
    """An exported version cannot be loaded, or a call of it fails."""


class ModelProcess:
    """An exported version in a Session of another process.

    Attributes:
        graph: what its file says.
        pid: of the process.
    """

    def __init__(self, process: subprocess.Popen, errors: BinaryIO, graph: SavedGraph) -> None:
        self._process = process
        self._errors = errors
        self.graph = graph
        self.pid = process.pid
        self._late = False
        self._receive()

    def run(self, signature: str, inputs: Mapping[str, Sequence[bytes]]) -> dict[str, np.ndarray]:
        """Returns the outputs of a signature by name, given its inputs, byte strings `[B]`.

        Raises:
            ModelError: there is no such signature, or the call fails, or it takes longer than
                `PATIENCE_SECONDS`, which ends the process.
        """
        if signature not in self.graph.signatures:
            raise ModelError(f"there is no endpoint {signature}")
        known = self.graph.signatures[signature]
        if inputs.keys() != known.inputs.keys():
            raise ModelError(f"{signature} takes {set(known.inputs)}, not {set(inputs)}")
        feeds = {
            known.inputs[key].name: [base64.b64encode(value).decode() for value in values]
            for key, values in inputs.items()
        }
        fetches = [tensor.name for tensor in known.outputs.values()]
        self._send({"feeds": feeds, "fetches": fetches})
        return dict(zip(known.outputs, self._receive(), strict=True))

    def encode(self, endpoint: str, batch: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Returns embeddings `[B, D]` and statuses `[B]` of B byte strings.

        Raises:
            ModelError: there is no such endpoint, or the call fails.
        """
        keys = self.graph.signatures[endpoint].inputs if endpoint in self.graph.signatures else ()
        answer = self.run(endpoint, dict.fromkeys(keys, batch))
        return answer["embedding"], answer["status"]

    def _send(self, request: dict[str, Any]) -> None:
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._death() from None

    def _receive(self) -> list[np.ndarray]:
        limit = threading.Timer(PATIENCE_SECONDS, self._give_up)
        limit.start()
        try:
            line = self._process.stdout.readline()
        finally:
            limit.cancel()
        if not line:
            raise self._death()
        answer = json.loads(line)
        if "error" in answer:
            raise ModelError(answer["error"])
        return [_unpacked(tensor) for tensor in answer["tensors"]]

    def _give_up(self) -> None:
        self._late = True
        self._process.kill()

    def _death(self) -> ModelError:
        status = self._process.wait()
        if self._late:
            return ModelError(f"no answer within {PATIENCE_SECONDS:,} seconds: it may never end")
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").splitlines()
        last = f" ({lines[-1]})" if lines else ""
        return ModelError(f"the process ended with status {status}{last}")


@contextmanager
def open_process(version: Path, bare: bool = False) -> Iterator[ModelProcess]:
    """Opens an exported version in a new process, which does not import `tf_dpce`.

    Args:
        version: the folder of the version.
        bare: whether through the C library, without Python TensorFlow; in a v1 Session otherwise.

    Raises:
        ModelError: it cannot be loaded.
        ValueError: its file holds no graph for TF Serving.
        google.protobuf.message.DecodeError: its file is damaged.
    """
    graph = read_graph(version)
    files = (_HERE / "answering.py", _HERE / ("bare.py" if bare else "session.py"), version)
    command = [sys.executable, "-P", "-c", _START, *map(str, files)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    environment = {**os.environ, **_ENVIRONMENT}
    with tempfile.TemporaryFile() as errors:
        with subprocess.Popen(command, stderr=errors, env=environment, **pipes) as process:
            try:
                yield ModelProcess(process, errors, graph)
            finally:
                process.kill()
                # What was not read by one that ended would fail to be written once more.
                with suppress(BrokenPipeError):
                    process.stdin.close()


def _unpacked(tensor: dict[str, Any]) -> np.ndarray:
    content = base64.b64decode(tensor["content"])
    return np.frombuffer(content, tensor["dtype"]).reshape(tensor["shape"])
