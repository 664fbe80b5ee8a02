"""What a stage trains and compares with, and where it is resumed."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.errors import raises
from tests.unit.training.tiny import BATCH, OPTIONS, STEPS
from tf_dpce.config import Config, LossConfig, StageConfig, from_dict, to_dict
from tf_dpce.data.manifest import Manifest
from tf_dpce.errors import UserError
from tf_dpce.losses import ContrastiveLoss, DistillationLoss, InstanceLoss, RankingLoss
from tf_dpce.models.build import build_model
from tf_dpce.models.dual_path import DualPath
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer
from tf_dpce.preprocessing.vocabulary import read_vocabulary
from tf_dpce.training.checkpoint import Progress
from tf_dpce.training.distributed import Workers, mirrored_strategy
from tf_dpce.training.model_factory import load_vectors, starting_model
from tf_dpce.training.objective import loss_weights, mark_trained, stage_losses
from tf_dpce.training.resume import FitSegment, remaining_segments
from tf_dpce.training.stage import StageData, TrainingContext, compile_trainer, state_variables


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


def untrained(scenes: Path, settings: Config) -> tuple[DualPath, CaptionTokenizer]:
    """The model of a configuration; all that differ in their stages alone share one."""
    same = replace(settings, stage1=StageConfig(), stage2=StageConfig())
    return _untrained(scenes, json.dumps(to_dict(same)))


@cache
def _untrained(scenes: Path, values: str) -> tuple[DualPath, CaptionTokenizer]:
    settings = from_dict(json.loads(values))
    words = read_vocabulary(scenes / "vocabulary.txt")
    instances = Manifest.load(scenes).splits["train"].instances
    keras.utils.set_random_seed(0)
    with mirrored_strategy().scope():
        model = build_model(settings, len(words), instances)
    return model, CaptionTokenizer(words, settings.text.max_length, lowercase=True)


def stage(number: int, scenes: Path, **changes: object) -> StageData:
    """A stage that may be compiled, on a model that nobody trains."""
    settings, workers = config(**changes), Workers(mirrored_strategy())
    model, tokenizer = untrained(scenes, settings)
    context = TrainingContext(settings, scenes, Path("no run"), model, tokenizer, workers)
    return StageData(context, number)


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


def test_what_is_left_is_what_was_not_done():
    # Three epochs of four steps; a step k belongs to epoch k // 4.
    whole = [(step // 4, step) for step in range(12)]
    for done in range(13):
        start = Progress(1, done // 4, done % 4, -1.0)
        assert steps_of(start, 3, 4) == whole[done:]


def test_an_epoch_that_lacks_its_end_alone_has_no_step_left():
    for epoch in range(3):
        end, *rest = remaining_segments(Progress(1, epoch, 4, -1.0), 3, 4)
        assert end == FitSegment(epoch, epoch + 1, steps=0, first_step=4 * epoch + 4)
        assert end.stop_step == end.first_step
        assert rest == remaining_segments(Progress(1, epoch + 1, 0, -1.0), 3, 4)


# --- losses ---------------------------------------------------------------------------------------


def test_losses_and_their_weights_by_output():
    instance = {"image_logits": InstanceLoss, "text_logits": InstanceLoss}
    weights, taught = {"image_logits": 1.0, "text_logits": 0.1}, {"distillation": 0.3}
    paired = LossConfig(1.0, 0.1, 2.0, "ranking", "paired", margin=0.5)
    softmax = LossConfig(0, 0, 1.0, "contrastive", temperature=0.07)
    for loss, kinds, expected in (
        # Those of weight 0 are left out.
        (LossConfig(1.0, 0.1, pair=0.0), instance, weights),
        (paired, instance | {"pair": RankingLoss}, weights | {"pair": 2.0}),
        (softmax, {"pair": ContrastiveLoss}, {"pair": 1.0}),
        (LossConfig(0, 0, distillation=0.3), {"distillation": DistillationLoss}, taught),
    ):
        assert {name: type(found) for name, found in stage_losses(loss).items()} == kinds
        assert loss_weights(loss) == expected
    pair = stage_losses(paired)["pair"]
    assert (pair.margin, pair.negatives) == (0.5, "paired")
    assert stage_losses(softmax)["pair"].temperature == 0.07
    loss = LossConfig(temperature=0.07, distillation=1.0, teacher_temperature=0.01)
    found = stage_losses(loss)["distillation"]
    assert (found.temperature, found.teacher_temperature) == (0.07, 0.01)


# --- what is trained ------------------------------------------------------------------------------


def trained(scenes: Path, **changes: object) -> set[str]:
    """The layers that the second stage of a configuration trains."""
    settings = config(**changes)
    model, _ = untrained(scenes, settings)
    mark_trained(settings.stage2, model)
    return {v.path.split("/")[0] for v in model.trainable_variables}


def test_only_a_trained_backbone_is_trained(scenes: Path):
    for backbone in ("cached", "frozen", "trained"):
        found = trained(scenes, stage2__backbone=backbone)
        assert ("image_conv1" in found) == (backbone == "trained")
        assert {"image_fc1", "text_embedding", "text_1_1_b", "instance_classifier"} <= found


def test_a_backbone_can_be_trained_from_one_of_its_layers_on(scenes: Path):
    found = trained(scenes, stage2__finetune_from="image_conv3")
    assert {name for name in found if name.startswith("image_conv")} == {
        *("image_conv3", "image_conv4", "image_conv5"),
        *("image_conv3_bn", "image_conv4_bn", "image_conv5_bn"),
    }
    with pytest.raises(UserError):
        trained(scenes, stage2__finetune_from="block_3")


def test_a_classifier_without_a_loss_is_not_trained(scenes: Path):
    loss = {"image_instance": 0.0, "text_instance": 0.0, "pair_loss": "contrastive"}
    found = trained(scenes, **{f"stage2__loss__{key}": value for key, value in loss.items()})
    assert "instance_classifier" not in found and "text_fc" in found


def test_batches_hold_what_the_losses_compare_with(scenes: Path):
    for number, shape in ((1, (BATCH, 2 * 2 * 128)), (2, (BATCH, 32, 32, 3))):
        batches = list(stage(number, scenes).training_batches(0, STEPS))
        assert len(batches) == STEPS
        inputs, targets = batches[0]
        assert set(inputs) == {"image", "text"} and inputs["image"].shape == shape
        ids = np.concatenate([y["image_logits"] for _, y in batches])
        assert sorted(ids) == list(range(48))
        np.testing.assert_array_equal(targets["image_logits"], targets["text_logits"])
        assert ("pair" in targets) == (number == 2)
    # Paired negatives: instance and role, two rows to an anchor. Others need no roles.
    assert targets["pair"].numpy()[:, 1].tolist() == list(range(BATCH))
    np.testing.assert_array_equal(targets["pair"][:, 0], targets["image_logits"])
    found = stage(2, scenes, stage2__loss__negatives="batch")
    _, targets = next(iter(found.training_batches(0, 1)))
    np.testing.assert_array_equal(targets["pair"], targets["image_logits"])


@pytest.mark.full
def test_dropout_is_seeded_by_the_stage_whatever_was_drawn_before(scenes: Path):
    # A network that mines is built anew, over the layers that there are.
    found = stage(2, scenes, stage2__loss__negatives="mined", stage2__backbone="cached")
    seeds = []
    for drawn in (1, 2):
        keras.utils.set_random_seed(drawn)
        state = state_variables(found.context.model, compile_trainer(found))
        states = [v for v in state if "seed_generator" in v.path]
        seeds.append([v.numpy().tolist() for v in states])
    assert len(seeds[0]) == 3 and seeds[0] == seeds[1]


# --- what the model starts from -------------------------------------------------------------------


def test_known_words_start_from_their_vectors(scenes: Path, tmp_path: Path, caplog):
    model, tokenizer = untrained(scenes, config())
    words, embedding = tokenizer.words, model.word_embedding.embeddings
    expected = embedding.numpy()
    vectors = np.random.default_rng(0).normal(size=(2, 8)).astype(np.float32)
    path = tmp_path / "vectors.npz"
    np.savez(path, words=np.array([words[3], "zebra"]), vectors=vectors)
    assert load_vectors(model, [path], words, lowercase=False) == [[words[3]]]
    expected[3] = vectors[0]
    np.testing.assert_array_equal(embedding.numpy(), expected)
    # A file that may be cut short is taken, and logged.
    path = tmp_path / "glove.txt"
    path.write_text(words[0] + " 0.5" * 8)
    load_vectors(model, [path], words, lowercase=False)
    (record,) = caplog.records
    assert record.levelname == "WARNING" and str(path) in record.message


def test_the_averages_of_word_vectors_start_from_the_vectors(scenes: Path):
    words, manifest = read_vocabulary(scenes / "vocabulary.txt"), Manifest.load(scenes)
    model = starting_model(config(), words, manifest, scenes)
    norm, vectors = model.text_tower.get_layer("text_embedding_bn"), model.word_embedding.embeddings
    expected = np.mean(vectors, axis=0), np.var(vectors, axis=0)
    np.testing.assert_allclose(norm.moving_mean, expected[0], atol=1e-6)
    np.testing.assert_allclose(norm.moving_variance, expected[1], rtol=1e-5)
    # Uniform in +-sqrt(3 / 8): a variance of 1 / 8, far from Keras's 1.
    assert np.mean(norm.moving_variance) == pytest.approx(1 / 8, rel=0.3)


def test_vectors_of_another_width_or_of_other_words_are_refused(scenes: Path, tmp_path: Path):
    model, tokenizer = untrained(scenes, config())
    words, path = tokenizer.words, tmp_path / "glove.txt"
    path.write_text(f"{words[0]} 1 2 3 4 5\n")
    with raises("vectors.width", path=path):
        load_vectors(model, [path], words, lowercase=False)
    path.write_text("zebra 1 2 3 4 5 6 7 8\n" + words[0].upper() + " 0" * 8 + "\n")
    with raises("vectors.words", path=path):
        load_vectors(model, [path], words, lowercase=False)
    assert load_vectors(model, [path], words, lowercase=True) == [[words[0]]]


def test_words_start_from_two_tables_side_by_side(scenes: Path, tmp_path: Path, caplog):
    words, manifest = read_vocabulary(scenes / "vocabulary.txt"), Manifest.load(scenes)
    first, second = tmp_path / "glove.txt", tmp_path / "e5.npz"
    # Means 2 and 4; what is left of the first, -1, 1, 1 and -1, has the deviation 1.
    first.write_text(f"{words[0]} 1 5\n{words[1]} 3 3\nzebra 9 9\n")
    draw = np.random.default_rng(0)
    vectors = draw.normal(3, 0.1, (2, 6)).astype(np.float32)
    np.savez(second, words=np.array([words[1], words[2]]), vectors=vectors)
    with caplog.at_level("INFO", "tf_dpce"):
        model = starting_model(config(vectors=[str(first), str(second)]), words, manifest, scenes)
    rows = model.word_embedding.embeddings.numpy()
    centred = vectors - vectors.mean(axis=0)
    expected = np.zeros((3, 8))
    expected[:2, :2] = [[-1, 1], [1, -1]]
    expected[1:, 2:] = centred / centred.std()
    np.testing.assert_allclose(rows[:3], expected, atol=1e-4)
    # Words of no table are as random as without any, at the scale of the tables.
    plain = starting_model(config(), words, manifest, scenes).word_embedding.embeddings.numpy()
    np.testing.assert_allclose(rows[3:], plain[3:] * np.sqrt(8), rtol=1e-6)
    # Of each table a line says what it knows, and another if that is little.
    for path in (first, second):
        lines = [record for record in caplog.records if str(path) in record.message]
        assert [line.levelname for line in lines] == ["INFO", "WARNING"]
        assert f"2 of {len(words)} words" in lines[0].message


def test_tables_of_another_width_in_all_or_of_no_known_word_are_refused(
    scenes: Path, tmp_path: Path
):
    model, tokenizer = untrained(scenes, config())
    words, paths = tokenizer.words, [tmp_path / "one.txt", tmp_path / "two.txt"]
    paths[0].write_text(f"{words[0]} 1 2 3 4 5 6 7 8\n")
    paths[1].write_text(f"{words[0]} 1 2 3\n")
    before = model.word_embedding.embeddings.numpy()
    with raises("vectors.width", path=paths[0]) as caught:
        load_vectors(model, paths, words, lowercase=False)
    assert "11" in str(caught.value)
    paths[1].write_text("zebra 1 2 3\n")
    with raises("vectors.words", path=paths[1]):
        load_vectors(model, paths, words, lowercase=False)
    np.testing.assert_array_equal(model.word_embedding.embeddings, before)
