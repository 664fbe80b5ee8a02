"""Which hits are wanted, by filters, pages, duplicates and likeness: beside brute force."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest

from tests.errors import raises
from tests.unit.search.plain import DIMENSION, MODEL, PlainEncoder, vector
from tests.unit.search.plain_index import PlainIndex, image_records, index_of, names
from tf_dpce.search.queries.filters import Filter
from tf_dpce.search.queries.query import Term, parse_query
from tf_dpce.search.searcher import Searcher

COUNT = 60


@pytest.fixture
def index() -> PlainIndex:
    return index_of(np.stack([vector(f"image {number}") for number in range(COUNT)]))


@pytest.fixture
def searcher(index: PlainIndex) -> Searcher:
    return Searcher(index, PlainEncoder())


def ids(hits) -> list[str]:
    return [hit.id for hit in hits]


def ranked(query: np.ndarray, count: int = COUNT) -> list[int]:
    """All images by their cosine with a query."""
    scores = [float(vector(f"image {number}") @ query) for number in range(count)]
    return sorted(range(count), key=lambda number: -scores[number])


def test_filters_and_pages_cut_the_ranking_and_change_no_order(searcher: Searcher):
    order = ranked(vector("a dog"))
    dogs = names(number for number in order if number % 3 and number % 5)
    for where in (
        "folder = 'dogs' and width is not null",
        Filter.parse("folder='dogs' and width>0"),
    ):
        skips = (0, 7, 21, 28)
        pages = [searcher.search([Term(text="a dog")], 7, where=where, skip=n) for n in skips]
        assert [ids(page.hits) for page in pages] == [dogs[n : n + 7] for n in skips]
        assert len(dogs) == 32
        assert [page.more for page in pages] == [True, True, True, False]
        assert [hit.rank for hit in pages[1].hits] == list(range(8, 15))
    assert searcher.by_text("a dog", where="width > 10000") == []
    whole = searcher.search([Term(text="a dog")], 32, where="folder='dogs' and width>0")
    assert whole.more is False
    hit = searcher.by_text("a dog", 1, where="folder = 'cats' and width = 30")[0]
    assert (hit.path, hit.text, hit.probability) == ("/none/0003.jpg", None, None)
    assert hit.duplicates == ()
    assert hit.metadata == {"folder": "cats", "width": 30, "content": "0003.jpg"}


def test_a_combination_ranks_by_the_weighted_sum(searcher: Searcher, tmp_path):
    image = tmp_path / "a.jpg"
    image.write_bytes(b"image of a snow")
    query = 2 * vector("dog") - 0.5 * vector("ball") + vector(b"image of a snow")
    expected = names(ranked(query)[:9])
    answer = searcher.search(parse_query(f'2 * "dog" - .5 * "ball" + "{image}"'), 9)
    assert ids(answer.hits) == expected
    scores = [float(vector(f"image {int(hit.id[:4])}") @ query) for hit in answer.hits]
    found = [hit.score * np.linalg.norm(query) for hit in answer.hits]
    np.testing.assert_allclose(found, scores, atol=1e-6)
    answer = searcher.search(parse_query('"dog" - "worse badly" + "a bad newt"'))
    assert answer.unknown_words == ("badly", "bad")
    assert answer.inferred_words == answer.hits[0].inferred_words == ("newt",)
    assert answer.hits[0].unknown_words == ("badly", "bad")


def test_hubs_are_corrected_if_texts_weigh_at_least_half(tmp_path):
    vectors = np.stack([vector(f"image {number}") for number in range(COUNT)])
    hubs = np.random.default_rng(1).uniform(0, 1, COUNT).astype(np.float32)
    searcher = Searcher(index_of(vectors, hubness={"images": hubs}), PlainEncoder())
    text, image = Term(text="dog"), Term(image=b"image query")
    for terms, corrected in (
        ([text], True),
        ([image], False),
        ([text, image], True),
        ([text, Term(1.5, image=b"image query")], False),
    ):
        total = sum(t.weight * vector(t.text or t.image) for t in terms)
        scores = vectors @ (total / np.linalg.norm(total)) - corrected * hubs / 2
        expected = names(np.argsort(-scores)[:8])
        assert ids(searcher.search(terms, 8).hits) == expected


def test_more_like_this_leaves_the_item_itself_out(searcher: Searcher):
    order = names(ranked(vector("image 7")))
    assert order[0] == "0007.jpg"
    assert ids(searcher.by_id("0007.jpg", 5)) == order[1:6]
    assert ids(searcher.by_id("0007.jpg", 5, skip=5)) == order[6:11]
    assert len(searcher.by_id("0007.jpg", 100)) == COUNT - 1
    assert searcher.search([Term(id="0007.jpg")], COUNT - 1).more is False
    assert searcher.search([Term(id="0007.jpg")], COUNT - 2).more is True
    with raises("index.id"):
        searcher.by_id("no such.jpg")


# --- duplicates -----------------------------------------------------------------------------------


def grouped(order: list[int], same) -> list[list[int]]:
    """The slow reference: each item goes behind the first best item that it is the same as."""
    groups: list[list[int]] = []
    for item in order:
        for group in groups:
            if same(group[0], item):
                group.append(item)
                break
        else:
            groups.append([item])
    return groups


def near_vectors(count: int, seed: int) -> np.ndarray:
    """Clusters whose members' cosines with one another lie on both sides of 0.9."""
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(count // 6, DIMENSION))
    rows = centres[draw.integers(len(centres), size=count)]
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    rows = rows + draw.normal(scale=0.08, size=rows.shape)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("rule", ["content", 0.9, "0.9"])
@pytest.mark.parametrize("seed", range(3))
def test_hidden_duplicates_stand_behind_the_best_of_them(rule, seed: int):
    vectors = near_vectors(200, seed)
    draw = np.random.default_rng(seed)
    contents = [None if draw.random() < 0.2 else str(draw.integers(30)) for _ in vectors]
    searcher = Searcher(index_of(vectors, contents), PlainEncoder())
    order = np.argsort(-(vectors @ vector("a dog")), kind="stable").tolist()

    def same(one: int, other: int) -> bool:
        if rule == "content":
            return contents[one] is not None and contents[one] == contents[other]
        return float(vectors[one] @ vectors[other]) >= 0.9

    expected = grouped(order, same)
    assert len(expected) < 120, "so that there is something to hide"
    whole = searcher.search([Term(text="a dog")], 200, hide_duplicates=rule)
    assert [[int(name[:4]) for name in (hit.id, *hit.duplicates)] for hit in whole.hits] == expected
    assert whole.more is False
    # Pages are parts of the same list.
    for skip in (0, 10, len(expected) - 3):
        page = searcher.search([Term(text="a dog")], 10, hide_duplicates=rule, skip=skip)
        assert ids(page.hits) == ids(whole.hits[skip : skip + 10])
        assert page.more == (skip + 10 < len(expected))
        for hit, same_hit in zip(page.hits, whole.hits[skip:], strict=False):
            assert hit.duplicates == same_hit.duplicates[: len(hit.duplicates)]


@pytest.mark.parametrize("rule", ["content", 0.99])
def test_a_thousand_copies_lose_no_hit_and_are_looked_through_a_few_times(rule):
    vectors = np.stack([vector("a dog")] * 1000 + [vector(f"image {n}") for n in range(20)])
    index = index_of(vectors, ["copy"] * 1000 + [str(n) for n in range(20)])
    hits = Searcher(index, PlainEncoder()).by_text("a dog", 6, hide_duplicates=rule)
    others = names(1000 + row for row in ranked(vector("a dog"), 20)[:5])
    assert ids(hits) == ["0000.jpg", *others]
    assert len(hits[0].duplicates) == 999
    # 7, 28, 112, 448 and then all: in sum at most 4/3 of the last and the one before.
    assert index.asked == [7, 28, 112, 448, 1020]


def test_copies_of_the_item_itself_go_with_it_and_equal_texts_are_duplicates():
    vectors = np.stack([vector(f"image {n % 5}") for n in range(10)])
    index = index_of(vectors, [str(n % 5) for n in range(10)])
    texts = pa.table({"id": ["1", "2", "3"], "text": ["a dog", "a dog", "a cat"]})
    index.add("texts", texts, np.stack([vector(text.as_py()) for text in texts["text"]]))
    searcher = Searcher(index, PlainEncoder())
    for item in ("0002.jpg", "0007.jpg"):
        for rule in ("content", 0.99):
            hits = searcher.by_id(item, 9, hide_duplicates=rule)
            assert sorted(ids(hits)) == ["0000.jpg", "0001.jpg", "0003.jpg", "0004.jpg"]
    hits = searcher.by_text("a dog", 9, "texts", hide_duplicates="content")
    assert [(hit.id, hit.text, hit.duplicates) for hit in hits] == [
        ("1", "a dog", ("2",)),
        ("3", "a cat", ()),
    ]


class Calibrated:
    """Gives the items of ranks 1, 3, 5, ... up to 39 a high probability, as one that falters."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors, self.asked = vectors, []

    def probabilities(self, kind: str, query: np.ndarray, hits: np.ndarray, corpus: int):
        self.asked.append(len(hits))
        ranks = [1 + int((self.vectors @ query > hit @ query + 1e-6).sum()) for hit in hits]
        return np.array([0.9 if rank < 40 and rank % 2 else 0.1 for rank in ranks])


def test_hits_behind_one_that_is_not_probable_are_found(searcher: Searcher):
    vectors = np.stack([vector(f"image {number}") for number in range(COUNT)])
    searcher.calibration = Calibrated(vectors)
    odd = names(ranked(vector("a dog"))[:40:2])
    query = [Term(text="a dog")]
    pages = [searcher.search(query, 8, at_least=0.5, skip=skip) for skip in (0, 8, 16)]
    assert [ids(page.hits) for page in pages] == [odd[:8], odd[8:16], odd[16:]]
    assert [page.more for page in pages] == [True, True, False]
    assert {hit.probability for hit in pages[0].hits} == {0.9}
    # Where nothing is probable, no more is looked through than was asked for.
    searcher.calibration.asked.clear()
    assert searcher.search([Term(text="a dog")], 8, at_least=0.95).hits == []
    assert searcher.calibration.asked == [9]


# --- many threads, and an index that changes ------------------------------------------------------


def test_answers_of_many_threads_are_not_mixed(searcher: Searcher):
    queries = [f"query {number} bad{number % 7}" for number in range(40)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda q: searcher.search([Term(text=q)], 5), queries * 5))
    for query, answer in zip(queries * 5, answers, strict=True):
        expected = names(ranked(vector(query))[:5])
        assert (ids(answer.hits), answer.unknown_words) == (expected, (query.split()[2],))


def test_the_next_query_sees_what_was_added_and_deleted(index: PlainIndex, searcher: Searcher):
    assert searcher.by_text("a dog", 1)[0].id != "new.jpg"
    index.add("images", image_records(["new.jpg"]), vector("a dog")[None])
    assert searcher.by_text("a dog", 1)[0].id == "new.jpg"
    index.delete("images", ["new.jpg"])
    assert searcher.by_text("a dog", 1)[0].id != "new.jpg"
    index.model = "another"
    with raises("search.other_model"):
        searcher.by_text("a dog", 1)


def test_a_search_beside_a_writer_is_asked_again(index: PlainIndex, searcher: Searcher):
    found = index.search

    def search_and_lose(*arguments, **options):
        answer = found(*arguments, **options)
        if len(index.asked) == 1:
            index.delete("images", [answer[0].column("id")[0].as_py()])
        return answer

    index.search = search_and_lose
    hits = searcher.by_text("a dog", 3, hide_duplicates=0.99)
    assert ids(hits) == names(ranked(vector("a dog"))[1:4])


def test_a_word_is_asked_for_once(searcher: Searcher):
    calls = searcher.encoder.calls
    for query in ("a dog", "a dog", "a cat"):
        searcher.by_text(query)
    # A query of one text each, and before that two words, none and one.
    assert calls == [1, 2, 1, 1, 1]


# --- mistakes -------------------------------------------------------------------------------------


def test_what_cannot_be_chosen_is_refused(searcher: Searcher, index: PlainIndex):
    for code, choice in (
        ("search.top", {"skip": -1}),
        ("search.where", {"where": "widht > 3"}),
        ("search.where", {"where": "width > "}),
        ("search.at_least", {"at_least": 0.5}),
        ("search.at_least", {"at_least": 1.5}),
        ("search.at_least", {"at_least": math.nan}),
        *(
            ("search.duplicates", {"hide_duplicates": rule})
            for rule in ("contents", 0, 1.01, -1.0, math.nan, "nan", "", "1e999", "0.9.9" * 1000)
        ),
    ):
        with raises(code) as error:
            searcher.by_text("a dog", **choice)
        assert len(str(error.value)) < 250
    bare = PlainIndex()
    bare.add("images", pa.table({"id": ["a.jpg"], "path": ["a.jpg"]}), vector("a")[None])
    with raises("search.duplicates"):
        Searcher(bare, PlainEncoder()).by_text("a dog", hide_duplicates="content")
    for empty in (PlainIndex(), PlainIndex(MODEL)):
        with raises("search.kind"):
            Searcher(empty, PlainEncoder()).by_text("a dog")
    index.delete("images", names(range(COUNT)))
    with raises("search.kind"):
        searcher.by_text("a dog")
