"""Bulk embedding: nothing lost, nothing twice, whatever happens to the process."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.errors import raises
from tests.unit.search.plain import (
    DIMENSION,
    MODEL,
    PlainEncoder,
    embed_images,
    embedded,
    files_of,
    vector,
    write_images,
    write_texts,
)
from tf_dpce.search.embedding.embed import embed, read_ahead
from tf_dpce.search.embedding.inputs import Item, find_images, find_texts
from tf_dpce.search.embedding.store import KindProgress, read_records


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def counts(found: tuple[int, KindProgress]) -> tuple[int, int, int, int]:
    """Of what `embed` returns: done before, inputs, embeddings, rejected."""
    before, done = found
    return before, done.total, done.embedded, done.rejected


def all_records(folder: Path, kind: str) -> list[dict]:
    return [record for path in sorted(folder.glob(f"{kind}-*.jsonl")) for record in lines(path)]


def test_a_small_list_is_written_as_it_is(tmp_path: Path):
    pattern = write_images(tmp_path / "images", 4, bad=(1,))
    (tmp_path / "images" / "003.jpg").write_bytes(b"")
    found = embed(PlainEncoder(), find_images([pattern]), tmp_path / "out", MODEL)
    assert counts(found) == (0, 4, 2, 2)
    images, out = tmp_path / "images", tmp_path / "out"
    expected = np.stack([vector("image 000.jpg"), vector("image 002.jpg")])
    stored = np.load(out / "images-00000.npy", allow_pickle=False)
    assert stored.dtype == np.float32
    np.testing.assert_array_equal(stored, expected)
    records = lines(out / "images-00000.jsonl")
    assert [(record["id"], record["path"]) for record in records] == [
        ("000.jpg", str(images / "000.jpg")),
        ("002.jpg", str(images / "002.jpg")),
    ]
    # They are files and have a change and a content, but no header.
    assert records[1] == records[1] | {
        **{"folder": "", "name": "002.jpg", "bytes": len("image 002.jpg")},
        **{"width": None, "height": None, "taken": None},
        "content": hashlib.sha256(b"image 002.jpg").hexdigest(),
    }
    table = read_records(out / "images-00000.jsonl", "images")
    assert table.column_names == list(records[0])
    changed = (images / "002.jpg").stat().st_mtime_ns // 1000
    assert table["modified"].cast("int64")[1].as_py() == changed
    bad, empty = str(images / "001.jpg"), str(images / "003.jpg")
    assert lines(out / "rejected-images.jsonl") == [
        {"id": "001.jpg", "path": bad, "status": 5, "reason": "cannot be decoded"},
        {"id": "003.jpg", "path": empty, "status": 1, "reason": "empty"},
    ]
    manifest = json.loads((out / "images.json").read_text())
    assert (manifest["model"], manifest["dimension"]) == (MODEL, DIMENSION)
    assert {"embedded": 2, "rejected": 2, "complete": True}.items() <= manifest.items()


def test_neither_the_size_of_shards_nor_parts_change_a_row(tmp_path: Path):
    bad = (0, 64, 70, 149)
    inputs = find_images([write_images(tmp_path / "images", 150, bad)])
    names = [f"{n:03d}.jpg" for n in range(150) if n not in bad]
    expected = np.stack([vector(f"image {name}") for name in names])
    for parts, shard_size in ((1, 7), (1, 64), (1, 65), (1, 200), (3, 20), (4, 9)):
        out, whole = tmp_path / f"{parts}-{shard_size}", tmp_path / f"1-{shard_size}"
        shards, taken = -(-150 // shard_size), 0
        # In any order; the last one that ends completes the folder.
        for number in range(parts, 0, -1):
            assert not (out / "rejected-images.jsonl").exists()
            before, done = embed(
                PlainEncoder(), inputs, out, MODEL, shard_size, part=(number, parts)
            )
            # Of 8 shards the first of 3 parts has the numbers 0, 3 and 6.
            assert len(done.shards) == len(range(number - 1, shards, parts)) and before == 0
            taken += done.taken
        assert taken == 150
        assert len(list(out.glob("images-*.npy"))) == shards
        if parts > 1:
            embed(PlainEncoder(), inputs, whole, MODEL, shard_size)
            assert files_of(out) == files_of(whole)
        assert [record["id"] for record in all_records(out, "images")] == names
        np.testing.assert_array_equal(embedded(out, "images"), expected)
        ids = [item["id"] for item in lines(out / "rejected-images.jsonl")]
        assert ids == [f"{n:03d}.jpg" for n in bad]
    for part in ((151, 151), (2, 1)):
        with raises("inputs.parts"):
            embed(PlainEncoder(), inputs, tmp_path / "none", MODEL, part=part)
    assert not (tmp_path / "none").exists()


def test_texts_and_images_share_a_folder(tmp_path: Path):
    out = embed_images(tmp_path / "images", 3, tmp_path / "out")
    before = files_of(out)
    texts = ["A dog.", "", "bad words", "Zwei Katzen schlafen — 狗"]
    inputs = find_texts([write_texts(tmp_path / "captions.txt", texts)])
    assert counts(embed(PlainEncoder(), inputs, out, MODEL)) == (0, 4, 2, 2)
    assert all_records(out, "texts") == [
        {"id": "1", "text": texts[0]},
        {"id": "4", "text": texts[3]},
    ]
    assert [item["reason"] for item in lines(out / "rejected-texts.jsonl")] == [
        *("empty", "no word of the vocabulary")
    ]
    after = files_of(out)
    assert {name: after[name] for name in before} == before


def test_a_rerun_changes_nothing_and_encodes_nothing(tmp_path: Path):
    pattern = write_images(tmp_path / "images", 30, bad=(4,))
    first = embed(PlainEncoder(), find_images([pattern]), tmp_path / "out", MODEL, 8)
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    encoder = PlainEncoder()
    again = embed(encoder, find_images([pattern]), tmp_path / "out", MODEL, 8)
    assert (counts(first), counts(again)) == ((0, 30, 29, 1), (30, 30, 29, 1))
    assert encoder.calls == []
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == stamps


# --- mistakes -------------------------------------------------------------------------------------


def test_a_folder_of_another_model_or_other_inputs_is_left_as_it_is(tmp_path: Path):
    out = embed_images(tmp_path / "images", 3, tmp_path / "out")
    before, pattern = files_of(out), str(tmp_path / "images/*")
    with raises("embeddings.other_model", path=out):
        embed(PlainEncoder(), find_images([pattern]), out, "n" * 64)
    write_images(tmp_path / "images", 4)
    with raises("embeddings.other_inputs", path=out):
        embed(PlainEncoder(), find_images([pattern]), out, MODEL)
    assert files_of(out) == before


def test_nothing_but_rejected_inputs_is_an_error_that_names_the_list(tmp_path: Path):
    inputs = find_images([write_images(tmp_path / "images", 2, bad=(0, 1))])
    path = tmp_path / "out" / "rejected-images.jsonl"
    for _ in range(2):  # the second time there is nothing left to do, and still no embedding
        with raises("embeddings.none", path=path):
            embed(PlainEncoder(), inputs, tmp_path / "out", MODEL)
    assert len(lines(path)) == 2


def test_an_image_that_vanishes_is_rejected_and_fewer_texts_end_the_run(tmp_path: Path):
    out, captions = tmp_path / "out", tmp_path / "captions.txt"
    inputs = find_images([write_images(tmp_path / "images", 3)])
    (tmp_path / "images" / "001.jpg").unlink()
    assert counts(embed(PlainEncoder(), inputs, out, MODEL)) == (0, 3, 2, 1)
    (item,) = lines(out / "rejected-images.jsonl")
    assert os.strerror(errno.ENOENT) in item["reason"] and item["status"] is None
    inputs = find_texts([write_texts(captions, ["one", "two", "three"])])
    write_texts(captions, ["one"])
    with raises("embeddings.inputs_changed"):
        embed(PlainEncoder(), inputs, tmp_path / "texts", MODEL)


def test_every_item_comes_once_in_order_and_at_most_two_chunks_are_in_memory():
    started = taken = 0

    def items():
        nonlocal started
        for started in range(1, 301):
            yield Item(str(started), contents=b"%d" % started)

    for chunk, contents in read_ahead(items()):
        for item, (content, facts) in zip(chunk, contents, strict=True):
            taken += 1
            assert (item.id, content, facts["bytes"]) == (
                str(taken),
                b"%d" % taken,
                len(str(taken)),
            )
        assert started <= taken + 64
    assert taken == 300 and list(read_ahead([])) == []


# --- kills ----------------------------------------------------------------------------------------

# 10 images in shards of 4: three shards, each of them three renames (vectors, records, counts);
# then the rejected list and the manifest, which was first made by a link.
RENAMES = 11


def run_to_rename(root: Path, number: int, *arguments: str) -> int:
    command = [sys.executable, "-m", "tests.unit.search.killed", str(number), *arguments]
    return subprocess.run(command, cwd=root, check=False).returncode


@pytest.mark.process
@pytest.mark.parametrize("number", range(1, RENAMES + 2))
def test_a_killed_run_continues_to_the_same_bytes(project_root: Path, tmp_path: Path, number: int):
    pattern = write_images(tmp_path / "images", 10, bad=(0, 3, 5, 9))
    whole, out = tmp_path / "whole", tmp_path / "out"
    embed(PlainEncoder(), find_images([pattern]), whole, MODEL, shard_size=4)
    status = run_to_rename(project_root, number, "embed", pattern, str(out), "4")
    if number > RENAMES:
        assert status == os.EX_OK, "there are no more renames than were killed"
        return
    assert status == -signal.SIGKILL
    assert files_of(out) != files_of(whole)
    encoder = PlainEncoder()
    before, _ = embed(encoder, find_images([pattern]), out, MODEL, shard_size=4)
    # The shards whose counts are there are not encoded again.
    finished = min(10, 4 * ((number - 1) // 3))
    assert (before, sum(encoder.calls)) == (finished, 10 - finished)
    assert files_of(out) == files_of(whole)
