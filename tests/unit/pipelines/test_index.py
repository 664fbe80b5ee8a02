"""`index`: what it says, leaves behind and refuses."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from pipelines.index import main
from tests.errors import printed_code, raises
from tests.samples import write_images
from tests.unit.search.plain import MODEL, PlainEncoder, embed_images, embed_texts, embedded, vector
from tf_dpce.search.embedding.embed import embed
from tf_dpce.search.embedding.inputs import find_images
from tf_dpce.search.index.build import open_index
from tf_dpce.search.index.check_recall import Setting, check_recall, recommended
from tf_dpce.search.index.metadata_table import MetadataTable
from tf_dpce.search.queries.filters import Filter


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


# --- changing an index ----------------------------------------------------------------------------


@pytest.fixture
def index(vectors: Path, tmp_path: Path) -> Path:
    assert main(["--embeddings", str(vectors), "--out", str(tmp_path / "index")]) == 0
    return tmp_path / "index"


def test_embeddings_are_added_and_items_deleted(index: Path, tmp_path: Path, capsys):
    write_images(tmp_path, ["images/039.jpg", "images/new.jpg"])
    pattern = str(tmp_path / "images" / "[0n][3e][9w].jpg")
    embed(PlainEncoder(), find_images([pattern]), tmp_path / "more", MODEL)
    before = open_index(index).vectors("images", ["038.jpg", "039.jpg"])
    assert main(["--embeddings", str(tmp_path / "more"), "--add", "--out", str(index)]) == 0
    after = open_index(index)
    assert after.counts == {"images": 41, "texts": 2}
    changed = after.vectors("images", ["038.jpg", "039.jpg"]) != before
    assert changed.any(axis=1).tolist() == [False, True], "the same id is replaced"
    (tmp_path / "ids.txt").write_text("\ufeff000.jpg\r\n\n001.jpg\nunknown\n\n", "utf-8")
    capsys.readouterr()
    argv = ["--out", str(index), "--delete", "new.jpg", f"@{tmp_path / 'ids.txt'}"]
    assert main(argv) == 0
    said = capsys.readouterr()
    assert "3 of 4" in said.out and "unknown" in said.err and "000.jpg" not in said.err
    assert main(["--out", str(index), "--delete", "1", "--for", "texts"]) == 0
    assert open_index(index).counts == {"images": 38, "texts": 1}
    # Names of files that are not UTF-8, as a shell gives them, and in a list.
    (tmp_path / "ids.txt").write_bytes(b"\xff.jpg\n")
    assert main(["--out", str(index), "--delete", "\udcfe.jpg", f"@{tmp_path / 'ids.txt'}"]) == 0
    assert "0 of 2" in capsys.readouterr().out
    # An index of another model is left alone.
    embed(PlainEncoder(), find_images([pattern]), tmp_path / "other", "n" * 64)
    version = open_index(index).version
    assert main(["--embeddings", str(tmp_path / "other"), "--add", "--out", str(index)]) == 1
    assert printed_code(capsys.readouterr().err) == "index.two_models"
    assert open_index(index).version == version


TABLES = {
    "places.csv": "path,city,when\n003.jpg,Rome,2024-05-01\nno.jpg,Oslo,\n004.jpg,,2023-01-01\n",
    "places.tsv": "path\tcity\twhen\n003.jpg\tRome\t2024-05-01\nno.jpg\tOslo\t\n"
    "004.jpg\t\t2023-01-01\n",
    "places.txt": "path;city;when\n003.jpg;Rome;2024-05-01\nno.jpg;Oslo;\n004.jpg;;2023-01-01\n",
    "places.jsonl": '{"id": "003.jpg", "city": "Rome", "when": "2024-05-01T00:00:00"}\n'
    '{"id": "no.jpg", "city": "Oslo"}\n{"id": "004.jpg", "when": "2023-01-01T00:00:00"}\n',
}


@pytest.mark.parametrize("name", [*TABLES, "places.parquet"])
@pytest.mark.parametrize("is_built", [True, False])
def test_a_table_adds_columns(
    vectors: Path, index: Path, tmp_path: Path, capsys, name: str, is_built: bool
):
    table = tmp_path / name
    if name in TABLES:
        table.write_text(TABLES[name])
    else:
        columns = {"id": ["003.jpg", "no.jpg", "004.jpg"], "city": ["Rome", "Oslo", None]}
        days = [date(2024, 5, 1), None, date(2023, 1, 1)]
        parquet.write_table(pa.table({**columns, "when": days}), table)
    building = ["--embeddings", str(vectors)] * is_built
    assert main([*building, "--out", str(index), "--metadata", str(table)]) == 0
    said = capsys.readouterr().err
    assert "1 of 3" in said and "no.jpg" in said
    built = open_index(index)
    records = built.records("images", ["003.jpg", "004.jpg", "005.jpg"])
    assert [(record["city"], record["when"]) for record in records] == [
        ("Rome", datetime(2024, 5, 1)),
        (None, datetime(2023, 1, 1)),
        (None, None),
    ]
    assert all(record["path"] for record in records)
    found = built.search(
        "images", vector("x")[None], 5, of="texts", where=Filter.parse("when >= '2024-01-01'")
    )
    assert [item.record["id"] for item in found[0]] == ["003.jpg"]
    # A second table changes what it names.
    (tmp_path / "more.csv").write_text("path,city,name\n005.jpg,Bonn,B\n")
    assert main(["--out", str(index), "--metadata", str(tmp_path / "more.csv")]) == 0
    assert "name" in capsys.readouterr().err, "a column of the index's own"
    records = open_index(index).records("images", ["003.jpg", "005.jpg"])
    assert [record["city"] for record in records] == ["Rome", "Bonn"]
    assert records[1]["name"] == "005.jpg"
    (tmp_path / "more.csv").write_text("path,city\n005.jpg,7\n")
    assert main(["--out", str(index), "--metadata", str(tmp_path / "more.csv")]) == 1
    assert printed_code(capsys.readouterr().err) == "index.column"
    assert open_index(index).records("images", ["005.jpg"]) == records[1:]


def test_adding_without_the_table_names_the_columns_that_get_no_value(
    vectors: Path, index: Path, tmp_path: Path, capsys
):
    (tmp_path / "places.csv").write_text(TABLES["places.csv"])
    adding = ["--out", str(index), "--add", "--embeddings", str(vectors)]
    gone = ["--out", str(index), "--delete", "003.jpg"]
    for argv, said, city in (
        (adding, [], None),
        ([*adding, "--metadata", str(tmp_path / "places.csv")], [], "Rome"),
        # Every image is replaced, and keeps its columns; but not one that was away.
        (adding, [], "Rome"),
        (gone, [], None),
        (adding, [("1 images", "city, when")], None),
    ):
        capsys.readouterr()
        assert main(argv) == 0
        assert re.findall(r"(\d+ \w+) are new and have no (.*):", capsys.readouterr().err) == said
        if argv != gone:
            (record,) = open_index(index).records("images", ["003.jpg"])
            assert record.get("city") == city


@pytest.mark.parametrize(
    ("name", "text", "code", "line"),
    [
        ("a.csv", b"path,city\n1,Rome\n2,Rome,3\n", "index.metadata", 3),
        ("a.csv", b"city\nRome\n", "index.metadata", 1),
        ("a.csv", b"path,city\n1,Rome\n1,Oslo\n", "index.metadata", None),
        ("a.csv", b"path,city\n1,\xff\n", "index.metadata", None),
        ("a.csv", b"path,path\n1,2\n", "index.metadata", 1),
        ("a.csv", b"", "index.metadata", None),
        ("a.jsonl", b'{"path": "1", "city": "Rome"}\n{"path"\n', "index.metadata", 2),
        ("a.jsonl", b'{"path": "1", "cities": ["Rome"]}\n', "index.metadata", None),
        ("a.parquet", b"PAR1", "index.metadata", None),
        ("a.xls", b"", "table.kind", None),
    ],
)
def test_a_table_that_cannot_be_joined_is_named(
    tmp_path: Path, name: str, text: bytes, code: str, line: int | None
):
    path = tmp_path / name
    path.write_bytes(text)
    with raises(code, path=path, line=line):
        MetadataTable(path)
    with raises("index.metadata", path=tmp_path / "missing.csv"):
        MetadataTable(tmp_path / "missing.csv")


def test_numbers_that_no_type_holds_are_refused(tmp_path: Path):
    (tmp_path / "a.csv").write_text("id,size\n1,0.5\n")
    with raises("index.column"):
        # A float has 53 bits for digits.
        MetadataTable(tmp_path / "a.csv").join(pa.table({"id": ["2"], "size": [2**53 + 1]}))


@pytest.mark.parametrize("building", [[], ["--add"]])
def test_a_table_describes_the_kind_that_is_named(vectors: Path, index: Path, building: list[str]):
    table = index.parent / "a.csv"
    table.write_text("id,city\n1,Rome\n")
    argv = ["--embeddings", str(vectors), "--out", str(index), "--metadata", str(table)]
    assert main([*argv, *building, "--for", "texts"]) == 0
    assert open_index(index).columns("texts").names == ["id", "text", "city"]
    assert "city" not in open_index(index).columns("images").names


@pytest.mark.parametrize(
    "options",
    [
        ["--add"],
        ["--delete", "1", "--factory", "SQ8"],
        ["--add", "--embeddings", "vectors", "--querybank", "vectors"],
        ["--embeddings", "vectors", "--delete", "1"],
        ["--nprobe", "4"],
    ],
)
def test_options_that_contradict_change_nothing(index: Path, tmp_path: Path, capsys, options):
    version = open_index(index).version
    options = [str(tmp_path / word) if word == "vectors" else word for word in options]
    assert main(["--out", str(index), *options]) == 1
    assert printed_code(capsys.readouterr().err) == "index.options"
    assert open_index(index).version == version


# --- recall ---------------------------------------------------------------------------------------


def test_recall_is_measured_with_captions_and_a_setting_is_named(tmp_path: Path, capsys):
    vectors, out = embed_images(tmp_path / "images", 90, tmp_path / "vectors"), tmp_path / "index"
    asked = [f"asked {number}" for number in range(60)]
    asked = embed_texts(tmp_path / "asked.txt", asked, tmp_path / "asked")
    building = ["--embeddings", str(vectors), "--out", str(out), "--factory", "IVF8,SQ8"]
    assert main(building) == 0
    capsys.readouterr()
    assert main(["--out", str(out), "--check", str(asked)]) == 0
    said = capsys.readouterr().out
    settings = check_recall(open_index(out), asked, "images")
    # Exact search; 1, 2, 4 and 8 of the 8 lists, and sqrt(8) = 3, which is in force.
    assert [(setting.factory, setting.effort) for setting in settings] == [
        ("exact", None),
        *(("IVF8,SQ8", lists) for lists in (1, 2, 3, 4, 8)),
    ]
    assert [setting.is_in_force for setting in settings] == [False] * 3 + [True] + [False] * 2
    # The plain reference, over the items of the index.
    index = open_index(out)
    ids = index.table("images", ["id"])["id"].to_pylist()
    scores = embedded(asked, "texts") @ index.vectors("images", ids).T
    best = np.sort(scores, axis=1)[:, -10:-9] - 1e-5
    for setting in settings:
        if setting.effort:
            index.set_effort("images", setting.effort)
            found = index.search("images", embedded(asked, "texts"), 10, of="texts")
            found = np.array([[item.score for item in items] for items in found])
            assert setting.recall == pytest.approx((found >= best).mean())
    recalls = [setting.recall for setting in settings[1:]]
    # With one list some queries find too few, and are answered exactly.
    assert recalls[1:] == sorted(recalls[1:]) and recalls[1] < recalls[-1] == 1
    for row in ("IVF8,SQ8", "in force", "take this", f"{100 * recalls[0]:.1f} %"):
        assert row in said
    assert main(["--out", str(out), "--nprobe", "8"]) == 0
    assert open_index(out).state("images").entry.effort == 8
    # Images are no queries for images.
    with raises("index.querybank", path=tmp_path / "more"):
        embed_images(tmp_path / "images", 3, tmp_path / "more")
        check_recall(open_index(out), tmp_path / "more", "images")


def test_the_fastest_setting_that_finds_enough_is_taken():
    exact, slow = Setting("exact", None, 1, 0.1), Setting("IVF8,SQ8", 8, 0.995, 0.02)
    fast, poor = Setting("IVF8,SQ8", 4, 0.99, 0.015), Setting("IVF8,SQ8", 1, 0.8, 0.001)
    assert recommended([exact, slow, fast, poor]) is fast
    in_force = replace(slow, is_in_force=True)
    assert recommended([exact, in_force, fast, poor]) is in_force, "not clearly slower"
    in_force = replace(exact, is_in_force=True)
    assert recommended([in_force, slow, fast, poor]) is fast
