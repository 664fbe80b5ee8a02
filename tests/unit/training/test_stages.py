"""What a stage trains and compares with, and where it is resumed."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.errors import raises
from tests.unit.training.tiny import BATCH, OPTIONS, STEPS
from tf_dpce.config import Config, LossConfig, StageConfig, from_dict, to_dict
from tf_dpce.data.manifest import Manifest
from tf_dpce.errors import UserError
from tf_dpce.losses import ContrastiveLoss, InstanceLoss, RankingLoss
from tf_dpce.models.dual_path import DualPath
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer
from tf_dpce.preprocessing.vocabulary import read_vocabulary
from tf_dpce.training.checkpoint import Progress
from tf_dpce.training.distributed import Workers, describe, mirrored_strategy
from tf_dpce.training.dual_path_trainer import DualPathTrainer
from tf_dpce.training.model_factory import build_model, load_vectors, loss_weights, stage_losses
from tf_dpce.training.resume import FitSegment, remaining_segments
from tf_dpce.training.stage import (
    StageData,
    TrainingContext,
    compile_trainer,
    state_variables,
)


def config(**changes: object) -> Config:
    """The tiny run's configuration, from its options with dots."""
    values: dict = {}
    for key, value in (OPTIONS | {k.replace("__", "."): v for k, v in changes.items()}).items():
        section = values
        *path, last = key.split(".")
        for part in path:
            section = section.setdefault(part, {})
        is_list = isinstance(value, str) and value.startswith("[")
        section[last] = [int(part) for part in value[1:-1].split(",")] if is_list else value
    return from_dict(values)


@dataclass(frozen=True)
class Prepared:
    """A stage that may be compiled, on a model that nobody trains."""

    number: int
    context: TrainingContext
    data: StageData

    @property
    def model(self) -> DualPath:
        return self.context.model

    @property
    def tokenizer(self) -> CaptionTokenizer:
        return self.context.tokenizer

    def compiled(self) -> DualPathTrainer:
        return compile_trainer(self.context, self.number, self.data)


@cache
def untrained(scenes: Path, values: str) -> tuple[DualPath, CaptionTokenizer]:
    settings = from_dict(json.loads(values))
    words = read_vocabulary(scenes / "vocabulary.txt")
    instances = Manifest.load(scenes).splits["train"].instances
    keras.utils.set_random_seed(0)
    with mirrored_strategy().scope():
        model = build_model(settings, len(words), instances)
    return model, CaptionTokenizer(words, settings.text.max_length, lowercase=True)


def stage(number: int, scenes: Path, **changes: object) -> Prepared:
    settings, workers = config(**changes), Workers(mirrored_strategy())
    same = replace(settings, stage1=StageConfig(), stage2=StageConfig())
    model, tokenizer = untrained(scenes, json.dumps(to_dict(same)))
    context = TrainingContext(settings, scenes, Path("no run"), model, tokenizer, workers)
    return Prepared(number, context, StageData(context, number))


# --- where it is resumed --------------------------------------------------------------------------


def steps_of(start: Progress, epochs: int, steps: int) -> list[tuple[int, int]]:
    """(epoch, step of the whole stage) of everything that `fit` will run."""
    found = []
    for part in remaining_segments(start, epochs, steps):
        step = part.first_step
        for epoch in range(part.first_epoch, part.stop_epoch):
            for _ in range(part.steps):
                found.append((epoch, step))
                step += 1
        assert step == part.stop_step
    return found


@pytest.mark.parametrize("done", range(13))
def test_what_is_left_is_what_was_not_done(done: int):
    # Three epochs of four steps; a step k belongs to epoch k // 4.
    whole = [(step // 4, step) for step in range(12)]
    start = Progress(1, done // 4, done % 4, -1.0)
    assert steps_of(start, 3, 4) == whole[done:]


@pytest.mark.parametrize("epoch", range(3))
def test_an_epoch_that_lacks_its_end_alone_has_no_step_left(epoch: int):
    end, *rest = remaining_segments(Progress(1, epoch, 4, -1.0), 3, 4)
    behind = 4 * epoch + 4
    assert end == FitSegment(epoch, epoch + 1, steps=0, first_step=behind, stop_step=behind)
    assert rest == remaining_segments(Progress(1, epoch + 1, 0, -1.0), 3, 4)


# --- losses ---------------------------------------------------------------------------------------


def test_losses_of_weight_zero_are_left_out():
    loss = LossConfig(image_instance=1.0, text_instance=0.1, pair=0.0)
    losses, weights = stage_losses(loss), loss_weights(loss)
    assert {name: type(loss) for name, loss in losses.items()} == {
        "image_logits": InstanceLoss,
        "text_logits": InstanceLoss,
    }
    assert weights == {"image_logits": 1.0, "text_logits": 0.1}


def test_the_recipes_second_stage():
    loss = LossConfig(1.0, 0.1, 2.0, "ranking", "paired", margin=0.5)
    losses, weights = stage_losses(loss), loss_weights(loss)
    assert weights == {"image_logits": 1.0, "text_logits": 0.1, "pair": 2.0}
    assert isinstance(losses["pair"], RankingLoss)
    assert (losses["pair"].margin, losses["pair"].negatives) == (0.5, "paired")


def test_the_contrastive_loss_alone():
    loss = LossConfig(0, 0, 1.0, "contrastive", temperature=0.07)
    losses, weights = stage_losses(loss), loss_weights(loss)
    assert weights == {"pair": 1.0} and isinstance(losses["pair"], ContrastiveLoss)
    assert losses["pair"].temperature == 0.07


# --- what is trained ------------------------------------------------------------------------------


def trained(found: Prepared) -> set[str]:
    return {v.path.split("/")[0] for v in found.compiled().trainable_variables}


@pytest.mark.parametrize("backbone", ["cached", "frozen", "trained"])
def test_only_a_trained_backbone_is_trained(scenes: Path, backbone: str):
    found = trained(stage(1, scenes, stage1__backbone=backbone))
    assert ("image_conv1" in found) == (backbone == "trained")
    assert {"image_fc1", "text_embedding", "text_1_1_b", "instance_classifier"} <= found


def test_a_backbone_can_be_trained_from_one_of_its_layers_on(scenes: Path):
    found = trained(stage(2, scenes, stage2__finetune_from="image_conv3"))
    assert {name for name in found if name.startswith("image_conv")} == {
        *("image_conv3", "image_conv4", "image_conv5"),
        *("image_conv3_bn", "image_conv4_bn", "image_conv5_bn"),
    }


def test_a_layer_that_the_backbone_lacks_is_the_users_mistake(scenes: Path):
    with pytest.raises(UserError, match="no layer block_3 to train from: give one of pixels, "):
        stage(2, scenes, stage2__finetune_from="block_3").compiled()


def test_a_classifier_without_a_loss_is_not_trained(scenes: Path):
    contrastive = {
        "stage2__loss__image_instance": 0.0,
        "stage2__loss__text_instance": 0.0,
        "stage2__loss__pair_loss": "contrastive",
    }
    found = trained(stage(2, scenes, **contrastive))
    assert "instance_classifier" not in found and "text_fc" in found


@pytest.mark.parametrize(("number", "width"), [(1, 2 * 2 * 128), (2, None)])
def test_batches_hold_what_the_losses_compare_with(scenes: Path, number: int, width: int | None):
    found = stage(number, scenes)
    batches = list(found.data.training_batches(0, STEPS))
    assert len(batches) == STEPS
    inputs, targets = batches[0]
    assert set(inputs) == {"image", "text"}
    assert inputs["image"].shape == ((BATCH, width) if width else (BATCH, 32, 32, 3))
    ids = np.concatenate([y["image_logits"] for _, y in batches])
    assert sorted(ids) == list(range(48))
    np.testing.assert_array_equal(targets["image_logits"], targets["text_logits"])
    assert ("pair" in targets) == (number == 2)
    if number == 2:
        # Given negatives: instance and role, two rows to an anchor.
        assert targets["pair"].numpy()[:, 1].tolist() == list(range(BATCH))
        np.testing.assert_array_equal(targets["pair"][:, 0], targets["image_logits"])


def test_in_batch_negatives_need_no_roles(scenes: Path):
    found = stage(2, scenes, stage2__loss__negatives="batch")
    _, targets = next(iter(found.data.training_batches(0, 1)))
    np.testing.assert_array_equal(targets["pair"], targets["image_logits"])


def test_dropout_is_seeded_by_the_stage_whatever_was_drawn_before(scenes: Path):
    # A network that mines is built anew, over the layers that there are.
    found = stage(2, scenes, stage2__loss__negatives="mined")
    seeds = []
    for drawn in (1, 2):
        keras.utils.set_random_seed(drawn)
        state = state_variables(found.model, found.compiled())
        states = [v for v in state if "seed_generator" in v.path]
        seeds.append([v.numpy().tolist() for v in states])
    assert len(seeds[0]) == 3 and seeds[0] == seeds[1]


# --- what the model starts from -------------------------------------------------------------------


def test_known_words_start_from_their_vectors(scenes: Path, tmp_path: Path):
    found = stage(1, scenes)
    words = found.tokenizer.words
    embedding = found.model.text_tower.get_layer("text_embedding").embeddings
    before = embedding.numpy()
    vectors = np.random.default_rng(0).normal(size=(2, 8)).astype(np.float32)
    path = tmp_path / "vectors.npz"
    np.savez(path, words=np.array([words[3], "zebra"]), vectors=vectors)
    assert load_vectors(found.model, path, words, lowercase=False) == [words[3]]
    expected = before.copy()
    expected[3] = vectors[0]
    np.testing.assert_array_equal(embedding.numpy(), expected)


def test_vectors_that_may_be_cut_short_are_logged(scenes: Path, tmp_path: Path, caplog):
    found = stage(1, scenes)
    path = tmp_path / "glove.txt"
    path.write_text(found.tokenizer.words[0] + " 0.5" * 8)
    load_vectors(found.model, path, found.tokenizer.words, lowercase=False)
    (record,) = caplog.records
    assert record.levelname == "WARNING" and str(path) in record.message


def test_vectors_of_another_width_are_the_users_mistake(scenes: Path, tmp_path: Path):
    found = stage(1, scenes)
    path = tmp_path / "vectors.npz"
    np.savez(path, words=np.array(["a"]), vectors=np.zeros((1, 5), np.float32))
    with raises("vectors.width", path=path):
        load_vectors(found.model, path, found.tokenizer.words, lowercase=False)


def test_vectors_of_other_words_alone_are_the_users_mistake(scenes: Path, tmp_path: Path):
    found = stage(1, scenes)
    path = tmp_path / "glove.txt"
    path.write_text("zebra 1 2 3 4 5 6 7 8\n" + found.tokenizer.words[0].upper() + " 0" * 8)
    with raises("vectors.words", path=path):
        load_vectors(found.model, path, found.tokenizer.words, lowercase=False)
    words = found.tokenizer.words
    assert load_vectors(found.model, path, words, lowercase=True) == [words[0]]


def test_the_devices_are_said_in_a_line():
    strategy = mirrored_strategy()
    assert isinstance(strategy, tf.distribute.MirroredStrategy)
    assert describe(strategy).startswith(f"{strategy.num_replicas_in_sync} replica(s) on ")
