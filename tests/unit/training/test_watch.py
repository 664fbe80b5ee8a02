"""Failures that are silent: each is provoked, and told in one line."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.scenes import SIZE
from tests.unit.training.kills import arrays, history
from tests.unit.training.tiny import BATCH, run_tiny
from tf_dpce.config import LossConfig
from tf_dpce.data.input_timer import Waiting
from tf_dpce.data.prepare import prepare
from tf_dpce.datasets.shapes.source import draw_scenes, scene_numbers
from tf_dpce.errors import UserError
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer
from tf_dpce.training.caption_table import tell_unknown_words
from tf_dpce.training.diagnostics import Watch, mean_cosine
from tf_dpce.training.features import FeatureCache

PAIRED = LossConfig(0, 0, 2.0, "ranking", "paired", margin=0.5)
HARDEST = LossConfig(0, 0, 2.0, "ranking", "batch", margin=0.5)
SOFTMAX = LossConfig(0, 0, 1.0, "contrastive", margin=0.5)


def lines_of(
    loss: LossConfig,
    *epochs: dict,
    waited: float = 0.0,
    first: float = 0.0,
    others: Sequence[float] = (),
) -> list[str]:
    """What is told over epochs with these logs, which it adds to.

    The first step waits for `first` of its 10 seconds. Each epoch lasts 10 more, of which its input
    takes `waited`; `others` are the shares of workers before this one.
    """
    lines, waiting, clock, steps = [], Waiting(), SimpleNamespace(now=0.0), itertools.count()
    found = Watch(2, loss, len(epochs), waiting, lines.append, lambda own: [*others, own])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: clock.now)
        found.on_train_begin()
        for epoch, logs in enumerate(epochs):
            found.on_epoch_begin(epoch)
            for seconds, without in [(10, first), (10, waited)] if epoch == 0 else [(10, waited)]:
                found.on_train_batch_begin(0)
                clock.now += without
                waiting._note(next(steps))
                clock.now += seconds - without
                found.on_train_batch_end(0, {"loss": 1.0})
            found.on_epoch_end(epoch, logs)
    return lines


# --- each by its signs ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "stuck"),
    # Two hinges of 0.5 a row; with given negatives every second row costs nothing.
    [(PAIRED, 0.5), (HARDEST, 1.0)],
)
def test_a_ranking_loss_at_its_margin_is_told_once(loss: LossConfig, stuck: float):
    (line,) = lines_of(loss, *[{"pair_loss": stuck}] * 4)
    assert line.startswith("warning, stage 2, epoch 2: the ranking loss stays at its margin")
    assert lines_of(loss, *[{"pair_loss": 0.9 * stuck}] * 4) == []
    assert lines_of(SOFTMAX, *[{"pair_loss": stuck}] * 4) == []


def test_a_stage_of_one_epoch_is_judged_by_it():
    (line,) = lines_of(PAIRED, {"pair_loss": 0.5})
    assert "epoch 1: the ranking loss stays at its margin" in line
    (line,) = lines_of(SOFTMAX, {}, waited=4.0)
    assert "epoch 1: 40% of the epoch went by without input: " in line
    # The first step fills the buffers: 9 of its 10 seconds do not count.
    assert lines_of(SOFTMAX, {}, waited=1.0, first=9.0) == []


def test_a_stage_that_is_resumed_does_not_count_its_first_step():
    lines = []
    found = Watch(1, SOFTMAX, 5, Waiting(), lines.append)
    found.on_epoch_begin(3)
    found.on_train_batch_begin(0)
    found._began = found._marks = (time.monotonic() - 10, -9.0)
    found.on_train_batch_end(0, {"loss": 1.0})
    found.on_epoch_end(3, {})
    assert lines == []


def test_a_worker_without_input_is_told_by_the_chief():
    logs = {}
    (line,) = lines_of(SOFTMAX, {}, logs, waited=1.0, others=(0.05, 0.4))
    assert "epoch 2: 40% of the epoch went by without input on worker 1: store smaller" in line
    assert logs["input_share"] == pytest.approx(0.4, abs=1e-4)


def test_embeddings_that_are_alike_are_told():
    alike = {"val_images_alike": 0.99, "val_sentences_alike": 0.5}
    (line,) = lines_of(SOFTMAX, {}, alike)
    assert "epoch 2: all images are embedded alike (mean cosine 0.990)" in line
    assert lines_of(SOFTMAX, *[{"val_images_alike": 0.9, "val_sentences_alike": 0.9}] * 2) == []
    # A healthy run may begin so.
    assert lines_of(SOFTMAX, alike, {"val_images_alike": 0.9}) == []


def test_an_epoch_without_input_is_told():
    (line,) = lines_of(SOFTMAX, {}, {}, waited=4.0)
    assert "epoch 2: 40% of the epoch went by without input" in line
    assert lines_of(SOFTMAX, {}, {}, waited=1.0) == []
    # The time of the validation is none of the input's: 4 of 10 seconds are left.
    (line,) = lines_of(SOFTMAX, *[{"validation_seconds": 6.0}] * 2, waited=1.0)
    assert "25% of the epoch" in line


def test_the_share_without_input_is_logged():
    logs = {"validation_seconds": 6.0}
    lines_of(SOFTMAX, {}, logs, waited=0.08)
    assert logs["input_share"] == pytest.approx(0.02, abs=1e-4)


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_the_training(loss: float):
    found = Watch(1, SOFTMAX, 3, None, print)
    found.on_epoch_begin(2)
    found.on_train_batch_end(0, {"loss": 3.0})
    with pytest.raises(UserError, match=r"stage 1, epoch 3: .* lower --stage1.learning_rate"):
        found.on_train_batch_end(1, {"loss": loss})


@pytest.mark.parametrize("seed", range(3))
def test_the_mean_cosine_is_that_of_all_pairs(seed: int):
    vectors = np.random.default_rng(seed).normal(size=(7, 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    pairs = [vectors[i] @ vectors[j] for i in range(7) for j in range(7) if i != j]
    assert mean_cosine(vectors) == pytest.approx(np.mean(pairs))
    assert mean_cosine(vectors[:1]) == 0
    assert mean_cosine(np.tile(vectors[:1], (5, 1))) == pytest.approx(1)


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


@pytest.mark.parametrize("short", [1.0, 4e-4, 0.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_mean_cosine_is_of_directions_whatever_the_lengths(seed: int, short: float):
    draw = np.random.default_rng(seed)
    vectors = draw.normal(size=(9, 4)) * draw.uniform(0.5, 2, (9, 1))
    vectors[:4] *= short
    assert mean_cosine(vectors) == pytest.approx(slow_mean_cosine(vectors), abs=1e-9)


def test_rows_of_a_dead_tower_are_alike():
    # What `UnitLength` makes of rows of length 4e-8: x / sqrt(1e-8 + 1.6e-15) is 4e-4 long.
    row = np.array([3e-4, 0, 1.5e-4, -2e-4], np.float32)
    noise = np.random.default_rng(0).normal(scale=1e-8, size=(60, 4)).astype(np.float32)
    assert mean_cosine(row + noise) == pytest.approx(1, abs=1e-6)
    assert mean_cosine(np.zeros((60, 4), np.float32)) == 1


# --- provoked in runs -----------------------------------------------------------------------------


def warnings(capsys: pytest.CaptureFixture) -> list[str]:
    return [li for li in capsys.readouterr().out.splitlines() if li.startswith("warning")]


# Where nothing is written in between, the loss of the next step tells.
@pytest.mark.parametrize(("minutes", "told"), [(5, "error: the loss is "), (0, "is out of range ")])
def test_a_run_that_diverges_ends_with_one_line_and_sound_checkpoints(
    scenes: Path, tmp_path: Path, capsys, minutes: int, told: str
):
    run = tmp_path / "run"
    wild = {"stage2__learning_rate": 1e30, "checkpoint_minutes": minutes, "stage1__epochs": 1}
    assert run_tiny(scenes, run, **wild) == 1
    # Progress bars come before it.
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: ") and told in line
    assert "in stage 2, epoch 1: train anew with a lower --stage2.learning_rate" in line
    assert {row["stage"] for row in history(run)} == {"1"}
    checkpoints = sorted((run / "checkpoints").iterdir())
    assert checkpoints and all("stage1" in path.name for path in checkpoints)
    for path in checkpoints:
        for value in arrays(path).values():
            assert value.dtype != np.float32 or np.abs(value).max() < 1e6


def test_a_run_that_waits_for_its_input_says_so(scenes: Path, tmp_path: Path, capsys, monkeypatch):
    # An epoch of 24 steps; during its validation as many as 10 batches are taken in advance.
    take, taken, before_last = FeatureCache._take, itertools.count(), 24 + 10
    one_at_a_time = threading.Lock()

    def slow(self: FeatureCache, *rows: np.ndarray) -> tuple:
        with one_at_a_time:
            # A step computes for milliseconds, on a busy machine for some hundreds of them.
            time.sleep(0.5 if next(taken) >= before_last else 0)
            return take(self, *rows)

    monkeypatch.setattr(FeatureCache, "_take", slow)
    options = {"stage1__batch_size": BATCH // 2, "stage2__epochs": 0}
    assert run_tiny(scenes, tmp_path / "run", **options) == 0
    (line,) = warnings(capsys)
    assert line.startswith("warning, stage 1, epoch 2: ")
    assert "of the epoch went by without input" in line


# A rate next to 0 leaves random vectors, among which right pairs are no nearer than wrong ones.
@pytest.mark.parametrize("negatives", ["paired", "batch"])
def test_a_run_whose_only_loss_stays_at_its_margin_says_so(
    scenes: Path, tmp_path: Path, capsys, negatives: str
):
    still = {"stage1__learning_rate": 1e-7, "stage2__epochs": 0}
    loss = {"image_instance": 0, "text_instance": 0, "pair": 2, "pair_loss": "ranking"}
    only = {f"stage1__loss__{key}": value for key, value in loss.items()}
    run = tmp_path / "run"
    assert run_tiny(scenes, run, **still, **only, stage1__loss__negatives=negatives) == 0
    (line,) = warnings(capsys)
    assert line.startswith("warning, stage 1, epoch 2: the ranking loss stays at its margin (")
    for row in history(run):
        assert float(row["pair_loss"]) == pytest.approx(float(row["loss"]) / 2)
        assert row["image_logits_loss"] == row["text_logits_loss"] == ""


def test_a_run_that_embeds_all_alike_says_so(tmp_path: Path, capsys):
    # One image and one sentence, 72 times: whatever is learnt, all are embedded alike.
    data, pairs = tmp_path / "data", []
    drawn = draw_scenes(tmp_path / "drawn", 0, scene_numbers(48, 12, 12), SIZE)
    for pair in drawn:
        one = pairs[0] if pairs else pair
        pairs.append(replace(pair, path=one.path, caption=one.caption))
    prepare(pairs, data, source="scenes", lowercase=True)
    assert run_tiny(data, tmp_path / "run", stage2__epochs=0) == 0
    told = warnings(capsys)
    for side in ("images", "sentences"):
        assert [line for line in told if f"all {side} are embedded alike (mean cosine " in line]


def test_a_run_whose_decay_leaves_nothing_of_a_tower_says_so(scenes: Path, tmp_path: Path, capsys):
    # Each step takes half of every matrix: 36 of them leave rows far shorter than 1.
    dead = {
        "stage1__optimizer": "sgd",
        "stage1__learning_rate": 0.1,
        "stage1__weight_decay": 5,
        "stage1__schedule": "steps",
        "stage1__epochs": 3,
        "stage2__epochs": 0,
    }
    assert run_tiny(scenes, tmp_path / "run", **dead) == 0
    assert any("all images are embedded alike (mean cosine " in li for li in warnings(capsys))


def test_captions_of_unknown_words_are_told_before_training(tmp_path: Path, capsys):
    data = tmp_path / "data"
    pairs = draw_scenes(tmp_path / "drawn", 0, scene_numbers(48, 12, 12), SIZE)
    # Vectors that know one word of the captions, as those of another language might.
    vectors = tmp_path / "vectors.txt"
    vectors.write_text("red 0.5 0.5\nrouge 0.5 0.4\n")
    prepare(list(pairs), data, source="scenes", lowercase=True, vectors=vectors)
    assert run_tiny(data, tmp_path / "run", stage1__epochs=1, stage2__epochs=0) == 0
    (line,) = [li for li in capsys.readouterr().out.splitlines() if "in the vocabulary" in li]
    assert line.startswith("warning: only ") and "captions of train are" in line
    assert "prepare anew" in line


@pytest.mark.parametrize(
    ("foreign", "told"),
    [((), []), (("val",), ["val"]), (("train",), ["train"]), (("train", "val"), ["train"])],
)
@pytest.mark.parametrize("judged", [True, False])
def test_captions_of_another_language_are_told_of_training_and_validation(
    tmp_path: Path, foreign: tuple[str, ...], told: list[str], judged: bool
):
    data, vectors, lines = tmp_path / "data", tmp_path / "vectors.txt", []
    vectors.write_text("red 0.5 0.5\n")
    pairs = draw_scenes(tmp_path / "drawn", 0, scene_numbers(4, 2, 2), SIZE)
    words = {split: "rot" if split in foreign else "red" for split in ("train", "val", "test")}
    # One word of one training caption is known, or none could be.
    texts = [replace(p, caption=words[p.split] + " red" * (n == 0)) for n, p in enumerate(pairs)]
    manifest = prepare(texts, data, source="scenes", vectors=vectors).manifest
    if not judged:
        # `prepare` leaves no split without captions; another tool might.
        empty = replace(manifest.splits["val"], captions=0)
        manifest = replace(manifest, splits={**manifest.splits, "val": empty})
        told = [split for split in told if split != "val"]
    tell_unknown_words(data, manifest, CaptionTokenizer(["red"], 4, False), lines.append)
    assert [line.split(" are in the")[0].rsplit(" ", 1)[1] for line in lines] == told
