"""The page over real HTTP: what it serves, what it refuses, and what it never says."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import httpx
import numpy as np
import pytest

from tests.samples import image
from tests.unit.search.plain import indexed, vector
from tests.unit.web.pages import (
    COUNT,
    EVIL,
    functions,
    index_of_images,
    raw,
    running_page,
    search,
    shown_ids,
)
from tf_dpce.preprocessing.status import MAX_BYTES


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return index_of_images(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def client(index: Path) -> Iterator[httpx.Client]:
    with running_page(index) as client:
        yield client


def stored_ids(index: Path) -> list[str]:
    """The ids of the images in the order of their vectors."""
    shards = sorted((index.parent / "vectors").glob("images-*.jsonl"))
    return [json.loads(line)["id"] for path in shards for line in path.read_text().splitlines()]


def expected_ids(index: Path, query: str) -> list[str]:
    """The plain reference: all inner products, sorted."""
    scores = indexed(index.parent / "vectors", "images") @ vector(query)
    ids = stored_ids(index)
    return [ids[row] for row in np.argsort(-scores)]


def test_hits_are_those_of_the_index_page_by_page(client: httpx.Client, index: Path):
    expected = expected_ids(index, "a dog")
    pages = [shown_ids(search(client, f"?q=a+dog&page={page}")) for page in (1, 2, 3)]
    assert pages == [expected[:24], expected[24:], []] and len(expected) == COUNT + 1
    # A link to each of them can be opened, whatever Gradio would make of it.
    opened = [client.get(f"/?q=a+dog&{more}") for more in ("page=2", "page=x", "deep_link=x")]
    assert {(page.status_code, page.text) for page in opened} == {(200, client.get("/").text)}
    # The words of a filter are checked, and its mistakes are said.
    assert {i.split("/")[0] for i in shown_ids(search(client, "?q=a+dog&folder=pets"))} == {"pets"}
    assert "No answer" in search(client, "?q=a+dog&where=bogus+%3D+1")


def test_a_sent_image_is_searched_for_and_an_indexed_one_as_well(client: httpx.Client, index: Path):
    path = index.parent / "images" / "pets" / "004.png"
    name = client.post("/query-image", content=path.read_bytes())
    assert name.status_code == 200
    assert shown_ids(search(client, f"?image={name.text}"))[0] == "pets/004.png"
    # Those like an indexed image are without itself, and led by its nearest.
    vectors = indexed(index.parent / "vectors", "images")
    rows = dict(zip(stored_ids(index), vectors, strict=True))
    own = rows.pop("pets/004.png")
    nearest = max(rows, key=lambda each: float(rows[each] @ own))
    assert shown_ids(search(client, "?like=pets/004.png"))[0] == nearest
    assert "drop it again" in search(client, "?image=" + "0" * 64)


def test_what_is_no_image_is_refused_with_a_reason(client: httpx.Client):
    for contents in (b"", b"\xff\xd8\xff\xe0 cut", b"%PDF-1.7", image("PNG")[:60]):
        answer = client.post("/query-image", content=contents)
        assert answer.status_code == 422
        assert answer.text and "/" not in answer.text
    # Far too many bytes are not even read: their length is announced.
    status, _ = raw(client, "/query-image", "POST", **{"Content-Length": str(MAX_BYTES + 1)})
    assert status == 413
    # 100,000 x 100,000 pixels by its header.
    bomb = image("PNG")[:16] + (100_000).to_bytes(4) * 2 + image("PNG")[24:]
    assert client.post("/query-image", content=bomb).status_code == 422


def test_thumbnails_are_those_of_indexed_images_alone(client: httpx.Client, index: Path):
    for image_id in ("pets/001.png", "a b/ü/002.png", EVIL):
        answer = client.get("/thumbnail", params={"id": image_id})
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    root = index.parent
    for image_id in (
        *("../secret.png", str(root / "secret.png"), str(root / "images" / "pets" / "001.png")),
        *("pets/../pets/001.png", "pets//001.png", "./pets/001.png", "pets/001.png\0", ""),
        *("..%2fsecret.png", "/etc/passwd", "http://localhost/a.png", "file:///etc/passwd"),
    ):
        answer = client.get("/thumbnail", params={"id": image_id})
        assert answer.status_code == 404
        assert "not in the index" in answer.text and str(root) not in answer.text


def test_no_route_reads_files(client: httpx.Client, index: Path):
    secret = str(index.parent / "secret.png")
    targets = [
        *(f"/gradio_api/file={secret}", f"/file={secret}", f"/gradio_api/file/{secret}"),
        *(f"/gradio_api/file={index.parent}/cache", "/gradio_api/file=http://127.0.0.1:9/a"),
        *("/gradio_api/proxy=http://127.0.0.1:9/", "/gradio_api/info", "/gradio_api/openapi.json"),
        *(f"/static/..{secret}", "/static/../../../../../../../../../etc/passwd"),
        *("/static/%2e%2e/%2e%2e/%2e%2e/index.html", "/assets/..%2f..%2findex.html"),
        *("/assets/....//....//index.html", "/static//etc/passwd", "//etc/passwd"),
        *("/thumbnail/../../secret.png", "/gradio_api/upload", "/login_check", "/monitoring"),
        *("/svelte/x", "/gradio_api/custom_component/a/client/b/c", "/gradio_api/vibe-code"),
    ]
    for target in targets:
        for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS"):
            status, content = raw(client, target, method, **{"Content-Length": "0"})
            assert status in (400, 403, 404), f"{method} {target}: {status}"
            assert b"root:" not in content and b"PNG" not in content
    upload = {"files": ("a.png", image("PNG"))}
    assert client.post("/gradio_api/upload", files=upload).status_code == 404


def test_a_call_hands_over_texts_alone(client: httpx.Client, index: Path):
    """Gradio fetches addresses and copies files that it finds in the values of a call."""
    number = functions(client)[0]["id"]
    for value in (
        {"path": "http://127.0.0.1:9/a.png", "meta": {"_type": "gradio.FileData"}},
        {"path": str(index.parent / "secret.png"), "meta": {"_type": "gradio.FileData"}},
        [["?q=dog"]],
    ):
        call = {"data": [value], "fn_index": number, "session_hash": "test"}
        assert client.post("/gradio_api/run/predict", json=call).status_code == 400
    for body in (b"", b"{", b"[]", b'{"data": 7}', b"[" * 10_000):
        assert client.post("/gradio_api/run/predict", content=body).status_code == 400
    too_long = {"data": ["a" * 70_000], "fn_index": number}
    assert client.post("/gradio_api/run/predict", json=too_long).status_code == 413


def test_nothing_says_a_path_of_this_machine(client: httpx.Client, index: Path):
    root, own = str(index.parent), str(Path(__file__).parents[3])
    pages = [client.get("/").text, client.get("/config").text, search(client, "?q=a+dog")]
    for link in "?q=bad ?like=../../x ?q=dog&where=((( ?q=dog&where=path+=+1 ?sure=50&q=a".split():
        pages.append(search(client, link))
    for call in (
        {"data": []},
        {"data": ["?q=a"], "fn_index": 999},
        {"data": ["?"] * 50, "fn_index": 0},
    ):
        pages.append(client.post("/gradio_api/run/predict", json=call).text)
    for page in pages:
        assert root not in page and own not in page and "Traceback" not in page
        assert "site-packages" not in page


def test_a_page_of_another_site_cannot_ask(client: httpx.Client):
    own = client.base_url.netloc.decode()
    for headers, expected in (
        ({"Origin": f"http://{own}"}, 200),
        ({"Origin": "http://example.org"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": f"http://{own.replace('127.0.0.1', 'localhost')}"}, 403),
        # A name of another site that leads to this machine.
        ({"Host": "example.org"}, 421),
        ({"Host": "127.0.0.1.example.org:80"}, 421),
        ({"Host": f"localhost:{client.base_url.port}"}, 200),
    ):
        assert raw(client, "/", **headers)[0] == expected, headers
    answer = client.get("/")
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_whoever_does_not_know_name_and_password_sees_nothing(index: Path):
    with running_page(index, login="ann:se:cret é") as client:
        routes = "/ /config /thumbnail?id=pets/001.png /theme.css /static/img/logo.svg".split()
        for route in [*routes, "/nothing"]:
            answer = client.get(route)
            assert (answer.status_code, answer.text) == (401, "name and password")
        assert client.post("/query-image", content=image("PNG")).status_code == 401
        assert client.post("/gradio_api/run/predict", json={"data": []}).status_code == 401
        right = base64.b64encode("ann:se:cret é".encode()).decode()
        for value, expected in (
            (f"Basic {right}", 200),
            (f"basic {right}", 200),
            (f"Bearer {right}", 401),
            (f"Basic {right[:-2]}", 401),
            ("Basic", 401),
            ("Basic é".encode("latin-1").decode("latin-1"), 401),
        ):
            headers = {"Authorization": value.encode("latin-1")}
            assert client.get("/", headers=headers).status_code == expected


def test_a_hundred_visitors_at_once_get_their_own_hits(client: httpx.Client, index: Path):
    queries = [f"query number {n}" for n in range(100)]
    expected = [expected_ids(index, query)[:24] for query in queries]
    assert len({tuple(ids) for ids in expected}) == 100

    def visit(query: str) -> list[str]:
        with httpx.Client(base_url=client.base_url, timeout=60) as own:
            ids = shown_ids(search(own, f"?q={quote(query)}"))
            thumbnail = own.get("/thumbnail", params={"id": ids[0]})
            assert thumbnail.status_code == 200
        return ids

    with ThreadPoolExecutor(100) as visitors:
        assert list(visitors.map(visit, queries)) == expected
    assert client.get("/").status_code == 200
