"""The sampled classifier: what is drawn, that everything drawn is the exact one, and runs."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipelines import evaluate
from tests.unit.export.tiny import CONFIG
from tests.unit.training.kills import arrays, differences, steps_done
from tests.unit.training.tiny import STEPS as EPOCH
from tests.unit.training.tiny import run_tiny
from tf_dpce.config import StageConfig
from tf_dpce.losses import InstanceLoss
from tf_dpce.models.dual_path import DualPath, RowClassifier
from tf_dpce.training.assembly import build_model
from tf_dpce.training.callbacks import Checkpoints
from tf_dpce.training.optimizers import LayerwiseAdamW, LayerwiseSGD, stage_optimizer
from tf_dpce.training.partial_fc import SampledDualPath, Sampler
from tf_dpce.training.run_folder import load_run
from tf_dpce.training.schedule import StageSchedule

CLASSES, WIDTH, BATCH = 40, 6, 4


# --- what is drawn --------------------------------------------------------------------------------


def drawn(sampler: Sampler, step: int, labels: list[int]) -> list[int]:
    sample = sampler(tf.constant(step, tf.int64), tf.constant(labels, tf.int64))
    return sample.ids.numpy().tolist()


def test_a_sample_is_the_batch_and_as_many_others_as_asked_for():
    sampler = Sampler(1000, negatives=50, labels=4, seed=3)
    for step in range(30):
        ids = drawn(sampler, step, [999, 0, 7, 0])
        # Every class once, first those of the batch; as places for four different ones are kept,
        # places for one more stay free here.
        assert ids[:3] == [0, 7, 999]
        assert len(ids) == len(set(ids)) == 53
        assert all(0 <= i < 1000 for i in ids)


def test_all_others_are_drawn_where_there_are_no_more():
    sampler = Sampler(20, negatives=19, labels=4, seed=3)
    assert sorted(drawn(sampler, 5, [3, 3, 19, 3])) == list(range(20))


def test_labels_become_their_places_exactly():
    # A float32 would confuse these two.
    sampler = Sampler(2**24 + 10, negatives=5, labels=4, seed=0)
    labels = tf.constant([2**24 + 1, 5, 2**24, 5], tf.int64)
    sample = sampler(tf.constant(0, tf.int64), labels)
    assert sample.places(labels).numpy().tolist() == [2, 0, 1, 0]
    assert tf.gather(sample.ids, sample.places(labels)).numpy().tolist() == labels.numpy().tolist()


def test_draws_are_a_function_of_seed_and_step():
    def of(seed: int, step: int) -> list[int]:
        return drawn(Sampler(1000, 50, 1, seed), step, [0])

    assert of(3, 7) == of(3, 7)
    assert of(3, 7) != of(3, 8)
    assert of(3, 7) != of(4, 7)


def test_every_class_is_as_likely_as_any_other_and_so_is_every_pair():
    classes, steps = 50, 2000
    sampler, hits = Sampler(classes, 10, 1, seed=1), np.zeros((steps, classes))
    draw = tf.function(lambda step: sampler(step, tf.constant([0], tf.int64)).ids)
    for step in range(steps):
        hits[step, draw(tf.constant(step, tf.int64)).numpy()[1:]] = 1
    assert hits[:, 0].sum() == 0 and hits.sum() == steps * 10
    # A share of 10 / 49 of 2,000: 408 times, with a variance of 408 * 39 / 49 = 325. The sum of
    # squares over that is chi square of 48: mean 48, standard deviation 10.
    counts = hits[:, 1:].sum(axis=0)
    assert ((counts - 408.2) ** 2).sum() / 325 < 48 + 4 * 10
    # Two are drawn together with chance 10 * 9 / (49 * 48), 76.5 times, standard deviation 8.6.
    together = (hits.T @ hits)[1:, 1:][np.triu_indices(49, 1)]
    assert together.std() == pytest.approx(8.6, rel=0.1)
    assert together.min() > 76.5 - 5 * 8.6 and together.max() < 76.5 + 5 * 8.6


# --- everything drawn is the exact classifier -----------------------------------------------------

STEPS = 10
RATES = StageSchedule(0.1, STEPS, warmup_steps=3)
DECAY = 0.01
OPTIMIZERS = [LayerwiseSGD, LayerwiseAdamW]


def towers() -> tuple[keras.Model, keras.Model]:
    """An image is 5 numbers, a sentence 3 ids; dense layers, so that every step has a gradient."""
    keras.utils.set_random_seed(0)
    image = [keras.Input((5,)), keras.layers.Dense(WIDTH, name="image_fc")]
    text = [
        keras.Input((3,), dtype="int32"),
        keras.layers.Rescaling(0.1),
        keras.layers.Dense(WIDTH, name="text_fc"),
    ]
    return keras.Sequential(image, name="image_tower"), keras.Sequential(text, name="text_tower")


def compiled(network: DualPath, kind: type, multipliers: Mapping[str, float]) -> DualPath:
    optimizer = kind(RATES, multipliers=multipliers, decay=DECAY)
    optimizer.build(network.trainable_variables)
    losses = {"image_logits": InstanceLoss(), "text_logits": InstanceLoss()}
    network.compile(
        optimizer, losses, loss_weights={"image_logits": 1.0, "text_logits": 0.5}, jit_compile=False
    )
    return network


def exact(kind: type, classes: int = CLASSES) -> DualPath:
    scales = {"instance_classifier/kernel": 0.5, "instance_classifier/bias": 0.2}
    return compiled(DualPath(*towers(), classes, dropout=0.0), kind, scales)


def sampled(
    kind: type, negatives: int, seed: int = 0, classes: int = CLASSES
) -> tuple[SampledDualPath, RowClassifier]:
    """A network over the same weights, and the classifier of all classes."""
    classifier = RowClassifier(classes, True, name="instance_classifier")
    whole = DualPath(*towers(), classes, dropout=0.0, classifier=classifier)
    classifier.rows.assign(np.transpose(exact(kind, classes).classifier.kernel))
    sampler = Sampler(classes, negatives, BATCH, seed)
    network = SampledDualPath.placing(whole, sampler.places)
    scales = {"instance_classifier/rows": 0.5, "instance_classifier/bias": 0.2}
    compiled(network, kind, scales).sample_from(classifier, sampler, RATES.rates())
    return network, classifier


def batches(steps: int = STEPS) -> tf.data.Dataset:
    draw = np.random.default_rng(4)
    shape = (steps * BATCH,)
    inputs = {
        "image": draw.normal(size=(*shape, 5)).astype(np.float32),
        "text": draw.integers(0, 30, (*shape, 3)).astype(np.int32),
    }
    ids = draw.integers(0, CLASSES, shape)
    targets = {"image_logits": ids, "text_logits": ids}
    return tf.data.Dataset.from_tensor_slices((inputs, targets)).batch(BATCH, drop_remainder=True)


def fit(network: DualPath, data: tf.data.Dataset) -> list[float]:
    """Returns the losses of the steps."""
    steps = (data.skip(place).take(1) for place in range(len(data)))
    return [network.fit(x, shuffle=False, verbose=0).history["loss"][0] for x in steps]


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_ten_steps_with_every_class_are_ten_steps_of_the_exact_classifier(kind: type):
    one, (other, classifier) = exact(kind), sampled(kind, CLASSES - 1)
    np.testing.assert_allclose(fit(other, batches()), fit(one, batches()), rtol=1e-5)
    np.testing.assert_allclose(classifier.rows, np.transpose(one.classifier.kernel), atol=1e-5)
    np.testing.assert_allclose(classifier.bias, one.classifier.bias, atol=1e-5)
    for found, expected in zip(other.weights[:4], one.weights[:4], strict=True):
        assert found.path == expected.path
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=found.path)
    slots = [np.transpose(s) for s in one.optimizer.slots(one.classifier.kernel)]
    slots += [s.numpy() for s in one.optimizer.slots(one.classifier.bias)]
    for found, expected in zip(other.store.variables[1:], slots, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=found.path)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_step_leaves_the_other_classes_and_their_slots_bit_for_bit(kind: type):
    network, classifier = sampled(kind, negatives=7)
    fit(network, batches(3))
    kept = [classifier.rows, classifier.bias, *network.store.variables]
    before = [variable.numpy() for variable in kept]
    last = batches(4).skip(3)
    labels = next(iter(last))[1]["image_logits"]
    ids = network.sampler(tf.constant(3, tf.int64), labels).ids.numpy()
    fit(network, last)
    others = np.setdiff1d(np.arange(CLASSES), ids)
    assert len(others) >= CLASSES - 7 - BATCH
    for variable, value in zip(kept, before, strict=True):
        np.testing.assert_array_equal(variable.numpy()[others], value[others])
        assert (variable.numpy()[ids] != value[ids]).any(), variable.path


def test_places_that_stay_free_count_for_nothing():
    # All four rows are of one class: of eleven places three stay free.
    network, classifier = sampled(LayerwiseSGD, negatives=7)
    inputs, _ = next(iter(batches(1)))
    ids = tf.fill([BATCH], tf.constant(5, tf.int64))
    data = tf.data.Dataset.from_tensors((inputs, {"image_logits": ids, "text_logits": ids}))
    chosen = network.sampler(tf.constant(0, tf.int64), ids).ids.numpy()
    assert len(chosen) == 8 < network.sampler.places
    image = np.maximum(network.image_tower.predict(inputs["image"], verbose=0), 0)
    text = np.maximum(network.text_tower.predict(inputs["text"], verbose=0), 0)
    rows = classifier.rows.numpy()[chosen]
    losses = [np.log(np.exp(x @ rows.T).sum(1)) - x @ rows[0] for x in (image, text)]
    assert fit(network, data)[0] == pytest.approx(
        losses[0].mean() + 0.5 * losses[1].mean(), rel=1e-5
    )


def test_the_places_learn_at_the_rates_of_the_whole_classifier():
    stage = StageConfig(classifier_multiplier=0.01, classifier_bias_multiplier=0.02)
    config = replace(CONFIG, model=replace(CONFIG.model, sampled_negatives=3))
    model = build_model(config, vocabulary_size=9, num_instances=5)
    network = SampledDualPath.placing(model.over_features(), places=4)
    assert tuple(network.classifier.rows.shape) == (4, CONFIG.model.output_dim)
    optimizer = stage_optimizer(stage, RATES, model)
    paths = [network.classifier.rows.path, network.classifier.bias.path]
    assert [optimizer.multipliers[path] for path in paths] == [0.01, 0.02]


# --- runs -----------------------------------------------------------------------------------------

SAMPLED = {"model__sampled_negatives": 10}


@pytest.fixture(scope="module")
def run(scenes: Path, tmp_path_factory) -> Path:
    """Both stages, AdamW from cached features and SGD end to end, that nobody disturbed."""
    folder = tmp_path_factory.mktemp("runs") / "sampled"
    assert run_tiny(scenes, folder, **SAMPLED) == 0
    return folder


def test_a_run_trains_validates_and_evaluates(run: Path, scenes: Path):
    with (run / "history.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["val_rsum"]) > 0 for row in rows] == [True] * 4
    # Fourteen of 48 classes: a guess costs ln 14 at most.
    assert float(rows[0]["image_logits_loss"]) < 1.1 * np.log(14)
    assert float(rows[1]["loss"]) < float(rows[0]["loss"])
    assert evaluate.main(["--run", str(run), "--data", str(scenes), "--split", "test"]) == 0
    model = load_run(run).model
    assert tuple(model.classifier.rows.shape) == (48, 8)


def test_the_checkpoint_of_an_epoch_owes_its_rows_nothing(run: Path):
    for stage in (1, 2):
        state = arrays(run / "checkpoints" / f"stage{stage}-last.npz")
        (done,) = (value for name, value in state.items() if name.endswith(" done"))
        assert done.dtype == np.int64 and set(done) == {2 * EPOCH}


def test_a_run_that_is_stopped_twice_ends_as_if_nothing_had_happened(
    run: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    copy, calls = tmp_path / "stopped", []
    # After the last step of an epoch, where only its end is left to do, and within the next.
    stops = (EPOCH, EPOCH + 5)

    def count(self, batch: int, logs: dict | None = None) -> None:
        keep(self, batch, logs)
        calls.append(batch)
        if len(calls) in stops:
            raise KeyboardInterrupt

    keep = Checkpoints.on_train_batch_end
    often = {**SAMPLED, "checkpoint_minutes": 0}
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "on_train_batch_end", count)
        for steps, resume in zip(stops, ((), ("--resume",)), strict=True):
            assert run_tiny(scenes, copy, *resume, **often) == 130
            state = arrays(copy / "checkpoints" / "stage1-last.npz")
            assert steps_done(copy, 1) == len(calls) == steps
            (done,) = (value for name, value in state.items() if name.endswith(" done"))
            assert done.min() < done.max() == steps, "some rows wait"

    assert run_tiny(scenes, copy, "--resume", **often) == 0
    assert differences(run, copy) == []


def test_a_sampled_stage_mines_too(scenes: Path, tmp_path: Path):
    mined = {"stage2__loss__negatives": "mined", "stage2__loss__candidates": 8}
    once = {"stage1__epochs": 0, "stage2__epochs": 1, "stage2__backbone": "cached"}
    assert run_tiny(scenes, tmp_path / "run", **SAMPLED, **mined, **once) == 0


def test_a_run_of_the_exact_classifier_is_no_start(
    scenes: Path, finished: Path, tmp_path: Path, capsys
):
    more = ("--stage", "2", "--init-from", str(finished))
    assert run_tiny(scenes, tmp_path / "run", *more, **SAMPLED) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "instance_classifier/kernel (8, 48) where instance_classifier/rows (48, 8)" in line


def test_more_negatives_than_instances_are_refused(scenes: Path, tmp_path: Path, capsys):
    for negatives in (48, 8192):
        assert run_tiny(scenes, tmp_path / "run", model__sampled_negatives=negatives) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert f"--model.sampled_negatives {negatives} " in line and "48 training instances" in line
    assert not (tmp_path / "run").exists()
