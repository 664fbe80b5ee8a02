"""Probabilities of hits in a search: where they come from, and which hits they leave out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.errors import raises
from tests.unit.evaluation.pairs import made_up_pairs
from tests.unit.search.plain import MODEL, PlainEncoder, embed_images, vector
from tests.unit.search.plain_index import index_of, names
from tf_dpce.evaluation.calibration import CALIBRATION_FILE, CALIBRATION_FOLDER, Calibration
from tf_dpce.evaluation.calibration_fit import fit_calibration
from tf_dpce.search.index.build import build_index, open_index
from tf_dpce.search.probabilities import copy_calibration, find_calibration
from tf_dpce.search.queries.query import Term
from tf_dpce.search.searcher import Searcher

COUNT = 40


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return fit_calibration(*made_up_pairs(seed=1, instances=300))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.stack([vector(f"image {number}") for number in range(COUNT)])


@pytest.fixture
def searcher(images, calibration) -> Searcher:
    searcher = Searcher(index_of(images), PlainEncoder())
    searcher.calibration = calibration
    return searcher


def best(images: np.ndarray, query: np.ndarray) -> np.ndarray:
    return np.argsort(-images @ query)


def test_hits_have_the_probabilities_of_plain_cosines(searcher, images, calibration):
    query = vector("a dog")
    order = best(images, query)
    # Of 21 items: one more than the page shows, so that it is known whether there are more.
    expected = calibration.probabilities("images", query, images[order[:21]], COUNT)
    page = searcher.search([Term(text="a dog")], 10, skip=10)
    assert [hit.id for hit in page.hits] == names(order[10:20])
    found = [hit.probability for hit in page.hits]
    np.testing.assert_allclose(found, expected[10:20], rtol=1e-4)
    assert page.highest == pytest.approx(expected.max(), rel=1e-4)

    # What a querybank takes off a score changes the order, not what a hit's cosine means.
    hubness = np.where(np.arange(COUNT) == order[0], 0.5, 0.0)
    hubs = Searcher(index_of(images, hubness={"images": hubness}), PlainEncoder())
    hubs.calibration = calibration
    hits = hubs.by_text("a dog", top=COUNT)
    assert hits[0].id == f"{order[1]:04d}.jpg"
    rows = [int(hit.id[:4]) for hit in hits]
    expected = calibration.probabilities("images", query, images[rows], COUNT)
    np.testing.assert_allclose([hit.probability for hit in hits], expected, rtol=1e-4)


def test_of_a_filtered_index_only_what_passed_was_compared(searcher, images, calibration):
    query = vector("a dog")
    order = best(images[:5], query)
    expected = calibration.probabilities("images", query, images[:5][order], corpus=5)
    hits = searcher.by_text("a dog", where="id < '0005.jpg'")
    np.testing.assert_allclose([hit.probability for hit in hits], expected, rtol=1e-4)


def test_hits_below_the_least_probability_are_left_out_and_the_highest_is_said(searcher):
    every = searcher.by_text("a dog", top=COUNT)
    chances = sorted((hit.probability for hit in every), reverse=True)
    least = (chances[4] + chances[5]) / 2
    likely = searcher.search([Term(text="a dog")], COUNT, at_least=least)
    expected = [hit.id for hit in every if hit.probability >= least]
    assert [hit.id for hit in likely.hits] == expected and len(expected) == 5
    assert [hit.rank for hit in likely.hits] == [1, 2, 3, 4, 5]
    nothing = searcher.search([Term(text="a dog")], at_least=chances[0] + 1e-6)
    assert nothing.hits == [] and nothing.highest == pytest.approx(chances[0])


def test_what_is_not_like_a_pair_has_no_probability(searcher):
    for terms in (
        [Term(image=b"image 1")],
        [Term(id="0001.jpg")],
        [Term(text="a dog"), Term(text="a ball")],
    ):
        answer = searcher.search(terms)
        assert answer.hits and answer.highest is None
        assert {hit.probability for hit in answer.hits} == {None}
        with raises("search.at_least"):
            searcher.search(terms, at_least=0.5)
    searcher.calibration = None
    assert searcher.by_text("a dog")[0].probability is None


def exported(folder: Path, calibration: Calibration | None) -> Path:
    version = folder / "1"
    version.mkdir(parents=True)
    (version / "saved_model.pb").write_bytes(b"")
    if calibration:
        calibration.save(version / CALIBRATION_FOLDER)
    return folder


def test_a_calibration_goes_with_the_embeddings_into_the_index(calibration, tmp_path):
    model, other = exported(tmp_path / "model", calibration), exported(tmp_path / "other", None)
    embeddings = embed_images(tmp_path / "images", 30, tmp_path / "embeddings")
    copy_calibration(other, embeddings)
    assert not (embeddings / CALIBRATION_FILE).exists()
    copy_calibration(model, embeddings)
    beside = embeddings / CALIBRATION_FILE
    stored = model / "1" / CALIBRATION_FOLDER / CALIBRATION_FILE
    assert beside.read_bytes() == stored.read_bytes()
    written = beside.stat().st_mtime_ns
    copy_calibration(model, embeddings)
    assert beside.stat().st_mtime_ns == written

    index = tmp_path / "index"
    build_index([embeddings], index)
    # A model server embeds, and its answers have no files.
    hits = Searcher(index, PlainEncoder()).by_text("a dog")
    assert all(0 < hit.probability < 1 for hit in hits)
    opened = open_index(index)
    assert opened.model == MODEL
    opened.delete("images", [hits[0].id])
    assert Searcher(index, PlainEncoder()).by_text("a dog")[0].probability is not None

    # The model's own comes first, and a run folder has none.
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    assert find_calibration(open_index(index), tmp_path / "run") is not None
    stored.write_bytes(b"PK damaged")
    with raises("calibration.damaged", stored):
        find_calibration(open_index(index), model)
    # Built again from embeddings without one, the index has none.
    beside.unlink()
    build_index([embeddings], index)
    assert Searcher(index, PlainEncoder()).by_text("a dog")[0].probability is None
