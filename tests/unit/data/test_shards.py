"""TFRecord shards: what goes in comes out, also by offset."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import tensorflow as tf

from tests.samples import image
from tf_dpce.data.shards import encode_record, write_shards
from tf_dpce.datasets.listing import Image

DOG = Image("dog", Path("/photos/Hündchen.jpg"), ("a dog", "eine Hündin"), "train", "rex")
RECORDS = [bytes([65 + place]) * (10 * place) for place in range(8)]


def test_a_record_holds_the_image_and_all_its_captions():
    contents = image()
    example = tf.train.Example.FromString(encode_record(DOG, contents, instance=41))
    features = {name: feature for name, feature in example.features.feature.items()}
    assert {
        name: list(f.bytes_list.value) for name, f in features.items() if name != "instance"
    } == {
        "image": [contents],
        "image_id": [b"dog"],
        "path": ["/photos/Hündchen.jpg".encode()],
        "captions": [b"a dog", "eine Hündin".encode()],
    }
    assert list(features["instance"].int64_list.value) == [41]


def test_records_come_back_in_order_from_files_of_the_size_asked_for(tmp_path: Path):
    shards = write_shards(tmp_path, "val", iter(RECORDS), shard_bytes=100)
    names = [f"val-{place:05d}-of-{len(shards):05d}.tfrecord" for place in range(len(shards))]
    assert [shard.file for shard in shards] == names
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    # Each record takes 16 bytes more than its own: 16, 26, 36, 46 | 56, 66 | 76, 86.
    assert [shard.records for shard in shards] == [4, 2, 2]
    assert [shard.bytes for shard in shards] == [124, 122, 162]
    assert [shard.offsets for shard in shards] == [(0, 16, 42, 78), (0, 56), (0, 76)]
    for shard in shards:
        contents = (tmp_path / shard.file).read_bytes()
        assert len(contents) == shard.bytes
        assert hashlib.sha256(contents).hexdigest() == shard.sha256
    paths = [str(tmp_path / name) for name in names]
    assert [r.numpy() for r in tf.data.TFRecordDataset(paths)] == RECORDS


def test_a_failing_source_leaves_no_file_that_a_reader_finds(tmp_path: Path):
    def records():
        yield from RECORDS
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        write_shards(tmp_path, "train", records(), shard_bytes=100)
    assert list(tmp_path.glob("*.tfrecord")) == []
