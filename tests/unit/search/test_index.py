"""An index holds exactly what was embedded, and is there at any moment."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest

from tests.unit.search.plain import (
    MODEL,
    PlainEncoder,
    embed_images,
    embed_texts,
    embedded,
    files_of,
    vector,
    write_images,
    write_texts,
)
from tests.unit.search.test_embedding import run_to_rename
from tf_dpce.errors import UserError
from tf_dpce.search.catalogue import Catalogue
from tf_dpce.search.embed import embed
from tf_dpce.search.index import build_index
from tf_dpce.search.inputs import find_images, find_texts
from tf_dpce.search.searcher import Searcher


def ranked(index: Path, query: str, top: int, kind: str = "images") -> list[str]:
    return [hit.id for hit in Searcher(index, PlainEncoder()).by_text(query, top, kind)]


def best(vectors: np.ndarray, query: str, top: int) -> list[int]:
    """The plain reference: every inner product, sorted."""
    return np.argsort(-(vectors @ vector(query)))[:top].tolist()


@pytest.mark.parametrize("shard_size", [3, 64, 4096])
@pytest.mark.parametrize("factory", ["Flat", "IVF1,Flat", "Flat,RFlat"])
def test_an_exact_index_ranks_as_brute_force_does(tmp_path: Path, factory, shard_size):
    out = embed_images(tmp_path / "photos", 100, tmp_path / "out", shard_size=shard_size)
    build_index([out], tmp_path / "index", factory)
    for query in ("A dog.", "Two cats.", "Snow."):
        expected = [f"{row:03d}.jpg" for row in best(embedded(out, "images"), query, 10)]
        assert ranked(tmp_path / "index", query, 10) == expected


def test_folders_are_joined_in_their_order_and_by_kind(tmp_path: Path):
    first = embed_images(tmp_path / "one", 3, tmp_path / "first")
    second = embed_images(tmp_path / "two", 5, tmp_path / "second", shard_size=2)
    third = embed_texts(tmp_path / "captions.txt", ["A dog.", "A cat."], tmp_path / "third")
    catalogue = build_index([first, second, third], tmp_path / "index")
    assert catalogue.counts == {"images": 8, "texts": 2}
    assert (catalogue.model, catalogue.factory) == (MODEL, "Flat")
    assert Catalogue.load(tmp_path / "index") == catalogue
    hits = Searcher(tmp_path / "index", PlainEncoder()).by_text("A dog.", 8, "images")
    vectors = np.concatenate([embedded(first, "images"), embedded(second, "images")])
    files = sorted((tmp_path / "one").iterdir()) + sorted((tmp_path / "two").iterdir())
    assert [hit.path for hit in hits] == [str(files[row]) for row in best(vectors, "A dog.", 8)]
    assert ranked(tmp_path / "index", "A cat.", 1, "texts") == ["2"]


def test_a_shard_without_a_single_vector_is_no_obstacle(tmp_path: Path):
    pattern = write_images(tmp_path / "photos", 6, bad=(2, 3))
    embed(PlainEncoder(), find_images([pattern]), tmp_path / "out", MODEL, shard_size=2)
    assert build_index([tmp_path / "out"], tmp_path / "index").counts == {"images": 4}


def test_progress_counts_vectors(tmp_path: Path):
    out = embed_images(tmp_path / "photos", 5, tmp_path / "out", shard_size=2)
    seen = []
    build_index([out], tmp_path / "index", progress=lambda *state: seen.append(state))
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_what_faiss_learns_is_the_same_every_time(tmp_path: Path):
    out = embed_images(tmp_path / "photos", 400, tmp_path / "out", shard_size=100)
    for name in ("one", "other"):
        build_index([out], tmp_path / name, "IVF8,Flat")
    assert files_of(tmp_path / "one") == files_of(tmp_path / "other")


def test_a_sample_is_of_all_shards_and_has_no_row_twice(tmp_path: Path):
    from tf_dpce.search.embedding_store import Book
    from tf_dpce.search.index import _sample, _shards

    # 70,000 vectors of one number each, its own; 65,536 is all that 256 centroids look at.
    out = tmp_path / "out"
    out.mkdir()
    values, shards = np.arange(70_000, dtype=np.float32)[:, None], []
    for number, rows in enumerate(np.split(values, [100, 30_000])):
        np.save(out / f"images-{number:05d}.npy", rows)
        shards.append({"name": f"images-{number:05d}", "taken": len(rows), "embedded": len(rows)})
    progress = {"inputs": "", "total": 70_000, "shards": shards}
    from tf_dpce.files import write_json

    book = {"format": 1, "model": MODEL, "dimension": 1, "kinds": {"images": progress}}
    write_json(out / "embeddings.json", book)
    sample = _sample([*_shards({out: Book.load(out)}, "images")], 70_000, lists=4)[:, 0]
    assert len(sample) == len(np.unique(sample)) == 65_536
    # Each shard gives its share, 93.6 %, within four standard deviations of such a draw.
    for start, end in ((0, 100), (100, 30_000), (30_000, 70_000)):
        share = np.mean((sample >= start) & (sample < end)) * 70_000 / (end - start)
        assert abs(share - 1) < 4 * (0.064 / (0.936 * (end - start))) ** 0.5


# --- a bank of queries ------------------------------------------------------------------------


def test_hubs_are_discounted_as_brute_force_does(tmp_path: Path):
    out = embed_images(tmp_path / "photos", 60, tmp_path / "out", shard_size=25)
    embed_texts(tmp_path / "captions.txt", [f"caption {n}" for n in range(20)], out)
    asked = [f"a query {n}" for n in range(40)]
    bank = embed_texts(tmp_path / "queries.txt", asked, tmp_path / "bank", shard_size=15)

    catalogue = build_index([out], tmp_path / "index", querybank=bank)

    # There are no images in the bank to tell how near sentences are to such.
    assert catalogue.querybanks == {"images": 40} and catalogue.dimension == 16
    assert Catalogue.load(tmp_path / "index") == catalogue
    vectors, texts = embedded(out, "images"), embedded(out, "texts")
    halves = np.sort(vectors @ embedded(bank, "texts").T)[:, -10:].mean(axis=1) / 2
    searcher = Searcher(tmp_path / "index", PlainEncoder())
    changed = 0
    for query in ("A dog.", "Two cats.", "Snow."):
        scores = vectors @ vector(query) - halves
        expected = np.argsort(-scores)[:10]
        hits = searcher.by_text(query, 10)
        assert [hit.id for hit in hits] == [f"{row:03d}.jpg" for row in expected]
        np.testing.assert_allclose([hit.score for hit in hits], scores[expected], atol=1e-6)
        changed += expected.tolist() != best(vectors, query, 10)
        assert ranked(tmp_path / "index", query, 5, "texts") == [
            str(row + 1) for row in best(texts, query, 5)
        ]
    assert changed
    # Sentences said nothing about how near images are to images: those are plain cosines.
    photo = tmp_path / "photos" / "007.jpg"
    hits = searcher.by_image(photo, 10, "images")
    cosines = vectors @ vector(photo.read_bytes())
    assert [hit.id for hit in hits] == [f"{row:03d}.jpg" for row in np.argsort(-cosines)[:10]]
    assert hits[0].score == pytest.approx(1.0)


@pytest.mark.parametrize("factory", ["OPQ8_16,PQ8", "OPQ8_16,IVF2,PQ8", "SQ8", "HNSW16"])
def test_what_searches_in_part_takes_a_bank_as_well(tmp_path: Path, factory: str):
    out = embed_images(tmp_path / "photos", 600, tmp_path / "out")
    asked = ["Rain.", "Two dogs.", "A cat."]
    bank = embed_texts(tmp_path / "queries.txt", asked, tmp_path / "bank")
    build_index([out], tmp_path / "exact", querybank=bank)
    build_index([out], tmp_path / "index", factory, querybank=bank)
    exact, found = (ranked(tmp_path / name, "A dog.", 60) for name in ("exact", "index"))
    # Sixty drawn at random would have six in common.
    assert len(set(exact) & set(found)) >= 30


@pytest.mark.parametrize("factory", ["PQ4x4fs", "OPQ4,PQ4x4"])
def test_a_quantiser_that_the_banks_number_does_not_fit_is_told_what_does(
    tmp_path: Path, factory: str
):
    out = embed_images(tmp_path / "photos", 300, tmp_path / "out")
    bank = embed_texts(tmp_path / "queries.txt", ["Rain."], tmp_path / "bank")
    with pytest.raises(UserError, match="of 17 numbers: .*: begin with OPQ4_16, which"):
        build_index([out], tmp_path / "index", factory, querybank=bank)
    build_index([out], tmp_path / "index", f"OPQ4_16,{factory.split(',')[-1]}", querybank=bank)


def test_a_large_bank_is_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tf_dpce.search.index._QUERYBANK", 12)
    out = embed_images(tmp_path / "photos", 5, tmp_path / "out")
    asked = [f"a query {n}" for n in range(40)]
    bank = embed_texts(tmp_path / "queries.txt", asked, tmp_path / "bank", shard_size=15)
    assert build_index([out], tmp_path / "index", "IVF1,Flat", querybank=bank).querybanks == {
        "images": 12
    }


def test_a_bank_without_queries_for_what_is_indexed_is_refused(tmp_path: Path):
    out = embed_images(tmp_path / "photos", 5, tmp_path / "out")
    with pytest.raises(
        UserError, match="querybank .*out holds no texts, by which images are found"
    ):
        build_index([out], tmp_path / "index", querybank=out)
    assert files_of(tmp_path / "index") == {}


def test_a_bank_of_another_model_is_refused(tmp_path: Path):
    out = embed_images(tmp_path / "photos", 5, tmp_path / "out")
    queries = find_texts([write_texts(tmp_path / "queries.txt", ["A dog."])])
    embed(PlainEncoder(), queries, tmp_path / "bank", "n" * 64)
    with pytest.raises(UserError, match="the querybank .*bank is of another model than the index"):
        build_index([out], tmp_path / "index", querybank=tmp_path / "bank")


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factory", "reason"),
    [
        ("Flatt", "could not parse"),
        ("", "could not parse"),
        ("PQ7", "multiple of the number of subquantizers"),  # 16 numbers do not split in 7
        ("IVF64,Flat", "training points .40. should be at least as large"),
        ("PQ8", "training points .40. should be at least as large"),
        ("LSH", "METRIC_L2"),
        ("IDMap,Flat", "add does not make sense"),
    ],
)
def test_a_factory_that_does_not_work_is_told_and_leaves_nothing(tmp_path: Path, factory, reason):
    out = embed_images(tmp_path / "photos", 40, tmp_path / "out")
    with pytest.raises(UserError, match=reason) as error:
        build_index([out], tmp_path / "index", factory)
    assert repr(factory) in str(error.value) and "40 images of 16 numbers" in str(error.value)
    assert "Error in" not in str(error.value)
    assert files_of(tmp_path / "index") == {}
    assert build_index([out], tmp_path / "index").counts == {"images": 40}


@pytest.mark.parametrize("factory", ["HNSW0", "PQ8x0", "IVF00,Flat"])
def test_a_zero_at_which_faiss_would_end_the_process_is_refused(tmp_path: Path, factory):
    out = embed_images(tmp_path / "photos", 40, tmp_path / "out")
    with pytest.raises(UserError, match=f"no index '{factory}': a number in it is 0"):
        build_index([out], tmp_path / "index", factory)


@pytest.mark.parametrize("factory", ["OPQ4,PQ4x4", "OPQ4_12,IVF2,PQ4x4"])
def test_a_rotation_that_would_overrun_faisss_memory_is_refused(tmp_path: Path, factory: str):
    out = embed_images(tmp_path / "photos", 11, tmp_path / "out")
    least = 12 if "_" in factory else 16
    with pytest.raises(UserError, match=f"11 images of 16 numbers: OPQ learns from {least} at"):
        build_index([out], tmp_path / "index", factory)
    assert files_of(tmp_path / "index") == {}


def test_a_failed_rebuild_keeps_the_index(tmp_path: Path):
    out = embed_images(tmp_path / "photos", 5, tmp_path / "out")
    build_index([out], tmp_path / "index")
    before = files_of(tmp_path / "index")
    with pytest.raises(UserError):
        build_index([out], tmp_path / "index", "IVF64,Flat")
    assert files_of(tmp_path / "index") == before


def test_vectors_of_two_models_make_no_index(tmp_path: Path):
    one = embed_images(tmp_path / "photos", 3, tmp_path / "one")
    inputs = find_images([str(tmp_path / "photos/*")])
    embed(PlainEncoder(), inputs, tmp_path / "two", "n" * 64)
    with pytest.raises(UserError, match="two models"):
        build_index([one, tmp_path / "two"], tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_unfinished_embeddings_make_no_index(project_root: Path, tmp_path: Path):
    pattern = write_images(tmp_path / "photos", 10)
    arguments = ("embed", pattern, str(tmp_path / "out"), "4")
    assert run_to_rename(project_root, 5, *arguments) == -signal.SIGKILL
    with pytest.raises(UserError, match="holds 4 of 10 images: run the same embed again"):
        build_index([tmp_path / "out"], tmp_path / "index")


@pytest.mark.parametrize("damage", ["missing", "short", "text", "ids"])
def test_damaged_embeddings_make_no_index(tmp_path: Path, damage: str):
    out = embed_images(tmp_path / "photos", 5, tmp_path / "out")
    vectors = out / "images-00000.npy"
    if damage == "missing":
        vectors.unlink()
    elif damage == "short":
        np.save(vectors, np.load(vectors)[:4])
    elif damage == "text":
        vectors.write_text("no numbers")
    else:
        (out / "images-00000.jsonl").write_text('{"id": "000.jpg"}\n')
    with pytest.raises(UserError, match="embed into another folder"):
        build_index([out], tmp_path / "index")
    assert files_of(tmp_path / "index") == {}


def test_a_folder_of_other_things_is_never_touched(tmp_path: Path):
    out = embed_images(tmp_path / "photos", 3, tmp_path / "out")
    for target in (tmp_path / "photos", out):
        before = files_of(target)
        with pytest.raises(UserError, match="holds other files"):
            build_index([out], target)
        assert files_of(target) == before
    with pytest.raises(UserError, match="is a file"):
        build_index([out], tmp_path / "photos" / "000.jpg")


@pytest.mark.parametrize("content", ["{}", "[]", '{"format": 1}', '{"format": 2}', "{"])
def test_a_catalogue_that_is_none_is_told(tmp_path: Path, content: str):
    (tmp_path / "index.json").write_text(content)
    with pytest.raises(UserError, match="index.json"):
        Catalogue.load(tmp_path)


# --- replacing ------------------------------------------------------------------------------------


def test_a_rebuild_leaves_the_new_index_alone(tmp_path: Path):
    old = embed_images(tmp_path / "old", 3, tmp_path / "first")
    new = embed_images(tmp_path / "new", 7, tmp_path / "second")
    build_index([old], tmp_path / "index")
    searcher = Searcher(tmp_path / "index", PlainEncoder())
    before = searcher.by_text("A dog.", 3)
    assert build_index([new], tmp_path / "index").counts == {"images": 7}
    assert len(ranked(tmp_path / "index", "A dog.", 7)) == 7
    folders = [path.name for path in (tmp_path / "index").iterdir() if path.is_dir()]
    assert folders == ["2"]
    assert searcher.by_text("A dog.", 3) == before, "one that is open answers on"


# One kind: FAISS's file is written in a folder of its own; then come the renames of the records,
# the offsets, the folder and the catalogue.
RENAMES = 4


@pytest.mark.parametrize("number", range(1, RENAMES + 1))
def test_a_killed_rebuild_keeps_the_old_index(project_root: Path, tmp_path: Path, number: int):
    old = embed_images(tmp_path / "old", 3, tmp_path / "first")
    new = embed_images(tmp_path / "new", 7, tmp_path / "second")
    index = tmp_path / "index"
    build_index([old], index)
    arguments = ("index", str(new), str(index))
    assert run_to_rename(project_root, number, *arguments) == -signal.SIGKILL
    assert len(ranked(index, "A dog.", 7)) == 3
    build_index([new], index)
    assert len(ranked(index, "A dog.", 7)) == 7
    left = {path.name for path in index.iterdir()}
    assert left == {"index.json", str(Catalogue.load(index).version)}


@pytest.mark.parametrize("number", range(1, RENAMES + 1))
def test_a_killed_first_build_leaves_no_index(project_root: Path, tmp_path: Path, number: int):
    out = embed_images(tmp_path / "photos", 3, tmp_path / "out")
    arguments = ("index", str(out), str(tmp_path / "index"))
    assert run_to_rename(project_root, number, *arguments) == -signal.SIGKILL
    with pytest.raises(UserError, match="is not an index"):
        Catalogue.load(tmp_path / "index")
    assert build_index([out], tmp_path / "index").counts == {"images": 3}


def test_a_build_has_as_many_renames_as_were_killed(project_root: Path, tmp_path: Path):
    out = embed_images(tmp_path / "photos", 3, tmp_path / "out")
    arguments = ("index", str(out), str(tmp_path / "index"))
    assert run_to_rename(project_root, RENAMES + 1, *arguments) == 0
