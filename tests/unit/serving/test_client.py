"""The client: what it returns, when it tries again, and what it says when it fails."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from tests.unit.export.tiny import WIDTH
from tests.unit.serving.servers import NAME
from tf_dpce.errors import UserError
from tf_dpce.export import ENDPOINTS
from tf_dpce.export.examples import FILE, load_examples
from tf_dpce.preprocessing import status
from tf_dpce.serving import AsyncClient, Client
from tf_dpce.serving.errors import ServingError


@pytest.fixture(scope="module", params=["http", "grpc"])
def address(request, served) -> str:
    ports = {"http": served.rest_port, "grpc": served.grpc_port}
    return f"{request.param}://{served.host}:{ports[request.param]}"


@pytest.fixture(scope="module")
def recorded(exported):
    return load_examples(exported / FILE, ENDPOINTS)


# --- what it returns ------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [3, 32])
def test_it_returns_what_was_recorded(address, recorded, batch):
    images, sentences = recorded["encode_image"], recorded["encode_text"]
    texts = [text.decode(errors="replace") for text in sentences.inputs]
    with Client(address, NAME, batch=batch) as client:
        for (vectors, codes), expected in (
            (client.images(images.inputs), images),
            (client.texts(texts), sentences),
        ):
            assert (vectors.dtype, codes.dtype) == (np.float32, np.int32)
            np.testing.assert_allclose(vectors, expected.embeddings, atol=1e-5)
            np.testing.assert_array_equal(codes, expected.statuses)


def test_it_knows_the_dimension(address):
    with Client(address, NAME, label="stable") as client:
        assert client.dimension == WIDTH
    with Client(address, NAME) as client:
        vectors, codes = client.images([])
    assert (vectors.shape, codes.shape) == ((0, WIDTH), (0,))


def test_what_does_not_fit_into_a_request_costs_its_own_row_alone(address, recorded, tmp_path):
    huge = tmp_path / "huge.jpg"
    with huge.open("wb") as file:
        file.truncate(70 * 2**20)
    good = recorded["encode_image"].inputs[0]
    with Client(address, NAME) as client:
        vectors, codes = client.images([good, huge, good])
        assert codes.tolist() == [status.OK, status.TOO_MANY_BYTES, status.OK]
        assert not vectors[1].any()
        np.testing.assert_allclose(
            vectors[::2], recorded["encode_image"].embeddings[[0, 0]], atol=1e-5
        )
        vectors, codes = client.images([huge])
        assert (vectors.shape, codes.tolist()) == ((1, WIDTH), [status.TOO_MANY_BYTES])
        with pytest.raises(UserError, match="huge.jpg: more bytes than the limit"):
            client.encode_images([huge])


def test_a_batch_ends_before_the_item_that_would_make_it_too_large(address):
    # Both are within an image's limit, 32 MiB; in base64, together, they pass the server's 64.
    contents = [bytes(16 * 2**20 - 1), bytes(status.MAX_BYTES)]
    with Client(address, NAME) as client:
        assert client.images(contents)[1].tolist() == [status.WRONG_TYPE] * 2


def test_files_are_read_and_named_where_they_are_no_images(address, recorded, tmp_path):
    good, bad = tmp_path / "good.jpg", tmp_path / "bad.jpg"
    good.write_bytes(recorded["encode_image"].inputs[0])
    bad.write_bytes(b"no image")
    with Client(address, NAME) as client:
        expected = recorded["encode_image"].embeddings[:1]
        np.testing.assert_allclose(client.encode_images([good]), expected, atol=1e-5)
        with pytest.raises(UserError, match="bad.jpg: neither JPEG nor PNG"):
            client.encode_images([good, bad])
        with pytest.raises(UserError, match="sentence 2, 'xyz': no word of the vocabulary"):
            client.encode_texts(["a dog", "xyz"])


def test_threads_share_a_client(address):
    with Client(address, NAME) as client:
        expected, found = client.encode_texts(["a dog"]), []
        threads = [
            threading.Thread(target=lambda: found.append(client.encode_texts(["a dog"])))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    np.testing.assert_allclose(found, [expected] * 8, atol=1e-6)


def test_it_can_be_awaited(address, recorded):
    async def both() -> list[np.ndarray]:
        async with AsyncClient(address, NAME, connections=2) as client:
            return await asyncio.gather(
                client.encode_texts(["a dog", "two cats"]),
                client.encode_images(recorded["encode_image"].inputs[:1]),
                *(client.encode_texts(["a dog"]) for _ in range(4)),
            )

    texts, images, *others = asyncio.run(both())
    assert (texts.shape, images.shape) == ((2, WIDTH), (1, WIDTH))
    np.testing.assert_allclose(others, [texts[:1]] * 4, atol=1e-6)


def test_rest_needs_no_tensorflow(project_root):
    code = (
        "import sys; from tf_dpce.serving import AsyncClient, Client\n"
        "Client('http://localhost:8501', 'flickr8k')\n"
        "print(sorted({'tensorflow', 'keras', 'grpc'} & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=project_root, capture_output=True, text=True, check=True
    )
    assert answer.stdout == "[]\n"


# --- what it says when it fails -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"model": "nobody"}, "NOT_FOUND"),
        ({"version": 77}, "NOT_FOUND"),
        ({"label": "nowhere"}, "INVALID_ARGUMENT"),
    ],
)
def test_what_the_server_refuses_has_its_code_and_words(address, options, code):
    with Client(address, **{"model": NAME, **options}) as client:
        with pytest.raises(ServingError, match=f"^{code}: .+") as raised:
            client.texts(["a dog"])
        assert raised.value.code == code
        with pytest.raises(ServingError, match=code):
            _ = client.dimension


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_a_server_that_is_away_is_unavailable(scheme):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"{scheme}://127.0.0.1:{taken.getsockname()[1]}"
    with Client(address, NAME, retries=1) as client:
        with pytest.raises(ServingError, match="UNAVAILABLE: .*[Cc]onnection refused"):
            client.texts(["a dog"])


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_a_server_that_is_silent_runs_out_of_time_once(scheme):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        with Client(address, NAME, timeout=0.5) as client:
            with pytest.raises(ServingError, match="DEADLINE_EXCEEDED"):
                client.texts(["a dog"])
        assert 0.4 < time.monotonic() - began < 5


@pytest.mark.parametrize(
    "address",
    [
        *("localhost:8501", "ftp://localhost", "http://", "grpc://", "localhost"),
        *("http://h:99999", "grpc://h:many", "http://h:0", "http://[::1", "grpc://[::1"),
    ],
)
def test_an_address_that_is_none_is_told(address):
    with pytest.raises(UserError, match="is no address of a model server: write http://HOST:8501"):
        Client(address, NAME)


def test_a_version_and_a_label_exclude_each_other():
    with pytest.raises(UserError, match="not both"):
        Client("http://localhost:8501", NAME, version=1, label="stable")


@pytest.mark.parametrize(
    "option",
    [{"batch": 0}, {"retries": -1}, {"timeout": 0}, {"timeout": -1}, {"timeout": float("nan")}],
)
def test_a_number_out_of_its_range_is_told(option):
    (text,) = [f"{name}={value}" for name, value in option.items()]
    with pytest.raises(UserError, match=f"{text}.*: expected is a batch of 1 or more"):
        Client("http://localhost:8501", NAME, **option)


# --- when it tries again --------------------------------------------------------------------------

ANSWER = {"outputs": {"embedding": [[1.0, 0.0]], "status": [0]}}


class Script(BaseHTTPRequestHandler):
    """Answers by a list of (status, content), one after the other, and keeps what it was asked.

    Where the list says None, it breaks off.
    """

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, self.headers["Authorization"]))
        if (answer := self.server.script.pop(0)) is None:
            self.close_connection = True
            return
        status, content = answer
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        # Without saying so, as a server does that is restarted between two requests.
        self.close_connection = self.server.hangs_up

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def scripted() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Script)
    server.asked, server.script, server.hangs_up = [], [], False
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def scripted_client(server: ThreadingHTTPServer, **options) -> Client:
    return Client(f"http://127.0.0.1:{server.server_port}", NAME, **options)


def test_it_asks_again_while_the_server_itself_declines(scripted):
    scripted.script = [(503, {"error": "loading"}), (503, {"error": "loading"}), (200, ANSWER)]
    with scripted_client(scripted) as client:
        vectors, codes = client.texts(["a dog"])
    assert (vectors.tolist(), codes.tolist()) == ([[1.0, 0.0]], [0])
    assert len(scripted.asked) == 3


def test_it_gives_up_after_so_many_retries(scripted):
    scripted.script = [(503, {"error": "loading"})] * 3
    with scripted_client(scripted, retries=2) as client:
        with pytest.raises(ServingError, match="^UNAVAILABLE: loading$"):
            client.texts(["a dog"])
    assert len(scripted.asked) == 3


def test_it_gives_up_when_the_time_is_up(scripted):
    scripted.script = [(503, {"error": "loading"})] * 100
    began = time.monotonic()
    with scripted_client(scripted, retries=99, timeout=0.5) as client:
        with pytest.raises(ServingError, match="UNAVAILABLE"):
            client.texts(["a dog"])
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "INVALID_ARGUMENT"),
        (401, "UNAUTHENTICATED"),
        (403, "PERMISSION_DENIED"),
        (404, "NOT_FOUND"),
        (413, "RESOURCE_EXHAUSTED"),
        (429, "RESOURCE_EXHAUSTED"),
        (500, "INTERNAL"),
        (504, "DEADLINE_EXCEEDED"),
        (418, "UNKNOWN"),
    ],
)
def test_it_does_not_ask_again_where_that_cannot_help_or_costs_the_server_twice(
    scripted, status, code
):
    scripted.script = [(status, {"error": "no"})]
    with scripted_client(scripted) as client:
        with pytest.raises(ServingError, match=f"^{code}: no$"):
            client.texts(["a dog"])
    assert len(scripted.asked) == 1


@pytest.mark.parametrize("status", [502, 503])
def test_it_does_not_ask_again_where_a_gateway_may_tell_that_the_server_died(scripted, status):
    scripted.script = [(status, b"upstream prematurely closed connection")]
    with scripted_client(scripted) as client:
        with pytest.raises(ServingError, match=f"^UNAVAILABLE: HTTP status {status}: 'upstream"):
            client.texts(["a dog"])
    assert len(scripted.asked) == 1


def test_a_connection_that_was_closed_meanwhile_is_opened_again(scripted):
    scripted.script, scripted.hangs_up = [(200, ANSWER)] * 3, True
    with scripted_client(scripted) as client:
        for _ in range(3):
            client.texts(["a dog"])
    assert len(scripted.asked) == 3


def test_a_farewell_that_crosses_a_request_costs_no_failure(scripted):
    scripted.script = [(200, ANSWER), None, (200, ANSWER)]
    with scripted_client(scripted) as client:
        for _ in range(2):
            client.texts(["a dog"])
    assert len(scripted.asked) == 3


@pytest.mark.parametrize("answered", [0, 1])
def test_what_breaks_off_a_new_connection_is_not_sent_again(scripted, answered):
    # After an answer, the connection that was kept breaks off first, which may be a farewell.
    scripted.script = [(200, ANSWER)] * answered + [None] * (answered + 1)
    with scripted_client(scripted) as client:
        for _ in range(answered):
            client.texts(["a dog"])
        with pytest.raises(ServingError, match="^UNAVAILABLE: http"):
            client.texts(["a dog"])
    assert len(scripted.asked) == 2 * answered + 1


@pytest.mark.parametrize(
    "content",
    [
        b"<html>Welcome",
        {"predictions": []},
        {"outputs": {"embedding": [[1.0]]}},
        {"outputs": {"embedding": [[1.0]], "status": [0, 0]}},
        {"outputs": {"embedding": [[1.0], [2.0, 3.0]], "status": [0, 0]}},
        {"outputs": [1.0]},
        {"outputs": {"embedding": [[1.0]], "status": [[0]]}},
    ],
)
def test_an_answer_of_something_else_is_told(scripted, content):
    scripted.script = [(200, content)]
    with scripted_client(scripted) as client:
        with pytest.raises(ServingError, match="^INTERNAL: "):
            client.texts(["a dog"])


def test_headers_and_the_gateway_s_path_go_with_every_request(scripted):
    scripted.script = [(200, ANSWER)]
    address = f"http://127.0.0.1:{scripted.server_port}/gateway/"
    with Client(address, "my model", label="canary", headers={"Authorization": "key"}) as client:
        client.texts(["a dog"])
    assert scripted.asked == [("/gateway/v1/models/my%20model/labels/canary:predict", "key")]
