"""Inputs of `embed`: found completely and in order, and refused if they are something else."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.errors import raises
from tests.samples import write_images
from tests.unit.search.plain import write_texts
from tf_dpce.preprocessing.status import MAX_BYTES, TOO_MANY_BYTES
from tf_dpce.search.embedding.inputs import Inputs, find_images, find_texts, read_image


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


def test_a_folder_gives_every_image_below_it(tmp_path: Path, caplog):
    root = tmp_path / "photos"
    shown = ["a.jpg", "b.JPEG", "c.Png", "d.webp", "e.heic", "trip [2024]/f.tiff", "x/y/g.GIF"]
    hidden = [".h.jpg", ".git/i.jpg", "@eaDir/a.jpg", "x/.thumbnails/g.jpg", "notes.txt", "jpg"]
    write_images(tmp_path, [f"photos/{name}" for name in [*shown, *hidden]] + ["far/z.bmp"])
    # Links: to the folder itself and to one above, which have no end; to one below, which is found
    # anyway; and to one elsewhere, whose images belong to this folder too.
    for name, target in (("l1", root), ("x/l2", tmp_path), ("l3", root / "x"), ("out", "../far")):
        (root / name).symlink_to(target)
    inputs = find_images([str(root)])
    assert ids(inputs) == sorted([*shown, "out/z.bmp"])
    assert not caplog.messages
    assert inputs == replace(find_images([f"{root}/"]), shards=inputs.shards)
    # What cannot be read is named: a link to nothing or to itself, and a folder.
    (root / "gone.jpg").symlink_to("nowhere.jpg")
    (root / "circle").symlink_to("circle")
    (root / "ring.jpg").symlink_to("ring.jpg")
    assert ids(find_images([str(root)])) == ids(inputs)
    assert "left out 2 that cannot be read" in caplog.text and "gone.jpg" in caplog.text
    for folder in (root / ".git", tmp_path / "none"):
        folder.mkdir(exist_ok=True)
        (folder / "i.jpg").unlink(missing_ok=True)
        with raises("inputs.no_match", path=folder):
            find_images([str(folder)])


def test_a_folder_that_cannot_be_read_is_named(images: Path, caplog, monkeypatch):
    scan = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("far"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert ids(find_images([str(images)])) == ["a.jpg", "b.jpg", "c.png", "trip/d.jpg"]
    assert "such as trip/far" in caplog.text


def test_ids_are_unique_below_the_common_folder_of_all_that_is_given(tmp_path: Path):
    write_images(tmp_path, ["p/a/x.jpg", "p/b/x.jpg", "p/b/c/x.jpg"])
    a, b = str(tmp_path / "p" / "a"), str(tmp_path / "p" / "b")
    for given, expected in (
        ([a], ["x.jpg"]),
        ([a, b], ["a/x.jpg", "b/c/x.jpg", "b/x.jpg"]),
        ([f"{a}/*.jpg", f"{b}/x.jpg"], ["a/x.jpg", "b/x.jpg"]),
        # As what is given has it, also if an earlier pattern took all of it.
        ([f"{a}/*", f"{a}/../*/x.jpg"], ["a/x.jpg", "b/x.jpg"]),
        ([b, f"{b}/c"], ["c/x.jpg", "x.jpg"]),
    ):
        assert ids(find_images(given)) == expected
    # Other ids are other inputs: embeddings are not continued under them.
    assert find_images([f"{b}/c/*"]).digest != find_images([f"{b}/*/x.jpg"]).digest


def test_a_pattern_that_leaves_images_beside_it_says_so(tmp_path: Path, caplog):
    names = ["x.jpg", "y.JPG", "z.jpeg", "notes.txt", "deep/w.JPG"]
    folder = write_images(tmp_path / "mixed", names)
    assert ids(find_images([f"{folder}/*.jpg"])) == ["x.jpg"]
    (said,) = caplog.messages
    assert "2 have another ending" in said and f"--images '{folder}'" in said
    caplog.clear()
    find_images([f"{folder}/**/*.jpg"])
    assert "3 have" in caplog.text
    caplog.clear()
    # Nothing is left out, or only what the pattern does not ask for.
    for given in (["*"], ["*.jpg", "*.JPG", "*.jpeg"], ["x*.jpg"], ["x.jpg"], ["*.[jJ]*"]):
        find_images([f"{folder}/{pattern}" for pattern in given])
    assert not caplog.messages
    with raises("inputs.no_match") as error:
        find_images([f"{folder}/*.png"])
    assert "3 have another ending" in str(error.value)


def test_brackets_in_the_names_of_folders_are_no_wildcards(tmp_path: Path):
    write_images(tmp_path, ["holiday [2024]/a.jpg", "holiday 2/b.jpg", "holiday [2024]/[c]/d.jpg"])
    folder = tmp_path / "holiday [2024]"
    for pattern, expected in (
        ("holiday [2024]/*.jpg", ["a.jpg"]),
        ("holiday [2024]/[c]/*", ["d.jpg"]),
        ("holiday [2024]/[ac].jpg", ["a.jpg"]),
        ("holiday [2024]", ["[c]/d.jpg", "a.jpg"]),
        ("holiday [23]/*.jpg", ["holiday 2/b.jpg"]),
    ):
        assert ids(find_images([str(tmp_path / pattern)])) == expected
    assert [item.path for item in find_images([str(folder)]).items()][1] == str(folder / "a.jpg")


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
    for pattern in ("*.gif", "none/*.jpg", "none"):
        with raises("inputs.no_match", path=images / pattern):
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


def test_tables_and_other_files_are_no_texts(tmp_path: Path):
    (tmp_path / "captions.CSV").write_text("image,caption\nx.jpg,a red square\n")
    (tmp_path / "captions.tsv").write_text("x.jpg\ta red square\n")
    (tmp_path / "captions.txt").write_text("\ufeffimage,caption\nx.jpg,a red square\n")
    (tmp_path / "captions.parquet").write_bytes(b"PAR1")
    (tmp_path / "wide.txt").write_text("a dog", encoding="utf-16")
    (tmp_path / "photo.txt").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    for path in tmp_path.iterdir():
        with raises("inputs.not_text", path=path):
            find_texts([str(path)])
    with raises("inputs.not_prepared", path=tmp_path):
        find_texts([str(tmp_path)])


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


def test_prepared_shards_give_their_images_and_captions(prepared: Path, tmp_path: Path):
    inputs = find_images([str(prepared)])
    items = list(inputs.items())
    assert inputs.total == len(items) == 9
    names = [f"{split}{n}.png" for split in ("train", "val", "test") for n in range(3)]
    assert {item.id for item in items} == set(names)
    assert all(item.contents == Path(item.path).read_bytes() for item in items)
    shards = [str(prepared / "test-*.tfrecord")]
    assert ids(find_images(shards)) == names[6:]
    other = shutil.copytree(prepared, tmp_path / "other")
    both = [item.id for item in find_images([str(prepared), str(other)]).items()]
    assert len(set(both)) == 18 and all(id.rsplit("/", 1)[1] in names for id in both)
    texts = find_texts([str(prepared), str(other)])
    assert len(set(ids(texts))) == texts.total
    # The image of number k has k + 1 captions.
    captions = [f"test{n}.png#{k}" for n in range(3) for k in range(n + 1)]
    assert ids(find_texts(shards)) == captions


def test_shards_that_cannot_be_read_are_named(prepared, tmp_path):
    import tensorflow as tf

    contents = bytearray(next(prepared.glob("test-*.tfrecord")).read_bytes())
    contents[len(contents) // 2] ^= 1
    path = tmp_path / "test-00000.tfrecord"
    path.write_bytes(contents)
    with raises("inputs.mixed"):
        find_images([str(prepared), str(write_images(tmp_path / "images", ["a.jpg"]))])
    # A folder with shards, but without their manifest.
    with raises("inputs.not_prepared", path=tmp_path):
        find_images([str(tmp_path)])
    inputs = find_images([str(path)])
    with raises("inputs.shard", path=path):
        list(inputs.items())
    # By its frames it is found to be cut short, before anything is embedded.
    path.write_bytes(contents[:-1])
    with raises("inputs.shard", path=path):
        find_images([str(path)])
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(tf.train.Example().SerializeToString())
    with raises("inputs.shard", path=path):
        list(find_images([str(path)]).items())


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
