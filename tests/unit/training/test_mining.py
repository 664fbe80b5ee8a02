"""Hard text mining: which captions are drawn, and which of them an anchor meets."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.unit.training.kills import history
from tests.unit.training.tiny import run_tiny
from tf_dpce.data.caption_table import CaptionTable
from tf_dpce.data.input_pipeline import caption_groups
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


def test_a_candidate_is_a_caption_of_the_instance_it_names(captions: CaptionTable):
    owners = np.repeat(captions.instances, np.diff(captions.first))
    known = {(owner, words_of(row)) for owner, row in zip(owners, captions.ids, strict=True)}
    for shift in (False, True):
        draw, starts = negatives(captions, shift).draw, set()
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


# --- what an anchor meets -------------------------------------------------------------------------


def batch(ids: np.ndarray, texts: np.ndarray | None = None) -> tuple[dict, dict]:
    """Inputs and targets of images drawn at random and, if no captions are given, such captions."""
    draw, rows = np.random.default_rng(1), len(ids)
    images = draw.normal(size=(rows, 5)).astype(np.float32)
    if texts is None:
        texts = draw.integers(1, WORDS, (rows, PLACES))
    roles = tf.range(rows, dtype=tf.int64)
    inputs = {"image": tf.constant(images), "text": tf.constant(texts, tf.int32)}
    return inputs, {"text_logits": tf.constant(ids), "pair": tf.stack([ids, roles], axis=1)}


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return one @ other / np.linalg.norm(one) / np.linalg.norm(other)


@pytest.mark.parametrize("relu_before_losses", [False, True])
def test_it_is_the_nearest_caption_of_an_instance_outside_the_batch(
    captions: CaptionTable, relu_before_losses: bool
):
    mined, batch_ids = network(captions, relu_before_losses), np.arange(100, 106)
    before = [v.numpy() for v in mined.non_trainable_variables]
    inputs, targets = batch(batch_ids)
    new_inputs, new_targets = mined_batch(mined, inputs, targets)
    texts, instances = new_inputs["text"][1::2], new_targets["text_logits"][1::2]

    # The plain way: one anchor and one candidate at a time.
    ids, owners = (value.numpy() for value in negatives(captions).draw(tf.constant(0, tf.int64)))
    for row, anchor in enumerate(inputs["image"].numpy()[0::2]):
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
        # A mined caption has the label of its own image.
        assert instances[row] == owners[best]
    # Anchors stay, and so do all statistics.
    np.testing.assert_array_equal(new_inputs["image"], inputs["image"])
    np.testing.assert_array_equal(new_inputs["text"][0::2], inputs["text"][0::2])
    np.testing.assert_array_equal(new_targets["text_logits"][0::2], batch_ids[0::2])
    np.testing.assert_array_equal(new_targets["pair"], targets["pair"])
    for variable, value in zip(mined.non_trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_paired_captions_stay_if_every_candidate_is_of_the_batch(captions: CaptionTable):
    # All twelve instances, as where the images of a few people make a batch.
    inputs, targets = batch(np.arange(100, 112))
    new_inputs, new_targets = mined_batch(network(captions), inputs, targets)
    np.testing.assert_array_equal(new_inputs["text"], inputs["text"])
    np.testing.assert_array_equal(new_targets["text_logits"], targets["text_logits"])


@pytest.mark.full
def test_a_step_of_fit_trains_the_words_of_mined_captions_and_none_of_the_replaced():
    # Caption k is word k, everywhere: candidates 1 to 10, two anchors and their paired captions.
    words = np.repeat(np.arange(1, 11, dtype=np.int32)[:, None], PLACES, axis=1)
    mined = network(CaptionTable(words, np.arange(11), 100 + np.arange(10)))
    anchors, paired = {21, 22}, {31, 32}
    texts = np.repeat([[21], [31], [22], [32]], PLACES, axis=1)
    inputs, targets = batch(np.arange(110, 114), texts)
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
@pytest.mark.full
def test_a_stage_trains_with_mined_negatives(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    groups = Mock(wraps=caption_groups)
    monkeypatch.setattr("tf_dpce.data.caption_table.caption_groups", groups)
    options = {
        "stage1__epochs": 0,
        "stage2__backbone": "cached",
        "stage2__loss__negatives": "mined",
        "stage2__loss__candidates": 8,
    }
    assert run_tiny(scenes, tmp_path / "run", **options) == 0
    rows = history(tmp_path / "run")
    assert len(rows) == 2
    # Hinges with margin 1 on cosines from 0 to 1: of four rows two anchors pay, each 0 to 4.
    assert all(0 < float(row["pair_loss"]) <= 2 for row in rows)
    read = [call.args[1] for call in groups.call_args_list]
    assert read.count("train") == 1, "the cache and the candidates share the captions"
