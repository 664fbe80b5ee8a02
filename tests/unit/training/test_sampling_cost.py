"""What a step of the sampled classifier costs does not grow with the number of classes."""

from __future__ import annotations

from collections.abc import Iterator

import keras
import pytest
import tensorflow as tf

from tests.unit.training.test_sampling import OPTIMIZERS, batches, sampled

# A prime, and more than all else that a step of 11 places and 6 dimensions holds.
CLASSES = 10_007
# They read and write the rows that they are given, and no others.
BY_ROW = {"ResourceGather", "ResourceScatterUpdate"}


def traced_step(kind: type) -> tuple[tf.Graph, list[keras.Variable]]:
    """The graph of a step on one replica of several, and the variables of a row for each class."""
    # Only a mirrored variable is read as a whole by what reads others by row.
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        network, classifier = sampled(kind, negatives=7, classes=CLASSES)
    whole = [classifier.rows, classifier.bias, *network.store.variables]
    assert all(variable.shape[0] == CLASSES for variable in whole)
    step = tf.function(lambda batch: strategy.run(network.train_step, (batch,)))
    return step.get_concrete_function(next(iter(batches(1)))).graph, whole


def users(graph: tf.Graph, variable: keras.Variable) -> set[str]:
    """The kinds of operations that are given a variable; a function within the graph is one."""
    (copy,) = variable.value.values
    (handle,) = (inner for outer, inner in graph.captures if outer is copy.handle)
    return {operation.type for operation in handle.consumers()}


def sizes(graph: tf.Graph) -> Iterator[tuple[str, int]]:
    """Name and size of every value in a graph and in the functions within it."""
    definition = graph.as_graph_def(add_shapes=True)
    nodes = [*definition.node, *(n for f in definition.library.function for n in f.node_def)]
    for node in nodes:
        for shape in node.attr["_output_shapes"].list.shape:
            size = tf.TensorShape(shape).num_elements()
            # A handle is a scalar, whatever it stands for.
            yield f"{node.op} {node.name}", size or 0


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_step_touches_the_classifier_and_its_slots_by_row_alone(kind: type):
    graph, whole = traced_step(kind)
    # Matrix and bias with one slot each under SGD, two under AdamW, and the steps done.
    assert len(whole) == {"LayerwiseSGD": 5, "LayerwiseAdamW": 7}[kind.__name__]
    for variable in whole:
        assert users(graph, variable) == BY_ROW, variable.path


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_nothing_in_a_step_is_as_large_as_the_number_of_classes(kind: type):
    graph, _ = traced_step(kind)
    found = list(sizes(graph))
    assert len(found) > 300
    assert [name for name, size in found if size >= CLASSES] == []
