"""Inputs of `embed`: found completely and in order, and refused if they are something else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.errors import raises
from tests.unit.search.plain import write_images, write_texts
from tf_dpce.preprocessing.status import MAX_BYTES, TOO_MANY_BYTES
from tf_dpce.search.inputs import Inputs, find_images, find_texts, read_image


def ids(inputs: Inputs) -> list[str]:
    return [item.id for item in inputs.items()]


def texts(inputs: Inputs) -> list[tuple[str, str]]:
    return [(item.id, item.text) for item in inputs.items()]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name in ("b.jpg", "a.jpg", "c.png", "trip/d.jpg", "trip/far/e.jpg", "trip/notes.txt"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "images"


def test_a_glob_gives_sorted_files_named_from_its_first_wildcard(images):
    for pattern, expected in (
        ("*.jpg", ["a.jpg", "b.jpg"]),
        ("**/*.jpg", ["a.jpg", "b.jpg", "trip/d.jpg", "trip/far/e.jpg"]),
        ("trip/*", ["d.jpg", "notes.txt"]),  # the folder `far` is no image
        ("*/*.jpg", ["trip/d.jpg"]),
        ("c.png", ["c.png"]),
    ):
        inputs = find_images([str(images / pattern)])
        assert (ids(inputs), inputs.total) == (expected, len(expected))
        paths = [Path(item.path) for item in inputs.items()]
        assert all(path.is_absolute() and path.is_file() for path in paths)


def test_patterns_that_overlap_give_each_image_once(images, monkeypatch):
    monkeypatch.chdir(images)
    patterns = ["**/*.jpg", "b.jpg", "./a.jpg", str(images / "*.jpg")]
    near, far = find_images(["**/*.jpg"]), find_images([str(images / "**/*.jpg")])
    assert ids(find_images(patterns)) == ids(near)
    assert (near.digest, list(near.items())) == (far.digest, list(far.items()))
    assert ids(find_images(["c.png", "*.jpg"])) == ["c.png", "a.jpg", "b.jpg"]


def test_odd_names_stay_in_the_list(images):
    (images / "[1]*.jpg").write_bytes(b"brackets")
    (images / "1.jpg").write_bytes(b"one")
    # A file whose name is a pattern is that file.
    assert ids(find_images([str(images / "[1]*.jpg")])) == ["[1]*.jpg"]
    with open(os.fsencode(images) + b"/\xff.jpg", "wb") as stream:
        stream.write(b"image")
    items = [item for item in find_images([str(images / "*.jpg")]).items() if "udcff" in item.id]
    assert [item.id for item in items] == ["\\udcff.jpg"]
    assert items[0].path.encode("utf-8"), "it can be written down"


def test_the_digest_changes_with_the_files(images):
    pattern = str(images / "*.jpg")
    seen = {find_images([pattern]).digest}
    assert seen == {find_images([pattern]).digest}
    for change in (
        lambda: (images / "a.jpg").write_bytes(b"longer than before"),
        lambda: os.utime(images / "a.jpg", (1, 1)),
        lambda: (images / "a.jpg").rename(images / "0.jpg"),
        lambda: (images / "0.jpg").unlink(),
        lambda: (images / "f.jpg").write_bytes(b"one more"),
    ):
        change()
        digest = find_images([pattern]).digest
        assert digest not in seen
        seen.add(digest)


def test_a_pattern_without_images_is_refused(images):
    for pattern, code in (("*.gif", "no_match"), ("", "not_prepared"), ("none/*.jpg", "no_match")):
        with raises(f"inputs.{code}", path=images / pattern):
            find_images([str(images / pattern)])


def test_lines_are_texts_numbered_as_an_editor_does(tmp_path: Path):
    path = tmp_path / "captions.txt"
    path.write_bytes(
        b"\xef\xbb\xbfA dog.\r\n"  # a byte-order mark and a line end of Windows
        b"\n"  # in the list: embedding refuses it by its number
        b"Gr\xff\xfcn\n"  # Latin-1 in a UTF-8 file
        b"one\xe2\x80\xa8line\n"  # U+2028 ends no line
        b"last"
    )
    inputs = find_texts([str(path)])
    assert texts(inputs) == [
        ("1", "A dog."),
        ("2", ""),
        ("3", "Gr\ufffd\ufffdn"),
        ("4", "one\u2028line"),
        ("5", "last"),
    ]
    assert inputs.total == 5


def test_json_lines_bring_their_ids_or_get_their_numbers(tmp_path: Path):
    path = tmp_path / "captions.jsonl"
    path.write_text('{"text": "A dog.", "id": "d7"}\n{"text": "\\ud800", "id": 9}\n{"text": ""}\n')
    assert texts(find_texts([str(path)])) == [("d7", "A dog."), ("9", "\\ud800"), ("3", "")]


def test_ids_of_several_files_begin_with_their_names(tmp_path: Path):
    (tmp_path / "more").mkdir()
    files = [
        write_texts(tmp_path / "a.txt", ["A dog.", "A cat."]),
        write_texts(tmp_path / "more" / "a.txt", ["A bird."]),
        write_texts(tmp_path / "b.jsonl", ['{"text": "A cow.", "id": "c7"}', '{"text": "A pig."}']),
    ]
    expected = ["a.txt:1", "a.txt:2", "more/a.txt:1", "c7", "b.jsonl:2"]
    assert ids(find_texts(files)) == expected
    assert ids(find_texts([*files, files[0]])) == expected, "a file is read once"
    assert ids(find_texts([files[0], files[0]])) == ["1", "2"]


def test_the_digest_of_texts_is_of_their_content_and_an_empty_file_is_refused(tmp_path: Path):
    path = tmp_path / "captions.txt"
    found = [find_texts([write_texts(path, [text])]).digest for text in ("dog", "cat", "dog")]
    assert found[0] == found[2] != found[1]
    with raises("inputs.empty"):
        find_texts([write_texts(path, [])])


def test_a_line_of_json_without_a_text_is_named(tmp_path: Path):
    path = tmp_path / "captions.jsonl"
    for line in ("A dog.", "", '["A dog."]', '{"caption": "A"}', '{"text": 1}'):
        path.write_text(f'{{"text": "A dog."}}\n{line}\n')
        with raises("inputs.line", path=path, line=2):
            find_texts([str(path)])


# --- shards ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    from tests.unit.export.tiny import tiny_data

    folder = tmp_path_factory.mktemp("prepared")
    tiny_data(folder)
    return folder


def test_prepared_shards_give_their_images_and_captions(prepared: Path):
    inputs = find_images([str(prepared)])
    items = list(inputs.items())
    assert inputs.total == len(items) == 9
    names = [f"{split}{n}.png" for split in ("train", "val", "test") for n in range(3)]
    assert {item.id for item in items} == set(names)
    assert all(item.contents == Path(item.path).read_bytes() for item in items)
    shards = [str(prepared / "test-*.tfrecord")]
    assert ids(find_images(shards)) == names[6:]
    # The image of number k has k + 1 captions.
    captions = [f"test{n}.png#{k}" for n in range(3) for k in range(n + 1)]
    assert ids(find_texts(shards)) == captions


def test_shards_that_cannot_be_read_are_named_before_anything_is_embedded(prepared, tmp_path):
    import tensorflow as tf

    contents = bytearray(next(prepared.glob("test-*.tfrecord")).read_bytes())
    contents[len(contents) // 2] ^= 1
    path = tmp_path / "test-00000.tfrecord"
    path.write_bytes(contents)
    with raises("inputs.mixed"):
        find_images([str(prepared), write_images(tmp_path / "images", 2)])
    # A folder with shards, but without their manifest.
    with raises("inputs.not_prepared", path=tmp_path):
        find_images([str(tmp_path)])
    with raises("inputs.shard", path=path):
        find_images([str(path)])
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(tf.train.Example().SerializeToString())
    with raises("inputs.shard", path=path):
        find_images([str(path)])


def test_a_file_over_the_limit_is_refused_without_being_read_whole(tmp_path: Path):
    path = tmp_path / "large.jpg"
    with path.open("wb") as stream:
        stream.truncate(MAX_BYTES)
    assert len(read_image(str(path))) == MAX_BYTES
    with path.open("ab") as stream:
        stream.truncate(MAX_BYTES + 1)
    assert read_image(str(path)).status == TOO_MANY_BYTES
    for missing in (tmp_path / "gone.jpg", tmp_path):
        assert read_image(str(missing)).status is None
