"""A table as tf.data for a `keras fit` script: what it holds, in what form, and its mistakes."""

from __future__ import annotations

import csv
import logging
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import tf_dpce
from tests.errors import raises
from tests.samples import image
from tests.unit.datasets.tables import write as write_table
from tf_dpce.data.pairs import Pairs
from tf_dpce.datasets.table import read_table
from tf_dpce.preprocessing.image import evaluation_pixels
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer

ROWS = [
    (f"{split}{number}.jpg", caption, split, f"{split} person {number // 2}")
    for split, count in (("train", 6), ("val", 4), ("test", 2))
    for number in range(count)
    for caption in (f"A {split} thing", f"The image w{number}.")
]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for number, name in enumerate({row[0]: None for row in ROWS}):
        (tmp_path / "images" / name).write_bytes(image(size=(9 + number, 8)))
    with (tmp_path / "pairs.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("image", "caption", "split", "instance"), *ROWS])
    return tmp_path / "pairs.csv"


@pytest.fixture
def pairs(table: Path) -> Pairs:
    return tf_dpce.load_pairs(table, images=table.parent / "images")


def pixels(path: Path) -> np.ndarray:
    return evaluation_pixels(tf.constant(path.read_bytes()), 8).numpy()


def test_training_batches_have_the_inputs_and_targets_of_the_model(pairs: Pairs):
    tokenizer = CaptionTokenizer.adapt(pairs.captions, max_length=5)
    assert pairs.num_instances == 3 and len(pairs.captions) == 12
    assert {"train", "w5"} <= set(tokenizer.words) and "val" not in tokenizer.words
    expected = sorted(
        (pixels(image.path).tobytes(), tokenizer([caption])[0].numpy().tobytes(), number // 2)
        for number, image in enumerate(pairs.train.images)
        for caption in image.captions
    )
    batches = pairs.train.batch(4, tokenizer, image_size=8)
    epochs = []
    for _ in range(2):
        epochs.append([])
        for inputs, targets in batches:
            assert inputs["image"].shape == (4, 8, 8, 3) and inputs["image"].dtype == tf.float32
            assert inputs["text"].shape == (4, 5) and inputs["text"].dtype == tf.int32
            assert list(targets) == ["image_logits", "text_logits", "pair"]
            ids = {tuple(target.numpy().tolist()) for target in targets.values()}
            assert len(ids) == 1 and targets["pair"].dtype == tf.int64
            rows = zip(inputs["image"].numpy(), inputs["text"].numpy(), *ids, strict=True)
            epochs[-1] += [(one.tobytes(), other.tobytes(), n) for one, other, n in rows]
    assert epochs[0] != epochs[1], "every epoch has an order of its own"
    assert sorted(epochs[0]) == sorted(epochs[1]) == expected


def test_evaluation_gets_each_image_and_each_caption_once_in_order(pairs: Pairs):
    tokenizer = CaptionTokenizer.adapt(pairs.captions)
    images = list(pairs.val.image_batches(8, batch_size=3).as_numpy_iterator())
    captions = list(pairs.val.caption_batches(tokenizer, batch_size=5).as_numpy_iterator())
    assert [len(batch["image"]) for batch in images] == [3, 1]
    assert [len(batch["text"]) for batch in captions] == [5, 3]
    for batches, expected in ((images, [0, 0, 1, 1]), (captions, [0, 0, 0, 0, 1, 1, 1, 1])):
        assert np.concatenate([b["instance"] for b in batches]).tolist() == expected
    shown = np.concatenate([batch["image"] for batch in images])
    np.testing.assert_array_equal(shown, [pixels(item.path) for item in pairs.val.images])
    ids = np.concatenate([batch["text"] for batch in captions])
    np.testing.assert_array_equal(ids, tokenizer(list(pairs.val.captions)))


def test_without_a_column_the_split_is_that_of_prepare(table: Path):
    path = table.parent / "images" / "own.csv"
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([("image", "caption"), *(row[:2] for row in ROWS)])
    found = tf_dpce.load_pairs(str(path), seed=3)
    expected = list(read_table(path, seed=3))
    for name in ("train", "val"):
        assert list(getattr(found, name).images) == [i for i in expected if i.split == name]


def test_what_cannot_be_used_is_left_out_and_logged(table: Path, caplog):
    (table.parent / "images" / "train0.jpg").write_bytes(b"GIF89a")
    (table.parent / "images" / "val3.jpg").unlink()
    with table.open("a") as stream:
        stream.write("train1.jpg, . ,train,train person 0\n")
    with caplog.at_level(logging.WARNING, "tf_dpce"):
        found = tf_dpce.load_pairs(table, images=table.parent / "images")
    assert [Path(item.path).name for item in found.rejected] == [
        *("train1.jpg", "train0.jpg", "val3.jpg")
    ]
    (record,) = caplog.records
    assert "3" in record.message and "1 no such file" in record.message
    assert len(found.train.images) == 5 and len(found.val.captions) == 6


def test_columns_of_other_names_are_given(table: Path, pairs: Pairs):
    table.write_text(table.read_text().replace("image,caption", "Foto,Satz"))
    columns = {"image_column": "foto", "caption_column": ["satz"]}
    found = tf_dpce.load_pairs(table, images=table.parent / "images", **columns)
    assert (found.train.images, found.val.images) == (pairs.train.images, pairs.val.images)


def test_a_table_that_holds_the_images_is_for_prepare(tmp_path: Path):
    row = {"image": {"bytes": b"\xff\xd8\xff", "path": None}, "caption": "a dog"}
    with raises("table.bytes", write_table(tmp_path / "a.parquet", [row]), line=1):
        tf_dpce.load_pairs(tmp_path / "a.parquet")


def test_mistakes(table: Path, pairs: Pairs):
    tokenizer = CaptionTokenizer.adapt(pairs.captions)
    with raises("pairs.batch_size"):
        pairs.train.batch(13, tokenizer, image_size=8)
    with raises("prepare.empty_split", path=table):
        tf_dpce.load_pairs(table)
