"""How long a visitor of the page waits for hits: over HTTP, beside the search in it."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import numpy as np

from benchmarks.search import StoredSentences, build, drawn
from benchmarks.timing import Row, interleave, row
from tf_dpce.config import Config
from tf_dpce.search.queries.query import Term
from tf_dpce.search.searcher import Searcher
from tf_dpce.serving.http_server import listen, serving
from tf_dpce.web.answers import PAGE_SIZE
from tf_dpce.web.app import page_app

PAGE, SEARCH = "first hits over HTTP", "their search"


def measure(
    config: Config, *, sizes: tuple[int, ...] = (100_000, 1_000_000), rounds: int = 50
) -> list[Row]:
    """Times the first page of hits for a sentence, without its thumbnails and the model's time.

    Args:
        config: its seed is taken.
        sizes: numbers of images; each makes an index.
        rounds: number of rounds; each asks with another sentence.
    """
    embeddings, rows = drawn(config.seed), []
    for size in sizes:
        with TemporaryDirectory() as parent:
            folder = Path(parent, "index")
            build(folder, embeddings.images, size)
            searcher = Searcher(folder, StoredSentences(embeddings.sentences))
            taken = _ask(searcher, len(embeddings.sentences), rounds)
        for name, seconds in taken.items():
            figures = (1000 * seconds, SEARCH, 1000 * taken[SEARCH])
            rows.append(row(f"{size:,} images: {name}", "ms", *figures))
    return rows


def _ask(searcher: Searcher, sentences: int, rounds: int) -> dict[str, np.ndarray]:
    numbers = iter(np.random.default_rng(0).integers(0, sentences, 10**5).tolist())
    with listen("127.0.0.1", 0) as listening, serving(page_app(searcher), listening):
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with httpx.Client(base_url=address, timeout=60) as client:
            number = client.get("/config").json()["dependencies"][0]["id"]

            def ask() -> None:
                call = {"data": [f"?q={next(numbers)}"], "fn_index": number, "session_hash": "a"}
                answer = client.post("/gradio_api/run/predict", json=call).json()
                if "thumbnail?" not in answer["data"][0]:
                    raise ValueError("the page found nothing")

            def search() -> None:
                terms = [Term(text=str(next(numbers)))]
                searcher.search(terms, PAGE_SIZE, hide_duplicates="content")

            return interleave({PAGE: ask, SEARCH: search}, rounds, warm_up=5)
