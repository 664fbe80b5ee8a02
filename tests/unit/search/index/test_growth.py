"""An index that grows answers as one in memory does, whatever its history."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.errors import raises
from tests.unit.search.plain import (
    DIMENSION,
    MODEL,
    PlainEncoder,
    embed_images,
    embed_texts,
    vector,
)
from tests.unit.search.plain_index import PlainIndex
from tf_dpce.search.embedding.embed import embed
from tf_dpce.search.embedding.inputs import find_texts
from tf_dpce.search.index import segment_writer
from tf_dpce.search.index.build import FolderIndex, add_embeddings, build_index, open_index
from tf_dpce.search.index.check_recall import check_recall
from tf_dpce.search.queries.filters import Filter

FILTERS = [None, "size < 20", "size >= 20 and folder = 'a'", "folder is null", "size > 900"]
SCHEMA = pa.schema([("id", pa.string()), ("size", pa.int64()), ("folder", pa.string())])


def drawn_items(draw: np.random.Generator, count: int) -> tuple[pa.Table, np.ndarray]:
    """Items of 60 ids, whose numbers are multiples of 1/4: sums and float16 have no rounding."""
    rows = [
        {"id": f"{number}.jpg", "size": size, "folder": folder}
        for number, size, folder in zip(
            draw.choice(60, count, replace=False),
            draw.integers(40, size=count).tolist(),
            draw.choice(["a", "b", None], count),
            strict=True,
        )
    ]
    # Few different ones, so that many are equal.
    vectors = np.random.default_rng(0).integers(-2, 3, (12, DIMENSION)) / 4
    return pa.Table.from_pylist(rows, SCHEMA), draw.choice(vectors, count).astype(np.float32)


def assert_equal(index: FolderIndex, plain: PlainIndex, draw: np.random.Generator) -> None:
    assert index.counts == {kind: count for kind, count in plain.counts.items() if count}
    if not index.counts:
        return
    queries = (draw.integers(-2, 3, (3, DIMENSION)) / 4).astype(np.float32)
    for top in (1, 7, 80):
        for text in FILTERS:
            where = text and Filter.parse(text)
            answers = index.search("images", queries, top, of="texts", where=where)
            wanted = plain.search("images", queries, top, of="texts", where=where)
            assert list(map(list, answers)) == list(map(list, wanted))
            assert len(answers) == 3
    everything = index.table("images", ["id", "size"]).sort_by("id")
    assert everything == plain.table("images").select(["id", "size"]).sort_by("id")
    ids = [str(name) for name in draw.permutation(everything["id"].to_pylist())]
    np.testing.assert_array_equal(index.vectors("images", ids), plain.vectors("images", ids))
    assert index.records("images", ids) == plain.records("images", ids)


@pytest.mark.parametrize("seed", range(3))
def test_any_history_ends_as_a_plain_list_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
):
    # Rows of a segment; those of an addition often do not fit into one.
    monkeypatch.setattr(segment_writer, "LARGEST", 25)
    monkeypatch.setattr(segment_writer, "_PIECE", 5)
    monkeypatch.setattr(segment_writer, "ROW_GROUP", 4)
    monkeypatch.setattr("tf_dpce.search.index.segments._BLOCK", 7)
    draw = np.random.default_rng(seed)
    FolderIndex.create(tmp_path / "index", MODEL, DIMENSION)
    writer, reader = open_index(tmp_path / "index"), open_index(tmp_path / "index")
    plain, most = PlainIndex(), 0
    for step in range(30):
        if draw.random() < 0.7 or not plain.counts:
            items = drawn_items(draw, int(draw.integers(1, 30)))
            writer.add("images", *items)
            plain.add("images", *items)
        else:
            ids = [f"{number}.jpg" for number in draw.choice(70, 15, replace=False)]
            assert writer.delete("images", ids) == plain.delete("images", ids)
        most = max(most, len(writer.manifest.kinds["images"].segments))
        if step % 5 == 4:
            assert_equal(reader, plain, draw)
    assert 3 <= most <= 12, "there are several segments, and small ones are merged"
    files = {path.name for path in (tmp_path / "index").iterdir()}
    assert files == {"index.json"} | writer.manifest.files
    assert writer.delete("images", [f"{number}.jpg" for number in range(60)]) > 0
    assert (reader.counts, reader.manifest.files) == ({}, set())


def embedded_piece(folder: Path, rows: range) -> Path:
    """Embeddings of captions with the numbers of their rows as ids; some are equal."""
    lines = (f'{{"id": "{row}", "text": "caption {row % 50}"}}\n' for row in rows)
    path = folder / f"{rows.start}.jsonl"
    path.write_text("".join(lines))
    embed(PlainEncoder(), find_texts([str(path)]), folder / path.stem, MODEL)
    return folder / path.stem


def test_embeddings_added_in_pieces_answer_as_those_that_were_indexed_at_once(tmp_path: Path):
    queries = embed_images(tmp_path / "images", 40, tmp_path / "queries")
    pieces = [embedded_piece(tmp_path, range(start, start + 30)) for start in (0, 30, 60)]
    for querybank in (None, queries):
        whole = build_index(pieces, tmp_path / "whole", querybank=querybank)
        grown = build_index(pieces[:1], tmp_path / "grown", querybank=querybank)
        for piece in (pieces[2], pieces[1], pieces[2]):
            add_embeddings(grown, [piece])
        assert grown.counts == whole.counts == {"texts": 90}
        for index in (whole, grown):
            assert index.delete("texts", ["3", "44", "89", "none"]) == 3
        asked = np.stack([vector(f"asked {number}") for number in range(5)])
        for of in ("images", "texts"):
            one, other = (index.search("texts", asked, 60, of=of) for index in (whole, grown))
            assert list(map(list, one)) == list(map(list, other))


# --- approximate indices --------------------------------------------------------------------------


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Embeddings in loose clusters; 400 of them count as many."""
    for module in ("factories", "segment_writer"):
        monkeypatch.setattr(f"tf_dpce.search.index.{module}.LARGE", 400)
    draw = np.random.default_rng(0)
    centres = draw.normal(size=(40, DIMENSION))
    vectors = centres[draw.integers(40, size=3000)] + draw.normal(size=(3000, DIMENSION))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def added(index: FolderIndex, vectors: np.ndarray, start: int, end: int) -> None:
    rows = range(start, end)
    records = pa.table({"id": [f"{row:04d}" for row in rows], "row": list(rows)})
    index.add("images", records, vectors[start:end])


def exact_scores(vectors: np.ndarray, queries: np.ndarray, top: int) -> np.ndarray:
    scores = queries @ vectors.astype(np.float16).astype(np.float32).T
    return -np.sort(-scores, axis=1)[:, :top]


def found_scores(index: FolderIndex, queries: np.ndarray, top: int, where=None) -> np.ndarray:
    found = index.search("images", queries, top, of="texts", where=where)
    return np.array([[item.score for item in items] for items in found])


def test_a_large_index_is_searched_approximately_with_exact_scores(
    tmp_path: Path, many: np.ndarray
):
    index = FolderIndex.create(tmp_path / "index", MODEL, DIMENSION)
    added(index, many, 0, 300)
    assert not index.manifest.kinds["images"].segments[0].approximate
    added(index, many, 300, 3000)
    large = index.manifest.kinds["images"].segments[1]
    assert large.approximate, "2,700 are many"
    near = index.state("images").segments[1].files.approximate
    # 4 sqrt(2700) = 207.8 lists, of which sqrt(208) = 14.4 are searched.
    assert (near.nlist, near.nprobe) == (208, 14)
    queries = many[::100] + 0.1
    best, found = exact_scores(many, queries, 10), found_scores(index, queries, 10)
    assert 0.8 < (found >= best[:, -1:] - 1e-6).mean() < 1, "it is approximate"
    # The candidates that were found have their exact scores: the best one is nearly always there.
    assert (np.abs(found[:, 0] - best[:, 0]) < 1e-6).mean() > 0.9
    # With every list it finds all; with one it finds few.
    index.set_effort("images", 208)
    np.testing.assert_allclose(found_scores(index, queries, 10), best, atol=2**-11)
    index.set_effort("images", 1)
    poor = (found_scores(index, queries, 10) >= best[:, -1:] - 1e-6).mean()
    assert poor < (found >= best[:, -1:] - 1e-6).mean()
    # More than the lists hold is found nevertheless.
    np.testing.assert_allclose(
        found_scores(index, queries, 2000), exact_scores(many, queries, 2000), atol=2**-11
    )
    # A filter that leaves few is answered exactly, one that leaves many has enough results.
    few = found_scores(index, queries, 10, Filter.parse("row < 500"))
    np.testing.assert_allclose(few, exact_scores(many[:500], queries, 10), atol=2**-11)
    found = index.search("images", queries, 10, of="texts", where=Filter.parse("row < 2900"))
    assert {len(items) for items in found} == {10}
    assert max(item.record["row"] for items in found for item in items) < 2900


FACTORIES = ("IVF40,SQ8", "HNSW16", "PCA12,IVF4,SQ8", "OPQ4_8,IVF40,PQ4x6", "PQ4")


@pytest.mark.parametrize("factory", FACTORIES)
def test_deleted_items_are_never_found_approximately(
    tmp_path: Path, many: np.ndarray, factory: str, capfd: pytest.CaptureFixture[str]
):
    index = FolderIndex.create(tmp_path / "index", MODEL, DIMENSION)
    manifest = replace(index.manifest, factory=factory)
    manifest.save(tmp_path / "index")
    added(index, many, 0, 1000)
    assert index.manifest.kinds["images"].segments[0].approximate
    # A fifth: not enough that the segment is written anew.
    assert index.delete("images", [f"{row:04d}" for row in range(0, 1000, 5)]) == 200
    queries = many[:50]
    found = index.search("images", queries, 20, of="texts")
    assert {len(items) for items in found} == {20}
    assert all(item.record["row"] % 5 for items in found for item in items)
    rest = np.delete(many[:1000], np.arange(0, 1000, 5), axis=0)
    hits = found_scores(index, queries, 20) >= exact_scores(rest, queries, 20)[:, -1:] - 1e-6
    assert hits.mean() > 0.5, "20 of 800 at random would be 0.03"
    # FAISS itself warns of fewer than 39 embeddings for each of 40, 64 or 256 centroids.
    assert capfd.readouterr().err == ""


def test_a_merged_segment_is_as_approximate_as_before(
    tmp_path: Path, many: np.ndarray, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tf_dpce.search.index.check_recall._LEAST", 700)
    monkeypatch.setattr("tf_dpce.search.index.check_recall._TIMED", 2)
    index = FolderIndex.create(tmp_path / "index", MODEL, DIMENSION)
    added(index, many, 0, 1000)
    (before,) = index.manifest.kinds["images"].segments
    index.delete("images", [f"{row:04d}" for row in range(700, 1000)])
    (after,) = index.manifest.kinds["images"].segments
    assert (before.rows, after.rows, after.deleted) == (1000, 700, None)
    assert after.approximate != before.approximate
    # What was learnt stays: 4 sqrt(1000) lists, not 4 sqrt(700).
    assert index.state("images").segments[0].files.approximate.nlist == 126
    asked = embed_texts(tmp_path / "asked.txt", ["A dog.", "A cat."], tmp_path / "asked")
    settings = check_recall(index, asked, "images")
    # Beside it those that 700 items could have: of 4 sqrt(700) lists.
    factories = ["exact", "IVF126,SQ8", "IVF106,SQ8", "IVF106,PQ4"]
    assert list(dict.fromkeys(setting.factory for setting in settings)) == factories
    # Of the 126 lists sqrt(126) are searched.
    in_force = [(each.factory, each.effort) for each in settings if each.is_in_force]
    assert in_force == [("IVF126,SQ8", 11)]
    found = found_scores(index, many[:50], 5)
    best = exact_scores(many[:700], many[:50], 5)
    assert (found >= best[:, -1:] - 1e-6).mean() > 0.8


# --- what is added --------------------------------------------------------------------------------


def test_of_one_id_the_last_embedding_stays_and_what_is_refused_leaves_no_file(tmp_path: Path):
    index = FolderIndex.create(tmp_path / "index", MODEL, DIMENSION)
    vectors = np.eye(3, DIMENSION, dtype=np.float32)
    index.add("images", pa.table({"id": ["a", "b", "a"], "size": [1, 2, 3]}), vectors)
    np.testing.assert_array_equal(index.vectors("images", ["a", "b", "a"]), vectors[[2, 1, 2]])
    with raises("index.column"):
        index.add("images", pa.table({"id": ["d"], "size": ["large"]}), vectors[:1])
    files = {path.name for path in (tmp_path / "index").iterdir()}
    assert files == {"index.json"} | index.manifest.files


class Forgetful(dict):
    """Is emptied as soon as something is put into it, as another thread may do."""

    def __setitem__(self, key: object, value: object) -> None:
        self.clear()


def test_a_filter_is_answered_though_another_thread_forgets_it(tmp_path: Path):
    index = FolderIndex.create(tmp_path / "index", MODEL, DIMENSION)
    index.add("images", pa.table({"id": ["a", "b"], "size": [1, 2]}), np.eye(2, DIMENSION))
    index.state("images").segments[0].files._masks = Forgetful()
    where, query = Filter.parse("size = 2"), vector("x")[None]
    (found,) = index.search("images", query, 9, of="texts", where=where)
    assert [item.record["id"] for item in found] == ["b"]
