"""What every index answers, beside a plain one: a subclass of `IndexContract` says how to build."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.errors import raises
from tests.unit.search.plain_index import PlainIndex
from tests.unit.search.queries.test_filters import SCHEMA, RandomFilters
from tf_dpce.search.interface import Index, Ranking
from tf_dpce.search.queries.filters import Filter

D = 16
COLUMNS = pa.schema([pa.field("id", pa.string()), *SCHEMA])
# Quotation marks, an escape, a filter and what is no ASCII: ids are what users name their files.
AWKWARD = ["it's", 'a "b".jpg', "a\\nb", "id in ['x'] or 1 == 1", "Größe 🐕", "{p0}", "a\nb", "%s"]
# Embeddings are stored in 16 bits at least: 11 of them are digits, and numbers are below 1.
CLOSE = 2e-3


def utc(record: dict) -> dict:
    """`RandomFilters` draws points in time without a zone, all of UTC."""
    moments = {name: value for name, value in record.items() if isinstance(value, dt.datetime)}
    return record | {name: value.replace(tzinfo=None) for name, value in moments.items()}


def unit_vectors(seed: int, count: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, D)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def some_records(seed: int, ids: list[str]) -> pa.Table:
    made = RandomFilters(seed)
    return pa.Table.from_pylist([{"id": id_, **made.row()} for id_ in ids], COLUMNS)


def some_texts(ids: list[str]) -> pa.Table:
    return pa.table({"id": ids, "text": [f"text {id_}" for id_ in ids]})


def check(found: Ranking, expected: dict[str, float], top: int) -> None:
    """The best of all, best first, each with its score."""
    assert len(found) == min(top, len(expected))
    scores = [hit.score for hit in found]
    assert [expected[hit.record["id"]] for hit in found] == pytest.approx(scores, abs=CLOSE)
    assert scores == pytest.approx(sorted(expected.values(), reverse=True)[:top], abs=CLOSE)
    assert len({hit.record["id"] for hit in found}) == len(found)
    order = [(-hit.score, hit.record["id"]) for hit in found]
    assert order == sorted(order)


class IndexContract:
    """Tests of an index; it has 120 images and 30 texts, and images are normalised."""

    def build(
        self,
        folder: Path,
        items: dict[str, Iterator[tuple[pa.Table, np.ndarray]]],
        querybanks: dict[str, np.ndarray],
    ) -> Index:
        """Builds an index in a folder; items come in batches."""
        raise NotImplementedError

    def reopen(self, folder: Path) -> Index:
        """Opens the index of a folder once more."""
        raise NotImplementedError

    @pytest.fixture
    def pair(self, tmp_path: Path) -> tuple[Index, PlainIndex]:
        """An index and the plain one with the same items."""
        ids = [*AWKWARD, *(f"{number:03d}.jpg" for number in range(112))]
        images = some_records(1, ids), unit_vectors(1, 120)
        texts = some_texts([str(n) for n in range(30)]), unit_vectors(2, 30)
        querybanks = {"images": unit_vectors(3, 40)}
        plain = PlainIndex(dimension=D, querybanks=querybanks)
        plain.add("images", *images)
        plain.add("texts", *texts)
        parts = ((images[0].slice(at, 50), images[1][at : at + 50]) for at in range(0, 120, 50))
        items = {"images": parts, "texts": iter([texts])}
        return self.build(tmp_path, items, querybanks), plain

    def test_it_finds_what_brute_force_finds(self, pair: tuple[Index, PlainIndex]):
        index, plain = pair
        assert index.counts == {"images": 120, "texts": 30} and index.dimension == D
        queries = unit_vectors(4, 5)
        for kind in ("images", "texts"):
            for of in ("images", "texts"):
                for top in (1, 10, 1000):
                    answers = index.search(kind, queries, top, of=of)
                    for query, found in zip(queries, answers, strict=True):
                        check(found, plain.scores(kind, query, of), top)
        assert [hit.record["text"] for hit in index.search("texts", queries[:1], 1, of="texts")[0]]

    def test_records_and_embeddings_come_back_as_they_were(self, pair: tuple[Index, PlainIndex]):
        index, plain = pair
        assert index.columns("images").names == COLUMNS.names
        ids = [*reversed(AWKWARD), "007.jpg", "it's"]
        records = index.records("images", ids)
        assert records == [plain.items["images"][id_][0] for id_ in ids]
        vectors = np.stack([plain.items["images"][id_][1] for id_ in ids])
        np.testing.assert_allclose(index.vectors("images", ids), vectors, atol=CLOSE)
        assert index.vectors("images", []).shape == (0, D)
        # What a search returns is the same record.
        (hit,) = index.search("images", vectors[-1:], 1, of="images")[0]
        assert hit.record == records[-1]
        for ask in (index.records, index.vectors):
            with raises("index.id"):
                ask("images", ["007.jpg", "none"])

    @pytest.mark.parametrize("seed", range(3))
    def test_a_filter_passes_what_a_plain_reading_passes(
        self, pair: tuple[Index, PlainIndex], seed: int
    ):
        index, plain = pair
        made, (query,) = RandomFilters(seed), unit_vectors(seed, 1)
        for _ in range(25):
            text, test = made.filter()
            (found,) = index.search("images", query[None], 10, of="texts", where=Filter.parse(text))
            passing = plain.scores("images", query, "texts", lambda row, test=test: test(utc(row)))
            check(found, passing, 10)

    def test_it_follows_what_is_added_replaced_and_deleted(
        self, pair: tuple[Index, PlainIndex], tmp_path: Path
    ):
        index, plain = pair
        reader, draw = self.reopen(tmp_path), random.Random(0)
        for turn in range(6):
            before = reader.version
            ids = draw.sample([*plain.items["images"], *(f"new {turn} {n}" for n in range(9))], 20)
            if turn % 2:
                gone = [id_ for id_ in ids if plain.items["images"].pop(id_, None)]
                assert index.delete("images", [*ids, ids[0]]) == len(gone)
            else:
                added = some_records(turn, ids), unit_vectors(10 + turn, 20)
                index.add("images", *added)
                plain.add("images", *added)
            assert reader.version != before
            assert reader.counts["images"] == len(plain.items["images"])
            for query in unit_vectors(turn, 2):
                (found,) = reader.search("images", query[None], 15, of="texts")
                check(found, plain.scores("images", query, "texts"), 15)
                for hit in found:
                    assert hit.record == plain.items["images"][hit.record["id"]][0]

    def test_nothing_to_do_is_no_change(self, pair: tuple[Index, PlainIndex]):
        index, _ = pair
        before = index.version
        assert index.delete("images", ["none", ""]) == 0 == index.delete("images", [])
        index.add("images", some_records(0, []), unit_vectors(0, 0))
        assert index.version == before and index.counts["images"] == 120

    def test_of_an_id_that_is_added_twice_at_once_the_last_counts(
        self, pair: tuple[Index, PlainIndex]
    ):
        index, _ = pair
        twice = some_texts(["a", "a"]).set_column(1, "text", pa.array(["first", "last"]))
        index.add("texts", twice, unit_vectors(5, 2))
        assert index.counts["texts"] == 31
        assert index.records("texts", ["a"]) == [{"id": "a", "text": "last"}]

    def test_of_equal_scores_the_first_ids_count(self, pair: tuple[Index, PlainIndex]):
        index, _ = pair
        same = np.repeat(unit_vectors(6, 1), 40, axis=0)
        ids = [f"{number:02d}" for number in random.Random(1).sample(range(50, 90), 40)]
        index.add("texts", some_texts(ids), same)
        # So that pages neither repeat an item nor leave one out.
        for top in (1, 7, 39, 40):
            (found,) = index.search("texts", same[:1], top, of="texts")
            assert [hit.record["id"] for hit in found] == sorted(ids)[:top]

    def test_a_column_that_is_new_is_empty_for_what_is_there(self, pair: tuple[Index, PlainIndex]):
        index, _ = pair
        more = some_texts(["a", "b"]).append_column("like", pa.array([5, None]))
        more = more.append_column("more of it", pa.array(["x", "y"]))
        index.add("texts", more, unit_vectors(7, 2))
        assert index.columns("texts").names == ["id", "text", "like", "more of it"]
        known = {"id": "a", "text": "text a", "like": 5, "more of it": "x"}
        unknown = {"id": "1", "text": "text 1", "like": None, "more of it": None}
        assert index.records("texts", ["a", "1"]) == [known, unknown]
        query = unit_vectors(8, 1)
        for text, ids in (
            ("like = 5", ["a"]),
            ("like is not null and `more of it` in ('x', 'y')", ["a"]),
            ("`more of it` != 'x'", ["b"]),
        ):
            (found,) = index.search("texts", query, 9, of="texts", where=Filter.parse(text))
            assert [hit.record["id"] for hit in found] == ids
        # What lacks the columns may come later, and what does not fit their types may not.
        index.add("texts", some_texts(["c"]), unit_vectors(9, 1))
        assert index.missing("texts", ["c", "none", "a"]) == ["none"]
        # An item that is replaced has what was joined to it, not what its file or text was.
        changed = pa.table({"id": ["d", "a", "1"], "text": ["text d", "new", "new"]})
        index.add("texts", changed, unit_vectors(9, 3))
        assert index.records("texts", ["a", "1"]) == [
            known | {"text": "new"},
            unknown | {"text": "new"},
        ]
        index.delete("texts", ["d"])
        before = index.version
        with raises("index.column"):
            odd = some_texts(["d"]).append_column("like", pa.array(["much"]))
            index.add("texts", odd, unit_vectors(9, 1))
        assert index.version == before and index.counts["texts"] == 33

    def test_a_kind_may_come_later(self, tmp_path: Path):
        items = {"images": iter([(some_records(1, ["a"]), unit_vectors(1, 1))])}
        index = self.build(tmp_path, items, {})
        assert index.delete("texts", ["a"]) == 0
        assert index.columns("texts").names == ["id", "text"]
        with raises("search.kind"):
            index.search("texts", unit_vectors(1, 1), 1, of="texts")
        with raises("search.top"):
            index.search("images", unit_vectors(1, 1), 0, of="texts")
        with raises("index.id"):
            index.records("texts", ["a"])
        index.add("texts", some_texts(["a"]), unit_vectors(1, 1))
        assert self.reopen(tmp_path).counts == {"images": 1, "texts": 1}
        (hit,) = index.search("texts", unit_vectors(1, 1), 9, of="images")[0]
        assert hit.record == {"id": "a", "text": "text a"}

    def test_many_items_at_once(self, tmp_path: Path):
        ids = [f"{number:04d}" for number in range(2_500)]
        index = self.build(
            tmp_path, {"texts": iter([(some_texts(ids), unit_vectors(1, 2_500))])}, {}
        )
        more = [f"{number:04d}" for number in range(2_000, 4_100)]
        index.add("texts", some_texts(more), unit_vectors(2, 2_100))
        assert index.counts == {"texts": 4_100}
        every = sorted({*ids, *more})
        assert [record["id"] for record in index.records("texts", every)] == every
        assert index.vectors("texts", every).shape == (4_100, D)
        assert index.delete("texts", every[:2_050]) == 2_050
        assert index.counts == {"texts": 2_050}
