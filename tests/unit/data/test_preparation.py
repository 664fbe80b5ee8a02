"""From pairs to a prepared folder: what is stored and rejected, and that it is always whole."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import tensorflow as tf

from tests.errors import raises
from tests.heavy import blank_png
from tests.samples import Steps, digests, image, truncated
from tf_dpce.data.manifest import Manifest
from tf_dpce.data.prepare import prepare
from tf_dpce.datasets.listing import Image, Rejected
from tf_dpce.files import exclusive_lock
from tf_dpce.logging import run_context
from tf_dpce.preprocessing import status


def drawn(folder: Path, count: int = 3) -> list[Image]:
    """Images with two captions each in each split, drawn into `folder`."""
    images = []
    for split in ("train", "val", "test"):
        for number in range(count):
            name = f"{split}{number}"
            path = folder / f"{name}.png"
            path.write_bytes(image("PNG", size=(6 + number, 5)))
            captions = [f"A {split} thing", f"The image {number}."]
            images.append(Image(name, path, captions, split))
    return images


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


def run(items: Iterable[Image | Rejected], out: Path, **options):
    return prepare(items, out, source="table", **options)


# --- what is stored -----------------------------------------------------------------------------


def test_every_image_is_in_the_shards_and_counted_in_the_manifest(tmp_path: Path):
    items, out = drawn(tmp_path), tmp_path / "out"
    prepared = run(items, out, lowercase=True)
    manifest = Manifest.load(out)
    assert prepared.manifest == manifest and prepared.rejected == ()
    for split, info in manifest.splits.items():
        assert (info.images, info.captions, info.instances) == (3, 6, 3)
        own = {item.image_id: item for item in items if item.split == split}
        stored = {record["image_id"][0].decode(): record for record in records(out, split)}
        assert stored.keys() == own.keys()
        for name, record in stored.items():
            assert record["image"] == [own[name].path.read_bytes()]
            assert record["path"] == [str(own[name].path).encode()]
            assert record["captions"] == [caption.encode() for caption in own[name].captions]
    shards = [f"{split}-00000-of-00001.tfrecord" for split in ("train", "val", "test")]
    names = {"manifest.json", "vocabulary.txt", "rejected.jsonl", *shards}
    assert {path.name for path in out.iterdir()} == names
    assert set(prepared.files) == {out / name for name in names}


def test_the_vocabulary_is_that_of_the_training_captions_alone(tmp_path: Path):
    # Three times "a train thing" and "the image" with a number; not "val" nor "test".
    for lowercase, words in (
        (True, ["a", "image", "the", "thing", "train", "0", "1", "2"]),
        (False, ["A", "The", "image", "thing", "train", "0", "1", "2"]),
    ):
        prepared = run(drawn(tmp_path), tmp_path / "out", lowercase=lowercase)
        assert (tmp_path / "out" / "vocabulary.txt").read_text().split("\n") == [*words, ""]
        assert prepared.manifest.lowercase == lowercase


def test_vectors_restrict_the_vocabulary_and_the_coverage_is_said(tmp_path: Path):
    vectors = tmp_path / "glove.txt"
    vectors.write_text("Thing 1 2\ntrain 3 4\nfar 5 6\n")
    # Each training image has six words; in lower case, one takes the vector of one with capitals.
    for lowercase, words in ((True, ["thing", "train"]), (False, ["train"])):
        prepared = run(drawn(tmp_path), tmp_path / "out", lowercase=lowercase, vectors=vectors)
        assert (tmp_path / "out" / "vocabulary.txt").read_text().split() == words
        assert prepared.manifest.vocabulary_coverage == pytest.approx(len(words) / 6)


def test_damaged_vectors_are_found_out_before_any_image_is_decoded(tmp_path: Path):
    vectors, display = tmp_path / "glove.txt", Steps()
    vectors.write_text("a 1 2\nthing 1\n")
    with raises("vectors.line", vectors, line=2), run_context(display=display):
        run(drawn(tmp_path), tmp_path / "out", vectors=vectors)
    # How many images are to be decoded is known; how many are listed, and words read, is not.
    assert {total for _, total in display.steps} == {None}


def test_instances_are_dense_in_each_split(tmp_path: Path):
    items = [
        replace(item, instance=f"{item.split} person {int(item.image_id[-1]) // 2}")
        for item in drawn(tmp_path, count=5)
    ]
    items[0].path.write_bytes(b"")
    run(items, tmp_path / "out")
    for split, info in Manifest.load(tmp_path / "out").splits.items():
        people: dict[int, set[int]] = {}
        for record in records(tmp_path / "out", split):
            number = int(record["image_id"][0].decode().removeprefix(split))
            people.setdefault(record["instance"][0], set()).add(number // 2)
        assert sorted(people) == list(range(info.instances)) == [0, 1, 2]
        assert all(len(numbers) == 1 for numbers in people.values()), "one person an instance"


def test_training_images_are_mixed_by_the_seed_and_the_others_keep_their_order(tmp_path: Path):
    items = drawn(tmp_path, count=20)
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


def test_the_split_digest_distinguishes_splits_and_nothing_else(tmp_path: Path):
    items = drawn(tmp_path)
    digest = run(items, tmp_path / "out").manifest.split_digest
    assert run(items[::-1], tmp_path / "out", seed=5).manifest.split_digest == digest
    assert run(items[1:], tmp_path / "out").manifest.split_digest != digest


def test_the_bytes_do_not_depend_on_the_workers(tmp_path: Path):
    items = drawn(tmp_path, count=12)
    items[3].path.write_bytes(b"GIF89a")
    for workers in (1, 4):
        run(items, tmp_path / str(workers), workers=workers)
        assert digests(tmp_path / str(workers)) == digests(tmp_path / "1")


# --- what is rejected ---------------------------------------------------------------------------


REJECTED = {
    "empty": b"",
    "PDF, neither JPEG nor PNG": image("PDF"),
    "cannot be decoded": truncated(image(size=(90, 70))),
    "more pixels than the limit": blank_png(10_000, 6_401, grey=True),
    "more bytes than the limit": image() + b"\0" * status.MAX_BYTES,
}


def test_unusable_images_are_listed_once_and_the_rest_stored(tmp_path: Path):
    items = drawn(tmp_path, count=len(REJECTED) + 2)
    train = [item for item in items if item.split == "train"]
    for item, contents in zip(train, REJECTED.values(), strict=False):
        item.path.write_bytes(contents)
    train[-1].path.unlink()
    run(items + [Rejected("a line", "no tab")], tmp_path / "out")
    expected = [("a line", "no tab"), (train[-1].path.name, "no such file")]
    expected += [(item.path.name, why) for item, why in zip(train, REJECTED, strict=False)]
    assert sorted(rejected(tmp_path / "out")) == sorted(expected)
    lines = map(json.loads, (tmp_path / "out" / "rejected.jsonl").read_text().splitlines())
    (nearest,) = [line["nearest"] for line in lines if "nearest" in line]
    assert nearest in {str(item.path) for item in train[:-1]}, "of the missing file alone"
    manifest = Manifest.load(tmp_path / "out")
    assert manifest.rejected == len(expected)
    assert manifest.splits["train"].images == 1
    assert manifest.splits["val"].images == len(REJECTED) + 2


def test_empty_captions_are_rejected_and_an_image_of_nothing_else_once(tmp_path: Path):
    items = drawn(tmp_path)
    items[0].captions += ["", " . ", "(?)"]
    items[1].captions = ["", "..."]
    run(items, tmp_path / "out")
    assert rejected(tmp_path / "out") == [
        *[("train0.png", "empty caption")] * 3,
        ("train1.png", "no caption but empty ones"),
    ]
    stored = {r["image_id"][0]: r["captions"] for r in records(tmp_path / "out", "train")}
    assert b"train1" not in stored and len(stored[b"train0"]) == 2


# --- always whole ---------------------------------------------------------------------------------


def test_an_empty_split_is_named_and_leaves_nothing(tmp_path: Path):
    def why(items: Iterable[Image]) -> str:
        with raises("prepare.empty_split") as caught:
            run(items, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        return str(caught.value)

    items = drawn(tmp_path)
    for split in ("train", "val", "test"):
        reason = why(item for item in items if item.split != split)
        assert repr(split) in reason and "--split-file" in reason
    for item in items:
        item.path.unlink()
    assert "--images" in why(items)
    # The name of 3,000 characters is shortened to 80.
    long = [replace(item, path=item.path.with_name("y" * 3000)) for item in items]
    assert "y" * 77 + "...:" in why(long)
    # If one is there and is no image, the folder is right.
    items[1].path.write_bytes(b"GIF89a")
    assert "--images" not in why(items)
    for item in items:
        item.path.write_bytes(b"GIF89a")
    assert why(items).endswith(".png: GIF, cannot be decoded")


def test_a_failed_second_run_leaves_the_first_one_whole(tmp_path: Path):
    items, out = drawn(tmp_path), tmp_path / "out"
    run(items, out)
    before = digests(out)
    vectors = tmp_path / "glove.txt"
    vectors.write_text("qzxw 1 2\n")
    with raises("vocabulary.empty"):
        run(items, out, vectors=vectors)
    for item in items:
        item.path.unlink()
    with raises("prepare.empty_split"):
        run(items, out)
    assert digests(out) == before and Manifest.load(out).splits["train"].images == 3


def test_a_second_run_leaves_nothing_of_the_first(tmp_path: Path):
    out = tmp_path / "out"
    run(drawn(tmp_path, count=9), out, shard_bytes=500)
    assert len(list(out.glob("train-*.tfrecord"))) > 1
    run(drawn(tmp_path, count=1), out)
    assert len(list(out.glob("*.tfrecord"))) == 3
    run(drawn(tmp_path, count=1), tmp_path / "fresh")
    assert digests(out) == digests(tmp_path / "fresh")


@pytest.mark.parametrize(
    "name", ["notes.txt", "train-00000-of-00001.tfrecord", "vocabulary.txt", "manifest.json"]
)
def test_a_folder_of_something_else_is_refused_and_left_as_it_is(tmp_path: Path, name: str):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("{}")
    with raises("prepare.foreign", out) as caught:
        run(drawn(tmp_path), out)
    assert name in str(caught.value)
    assert {path.name: path.read_text() for path in out.iterdir()} == {name: "{}"}


def test_images_may_lie_where_they_are_prepared(tmp_path: Path):
    out = tmp_path / "out"
    (out / "photos").mkdir(parents=True)
    run(drawn(out / "photos"), out)
    assert Manifest.load(out).splits["train"].images == 3
    (out / "notes.txt").write_text("beside a manifest")
    run(drawn(out / "photos"), out)
    assert (out / "notes.txt").exists()


def test_two_runs_never_meet(tmp_path: Path):
    out = tmp_path / "out"
    run(drawn(tmp_path), out)
    before = digests(out)
    with exclusive_lock(out), raises("file.locked", out):
        run(drawn(tmp_path, count=1), out)
    assert digests(out) == before

    def reader() -> Iterator[Image]:
        # What is read is asked for while nobody else can write.
        with raises("file.locked", out), exclusive_lock(out):
            pass
        yield from drawn(tmp_path)

    run(reader(), out)


def test_a_folder_whose_name_is_not_utf8_has_its_rejected_list(tmp_path: Path):
    folder = tmp_path / os.fsdecode(b"fotos-\xff")
    folder.mkdir()
    items = drawn(folder)
    items[0].path.write_bytes(b"")
    run(items, tmp_path / "out")
    (line,) = (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()
    assert line.endswith('train0.png", "reason": "empty"}')


def test_more_instances_than_labels_can_number_are_an_error(tmp_path: Path, monkeypatch):
    # Sixteen million images would not fit here: the same line is drawn at two instances.
    monkeypatch.setattr("tf_dpce.data.shards.MAX_INSTANCES", 2)
    run(drawn(tmp_path, count=2), tmp_path / "out")
    with raises("prepare.instances"):
        run(drawn(tmp_path, count=3), tmp_path / "out")
