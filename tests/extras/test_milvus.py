"""An index in Milvus, over Milvus Lite and over a server by its address; and what goes wrong."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import numpy as np
import pyarrow as pa
import pytest
from milvus_lite.db import MilvusLite
from pymilvus import MilvusClient

from pipelines.index import main
from tests.errors import raises
from tests.extras.milvus_server import Server
from tests.unit.search.index_contract import D, IndexContract, some_texts, unit_vectors
from tests.unit.search.plain import PlainEncoder, embed_images, embed_texts, files_of
from tf_dpce.search.index.build import build_index, open_index
from tf_dpce.search.milvus import connection
from tf_dpce.search.milvus.index import MilvusIndex
from tf_dpce.search.searcher import Searcher

MODEL = "m" * 64


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path / "served")
    yield running
    running.stop()


class TestMilvusLite(IndexContract):
    def build(self, folder, items, querybanks):
        return MilvusIndex.build(f"{folder}/x.db", MODEL, D, items, querybanks)

    def reopen(self, folder):
        return MilvusIndex.open(f"{folder}/x.db#tf_dpce")


class TestMilvusServer(IndexContract):
    """Filters reach a server as expressions of names alone, and their values beside them."""

    @pytest.fixture(autouse=True)
    def started(self, server: Server) -> None:
        self.uri = server.uri("x")

    def build(self, folder, items, querybanks):
        return MilvusIndex.build(self.uri, MODEL, D, items, querybanks)

    def reopen(self, folder):
        return MilvusIndex.open(self.uri)


def texts(*ids: str) -> Iterator[tuple[pa.Table, np.ndarray]]:
    """A batch a text."""
    for number, id_ in enumerate(ids):
        yield some_texts([id_]), unit_vectors(number, 1)


def build(uri: str, *ids: str, model: str = MODEL) -> MilvusIndex:
    return MilvusIndex.build(uri, model, D, {"texts": texts(*ids)})


def found(index: MilvusIndex) -> list[str]:
    (hits,) = index.search("texts", unit_vectors(0, 1), 9, of="images")
    return sorted(hit.record["id"] for hit in hits)


def collections(server: Server) -> list[str]:
    return MilvusClient(server.uri()).list_collections()


# --- one build, another, and none in between ------------------------------------------------------


def test_a_build_replaces_the_index_of_its_name_alone(server: Server):
    other, one = build(server.uri("x_1"), "o"), build(server.uri("x"), "a", "b")
    build(server.uri("x"), "c")
    assert found(one) == ["c"] and found(other) == ["o"]
    assert len(collections(server)) == 4, "a manifest and texts of each"


def test_a_reader_of_one_model_refuses_an_index_of_another(server: Server):
    index = build(server.uri(), "a")
    build(server.uri(), "a", model="n" * 64)
    for use in (
        lambda: found(index),
        lambda: index.version,
        lambda: index.add("texts", *next(texts("b"))),
        lambda: index.delete("texts", ["a"]),
    ):
        with raises("search.other_model"):
            use()
    assert MilvusIndex.open(server.uri()).counts == {"texts": 1}


@pytest.mark.parametrize("ending", [KeyboardInterrupt, RuntimeError])
def test_a_build_that_ends_early_leaves_nothing(server: Server, ending: type[BaseException]):
    def batches():
        yield from texts("b")
        raise ending

    build(server.uri(), "a")
    before = collections(server)
    with pytest.raises(ending):
        MilvusIndex.build(server.uri(), MODEL, D, {"texts": batches()})
    assert collections(server) == before
    assert found(MilvusIndex.open(server.uri())) == ["a"]


def test_what_a_killed_build_leaves_the_next_one_removes(server: Server):
    def batches():
        yield from texts("b")
        server.stop()
        yield from texts("c")

    build(server.uri(), "a")
    with raises("milvus.unreachable"):
        MilvusIndex.build(server.uri(), MODEL, D, {"texts": batches()})
    server.start()
    assert found(MilvusIndex.open(server.uri())) == ["a"]
    assert len(collections(server)) == 3
    build(server.uri(), "b")
    assert len(collections(server)) == 2


def test_what_embed_wrote_is_found_in_milvus_as_in_a_folder(server: Server, tmp_path: Path):
    out = embed_images(tmp_path / "images", 60, tmp_path / "out", shard_size=25)
    queries = [f"a query {number}" for number in range(20)]
    querybank = embed_texts(tmp_path / "queries.txt", queries, tmp_path / "queries")
    index = server.uri("x")
    places = (tmp_path / "index", index, f"{tmp_path}/x.db")
    for place in places:
        arguments = ["--embeddings", str(out), "--out", str(place), "--querybank", str(querybank)]
        assert main(arguments) == 0
    inside, *others = (Searcher(place, PlainEncoder()).by_text("A dog.", 60) for place in places)
    for outside in others:
        assert [hit.id for hit in outside] == [hit.id for hit in inside]
        scores = [hit.score for hit in inside]
        assert [hit.score for hit in outside] == pytest.approx(scores, abs=2e-3)
    with raises("index.factory"):
        build_index([out], index, "HNSW32")
    # Two folders with the same names for other images.
    again = embed_images(tmp_path / "other", 60, tmp_path / "again")
    with raises("index.repeated_ids"):
        build_index([out, again], index)
    assert open_index(index).counts == {"images": 60}


# --- columns --------------------------------------------------------------------------------------


def test_what_milvus_cannot_store_is_refused_and_leaves_nothing(server: Server):
    # A text of one byte more than Milvus takes; an integer of one bit more.
    for values in (
        pa.array(["ü" * 32_767 + "xy"]),
        pa.array([2**63], pa.uint64()),
        pa.array([[1, 2]]),
        pa.array([b"x"]),
    ):
        items = some_texts(["a"]).append_column("more", values), unit_vectors(1, 1)
        with raises("milvus.column"):
            MilvusIndex.build(server.uri(), MODEL, D, {"texts": [items]})
        assert collections(server) == []
    longest = some_texts(["a"]).append_column("more", pa.array(["ü" * 32_767 + "x"]))
    index = MilvusIndex.build(server.uri(), MODEL, D, {"texts": [(longest, unit_vectors(1, 1))]})
    assert index.records("texts", ["a"]) == longest.to_pylist()
    with raises("milvus.top"):
        index.search("texts", unit_vectors(1, 1), 16_385, of="texts")


# --- a server that does not answer, or not to us --------------------------------------------------


def test_a_milvus_that_is_down_fails_in_bounded_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connection, "_CONNECTING", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        # One takes no connection, one takes it and says nothing, one has no machine.
        for address in ("127.0.0.1:9", f"127.0.0.1:{silent.getsockname()[1]}", "no.invalid:19530"):
            for scheme in ("http", "https"):
                began = monotonic()
                with raises("milvus.unreachable"):
                    MilvusIndex.open(f"{scheme}://{address}")
                with raises("milvus.unreachable"):
                    build(f"{scheme}://{address}", "a")
                assert monotonic() - began < 10


def test_a_milvus_that_goes_away_and_comes_back(server: Server):
    index = build(server.uri(), "a", "b")
    server.stop()
    began = monotonic()
    for use in (
        lambda: found(index),
        lambda: index.counts,
        lambda: index.add("texts", *next(texts("c"))),
        lambda: index.delete("texts", ["a"]),
    ):
        with raises("milvus.unreachable"):
            use()
    assert monotonic() - began < 10
    server.start()
    assert found(index) == ["a", "b"]
    index.add("texts", *next(texts("c")))
    assert found(index) == ["a", "b", "c"]


def test_credentials_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    server = Server(tmp_path / "served", token="me:secret")
    monkeypatch.setenv("MILVUS_TOKEN", "me:secret")
    index = build(server.uri(), "a")
    for wrong in ("me:guess", ""):
        monkeypatch.setenv("MILVUS_TOKEN", wrong)
        with raises("milvus.credentials") as error:
            MilvusIndex.open(server.uri())
        assert "guess" not in str(error.value)
    assert found(index) == ["a"]
    server.stop()


# --- what is not ours -----------------------------------------------------------------------------


def test_a_collection_of_others_is_never_touched(server: Server):
    client = MilvusClient(server.uri())
    client.create_collection("theirs", dimension=4)
    client.create_alias("theirs", "also_theirs")
    for name in ("theirs", "also_theirs"):
        for use in (MilvusIndex.open, build):
            with raises("milvus.foreign"):
                use(server.uri(name))
    assert client.list_collections() == ["theirs"]
    with raises("index.missing"):
        MilvusIndex.open(server.uri("none"))


def test_a_file_or_folder_of_others_is_never_touched(tmp_path: Path):
    file, folder = tmp_path / "file.db", tmp_path / "folder.db"
    folder.mkdir()
    for path in (file, folder / "notes.txt"):
        path.write_text("SQLite format 3")
    before = files_of(tmp_path)
    for use in (MilvusIndex.open, build):
        for path in (file, folder):
            with raises("milvus.local", path=path):
                use(str(path))
    with raises("index.missing", path=tmp_path / "none.db"):
        MilvusIndex.open(f"{tmp_path}/none.db")
    assert files_of(tmp_path) == before


def test_a_database_that_another_process_has_open_is_refused(tmp_path: Path):
    path = tmp_path / "x.db"
    with MilvusLite(str(path)), raises("milvus.local", path=path):
        build(str(path), "a")
    assert found(build(str(path), "a")) == ["a"]
    with raises("index.missing"):
        MilvusIndex.open(f"{path}#other")
