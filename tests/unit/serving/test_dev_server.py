"""What is the development server's own: limits, broken requests, versions that come and go."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import random
import re
import shutil
import socket
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from tensorflow_serving.apis import (
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tests.errors import raises
from tests.unit.serving.recorded_answers import (
    GRPC,
    REST,
    body_of,
    compose,
    exchange,
    grpc_call,
    grpc_request,
    path_of,
)
from tests.unit.serving.servers import NAME, Served, ask, stable_version, wait_until
from tf_dpce.serving.dev_server import development_server

PREDICT = f"/v1/models/{NAME}:predict"
GOOD = {"signature_name": "encode_text", "inputs": ["a dog"]}
LIMIT = 10_000


def write_config(models: Path, **labels: int) -> Path:
    """Writes a `models.config` as an operator may do by hand."""
    named = " ".join(
        f"version_labels {{ key: '{key}' value: {value} }}" for key, value in labels.items()
    )
    path = models / "models.config"
    path.write_text(
        f"model_config_list {{ config {{ name: '{NAME}' base_path: '{models / NAME}' "
        f"model_platform: 'tensorflow' {named} }} }}"
    )
    return path


@pytest.fixture
def models(toy, tmp_path) -> Path:
    shutil.copytree(toy, tmp_path / "models" / NAME)
    return tmp_path / "models"


@pytest.fixture(scope="module")
def steady(toy):
    """A server with a low limit, for tests that leave its models alone."""
    config = write_config(toy.parent)
    with development_server(config, max_request_bytes=LIMIT) as ports:
        yield ports


def states(port: int) -> dict[int, str]:
    code, answer = ask(port, f"/v1/models/{NAME}")
    assert code == 200
    return {int(version["version"]): version["state"] for version in answer["model_version_status"]}


def send(port: int, *parts: bytes) -> bytes:
    """Sends the parts of a request, each after an answer to the one before; returns the last."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        answer = b""
        for part in parts:
            connection.sendall(part)
            answer = connection.recv(2**16)
        return answer


def grpc_status(ports: tuple[int, int], case: dict) -> str:
    with grpc.insecure_channel(f"127.0.0.1:{ports[0]}") as channel:
        return grpc_call(channel, case, grpc_request(case).SerializeToString())[0]


# --- requests -------------------------------------------------------------------------------------


def test_a_request_above_the_limit_is_refused_and_the_next_is_answered(steady):
    grpc_port, rest_port = steady
    for size in (LIMIT + 1, 100 * LIMIT):
        code, answer = ask(rest_port, PREDICT, b" " * size)
        assert code == 413 and str(LIMIT) in answer["error"]
    assert ask(rest_port, PREDICT, GOOD)[0] == 200
    with grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        request = predict_pb2.PredictRequest()
        request.inputs["text"].tensor_content = bytes(LIMIT)
        with pytest.raises(grpc.RpcError) as raised:
            stub.Predict(request, timeout=30)
    assert raised.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_bodies_are_read_as_the_head_announces_them(steady):
    port, head = steady[1], f"POST {PREDICT} HTTP/1.1\r\nHost: a\r\n".encode()
    body = json.dumps(GOOD).encode()
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n"
    bomb = gzip.compress(bytes(1000 * LIMIT))
    packed = b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    expecting = b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n"
    for parts, expected in (
        # A body that would be too large is not even sent if the client asks before.
        ([head + expecting % (LIMIT + 1)], 413),
        ([head + expecting % len(body), body], 200),
        ([chunked + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)], 200),
        ([chunked + b"%x\r\n%s\r\n" % (LIMIT + 1, bytes(LIMIT + 1))], 413),
        # A few bytes that would fill the memory are not unpacked to their end.
        ([head + packed % len(bomb) + bomb], 413),
        ([head + packed % 9 + bomb[:9]], 400),
    ):
        assert send(port, *parts).startswith(b"HTTP/1.1 %d " % expected), parts


def test_a_batch_of_strings_is_all_that_is_answered(steady):
    for inputs in (["a"] * 1025, [["a"]], [["a"], "b"], "a", []):
        code, answer = ask(steady[1], PREDICT, {**GOOD, "inputs": inputs})
        assert code == 400 and "error" in answer, answer
    assert ask(steady[1], PREDICT, b"[" * (LIMIT - 1))[0] == 400
    # The signature that initialises a model is not for clients.
    case = {"sends": f'model_spec {{ name: "{NAME}" signature_name: "__saved_model_init_op" }}'}
    assert grpc_status(steady, case) == "FAILED_PRECONDITION"


def test_base64_is_read_like_absl_does(steady):
    # White space anywhere, all of the padding or none, and a dot for padding: two texts, b"a" and
    # b"abc", of 8 and 24 bits.
    for text, valid in (
        *(("YQ", True), ("Y\tQ\v=\f=\r\n", True), ("YQ..", True), ("YQ=.", True), ("YWJj", True)),
        *(("YQ=", False), ("YWJj=", False), ("YQ==YQ==", False), ("YQ\xa0", False)),
    ):
        code, _ = ask(steady[1], PREDICT, {**GOOD, "inputs": [{"b64": text}]})
        assert code == (200 if valid else 400), text


def test_clients_that_are_slow_keep_nobody_from_an_answer(steady):
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{{".encode()
    with ExitStack() as opened:
        for _ in range(100):
            slow = socket.create_connection(("127.0.0.1", steady[1]), timeout=30)
            opened.enter_context(slow).sendall(head)
        began = time.monotonic()
        assert ask(steady[1], PREDICT, GOOD)[0] == 200
    assert time.monotonic() - began < 10


def test_names_of_any_length_and_letters_are_errors_of_the_client(steady):
    name = "a\udc80é\0" * 20_000
    body = json.dumps({**GOOD, "signature_name": name[:1000]}).encode()
    code, answer = ask(steady[1], PREDICT, body)
    assert code == 400 and len(answer["error"]) < 200
    # A status of gRPC travels in a head, which has little room.
    for sends, expected in (
        ('model_spec { name: "$name" }', "NOT_FOUND"),
        ('model_spec { $text version_label: "$name" } $dog', "INVALID_ARGUMENT"),
        ('model_spec { $text } $dog output_filter: "$name"', "INVALID_ARGUMENT"),
        ('model_spec { $text } inputs { key: "$name" value { } }', "INVALID_ARGUMENT"),
    ):
        assert grpc_status(steady, {"sends": sends.replace("$name", "é" * 4_500)}) == expected


def test_any_request_gets_an_answer_that_blames_the_client(steady, caplog):
    draw, served = random.Random(0), Served(*steady)
    rest = [case for case in REST.values() if "raw" not in case and case.get("rows", 1) < 100]
    with grpc.insecure_channel(f"127.0.0.1:{steady[0]}") as channel:
        for _ in range(200):
            case = draw.choice(rest)
            path = mutated(draw, path_of(case)[:200].encode()).decode("latin-1")
            path = "/" + re.sub(r"[^!-~]", "", path)
            request = compose(
                case.get("method", "POST"),
                path if draw.random() < 0.3 else path_of(case),
                case.get("headers", {}),
                mutated(draw, body_of(case)),
            )
            status, kind, answer = exchange(served, request)
            failed = kind in ("error", "HTML", "empty")
            assert status < 500 and failed == (status != 200), request
        for _ in range(100):
            case = draw.choice(list(GRPC.values()))
            request = mutated(draw, grpc_request(case).SerializeToString())
            status, _ = grpc_call(channel, case, request)
            # What is no protobuf is INTERNAL, as gRPC's own library answers.
            assert status not in ("UNKNOWN", "DEADLINE_EXCEEDED", "UNAVAILABLE"), request
    wait_until(lambda: ask(steady[1], PREDICT, GOOD)[0] == 200)
    assert not caplog.records


def mutated(draw: random.Random, content: bytes) -> bytes:
    """Returns bytes after one to three changes: a bit, a piece that is cut, doubled or put in."""
    for _ in range(draw.randint(1, 3)):
        first, last = sorted(draw.randint(0, len(content)) for _ in range(2))
        piece = content[first:last]
        change = draw.choice([b"", piece * 2, draw.randbytes(3), piece[::-1]])
        content = content[:first] + change + content[last:]
    return content


def test_what_is_not_served_is_an_error_and_leaves_the_connection_open(steady):
    model = f"/v1/models/{NAME}"
    connection = http.client.HTTPConnection("127.0.0.1", steady[1], timeout=30)
    connection.connect()
    opened = connection.sock
    for method, path, code in (
        *((method, model, 400) for method in ("POST", "PUT", "HEAD", "OPTIONS")),
        *((method, "/", 404) for method in ("GET", "POST", "HEAD")),
        ("BREW", "/", 405),
    ):
        connection.request(method, path, b"" if method == "POST" else None)
        answer = connection.getresponse()
        assert (answer.status, answer.read() == b"") == (code, method == "HEAD"), (method, path)
        assert connection.sock is opened
    connection.close()


def test_a_request_that_is_under_way_is_answered_before_the_server_ends(models):
    body = json.dumps(GOOD).encode()
    with development_server(write_config(models)) as (_, port):
        idle = socket.create_connection(("127.0.0.1", port), timeout=30)
        connection = socket.create_connection(("127.0.0.1", port), timeout=30)
        head = f"POST {PREDICT} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n"
        connection.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        # The rest comes when the server was already asked to end.
        late = threading.Timer(0.7, connection.sendall, [body])
        late.start()
        began = time.monotonic()
    assert 0.5 < time.monotonic() - began < 10
    late.join()
    with connection, connection.makefile("rb") as answer:
        assert answer.readline() == b"HTTP/1.1 200 OK\r\n"
        assert b"connection: close" in answer.read().lower()
    with idle:
        assert idle.recv(1) == b""


# --- versions -------------------------------------------------------------------------------------


def test_it_follows_its_configuration_and_its_folders(models, tmp_path, caplog):
    def publish(number: int) -> None:
        shutil.copytree(models / NAME / "1", tmp_path / "next")
        (tmp_path / "next").rename(models / NAME / str(number))

    version = models / NAME / "1"
    shutil.copytree(version, tmp_path / "good")
    (data,) = version.glob("variables/variables.data-*")
    os.truncate(data, data.stat().st_size // 2)
    stable = f"/v1/models/{NAME}/labels/stable:predict"
    config = write_config(models, stable=1)
    with development_server(config, poll_seconds=0.05) as (grpc_port, port):
        # What does not load has its reason, and is loaded once it is replaced.
        (state,) = ask(port, f"/v1/models/{NAME}")[1]["model_version_status"]
        assert state["state"] == "END" and state["status"]["error_message"]
        version.rename(tmp_path / "bad")
        (tmp_path / "good").rename(version)
        wait_until(lambda: ask(port, stable, GOOD)[0] == 200)
        publish(2)
        wait_until(lambda: states(port) == {1: "AVAILABLE", 2: "AVAILABLE"})
        # A label waits until its version is there, over gRPC with an error.
        write_config(models, stable=3)
        with grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
            service = model_service_pb2_grpc.ModelServiceStub(channel)
            request = model_management_pb2.ReloadConfigRequest()
            model = request.config.model_config_list.config.add(
                name=NAME, base_path=str(models / NAME)
            )
            model.version_labels["stable"] = 3
            with pytest.raises(grpc.RpcError) as raised:
                service.HandleReloadConfigRequest(request, timeout=30)
        assert raised.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert stable_version(port) == 1
        publish(3)
        wait_until(lambda: stable_version(port) == 3)
        # Half a configuration changes nothing.
        config.write_text("half a configuration {")
        for number in "13":
            shutil.rmtree(models / NAME / number)
        wait_until(lambda: states(port) == {2: "AVAILABLE"})
        assert (ask(port, PREDICT, GOOD)[0], ask(port, stable, GOOD)[0]) == (200, 404)
    # What could not be loaded, a label that waited and half a configuration are reported, once.
    damaged, label, half = [r.message for r in caplog.records if r.levelname == "WARNING"]
    assert f"{NAME} version 1 " in damaged and "version 3 " in label and str(config) in half


def test_a_port_that_is_taken_is_a_user_error(toy):
    config = write_config(toy.parent)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for ports in ({"grpc_port": port}, {"rest_port": port}):
            with raises("serving.port"), development_server(config, **ports):
                pass


def test_a_configuration_that_cannot_be_read_is_a_user_error(tmp_path):
    path = tmp_path / "none.config"
    with raises("serving.no_deployment", path=path), development_server(path):
        pass
    path.write_text("model {")
    with raises("serving.config", path=path), development_server(path):
        pass
