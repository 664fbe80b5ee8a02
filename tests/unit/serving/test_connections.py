"""What a client sends again if a server declines or a connection fails, and how long it waits."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import grpc
import pytest
import tensorflow as tf
from tensorflow_serving.apis.predict_pb2 import PredictResponse

from tests.errors import raises
from tests.unit.serving.servers import NAME, fails, free_port
from tf_dpce.serving import AsyncClient, Client


def answer(status: int, content: dict | bytes) -> bytes:
    """Composes what a server sends."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return b"HTTP/1.1 %d -\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


GOOD = answer(200, {"outputs": {"embedding": [[1.0, 0.0]], "status": [0]}})
DECLINED = answer(503, {"error": "loading"})


def request(connection: socket.socket) -> bytes:
    """Reads a request to its end, or else closing would reset; of what is no HTTP, one piece."""
    content = connection.recv(2**16)
    while content.startswith(b"POST ") and not content.endswith(b"]}"):
        content += connection.recv(2**16)
    return content


class Scripted:
    """A server that answers each request by the next item of a list.

    It closes the connection after an item that is a list of pieces, or after each if it `hangs_up`,
    without saying so before. Requests wait until `gate` lets them pass.
    """

    def __init__(self, *script: bytes | Iterable[bytes], port: int = 0) -> None:
        self.script, self.asked, self.hangs_up = list(script), [], False
        self.gate = threading.Barrier(1)
        self._listening = socket.create_server(("127.0.0.1", port))
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"

    def __enter__(self) -> Scripted:
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listening.close()

    def client(self, scheme: str = "http", **options) -> Client:
        return Client(f"{scheme}://{self.address}", NAME, **options)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while content := request(connection):
                self.asked.append(content)
                self.gate.wait(timeout=30)
                item = self.script.pop(0)
                for piece in [item] if isinstance(item, bytes) else item:
                    connection.sendall(piece)
                if self.hangs_up or not isinstance(item, bytes):
                    return


def encode(client: Client) -> list:
    embeddings, statuses = client.encode_with_status("texts", ["a dog"])
    return [embeddings.tolist(), statuses.tolist()]


# --- what it sends --------------------------------------------------------------------------------


def test_requests_of_an_async_client_are_under_way_at_the_same_time():
    async def ask(address: str) -> None:
        async with AsyncClient(f"http://{address}", NAME, connections=5) as client:
            await asyncio.gather(*(client.encode_texts(["a dog"]) for _ in range(10)))

    with Scripted(*[GOOD] * 10) as server:
        # Nobody is answered before all five have asked; of eight, three wait for a connection.
        server.gate = threading.Barrier(5)
        asyncio.run(ask(server.address))
        assert len(server.asked) == 10


def test_headers_and_the_gateway_s_path_go_with_every_request():
    with Scripted(GOOD) as server:
        address, headers = f"http://{server.address}/gateway/", {"Authorization": "key"}
        with Client(address, "my model", label="canary", headers=headers) as client:
            encode(client)
    (asked,) = server.asked
    assert asked.startswith(b"POST /gateway/v1/models/my%20model/labels/canary:predict ")
    assert b"authorization: key\r\n" in asked.lower()


def test_an_answer_that_is_not_an_export_s_is_an_error():
    contents = [
        b"<html>Welcome",
        {"predictions": []},
        {"outputs": {"embedding": [[1.0]]}},
        {"outputs": {"embedding": [[1.0]], "status": [0, 0]}},
        {"outputs": {"embedding": [[1.0], [2.0, 3.0]], "status": [0, 0]}},
        {"outputs": [1.0]},
        {"outputs": {"embedding": [[1.0]], "status": [[0]]}},
    ]
    with Scripted(*(answer(200, content) for content in contents)) as server:
        with server.client() as client:
            for _ in contents:
                with fails("INTERNAL"):
                    encode(client)


# --- what it sends again --------------------------------------------------------------------------


def test_it_asks_again_while_the_server_itself_declines_until_the_last_retry_or_time_is_up():
    with Scripted(DECLINED, DECLINED, GOOD, *[DECLINED] * 100) as server:
        with server.client() as client:
            assert encode(client) == [[[1.0, 0.0]], [0]]
        assert len(server.asked) == 3
        with server.client(retries=2) as client, fails("UNAVAILABLE"):
            encode(client)
        assert len(server.asked) == 6
        began = time.monotonic()
        with server.client(retries=99, timeout=0.5) as client:
            with raises("serving.request") as caught:
                encode(client)
    # The last attempt may itself run out of time.
    assert caught.value.status in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
    assert time.monotonic() - began < 2


def test_what_somebody_answered_is_not_asked_again():
    answers = [
        *((400, "INVALID_ARGUMENT"), (401, "UNAUTHENTICATED"), (403, "PERMISSION_DENIED")),
        *((404, "NOT_FOUND"), (413, "RESOURCE_EXHAUSTED"), (429, "RESOURCE_EXHAUSTED")),
        *((500, "INTERNAL"), (504, "DEADLINE_EXCEEDED"), (418, "UNKNOWN")),
        # These may be a gateway's, whose server died of the request.
        *((502, "UNAVAILABLE"), (503, "UNAVAILABLE")),
    ]
    with Scripted(*(answer(code, b"upstream closed") for code, _ in answers)) as server:
        with server.client() as client:
            for _, expected in answers:
                with fails(expected):
                    encode(client)
    assert len(server.asked) == len(answers)


def test_a_connection_that_is_closed_between_two_requests_or_as_one_arrives_is_opened_again():
    with Scripted(GOOD, GOOD, [], GOOD) as server, server.client() as client:
        server.hangs_up = True
        encode(client)
        server.hangs_up = False
        for _ in range(2):
            encode(client)
    assert len(server.asked) == 4


def test_what_breaks_off_a_new_connection_is_not_sent_again():
    for scheme, part in (
        *(("http", part) for part in (b"", GOOD[:20], GOOD[:-5])),
        *((scheme, b"no TLS here") for scheme in ("https", "grpcs")),
    ):
        with Scripted([part]) as server, server.client(scheme) as client, fails("UNAVAILABLE"):
            encode(client)
        assert len(server.asked) == 1, (scheme, part)
    # After an answer, the connection that is used again breaks off first.
    with Scripted(GOOD, [], []) as server, server.client() as client:
        encode(client)
        with fails("UNAVAILABLE"):
            encode(client)
    assert len(server.asked) == 3


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b"])
def test_a_host_that_nobody_knows_is_looked_up_once(host):
    began = time.monotonic()
    with Client(f"http://{host}:8501", NAME, retries=9, timeout=60) as client, fails("UNAVAILABLE"):
        encode(client)
    # Nine waits that double come to more than 25 seconds.
    assert time.monotonic() - began < 20


def test_a_server_that_comes_back_in_time_is_found_over_rest():
    port = free_port()
    with ThreadPoolExecutor(1) as threads, Client(f"http://127.0.0.1:{port}", NAME) as client:
        embeddings = threads.submit(client.encode_texts, ["a dog"])
        time.sleep(0.15)
        with Scripted(GOOD, port=port) as server:
            assert embeddings.result().tolist() == [[1.0, 0.0]]
    assert len(server.asked) == 1


class Declining(grpc.GenericRpcHandler):
    """Counts requests, and declines them until none of `times` is left, or more than `most` come.

    What it takes up, it computes for a moment.
    """

    def __init__(
        self, status: str = "UNAVAILABLE", words: str = "it broke off", times=10**6, most=10**6
    ) -> None:
        self.asked, self._status, self._words = 0, grpc.StatusCode[status], words
        self._times, self._free = times, threading.Semaphore(most)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            self.asked += 1
            if self.asked <= self._times or not self._free.acquire(blocking=False):
                context.abort(self._status, self._words)
            time.sleep(0.02)
            self._free.release()
            return PREDICTED.SerializeToString()

        return grpc.unary_unary_rpc_method_handler(answer)


PREDICTED = PredictResponse(
    outputs={
        "embedding": tf.make_tensor_proto([[1.0, 0.0]]),
        "status": tf.make_tensor_proto([0], tf.int32),
    }
)


@contextmanager
def grpc_server(handler: grpc.GenericRpcHandler, threads: int = 4) -> Iterator[str]:
    with ThreadPoolExecutor(threads) as pool:
        server = grpc.server(pool, handlers=[handler])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(None).wait()


def test_over_grpc_a_server_that_comes_back_is_found_and_asked_once():
    # What answers UNAVAILABLE may be a gateway whose server died of the request.
    port, handler = free_port(), Declining()
    with ThreadPoolExecutor(4) as threads, Client(f"grpc://127.0.0.1:{port}", NAME) as client:
        answer = threads.submit(client.encode_texts, ["a dog"])
        time.sleep(0.15)
        away = grpc.server(threads, handlers=[handler])
        away.add_insecure_port(f"127.0.0.1:{port}")
        away.start()
        with fails("UNAVAILABLE") as caught:
            answer.result()
        assert caught.value.detail == "it broke off"
        away.stop(None).wait()
    assert handler.asked == 1


EXHAUSTED = ("RESOURCE_EXHAUSTED", "Server Threadpool Exhausted")
FULL = ("UNAVAILABLE", "The batch scheduling queue to which this task was submitted is full")
WAITED = "Run() timeout exceeded while waiting in batching queue"


@pytest.mark.parametrize(("status", "words"), [EXHAUSTED, FULL])
def test_over_grpc_a_busy_server_is_asked_until_it_has_time_or_the_time_is_up(status, words):
    # More often than `retries` says, since nobody computed the request.
    handler = Declining(status, words, times=3)
    with grpc_server(handler) as address:
        with Client(f"grpc://{address}", NAME, retries=1) as client:
            assert encode(client) == [[[1.0, 0.0]], [0]]
    assert handler.asked == 4
    handler = Declining(status, words)
    with grpc_server(handler) as address:
        with Client(f"grpc://{address}", NAME, timeout=3) as client, fails(status):
            encode(client)
    # Pauses of at least 0.05, 0.1, 0.2, 0.4 and 0.8 seconds. The next would end after the time;
    # what is left of it after the last one lets a busy machine answer.
    assert 2 <= handler.asked <= 6
    other = Declining(status, "no more memory")
    with grpc_server(other) as address, Client(f"grpc://{address}", NAME) as client, fails(status):
        encode(client)
    assert other.asked == 1


def test_many_calls_at_once_are_all_answered_by_a_server_that_takes_up_few():
    # As TF Serving on 2 cores by default: of 64 calls at once 41 failed.
    async def ask(address: str) -> None:
        async with AsyncClient(f"grpc://{address}", NAME, connections=64) as client:
            await asyncio.gather(*(client.encode_texts(["a dog"]) for _ in range(64)))

    handler = Declining(*EXHAUSTED, times=0, most=7)
    with grpc_server(handler, threads=64) as address:
        asyncio.run(ask(address))
    assert handler.asked > 64


def test_over_rest_a_full_queue_is_asked_again():
    with Scripted(*[answer(503, {"error": FULL[1]})] * 3, GOOD) as server:
        with server.client(retries=1) as client:
            encode(client)
    assert len(server.asked) == 4


def test_what_waited_too_long_in_the_queue_is_a_request_whose_time_is_up():
    with Scripted(answer(429, {"error": WAITED})) as server, server.client() as client:
        with fails("DEADLINE_EXCEEDED"):
            encode(client)
    with grpc_server(Declining("RESOURCE_EXHAUSTED", WAITED)) as address:
        with Client(f"grpc://{address}", NAME) as client, fails("DEADLINE_EXCEEDED"):
            encode(client)


# --- what it says ---------------------------------------------------------------------------------


def test_a_client_at_the_other_port_asks_for_it_and_shows_no_bytes_of_a_stranger():
    frame = b"\x00\x00\x18\x04\x00\x00\x00\x00\x00\x00\x04\x00\x3f\xff\xff"
    with grpc_server(Declining()) as real, Scripted([frame]) as scripted:
        for address in (real, scripted.address):
            with Client(f"http://{address}", NAME) as client, fails("UNAVAILABLE") as caught:
                encode(client)
            assert "no HTTP" in str(caught.value) and "\\x" not in str(caught.value)
    with Scripted([answer(400, b"<HTML>secret")]) as server:
        with server.client("grpc") as client, fails("UNAVAILABLE") as caught:
            encode(client)
    assert "no gRPC" in str(caught.value) and "secret" not in str(caught.value)


def test_at_most_80_characters_of_a_server_are_shown():
    long = "a" * 70 + "\x1b[31m" + "b" * 1000
    pages = [answer(404, {"error": long}), answer(200, long.encode()), answer(500, long.encode())]
    with Scripted(*pages) as server, server.client() as client:
        for expected in ("NOT_FOUND", "INTERNAL", "INTERNAL"):
            with fails(expected) as caught:
                encode(client)
            shown = str(caught.value)
            assert shown.isprintable() and len(shown) < 160 and "b" * 10 not in shown
    with grpc_server(Declining(words=long)) as address:
        with Client(f"grpc://{address}", NAME) as client, fails("UNAVAILABLE") as caught:
            encode(client)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 160


def test_a_request_without_rows_is_never_sent():
    # A server that batches would wait for it, or die. One row shows the width of an embedding.
    with Scripted(GOOD) as server, server.client() as client:
        for kind in ("texts", "images", "texts"):
            embeddings, statuses = client.encode_with_status(kind, [])
            assert embeddings.shape == (0, 2) and statuses.shape == (0,)
    (asked,) = server.asked
    assert asked.endswith(b'"inputs": [{"b64": ""}]}')


# --- when its time is up --------------------------------------------------------------------------


def drops(start: int) -> Iterator[bytes]:
    """An answer whose end comes in 20 bytes at least, 0.2 seconds each: 4 seconds."""
    yield GOOD[:start]
    for byte in GOOD[start:]:
        yield bytes([byte])
        time.sleep(0.2)


def silence() -> Iterator[bytes]:
    time.sleep(3)
    yield b""


@pytest.mark.parametrize(
    ("scheme", "pieces"),
    [("http", silence()), ("grpc", silence()), ("http", drops(0)), ("http", drops(len(GOOD) - 20))],
    ids=["silent", "silent, gRPC", "head in drops", "body in drops"],
)
def test_what_is_not_answered_in_time_is_given_up(scheme, pieces):
    with Scripted(pieces) as server:
        began = time.monotonic()
        with server.client(scheme, timeout=0.5) as client, fails("DEADLINE_EXCEEDED"):
            encode(client)
        assert 0.4 < time.monotonic() - began < 2.5
    assert len(server.asked) == 1


# --- TLS ------------------------------------------------------------------------------------------


@pytest.fixture
def certificate(tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("the certificate is made by openssl")
    names = "-subj /CN=localhost -addext subjectAltName=DNS:localhost"
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 {names} -keyout key -out cert"
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


def test_tls_checks_the_server_s_certificate(certificate, monkeypatch):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert", certificate / "key")
    asked = []

    def serve() -> None:
        for _ in range(2):
            connection, _ = listening.accept()
            try:
                with context.wrap_socket(connection, server_side=True) as secured:
                    asked.append(request(secured))
                    secured.sendall(GOOD)
            except ssl.SSLError:
                connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as threads:
        served = threads.submit(serve)
        address = f"https://localhost:{listening.getsockname()[1]}"
        with Client(address, NAME) as client, fails("UNAVAILABLE") as caught:
            encode(client)
        assert "CERTIFICATE_VERIFY_FAILED" in caught.value.detail
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert"))
        with Client(address, NAME) as client:
            encode(client)
        served.result()
    assert address.replace("https://", "Host: ").encode() in asked[0]
