"""Models for servers to serve, and plain ways to ask them."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import tensorflow as tf

from tests.errors import raises
from tf_dpce.export.versions import find_version, publish_version
from tf_dpce.serving.deployment import deployed_labels, server_version, write_deployment
from tf_dpce.serving.dev_server import development_server
from tf_dpce.serving.errors import ServingError
from tf_dpce.serving.tf_serving import HOST_CONFIG_FILE, binary_command, docker_command

# The export that the server of the tests has: a version that another variable names, which is there
# the newest and `stable`, or else that of a tiny model.
EXPORT = find_version(Path(os.environ["TF_DPCE_MODEL"])) if "TF_DPCE_MODEL" in os.environ else None
NAME = EXPORT.resolve().parent.name if EXPORT else "tiny"
VERSION = int(EXPORT.resolve().name) if EXPORT else 1
PATIENCE = 60

# The variable that names the server of the tests: "binary" for an installed
# tensorflow_model_server, "docker" for its image, or HOST:GRPC:REST for one that runs.
KIND = "TF_DPCE_SERVER"
DEVELOPMENT = "development"


@dataclass(frozen=True)
class Served:
    """A server, by its ports, the models that it serves and the deployment that it reads.

    Of one elsewhere, models and deployment are out of reach: None.
    """

    grpc_port: int
    rest_port: int
    models: Path | None = None
    deployment: Path | None = None
    host: str = "127.0.0.1"


def export_toy(models: Path) -> Path:
    """Exports a model that embeds every caption alike, and loads at once; returns its folder."""
    module = tf.Module()
    module.weights = tf.Variable(tf.ones([1, 16]))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
    def encode_text(text: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = tf.size(text)
        embedding = tf.repeat(module.weights, rows, axis=0) / 7.0
        return {"embedding": embedding, "status": tf.zeros([rows], tf.int32)}

    module.encode_text = encode_text
    tf.saved_model.save(module, models / NAME / "1", {"encode_text": encode_text})
    return models / NAME


def publish_again(models: Path) -> Path:
    """Publishes the newest version once more, under the next number."""
    newest = max((models / NAME).glob("[0-9]*"), key=lambda folder: int(folder.name))
    return publish_version(
        models / NAME, lambda aside: shutil.copytree(newest, aside, dirs_exist_ok=True)
    )


def ask(port: int, path: str, body: Any = None, host: str = "127.0.0.1") -> tuple[int, Any]:
    """Returns the status and the JSON that a REST server answers; `body` makes it a POST."""
    content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    method = "GET" if content is None else "POST"
    answer = httpx.request(method, f"http://{host}:{port}{path}", content=content, timeout=PATIENCE)
    return answer.status_code, answer.json()


def ask_served(served: Served, path: str, body: Any = None) -> tuple[int, Any]:
    """The same of a server, wherever it is."""
    return ask(served.rest_port, path, body, served.host)


def stable_version(port: int) -> int:
    """Returns the version that the label `stable` has, which answers at every moment."""
    code, answer = ask(port, f"/v1/models/{NAME}/labels/stable/metadata")
    assert code == 200
    return int(answer["model_spec"]["version"])


@contextmanager
def fails(status: str) -> Iterator[pytest.ExceptionInfo[ServingError]]:
    """Passes if the block raises a `ServingError` of this status."""
    with raises("serving.request") as caught:
        yield caught
    assert caught.value.status == status, caught.value


def wait_until(true: Callable[[], bool]) -> None:
    """Waits for something that must become true."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.05)


@contextmanager
def running(kind: str, models: Path, deployment: Path) -> Iterator[Served]:
    """Runs a server of a kind, "development", "binary" or "docker", on a deployment it writes.

    One that runs elsewhere, HOST:REST or HOST:GRPC:REST, is left as it is. Its port of gRPC is the
    one before that of REST, if no other is named.
    """
    if ":" in kind:
        host, *ports = kind.split(":")
        grpc_port, rest_port = int(ports[0]) - (len(ports) == 1), int(ports[-1])
        yield Served(grpc_port, rest_port, host=host)
        return
    write_deployment(models, deployment)
    if kind == DEVELOPMENT:
        config = deployment / HOST_CONFIG_FILE
        with development_server(config, poll_seconds=0.1) as ports:
            yield Served(*ports, models, deployment)
        return
    grpc_port, rest_port = free_port(), free_port()
    version = server_version(models, deployed_labels(deployment))
    command = {
        "binary": lambda: binary_command(deployment, grpc_port, rest_port),
        "docker": lambda: docker_command(models, deployment, version, grpc_port, rest_port),
    }[kind]()
    assert command, f"there is no server of the kind {kind}"
    process = subprocess.Popen(command)
    try:
        with grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
            grpc.channel_ready_future(channel).result(timeout=PATIENCE)
        yield Served(grpc_port, rest_port, models, deployment)
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    """Returns a port that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]
