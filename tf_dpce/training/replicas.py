"""What makes N replicas train the model that one would: rows, negatives and statistics of all."""

from __future__ import annotations

import keras
import tensorflow as tf

from tf_dpce.models.layers import RowDropout


def share_over_replicas(model: keras.Model) -> None:
    """Makes dropout and BatchNorm of a model see the global batch, where there is more than one.

    Call it within the scope of the strategy, before the model is compiled.
    """
    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        return
    for layer in model._flatten_layers():
        if isinstance(layer, RowDropout):
            layer.rows = own_rows
        elif isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True


def own_rows(count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the first place in the global batch of this replica's rows, and its size.

    A batch is cut into slices of one size, in the order of the replicas.

    Args:
        count: rows of this replica.
    """
    context = tf.distribute.get_replica_context()
    if context is None:
        return tf.zeros_like(count), count
    return context.replica_id_in_sync_group * count, context.num_replicas_in_sync * count


def gather_rows(rows: tf.Tensor) -> tf.Tensor:
    """Returns the rows of all replicas `[N * B, ...]`, those of this replica first.

    Gradients flow back to the replica that a row comes from.

    Args:
        rows: of this replica, `[B, ...]`.
    """
    context = tf.distribute.get_replica_context()
    # There is none while Keras builds a model from shapes alone.
    if context is None or context.num_replicas_in_sync == 1:
        return rows
    first, _ = own_rows(tf.shape(rows)[0])
    return tf.roll(context.all_gather(rows, axis=0), -first, axis=0)
