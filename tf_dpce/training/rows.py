"""All rows of the classifier and their slots, of which a step takes a few and puts them back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tf_dpce.models.dual_path import RowClassifier
from tf_dpce.training.idle import IdleSteps
from tf_dpce.training.optimizers import LayerwiseAdamW, LayerwiseSGD

# What is added to the logits of a place without a class.
_ABSENT = -1e9
# Rows that are settled at once: a few hundred MiB at the recipe's 2,048 dimensions.
_SETTLED = 16_384


@dataclass(frozen=True)
class _Part:
    """Matrix or bias: for all classes, and in the places of a step. First itself, then slots."""

    whole: list[keras.Variable]
    placed: list[keras.Variable]
    idle: IdleSteps


class RowStore:
    """Loads rows as if all steps since they were last taken had passed over them one by one.

    Steps without a gradient still decay a row, and it still moves by its momentum. That is made
    up for when a row is taken, in one product; until then neither the row nor its slots nor
    those of any other row are read or written. Built in the scope of the strategy.

    Args:
        classifier: of all classes.
        placed: the classifier that is trained, of the classes of a step.
        optimizer: built over what is trained.
        rates: float64 `[T]`, the learning rate of every step.
    """

    def __init__(
        self,
        classifier: RowClassifier,
        placed: RowClassifier,
        optimizer: LayerwiseSGD | LayerwiseAdamW,
        rates: np.ndarray,
    ) -> None:
        self._optimizer = optimizer
        self._absence = placed.absence
        self._places = placed.num_instances
        self._strategy = tf.distribute.get_strategy()
        pairs = [(classifier.rows, placed.rows), (classifier.bias, placed.bias)]
        self._parts = [_part(*pair, optimizer, rates) for pair in pairs if pair[0] is not None]
        # Steps that are done to each row.
        self._done = _zeros((classifier.num_instances,), "int64", "done")
        self._settle = tf.function(self._settle_rows)

    @property
    def variables(self) -> list[keras.Variable]:
        """What a run resumes from beside the classifier itself."""
        return [self._done, *(slot for part in self._parts for slot in part.whole[1:])]

    def load(self, ids: tf.Tensor, step: tf.Tensor) -> None:
        """Puts rows and slots of classes int64 `[N]` in the first places, up to date for a step."""
        free = self._places - tf.size(ids)
        padded = tf.ensure_shape(tf.pad(ids, [[0, free]]), [self._places])
        values = [value for part in self._parts for value in self._current(part, padded, step)]
        # Places without a class hold the row of class 0, out of reach.
        absence = tf.concat([tf.zeros([tf.size(ids)]), tf.fill([free], _ABSENT)], axis=0)
        placed = [variable for part in self._parts for variable in part.placed]
        _on_each_replica(_assign, [*placed, self._absence], [*values, absence])

    def put_back(self, ids: tf.Tensor, step: tf.Tensor) -> None:
        """Writes what the places of classes int64 `[N]` hold after a step."""
        count = tf.size(ids)
        values = [variable.value[:count] for part in self._parts for variable in part.placed]
        self._write(ids, values, step + 1)

    def settle(self, step: int) -> None:
        """Brings every row and its slots up to date for a step, from outside of one."""
        for first in range(0, self._done.shape[0], _SETTLED):
            self._settle(tf.constant(first, tf.int64), tf.constant(step, tf.int64))

    def _settle_rows(self, first: tf.Tensor, step: tf.Tensor) -> None:
        ids = tf.range(first, tf.minimum(first + _SETTLED, self._done.shape[0]))

        def on_replica() -> None:
            values = [value for part in self._parts for value in self._current(part, ids, step)]
            self._write(ids, values, step)

        self._strategy.run(on_replica)

    def _current(self, part: _Part, ids: tf.Tensor, step: tf.Tensor) -> list[tf.Tensor]:
        """Returns rows and slots of classes as steps without a gradient would leave them."""
        weight, *slots = (_gather(variable, ids) for variable in part.whole)
        since = _gather(self._done, ids)
        shape = [-1] + [1] * (len(part.whole[0].shape) - 1)
        product = [tf.reshape(entry, shape) for entry in part.idle(since, step)]
        missed = tf.reshape(tf.cast(step - since, tf.float32), shape)
        weight, slots = self._optimizer.idle(weight, slots, product, missed)
        return [weight, *slots]

    def _write(self, ids: tf.Tensor, values: list[tf.Tensor], done: tf.Tensor) -> None:
        whole = [variable for part in self._parts for variable in part.whole]
        updates = [*values, tf.fill(tf.shape(ids), done)]
        _on_each_replica(_scatter, [*whole, self._done], [(ids, update) for update in updates])


def _part(
    whole: keras.Variable,
    placed: keras.Variable,
    optimizer: LayerwiseSGD | LayerwiseAdamW,
    rates: np.ndarray,
) -> _Part:
    slots = optimizer.slots(placed)
    all_slots = [_zeros(whole.shape, "float32", slot.name) for slot in slots]
    idle = IdleSteps(optimizer.idle_steps(placed, rates))
    return _Part([whole, *all_slots], [placed, *slots], idle)


def _zeros(shape: Sequence[int], dtype: str, name: str) -> keras.Variable:
    return keras.Variable(
        lambda shape, dtype: ops.zeros(shape, dtype), shape, dtype, trainable=False, name=name
    )


def _on_each_replica(
    change: Callable[..., Any], variables: Sequence[keras.Variable], values: Sequence[Any]
) -> None:
    """Changes the copy of each variable on each replica by the value that this replica has."""

    def merged(strategy: tf.distribute.Strategy, *values: Any) -> None:
        for variable, value in zip(variables, values, strict=True):
            strategy.extended.update(variable.value, change, args=(value,))

    tf.distribute.get_replica_context().merge_call(merged, args=tuple(values))


def _gather(variable: keras.Variable, ids: tf.Tensor) -> tf.Tensor:
    """Returns rows of this replica's copy; `tf.gather` would read all of a mirrored variable."""
    return tf.raw_ops.ResourceGather(resource=variable.handle, indices=ids, dtype=variable.dtype)


def _assign(variable: tf.Variable, value: tf.Tensor) -> None:
    variable.assign(value)


def _scatter(variable: tf.Variable, update: tuple[tf.Tensor, tf.Tensor]) -> None:
    ids, rows = update
    variable.scatter_update(tf.IndexedSlices(rows, ids))
