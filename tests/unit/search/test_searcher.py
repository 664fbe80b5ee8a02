"""Queries rank as the vectors do, and say in one line what cannot be asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.errors import raises
from tests.unit.search.plain import (
    PlainEncoder,
    embed_images,
    embed_texts,
    indexed,
    vector,
    write_images,
)
from tf_dpce.search.answer import Hit
from tf_dpce.search.index.build import build_index
from tf_dpce.search.searcher import Searcher

# With signs of one to four bytes, and such as JSON escapes.
CAPTIONS = [f'caption {number} é狗🐕 "\\\t' for number in range(30)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Holds `images`, `vectors` and `index`, of 50 images and 30 captions."""
    root = tmp_path_factory.mktemp("line")
    out = embed_images(root / "images", 50, root / "vectors", shard_size=20)
    embed_texts(root / "captions.txt", CAPTIONS, out)
    build_index([out], root / "index")
    return root


@pytest.fixture
def searcher(folder: Path) -> Searcher:
    return Searcher(folder / "index", PlainEncoder())


def expected_hits(folder: Path, query: np.ndarray, top: int, kind: str) -> list[Hit]:
    """The plain reference: all inner products in NumPy, sorted."""
    scores = indexed(folder / "vectors", kind) @ query
    hits = []
    for rank, row in enumerate(np.argsort(-scores)[:top].tolist(), 1):
        score = pytest.approx(float(scores[row]), abs=1e-6)
        if kind == "images":
            path = str(folder / "images" / f"{row:03d}.jpg")
            hits.append(Hit(rank, f"{row:03d}.jpg", score, path=path))
        else:
            hits.append(Hit(rank, str(row + 1), score, text=CAPTIONS[row]))
    return hits


def without_metadata(hits: list[Hit]) -> list[Hit]:
    # The facts of an image have tests of their own; its name is one.
    assert all(hit.metadata.get("name", hit.id) == hit.id for hit in hits)
    return [replace(hit, metadata={}) for hit in hits]


def test_queries_rank_as_brute_force_does(folder: Path, searcher: Searcher):
    path = folder / "images" / "017.jpg"
    for kind in ("images", "texts"):
        for query in ("A dog.", CAPTIONS[12]):
            for top in (1, 7, 30):
                hits = searcher.by_text(query, top, kind)
                assert without_metadata(hits) == expected_hits(folder, vector(query), top, kind)
        expected = expected_hits(folder, vector("image 017.jpg"), 5, kind)
        for image in (path, str(path), path.read_bytes()):
            assert without_metadata(searcher.by_image(image, 5, kind)) == expected
    # Perfect case: the same vector on both sides, cosine 1.
    for (hit,), name in (
        (searcher.by_text(CAPTIONS[12], 1, "texts"), "13"),
        (searcher.by_image(path, 1, "images"), "017.jpg"),
    ):
        assert (hit.id, hit.score) == (name, pytest.approx(1.0, abs=2**-11))


def test_every_hit_says_which_words_the_model_left_out(searcher: Searcher):
    for query, unknown in (("A dog.", ()), ("A bad, bad dog: worse than badly!", ("bad", "badly"))):
        for kind in ("images", "texts"):
            assert {hit.unknown_words for hit in searcher.by_text(query, 3, kind)} == {unknown}
    assert searcher.by_image(b"image", 1)[0].unknown_words == ()


def test_other_factories_rank_so_too_and_an_inverted_file_gives_all(folder: Path, tmp_path: Path):
    expected = [hit.id for hit in expected_hits(folder, vector("A dog."), 50, "images")]
    # Of 7 lists round(sqrt(7)) = 3 are looked into, so there are fewer than 50 vectors in reach.
    for factory in ("IVF1,Flat", "Flat,RFlat", "IVF7,Flat"):
        build_index([folder / "vectors"], tmp_path / "index", factory)
        searcher = Searcher(tmp_path / "index", PlainEncoder())
        assert [hit.id for hit in searcher.by_text("A dog.", 50, "images")] == expected


def test_a_runtime_is_refused_for_a_model_that_computes_elsewhere(folder: Path):
    with raises("runtimes.name"):
        Searcher(folder / "index", PlainEncoder(), runtime="onnx")


def test_equal_scores_are_in_the_order_of_their_ids(tmp_path: Path):
    out = embed_texts(tmp_path / "captions.txt", ["same"] * 20 + ["other"], tmp_path / "out")
    build_index([out], tmp_path / "index")
    hits = Searcher(tmp_path / "index", PlainEncoder()).by_text("same", 21, "texts")
    assert [hit.id for hit in hits] == [*sorted(str(number) for number in range(1, 21)), "21"]


# --- mistakes -------------------------------------------------------------------------------------


def test_what_cannot_be_answered_is_refused(searcher: Searcher, tmp_path: Path):
    for top in (0, -1):
        with raises("search.top"):
            searcher.by_text("A dog.", top)
    for text in ("", "bad words", "bad" * 1000):
        with raises("search.query") as error:
            searcher.by_text(text)
        assert len(str(error.value)) < 200
    path = tmp_path / "query.jpg"
    with raises("search.query", path=path):
        searcher.by_image(path)
    path.write_bytes(b"bad image")
    for image in (path, b""):
        with raises("search.query"):
            searcher.by_image(image)


def test_an_index_that_is_missing_or_of_other_items_is_refused(tmp_path: Path):
    class Wider(PlainEncoder):
        dimension = 2048

    index = tmp_path / "index"
    with raises("index.missing", path=index):
        Searcher(str(index), PlainEncoder())
    out = embed_images(tmp_path / "images", 3, tmp_path / "out")
    build_index([out], index)
    with raises("search.kind"):
        Searcher(index, PlainEncoder()).by_text("A dog.", 1, "texts")
    with raises("search.other_model", path=index):
        Searcher(index, Wider())


def test_an_index_of_another_model_is_refused_before_the_model_is_loaded(tmp_path: Path):
    build_index([embed_images(tmp_path / "images", 3, tmp_path / "out")], tmp_path / "index")
    # No model at all behind the right names: loading it would fail in another way.
    write_images(tmp_path / "model" / "variables", 1)
    (tmp_path / "model" / "saved_model.pb").write_bytes(b"another graph")
    with raises("search.other_model", path=tmp_path / "index"):
        Searcher(tmp_path / "index", str(tmp_path / "model"))
