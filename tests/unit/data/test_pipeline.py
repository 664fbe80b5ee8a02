"""From prepared shards to batches: what training and evaluation get to see."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.scenes import SIZE
from tests.unit.export.tiny import WORDS, tiny_data
from tf_dpce.config import ImageConfig, TextConfig
from tf_dpce.data.index_shuffle import IndexShuffle
from tf_dpce.data.input_pipeline import (
    RecordReader,
    caption_groups,
    evaluation_captions,
    evaluation_images,
    parse_record,
    training_batches,
    view_batches,
)
from tf_dpce.data.manifest import Manifest
from tf_dpce.preprocessing.image import evaluation_pixels
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer
from tf_dpce.preprocessing.vocabulary import read_vocabulary

PLACES = 40
IMAGE = ImageConfig("small", SIZE, 8)
TEXT = TextConfig(max_length=PLACES)
PLAIN_IMAGE = ImageConfig("small", SIZE, 8, crop=False, flip=False)
PLAIN_TEXT = TextConfig(max_length=PLACES, shift=False)


@pytest.fixture(scope="module")
def tokenizer(scenes: Path) -> CaptionTokenizer:
    return CaptionTokenizer(read_vocabulary(scenes / "vocabulary.txt"), PLACES, lowercase=True)


@pytest.fixture(scope="module")
def train(scenes: Path, tokenizer: CaptionTokenizer) -> Callable[..., list[dict]]:
    """Returns the batches of training steps, with crop, flip and shift unless told otherwise."""

    def run(
        start: int, stop: int, image: ImageConfig = IMAGE, text: TextConfig = TEXT, **options
    ) -> list[dict]:
        folder = options.pop("folder", scenes)
        order = IndexShuffle(0, 48, 8, **options)
        return batches(training_batches(folder, tokenizer, image, text, order, start, stop))

    return run


@pytest.fixture(scope="module")
def plain(train: Callable[..., list[dict]]) -> list[dict]:
    """The first epoch (6 steps), without augmentation."""
    return train(0, 6, PLAIN_IMAGE, PLAIN_TEXT)


@pytest.fixture(scope="module")
def augmented(train: Callable[..., list[dict]]) -> list[dict]:
    """Two epochs (12 steps)."""
    return train(0, 12)


def records(folder: Path, split: str) -> list[dict]:
    """All records of a split, read the plain way."""
    found = []
    for shard in Manifest.load(folder).splits[split].shards:
        for line in tf.data.TFRecordDataset(str(folder / shard.file)):
            record = parse_record(line)
            found.append({key: value.numpy() for key, value in record.items()})
    return found


def batches(dataset: tf.data.Dataset) -> list[dict[str, np.ndarray]]:
    return list(dataset.as_numpy_iterator())


def assert_same(first: list[dict], second: list[dict]) -> None:
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


def test_a_record_is_read_by_its_place(scenes: Path):
    # Or reading across the border of a shard would not be tested.
    assert len(Manifest.load(scenes).splits["train"].shards) >= 3
    expected, reader = records(scenes, "train"), RecordReader(scenes, "train")
    # Backwards, so that no reader could get there by going on.
    for place in reversed(range(len(expected))):
        record = {key: value.numpy() for key, value in reader(tf.constant(place, tf.int64)).items()}
        assert record["image"] == expected[place]["image"]
        assert record["image_id"] == expected[place]["image_id"]
        assert record["captions"].tolist() == expected[place]["captions"].tolist()


def test_training_meets_each_image_once_an_epoch_with_one_of_its_captions(
    scenes: Path, tokenizer: CaptionTokenizer, plain: list[dict]
):
    by_instance = {int(r["instance"]): r for r in records(scenes, "train")}
    assert len(by_instance) == 48
    seen, captions = [], set()
    for batch in plain:
        assert batch["image"].shape == (8, SIZE, SIZE, 3) and batch["image"].dtype == np.float32
        assert batch["text"].shape == (8, PLACES) and batch["text"].dtype == np.int32
        assert batch["instance"].dtype == np.int64
        rows = zip(batch["image"], batch["text"], batch["instance"], strict=True)
        for pixels, ids, instance in rows:
            record = by_instance[int(instance)]
            expected = evaluation_pixels(tf.constant(record["image"]), SIZE)
            np.testing.assert_array_equal(pixels, expected)
            own = tokenizer(tf.constant(record["captions"])).numpy().tolist()
            assert ids.tolist() in own
            seen.append(int(instance))
            captions.add(own.index(ids.tolist()))
    assert sorted(seen) == list(range(48))
    assert len(captions) > 1, "the caption is drawn, not always the first"


def test_shift_moves_the_words_and_keeps_them(plain: list[dict], augmented: list[dict]):
    starts = []
    for before, after in zip(plain, augmented[:6], strict=True):
        for row, shifted in zip(before["text"], after["text"], strict=True):
            words = row[row > 0]
            start = int((shifted > 0).argmax())
            assert shifted[start : start + len(words)].tolist() == words.tolist()
            assert (shifted > 0).sum() == len(words)
            starts.append(start)
    assert len(set(starts)) > 5


@pytest.mark.parametrize("start", [4, 6, 9])
def test_training_that_starts_at_a_step_equals_training_that_came_there(
    train: Callable[..., list[dict]], augmented: list[dict], start: int
):
    # 6 steps an epoch: within the first, at the border, within the second.
    assert_same(train(start, 12), augmented[start:])


def test_images_are_stretched_where_that_is_asked(tmp_path: Path):
    # Of 20 x 30 pixels: drawn scenes are squares.
    tiny_data(tmp_path)
    image = replace(PLAIN_IMAGE, resize="stretch")
    words = CaptionTokenizer(WORDS, PLACES, lowercase=True)
    order = IndexShuffle(0, 3, 3)
    (val,) = batches(evaluation_images(tmp_path, "val", SIZE, 3, resize="stretch"))
    (test,) = batches(view_batches(tmp_path, "test", image, 0, 3))
    (train,) = batches(training_batches(tmp_path, words, image, PLAIN_TEXT, order, 0, 1))
    for split, pixels in (("val", val["image"]), ("test", test), ("train", train["image"])):
        expected = [
            evaluation_pixels(tf.constant(record["image"]), SIZE, resize="stretch").numpy()
            for record in records(tmp_path, split)
        ]
        # Training shuffles.
        remaining = {row.tobytes() for row in pixels}
        assert remaining == {row.tobytes() for row in expected}


@pytest.mark.parametrize("batch_size", [5, 100])
def test_evaluation_shows_each_image_once(scenes: Path, batch_size: int):
    expected = records(scenes, "val")
    found = batches(evaluation_images(scenes, "val", SIZE, batch_size))
    sizes = [len(batch["instance"]) for batch in found]
    assert sum(sizes) == 12 and set(sizes[:-1]) <= {batch_size}
    for key in ("instance", "image_id", "path"):
        rows = np.concatenate([batch[key] for batch in found]).tolist()
        assert rows == [record[key] for record in expected]
    pixels = np.concatenate([batch["image"] for batch in found])
    for row, record in zip(pixels, expected, strict=True):
        np.testing.assert_array_equal(row, evaluation_pixels(tf.constant(record["image"]), SIZE))


def test_evaluation_shows_each_caption_once(scenes: Path, tokenizer: CaptionTokenizer):
    expected = [
        (int(record["instance"]), ids)
        for record in records(scenes, "val")
        for ids in tokenizer(tf.constant(record["captions"])).numpy().tolist()
    ]
    rows = [
        (int(instance), ids.tolist())
        for batch in batches(evaluation_captions(scenes, "val", tokenizer, 7))
        for instance, ids in zip(batch["instance"], batch["text"], strict=True)
    ]
    assert rows == expected
    found = [
        (int(instance), group.numpy().tolist())
        for batch in caption_groups(scenes, "val", 5)
        for instance, group in zip(batch["instance"], batch["captions"], strict=True)
    ]
    assert found == [(int(r["instance"]), r["captions"].tolist()) for r in records(scenes, "val")]


def test_rotation_colour_and_cutout_are_functions_of_the_step(
    scenes: Path, train: Callable[..., list[dict]], augmented: list[dict]
):
    image = replace(IMAGE, rotation=20.0, colour=0.3, cutout=0.3)
    whole = train(0, 6, image)
    assert_same(train(4, 6, image), whole[4:])
    first, second = train(0, 6, replace(IMAGE, cutout=0.3)), augmented[:6]
    for batch, plain, covered in zip(whole, second, first, strict=True):
        # Crop, flip and captions are drawn as without it: what a square does not cover is the same.
        assert_same([{**covered, "image": 0}], [{**plain, "image": 0}])
        same = (covered["image"] == plain["image"]).all(axis=-1)
        assert (covered["image"][~same] == 128).all()
        assert (0 < (~same).sum(axis=(1, 2))).all() and same.mean() > 0.85
        assert (np.abs(batch["image"] - plain["image"]).max(axis=(1, 2, 3)) > 5).all()
    views = [
        next(iter(view_batches(scenes, "val", changed, 1, 12))).numpy()
        for changed in (IMAGE, replace(IMAGE, colour=0.3))
    ]
    assert (np.abs(views[0] - views[1]).max(axis=(1, 2, 3)) > 1).all()


def test_view_0_is_the_plain_image_and_the_others_are_augmented(scenes: Path):
    def view(number: int, batch_size: int = 5) -> np.ndarray:
        parts = view_batches(scenes, "val", IMAGE, number, batch_size).as_numpy_iterator()
        return np.concatenate(list(parts))

    views = [view(number) for number in range(3)]
    plain = np.concatenate([b["image"] for b in batches(evaluation_images(scenes, "val", SIZE, 5))])
    np.testing.assert_array_equal(views[0], plain)
    # A function of view and image, whatever the batches.
    np.testing.assert_array_equal(views[1], view(1, batch_size=12))
    for first, second in ((0, 1), (1, 2)):
        gaps = np.abs(views[first] - views[second]).max(axis=(1, 2, 3))
        assert (gaps > 1).all()


def test_a_worker_reads_the_records_of_its_rows_alone(
    scenes: Path, train: Callable[..., list[dict]], augmented: list[dict], tmp_path: Path
):
    share = {"part": 1, "parts": 2}
    order = IndexShuffle(0, 48, 8, **share)
    taken = {int(i) for indices, _ in order.steps(0, 3).as_numpy_iterator() for i in indices}
    # 3 steps of 4 of the 8 rows; the records of the 36 other images are made unreadable.
    assert len(taken) == 12
    data = shutil.copytree(scenes, tmp_path / "data")
    places = [(s.file, o) for s in Manifest.load(scenes).splits["train"].shards for o in s.offsets]
    for place, (file, offset) in enumerate(places):
        if place not in taken:
            with (data / file).open("r+b") as stream:
                stream.seek(offset)
                stream.write(bytes(8))
    second_half = [{key: value[4:] for key, value in batch.items()} for batch in augmented[:3]]
    assert_same(train(0, 3, folder=data, **share), second_half)
    with pytest.raises(tf.errors.DataLossError):
        train(0, 1, folder=data)
