"""The client: what it returns, when it sends a request again, and how it fails."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from tests.blocked import WITHOUT_TENSORFLOW
from tests.errors import raises
from tests.unit.export.tiny import WIDTH
from tests.unit.serving.servers import NAME, fails, free_port
from tf_dpce.errors import UserError
from tf_dpce.preprocessing import status
from tf_dpce.serving import AsyncClient, Client


@pytest.fixture(scope="module", params=["http", "grpc"])
def address(request, served) -> str:
    ports = {"http": served.rest_port, "grpc": served.grpc_port}
    return f"{request.param}://{served.host}:{ports[request.param]}"


# --- what it returns ------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [3, 32])
def test_it_returns_what_was_recorded(address, recorded, batch):
    images, captions = recorded["encode_image"], recorded["encode_text"]
    texts = [text.decode(errors="replace") for text in captions.inputs]
    calls = [("images", images.inputs), ("texts", texts)]
    with Client(address, NAME, batch=batch) as client:
        answers = [client.encode_with_status(*call) for call in calls]

    async def ask() -> list:
        async with AsyncClient(address, NAME, batch=batch) as client:
            return await asyncio.gather(*(client.encode_with_status(*call) for call in calls))

    for (embeddings, statuses), expected in zip(
        answers + asyncio.run(ask()), [images, captions] * 2, strict=True
    ):
        assert (embeddings.dtype, statuses.dtype) == (np.float32, np.int32)
        np.testing.assert_allclose(embeddings, expected.embeddings, atol=1e-5)
        np.testing.assert_array_equal(statuses, expected.statuses)


def test_no_items_have_an_answer_of_the_right_width(address):
    with Client(address, NAME, label="stable") as client:
        assert client.dimension == WIDTH

    async def ask() -> tuple[np.ndarray, np.ndarray]:
        async with AsyncClient(address, NAME) as client:
            return await client.encode_with_status("images", [])

    with Client(address, NAME) as client:
        for embeddings, statuses in (client.encode_with_status("images", []), asyncio.run(ask())):
            assert (embeddings.shape, statuses.shape) == ((0, WIDTH), (0,))


def test_an_item_too_large_for_a_request_costs_only_its_own_row(address, recorded, tmp_path):
    huge = tmp_path / "huge.jpg"
    with huge.open("wb") as file:
        file.truncate(70 * 2**20)
    good = recorded["encode_image"].inputs[0]
    with Client(address, NAME) as client:
        embeddings, statuses = client.encode_with_status("images", [good, huge, good])
        assert statuses.tolist() == [status.OK, status.TOO_MANY_BYTES, status.OK]
        assert not embeddings[1].any()
        expected = recorded["encode_image"].embeddings[[0, 0]]
        np.testing.assert_allclose(embeddings[::2], expected, atol=1e-5)
        embeddings, statuses = client.encode_with_status("images", [huge])
        assert (embeddings.shape, statuses.tolist()) == ((1, WIDTH), [status.TOO_MANY_BYTES])


def test_a_batch_ends_before_the_item_that_would_make_it_too_large(address):
    # Both are within an image's limit, 32 MiB; in base64, together, they pass the server's 64.
    contents = [bytes(16 * 2**20 - 1), bytes(status.MAX_BYTES)]
    with Client(address, NAME) as client:
        assert client.encode_with_status("images", contents)[1].tolist() == [status.WRONG_TYPE] * 2


def test_encode_names_the_file_or_caption_that_cannot_be_encoded(address, recorded, tmp_path):
    good, bad = tmp_path / "good.jpg", tmp_path / "bad.jpg"
    good.write_bytes(recorded["encode_image"].inputs[0])
    bad.write_bytes(b"no image")

    async def ask(items: list) -> np.ndarray:
        async with AsyncClient(address, NAME) as client:
            return await client.encode_images(items)

    with Client(address, NAME) as client:
        expected = recorded["encode_image"].embeddings[:1]
        np.testing.assert_allclose(client.encode_images([good]), expected, atol=1e-5)
        for encode in (client.encode_images, lambda items: asyncio.run(ask(items))):
            with pytest.raises(UserError) as caught:
                encode([good, bad])
            assert "bad.jpg" in str(caught.value)
        with pytest.raises(UserError) as caught:
            client.encode_texts(["a dog", "xyz"])
        assert "xyz" in str(caught.value)


def test_threads_share_a_client(address):
    with Client(address, NAME) as client, ThreadPoolExecutor(8) as threads:
        expected = client.encode_texts(["a dog"])
        found = list(threads.map(client.encode_texts, [["a dog"]] * 8))
    np.testing.assert_allclose(found, [expected] * 8, atol=1e-6)


def test_rest_needs_no_tensorflow(run_program):
    run_program(
        f"{WITHOUT_TENSORFLOW}\n"
        "from tf_dpce.serving import AsyncClient, Client\n"
        "with Client('http://localhost:9', 'flickr8k', retries=0) as client:\n"
        "    try:\n"
        "        client.encode_with_status('texts', ['a dog'])\n"
        "    except Exception as error:\n"
        "        assert error.status == 'UNAVAILABLE', error\n"
        "assert not {'tensorflow', 'keras', 'grpc'} & set(sys.modules)"
    )


# --- how it fails ---------------------------------------------------------------------------------


def test_an_error_of_the_server_has_its_status(address):
    for options, expected in (
        ({"model": "nobody"}, "NOT_FOUND"),
        ({"version": 77}, "NOT_FOUND"),
        ({"label": "nowhere"}, "INVALID_ARGUMENT"),
    ):
        with Client(address, **{"model": NAME, **options}) as client:
            with fails(expected):
                client.encode_with_status("texts", ["a dog"])
            with fails(expected):
                _ = client.dimension


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_a_server_that_is_away_is_unavailable(scheme):
    with Client(f"{scheme}://127.0.0.1:{free_port()}", NAME, retries=1) as client:
        with fails("UNAVAILABLE"):
            client.encode_with_status("texts", ["a dog"])


def test_options_that_make_no_sense_are_refused():
    addresses = (
        *("localhost:8501", "ftp://localhost", "http://", "grpc://", "localhost"),
        *("http://h:99999", "grpc://h:many", "http://h:0", "http://[::1", "grpc://[::1"),
    )
    for address in addresses:
        with raises("client.address"):
            Client(address, NAME)
    with raises("client.version"):
        Client("http://localhost:8501", NAME, version=1, label="stable")
    numbers = (("batch", 0), ("retries", -1), ("timeout", 0), ("timeout", -1), ("timeout", np.nan))
    for name, value in numbers:
        for client in (Client, AsyncClient):
            with raises("client.range"):
                client("http://localhost:8501", NAME, **{name: value})


# --- when it sends a request again ----------------------------------------------------------------

ANSWER = {"outputs": {"embedding": [[1.0, 0.0]], "status": [0]}}


class Script(BaseHTTPRequestHandler):
    """Answers by a list of (status, content), one after the other; breaks off at None.

    Requests wait until `gate` lets them pass, and are kept in `asked`.
    """

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, self.headers["Authorization"]))
        self.server.gate.wait(timeout=30)
        if (answer := self.server.script.pop(0)) is None:
            self.close_connection = True
            return
        code, content = answer
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        # Without saying so, like a server that is restarted between two requests.
        self.close_connection = self.server.hangs_up

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def scripted() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Script)
    server.asked, server.script, server.hangs_up = [], [], False
    server.gate = threading.Barrier(1)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def scripted_client(server: ThreadingHTTPServer, **options) -> Client:
    return Client(f"http://127.0.0.1:{server.server_port}", NAME, **options)


def test_requests_of_an_async_client_are_under_way_at_the_same_time(scripted):
    # Nobody is answered before all five have asked; of eight, three wait for a connection.
    scripted.script, scripted.gate = [(200, ANSWER)] * 10, threading.Barrier(5)
    address = f"http://127.0.0.1:{scripted.server_port}"

    async def ask() -> None:
        async with AsyncClient(address, NAME, connections=5) as client:
            await asyncio.gather(
                *(client.encode_with_status("texts", ["a dog"]) for _ in range(10))
            )

    asyncio.run(ask())
    assert len(scripted.asked) == 10


def test_it_asks_again_while_the_server_itself_declines(scripted):
    scripted.script = [(503, {"error": "loading"}), (503, {"error": "loading"}), (200, ANSWER)]
    with scripted_client(scripted) as client:
        embeddings, statuses = client.encode_with_status("texts", ["a dog"])
    assert (embeddings.tolist(), statuses.tolist()) == ([[1.0, 0.0]], [0])
    assert len(scripted.asked) == 3


def test_it_gives_up_after_the_last_retry_or_when_time_is_up(scripted):
    scripted.script = [(503, {"error": "loading"})] * 100
    with scripted_client(scripted, retries=2) as client, fails("UNAVAILABLE"):
        client.encode_with_status("texts", ["a dog"])
    assert len(scripted.asked) == 3
    began = time.monotonic()
    with scripted_client(scripted, retries=99, timeout=0.5) as client:
        with raises("serving.request") as caught:
            client.encode_with_status("texts", ["a dog"])
    # The last attempt may itself run out of time.
    assert caught.value.status in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
    assert time.monotonic() - began < 2


def test_what_somebody_answered_is_not_asked_again(scripted):
    answers = [
        *((400, "INVALID_ARGUMENT"), (401, "UNAUTHENTICATED"), (403, "PERMISSION_DENIED")),
        *((404, "NOT_FOUND"), (413, "RESOURCE_EXHAUSTED"), (429, "RESOURCE_EXHAUSTED")),
        *((500, "INTERNAL"), (504, "DEADLINE_EXCEEDED"), (418, "UNKNOWN")),
    ]
    scripted.script = [(code, {"error": "no"}) for code, _ in answers]
    # These may be a gateway's, whose server died of the request.
    scripted.script += [(502, b"upstream closed"), (503, b"upstream closed")]
    with scripted_client(scripted) as client:
        for _, expected in [*answers, (502, "UNAVAILABLE"), (503, "UNAVAILABLE")]:
            with fails(expected):
                client.encode_with_status("texts", ["a dog"])
    assert len(scripted.asked) == len(answers) + 2


def test_a_connection_that_was_closed_meanwhile_is_opened_again(scripted):
    scripted.script, scripted.hangs_up = [(200, ANSWER)] * 3, True
    with scripted_client(scripted) as client:
        for _ in range(3):
            client.encode_with_status("texts", ["a dog"])
    assert len(scripted.asked) == 3


def test_a_server_that_closes_a_connection_as_a_request_arrives_is_asked_once_more(scripted):
    scripted.script = [(200, ANSWER), None, (200, ANSWER)]
    with scripted_client(scripted) as client:
        for _ in range(2):
            client.encode_with_status("texts", ["a dog"])
    assert len(scripted.asked) == 3


@pytest.mark.parametrize("answered", [0, 1])
def test_what_breaks_off_a_new_connection_is_not_sent_again(scripted, answered):
    # After an answer, the connection that is used again breaks off first.
    scripted.script = [(200, ANSWER)] * answered + [None] * (answered + 1)
    with scripted_client(scripted) as client:
        for _ in range(answered):
            client.encode_with_status("texts", ["a dog"])
        with fails("UNAVAILABLE"):
            client.encode_with_status("texts", ["a dog"])
    assert len(scripted.asked) == 2 * answered + 1


def test_an_answer_that_is_not_an_export_s_is_an_error(scripted):
    contents = [
        b"<html>Welcome",
        {"predictions": []},
        {"outputs": {"embedding": [[1.0]]}},
        {"outputs": {"embedding": [[1.0]], "status": [0, 0]}},
        {"outputs": {"embedding": [[1.0], [2.0, 3.0]], "status": [0, 0]}},
        {"outputs": [1.0]},
        {"outputs": {"embedding": [[1.0]], "status": [[0]]}},
    ]
    scripted.script = [(200, content) for content in contents]
    with scripted_client(scripted) as client:
        for _ in contents:
            with fails("INTERNAL"):
                client.encode_with_status("texts", ["a dog"])


def test_headers_and_the_gateway_s_path_go_with_every_request(scripted):
    scripted.script = [(200, ANSWER)]
    address = f"http://127.0.0.1:{scripted.server_port}/gateway/"
    with Client(address, "my model", label="canary", headers={"Authorization": "key"}) as client:
        client.encode_with_status("texts", ["a dog"])
    assert scripted.asked == [("/gateway/v1/models/my%20model/labels/canary:predict", "key")]
