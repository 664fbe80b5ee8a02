"""Sampled softmax after Partial FC: what is drawn, what a step changes, what it costs, and runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipelines import evaluate
from tests.unit.export.tiny import CONFIG
from tests.unit.training.kills import differences, history, steps_done
from tests.unit.training.test_stages import config
from tf_dpce.config import StageConfig
from tf_dpce.errors import Stopped
from tf_dpce.logging import run_context
from tf_dpce.losses import InstanceLoss
from tf_dpce.models.build import build_model
from tf_dpce.models.dual_path import DualPath, RowClassifier
from tf_dpce.training.dual_path_trainer import DualPathTrainer
from tf_dpce.training.optimizers import LayerwiseAdamW, LayerwiseSGD, StageSchedule, stage_optimizer
from tf_dpce.training.partial_fc import ClassSampler, PartialFC
from tf_dpce.training.run_folder import load_run
from tf_dpce.training.train import train

CLASSES, WIDTH, BATCH = 40, 6, 4


# --- what is drawn --------------------------------------------------------------------------------


def drawn(sampler: ClassSampler, step: int, labels: list[int]) -> list[int]:
    sample = sampler(tf.constant(step, tf.int64), tf.constant(labels, tf.int64))
    return sample.ids.numpy().tolist()


def test_a_sample_is_the_batch_and_as_many_others_as_asked_for():
    sampler = ClassSampler(1000, negatives=50, max_positives=4, seed=3)
    for step in range(30):
        ids = drawn(sampler, step, [999, 0, 7, 0])
        # Every class once, first those of the batch, of which there could be one more.
        assert ids[:3] == [0, 7, 999]
        assert len(ids) == len(set(ids)) == 53
        assert all(0 <= i < 1000 for i in ids)
    # A function of seed and step.
    assert drawn(sampler, 7, [0]) == drawn(sampler, 7, [0]) != drawn(sampler, 8, [0])
    assert drawn(replace(sampler, seed=4), 7, [0]) != drawn(sampler, 7, [0])
    # All others, if there are no more.
    sampler = ClassSampler(20, negatives=19, max_positives=4, seed=3)
    assert sorted(drawn(sampler, 5, [3, 3, 19, 3])) == list(range(20))


def test_a_label_is_the_index_of_its_class():
    # A float32 would confuse these two.
    sampler = ClassSampler(2**24 + 10, negatives=5, max_positives=4, seed=0)
    labels = tf.constant([2**24 + 1, 5, 2**24, 5], tf.int64)
    sample = sampler(tf.constant(0, tf.int64), labels)
    assert sample.labels(labels).numpy().tolist() == [2, 0, 1, 0]
    assert tf.gather(sample.ids, sample.labels(labels)).numpy().tolist() == labels.numpy().tolist()


def test_every_class_is_as_likely_as_any_other_and_so_is_every_pair():
    classes, steps = 50, 2000
    sampler, hits = ClassSampler(classes, 10, 1, seed=1), np.zeros((steps, classes))
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


# --- what a step changes --------------------------------------------------------------------------

STEPS = 10
RATES = StageSchedule(0.1, STEPS, warmup_steps=3)
DECAY = 0.01
OPTIMIZERS = [LayerwiseSGD, LayerwiseAdamW]
one_or_both = pytest.mark.parametrize(
    "kind", [pytest.param(LayerwiseSGD, marks=pytest.mark.full), LayerwiseAdamW]
)


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


def exact_trainer(kind: type) -> DualPathTrainer:
    return compiled(DualPathTrainer(DualPath(*towers(), CLASSES, dropout=0.0)), kind, {})


def sampled(
    kind: type, negatives: int, seed: int = 0, classes: int = CLASSES
) -> tuple[DualPathTrainer, RowClassifier]:
    """A trainer over the same weights, and the classifier of all classes."""
    classifier = RowClassifier(classes, True, name="instance_classifier")
    whole = DualPath(*towers(), classes, dropout=0.0, classifier=classifier)
    classifier.rows.assign(np.transpose(exact(kind, classes).classifier.kernel))
    sampler = ClassSampler(classes, negatives, BATCH, seed)
    trainer = DualPathTrainer(whole, partial_fc=PartialFC(classifier, sampler))
    scales = {"instance_classifier/rows": 0.5, "instance_classifier/bias": 0.2}
    return compiled(trainer, kind, scales), classifier


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


@one_or_both
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
    for found, expected in zip(other.partial_fc.slots, slots, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=found.path)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_class_that_is_not_drawn_neither_moves_nor_decays_and_keeps_its_slots(kind: type):
    network, classifier = sampled(kind, negatives=7)
    fit(network, batches(3))
    tables = [classifier.rows, classifier.bias, *network.partial_fc.slots]
    before = [variable.numpy() for variable in tables]
    last = batches(4).skip(3)
    labels = next(iter(last))[1]["image_logits"]
    ids = network.partial_fc.sampler(tf.constant(3, tf.int64), labels).ids.numpy()
    fit(network, last)
    others = np.setdiff1d(np.arange(CLASSES), ids)
    assert len(others) >= CLASSES - 7 - BATCH
    # Earlier steps left momentum in some of them, with which the exact classifier would go on.
    assert (before[2][others] != 0).any()
    for variable, value in zip(tables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy()[others], value[others])
        assert (variable.numpy()[ids] != value[ids]).any(), variable.path


# AdamW's rule is proved in `test_optimizers`, and that rows take it in the tests above.
def test_ten_steps_equal_partial_fc_in_plain_numpy():
    network, classifier = sampled(LayerwiseSGD, negatives=7)
    tables = [classifier.rows, classifier.bias]
    weights = [table.numpy().astype(np.float64) for table in tables]
    slots, counts = [np.zeros_like(w) for w in weights], set()
    for step, batch in enumerate(batches()):
        inputs, targets = batch
        labels = targets["image_logits"]
        ids = network.partial_fc.sampler(tf.constant(step, tf.int64), labels).ids.numpy()
        counts.add(len(ids))
        hot = (labels.numpy()[:, None] == ids).astype(float)
        gradients = [np.zeros((len(ids), WIDTH)), np.zeros(len(ids))]
        for tower, weight in ((network.image_tower, 1.0), (network.text_tower, 0.5)):
            x = np.maximum(tower(inputs[tower.name.split("_")[0]]).numpy(), 0)
            logits = x @ weights[0][ids].T + weights[1][ids]
            shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            gradients[0] += weight * (shares - hot).T @ x / BATCH
            gradients[1] += weight * (shares - hot).sum(axis=0) / BATCH
        for place, scale in enumerate((0.5, 0.2)):
            move = scale * float(RATES(step)) * (gradients[place] + DECAY * weights[place][ids])
            slots[place][ids] = 0.9 * slots[place][ids] - move
            weights[place][ids] += 0.9 * slots[place][ids] - move
        network.fit(tf.data.Dataset.from_tensors(batch), shuffle=False, verbose=0)
    # Where a class is in a batch twice, some rows stay unused; they count for nothing.
    most = network.partial_fc.sampler.max_classes
    assert most in counts and min(counts) < most
    for table, weight in zip(tables, weights, strict=True):
        np.testing.assert_allclose(table, weight, rtol=0, atol=1e-5, err_msg=table.path)


def test_sampled_rows_learn_at_the_rates_of_the_whole_classifier():
    stage = StageConfig(
        lr_multipliers={"instance_classifier/*": 0.01, "instance_classifier/bias": 0.02}
    )
    settings = replace(CONFIG, model=replace(CONFIG.model, sampled_negatives=3))
    model = build_model(settings, vocabulary_size=9, num_instances=5)
    partial_fc = PartialFC(model.classifier, ClassSampler(5, negatives=3, max_positives=1, seed=0))
    network = DualPathTrainer(model.over_features(), partial_fc=partial_fc)
    assert tuple(network.classifier.rows.shape) == (4, CONFIG.model.output_dim)
    optimizer = stage_optimizer(stage, RATES, model)
    paths = [network.classifier.rows.path, network.classifier.bias.path]
    assert [optimizer.multipliers[path] for path in paths] == [0.01, 0.02]


# --- what a step costs ----------------------------------------------------------------------------

# A prime, and more than all else that a step of 11 rows and 6 dimensions holds.
MANY = 10_007
# These operations read and write the rows that they are given, and no others.
BY_ROW = {"ResourceGather", "ResourceScatterUpdate"}


def sizes(graph: tf.Graph) -> Iterator[tuple[str, int]]:
    """Name and size of every value in a graph and in the functions within it."""
    definition = graph.as_graph_def(add_shapes=True)
    nodes = [*definition.node, *(n for f in definition.library.function for n in f.node_def)]
    for node in nodes:
        for shape in node.attr["_output_shapes"].list.shape:
            size = tf.TensorShape(shape).num_elements()
            # A handle is a scalar, whatever it stands for.
            yield f"{node.op} {node.name}", size or 0


@one_or_both
def test_the_work_of_a_step_does_not_depend_on_the_number_of_classes(kind: type):
    # Only a mirrored variable is read as a whole by what reads others by row.
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        network, classifier = sampled(kind, negatives=7, classes=MANY)
    tables = [classifier.rows, classifier.bias, *network.partial_fc.slots]
    # Matrix and bias with one slot each under SGD, two under AdamW.
    assert len(tables) == {"LayerwiseSGD": 4, "LayerwiseAdamW": 6}[kind.__name__]
    step = tf.function(lambda batch: strategy.run(network.train_step, (batch,)))
    graph = step.get_concrete_function(next(iter(batches(1)))).graph
    for table in tables:
        assert table.shape[0] == MANY
        (copy,) = table.value.values
        (handle,) = (inner for outer, inner in graph.captures if outer is copy.handle)
        assert {operation.type for operation in handle.consumers()} == BY_ROW, table.path
    found = list(sizes(graph))
    assert len(found) > 300
    assert [name for name, size in found if size >= MANY] == []


# --- runs -----------------------------------------------------------------------------------------

# By AdamW over cached features, with mining: a mined caption brings a class of its own.
SAMPLED = {
    "model__sampled_negatives": 10,
    "stage1__loss__pair": 1.0,
    "stage1__loss__negatives": "mined",
    "stage1__loss__candidates": 8,
    "stage2__epochs": 0,
}


@pytest.mark.full
def test_a_run_is_evaluated_and_one_that_is_stopped_ends_as_if_nothing_had_happened(
    scenes: Path, tmp_path: Path
):
    run, copy = tmp_path / "run", tmp_path / "stopped"
    train(config(**SAMPLED), scenes, run)
    first, _ = history(run)
    assert float(first["val_rsum"]) > 0
    # Sixteen of 48 classes, two of them those of mined captions: a guess costs ln 16 at most.
    assert float(first["image_logits_loss"]) < 1.1 * np.log(16)
    assert evaluate.main(["--run", str(run), "--data", str(scenes), "--split", "test"]) == 0
    assert tuple(load_run(run).model.classifier.rows.shape) == (48, 8)

    asked = iter([False] * 6)
    with pytest.raises(Stopped), run_context(stop_requested=lambda: next(asked, True)):
        train(config(**SAMPLED), scenes, copy)
    assert 0 < steps_done(copy, 1) < 12
    train(config(**SAMPLED), scenes, copy, resume=True)
    assert differences(run, copy) == []
