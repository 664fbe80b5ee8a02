"""Bulk embedding: nothing lost, nothing twice, whatever happens to the process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

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
from tf_dpce.errors import UserError
from tf_dpce.files import sole_writer
from tf_dpce.search.embed import Outcome, embed
from tf_dpce.search.inputs import find_images, find_texts


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def all_records(folder: Path, kind: str) -> list[dict]:
    return [record for path in sorted(folder.glob(f"{kind}-*.jsonl")) for record in lines(path)]


def test_a_small_list_is_written_as_it_is(tmp_path: Path):
    pattern = write_images(tmp_path / "photos", 4, bad=(1,))
    (tmp_path / "photos" / "003.jpg").write_bytes(b"")
    outcome = embed(PlainEncoder(), find_images([pattern]), tmp_path / "out", MODEL)
    assert outcome == Outcome(before=0, total=4, embedded=2, rejected=2)
    photos, out = tmp_path / "photos", tmp_path / "out"
    expected = np.stack([vector("image 000.jpg"), vector("image 002.jpg")])
    stored = np.load(out / "images-00000.npy", allow_pickle=False)
    assert stored.dtype == np.float32
    np.testing.assert_array_equal(stored, expected)
    assert lines(out / "images-00000.jsonl") == [
        {"id": "000.jpg", "path": str(photos / "000.jpg")},
        {"id": "002.jpg", "path": str(photos / "002.jpg")},
    ]
    bad, empty = str(photos / "001.jpg"), str(photos / "003.jpg")
    assert lines(out / "rejected-images.jsonl") == [
        {"id": "001.jpg", "path": bad, "status": 5, "reason": "cannot be decoded"},
        {"id": "003.jpg", "path": empty, "status": 1, "reason": "empty"},
    ]
    book = json.loads((out / "embeddings.json").read_text())
    assert (book["model"], book["dimension"]) == (MODEL, DIMENSION)
    counts = {key: book["kinds"]["images"][key] for key in ("embedded", "rejected", "complete")}
    assert counts == {"embedded": 2, "rejected": 2, "complete": True}


@pytest.mark.parametrize("shard_size", [7, 63, 64, 65, 200, 4096])
def test_the_size_of_shards_changes_no_row(tmp_path: Path, shard_size: int):
    bad = (0, 64, 70, 149)
    inputs = find_images([write_images(tmp_path / "photos", 150, bad)])
    embed(PlainEncoder(), inputs, tmp_path / "out", MODEL, shard_size)
    names = [f"{n:03d}.jpg" for n in range(150) if n not in bad]
    assert [record["id"] for record in all_records(tmp_path / "out", "images")] == names
    expected = np.stack([vector(f"image {name}") for name in names])
    np.testing.assert_array_equal(embedded(tmp_path / "out", "images"), expected)
    shards = sorted((tmp_path / "out").glob("images-*.npy"))
    assert len(shards) == -(-150 // shard_size)
    assert [item["id"] for item in lines(tmp_path / "out" / "rejected-images.jsonl")] == [
        f"{n:03d}.jpg" for n in bad
    ]


def test_texts_and_images_share_a_folder(tmp_path: Path):
    out = embed_images(tmp_path / "photos", 3, tmp_path / "out")
    before = files_of(out)
    sentences = ["A dog.", "", "bad words", "Zwei Katzen schlafen — 狗"]
    inputs = find_texts([write_texts(tmp_path / "captions.txt", sentences)])
    assert embed(PlainEncoder(), inputs, out, MODEL) == Outcome(0, 4, 2, 2)
    assert all_records(out, "texts") == [
        {"id": "1", "text": sentences[0]},
        {"id": "4", "text": sentences[3]},
    ]
    assert [item["reason"] for item in lines(out / "rejected-texts.jsonl")] == [
        *("empty", "no word of the vocabulary")
    ]
    after = files_of(out)
    assert {name for name in before if after[name] != before[name]} == {"embeddings.json"}


def test_a_rerun_changes_nothing_and_encodes_nothing(tmp_path: Path):
    pattern = write_images(tmp_path / "photos", 30, bad=(4,))
    first = embed(PlainEncoder(), find_images([pattern]), tmp_path / "out", MODEL, 8)
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    encoder = PlainEncoder()
    again = embed(encoder, find_images([pattern]), tmp_path / "out", MODEL, 8)
    assert again == Outcome(before=30, total=30, embedded=29, rejected=1)
    assert first == Outcome(before=0, total=30, embedded=29, rejected=1)
    assert encoder.calls == []
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == stamps


def test_progress_counts_up_to_the_total(tmp_path: Path):
    seen = []
    inputs = find_images([write_images(tmp_path / "photos", 130, bad=(3,))])
    embed(PlainEncoder(), inputs, tmp_path / "out", MODEL, 100, lambda *state: seen.append(state))
    # Chunks of 64, cut at the end of each shard of 100.
    assert seen == [(0, 130), (64, 130), (100, 130), (130, 130)]


# --- mistakes -------------------------------------------------------------------------------------


def test_a_folder_of_another_model_is_refused_and_left_as_it_is(tmp_path: Path):
    out = embed_images(tmp_path / "photos", 3, tmp_path / "out")
    before = files_of(out)
    with pytest.raises(UserError, match="another model"):
        embed(PlainEncoder(), find_images([str(tmp_path / "photos/*")]), out, "n" * 64)
    assert files_of(out) == before


def test_a_folder_of_other_inputs_is_refused_and_left_as_it_is(tmp_path: Path):
    out = embed_images(tmp_path / "photos", 3, tmp_path / "out")
    before = files_of(out)
    write_images(tmp_path / "photos", 4)
    with pytest.raises(UserError, match="other images"):
        embed(PlainEncoder(), find_images([str(tmp_path / "photos/*")]), out, MODEL)
    assert files_of(out) == before


def test_nothing_but_rejected_inputs_is_an_error_that_names_the_list(tmp_path: Path):
    inputs = find_images([write_images(tmp_path / "photos", 2, bad=(0, 1))])
    for _ in range(2):  # the second time there is nothing left to do, and still no vector
        with pytest.raises(UserError, match="none of the 2 images .*rejected-images.jsonl"):
            embed(PlainEncoder(), inputs, tmp_path / "out", MODEL)
    assert len(lines(tmp_path / "out" / "rejected-images.jsonl")) == 2


def test_a_image_that_vanishes_meanwhile_is_rejected(tmp_path: Path):
    inputs = find_images([write_images(tmp_path / "photos", 3)])
    (tmp_path / "photos" / "001.jpg").unlink()
    assert embed(PlainEncoder(), inputs, tmp_path / "out", MODEL).rejected == 1
    (item,) = lines(tmp_path / "out" / "rejected-images.jsonl")
    assert item["reason"] == "cannot be read: No such file or directory"
    assert item["status"] is None


def test_texts_that_get_fewer_meanwhile_end_the_run(tmp_path: Path):
    inputs = find_texts([write_texts(tmp_path / "captions.txt", ["one", "two", "three"])])
    write_texts(tmp_path / "captions.txt", ["one"])
    with pytest.raises(UserError, match="changed"):
        embed(PlainEncoder(), inputs, tmp_path / "out", MODEL)


def test_two_writers_never_meet(tmp_path: Path):
    inputs = find_images([write_images(tmp_path / "photos", 3)])
    (tmp_path / "out").mkdir()
    with sole_writer(tmp_path / "out"), pytest.raises(UserError, match="another process"):
        embed(PlainEncoder(), inputs, tmp_path / "out", MODEL)
    assert files_of(tmp_path / "out") == {}
    assert embed(PlainEncoder(), inputs, tmp_path / "out", MODEL).embedded == 3


@pytest.mark.parametrize("content", ["{}", "[]", '{"format": 1}', '{"format": 2}', "{"])
def test_a_book_that_is_none_is_told(tmp_path: Path, content: str):
    (tmp_path / "embeddings.json").write_text(content)
    inputs = find_images([write_images(tmp_path / "photos", 3)])
    with pytest.raises(UserError, match="embeddings.json"):
        embed(PlainEncoder(), inputs, tmp_path, MODEL)


# --- kills ----------------------------------------------------------------------------------------

# 10 images in shards of 4: three shards, each of them four renames (vectors, records, rejected
# list, book).
RENAMES = 12


def run_to_rename(root: Path, number: int, *arguments: str) -> int:
    command = [sys.executable, "-m", "tests.unit.search.killed", str(number), *arguments]
    return subprocess.run(command, cwd=root, check=False).returncode


@pytest.mark.parametrize("number", range(1, RENAMES + 1))
def test_a_killed_run_continues_to_the_same_bytes(project_root: Path, tmp_path: Path, number: int):
    pattern = write_images(tmp_path / "photos", 10, bad=(0, 3, 5, 9))
    whole, out = tmp_path / "whole", tmp_path / "out"
    embed(PlainEncoder(), find_images([pattern]), whole, MODEL, shard_size=4)
    status = run_to_rename(project_root, number, "embed", pattern, str(out), "4")
    assert status == -signal.SIGKILL
    assert files_of(out) != files_of(whole)
    encoder = PlainEncoder()
    outcome = embed(encoder, find_images([pattern]), out, MODEL, shard_size=4)
    # Whole shards are those before the last book; they are not encoded again.
    finished = min(10, 4 * ((number - 1) // 4))
    assert (outcome.before, sum(encoder.calls)) == (finished, 10 - finished)
    assert files_of(out) == files_of(whole)


def test_a_run_has_as_many_renames_as_were_killed(project_root: Path, tmp_path: Path):
    pattern = write_images(tmp_path / "photos", 10)
    after_last = ("embed", pattern, str(tmp_path / "out"), "4")
    assert run_to_rename(project_root, RENAMES + 1, *after_last) == os.EX_OK
