"""Runs one encoder in ONNX Runtime, OpenVINO or LiteRT."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from tf_dpce.errors import UserError, shorten

# From rows of pixels or of token ids to embeddings `[B, D]`.
Engine = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class EngineKind:
    """What is known of a runtime.

    Attributes:
        title: its name in messages.
        module: the module to import.
        package: the package that holds it.
        suffixes: endings of the files of an encoder; the first one is opened.
        open: opens the first file, to compute with a number of threads.
        writers: modules that write its files, beside its own.
    """

    title: str
    module: str
    package: str
    suffixes: tuple[str, ...]
    open: Callable[[Path, int], Engine]
    writers: tuple[str, ...] = ()


def check_installed(runtimes: Iterable[str]) -> None:
    """Makes sure that there are such runtimes, and that their packages are installed.

    Raises:
        UserError: there is no such runtime, or its package is missing.
    """
    for runtime in runtimes:
        if runtime not in ENGINES:
            names = ", ".join(("tensorflow", *ENGINES))
            message = f"there is no runtime {shorten(runtime)}: give one of {names}"
            raise UserError("runtimes.name", message)
        kind = ENGINES[runtime]
        if find_spec(kind.module) is None:
            raise missing_package(kind.title, kind.package)


def check_tensorflow(title: str) -> None:
    """Makes sure that TensorFlow is installed, for what needs it.

    Raises:
        UserError: it is not.
    """
    if find_spec("tensorflow") is None:
        raise missing_package(title, "tensorflow")


def missing_package(title: str, package: str) -> UserError:
    """Returns what is said of a package that is not installed."""
    message = f"{title} needs the package {package}: pip install -r requirements-runtimes.txt"
    return UserError("runtimes.package", message)


def open_engine(runtime: str, path: Path) -> Engine:
    """Opens one encoder; many threads may call it at once.

    Args:
        runtime: one of `ENGINES`, installed.
        path: the file of the encoder, of the first of the runtime's suffixes.

    Raises:
        UserError: the runtime cannot read the file.
    """
    try:
        return ENGINES[runtime].open(path, cores())
    # Runtimes raise what they like: RuntimeError, ValueError, and classes of their own.
    except Exception as error:
        reason = shorten(str(error).partition("\n")[0], 200)
        message = f"{path} cannot be opened ({reason}): export the model again"
        raise UserError("runtimes.damaged", message, path) from error


def cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def _onnx(path: Path, threads: int) -> Engine:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda rows: session.run(None, {name: rows})[0]


def _openvino(path: Path, threads: int) -> Engine:
    import openvino

    settings = {
        # By default some processors compute in bfloat16, a tenth of a percent off.
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
    }
    network = openvino.Core().compile_model(path, "CPU", settings)
    return _one_at_a_time(lambda rows: network(rows)[0])


def _litert(path: Path, threads: int) -> Engine:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=threads)
    interpreter.allocate_tensors()
    (given,), (wanted,) = interpreter.get_input_details(), interpreter.get_output_details()

    def embed(row: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(given["index"], row[None])
        interpreter.invoke()
        return interpreter.get_tensor(wanted["index"])[0]

    def run(rows: np.ndarray) -> np.ndarray:
        if rows.ndim == 2:
            # The graph takes all positions.
            rows = np.pad(rows, ((0, 0), (0, given["shape"][1] - rows.shape[1])))
        return np.stack([embed(row) for row in rows])

    return _one_at_a_time(run)


def _one_at_a_time(run: Engine) -> Engine:
    lock = Lock()

    def locked(rows: np.ndarray) -> Any:
        with lock:
            return run(rows)

    return locked


_ONNX = ("onnx",)
ENGINES = {
    "onnx": EngineKind("ONNX Runtime", "onnxruntime", "onnxruntime", (".onnx",), _onnx, _ONNX),
    "openvino": EngineKind("OpenVINO", "openvino", "openvino", (".xml", ".bin"), _openvino, _ONNX),
    "litert": EngineKind("LiteRT", "ai_edge_litert", "ai-edge-litert", (".tflite",), _litert),
}
