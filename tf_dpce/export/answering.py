"""Answers requests for tensors of an exported version, line by line.

This file runs by itself in a process that does not import `tf_dpce`; `process.py` speaks to it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TextIO

import numpy as np

# What TensorFlow writes above the message of an error in a graph.
_TRACE_HEADING = "Graph execution error:"


def answer_all(
    open_session: Callable[[Path], AbstractContextManager],
    path: str,
    requests: TextIO,
    answers: TextIO,
) -> None:
    """Opens a version, says so, and answers every request until there are no more.

    Args:
        open_session: of `session.py` or `bare.py`.
        path: the folder of the version.
        requests: JSON lines: `feeds`, base64 strings by tensors' names, and `fetches`, names.
        answers: a JSON line to each: `tensors`, or the `error`.
    """

    def answer(value: dict[str, Any]) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    try:
        with open_session(Path(path)) as model:
            answer({"tensors": []})
            for line in requests:
                answer(_answer(model, json.loads(line)))
    except Exception as error:
        answer({"error": one_line(error)})


def one_line(error: Exception) -> str:
    """Returns the kind of an error and the line of its message that says what is wrong."""
    lines = [line for line in str(error).splitlines() if line and line != _TRACE_HEADING]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


def _answer(model: Any, request: dict[str, Any]) -> dict[str, Any]:
    feeds = {name: _strings(values) for name, values in request["feeds"].items()}
    try:
        return {"tensors": [_packed(array) for array in model.fetch(request["fetches"], feeds)]}
    except Exception as error:
        return {"error": one_line(error)}


def _strings(values: list[str]) -> np.ndarray:
    # Numpy's own strings would lose zero bytes at their ends.
    return np.array([base64.b64decode(value) for value in values], dtype=object)


def _packed(array: np.ndarray) -> dict[str, Any]:
    content = base64.b64encode(array.tobytes()).decode()
    return {"dtype": array.dtype.name, "shape": array.shape, "content": content}
