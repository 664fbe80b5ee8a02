"""Hard-negative mining of captions: the nearest wrong captions of a few hundred (authors' code)."""

from __future__ import annotations

import keras
import tensorflow as tf
from keras import ops

from tf_dpce.data.caption_table import CaptionTable
from tf_dpce.data.index_shuffle import pick
from tf_dpce.models.dual_path import DualPath
from tf_dpce.preprocessing.tokenizer import position_shift

# The data order folds 0 and 1 into the same seed.
_STREAM = 2


class HardNegatives:
    """Replaces the paired negative captions of a batch by mined ones.

    Of a batch, rows `2k` are anchors and row `2k + 1` is the paired negative of the row before it.
    Its caption is replaced by the candidate whose embedding, computed in test mode, is nearest to
    the anchor's image. The mined caption keeps the label of its own image in the instance loss.

    A candidate of an instance that occurs anywhere in the global batch is left out, as in the
    authors' code for Flickr30k. If none is left, the paired captions stay.

    The candidates of a step are drawn with replacement, as a function of (seed, step). Every
    replica draws the same, so that what is mined does not depend on the number of replicas.

    Args:
        captions: captions of the training split.
        count: number of candidates that each step draws.
        shift: whether candidates are moved to random token positions.
        seed: seed of the draws.
    """

    def __init__(self, captions: CaptionTable, count: int, shift: bool, seed: int) -> None:
        self.count = count
        self.shift = shift
        self.seed = seed
        self._ids = tf.constant(captions.ids)
        self._first = tf.constant(captions.first)
        self._instances = tf.constant(captions.instances)

    def draw(self, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the candidates of a step: ids int32 `[C, T]` and instances int64 `[C]`."""
        key = tf.random.experimental.stateless_fold_in([self.seed, _STREAM], step)
        draws = tf.random.stateless_uniform([3, self.count], key)
        images = tf.size(self._instances, tf.int64)
        rows = pick(draws[0], tf.fill([self.count], images))
        first = tf.gather(self._first, rows)
        chosen = first + pick(draws[1], tf.gather(self._first, rows + 1) - first)
        ids = tf.gather(self._ids, chosen)
        ids = position_shift(ids, draws[2]) if self.shift else ids
        return ids, tf.gather(self._instances, rows)

    def replace_paired(
        self, model: DualPath, step: tf.Tensor, inputs: dict, targets: dict
    ) -> tuple[dict, dict]:
        """Returns a batch with mined captions, and their labels, in its odd rows.

        Args:
            model: model whose embeddings decide.
            step: int64 scalar.
            inputs: `image` `[B, ...]` and `text` int32 `[B, T]` of this replica.
            targets: targets of this replica, with `pair` int64 `[B, 2]`, instance and role.
        """
        ids = targets["pair"][:, 0]
        paired = (inputs["text"][1::2], ids[1::2])
        captions, instances = self._mine(model, step, inputs["image"][0::2], ids, paired)
        inputs = {**inputs, "text": _interleave(inputs["text"][0::2], captions)}
        if "text_logits" in targets:
            targets = {**targets, "text_logits": _interleave(ids[0::2], instances)}
        return inputs, targets

    def _mine(
        self,
        model: DualPath,
        step: tf.Tensor,
        images: tf.Tensor,
        batch_ids: tf.Tensor,
        paired: tuple[tf.Tensor, tf.Tensor],
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns ids `[A, T]` and instances `[A]` of a wrong caption for each of A anchors."""
        captions, instances = self.draw(step)
        all_ids = tf.distribute.get_replica_context().all_gather(batch_ids, axis=0)
        banned = tf.reduce_any(instances[tf.newaxis, :] == all_ids[:, tf.newaxis], axis=0)
        scores = ops.matmul(
            _embed(model, model.image_tower, images),
            ops.transpose(_embed(model, model.text_tower, captions)),
        )
        # A cosine is never below -1.
        nearest = tf.argmax(tf.where(banned[tf.newaxis, :], -2.0, scores), axis=1)
        mined = (tf.gather(captions, nearest), tf.gather(instances, nearest))
        none_left = tf.reduce_all(banned)
        return tuple(tf.where(none_left, a, b) for a, b in zip(paired, mined, strict=True))


def _embed(model: DualPath, tower: keras.Model, inputs: tf.Tensor) -> tf.Tensor:
    """Returns the embeddings that the ranking loss compares, in test mode, without a gradient."""
    feature = tf.cast(tf.stop_gradient(tower(inputs, training=False)), tf.float32)
    return model.unit_length(ops.relu(feature) if model.relu_before_losses else feature)


def _interleave(even: tf.Tensor, odd: tf.Tensor) -> tf.Tensor:
    """Returns the rows of two tensors `[A, ...]` alternately, `[2A, ...]`."""
    return tf.reshape(tf.stack([even, odd], axis=1), [-1, *even.shape[1:]])
