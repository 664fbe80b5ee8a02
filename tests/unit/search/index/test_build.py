"""An index holds exactly what was embedded, and is there at any moment."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.errors import raises
from tests.unit.search.embedding.test_embed import run_to_rename
from tests.unit.search.plain import (
    MODEL,
    PlainEncoder,
    embed_images,
    embed_texts,
    embedded,
    files_of,
    indexed,
    vector,
    write_images,
)
from tf_dpce.search.embedding.embed import embed
from tf_dpce.search.embedding.inputs import find_images
from tf_dpce.search.embedding.store import StoreManifest
from tf_dpce.search.index.build import build_index, open_index
from tf_dpce.search.searcher import Searcher


def ranked(index: Path, query: str, top: int, kind: str = "images") -> list[str]:
    return [hit.id for hit in Searcher(index, PlainEncoder()).by_text(query, top, kind)]


def best(vectors: np.ndarray, query: str, top: int) -> list[int]:
    """The plain reference: every inner product, sorted."""
    return np.argsort(-(vectors @ vector(query)))[:top].tolist()


def test_folders_follow_one_another_in_an_index_of_each_kind(tmp_path: Path):
    first, second = tmp_path / "first", tmp_path / "second"
    for out, name, count in ((first, "one", 3), (second, "two", 5)):
        write_images(tmp_path / name, count)
        # Its wildcards begin above the folder, whose name is then part of the ids.
        pattern = str(tmp_path / f"[{name[0]}]{name[1:]}" / "*.jpg")
        embed(PlainEncoder(), find_images([pattern]), out, MODEL, shard_size=2)
    third = embed_texts(tmp_path / "captions.txt", ["A dog.", "A cat."], tmp_path / "third")
    build_index([first, second, third], tmp_path / "index")
    index = open_index(tmp_path / "index")
    assert index.counts == {"images": 8, "texts": 2}
    assert (index.model, index.dimension) == (MODEL, 16)
    hits = Searcher(tmp_path / "index", PlainEncoder()).by_text("A dog.", 8, "images")
    vectors = np.concatenate([embedded(first, "images"), embedded(second, "images")])
    files = sorted((tmp_path / "one").iterdir()) + sorted((tmp_path / "two").iterdir())
    assert [hit.path for hit in hits] == [str(files[row]) for row in best(vectors, "A dog.", 8)]
    assert ranked(tmp_path / "index", "A cat.", 1, "texts") == ["2"]


def test_a_shard_without_a_vector_is_no_obstacle_and_what_faiss_learns_is_repeatable(
    tmp_path: Path,
):
    pattern = write_images(tmp_path / "images", 90, bad=tuple(range(30, 60)))
    embed(PlainEncoder(), find_images([pattern]), tmp_path / "out", MODEL, shard_size=30)
    for name in ("one", "other"):
        assert build_index([tmp_path / "out"], tmp_path / name, "IVF8,Flat").counts["images"] == 60
    # The names are random.
    one, other = (
        sorted(path.read_bytes() for path in (tmp_path / name).glob("images-*"))
        for name in ("one", "other")
    )
    assert len(one) == 3 and one == other


# --- querybank --------------------------------------------------------------------------------


def test_a_querybank_normalises_as_brute_force_does(tmp_path: Path):
    out = embed_images(tmp_path / "images", 60, tmp_path / "out", shard_size=25)
    embed_texts(tmp_path / "captions.txt", [f"caption {n}" for n in range(20)], out)
    queries = [f"a query {n}" for n in range(40)]
    querybank = embed_texts(
        tmp_path / "queries.txt", queries, tmp_path / "querybank", shard_size=15
    )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tf_dpce.search.index.build._QUERYBANK", 12)
        index = build_index([out], tmp_path / "index", querybank=querybank)
        assert index.querybanks["images"] == 12
    index = build_index([out], tmp_path / "index", querybank=querybank)

    # The querybank has no images, by which captions would be normalised.
    assert index.querybanks == {"images": 40} and index.dimension == 16
    vectors, texts = indexed(out, "images"), indexed(out, "texts")
    cosines = embedded(out, "images") @ embedded(querybank, "texts").T
    halves = (np.sort(cosines)[:, -10:].mean(axis=1) / 2).astype(np.float16)
    searcher = Searcher(tmp_path / "index", PlainEncoder())
    for query in ("A dog.", "Two cats.", "Snow."):
        scores = vectors @ vector(query) - halves
        expected = np.argsort(-scores)[:10]
        assert expected.tolist() != best(vectors, query, 10)
        hits = searcher.by_text(query, 10)
        assert [hit.id for hit in hits] == [f"{row:03d}.jpg" for row in expected]
        np.testing.assert_allclose([hit.score for hit in hits], scores[expected], atol=1e-6)
        found = ranked(tmp_path / "index", query, 5, "texts")
        assert found == [str(row + 1) for row in best(texts, query, 5)]
    # Images as queries for images get plain cosines.
    hits = searcher.by_image(tmp_path / "images" / "007.jpg", 10, "images")
    cosines = vectors @ vector("image 007.jpg")
    assert [hit.id for hit in hits] == [f"{row:03d}.jpg" for row in np.argsort(-cosines)[:10]]
    assert hits[0].score == pytest.approx(1.0, abs=2**-11)


def test_an_approximate_index_takes_a_querybank_too(tmp_path: Path):
    out = embed_images(tmp_path / "images", 300, tmp_path / "out")
    queries = ["Rain.", "Two dogs.", "A cat."]
    querybank = embed_texts(tmp_path / "queries.txt", queries, tmp_path / "querybank")
    build_index([out], tmp_path / "exact", querybank=querybank)
    exact = ranked(tmp_path / "exact", "A dog.", 60)
    for factory in ("OPQ4_16,IVF2,PQ4x4", "SQ8", "HNSW16"):
        build_index([out], tmp_path / "index", factory, querybank=querybank)
        # Sixty drawn at random would have twelve in common.
        assert len(set(exact) & set(ranked(tmp_path / "index", "A dog.", 60))) >= 24, factory
    # One number more than the quantiser divides; the message names what makes it fit.
    for factory in ("PQ4x4fs", "OPQ4,PQ4x4"):
        with raises("index.factory") as error:
            build_index([out], tmp_path / "index", factory, querybank=querybank)
        assert "_16" in str(error.value)


# --- mistakes -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def forty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embeddings of 40 images."""
    folder = tmp_path_factory.mktemp("forty")
    return embed_images(folder / "images", 40, folder / "out")


def test_a_factory_that_does_not_work_leaves_nothing(forty: Path, tmp_path: Path):
    build_index([forty], tmp_path / "old")
    before = files_of(tmp_path / "old")
    for factory, word in (
        ("Flatt", "parse"),
        ("", "parse"),
        ("PQ7", "multiple"),  # 16 numbers do not split in 7
        ("IVF64,Flat", "40"),
        ("HNSW8_PQ4", "distances"),
        ("IDMap,Flat", "take another"),
        # At these FAISS would end the process.
        ("HNSW0", "0"),
        ("PQ8x0", "0"),
        ("IVF00,Flat", "0"),
    ):
        for out in (tmp_path / "new", tmp_path / "old"):
            with raises("index.factory") as error:
                build_index([forty], out, factory)
            # FAISS's own words, without its signatures.
            assert repr(factory) in str(error.value) and word in str(error.value)
            assert "Error in" not in str(error.value)
    assert files_of(tmp_path / "new") == {}
    assert files_of(tmp_path / "old") == before
    # At these it would write past the end of its memory.
    out = embed_images(tmp_path / "images", 11, tmp_path / "out")
    for factory, least in (("OPQ4,PQ4x4", "16"), ("OPQ4_12,IVF2,PQ4x4", "12")):
        with raises("index.too_few") as error:
            build_index([out], tmp_path / "index", factory)
        assert f" {least} " in str(error.value)
    # Nor does what is damaged there hide why.
    (tmp_path / "old" / "index.json").write_bytes(b"\xff")
    with raises("index.too_few"):
        build_index([out], tmp_path / "old", "OPQ4,PQ4x4")


def test_embeddings_of_two_models_make_no_index(forty: Path, tmp_path: Path):
    other = tmp_path / "two"
    embed(PlainEncoder(), find_images([write_images(tmp_path / "images", 3)]), other, "n" * 64)
    for folders, querybank in (([forty, other], None), ([forty], other)):
        with raises("index.two_models", path=other):
            build_index(folders, tmp_path / "index", querybank=querybank)
    # A querybank of images has no queries for images.
    with raises("index.querybank", path=forty):
        build_index([forty], tmp_path / "index", querybank=forty)
    assert not (tmp_path / "index").exists()


def test_two_items_with_one_id_make_no_index(tmp_path: Path):
    first = embed_texts(tmp_path / "a.txt", ["A dog.", "A cat."], tmp_path / "first")
    same = embed_texts(tmp_path / "b.txt", ["A dog."], tmp_path / "same")
    other = embed_texts(tmp_path / "c.txt", ["A dog.", "Snow."], tmp_path / "other")
    with raises("index.repeated_ids"):
        build_index([first, other], tmp_path / "index")
    assert not any((tmp_path / "index").iterdir())
    assert build_index([first, same], tmp_path / "index").counts == {"texts": 2}


def test_folders_without_an_embedding_make_no_index(tmp_path: Path):
    inputs = find_images([write_images(tmp_path / "images", 2, bad=(0, 1))])
    with raises("embeddings.none"):
        embed(PlainEncoder(), inputs, tmp_path / "out", MODEL)
    with raises("index.no_embeddings"):
        build_index([tmp_path / "out"], tmp_path / "index")


def test_unfinished_embeddings_make_no_index(tmp_path: Path):
    out = embed_images(tmp_path / "images", 10, tmp_path / "out", shard_size=4)
    store = StoreManifest.load(out)
    store.kinds["images"] = replace(store.kinds["images"], shards=())
    (out / "images.json").write_bytes(store.contents("images"))
    with raises("embeddings.unfinished", path=out):
        build_index([out], tmp_path / "index")


def test_damaged_embeddings_make_no_index(tmp_path: Path):
    for number, (name, damage) in enumerate(
        (
            ("images-00000.npy", Path.unlink),
            ("images-00000.npy", lambda path: np.save(path, np.load(path)[:4])),
            ("images-00000.npy", lambda path: path.write_text("no numbers")),
            ("images-00000.jsonl", lambda path: path.write_text('{"id": "000.jpg", "path": ""}\n')),
        )
    ):
        out = embed_images(tmp_path / "images", 5, tmp_path / str(number))
        damage(out / name)
        with raises("embeddings.shard"):
            build_index([out], tmp_path / "index")
        assert files_of(tmp_path / "index") == {}


def test_a_folder_of_other_things_is_never_touched(forty: Path, tmp_path: Path):
    write_images(tmp_path / "images", 1)
    for target in (tmp_path / "images", forty, tmp_path / "images" / "000.jpg"):
        before = files_of(target)
        with raises("index.target", path=target):
            build_index([forty], target)
        assert files_of(target) == before


def test_an_archive_by_years_is_not_taken_for_an_index_of_the_former_format(
    forty: Path, tmp_path: Path
):
    # That had a folder for each version, and one of these files for each kind.
    index, archive = tmp_path / "index", tmp_path / "archive"
    for folder, name in ((index, "images.faiss"), (archive, "000.jpg")):
        (folder / "2023").mkdir(parents=True)
        (folder / "2023" / name).write_text("of 2023")
    with raises("index.target", path=archive):
        build_index([forty], archive)
    assert files_of(archive) == {"2023/000.jpg": b"of 2023"}
    # A folder that somebody puts beside an index stays as well.
    shutil.copytree(archive / "2023", index / "2024")
    (index / "index.json").write_text('{"version": 2023}')
    with raises("index.target", path=index):
        build_index([forty], index)
    (index / "2024").rename(tmp_path / "aside")
    build_index([forty], index)
    (tmp_path / "aside").rename(index / "2024")
    assert open_index(index).delete("images", ["000.jpg"]) == 1
    assert [path.name for path in index.iterdir() if path.is_dir()] == ["2024"]


# --- replacing ------------------------------------------------------------------------------------


# One kind: the embeddings, the records, the manifest.
RENAMES = 3


@pytest.mark.process
@pytest.mark.parametrize("number", range(1, RENAMES + 2))
def test_a_killed_build_keeps_what_was_there(project_root: Path, tmp_path: Path, number: int):
    old = embed_images(tmp_path / "old", 3, tmp_path / "first")
    new = embed_images(tmp_path / "new", 7, tmp_path / "second")
    index = tmp_path / "index"
    build_index([old], index)
    searcher = Searcher(index, PlainEncoder())
    assert len(searcher.by_text("A dog.", 7)) == 3
    status = run_to_rename(project_root, number, "index", str(new), str(index))
    assert status == (os.EX_OK if number > RENAMES else -signal.SIGKILL)
    assert len(ranked(index, "A dog.", 7)) == (7 if number > RENAMES else 3)
    build_index([new], index)
    assert len(ranked(index, "A dog.", 7)) == 7
    assert len(searcher.by_text("A dog.", 7)) == 7, "one that is open notices it"
    left = {path.name for path in index.iterdir()}
    assert left == {"index.json"} | open_index(index).manifest.files
