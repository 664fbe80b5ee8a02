"""From pairs to a prepared folder: what is stored and rejected, and that it is always whole."""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.errors import raises
from tests.samples import (
    Steps,
    animated_png,
    bitmap_of_size,
    digests,
    image,
    truncated,
    write_flickr8k,
)
from tf_dpce.data.manifest import Manifest
from tf_dpce.data.prepare import prepare
from tf_dpce.data.split_writer import storable
from tf_dpce.datasets.flickr import read_flickr8k
from tf_dpce.datasets.pair import Pair, Rejected
from tf_dpce.files import exclusive_lock
from tf_dpce.logging import run_context
from tf_dpce.preprocessing import status


def pairs(folder: Path, count: int = 3) -> list[Pair]:
    """Images with two captions each in each split, drawn into `folder`."""
    items = []
    for split in ("train", "val", "test"):
        for number in range(count):
            name = f"{split}{number}"
            path = folder / f"{name}.png"
            path.write_bytes(image("PNG", size=(6 + number, 5)))
            for text in (f"A {split} thing", f"The image {number}."):
                items.append(Pair(name, path, text, split, name))
    return items


def records(folder: Path, split: str) -> list[dict[str, list]]:
    paths = [str(folder / shard.file) for shard in Manifest.load(folder).splits[split].shards]
    examples = [tf.train.Example.FromString(r.numpy()) for r in tf.data.TFRecordDataset(paths)]
    return [
        {
            name: list(feature.int64_list.value or feature.bytes_list.value) or [0]
            for name, feature in example.features.feature.items()
        }
        for example in examples
    ]


def rejected(folder: Path) -> list[tuple[str, str]]:
    lines = [json.loads(line) for line in (folder / "rejected.jsonl").read_text().splitlines()]
    return [(Path(line["path"]).name, line["reason"]) for line in lines]


def run(items: Iterable[Pair | Rejected], out: Path, **options):
    return prepare(items, out, source="table", **options)


# --- what is stored -----------------------------------------------------------------------------


def test_every_pair_is_in_the_shards_and_counted_in_the_manifest(tmp_path: Path):
    items = pairs(tmp_path)
    prepared = run(items, tmp_path / "out", lowercase=True)
    manifest = Manifest.load(tmp_path / "out")
    assert prepared.manifest == manifest and prepared.rejected == ()
    for split, info in manifest.splits.items():
        assert (info.images, info.captions, info.instances) == (3, 6, 3)
        stored = {
            (record["image_id"][0].decode(), record["path"][0].decode(), caption.decode())
            for record in records(tmp_path / "out", split)
            for caption in record["captions"]
        }
        asked = {(p.image_id, str(p.path), p.caption) for p in items if p.split == split}
        assert stored == asked
        for record in records(tmp_path / "out", split):
            assert record["image"] == [Path(record["path"][0].decode()).read_bytes()]


def test_the_files_are_those_of_the_design(tmp_path: Path):
    out = tmp_path / "out"
    prepared = run(pairs(tmp_path), out)
    shards = [f"{split}-00000-of-00001.tfrecord" for split in ("train", "val", "test")]
    names = {"manifest.json", "vocabulary.txt", "rejected.jsonl", *shards}
    assert {path.name for path in out.iterdir()} == names
    assert set(prepared.files) == {out / name for name in names}


def test_the_vocabulary_is_that_of_the_training_captions_alone(tmp_path: Path):
    run(pairs(tmp_path), tmp_path / "out", lowercase=True)
    # Three times "a train thing" and "the image" with a number; not "val" nor "test".
    words = ["a", "image", "the", "thing", "train", "0", "1", "2"]
    assert (tmp_path / "out" / "vocabulary.txt").read_text().split("\n") == [*words, ""]


def test_case_stays_unless_asked(tmp_path: Path):
    prepared = run(pairs(tmp_path), tmp_path / "out")
    words = (tmp_path / "out" / "vocabulary.txt").read_text().split("\n")
    assert words == ["A", "The", "image", "thing", "train", "0", "1", "2", ""]
    assert not prepared.manifest.lowercase


def test_vectors_restrict_the_vocabulary_and_the_coverage_is_said(tmp_path: Path):
    vectors = tmp_path / "vectors.npz"
    np.savez(vectors, words=np.array(["thing", "a", "far"]), vectors=np.ones((3, 4), np.float32))
    prepared = run(pairs(tmp_path), tmp_path / "out", lowercase=True, vectors=vectors)
    assert (tmp_path / "out" / "vocabulary.txt").read_text() == "a\nthing\n"
    # Each training image has six words, of which "a" and "thing" are two.
    assert prepared.manifest.vocabulary_coverage == pytest.approx(2 / 6)


@pytest.mark.parametrize(("lowercase", "words"), [(True, "thing\ntrain\n"), (False, "train\n")])
def test_a_lower_cased_vocabulary_takes_vectors_of_words_with_capitals(
    tmp_path: Path, lowercase: bool, words: str
):
    (tmp_path / "glove.txt").write_text("Thing 1 2\ntrain 3 4\n")
    run(pairs(tmp_path), tmp_path / "out", lowercase=lowercase, vectors=tmp_path / "glove.txt")
    assert (tmp_path / "out" / "vocabulary.txt").read_text() == words


def test_damaged_vectors_are_found_out_before_any_image_is_decoded(tmp_path: Path):
    vectors, display = tmp_path / "glove.txt", Steps()
    vectors.write_text("a 1 2\nthing 1\n")
    with raises("vectors.line", vectors, line=2), run_context(display=display):
        run(pairs(tmp_path), tmp_path / "out", vectors=vectors)
    assert display.steps == []


def test_instances_are_dense_in_each_split(tmp_path: Path):
    items = [
        Pair(p.image_id, p.path, p.caption, p.split, f"{p.split} person {int(p.image_id[-1]) // 2}")
        for p in pairs(tmp_path, count=5)
    ]
    items[0].path.write_bytes(b"")
    run(items, tmp_path / "out")
    for split, info in Manifest.load(tmp_path / "out").splits.items():
        stored = records(tmp_path / "out", split)
        people: dict[int, set[int]] = {}
        for record in stored:
            number = int(record["image_id"][0].decode().removeprefix(split))
            people.setdefault(record["instance"][0], set()).add(number // 2)
        assert sorted(people) == list(range(info.instances)) == [0, 1, 2]
        assert all(len(numbers) == 1 for numbers in people.values()), "one person an instance"


def test_training_images_are_mixed_by_the_seed_and_the_others_keep_their_order(tmp_path: Path):
    items = pairs(tmp_path, count=20)
    orders = {}
    for seed in (0, 0, 1):
        run(items, tmp_path / "out", seed=seed)
        order = {
            split: [int(r["image_id"][0].decode().removeprefix(split)) for r in rows]
            for split in ("train", "val", "test")
            for rows in [records(tmp_path / "out", split)]
        }
        assert orders.setdefault(seed, order) == order, "the same again for the same seed"
        assert order["val"] == order["test"] == list(range(20))
        assert order["train"] != list(range(20)) and sorted(order["train"]) == list(range(20))
    assert orders[0]["train"] != orders[1]["train"]


def test_large_splits_take_several_shards(tmp_path: Path):
    run(pairs(tmp_path, count=9), tmp_path / "out", shard_bytes=1000)
    info = Manifest.load(tmp_path / "out").splits["train"]
    assert len(info.shards) > 1 and sum(shard.records for shard in info.shards) == 9
    assert len(records(tmp_path / "out", "train")) == 9


def test_the_split_digest_distinguishes_splits_and_nothing_else(tmp_path: Path):
    items = pairs(tmp_path)
    digest = run(items, tmp_path / "out").manifest.split_digest
    assert run(items[::-1], tmp_path / "out", seed=5).manifest.split_digest == digest
    assert run(items[2:], tmp_path / "out").manifest.split_digest != digest


def test_the_bytes_do_not_depend_on_the_workers(tmp_path: Path):
    items = pairs(tmp_path, count=12)
    items[6].path.write_bytes(b"GIF89a")
    for workers in (1, 2, 5):
        run(items, tmp_path / str(workers), workers=workers)
        assert digests(tmp_path / str(workers)) == digests(tmp_path / "1")


def test_progress_counts_every_image(tmp_path: Path):
    display = Steps()
    with run_context(display=display):
        run(pairs(tmp_path), tmp_path / "out")
    assert display.steps == [(done, 9) for done in range(1, 10)]


# --- what is rejected ---------------------------------------------------------------------------


def _png_of_size(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk


STORED = {
    "JPEG": image(),
    "progressive JPEG": image(progressive=True),
    "one pixel": image("PNG", size=(1, 1)),
    "one pixel JPEG": image(size=(1, 1)),
    "16 bits": image("PNG", mode="I;16"),
    "CMYK": image(mode="CMYK"),
    "grey": image(mode="L"),
    "grey PNG": image("PNG", mode="L"),
    "alpha": image("PNG", mode="RGBA"),
    "grey with alpha": image("PNG", mode="LA"),
    "palette": image("PNG", mode="P"),
    "animated": animated_png(),
}
REJECTED = {
    "empty": (b"", "empty"),
    "GIF": (image("GIF", mode="L"), "neither JPEG nor PNG"),
    "WebP": (image("WEBP"), "neither JPEG nor PNG"),
    "text": (b"<html>not found</html>", "neither JPEG nor PNG"),
    "truncated JPEG": (truncated(image(size=(90, 70))), "cannot be decoded"),
    "truncated PNG": (truncated(image("PNG", size=(90, 70))), "cannot be decoded"),
    "JPEG mark alone": (image()[:4], "cannot be decoded"),
    "PNG mark alone": (image("PNG")[:12], "cannot be decoded"),
    "PNG header alone": (_png_of_size(10, 10), "cannot be decoded"),
    "PNG without area": (_png_of_size(0, 10), "cannot be decoded"),
    "bomb": (_png_of_size(60_000, 60_000), "more pixels than the limit"),
    "too long": (image() + b"\0" * status.MAX_BYTES, "more bytes than the limit"),
    "truncated BMP": (truncated(image("BMP", size=(90, 70))), "cannot be decoded"),
    "BMP bomb": (bitmap_of_size(60_000, 60_000), "more pixels than the limit"),
}


def test_what_training_can_decode_is_stored_as_it_is_and_all_else_has_a_reason():
    for kind, contents in STORED.items():
        assert storable(contents) == (contents, None), kind
    for kind, (contents, reason) in REJECTED.items():
        assert storable(contents)[1] == reason, kind


def test_unusable_images_are_listed_once_and_the_rest_stored(tmp_path: Path):
    items = pairs(tmp_path, count=len(REJECTED) + 2)
    train = [item for item in items if item.split == "train"][::2]
    for item, (contents, _) in zip(train, REJECTED.values(), strict=False):
        item.path.write_bytes(contents)
    train[-1].path.unlink()
    run(items + [Rejected("a line", "no tab")], tmp_path / "out")
    expected = [("a line", "no tab"), (train[-1].path.name, "no such file")]
    expected += [
        (item.path.name, reason)
        for item, (_, reason) in zip(train, REJECTED.values(), strict=False)
    ]
    assert sorted(rejected(tmp_path / "out")) == sorted(expected)
    manifest = Manifest.load(tmp_path / "out")
    assert manifest.rejected == len(expected)
    assert manifest.splits["train"].images == 1
    assert manifest.splits["val"].images == len(REJECTED) + 2


def test_a_file_of_many_gigabytes_is_rejected_without_being_read(tmp_path: Path):
    items = pairs(tmp_path)
    with items[0].path.open("r+b") as stream:
        stream.truncate(2**40)
    run(items, tmp_path / "out")
    assert rejected(tmp_path / "out") == [("train0.png", "more bytes than the limit")]


def test_what_is_stored_is_what_was_checked(tmp_path: Path):
    """The stored bytes decode to the pixels that another decoder sees."""
    run(pairs(tmp_path), tmp_path / "out")
    for record in records(tmp_path / "out", "train"):
        (contents,) = record["image"]
        expected = np.asarray(Image.open(io.BytesIO(contents)))
        np.testing.assert_array_equal(tf.io.decode_png(contents).numpy(), expected)


def test_empty_captions_are_rejected_and_an_image_of_nothing_else_once(tmp_path: Path):
    items = pairs(tmp_path)
    first, silent = items[0], tmp_path / "silent.png"
    silent.write_bytes(image("PNG"))
    extra = [Pair("train0", first.path, text, "train", "train0") for text in ("", " . ", "(?)")]
    extra += [Pair("silent", silent, text, "train", "silent") for text in ("", "...")]
    run(items + extra, tmp_path / "out")
    assert rejected(tmp_path / "out") == [
        *[("train0.png", "empty caption")] * 3,
        ("silent.png", "no caption but empty ones"),
    ]
    stored = {r["image_id"][0]: r["captions"] for r in records(tmp_path / "out", "train")}
    assert b"silent" not in stored and len(stored[b"train0"]) == 2


# --- always whole ---------------------------------------------------------------------------------


def test_an_empty_split_is_named_and_leaves_nothing(tmp_path: Path):
    for split in ("train", "val", "test"):
        items = [item for item in pairs(tmp_path) if item.split != split]
        with raises("prepare.empty_split") as caught:
            run(items, tmp_path / "out")
        assert repr(split) in str(caught.value) and "--split-file" in str(caught.value)
        assert not (tmp_path / "out").exists()


def test_a_split_of_bad_images_names_the_last_and_its_fault(tmp_path: Path):
    items = pairs(tmp_path)
    for item in items:
        if item.split == "val":
            item.path.write_bytes(b"GIF89a")
    with raises("prepare.empty_split") as caught:
        run(items, tmp_path / "out")
    assert str(caught.value).endswith("val2.png: neither JPEG nor PNG")


def test_if_every_image_is_missing_the_folder_is_in_doubt(tmp_path: Path):
    items = pairs(tmp_path)
    for item in items:
        item.path.unlink(missing_ok=True)
    with raises("prepare.empty_split") as caught:
        run(items, tmp_path / "out")
    assert "--images" in str(caught.value)
    # If one is there and is no image, the folder is right.
    (tmp_path / "train1.png").write_bytes(b"GIF89a")
    with raises("prepare.empty_split") as caught:
        run(items, tmp_path / "out")
    assert "--images" not in str(caught.value)


@pytest.mark.parametrize("missing", ["vectors", "images"])
def test_a_failed_second_run_leaves_the_first_one_whole(tmp_path: Path, missing: str):
    items, out = pairs(tmp_path), tmp_path / "out"
    run(items, out)
    before = digests(out)
    vectors = tmp_path / "vectors.npz"
    np.savez(vectors, words=np.array(["qzxw"]), vectors=np.ones((1, 4), np.float32))
    if missing == "images":
        for item in items:
            item.path.unlink(missing_ok=True)
    with raises("vocabulary.empty" if missing == "vectors" else "prepare.empty_split"):
        run(items, out, vectors=vectors if missing == "vectors" else None)
    assert digests(out) == before
    assert Manifest.load(out).splits["train"].images == 3


def test_a_second_run_leaves_nothing_of_the_first(tmp_path: Path):
    out = tmp_path / "out"
    run(pairs(tmp_path, count=9), out, shard_bytes=500)
    assert len(list(out.glob("train-*.tfrecord"))) > 1
    run(pairs(tmp_path, count=1), out)
    assert len(list(out.glob("*.tfrecord"))) == 3
    run(pairs(tmp_path, count=1), tmp_path / "fresh")
    assert digests(out) == digests(tmp_path / "fresh")


@pytest.mark.parametrize(
    "name", ["notes.txt", "train-00000-of-00001.tfrecord", "vocabulary.txt", "manifest.json"]
)
def test_a_folder_of_something_else_is_refused_and_left_as_it_is(tmp_path: Path, name: str):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("{}")
    with raises("prepare.foreign", out) as caught:
        run(pairs(tmp_path), out)
    assert name in str(caught.value)
    assert {path.name: path.read_text() for path in out.iterdir()} == {name: "{}"}


def test_images_may_lie_where_they_are_prepared(tmp_path: Path):
    out = tmp_path / "out"
    (out / "photos").mkdir(parents=True)
    run(pairs(out / "photos"), out)
    assert Manifest.load(out).splits["train"].images == 3
    (out / "notes.txt").write_text("beside a manifest")
    run(pairs(out / "photos"), out)
    assert (out / "notes.txt").exists()


def test_a_shard_that_the_manifest_does_not_list_is_somebody_elses(tmp_path: Path):
    out = tmp_path / "out"
    run(pairs(tmp_path), out)
    (out / "train-mine.tfrecord").write_bytes(b"mine")
    before = digests(out)
    with raises("prepare.foreign", out) as caught:
        run(pairs(tmp_path), out)
    assert "train-mine.tfrecord" in str(caught.value)
    assert digests(out) == before


def test_two_runs_never_meet(tmp_path: Path):
    out = tmp_path / "out"
    run(pairs(tmp_path), out)
    before = digests(out)
    with exclusive_lock(out), raises("file.locked", out):
        run(pairs(tmp_path, count=1), out)
    assert digests(out) == before


def test_what_is_read_is_asked_for_while_nobody_else_can_write(tmp_path: Path):
    out = tmp_path / "out"

    def reader():
        with raises("file.locked", out), exclusive_lock(out):
            pass
        yield from pairs(tmp_path)

    run(reader(), out)


def test_a_folder_whose_name_is_not_utf8_has_its_rejected_list(tmp_path: Path):
    folder = tmp_path / os.fsdecode(b"fotos-\xff")
    folder.mkdir()
    items = pairs(folder)
    items[0].path.write_bytes(b"")
    run(items, tmp_path / "out")
    (line,) = (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()
    assert line.endswith('train0.png", "reason": "empty"}')


def test_what_a_killed_process_left_is_no_hindrance(tmp_path: Path):
    left = tmp_path / "out" / ".prepare.0123456789ab.tmp"
    left.mkdir(parents=True)
    (left / "train-00000").write_bytes(b"half a shard")
    run(pairs(tmp_path), tmp_path / "out")
    run(pairs(tmp_path), tmp_path / "fresh")
    assert digests(tmp_path / "out") == digests(tmp_path / "fresh")


def test_more_instances_than_labels_can_number_are_an_error(tmp_path: Path, monkeypatch):
    # Sixteen million images would not fit here: the same line is drawn at two instances.
    monkeypatch.setattr("tf_dpce.data.split_writer.MAX_INSTANCES", 2)
    run(pairs(tmp_path, count=2), tmp_path / "out")
    with raises("prepare.instances"):
        run(pairs(tmp_path, count=3), tmp_path / "out")


def test_flickr8k_from_folder_to_shards(tmp_path: Path):
    root = write_flickr8k(tmp_path / "flickr8k")
    prepared = prepare(read_flickr8k(root), tmp_path / "out", source="flickr8k", workers=2)
    counts = {name: split.images for name, split in prepared.manifest.splits.items()}
    assert counts == {"train": 6, "val": 2, "test": 2} and prepared.rejected == ()
