"""The manifest makes a prepared folder whole, and shows when it is not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.errors import raises
from tf_dpce.data.manifest import Manifest, ShardInfo, SplitInfo, discard, written_shards

SHARD = ShardInfo("train-00000-of-00001.tfrecord", 5, "ab", records=2, offsets=(0, 3))
MANIFEST = Manifest(
    source="table",
    seed=3,
    lowercase=True,
    vocabulary_size=7,
    vocabulary_sha256="cd",
    vocabulary_coverage=0.9,
    split_digest="ef",
    splits={
        "train": SplitInfo(2, captions=5, instances=1, shards=(SHARD,)),
        "val": SplitInfo(0, captions=0, instances=0, shards=()),
        "test": SplitInfo(0, captions=0, instances=0, shards=()),
    },
    rejected=1,
    caption_lengths={4: 3, 11: 2},
    converted=1,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / SHARD.file).write_bytes(b"12345")
    MANIFEST.save(tmp_path)
    return tmp_path


def test_a_manifest_comes_back_as_it_went(folder: Path):
    assert Manifest.load(folder) == MANIFEST


def test_a_folder_that_is_missing_or_was_not_prepared_to_its_end(folder: Path):
    with raises("data.folder", folder / "missing"):
        Manifest.load(folder / "missing")
    (folder / "manifest.json").unlink()
    with raises("data.unfinished", folder):
        Manifest.load(folder)


def test_a_shard_that_is_missing_or_of_another_size(folder: Path):
    shard = folder / SHARD.file
    for contents in (b"1234", b"123456", None):
        shard.write_bytes(contents) if contents else shard.unlink()
        with raises("data.shard", shard):
            Manifest.load(folder)


def test_a_manifest_of_another_version_or_of_something_else(folder: Path):
    path = folder / "manifest.json"
    for version in (0, 2, None, "1"):
        replace(MANIFEST, format=version).save(folder)
        with raises("data.format", path):
            Manifest.load(folder)
    for contents in ("[]", "3", "null"):
        path.write_text(contents)
        with raises("data.format", path):
            Manifest.load(folder)


# Where the damage is, and what stands there; nothing if None.
DAMAGE = [
    (["source"], None),
    (["splits"], None),
    (["splits"], []),
    (["splits", "train", "shards"], None),
    (["splits", "train", "shards"], {}),
    (["splits", "train", "shards", 0, "unknown"], 1),
    (["splits", "train", "shards", 0, "file"], 3),
    (["splits", "train", "shards", 0, "bytes"], 5.0),
    (["splits", "train", "shards", 0, "offsets"], [0, "3"]),
    # The shard holds two records.
    (["splits", "train", "shards", 0, "offsets"], [0]),
    (["splits", "train", "images"], 3),
    # Two images have no fewer captions.
    (["splits", "train", "captions"], 1),
    (["splits", "train", "instances"], True),
    (["lowercase"], 1),
    (["vocabulary_coverage"], "0.9"),
    (["caption_lengths"], None),
    (["caption_lengths"], {"4": "x"}),
]


def test_a_damaged_manifest_is_found_out(folder: Path):
    path = folder / "manifest.json"
    whole = path.read_text()
    for keys, value in DAMAGE:
        manifest = inner = json.loads(whole)
        for key in keys[:-1]:
            inner = inner[key]
        if value is None:
            del inner[keys[-1]]
        else:
            inner[keys[-1]] = value
        path.write_text(json.dumps(manifest))
        with raises("data.manifest", path):
            Manifest.load(folder)
    path.write_text(whole[:40])
    with raises("data.manifest", path):
        Manifest.load(folder)
    # Prepare itself does not know any more what is its own.
    with raises("data.manifest", path) as caught:
        written_shards(folder)
    assert "--out" in str(caught.value)


# --- whose files they are -------------------------------------------------------------------------


def test_the_shards_that_prepare_wrote_are_known_whatever_became_of_the_manifest(folder: Path):
    (folder / "train-mine.tfrecord").write_bytes(b"of somebody else")
    assert written_shards(folder) == {SHARD.file}
    discard(folder)
    with raises("data.unfinished", folder):
        Manifest.load(folder)
    assert written_shards(folder) == {SHARD.file}
    MANIFEST.save(folder)
    assert Manifest.load(folder) == MANIFEST
    assert not (folder / ".unfinished.json").exists()


def test_if_prepare_never_wrote_no_shard_is_its_own(tmp_path: Path):
    (tmp_path / SHARD.file).write_bytes(b"of another tool")
    assert written_shards(tmp_path) is None
    (tmp_path / "manifest.json").write_text('{"of": "another tool"}')
    assert written_shards(tmp_path) is None
