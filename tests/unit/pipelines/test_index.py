"""`index`: what it says, leaves behind and refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.index import main
from tests.samples import write_images
from tests.unit.search.plain import MODEL, PlainEncoder, embed_images, embed_texts
from tf_dpce.search.embed import embed
from tf_dpce.search.index import open_index
from tf_dpce.search.inputs import find_images


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    out = embed_images(tmp_path / "images", 40, tmp_path / "vectors")
    return embed_texts(tmp_path / "captions.txt", ["A dog.", "A cat."], out)


def test_an_index_says_what_it_holds(vectors: Path, tmp_path: Path, capsys):
    out = tmp_path / "index"
    assert main(["--embeddings", str(vectors), "--out", str(out)]) == 0
    said = ["index of 40 images and 2 texts, 16 numbers each", str(out)]
    assert capsys.readouterr().out.splitlines() == said
    assert open_index(out).counts == {"images": 40, "texts": 2}
    # Several folders, another factory and a querybank.
    write_images(tmp_path, [f"more/{number}.jpg" for number in range(10)])
    more = tmp_path / "more-vectors"
    embed(PlainEncoder(), find_images([str(tmp_path / "more")]), more, MODEL)
    querybank = embed_texts(tmp_path / "queries.txt", ["A bird.", "A fish."], tmp_path / "queries")
    argv = ["--embeddings", str(vectors), str(more), "--out", str(out), "--factory", "HNSW8"]
    assert main([*argv, "--querybank", str(querybank)]) == 0
    output = capsys.readouterr().out
    assert "HNSW8 index of 50 images and 2 texts" in output
    assert "querybank of 2 queries" in output


def test_an_image_that_was_embedded_twice_is_named(tmp_path: Path, capsys):
    write_images(tmp_path, ["photos/a.jpg", "photos/b/c.jpg", "photos/b/d.jpg"])
    for folder, out in (("photos", "first"), ("photos/b", "second")):
        inputs = find_images([str(tmp_path / folder)])
        embed(PlainEncoder(), inputs, tmp_path / out, MODEL)
    for folders in (["first"], ["first", "second"]):
        paths = [str(tmp_path / folder) for folder in folders]
        assert main(["--embeddings", *paths, "--out", str(tmp_path / "index")]) == 0
        said = capsys.readouterr().err
        assert ("2 images" in said and str(tmp_path) in said) == (len(folders) == 2)
