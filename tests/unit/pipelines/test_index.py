"""`index`: what it says, leaves behind and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.index import main
from tests.unit.search.plain import embed_images, embed_texts, files_of


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    out = embed_images(tmp_path / "photos", 40, tmp_path / "vectors")
    return embed_texts(tmp_path / "captions.txt", ["A dog.", "A cat."], out)


def test_an_index_says_what_it_holds(vectors: Path, tmp_path: Path, capsys):
    out = tmp_path / "index"
    assert main(["--embeddings", str(vectors), "--out", str(out)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "Flat index of 40 images and 2 texts, 16 numbers each",
        str(out),
    ]
    catalogue = json.loads((out / "index.json").read_text())
    assert (catalogue["factory"], catalogue["counts"]) == ("Flat", {"images": 40, "texts": 2})


def test_several_folders_and_another_factory(vectors: Path, tmp_path: Path, capsys):
    more = embed_images(tmp_path / "more", 10, tmp_path / "more-vectors")
    argv = ["--embeddings", str(vectors), str(more), "--out", str(tmp_path / "index")]
    assert main([*argv, "--factory", "HNSW8"]) == 0
    assert "HNSW8 index of 50 images and 2 texts" in capsys.readouterr().out


def test_the_size_of_the_querybank_is_printed(vectors: Path, tmp_path: Path, capsys):
    bank = embed_texts(tmp_path / "queries.txt", ["A bird.", "A fish."], tmp_path / "bank")
    argv = [
        "--embeddings",
        str(vectors),
        "--out",
        str(tmp_path / "index"),
        "--querybank",
        str(bank),
    ]
    assert main(argv) == 0
    said = "images normalised with a querybank of 2 queries"
    assert said in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--out", "http://milvus:19530"], "is an address"),
        (["--factory", "IVF64,Flat"], "training points (40) should be at least as large"),
        (["--factory", "Flatt"], "could not parse index string Flatt"),
        (["--embeddings", "{folder}/none"], "{folder}/none/embeddings.json does not exist"),
        (["--querybank", "{folder}/none"], "{folder}/none/embeddings.json does not exist"),
        (["--out", "{folder}/photos"], "{folder}/photos holds other files"),
    ],
)
def test_a_mistake_is_one_line(vectors: Path, tmp_path: Path, capsys, options, reason):
    before = files_of(tmp_path)
    argv = ["--embeddings", str(vectors), "--out", str(tmp_path / "index")]
    assert main([*argv, *(option.format(folder=tmp_path) for option in options)]) == 1
    output = capsys.readouterr()
    assert output.err.startswith("error: ") and output.err.count("\n") == 1
    assert reason.format(folder=tmp_path) in output.err
    assert files_of(tmp_path) == before
