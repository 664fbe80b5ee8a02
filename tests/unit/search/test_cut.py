"""An index of the first numbers of embeddings answers as those numbers do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines import index as index_verb
from tests.errors import printed_code, raises
from tests.unit.search.plain import PlainEncoder, embed_images, embed_texts, embedded, vector
from tf_dpce.evaluation.calibration import CALIBRATION_FILE
from tf_dpce.search.index.build import add_embeddings, build_index, open_index
from tf_dpce.search.queries.query import Term
from tf_dpce.search.searcher import Searcher

D = 5


@pytest.fixture
def stored(tmp_path) -> Path:
    """Embeddings of 16 numbers: of 30 images, and a file beside them as `embed` leaves it."""
    out = embed_images(tmp_path / "images", 30, tmp_path / "vectors", shard_size=20)
    (out / CALIBRATION_FILE).write_bytes(b"fitted on whole embeddings")
    return out


def first_numbers(vectors: np.ndarray) -> np.ndarray:
    first = vectors[..., :D]
    return first / np.linalg.norm(first, axis=-1, keepdims=True)


def test_a_query_is_cut_as_the_index_is(stored, tmp_path):
    searcher = Searcher(build_index([stored], tmp_path / "index", dimension=D), PlainEncoder())

    assert (searcher.index.dimension, searcher.index.whole) == (D, 16)
    scores = first_numbers(embedded(stored, "images")) @ first_numbers(vector("a dog"))
    hits = searcher.by_text("a dog", 30)
    assert [hit.id for hit in hits] == [f"{row:03d}.jpg" for row in np.argsort(-scores)]
    # The index stores float16.
    assert [hit.score for hit in hits] == pytest.approx(sorted(scores)[::-1], abs=2e-3)
    # Items and sums of terms are compared by the same numbers.
    (like,) = searcher.by_id("007.jpg", 1)
    assert like.score < 1
    assert searcher.search([Term(id="007.jpg"), Term(text="a dog")], 3).hits
    # Probabilities are those of whole embeddings.
    assert searcher.calibration is None and not open_index(tmp_path / "index").manifest.calibration


def test_embeddings_that_are_added_are_cut_too(stored, tmp_path):
    index = build_index([stored], tmp_path / "index", dimension=D)
    more = embed_texts(tmp_path / "texts.txt", ["a dog", "two cats"], tmp_path / "more")
    add_embeddings(index, [more])
    expected = first_numbers(np.stack([vector("a dog"), vector("two cats")]))
    np.testing.assert_allclose(index.vectors("texts", ["1", "2"]), expected, atol=1e-3)


def test_mistakes(stored, tmp_path, capsys):
    out = ["--embeddings", str(stored), "--out", str(tmp_path / "index")]
    assert index_verb.main([*out, "--dim", "17"]) == 1
    assert printed_code(capsys.readouterr().err) == "index.dim"
    assert not (tmp_path / "index").exists()
    assert index_verb.main([*out, "--dim", str(D), "--factory", "SQ8"]) == 0
    assert index_verb.main([*out, "--dim", str(D), "--add"]) == 1
    assert printed_code(capsys.readouterr().err) == "index.options"
    # Another model, whose whole embeddings are as long as the cut ones.
    other = PlainEncoder()
    other.dimension = D
    with raises("search.other_model"):
        Searcher(tmp_path / "index", other)
