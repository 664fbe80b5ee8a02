"""The client: what it returns, and how it fails."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.blocked import WITHOUT_TENSORFLOW
from tests.errors import raises
from tests.unit.serving.servers import NAME, VERSION, fails, free_port
from tf_dpce.preprocessing import status
from tf_dpce.serving import AsyncClient, Client


@pytest.fixture(scope="module", params=["http", "grpc"])
def address(request, served) -> str:
    ports = {"http": served.rest_port, "grpc": served.grpc_port}
    return f"{request.param}://{served.host}:{ports[request.param]}"


def by_client(address: str, method: str, *items, **options):
    with Client(address, NAME, **options) as client:
        return getattr(client, method)(*items)


def by_async_client(address: str, method: str, *items, **options):
    async def ask():
        async with AsyncClient(address, NAME, **options) as client:
            return await getattr(client, method)(*items)

    return asyncio.run(ask())


# --- what it returns ------------------------------------------------------------------------------


@pytest.mark.parametrize("ask", [by_client, by_async_client])
def test_it_returns_what_was_recorded(address, recorded, ask):
    images, captions = recorded["encode_image"], recorded["encode_text"]
    texts = [text.decode(errors="replace") for text in captions.inputs]
    for batch in (3, 32):
        for kind, items, expected in (
            ("images", images.inputs, images),
            ("texts", texts, captions),
        ):
            embeddings, statuses = ask(address, "encode_with_status", kind, items, batch=batch)
            assert (embeddings.dtype, statuses.dtype) == (np.float32, np.int32)
            np.testing.assert_allclose(embeddings, expected.embeddings, atol=1e-5)
            np.testing.assert_array_equal(statuses, expected.statuses)


def test_no_items_have_an_answer_of_the_right_width(address, width):
    with Client(address, NAME, label="stable") as client:
        embeddings, statuses = client.encode_with_status("images", [])
        assert (embeddings.shape, statuses.shape) == ((0, width), (0,))
        assert client.dimension == width


def test_an_item_too_large_for_a_request_costs_only_its_own_row(address, recorded, width, tmp_path):
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
        assert (embeddings.shape, statuses.tolist()) == ((1, width), [status.TOO_MANY_BYTES])


def test_a_batch_ends_before_the_item_that_would_make_it_too_large(address):
    # Both are within an image's limit, 32 MiB; in base64, together, they pass the server's 64.
    contents = [bytes(16 * 2**20 - 1), bytes(status.MAX_BYTES)]
    with Client(address, NAME) as client:
        assert client.encode_with_status("images", contents)[1].tolist() == [status.WRONG_TYPE] * 2


@pytest.mark.parametrize("ask", [by_client, by_async_client])
def test_encode_names_the_file_or_caption_that_cannot_be_encoded(
    address, recorded, caption, ask, tmp_path
):
    good, bad = tmp_path / "good.jpg", tmp_path / "bad.jpg"
    good.write_bytes(recorded["encode_image"].inputs[0])
    bad.write_bytes(b"no image")
    expected = recorded["encode_image"].embeddings[:1]
    np.testing.assert_allclose(ask(address, "encode_images", [good]), expected, atol=1e-5)
    with raises("encode.unusable", bad):
        ask(address, "encode_images", [good, bad])
    with raises("encode.unusable") as caught:
        ask(address, "encode_texts", [caption, "xyz"])
    assert "xyz" in str(caught.value)


def test_one_text_names_server_and_model(address, caption):
    with Client(address, NAME) as client, Client.at(f"{address}#{NAME}") as same:
        np.testing.assert_array_equal(same.encode_texts([caption]), client.encode_texts([caption]))


def test_threads_share_a_client(address, caption):
    with Client(address, NAME) as client, ThreadPoolExecutor(8) as threads:
        expected = client.encode_texts([caption])
        found = list(threads.map(client.encode_texts, [[caption]] * 8))
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
        ({"version": VERSION + 77}, "NOT_FOUND"),
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
    for text in ("http://localhost:8501", "http://localhost:8501#", "localhost#a", "#a", ""):
        with raises("client.address"):
            Client.at(text)
    with raises("client.version"):
        Client("http://localhost:8501", NAME, version=1, label="stable")
    numbers = (
        ("batch", 0),
        ("retries", -1),
        ("connections", 0),
        ("timeout", 0),
        ("timeout", np.nan),
    )
    for name, value in numbers:
        with raises("client.range"):
            Client("http://localhost:8501", NAME, **{name: value})
