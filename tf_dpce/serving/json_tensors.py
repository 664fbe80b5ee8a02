"""Predict requests and responses as JSON, by the rules of TF Serving's REST interface.

Signatures of this project take strings and return numbers, so nothing else is converted here.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tf_dpce.serving.errors import ServingError

ROWS = "instances"
COLUMNS = "inputs"

_MOST_DIMENSIONS = 32  # numpy's own limit, in the versions that have the lower one


def parse_body(body: bytes) -> dict[str, Any]:
    """Returns the JSON object in a request's body.

    Raises:
        ServingError: INVALID_ARGUMENT, the body is no JSON object or lacks a key.
    """
    try:
        # Bytes that are not UTF-8 go through a string as they are.
        request = json.loads(body.decode(errors="surrogateescape"))
    except (ValueError, RecursionError) as error:
        raise _invalid(f"JSON Parse error: {error}") from None
    if not isinstance(request, dict):
        raise _invalid("JSON Value is not object")
    if not isinstance(request.get("signature_name", ""), str):
        raise _invalid("'signature_name' key must be a string value.")
    if ROWS in request and COLUMNS in request:
        raise _invalid(f"expecting only one of '{COLUMNS}' or '{ROWS}' keys to exist")
    if ROWS not in request and COLUMNS not in request:
        raise _invalid(f"Missing '{COLUMNS}' or '{ROWS}' key")
    return request


def parse_inputs(request: Mapping[str, Any], names: Iterable[str]) -> dict[str, np.ndarray]:
    """Returns the inputs of a request by name, arrays of bytes.

    Args:
        request: the object that `parse_body` returned.
        names: names of the signature's inputs.

    Raises:
        ServingError: INVALID_ARGUMENT, the request does not fit.
    """
    if COLUMNS in request:
        return _columns(request[COLUMNS], sorted(names))
    return _rows(request[ROWS], sorted(names))


def response_json(outputs: Mapping[str, np.ndarray], rows: bool) -> dict[str, Any]:
    """Returns the response to a request, in rows or in columns.

    Raises:
        ServingError: INVALID_ARGUMENT, outputs of different lengths cannot be put in rows.
    """
    columns = {name: value.tolist() for name, value in outputs.items()}
    if not rows:
        return {"outputs": _unnamed(columns)}
    if len({np.shape(value)[:1] for value in outputs.values()} - {()}) != 1:
        raise _invalid("outputs have an inconsistent batch size")
    names = list(columns)
    tuples = zip(*columns.values(), strict=True)
    return {"predictions": [_unnamed(dict(zip(names, row, strict=True))) for row in tuples]}


def _columns(value: Any, names: list[str]) -> dict[str, np.ndarray]:
    if not isinstance(value, dict) or _is_base64(value):
        return {_only(names): _strings(value)}
    missing = [name for name in names if name not in value]
    if missing:
        raise _invalid(f"Missing named input: {missing[0]} in '{COLUMNS}' object.")
    return {name: _strings(value[name]) for name in names}


def _rows(value: Any, names: list[str]) -> dict[str, np.ndarray]:
    if not isinstance(value, list) or not value:
        raise _invalid(f"'{ROWS}' is expected to be a list with values")
    named = [isinstance(row, dict) and not _is_base64(row) for row in value]
    if not any(named):
        return {_only(names): _strings(value)}
    for index, row in enumerate(value):
        if not named[index] or sorted(row) != names:
            keys = ",".join(names)
            raise _invalid(f"element {index} of '{ROWS}': keys must be equal to: {keys}")
    return {name: _strings([row[name] for row in value]) for name in names}


def _only(names: list[str]) -> str:
    if len(names) != 1:
        raise _invalid("a plain list is given, but several inputs are required")
    return names[0]


def _strings(value: Any) -> np.ndarray:
    # Level by level, and each level is checked before the next is laid out. So there are never more
    # items here than were sent, whatever lengths the first lists promise.
    shape, level = [], [value]
    while level and isinstance(level[0], list):
        shape.append(len(level[0]))
        if len(shape) > _MOST_DIMENSIONS:
            raise _invalid(f"lists are nested more than {_MOST_DIMENSIONS} deep")
        if any(not isinstance(item, list) or len(item) != shape[-1] for item in level):
            raise _invalid(f"a list of {shape[-1]} is expected here, as in its neighbours")
        level = [inner for item in level for inner in item]
    leaves = np.empty(len(level), dtype=object)
    leaves[:] = [_bytes(item) for item in level]
    return leaves.reshape(shape)


def _bytes(value: Any) -> bytes:
    if isinstance(value, str):
        try:
            return value.encode(errors="surrogateescape")
        except UnicodeEncodeError:
            raise _invalid("JSON Parse error: a surrogate pair in a string is invalid") from None
    if not _is_base64(value):
        raise _invalid(f"JSON Value of type {type(value).__name__} is not of expected type: string")
    try:
        return base64.b64decode(value["b64"], validate=True)
    except (binascii.Error, ValueError):
        raise _invalid("Unable to base64 decode") from None


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and list(value) == ["b64"] and isinstance(value["b64"], str)


def _unnamed(columns: dict[str, Any]) -> Any:
    return columns if len(columns) > 1 else next(iter(columns.values()))


def _invalid(message: str) -> ServingError:
    return ServingError("INVALID_ARGUMENT", message)
