"""The development server's own ways: limits, broken requests, and versions that come and go."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import threading
import time
from pathlib import Path

import grpc
import pytest
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tests.unit.serving.servers import NAME, ask, publish_again, wait_until
from tf_dpce.errors import UserError
from tf_dpce.serving.development import development_server

PREDICT = f"/v1/models/{NAME}:predict"
GOOD = {"signature_name": "encode_text", "inputs": ["a dog"]}
LIMIT = 10_000


def write_config(models: Path, policy: str, **labels: int) -> Path:
    """Writes a `models.config` as an operator may do by hand."""
    named = " ".join(
        f"version_labels {{ key: '{key}' value: {value} }}" for key, value in labels.items()
    )
    path = models / "models.config"
    path.write_text(
        f"model_config_list {{ config {{ name: '{NAME}' base_path: '{models / NAME}' "
        f"model_platform: 'tensorflow' model_version_policy {{ {policy} }} {named} }} }}"
    )
    return path


@pytest.fixture
def models(exported, tmp_path) -> Path:
    shutil.copytree(exported.parent, tmp_path / NAME)
    return tmp_path


@pytest.fixture
def config(models) -> Path:
    return write_config(models, "latest { num_versions: 1 }")


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def ports(config, lines):
    with development_server(config, poll_seconds=0.05, report=lines.append) as ports:
        yield ports


@pytest.fixture(scope="module")
def steady(exported, tmp_path_factory):
    """A server with a low limit, for tests that leave its models alone."""
    models = tmp_path_factory.mktemp("steady")
    shutil.copytree(exported.parent, models / NAME)
    config = write_config(models, "all {}")
    with development_server(config, max_request_bytes=LIMIT) as ports:
        yield ports


def states(port: int) -> dict[int, str]:
    code, answer = ask(port, f"/v1/models/{NAME}")
    assert code == 200
    return {int(one["version"]): one["state"] for one in answer["model_version_status"]}


def test_a_request_above_the_limit_is_refused_and_the_next_is_answered(steady):
    grpc_port, rest_port = steady
    code, answer = ask(rest_port, PREDICT, b" " * (LIMIT + 1))
    assert code == 413 and str(LIMIT) in answer["error"]
    assert ask(rest_port, PREDICT, GOOD)[0] == 200
    with grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        request = predict_pb2.PredictRequest()
        request.inputs["text"].tensor_content = bytes(LIMIT)
        with pytest.raises(grpc.RpcError) as raised:
            stub.Predict(request, timeout=30)
    assert raised.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_body_is_not_even_sent_where_a_client_asks_first(steady):
    with socket.create_connection(("127.0.0.1", steady[1]), timeout=30) as connection:
        head = f"POST {PREDICT} HTTP/1.1\r\nHost: a\r\nContent-Length: {LIMIT + 1}\r\n"
        connection.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("length", [None, "-5", "many", "9" * 30])
def test_a_body_of_unknown_length_is_refused(steady, length):
    connection = http.client.HTTPConnection("127.0.0.1", steady[1], timeout=30)
    connection.putrequest("POST", PREDICT)
    if length:
        connection.putheader("Content-Length", length)
    connection.endheaders()
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Connection"]) == (411, "close")
    connection.close()


def test_nesting_without_end_is_an_error_like_any_other(steady):
    code, answer = ask(steady[1], PREDICT, b"[" * (LIMIT - 1))
    assert code == 400 and "JSON" in answer["error"]


def test_a_batch_of_none_is_answered(steady):
    code, answer = ask(steady[1], PREDICT, {**GOOD, "inputs": []})
    assert (code, answer["outputs"]["status"]) == (200, [])


def test_a_connection_that_breaks_hurts_nobody(steady, capsys):
    for part in (
        b"",
        b"POST ",
        f"POST {PREDICT} HTTP/1.1\r\nContent-Length: 99\r\n\r\n{{".encode(),
    ):
        with socket.create_connection(("127.0.0.1", steady[1]), timeout=30) as connection:
            connection.sendall(part)
    assert ask(steady[1], PREDICT, GOOD)[0] == 200
    assert capsys.readouterr().err == ""


def test_a_connection_serves_several_requests(steady):
    connection = http.client.HTTPConnection("127.0.0.1", steady[1], timeout=30)
    connection.connect()
    opened = connection.sock
    for _ in range(3):
        connection.request("GET", f"/v1/models/{NAME}")
        assert connection.getresponse().read()
    assert connection.sock is opened
    connection.close()


def test_an_answer_does_not_wait_until_its_head_is_acknowledged(steady):
    # 128 vectors of 8 numbers: more than the 8 KiB that leave with the head, less than a segment
    # of loopback, 64 KiB. A client puts an acknowledgement off for 40 ms once it has answered a
    # few at once.
    body = json.dumps({**GOOD, "inputs": ["a"] * 128})
    connection = http.client.HTTPConnection("127.0.0.1", steady[1], timeout=30)
    seconds = []
    for _ in range(60):
        connection.request("POST", PREDICT, body, {"Content-Type": "application/json"})
        head = connection.getresponse()
        began = time.perf_counter()
        assert 2**13 < len(head.read()) < 2**16
        seconds.append(time.perf_counter() - began)
    connection.close()
    assert min(seconds[30:]) < 0.02


def test_methods_that_exports_do_not_have_are_not_implemented(steady):
    assert ask(steady[1], f"/v1/models/{NAME}:classify", {"examples": [{}]})[0] == 501


def test_a_body_that_a_request_needs_not_is_read_all_the_same(steady):
    connection = http.client.HTTPConnection("127.0.0.1", steady[1], timeout=30)
    for _ in range(2):
        connection.request("GET", f"/v1/models/{NAME}", b"GET / HTTP/1.1")
        answer = connection.getresponse()
        assert answer.status == 200 and b"AVAILABLE" in answer.read()
    connection.close()


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        *((method, f"/v1/models/{NAME}", 400) for method in ("PUT", "DELETE", "HEAD")),
        *((method, "/", 404) for method in ("GET", "POST", "PUT", "DELETE", "HEAD")),
        *(("POST", "/healthz", 404), ("HEAD", "/healthz", 200), ("BREW", "/", 501)),
    ],
)
def test_what_there_is_not_is_told_in_json(steady, method, path, code):
    connection = http.client.HTTPConnection("127.0.0.1", steady[1], timeout=30)
    connection.request(method, path, b"" if method == "POST" else None)
    answer = connection.getresponse()
    content = answer.read()
    assert (answer.status, answer.headers["Content-Type"]) == (code, "application/json")
    assert content == b"" if method == "HEAD" else json.loads(content)["error"]
    connection.close()


def test_a_chunked_body_is_refused(steady):
    with socket.create_connection(("127.0.0.1", steady[1]), timeout=30) as connection:
        head = f"POST {PREDICT} HTTP/1.1\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 411 ")


def test_a_request_that_is_under_way_is_answered_before_the_server_ends(config):
    body = json.dumps(GOOD).encode()
    with development_server(config) as (_, port):
        connection = socket.create_connection(("127.0.0.1", port), timeout=30)
        head = f"POST {PREDICT} HTTP/1.1\r\nContent-Length: {len(body)}\r\n"
        connection.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        # The rest comes when the server is told to end.
        late = threading.Timer(0.7, connection.sendall, [body])
        late.start()
    late.join()
    with connection, connection.makefile("rb") as answer:
        assert answer.readline() == b"HTTP/1.1 200 OK\r\n"
        assert b"Connection: close" in answer.read()


def test_health_is_that_of_all_models(models, ports):
    assert ask(ports[1], "/healthz") == (200, {"status": "ok"})
    shutil.rmtree(models / NAME / "1")
    wait_until(lambda: ask(ports[1], "/healthz")[0] == 503)
    assert ask(ports[1], PREDICT, GOOD)[0] == 404


def test_the_latest_version_replaces_the_one_before(models, ports, lines):
    publish_again(models)
    wait_until(lambda: states(ports[1]) == {2: "AVAILABLE"})
    wait_until(lambda: len(lines) == 3)
    ends = ("1 is available", "2 is available", "1 is gone")
    assert lines == [f"{NAME} version {end}" for end in ends]


def test_a_version_that_does_not_load_leaves_the_one_before(models, ports, lines):
    publish_again(models).joinpath("saved_model.pb").write_bytes(b"damaged")
    wait_until(lambda: 2 in states(ports[1]) and states(ports[1])[2] == "END")
    assert states(ports[1])[1] == "AVAILABLE"
    assert ask(ports[1], PREDICT, GOOD)[0] == 200
    (line,) = [line for line in lines if "cannot be loaded" in line]
    assert line.startswith(f"{NAME} version 2 cannot be loaded: ")
    code, answer = ask(ports[1], f"/v1/models/{NAME}/versions/2")
    assert answer["model_version_status"][0]["status"]["error_message"]


def test_a_version_that_failed_has_its_reason_and_is_tried_again_when_it_is_replaced(
    models, lines, tmp_path
):
    version = models / NAME / "1"
    shutil.copytree(version, tmp_path / "good")
    (data,) = version.glob("variables/variables.data-*")
    os.truncate(data, data.stat().st_size // 2)
    config = write_config(models, "all {}")
    with development_server(config, poll_seconds=0.05, report=lines.append) as (_, port):
        code, answer = ask(port, "/healthz")
        assert (code, answer["status"]) == (503, "failed")
        assert answer["error"].startswith(f"{NAME} version 1: OutOfRangeError: Read less bytes")
        time.sleep(0.3)
        version.rename(tmp_path / "bad")
        (tmp_path / "good").rename(version)
        wait_until(lambda: ask(port, PREDICT, GOOD)[0] == 200)
        assert ask(port, "/healthz")[0] == 200
    # Once, not at every look.
    assert len([line for line in lines if "OutOfRangeError: Read less bytes" in line]) == 1


def test_a_request_that_is_being_answered_keeps_its_version(models, ports):
    # Many rows keep version 1 busy while version 2 takes over.
    image = {"b64": "iVBORw0KGgo="}
    body = {"signature_name": "encode_image", "inputs": [image] * 300}
    codes = []
    threads = [
        threading.Thread(target=lambda: codes.append(ask(ports[1], PREDICT, body)[0]))
        for _ in range(8)
    ]
    publish_again(models)
    for thread in threads:
        thread.start()
    wait_until(lambda: states(ports[1]) == {2: "AVAILABLE"})
    for thread in threads:
        thread.join()
    assert codes == [200] * 8


def test_versions_are_those_of_the_configuration(models, ports):
    publish_again(models)
    publish_again(models)
    write_config(models, "specific { versions: 1 versions: 3 }")
    wait_until(lambda: states(ports[1]) == {1: "AVAILABLE", 3: "AVAILABLE"})
    write_config(models, "all {}")
    wait_until(lambda: len(states(ports[1])) == 3)


def test_a_label_moves_only_to_a_version_that_answers(models, ports):
    config = write_config(models, "all {}", stable=1)
    stable = f"/v1/models/{NAME}/labels/stable:predict"
    wait_until(lambda: ask(ports[1], stable, GOOD)[0] == 200)
    write_config(models, "all {}", stable=2)
    with grpc.insecure_channel(f"127.0.0.1:{ports[0]}") as channel:
        service = model_service_pb2_grpc.ModelServiceStub(channel)
        request = model_management_pb2.ReloadConfigRequest()
        model = request.config.model_config_list.config.add(name=NAME)
        model.version_labels["stable"] = 2
        answer = service.HandleReloadConfigRequest(request, timeout=30)
        assert answer.status.error_code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
        # Until then it stays where it was; as soon as there is a version 2, it moves.
        assert ask(ports[1], stable, GOOD)[0] == 200
        publish_again(models)
        wait_until(lambda: 2 in states(ports[1]))
        shutil.rmtree(models / NAME / "1")
        wait_until(lambda: states(ports[1]) == {2: "AVAILABLE"})
        wait_until(lambda: ask(ports[1], stable, GOOD)[0] == 200)
        status = get_model_status_pb2.GetModelStatusRequest()
        status.model_spec.name = NAME
        states_by_grpc = service.GetModelStatus(status, timeout=30).model_version_status
        assert [state.version for state in states_by_grpc] == [2]
    config.write_text("half a configuration {")
    assert ask(ports[1], stable, GOOD)[0] == 200


def test_a_port_that_is_taken_is_a_mistake_of_the_user(config, steady):
    for options in ({"grpc_port": steady[0]}, {"rest_port": steady[1]}):
        with pytest.raises(UserError, match=f"port {[*options.values()][0]} cannot be opened"):
            with development_server(config, **options):
                pass


def test_a_configuration_that_is_none_is_a_mistake_of_the_user(tmp_path):
    path = tmp_path / "models.config"
    with pytest.raises(UserError, match="does not exist"), development_server(path):
        pass
    path.write_text("model {")
    with pytest.raises(UserError, match="is no models.config"), development_server(path):
        pass
