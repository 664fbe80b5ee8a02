"""Images, shards, texts, models and embeddings in an object store, by a real S3 protocol."""

from __future__ import annotations

import json
import os
from pathlib import Path

import fsspec
import pytest

from pipelines.embed import main
from pipelines.index import main as index
from tests.errors import printed_code, raises
from tests.extras.object_store import BUCKET, endpoint, objects, s3, upload
from tests.unit.pipelines.test_embed import draw_images
from tests.unit.search.plain import MODEL, PlainEncoder, files_of, write_images, write_texts
from tf_dpce.preprocessing.status import MAX_BYTES, TOO_MANY_BYTES
from tf_dpce.search.embedding.embed import embed
from tf_dpce.search.embedding.inputs import find_images
from tf_dpce.storage import open_folder

__all__ = ["endpoint", "s3"]

OUT = f"{BUCKET}/out"


def rows(records: bytes) -> list[dict]:
    return [json.loads(line) for line in records.splitlines()]


def test_images_of_a_bucket_get_what_the_same_files_get(s3: fsspec.AbstractFileSystem, tmp_path):
    write_images(tmp_path / "images" / "a", 7, bad=(3,))
    (tmp_path / "images" / "empty.png").touch()
    (tmp_path / "images" / ".hidden.jpg").write_bytes(b"image")
    (tmp_path / "images" / "notes.txt").write_text("no image")
    out = tmp_path / "out"
    embed(PlainEncoder(), find_images([str(tmp_path / "images")]), out, MODEL, 3)
    url = upload(s3, tmp_path / "images", f"{BUCKET}/images")
    inputs = find_images([url])
    embed(PlainEncoder(), inputs, OUT, MODEL, 3)
    here, there = files_of(out), objects(s3, OUT)
    assert set(here) == set(there)
    for name in here:
        if name.endswith(".npy"):
            assert there[name] == here[name]
        elif name.endswith(".jsonl"):
            # The address takes the place of the path, the store's date that of the disk.
            for one, other in zip(rows(here[name]), rows(there[name]), strict=True):
                assert other["path"] == f"{url}/{one['id']}"
                own = ("path", "modified")
                assert {k: v for k, v in one.items() if k not in own} == {
                    k: v for k, v in other.items() if k not in own
                }
                assert ("modified" in one) == bool(other.get("modified"))
    before = [(name, s3.info(name)["LastModified"]) for name in s3.find("archive/out")]
    encoder = PlainEncoder()
    assert embed(encoder, find_images([url]), OUT, MODEL, 3)[0] == 8 and encoder.calls == []
    s3.invalidate_cache()
    assert [(name, s3.info(name)["LastModified"]) for name in s3.find("archive/out")] == before
    assert [item.id for item in find_images([f"{url}/a/00[12].*"]).items()] == [
        "001.jpg",
        "002.jpg",
    ]
    assert [item.id for item in find_images([f"{url}/a/001.jpg"]).items()] == ["001.jpg"]
    # An object of the same size has another content.
    s3.pipe_file(f"{url}/a/000.jpg", b"image 999.jpg")
    with raises("embeddings.other_inputs"):
        embed(PlainEncoder(), find_images([url]), OUT, MODEL, 3)


def test_a_large_object_is_refused_and_one_that_vanishes_is_named(s3, tmp_path: Path):
    url = upload(s3, Path(write_images(tmp_path / "images", 3)).parent, f"{BUCKET}/images")
    s3.pipe_file(f"{url}/large.jpg", bytes(MAX_BYTES + 5))
    inputs = find_images([url])
    s3.rm(f"{url}/001.jpg")
    embed(PlainEncoder(), inputs, OUT, MODEL)
    rejected = {item["id"]: item for item in rows(objects(s3, OUT)["rejected-images.jsonl"])}
    assert set(rejected) == {"001.jpg", "large.jpg"}
    assert rejected["large.jpg"]["status"] == TOO_MANY_BYTES
    assert os.strerror(2) in rejected["001.jpg"]["reason"]


def test_parts_meet_in_a_bucket(s3, tmp_path: Path):
    inputs = find_images([write_images(tmp_path / "images", 9)])
    for number in (2, 3, 1):
        embed(PlainEncoder(), inputs, OUT, MODEL, 2, part=(number, 3))
    embed(PlainEncoder(), inputs, tmp_path / "out", MODEL, 2)
    assert objects(s3, OUT) == files_of(tmp_path / "out")


def test_the_verb_reads_model_shards_and_texts_from_a_bucket(
    s3, tiny_export: Path, tmp_path: Path, capsys, monkeypatch
):
    from tests.unit.export.tiny import tiny_data

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tiny_data(tmp_path / "data")
    texts = write_texts(tmp_path / "captions" / "a.txt", ["a dog", "two cats"])
    model = upload(s3, tiny_export, f"{BUCKET}/models/tiny")
    here, out = ["--model", str(tiny_export), "--out", str(tmp_path / "out")], ["--out", OUT]
    for source, option in (("data", "--images"), ("captions", "--texts")):
        url = upload(s3, tmp_path / source, f"{BUCKET}/{source}")
        local = texts if source == "captions" else str(tmp_path / source)
        given = f"{url}/a.txt" if source == "captions" else url
        assert main([*here, option, local]) == 0
        assert main(["--model", model, *out, option, given]) == 0
    found, expected = objects(s3, OUT), files_of(tmp_path / "out")
    assert set(found) == set(expected)
    for name in ("images-00002.npy", "images-00002.jsonl", "texts-00000.npy", "texts-00000.jsonl"):
        assert found[name] == expected[name]
    # The index of a copy finds what the folder holds.
    assert index(["--embeddings", OUT, "--out", str(tmp_path / "index")]) == 0
    assert "index of 9 images and 2 texts" in capsys.readouterr().out
    # The model was downloaded once.
    assert len(list((tmp_path / "cache").rglob("saved_model.pb"))) == 1


def test_what_is_wrong_with_a_bucket_is_said_in_a_line(
    s3, tiny_export, tmp_path, capsys, monkeypatch
):
    images = str(Path(draw_images(tmp_path / "images", 2)).parent)
    right = {"--model": str(tiny_export), "--images": images, "--out": OUT}
    for option, value, code in (
        ("--images", "s3://nowhere/images", "storage.missing"),
        ("--images", f"{BUCKET}/none", "inputs.no_match"),
        ("--model", f"{BUCKET}/none", "storage.missing"),
        ("--out", "s3://nowhere/out", "storage.missing"),
        ("--out", "ftp://host/out", "storage.scheme"),
        ("--out", "gs://archive/out", "storage.package"),
    ):
        options = {**right, option: value}
        assert main([part for pair in options.items() for part in pair]) == 1, (option, value)
        assert printed_code(capsys.readouterr().err) == code, (option, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    type(s3).clear_instance_cache()  # which keeps what it once connected to
    with raises("storage.failed"):
        open_folder(OUT).names()


def test_a_bucket_without_permission_is_said_in_a_line(s3, monkeypatch: pytest.MonkeyPatch):
    def denied(*arguments: object, **options: object) -> None:
        raise PermissionError("Access Denied")

    monkeypatch.setattr(s3, "pipe_file", denied)
    with raises("storage.denied"):
        open_folder(OUT).write("a.json", b"{}")
