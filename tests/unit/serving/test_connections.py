"""What a client sends again if a connection fails, and that it ends when its time is up."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest

from tests.unit.serving.servers import NAME, fails, free_port
from tf_dpce.serving import Client

BODY = b'{"outputs": {"embedding": [[1.0, 0.0]], "status": [0]}}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)


def request(connection: socket.socket) -> bytes:
    """Reads a request to its end, or else closing would reset; of what is no HTTP, one piece."""
    content = connection.recv(2**16)
    while content.startswith(b"POST ") and not content.endswith(b"]}"):
        content += connection.recv(2**16)
    return content


@contextmanager
def server(
    behave: Callable[[socket.socket], None], port: int = 0
) -> Iterator[tuple[int, list[bytes]]]:
    """Does something with each connection and closes it; yields the port and what it received."""
    received = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                received.append(request(connection))
                try:
                    behave(connection)
                except OSError:
                    pass

    with socket.create_server(("127.0.0.1", port)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1], received
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


# --- what it sends again --------------------------------------------------------------------------


@pytest.mark.parametrize("part", [b"", ANSWER[:20], ANSWER[:-5]])
def test_what_a_server_received_is_not_sent_again_if_it_breaks_off(part):
    with server(lambda connection: connection.sendall(part)) as (port, received):
        with Client(f"http://127.0.0.1:{port}", NAME) as client, fails("UNAVAILABLE"):
            client.encode_with_status("texts", ["a dog"])
    assert len(received) == 1


@pytest.mark.parametrize("scheme", ["https", "grpcs"])
def test_a_failure_of_tls_is_final(scheme):
    with server(lambda connection: connection.sendall(b"no TLS here")) as (port, received):
        with Client(f"{scheme}://127.0.0.1:{port}", NAME) as client, fails("UNAVAILABLE"):
            client.encode_with_status("texts", ["a dog"])
    assert len(received) == 1


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b"])
def test_a_host_that_nobody_knows_is_looked_up_once(host):
    began = time.monotonic()
    with Client(f"http://{host}:8501", NAME, retries=9, timeout=60) as client, fails("UNAVAILABLE"):
        client.encode_with_status("texts", ["a dog"])
    # Nine waits that double come to more than 25 seconds.
    assert time.monotonic() - began < 20


def test_a_server_that_comes_back_in_time_is_found_over_rest():
    port = free_port()
    with ThreadPoolExecutor(1) as threads, Client(f"http://127.0.0.1:{port}", NAME) as client:
        embeddings = threads.submit(client.encode_texts, ["a dog"])
        time.sleep(0.15)
        with server(lambda connection: connection.sendall(ANSWER), port) as (_, received):
            assert embeddings.result().tolist() == [[1.0, 0.0]]
    assert len(received) == 1


class Declining(grpc.GenericRpcHandler):
    """Counts requests, and answers UNAVAILABLE."""

    def __init__(self) -> None:
        self.asked = 0

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        def answer(request: bytes, context: grpc.ServicerContext) -> None:
            self.asked += 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "it broke off")

        return grpc.unary_unary_rpc_method_handler(answer)


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


# --- when its time is up --------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_a_server_that_is_silent_runs_out_of_time(scheme):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        with Client(address, NAME, timeout=0.5) as client, fails("DEADLINE_EXCEEDED"):
            client.encode_with_status("texts", ["a dog"])
        assert 0.4 < time.monotonic() - began < 5


@pytest.mark.parametrize("start", [0, len(ANSWER) - 20], ids=["head", "body"])
def test_an_answer_that_comes_in_drops_ends_with_the_time(start):
    def behave(connection: socket.socket) -> None:
        connection.sendall(ANSWER[:start])
        # 20 bytes at least, 0.2 seconds each: 4 seconds.
        for byte in ANSWER[start:]:
            connection.sendall(bytes([byte]))
            time.sleep(0.2)

    with server(behave) as (port, received):
        began = time.monotonic()
        with Client(f"http://127.0.0.1:{port}", NAME, timeout=0.5) as client:
            with fails("DEADLINE_EXCEEDED"):
                client.encode_with_status("texts", ["a dog"])
        assert 0.4 < time.monotonic() - began < 1.5
    assert len(received) == 1


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
                    secured.sendall(ANSWER)
            except ssl.SSLError:
                connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as threads:
        served = threads.submit(serve)
        port = listening.getsockname()[1]
        with Client(f"https://localhost:{port}", NAME) as client:
            with fails("UNAVAILABLE") as caught:
                client.encode_with_status("texts", ["a dog"])
            assert "CERTIFICATE_VERIFY_FAILED" in caught.value.detail
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert"))
        with Client(f"https://localhost:{port}", NAME) as client:
            assert client.encode_with_status("texts", ["a dog"])[1].tolist() == [0]
        served.result()
    assert f"Host: localhost:{port}\r\n".encode() in asked[0]
