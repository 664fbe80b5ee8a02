"""A page over a few drawn images, on a real port, and plain ways to ask it."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx

from tests.samples import image
from tests.unit.search.plain import MODEL, PlainEncoder
from tf_dpce.search.embedding.embed import embed
from tf_dpce.search.embedding.inputs import find_images
from tf_dpce.search.index.build import build_index
from tf_dpce.search.searcher import Searcher
from tf_dpce.serving.http_server import listen, serving
from tf_dpce.web.thumbnails import Thumbnails

COUNT = 30
EVIL = "<img src=x onerror=alert(1)>{{value}}${alert(2)} %2e%2e ?#.png"


class Read(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def links(self) -> list[str]:
        return [attrs["href"] or "" for tag, attrs in self.tags if tag == "a"]


def index_of_images(root: Path) -> Path:
    """Writes images, some into folders, one of an evil name, and their index; returns it."""
    for number in range(COUNT):
        path = root / "images" / ("", "pets", "a b/ü")[number % 3] / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image("PNG", size=(20 + number, 16)))
    (root / "images" / EVIL).write_bytes(image("PNG", size=(9, 9)))
    (root / "secret.png").write_bytes(image("PNG", size=(77, 77)))
    embed(PlainEncoder(), find_images([str(root / "images")]), root / "vectors", MODEL)
    build_index([root / "vectors"], root / "index")
    return root / "index"


@contextmanager
def running_page(index: Path, encoder: Any = None, **options: Any) -> Iterator[httpx.Client]:
    """Serves the page of an index during the block; yields a client of it."""
    # Imported here, because Gradio takes seconds in every process that collects the tests.
    from tf_dpce.web.app import page_app

    searcher = Searcher(index, encoder or PlainEncoder())
    thumbnails = Thumbnails(index.parent / "cache")
    with listen("127.0.0.1", 0) as listening:
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with serving(page_app(searcher, thumbnails=thumbnails, **options), listening):
            with httpx.Client(base_url=address, timeout=60) as client:
                yield client


def functions(client: httpx.Client) -> list[dict[str, Any]]:
    """The calls that the page can make, as its configuration lists them."""
    return client.get("/config").json()["dependencies"]


def search(client: httpx.Client, link: str) -> str:
    """Asks as the page does when it is opened with a link; returns the HTML of the hits."""
    call = {"data": [link], "fn_index": functions(client)[0]["id"], "session_hash": "test"}
    answer = client.post("/gradio_api/run/predict", json=call)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"][0]


def raw(
    client: httpx.Client, target: str, method: str = "GET", **headers: str
) -> tuple[int, bytes]:
    """Sends a request line as it is: a client would tidy up the dots of its path."""
    url = httpx.URL(client.base_url)
    connection = http.client.HTTPConnection(url.host, url.port, timeout=60)
    connection.putrequest(method, target, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name, value)
    try:
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def shown_ids(page: str) -> list[str]:
    """The ids of the hits of a page's HTML, in order."""
    links = [link for link in Read(page).links() if link.startswith("thumbnail?")]
    return [parse_qs(link.partition("?")[2])["id"][0] for link in links]
