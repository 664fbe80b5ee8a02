"""Failures that are silent: each is provoked, and reported once."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.errors import raises
from tests.scenes import SIZE
from tests.unit.training.kills import history
from tests.unit.training.test_stages import config
from tests.unit.training.tiny import BATCH
from tf_dpce.config import LossConfig, StageConfig
from tf_dpce.data.caption_lengths import UNSPLIT_WORDS
from tf_dpce.data.feature_cache import FeatureCache
from tf_dpce.data.input_timer import InputTimer
from tf_dpce.data.prepare import prepare
from tf_dpce.datasets.shapes.source import draw_scenes, scene_numbers
from tf_dpce.logging import logger
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer
from tf_dpce.preprocessing.vocabulary import read_vocabulary
from tf_dpce.training import train
from tf_dpce.training.diagnostics import TrainingDiagnostics, mean_cosine, warn_unknown_words

PAIRED = LossConfig(0, 0, 2.0, "ranking", "paired", margin=0.5)
HARDEST = LossConfig(0, 0, 2.0, "ranking", "batch", margin=0.5)
SOFTMAX = LossConfig(0, 0, 1.0, "contrastive", margin=0.5)


def diagnoses(
    loss: LossConfig,
    *epochs: dict,
    waited: float = 0.0,
    first: float = 0.0,
    others: Sequence[float] = (),
    steps: int = 100,
    stage: int = 2,
) -> list[tuple[str, int]]:
    """The diagnoses over epochs with these logs, which it adds to, and their epochs.

    The first step waits for `first` of its 10 seconds. Each epoch lasts 10 more, of which its input
    takes `waited`; `others` are the shares of workers before this one.
    """
    timer, clock, taken = InputTimer(), SimpleNamespace(now=0.0), itertools.count()
    workers = SimpleNamespace(all_gather=lambda own: [*others, own])
    settings = StageConfig(epochs=len(epochs), loss=loss)
    found = TrainingDiagnostics(stage, settings, steps, timer, workers)
    with pytest.MonkeyPatch.context() as patch, logged() as records:
        patch.setattr(time, "monotonic", lambda: clock.now)
        found.on_train_begin()
        for epoch, logs in enumerate(epochs):
            found.on_epoch_begin(epoch)
            for seconds, without in [(10, first), (10, waited)] if epoch == 0 else [(10, waited)]:
                found.on_train_batch_begin(0)
                clock.now += without
                timer._note(next(taken))
                clock.now += seconds - without
                found.on_train_batch_end(0, {"loss": 1.0})
            found.on_epoch_end(epoch, logs)
    return diagnosed(records)


@contextmanager
def logged() -> Iterator[list[logging.LogRecord]]:
    """The warnings of the library within the block."""
    records, handler = [], logging.Handler(logging.WARNING)
    handler.emit = records.append
    logger.addHandler(handler)
    try:
        yield records
    finally:
        logger.removeHandler(handler)


def diagnosed(records: Sequence[logging.LogRecord]) -> list[tuple[str, int]]:
    fields = [getattr(record, "fields", {}) for record in records]
    return [(each["diagnosis"], each.get("epoch", 0)) for each in fields if "diagnosis" in each]


# --- each by its signs ----------------------------------------------------------------------------


def test_a_ranking_loss_at_its_margin_is_reported_once():
    # Two hinges of 0.5 a row; with paired negatives every second row costs nothing.
    for loss, dead in ((PAIRED, 0.5), (HARDEST, 1.0)):
        assert diagnoses(loss, *[{"pair_loss": dead}] * 4) == [("dead_loss", 2)]
        assert diagnoses(loss, *[{"pair_loss": 0.9 * dead}] * 4) == []
        assert diagnoses(SOFTMAX, *[{"pair_loss": dead}] * 4) == []


def test_a_stage_of_one_epoch_is_judged_by_it():
    assert diagnoses(PAIRED, {"pair_loss": 0.5}) == [("dead_loss", 1)]
    assert diagnoses(SOFTMAX, {}, waited=4.0) == [("starved_input", 1)]
    # The first step fills the buffers: 9 of its 10 seconds do not count.
    assert diagnoses(SOFTMAX, {}, waited=1.0, first=9.0) == []


def test_embeddings_that_are_all_alike_are_reported():
    alike = {"val_image_cosine": 0.99, "val_caption_cosine": 0.5}
    assert diagnoses(SOFTMAX, {}, alike) == [("collapsed_image", 2)]
    assert diagnoses(SOFTMAX, *[{"val_image_cosine": 0.9, "val_caption_cosine": 0.9}] * 2) == []
    # A healthy run may begin so.
    assert diagnoses(SOFTMAX, alike, {"val_image_cosine": 0.9}) == []


def test_a_stage_is_judged_after_a_hundred_steps_or_at_its_end():
    alike = {"val_caption_cosine": 0.999}
    assert diagnoses(SOFTMAX, *[alike] * 9, steps=25) == [("collapsed_caption", 4)]
    assert diagnoses(SOFTMAX, *[alike] * 3, steps=25) == [("collapsed_caption", 3)]
    assert diagnoses(SOFTMAX, alike, alike, {}, steps=25) == []


def test_a_remedy_is_that_of_the_cause():
    alike = {"val_caption_cosine": 0.999}

    def remedy(stage: int, steps: int) -> str:
        with logged() as records:
            diagnoses(SOFTMAX, alike, alike, stage=stage, steps=steps)
        return records[0].getMessage()

    assert "98 steps" in remedy(1, 49) and "learning_rate" not in remedy(1, 49)
    assert "--stage1.learning_rate" in remedy(1, 50) and "batch_size" not in remedy(1, 50)
    # A second stage is short, and begins with the averages of the first.
    assert "--stage2.learning_rate" in remedy(2, 1) and "stage 1" in remedy(2, 1)


def test_an_epoch_without_input_is_reported():
    logs = {}
    assert diagnoses(SOFTMAX, {}, logs, waited=4.0) == [("starved_input", 2)]
    assert logs["input_share"] == pytest.approx(0.4, abs=1e-4)
    assert diagnoses(SOFTMAX, {}, {}, waited=1.0) == []
    # The time of the validation is none of the input's: 4 of 10 seconds are left.
    validated = [{"validation_seconds": 6.0} for _ in range(2)]
    assert diagnoses(SOFTMAX, *validated, waited=1.0) == [("starved_input", 2)]
    assert validated[1]["input_share"] == pytest.approx(0.25, abs=1e-4)


def test_of_several_workers_the_one_that_waits_the_longest_counts():
    logs = {}
    found = diagnoses(SOFTMAX, {}, logs, waited=1.0, others=(0.05, 0.4))
    assert found == [("starved_input", 2)]
    assert logs["input_share"] == pytest.approx(0.4, abs=1e-4)


def test_a_loss_that_is_no_number_ends_the_training():
    for loss in (float("nan"), float("inf")):
        found = TrainingDiagnostics(1, StageConfig(epochs=3), 100, InputTimer(), None)
        found.on_epoch_begin(2)
        found.on_train_batch_begin(0)
        found.on_train_batch_end(0, {"loss": 3.0})
        found.on_train_batch_begin(1)
        with raises("training.diverged") as caught:
            found.on_train_batch_end(1, {"loss": loss})
        assert "epoch 3" in str(caught.value) and "--stage1.learning_rate" in str(caught.value)


def slow_mean_cosine(vectors: np.ndarray) -> float:
    """The mean over all pairs of rows, one by one; two rows without a length are alike."""
    cosines = []
    for i, one in enumerate(vectors):
        for j, other in enumerate(vectors):
            lengths = np.linalg.norm(one) * np.linalg.norm(other)
            none = not one.any() and not other.any()
            if i != j:
                cosines.append(1.0 if none else one @ other / lengths if lengths else 0.0)
    return float(np.mean(cosines))


def test_the_mean_cosine_is_of_directions_whatever_the_lengths():
    for seed, short in itertools.product(range(3), (1.0, 4e-4, 0.0)):
        draw = np.random.default_rng(seed)
        vectors = draw.normal(size=(9, 4)) * draw.uniform(0.5, 2, (9, 1))
        vectors[:4] *= short
        assert mean_cosine(vectors) == pytest.approx(slow_mean_cosine(vectors), abs=1e-9)
    assert mean_cosine(vectors[-1:]) == 0
    assert mean_cosine(np.tile(vectors[-1:], (5, 1))) == pytest.approx(1)
    # Rows of a dead tower are alike. Of rows of length 4e-8 `UnitLength` makes x / sqrt(1e-8 +
    # 1.6e-15), which is 4e-4 long.
    row = np.array([3e-4, 0, 1.5e-4, -2e-4], np.float32)
    noise = np.random.default_rng(0).normal(scale=1e-8, size=(60, 4)).astype(np.float32)
    assert mean_cosine(row + noise) == pytest.approx(1, abs=1e-6)
    assert mean_cosine(np.zeros((60, 4), np.float32)) == 1


# --- provoked in runs -----------------------------------------------------------------------------


@pytest.mark.full
def test_a_run_that_diverges_ends_without_a_checkpoint_of_it(
    scenes: Path, finished: Path, tmp_path: Path
):
    # A state is saved after each step, unless it is out of range.
    wild, run = config(stage2__learning_rate=1e30, checkpoint_minutes=0), tmp_path / "run"
    with raises("training.diverged") as caught:
        train.train(wild, scenes, run, (2,), init_from=finished)
    assert "stage 2, epoch 1" in str(caught.value)
    assert (run / "config.json").exists() and not list(run.glob("checkpoints/*"))


@pytest.mark.full
def test_a_run_that_waits_for_its_input_says_so(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # An epoch of 24 steps; during its validation as many as 10 batches are taken in advance.
    take, taken, before_last = FeatureCache._take, itertools.count(), 24 + 10
    one_at_a_time = threading.Lock()

    def slow(self: FeatureCache, *rows: np.ndarray) -> tuple:
        with one_at_a_time:
            # A step computes for milliseconds, on a busy machine for some hundreds of them.
            time.sleep(0.5 if next(taken) >= before_last else 0)
            return take(self, *rows)

    monkeypatch.setattr(FeatureCache, "_take", slow)
    with logged() as records:
        train.train(
            config(stage1__batch_size=BATCH // 2, stage2__epochs=0), scenes, tmp_path / "run"
        )
    # The scenes have 12 validation images, which is said before the first epoch.
    assert diagnosed(records) == [("few_validation_images", 0), ("starved_input", 2)]


@pytest.mark.full
def test_a_run_that_learns_nothing_says_so(tmp_path: Path):
    # One image and one caption, 72 times: whatever is learnt, all are embedded alike, and the sole
    # loss stays at its margin. Files of the same bytes would be one instance: each ends otherwise.
    data, run = tmp_path / "data", tmp_path / "run"
    images = list(draw_scenes(tmp_path / "drawn", 0, scene_numbers(48, 12, 12), SIZE))
    captions = images[0].captions[:1] * 5
    contents = images[0].path.read_bytes()
    for number, image in enumerate(images):
        image.path.write_bytes(contents + b"%d" % number)
        image.captions = captions
    prepare(images, data, source="scenes", lowercase=True)
    loss = {"image_instance": 0, "text_instance": 0, "pair": 2, "pair_loss": "ranking"}
    only = {f"stage1__loss__{key}": value for key, value in loss.items()}
    with logged() as records:
        train.train(config(stage2__epochs=0, stage1__learning_rate=1e-7, **only), data, run)
    assert diagnosed(records) == [
        ("few_validation_images", 0),
        ("dead_loss", 2),
        ("collapsed_image", 2),
        ("collapsed_caption", 2),
    ]
    # The sole loss is logged by its name too.
    for row in history(run):
        assert float(row["pair_loss"]) == pytest.approx(float(row["loss"]) / 2)
        assert row["image_logits_loss"] == row["text_logits_loss"] == ""


def test_captions_of_unknown_words_are_reported_of_training_and_validation(tmp_path: Path):
    images = list(draw_scenes(tmp_path / "drawn", 0, scene_numbers(4, 2, 2), SIZE))
    for foreign in (None, "val"):
        words = [replace(i, captions=["rot" if i.split == foreign else "red"]) for i in images]
        data = tmp_path / f"{foreign}"
        known = prepare(words, data, source="scenes").manifest
        # `prepare` leaves no split without captions; another tool might.
        empty = replace(known.splits["val"], captions=0)
        for manifest, split in (
            (known, foreign),
            (replace(known, splits={**known.splits, "val": empty}), None),
            # As `prepare` counts if it was given word vectors that lack most words.
            (replace(known, vocabulary_coverage=0.3), "train"),
        ):
            with logged() as records:
                warn_unknown_words(data, manifest, CaptionTokenizer(["red"], 4, False))
            assert [record.fields["split"] for record in records] == ([split] if split else [])


def test_captions_without_spaces_are_the_cause_of_unknown_words(tmp_path: Path):
    images = list(draw_scenes(tmp_path / "drawn", 0, scene_numbers(4, 2, 2), SIZE))
    sentences = [
        replace(i, captions=[f"白色背景上的{n}色圆。"])
        for i, n in zip(images, "红绿蓝黄黑灰紫橙", strict=True)
    ]
    manifest = prepare(sentences, tmp_path / "data", source="scenes").manifest
    words = read_vocabulary(tmp_path / "data" / "vocabulary.txt")
    with logged() as records:
        warn_unknown_words(tmp_path / "data", manifest, CaptionTokenizer(words, 4, False))
    assert UNSPLIT_WORDS in records[0].getMessage()
    assert "--lowercase" not in records[0].getMessage()
