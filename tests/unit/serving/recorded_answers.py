"""Requests that TF Serving answered, and its answers; `recorded/rest.yaml` says what they mean."""

from __future__ import annotations

import gzip
import json
import socket
from http.client import HTTPResponse
from pathlib import Path
from string import Template
from typing import Any

import grpc
import yaml
from google.protobuf import text_format
from google.protobuf.message import Message
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

from tests.unit.serving.servers import NAME, PATIENCE, VERSION, Served

Case = dict[str, Any]


def _table(name: str) -> dict[str, Case]:
    return yaml.safe_load((Path(__file__).parent / "recorded" / name).read_text())


REST, GRPC = _table("rest.yaml"), _table("grpc.yaml")
# The service and the request of each call.
CALLS = {
    "Predict": ("PredictionService", predict_pb2.PredictRequest),
    "Classify": ("PredictionService", classification_pb2.ClassificationRequest),
    "Regress": ("PredictionService", regression_pb2.RegressionRequest),
    "MultiInference": ("PredictionService", inference_pb2.MultiInferenceRequest),
    "GetModelMetadata": ("PredictionService", get_model_metadata_pb2.GetModelMetadataRequest),
    "GetModelStatus": ("ModelService", get_model_status_pb2.GetModelStatusRequest),
    "HandleReloadConfigRequest": ("ModelService", model_management_pb2.ReloadConfigRequest),
}
# What stands for what in the tables.
NAMES = {
    "name": NAME,
    "encoded": f"%{ord(NAME[0]):02x}{NAME[1:]}",
    "model": f"/v1/models/{NAME}",
    "version": VERSION,
    "absent": VERSION + 77,
    "digits": "7" * 5000,
    "good": json.dumps({"signature_name": "encode_text", "inputs": ["a dog"]}),
    "text": f'name: "{NAME}" signature_name: "encode_text"',
}
ROW_KEYS = ("inputs", "instances")
# Of these keys a JSON object has one, which says what it is.
JSON_KINDS = ("outputs", "predictions", "error", "model_version_status", "metadata")


def strings_of(case: Case) -> tuple[str, list[bytes]]:
    """Returns the signature and the strings whose outputs the answer has."""
    if "images" in case:
        return "encode_image", [image.encode("latin-1") for image in case["images"]]
    texts = case.get("texts", ["a dog"] * case.get("rows", 1))
    return "encode_text", [text.encode(case.get("encoding", "utf-8")) for text in texts]


# --- REST -----------------------------------------------------------------------------------------


def body_of(case: Case) -> bytes:
    """Returns the body of a request, or nothing if it has none."""
    given = {key: case[key] for key in ROW_KEYS if key in case}
    if "rows" in case:
        given["inputs"] = ["a dog"] * case["rows"]
    content = case.get("json", {"signature_name": "encode_text", **given})
    text = case.get("body") or (json.dumps(content) if given or "json" in case else "")
    if depth := case.get("nested"):
        text = json.dumps({"signature_name": "encode_text", "inputs": 0})
        text = text.replace("0", "[" * depth + "]" * depth)
    body = text.encode(case.get("encoding", "utf-8"))
    return gzip.compress(body) if case.get("gzip") else body


def path_of(case: Case) -> str:
    return Template(case.get("path", "$model:predict")).substitute(NAMES)


def http_of(case: Case) -> bytes:
    """Returns the bytes of a request."""
    if "raw" in case:
        return Template(case["raw"]).substitute(NAMES).encode()
    body = body_of(case)
    return compose(case.get("method", "POST"), path_of(case), case.get("headers", {}), body)


def compose(method: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
    """Returns the bytes of a request whose connection is used once."""
    headers = {"Host": "a", "Connection": "close", "Content-Length": len(body), **headers}
    lines = [f"{method} {path} HTTP/1.1", *(f"{key}: {value}" for key, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


def exchange(served: Served, content: bytes) -> tuple[int, str, Any]:
    """Sends bytes, and returns the status, the kind of the body, and the body, parsed if JSON."""
    address = served.host, served.rest_port
    with socket.create_connection(address, timeout=PATIENCE) as connection:
        connection.sendall(content)
        answer = HTTPResponse(connection, method=content.split(b" ")[0].decode("latin-1"))
        answer.begin()
        body, kind = answer.read(), answer.headers.get_content_type()
    if body and kind == "application/json":
        parsed = json.loads(body)
        return answer.status, next(key for key in JSON_KINDS if parsed.get(key)), parsed
    words = "HTML" if kind == "text/html" else "other"
    return answer.status, words if body else "empty", body


# --- gRPC -----------------------------------------------------------------------------------------


def grpc_request(case: Case) -> Message:
    rows = case.get("rows", 1)
    dogs = 'string_val: "a dog" ' * rows
    tensor = f"dtype: DT_STRING tensor_shape {{ dim {{ size: {rows} }} }} {dogs}"
    dog = f'inputs {{ key: "text" value {{ {tensor} }} }}'
    text = Template(case["sends"]).substitute(NAMES, dog=dog)
    return text_format.Parse(text, CALLS[case.get("call", "Predict")][1]())


def grpc_call(channel: grpc.Channel, case: Case, request: bytes) -> tuple[str, bytes]:
    """Sends the bytes of a request, and returns the name of the status, and the answer if OK."""
    name = case.get("call", "Predict")
    call = channel.unary_unary(f"/tensorflow.serving.{CALLS[name][0]}/{name}")
    try:
        return "OK", call(request, timeout=PATIENCE)
    except grpc.RpcError as error:
        return error.code().name, b""
