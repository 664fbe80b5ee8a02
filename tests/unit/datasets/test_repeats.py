"""An image is one image: files of the same bytes are one instance, in one split."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

import pytest

from tests.samples import image
from tf_dpce.data.manifest import Manifest
from tf_dpce.data.prepare import prepare
from tf_dpce.datasets import repeats
from tf_dpce.datasets.listing import Image, Rejected
from tf_dpce.datasets.repeats import count_repeats, join_copies, keep_together, mark_copies
from tf_dpce.datasets.table import read_table


def listed(folder: Path, contents: dict[str, bytes], split: str | None = None) -> list[Image]:
    images = []
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        images.append(Image(name, path, [f"caption of {name}"], split))
    return images


def groups(images: list[Image]) -> list[list[str]]:
    found = defaultdict(list)
    for item in images:
        if item.content:
            found[item.content].append(item.image_id)
    return sorted(found.values())


def test_copies_are_those_with_the_same_bytes(tmp_path: Path):
    large = os.urandom(10_000)
    contents = {
        "a": large,
        "in/a": large,
        "z": large,
        "same length": os.urandom(10_000),
        "same middle": large[:-1] + bytes([large[-1] ^ 1]),
        "longer": large + b"\0",
        "b": b"b",
        "c": b"c",
        "c2": b"c",
        "empty": b"",
        "empty2": b"",
    }
    images = listed(tmp_path, contents)
    (tmp_path / "link").symlink_to(tmp_path / "c")
    os.mkfifo(tmp_path / "pipe")
    images += [Image(n, tmp_path / n, ["x"]) for n in ("link", "pipe", "missing", "nul\0", ".")]
    mark_copies(images)
    assert groups(images) == [["a", "in/a", "z"], ["c", "c2", "link"], ["empty", "empty2"]]


def test_only_what_may_be_a_copy_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    read = []
    plain = repeats._digest
    monkeypatch.setattr(repeats, "_digest", lambda path: read.append(path.name) or plain(path))
    contents = {"a": b"1" * 9000, "b": b"1" * 9000, "c": os.urandom(9000), "d": b"1"}
    images = listed(tmp_path, contents)
    mark_copies(images)
    mark_copies(images)
    assert sorted(read) == ["a", "b"]


def test_copies_are_joined_within_a_split_and_named_instances_stay(tmp_path: Path):
    names = ("a", "b", "c", "d", "e", "f")
    images = listed(tmp_path, dict.fromkeys(names, b"one"))
    for item, split in zip(images, ("train", "test", "train", "test", "train", None), strict=True):
        item.split = split
    images[4].instance = "a person"
    join_copies(images)
    assert [item.instance for item in images] == ["a", "b", "a", "b", "a person", "a"]
    assert images[5].split == "train"
    # One content in two splits, and six images of it.
    found = count_repeats(images)
    assert (found.copies, found.across_splits) == (5, 1)


def test_a_draw_by_name_is_corrected(tmp_path: Path):
    images = listed(tmp_path, {"a": b"one", "b": b"two", "c": b"one"})
    splits = {"a": "val", "b": "train", "c": "train", "absent": "test"}
    keep_together(images, splits)
    assert splits == {"a": "val", "b": "train", "c": "val", "absent": "test"}


def test_shared_captions_are_counted_by_instance(tmp_path: Path):
    images = listed(tmp_path, {name: name.encode() for name in "abcde"})
    for item, captions in zip(images, (["x", "y"], ["x"], ["x", "z"], ["z"], ["w"]), strict=True):
        item.captions = captions
    images[2].instance = images[3].instance = "one shirt"
    # `x` belongs to a, b and the shirt; `z` to the shirt alone.
    found = count_repeats(images)
    assert (found.captions, found.captioned) == (1, 3)


def test_copies_of_a_table_lie_in_one_split(tmp_path: Path):
    """24 images, 3 files each: drawn one by one, half of them would lie in several splits."""
    lines, contents = ["image,caption"], {}
    for number in range(24):
        for copy in range(3):
            name = f"{copy}/{number}.jpg"
            contents[name] = image(size=(10 + number, 9))
            lines.append(f"{name},caption {number} {copy}")
    listed(tmp_path, contents)
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    out = tmp_path / "out"
    prepared = prepare(read_table(tmp_path / "pairs.csv"), out, source="table", workers=3)
    assert prepared.rejected == ()
    found = Manifest.load(out)
    assert (found.repeats.copies, found.repeats.across_splits) == (48, 0)
    counts = [(info.images, info.instances, info.lone_instances) for info in found.splits.values()]
    assert all(images == 3 * instances and not lone for images, instances, lone in counts)
    assert sum(instances for _, instances, _ in counts) == 24
    prepare(read_table(tmp_path / "pairs.csv"), tmp_path / "one", source="table", workers=1)
    assert Manifest.load(tmp_path / "one") == found


def test_a_given_split_stays_and_the_leak_is_counted(tmp_path: Path):
    content = {split: image(size=(20 + n, 9)) for n, split in enumerate(("train", "val", "test"))}
    items: list[Image | Rejected] = []
    for split, own in content.items():
        items += listed(tmp_path / split, {f"{split}.jpg": own, f"{split}2.jpg": own}, split)
    items += listed(tmp_path, {"leak.jpg": content["test"]}, "train")
    manifest = prepare(items, tmp_path / "out", source="table").manifest
    assert (manifest.repeats.copies, manifest.repeats.across_splits) == (4, 1)
    assert [info.images for info in manifest.splits.values()] == [3, 2, 2]
    assert [info.instances for info in manifest.splits.values()] == [2, 1, 1]
