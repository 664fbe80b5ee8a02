"""Hard text mining: which captions are drawn, and which of them an anchor meets."""

from __future__ import annotations

import csv
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.unit.training.tiny import run_tiny
from tf_dpce.data.caption_table import CaptionTable
from tf_dpce.data.input_pipeline import Batches, caption_groups
from tf_dpce.losses import InstanceLoss, RankingLoss
from tf_dpce.models import text_tower
from tf_dpce.models.dual_path import DualPath
from tf_dpce.models.image_tower import image_head
from tf_dpce.training.dual_path_trainer import DualPathTrainer
from tf_dpce.training.hard_negative_mining import HardNegatives

IMAGES, PLACES, WORDS, WIDTH, COUNT = 12, 6, 40, 8, 20


@pytest.fixture(scope="module")
def captions() -> CaptionTable:
    """Twelve images of instances 100, 101, ..., with one to three captions of 1 to 6 words."""
    draw = np.random.default_rng(0)
    first = np.cumsum([0, *(1 + np.arange(IMAGES) % 3)])
    ids = draw.integers(1, WORDS + 1, (first[-1], PLACES)).astype(np.int32)
    ids[np.arange(PLACES) >= draw.integers(1, PLACES + 1, (first[-1], 1))] = 0
    return CaptionTable(ids, first, 100 + np.arange(IMAGES))


def negatives(captions: CaptionTable, shift: bool = False, seed: int = 3) -> HardNegatives:
    return HardNegatives(captions, COUNT, shift, seed)


def mined_batch(trainer: DualPathTrainer, inputs: dict, targets: dict) -> tuple[dict, dict]:
    step = tf.constant(0, tf.int64)
    return trainer.hard_negatives.replace_paired(trainer, step, inputs, targets)


def network(captions: CaptionTable, relu_before_losses: bool = True) -> DualPathTrainer:
    keras.utils.set_random_seed(0)
    head = image_head(input_dim=5, output_dim=WIDTH, head_dim=0)
    tower = text_tower(WORDS, PLACES, 4, (1,), WIDTH, widths=(8,))
    plain = DualPath(head, tower, num_instances=200, relu_before_losses=relu_before_losses)
    mined = DualPathTrainer(plain, negatives(captions))
    losses = {"text_logits": InstanceLoss(), "pair": RankingLoss(negatives="paired")}
    mined.compile(keras.optimizers.SGD(0.1), losses, jit_compile=False)
    return mined


# --- what is drawn --------------------------------------------------------------------------------


def words_of(row: np.ndarray) -> tuple[int, ...]:
    return tuple(row[row > 0])


@pytest.mark.parametrize("shift", [False, True])
def test_a_candidate_is_a_caption_of_the_instance_it_names(captions: CaptionTable, shift: bool):
    owners = np.repeat(captions.instances, np.diff(captions.first))
    known = {(owner, words_of(row)) for owner, row in zip(owners, captions.ids, strict=True)}
    draw = negatives(captions, shift).draw
    starts = set()
    for step in range(20):
        ids, instances = (value.numpy() for value in draw(tf.constant(step, tf.int64)))
        assert ids.shape == (COUNT, PLACES) and instances.shape == (COUNT,)
        assert {(i, words_of(row)) for i, row in zip(instances, ids, strict=True)} <= known
        starts |= set(np.argmax(ids > 0, axis=1))
    assert starts == (set(range(PLACES)) if shift else {0})


def test_every_image_is_as_likely_however_many_captions_it_has(captions: CaptionTable):
    draw = negatives(captions).draw
    drawn = np.concatenate([draw(tf.constant(step, tf.int64))[1] for step in range(300)])
    # 6,000 draws of 12 images: 500 each, and the root of 500 is 22.
    counts = np.bincount(drawn - 100, minlength=IMAGES)
    assert counts.min() > 400 and counts.max() < 600


def test_draws_are_a_function_of_seed_and_step(captions: CaptionTable):
    def drawn(seed: int, step: int) -> list:
        return negatives(captions, True, seed).draw(tf.constant(step, tf.int64))[0].numpy().tolist()

    assert drawn(3, 7) == drawn(3, 7)
    assert drawn(3, 7) != drawn(3, 8)
    assert drawn(3, 7) != drawn(4, 7)


# --- what an anchor meets -------------------------------------------------------------------------


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return one @ other / np.linalg.norm(one) / np.linalg.norm(other)


@pytest.mark.parametrize("relu_before_losses", [False, True])
def test_it_is_the_nearest_caption_of_an_instance_outside_the_batch(
    captions: CaptionTable, relu_before_losses: bool
):
    mined = network(captions, relu_before_losses)
    images = np.random.default_rng(1).normal(size=(6, 5)).astype(np.float32)
    batch_ids = np.array([100, 101, 102, 103, 104, 105])
    inputs = {"image": tf.constant(images), "text": tf.zeros([6, PLACES], tf.int32)}
    ids = tf.constant(batch_ids)
    targets = {"text_logits": ids, "pair": tf.stack([ids, tf.range(6, dtype=tf.int64)], axis=1)}
    inputs, targets = mined_batch(mined, inputs, targets)
    anchors, texts, instances = images[0::2], inputs["text"][1::2], targets["text_logits"][1::2]

    # The plain way: one anchor and one candidate at a time.
    ids, owners = (value.numpy() for value in negatives(captions).draw(tf.constant(0, tf.int64)))
    for row, anchor in enumerate(anchors):
        scores = {}
        for place in range(COUNT):
            if owners[place] not in batch_ids:
                image = mined.image_tower(anchor[None], training=False).numpy()[0]
                text = mined.text_tower(ids[place][None], training=False).numpy()[0]
                if relu_before_losses:
                    image, text = np.maximum(image, 0), np.maximum(text, 0)
                scores[place] = cosine(image, text)
        best = max(scores, key=scores.__getitem__)
        assert texts[row].numpy().tolist() == ids[best].tolist()
        assert instances[row] == owners[best]


def test_paired_captions_stay_if_every_candidate_is_of_the_batch(captions: CaptionTable):
    mined, draw = network(captions), np.random.default_rng(2)
    # All twelve instances, as where the images of a few people make a batch.
    ids = tf.range(100, 112, dtype=tf.int64)
    inputs = {
        "image": tf.constant(draw.normal(size=(12, 5)).astype(np.float32)),
        "text": tf.constant(draw.integers(1, WORDS, (12, PLACES)).astype(np.int32)),
    }
    targets = {"text_logits": ids, "pair": tf.stack([ids, tf.range(12, dtype=tf.int64)], axis=1)}
    new_inputs, new_targets = mined_batch(mined, inputs, targets)
    np.testing.assert_array_equal(new_inputs["text"], inputs["text"])
    np.testing.assert_array_equal(new_targets["text_logits"], ids)


def test_mining_leaves_anchors_and_moves_no_statistic(captions: CaptionTable):
    mined = network(captions)
    before = [v.numpy() for v in mined.non_trainable_variables]
    batch = np.random.default_rng(2)
    inputs = {
        "image": tf.constant(batch.normal(size=(4, 5)).astype(np.float32)),
        "text": tf.constant(batch.integers(1, WORDS, (4, PLACES)).astype(np.int32)),
    }
    ids = tf.constant([100, 101, 102, 103], tf.int64)
    targets = {"text_logits": ids, "pair": tf.stack([ids, tf.range(4, dtype=tf.int64)], axis=1)}
    new_inputs, new_targets = mined_batch(mined, inputs, targets)

    np.testing.assert_array_equal(new_inputs["image"], inputs["image"])
    np.testing.assert_array_equal(new_inputs["text"][0::2], inputs["text"][0::2])
    labels = new_targets["text_logits"].numpy()
    assert labels[0::2].tolist() == [100, 102]
    # A mined caption keeps the label of its own image, which is not in the batch.
    assert all(label >= 104 for label in labels[1::2])
    np.testing.assert_array_equal(new_targets["pair"], targets["pair"])
    for variable, value in zip(mined.non_trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_a_step_of_fit_trains_the_words_of_mined_captions_and_none_of_the_replaced():
    # Caption k is word k, everywhere: candidates 1 to 10, two anchors and their paired captions.
    words = np.repeat(np.arange(1, 11, dtype=np.int32)[:, None], PLACES, axis=1)
    mined = network(CaptionTable(words, np.arange(11), 100 + np.arange(10)))
    anchors, paired = {21, 22}, {31, 32}
    inputs = {
        "image": tf.constant(np.random.default_rng(3).normal(size=(4, 5)).astype(np.float32)),
        "text": tf.repeat([[21], [31], [22], [32]], PLACES, axis=1),
    }
    ids = tf.range(110, 114, dtype=tf.int64)
    targets = {"text_logits": ids, "pair": tf.stack([ids, tf.range(4, dtype=tf.int64)], axis=1)}
    chosen = set(mined_batch(mined, inputs, targets)[0]["text"].numpy()[1::2].flat)
    assert chosen <= set(range(1, 11))
    vectors = mined.text_tower.get_layer("text_embedding").get_weights()[0]

    mined.fit(tf.data.Dataset.from_tensors((inputs, targets)), shuffle=False, verbose=0)

    # Plain SGD moves what has a gradient, and words that nobody read have none.
    after = mined.text_tower.get_layer("text_embedding").get_weights()[0]
    moved = {row + 1 for row in np.flatnonzero((after != vectors).any(axis=1))}
    assert moved == anchors | chosen and not moved & paired


# --- in a run -------------------------------------------------------------------------------------


# A stage that mines end to end is among the runs of `test_replicas`.
def test_a_stage_trains_with_mined_negatives(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    read = []

    def counted(data: Path, split: str, batch_size: int) -> Batches:
        read.append(split)
        return caption_groups(data, split, batch_size)

    monkeypatch.setattr("tf_dpce.data.caption_table.caption_groups", counted)
    options = {
        "stage1__epochs": 0,
        "stage2__epochs": 2,
        "stage2__backbone": "cached",
        "stage2__loss__negatives": "mined",
        "stage2__loss__candidates": 8,
    }
    assert run_tiny(scenes, tmp_path / "run", **options) == 0
    with (tmp_path / "run" / "history.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 2
    # Hinges with margin 1 on cosines from 0 to 1: of four rows two anchors pay, each 0 to 4.
    assert all(0 < float(row["pair_loss"]) <= 2 for row in rows)
    assert read.count("train") == 1, "the cache and the candidates share the captions"
