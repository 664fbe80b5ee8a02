"""The manifest makes a prepared folder whole, and tells when it is not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tf_dpce.data.manifest import Manifest, ShardInfo, SplitInfo, discard, written_shards
from tf_dpce.errors import UserError

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
        "train": SplitInfo(2, captions=5, instances=1, shards=(SHARD,), lone_instances=0),
        "val": SplitInfo(0, captions=0, instances=0, shards=()),
        "test": SplitInfo(0, captions=0, instances=0, shards=()),
    },
    rejected=1,
    caption_lengths={4: 3, 11: 2},
    bitmaps=1,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / SHARD.file).write_bytes(b"12345")
    MANIFEST.save(tmp_path)
    return tmp_path


def test_a_manifest_comes_back_as_it_went(folder: Path):
    assert Manifest.load(folder) == MANIFEST


def test_a_manifest_of_an_earlier_version_did_not_count_everything(folder: Path):
    value = json.loads((folder / "manifest.json").read_text())
    del value["caption_lengths"], value["bitmaps"], value["splits"]["train"]["lone_instances"]
    (folder / "manifest.json").write_text(json.dumps(value))
    found = Manifest.load(folder)
    assert found.caption_lengths is None and found.splits["train"].lone_instances is None
    assert found.bitmaps is None


def test_a_missing_folder(tmp_path: Path):
    with pytest.raises(UserError, match="missing is not a folder"):
        Manifest.load(tmp_path / "missing")


def test_a_folder_that_was_not_prepared_to_its_end(folder: Path):
    (folder / "manifest.json").unlink()
    with pytest.raises(UserError, match="has no manifest.json: run prepare to its end"):
        Manifest.load(folder)


def test_a_missing_shard(folder: Path):
    (folder / SHARD.file).unlink()
    with pytest.raises(UserError, match="train-00000-of-00001.tfrecord is missing"):
        Manifest.load(folder)


@pytest.mark.parametrize("contents", [b"", b"1234", b"123456"])
def test_a_shard_of_another_size(folder: Path, contents: bytes):
    (folder / SHARD.file).write_bytes(contents)
    with pytest.raises(UserError, match=f"tfrecord has {len(contents)} bytes, not 5"):
        Manifest.load(folder)


@pytest.mark.parametrize("version", [0, 2, None, "1"])
def test_a_manifest_of_another_version(folder: Path, version: object):
    replace(MANIFEST, format=version).save(folder)
    with pytest.raises(UserError, match=f"has format {version}, not 1: run prepare again"):
        Manifest.load(folder)


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (["source"], None),
        (["splits"], None),
        (["splits", "val"], None),
        (["splits", "train"], 3),
        (["splits", "train", "shards"], None),
        (["splits", "train", "shards", 0, "offsets"], None),
        (["splits", "train", "shards", 0, "unknown"], 1),
        (["splits", "train", "shards", 0, "file"], 3),
        (["splits", "train", "shards", 0, "bytes"], 5.0),
        (["splits", "train", "shards", 0, "offsets"], [0, "3"]),
        # The shard holds two records.
        (["splits", "train", "shards", 0, "offsets"], [0]),
        (["splits", "train", "images"], 3),
        (["splits", "train", "captions"], "x"),
        # Two images have no fewer captions.
        (["splits", "train", "captions"], 1),
        (["splits", "train", "instances"], True),
        (["lowercase"], 1),
        (["vocabulary_coverage"], "0.9"),
        (["caption_lengths"], {"long": 1}),
        (["caption_lengths"], {"4": "x"}),
        (["unknown"], 1),
    ],
)
def test_a_damaged_manifest_is_one_clear_line(folder: Path, keys: list, value: object):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    inner = manifest
    for key in keys[:-1]:
        inner = inner[key]
    if value is None:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = value
    path.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="manifest.json is damaged: run prepare again"):
        Manifest.load(folder)


def test_a_manifest_that_was_cut_short_says_what_to_do(folder: Path):
    path = folder / "manifest.json"
    path.write_text(path.read_text()[:40])
    with pytest.raises(UserError, match="manifest.json is not valid JSON: .*: run prepare again,"):
        Manifest.load(folder)
    # Prepare itself does not know any more what is its own.
    with pytest.raises(UserError, match="not valid JSON: .*: choose another --out, or remove"):
        written_shards(folder)


@pytest.mark.parametrize("contents", ["[]", "3", "null"])
def test_json_that_is_no_manifest(folder: Path, contents: str):
    (folder / "manifest.json").write_text(contents)
    with pytest.raises(UserError, match="manifest.json has format None"):
        Manifest.load(folder)


# --- whose files they are -------------------------------------------------------------------------


def test_the_shards_that_prepare_wrote_are_known_whatever_became_of_the_manifest(folder: Path):
    assert written_shards(folder) == {SHARD.file}
    discard(folder, ["val-00000-of-00001.tfrecord"])
    with pytest.raises(UserError, match="run prepare to its end"):
        Manifest.load(folder)
    discard(folder)
    assert written_shards(folder) == {SHARD.file, "val-00000-of-00001.tfrecord"}
    MANIFEST.save(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", SHARD.file]


def test_where_prepare_never_wrote_no_shard_is_its_own(tmp_path: Path):
    (tmp_path / SHARD.file).write_bytes(b"of another tool")
    assert written_shards(tmp_path) is None
    (tmp_path / "manifest.json").write_text('{"of": "another tool"}')
    assert written_shards(tmp_path) is None


def test_a_manifest_names_no_file_outside_of_its_folder(folder: Path):
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace(SHARD.file, "train-/../../x.tfrecord"))
    assert written_shards(folder) == set()
